"""penstock-tune: the verbs and their flags.

exit status 0   all is as wanted (or was done)
1   something is not
2   an error: the flags, the profile, a file, a program
3   something was refused as unsafe, and not done
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final, NoReturn

from penstock_host import completion, verbs
from penstock_host.checklist.catalogue import ITEM_IDS
from penstock_host.faults import HostError, UnsafeError
from penstock_host.host import Host
from penstock_host.measure import cli as measure_cli
from penstock_host.output import complain, say, say_json
from penstock_host.profile import SEVERITIES, load_profile
from penstock_host.report import cli as report_cli

OK: Final = 0
DRIFT: Final = 1
ERROR: Final = 2
UNSAFE: Final = 3
INTERRUPTED: Final = 130  # As shells have it.

EXAMPLES: Final = """\
examples:
  penstock-tune check                          how this host stands, read alone
  penstock-tune check --only C5,I --json       one item and one group, for programs
  penstock-tune plan --hot-cores 2-5           the shell that apply would be, to paste
  sudo penstock-tune apply --severity must     set what matters most, and remember what was
  sudo penstock-tune revert                    put everything back
  penstock-tune explain C7                     what an item is, and what it can break
  penstock-tune measure jitter --hot --label before     how quiet the hot cores are
  penstock-tune report --out host.html         all of it as one page
  eval "$(penstock-tune completion)"

exit status: 0 all as wanted, 1 not, 2 an error, 3 refused as unsafe
"""


class UsageError(HostError):
    """The words of a command make no sense.

    Attributes:
        usage: of the verb, as people read it.
    """

    def __init__(self, sentence: str, usage: str) -> None:
        super().__init__(sentence)
        self.usage = usage


class Parser(argparse.ArgumentParser):
    """A parser that raises its faults, so that programs hear of them in JSON as of any other."""

    def error(self, message: str) -> NoReturn:
        """Raise UsageError, where argparse prints and ends."""
        raise UsageError(message, self.format_usage())


if TYPE_CHECKING:
    Subparsers = argparse._SubParsersAction[Parser]  # noqa: SLF001 (argparse has no public name)
    Register = Callable[[Subparsers], None]


def common_options() -> Parser:
    """Return the flags that every verb has, as a parent for a verb's parser."""
    common = Parser(add_help=False)
    common.add_argument("--profile", type=Path, metavar="FILE", help="TOML with the choices below, and thresholds")
    common.add_argument(
        "--root", type=Path, default=Path("/"), metavar="DIR", help="a tree of files instead of this host"
    )
    common.add_argument("--hot-cores", metavar="CPUS", help="cores of the pinned threads, such as 2-5")
    common.add_argument("--nic", metavar="NAME", help="the port that carries ticks")
    common.add_argument("--gpu", metavar="GPU", help="a number, or an address such as 0000:3b:00.0")
    common.add_argument("--only", metavar="IDS", help="these items alone, such as C5,I2; a letter is a group")
    common.add_argument("--skip", metavar="IDS", help="not these items")
    common.add_argument("--severity", choices=SEVERITIES, help="items that matter at least so much")
    common.add_argument("--json", action="store_true", help="for programs")
    common.add_argument("--explain", metavar="ID", help="explain an item instead")
    return common


def host_of(options: argparse.Namespace) -> Host:
    """Return the host that the common flags describe.

    Raises:
        HostError: a flag or the profile is wrong.
    """
    flags = {name: getattr(options, name) for name in ("hot_cores", "nic", "gpu", "only", "skip", "severity")}
    profile = load_profile(options.profile, flags, ITEM_IDS)
    if not options.root.is_dir():
        raise HostError(f"--root: must be a folder, was {options.root}")
    return Host(options.root, profile=profile)


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of all verbs."""
    parser = Parser(
        prog="penstock-tune",
        description="Tune a colocated host for penstockd: look, plan, apply, take back, measure.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--explain", dest="explain_alone", metavar="ID", help="explain an item; as the verb explain")
    subparsers = parser.add_subparsers(title="verbs", dest="verb", metavar="VERB")
    for register in REGISTERS:
        register(subparsers)
    for name, verb in subparsers.choices.items():
        if not verb.epilog:
            examples = [line for line in EXAMPLES.splitlines() if f"penstock-tune {name}" in line]
            verb.epilog = "\n".join(["examples:", *examples])
            verb.formatter_class = argparse.RawDescriptionHelpFormatter
    return parser


def _register(subparsers: Subparsers) -> None:
    check = subparsers.add_parser("check", parents=[common_options()], help="say how the host stands; read alone")
    check.set_defaults(run=lambda options: verbs.check_verb(host_of(options), as_json=options.json))
    verbs_that_write = (
        ("plan", verbs.plan_verb, "print the shell that apply would be, to paste; read alone"),
        ("apply", verbs.apply_verb, "set what is not as wanted, and remember what was"),
        ("revert", verbs.revert_verb, "put back what apply changed since this boot"),
    )
    for name, verb, words in verbs_that_write:
        parser = subparsers.add_parser(name, parents=[common_options()], help=words, description=words)
        parser.add_argument(
            "--force", action="store_true", help="also what is unsafe while a daemon serves, or what others changed"
        )
        parser.set_defaults(run=_bind(verb))
    explain = subparsers.add_parser("explain", parents=[common_options()], help="say what an item is, and its risk")
    explain.add_argument("item", metavar="ID")
    explain.set_defaults(run=lambda options: verbs.explain_verb(host_of(options), options.item, as_json=options.json))

    shell = subparsers.add_parser("completion", help='print completion for bash: eval "$(penstock-tune completion)"')
    shell.set_defaults(run=_complete)


def _complete(options: argparse.Namespace) -> int:
    del options
    say(completion.script(build_parser()))
    return OK


def _bind(verb: Callable[..., int]) -> Callable[[argparse.Namespace], int]:
    return lambda options: verb(host_of(options), as_json=options.json, force=options.force)


# Each adds its verbs to the parser, with ``set_defaults(run=...)``: a function of the parsed flags to the exit status.
REGISTERS: Final[tuple[Register, ...]] = (_register, measure_cli.register, report_cli.register)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run penstock-tune; return its exit status."""
    parser = build_parser()
    words = sys.argv[1:] if arguments is None else list(arguments)
    try:
        options = parser.parse_args(words)
    except UsageError as fault:
        complain(f"{fault.usage}penstock-tune: {fault}")
        if any(len(word) > 2 and "--json".startswith(word) for word in words):  # argparse takes it cut short as well.
            verb = next((word for word in words if not word.startswith("-")), None)
            say_json({"verb": verb, "error": str(fault), "exit_status": ERROR})
        return ERROR
    if options.explain_alone:
        options = parser.parse_args(["explain", options.explain_alone])
    if options.verb is None:
        parser.print_help()
        return ERROR
    try:
        if options.verb != "explain" and getattr(options, "explain", None):
            status = verbs.explain_verb(host_of(options), options.explain, as_json=options.json)
        else:
            status = int(options.run(options))
        sys.stdout.flush()
    except HostError as fault:
        refused = isinstance(fault, UnsafeError)
        status = UNSAFE if refused else ERROR
        complain(f"penstock-tune: {'refused: ' if refused else ''}{fault}")
        if getattr(options, "json", False):
            say_json({"verb": options.verb, "error": str(fault), "exit_status": status})
    except KeyboardInterrupt:
        status = INTERRUPTED
    except BrokenPipeError:
        # The reader of our output has gone: nobody is left to tell, nor at the interpreter's last flush.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = ERROR
    return status
