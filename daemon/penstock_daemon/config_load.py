"""Reading a configuration: defaults, then a TOML file, then the environment, then ``--set``; the last one wins.

Every fault of every source is found before anything is raised, and a fault names the key, what it must be, what it
was, and where it came from. Whatever the sources hold, the outcome is a Config without a fault or one ConfigError.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, get_origin

from penstock_daemon.addresses import default_server_address
from penstock_daemon.config_budget import budget_faults
from penstock_daemon.config_feed import feed_faults
from penstock_daemon.config_fields import Config, ConfigError, Key, keys, section_types
from penstock_daemon.config_limits import forgetting_least, online_cpus, parse_cpu_ranges

FILE_BYTES_MAX: Final = 1024 * 1024
ENVIRONMENT_PREFIX: Final = "PENSTOCK_"

_INTEGER = re.compile(r"[+-]?[0-9](_?[0-9]){0,39}")
_FLOAT = re.compile(r"[+-]?[0-9](_?[0-9])*(\.[0-9]+)?([eE][+-]?[0-9]{1,3})?")
_SHOWN_CHARACTERS_MAX: Final = 80
_PATH_CHARACTERS_MAX: Final = 4096  # No path that can be opened is longer.
_INTEGER_BITS_MAX: Final = 128  # No key comes near; past it a value is only described, never printed.


@dataclass(frozen=True, slots=True)
class _Given:
    """A value that a source gives for a key, before it is checked."""

    value: object
    source: str
    is_text: bool  # From the environment or --set, where everything is text.


def load_config(
    path: Path | None,
    environ: Mapping[str, str],
    sets: Iterable[str],
    *,
    cpus: Collection[int] | None = None,
) -> Config:
    """Return the configuration that the sources give together.

    Args:
        path: a TOML file, or None.
        environ: names like PENSTOCK_SERVER__ADDRESS are read; those without "__" are none of ours.
        sets: texts like "server.address=unix:/run/penstock/penstock.sock".
        cpus: those that are online; None asks the kernel.

    Raises:
        ConfigError: with every fault that was found.
    """
    faults: list[str] = []
    known = {key.path: key for key in keys()}
    given: dict[str, _Given] = {}
    if path is not None:
        given.update(_from_file(path, known, faults))
    given.update(_from_environment(environ, known, faults))
    given.update(_from_sets(sets, known, faults))
    if "server.address" not in given or given["server.address"].value == "":
        given["server.address"] = _Given(default_server_address(environ), "", is_text=True)

    online = online_cpus() if cpus is None else cpus
    values: dict[str, Any] = {name: key.default for name, key in known.items()}
    for name, one in given.items():
        fault = None
        try:
            value = _typed(known[name], one)
        except ValueError as refusal:
            fault = str(refusal)
        else:
            fault = _limit_fault(known[name], value, online)
            values[name] = value
        if fault is not None:
            faults.append(f"{name}: {fault}, was {_shown_given(known[name], one)}{one.source}")
    faults.extend(_joint_faults(values) if not faults else ())
    if faults:
        raise ConfigError(tuple(faults))
    sections = {
        section: section_type(**{key.name: values[key.path] for key in known.values() if key.section == section})
        for section, section_type in section_types().items()
    }
    return Config(**sections)


def _from_file(path: Path, known: Mapping[str, Key], faults: list[str]) -> dict[str, _Given]:
    try:
        with path.open("rb") as file:
            content = file.read(FILE_BYTES_MAX + 1)
    except (OSError, ValueError) as refusal:  # ValueError: a zero byte in the path.
        reason = refusal.strerror if isinstance(refusal, OSError) and refusal.strerror else str(refusal)
        faults.append(f"{_shown_file(path)}: must be a readable configuration file: {reason}")
        return {}
    if len(content) > FILE_BYTES_MAX:
        faults.append(f"{_shown_file(path)}: must be a configuration file of at most {FILE_BYTES_MAX:_} bytes")
        return {}
    try:
        document = tomllib.loads(content.decode("utf-8"))
    except RecursionError:
        faults.append(f"{_shown_file(path)}: must be TOML without such deep nesting")
        return {}
    except ValueError as refusal:  # TOMLDecodeError and UnicodeDecodeError among them.
        faults.append(f"{_shown_file(path)}: must be TOML in UTF-8: {refusal}")
        return {}
    source = f" (in {path})"
    given: dict[str, _Given] = {}
    for section, table in document.items():
        if section not in section_types():
            names = [*section_types(), *known]
            faults.append(f"{_name(section)}: unknown section{_nearest(section, names)}{source}")
        elif not isinstance(table, dict):
            faults.append(f"{section}: must be a table, written [{section}], was {shown(table)}{source}")
        else:
            for name, value in table.items():
                key = f"{section}.{name}"
                if key in known:
                    given[key] = _Given(value, source, is_text=False)
                else:
                    faults.append(f"{section}.{_name(name)}: unknown key{_nearest(key, known)}{source}")
    return given


def _from_environment(environ: Mapping[str, str], known: Mapping[str, Key], faults: list[str]) -> dict[str, _Given]:
    by_variable = {key.variable: key.path for key in known.values()}
    given: dict[str, _Given] = {}
    for variable, text in environ.items():
        if not variable.startswith(ENVIRONMENT_PREFIX) or "__" not in variable:
            continue
        if variable in by_variable:
            given[by_variable[variable]] = _Given(text, f" (in {variable})", is_text=True)
        else:
            nearest = _nearest(variable.upper(), by_variable)
            faults.append(f"{_name(variable)}: no key has this variable{nearest} (in the environment)")
    return given


def _from_sets(sets: Iterable[str], known: Mapping[str, Key], faults: list[str]) -> dict[str, _Given]:
    given: dict[str, _Given] = {}
    for text in sets:
        name, equals, value = text.partition("=")
        name = name.strip()
        if not equals:
            faults.append(f"--set {shown(text)}: must be key=value, such as engine.idle=spin")
        elif name in known:
            given[name] = _Given(value.strip(), " (in --set)", is_text=True)
        else:
            faults.append(f"{_name(name)}: unknown key{_nearest(name, known)} (in --set)")
    return given


def _typed(key: Key, given: _Given) -> Any:
    """Return the value as the key's Python type; ValueError holds a clause that begins with "must"."""
    value = given.value
    if key.choices:
        if value not in key.choices:
            raise ValueError("must be " + " or ".join(f'"{choice}"' for choice in key.choices))
        return value
    if key.kind is str:
        if not isinstance(value, str):
            raise ValueError('must be text in quotes, such as "name"')
        return _sound_text(value)
    if key.kind is bool:
        if given.is_text and value in ("true", "false"):
            return value == "true"
        if not isinstance(value, bool):
            raise ValueError("must be true or false")
        return value
    if key.kind is int:
        return _whole_number(value, is_text=given.is_text)
    if key.kind is float:
        return _number(value, is_text=given.is_text)
    assert get_origin(key.kind) is tuple, f"a key of an unforeseen type: {key.path}"
    return _cpu_list(value, is_text=given.is_text)


