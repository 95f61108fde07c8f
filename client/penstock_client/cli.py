"""``penstock``: the command of strategies and of people who replay recorded ticks.

Each command's work lives in a file of its own and loads what it needs when it runs: ``penstock --help`` needs nothing
but Python. A person never sees a traceback: what can go wrong is a sentence and an exit code (exits.py).
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from importlib import metadata
from typing import Final

EXAMPLES: Final = """\
examples:
  penstock health
  penstock inspect day.mbp-1.dbn.zst
  penstock replay day.mbp-1.dbn.zst --start-busiest --seconds 30 --report report.html
  eval "$(penstock completion bash)"

penstock COMMAND --help tells more, with examples."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line, that of the process where *arguments* is None. Returns the exit code."""
    code = run_command(arguments)
    replay = sys.modules.get("penstock_client.replay")
    if arguments is None and replay is not None and replay.left_behind():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    return code


def run_command(arguments: Sequence[str] | None) -> int:
    """Run one command and return its exit code."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # A terminal without "µ" gets a question mark, not a traceback.
    parser = build_parser()
    options = parser.parse_args(arguments)
    from penstock_client.errors import PenstockError
    from penstock_client.exits import Exit, complain, exit_code_of

    try:
        code = int(options.run(options))
        sys.stdout.flush()
    except PenstockError as error:
        complain(str(error))
        return exit_code_of(error)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # The reader left; nothing more to say to it.
        return Exit.DONE
    except KeyboardInterrupt:
        return 130
    except MemoryError:
        complain("there is not enough memory for these files: take smaller ones")
        return Exit.BAD_INPUT
    except Exception as error:
        if os.environ.get("PENSTOCK_TRACEBACK"):
            raise
        complain(f"this is a fault of penstock's own: {error!r}; report it with what PENSTOCK_TRACEBACK=1 shows")
        return Exit.OUR_FAULT
    return code


def build_parser() -> argparse.ArgumentParser:
    """Return the parser with every command."""
    from penstock_client.completion import add_completion
    from penstock_client.daemon_commands import add_daemon_commands
    from penstock_client.feed_command import add_feed
    from penstock_client.file_commands import add_file_commands
    from penstock_client.latency_command import add_latency
    from penstock_client.replay_command import add_replay
    from penstock_client.subscribe_command import add_subscribe
    from penstock_client.top_command import add_top

    parser = argparse.ArgumentParser(
        prog="penstock",
        description="Replays recorded market ticks through a penstock daemon, and looks at files and daemons.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=_version())
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    add_replay(commands)
    add_file_commands(commands)
    add_daemon_commands(commands)
    add_latency(commands)
    add_top(commands)
    add_feed(commands)
    add_subscribe(commands)
    version = commands.add_parser("version", help="say which versions are at work")
    version.set_defaults(run=_run_version)
    completion = add_completion(commands, parser.prog)
    completion.set_defaults(run=lambda options: _run_completion(options, parser))
    return parser


def _version() -> str:
    try:
        return f"penstock {metadata.version('penstock')}"
    except metadata.PackageNotFoundError:
        return "penstock of an unknown version"


def _run_version(_options: argparse.Namespace) -> int:
    from penstock_client.machine import describe_machine, machine_line

    print(_version())
    print(machine_line(describe_machine()))
    return 0


def _run_completion(options: argparse.Namespace, parser: argparse.ArgumentParser) -> int:
    from penstock_client.completion import completion_script

    print(completion_script(options.shell, parser), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
