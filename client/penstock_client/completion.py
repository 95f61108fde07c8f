"""``completion`` of penstock, penstock-train and penstock-bench: a script for the shell.

It is made from the command's parser, so that it never knows less than the command.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Final

SHELLS: Final = ("bash", "zsh")

_BASH: Final = """\
# {prog} completion for bash: eval "$({prog} completion bash)"
_{name}() {{
    local word="${{COMP_WORDS[COMP_CWORD]}}" path="" index
    for ((index = 1; index < COMP_CWORD; index++)); do
        case "${{COMP_WORDS[index]}}" in -*) break ;; esac
        case "$path ${{COMP_WORDS[index]}}" in {paths}) path="$path ${{COMP_WORDS[index]}}" ;; *) break ;; esac
    done
    case "$path" in
{cases}
    esac
}}
complete -o default -o bashdefault -F _{name} {prog}
"""


def add_completion(commands: argparse._SubParsersAction[argparse.ArgumentParser], prog: str) -> argparse.ArgumentParser:
    """Add the command that asks for the script of *prog* to *commands*; the shell will be in ``shell``."""
    command = commands.add_parser(
        "completion",
        help="print a script that completes commands in a shell",
        epilog=f'examples:\n  eval "$({prog} completion bash)"',
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.add_argument("shell", choices=SHELLS)
    return command


def completion_script(shell: str, parser: argparse.ArgumentParser) -> str:
    """Return the script for *shell*, one of SHELLS; zsh runs bash's through bashcompinit."""
    words = dict(_walk(parser, ""))
    cases = "\n".join(
        f'        "{path}") COMPREPLY=($(compgen -W "{" ".join(options)}" -- "$word")) ;;'
        for path, options in words.items()
    )
    paths = "|".join(f'"{path}"' for path in words if path)
    script = _BASH.format(prog=parser.prog, name=parser.prog.replace("-", "_"), paths=paths, cases=cases)
    if shell == "zsh":
        script = script.replace("for bash", "for zsh").replace("completion bash)", "completion zsh)")
        return f"autoload -U +X bashcompinit && bashcompinit\n{script}"
    return script


def _walk(parser: argparse.ArgumentParser, path: str) -> Iterator[tuple[str, list[str]]]:
    """Yield each command's path (" replay") and the words that may follow it."""
    words: list[str] = []
    below: list[tuple[str, argparse.ArgumentParser]] = []
    for action in parser._actions:  # noqa: SLF001 - argparse has no other way to ask a parser what it takes.
        words += [word for word in action.option_strings if word.startswith("--")]
        if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001 - As above.
            words += list(action.choices)
            below += list(action.choices.items())
        elif action.choices and not action.option_strings:
            words += [str(choice) for choice in action.choices]
    yield path, words
    for name, child in below:
        yield from _walk(child, f"{path} {name}")