def _sound_text(text: str) -> str:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise ValueError("must be UTF-8") from None
    return text


def _whole_number(value: object, *, is_text: bool) -> int:
    if is_text and isinstance(value, str) and _INTEGER.fullmatch(value):
        return int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError("must be a whole number")  # noqa: TRY004 - one kind of refusal, gathered by the caller.
    return value


def _number(value: object, *, is_text: bool) -> float:
    if is_text and isinstance(value, str) and _FLOAT.fullmatch(value):
        return float(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError("must be a number")  # noqa: TRY004 - as above.
    try:
        return float(value)
    except OverflowError:
        raise ValueError("must be a smaller number") from None


def _cpu_list(value: object, *, is_text: bool) -> tuple[int, ...]:
    if is_text and isinstance(value, str):
        try:
            return parse_cpu_ranges(value)
        except ValueError as refusal:
            raise ValueError(f'must be CPU numbers such as "2,3" or "2-5" ({refusal})') from None
    if not isinstance(value, list) or not all(isinstance(cpu, int) and not isinstance(cpu, bool) for cpu in value):
        raise ValueError("must be a list of CPU numbers, such as [2, 3]")
    return tuple(value)


def _limit_fault(key: Key, value: object, cpus: Collection[int]) -> str | None:
    return key.limit.fault(value, cpus) if key.limit is not None else None


def _joint_faults(values: Mapping[str, Any]) -> Iterable[str]:
    """Yield what is wrong with values that are each sound but don't go together."""
    yield from budget_faults(values)
    yield from feed_faults(values)
    if values["online.enabled"] and values["online.states"] == 0:
        yield "online.states: must be at least 1 where online.enabled is true, was 0"
    forgetting, least = values["online.forgetting"], forgetting_least(values["online.units"])
    if forgetting < least:
        yield (
            f"online.forgetting: must be at least {least:.6f} where online.units is {values['online.units']} (its memory "
            f"must hold 8 labels for each number that it looks at), was {forgetting}"
        )
    dense, units = values["models.dense_units_max"], values["models.units_max"]
    if dense > units:
        yield f"models.dense_units_max: must be at most models.units_max ({units}), was {dense}"
    mode, transfer = values["engine.device_mode"], values["engine.device_transfer"]
    if mode == "resident" and transfer == "copied":
        yield (
            'engine.device_transfer: must be "staged" or "in_place" where engine.device_mode is "resident" (no graph runs '
            'that could copy), was "copied"'
        )
    engine_cores, server_cores = set(values["engine.cores"]), set(values["server.cores"])
    if values["engine.idle"] == "spin" and len(engine_cores) == 1 and engine_cores == server_cores:
        yield (
            'engine.cores: must not be the only CPU of server.cores while engine.idle is "spin" (the engine would '
            f'starve the server; use idle = "block"), was {shown(sorted(engine_cores))}'
        )


def _nearest(name: str, candidates: Iterable[str]) -> str:
    nearest = difflib.get_close_matches(name[:200], list(candidates), n=1, cutoff=0.5)
    return f"; did you mean {nearest[0]}?" if nearest else "; --print-config shows every key"


def _name(text: str) -> str:
    """Return a name as it was written where that is printable and short, else shown as a value."""
    return text if re.fullmatch(r"[\w.-]{1,80}", text, re.ASCII) else shown(text)


def _shown_given(key: Key, given: _Given) -> str:
    """Return a given value as its source wrote it: numbers from text sources have no quotes there."""
    value = given.value
    plain = given.is_text and isinstance(value, str) and value.isascii() and value.isprintable() and value.strip()
    return str(value) if plain and key.kind is not str and len(str(value)) < 40 else shown(value)


def _shown_file(path: Path) -> str:
    """Return a file's name for a sentence: quoted and printable, whole, as its end is what tells it from others."""
    return repr(str(path)[-_PATH_CHARACTERS_MAX:])


def shown(value: object) -> str:
    """Return *value* for a sentence: TOML's way of writing it, one line, printable, shortened."""
    if isinstance(value, bool):
        text = "true" if value else "false"
    elif isinstance(value, int) and value.bit_length() > _INTEGER_BITS_MAX:
        text = f"a whole number of {value.bit_length()} bits"
    elif isinstance(value, list):
        text = (
            "[" + ", ".join(shown(item) for item in value[:_SHOWN_CHARACTERS_MAX] if not isinstance(item, list)) + "]"
        )
    elif isinstance(value, dict):
        text = "a table"
    elif isinstance(value, str):
        text = repr(value[: _SHOWN_CHARACTERS_MAX + 1])
    else:
        text = str(value)  # A float, or a date of TOML's.
    return text if len(text) <= _SHOWN_CHARACTERS_MAX else text[: _SHOWN_CHARACTERS_MAX - 3] + "..."
