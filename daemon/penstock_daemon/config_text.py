"""The configuration as text: TOML with advice for ``--print-config``, and the page docs/configuration.md.

What ``render_toml`` writes, ``load_config`` reads back as an equal Config.

The page is made by ``python -m penstock_daemon.config_text > docs/configuration.md``; a test fails when it drifts.
"""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Iterator
from typing import Any, Final

from penstock_daemon.config_fields import Config, Key, keys, section_types
from penstock_daemon.config_limits import number_text

_COMMENT_WIDTH: Final = 110
_ESCAPES: Final = {'"': '\\"', "\\": "\\\\", "\b": "\\b", "\t": "\\t", "\n": "\\n", "\f": "\\f", "\r": "\\r"}

_PAGE_HEAD: Final = """\
# Configuration

<!-- Made by `python -m penstock_daemon.config_text > docs/configuration.md`; edit daemon/penstock_daemon/config_fields.py. -->

`penstockd` needs no configuration. What it is told comes from four places, and the last one wins:

1. the defaults below;
2. one TOML file: `penstockd --config FILE`;
3. the environment: `PENSTOCK_ENGINE__IDLE=spin` (section and key in capitals, two underscores between them);
4. flags: `penstockd --set engine.idle=spin`, as often as needed.

In the environment and in `--set` text needs no quotes, and CPUs are written `2,3` or `2-5`.
`penstockd --print-config` writes the configuration in force as a TOML file with all of this advice in it;
`penstockd --check` says what is wrong with one, every fault at once, and exits with 2 if anything is.
It loads no model and takes nothing: whether `models.active` can be read and fits, and whether a GPU, memory, addresses, network
interfaces, groups and folders can be had, is found out when the daemon starts.
An unknown key is a fault, and names the nearest known one. So is an environment variable that begins with `PENSTOCK_`
and holds `__` but belongs to no key.

A file may be as short as

```toml
[server]
address = "unix:/run/penstock/penstock.sock"

[engine]
cores = [3]
idle = "spin"
```
"""


def render_toml(config: Config) -> str:
    """Return *config* as a TOML file, with a comment per key that says its limit and its advice."""
    lines = [
        "# penstockd's configuration in force. Every key may be left out.",
        "# Each can be overridden: PENSTOCK_ENGINE__IDLE=spin in the environment, --set engine.idle=spin as a flag.",
    ]
    for key in keys():
        if f"[{key.section}]" not in lines:
            lines += ["", f"[{key.section}]"]
        limit = key.limit_words()
        lines += _comment(f"{key.advice} ({limit}.)" if limit else key.advice)
        lines.append(f"{key.name} = {toml_value(_value(config, key))}")
    return "\n".join(lines) + "\n"


def render_page() -> str:
    """Return docs/configuration.md."""
    return "\n".join(_page_lines())


def _page_lines() -> Iterator[str]:
    yield _PAGE_HEAD
    for section, section_type in section_types().items():
        yield f"## {section}"
        yield ""
        yield (section_type.__doc__ or "").strip()
        yield ""
        yield "| key | default | may be | what it does |"
        yield "|---|---|---|---|"
        for key in keys():
            if key.section == section:
                limit = key.limit_words() or _kind_words(key)
                default = "automatic" if key.path == "server.address" else f"`{toml_value(key.default)}`"
                yield f"| `{key.path}` | {default} | {_cell(limit)} | {_cell(key.advice)} |"
        yield ""


def toml_value(value: Any) -> str:
    """Return *value* as TOML writes it: str, bool, int, float or a tuple of int."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return '"' + "".join(_escaped(character) for character in value) + '"'
    if isinstance(value, tuple):
        return "[" + ", ".join(toml_value(item) for item in value) + "]"
    return number_text(value)


def _escaped(character: str) -> str:
    if character in _ESCAPES:
        return _ESCAPES[character]
    return f"\\u{ord(character):04x}" if ord(character) < 0x20 or ord(character) == 0x7F else character


def _value(config: Config, key: Key) -> Any:
    return getattr(getattr(config, key.section), key.name)


def _comment(text: str) -> list[str]:
    return textwrap.wrap(text, _COMMENT_WIDTH, initial_indent="# ", subsequent_indent="# ", break_long_words=False)


def _kind_words(key: Key) -> str:
    return {str: "text", bool: "true or false", int: "a whole number", float: "a number"}[key.kind]


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    sys.stdout.write(render_page())
