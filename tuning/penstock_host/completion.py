"""completion: a script for bash, made from the parser itself, so that it knows every verb, flag and item.

eval "$(penstock-tune completion)"
"""

from __future__ import annotations

import argparse

from penstock_host.checklist.catalogue import ITEM_IDS

_SCRIPT = """\
# Completion of penstock-tune for bash (zsh: after autoload -U bashcompinit && bashcompinit).
_penstock_tune() {{
    local word="${{COMP_WORDS[COMP_CWORD]}}" before="${{COMP_WORDS[COMP_CWORD-1]}}" verb="${{COMP_WORDS[1]}}"
    local words=""
    case "$before" in
        --only|--skip|--explain|explain) words="{items}" ;;
{choices}
        --root) COMPREPLY=($(compgen -d -- "$word")); return ;;
        --profile|--output) COMPREPLY=($(compgen -f -- "$word")); return ;;
        *)
            case "$verb" in
{verbs}
            esac
            [ "$COMP_CWORD" = 1 ] && words="{names}"
            ;;
    esac
    COMPREPLY=($(compgen -W "$words" -- "$word"))
}}
complete -F _penstock_tune penstock-tune"""


def script(parser: argparse.ArgumentParser) -> str:
    """Return the script for *parser* with its verbs."""
    verbs = _verbs(parser)
    choices: dict[str, str] = {}
    lines = []
    for name, verb in verbs.items():
        words = [*_flags(verb, choices)]
        for inner_name, inner in _verbs(verb).items():
            words += [inner_name, *_flags(inner, choices)]
        lines.append(f'                {name}) words="{" ".join(dict.fromkeys(words))}" ;;')
    return _SCRIPT.format(
        items=" ".join(ITEM_IDS),
        choices="\n".join(f'        {flag}) words="{words}" ;;' for flag, words in choices.items()),
        verbs="\n".join(lines),
        names=" ".join(verbs),
    )


def _verbs(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    for action in parser._actions:  # noqa: SLF001 (argparse tells of its actions nowhere else)
        if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001
            return dict(action.choices)
    return {}


def _flags(parser: argparse.ArgumentParser, choices: dict[str, str]) -> list[str]:
    flags = []
    for action in parser._actions:  # noqa: SLF001
        long = [flag for flag in action.option_strings if flag.startswith("--")]
        flags += long
        if long and action.choices:
            choices[long[0]] = " ".join(map(str, action.choices))
    return flags
