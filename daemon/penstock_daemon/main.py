"""penstockd: the command that starts the daemon.

exit 0   stopped as asked            exit 1   the engine was lost while serving
exit 2   can't start: a fault of the configuration, the model, the address or a limit, in one sentence
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import signal
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Final

EXAMPLES: Final = """\
examples:
  penstockd                                            the demonstration model on the default Unix socket
  penstockd --config /etc/penstock/penstockd.toml
  penstockd --set server.address=127.0.0.1:50051 --set models.active=btc.safetensors
  penstockd --set feed.group=239.1.2.3:26400 --set feed.interface=eth1 --set "feed.instruments=AAPL, MSFT"
  penstockd --record recordings                        keep every session's ticks as DBN files
  penstockd --print-config > penstockd.toml            every key, its default and its advice
  eval "$(penstockd --completion)"
"""
CHECKED: Final = (
    "the configuration has no fault; whether models, devices, interfaces and folders can be had is seen at the start"
)


# Of keys nothing follows but a value, so no blank.
COMPLETION: Final = """\
# penstockd completion for bash (zsh: after autoload -U bashcompinit && bashcompinit): eval "$(penstockd --completion)"
_penstockd() {{
    local word="${{COMP_WORDS[COMP_CWORD]}}"
    case "${{COMP_WORDS[COMP_CWORD-1]}}" in
        --set) compopt -o nospace 2>/dev/null; COMPREPLY=($(compgen -W "{keys}" -- "$word")) ;;
        --config|--record|=) COMPREPLY=() ;;
        *) COMPREPLY=($(compgen -W "{flags}" -- "$word")) ;;
    esac
}}
complete -o default -o bashdefault -F _penstockd penstockd
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command. Returns its exit code."""
    parser = argparse.ArgumentParser(
        prog="penstockd",
        description="Takes market ticks over gRPC, through shared memory or from a multicast feed, and gives predictions back.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--config", type=Path, metavar="FILE", help="TOML file; see --print-config")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="set one key, over file and environment"
    )
    parser.add_argument("--record", metavar="DIR", help="the same as --set record.folder=DIR")
    parser.add_argument("--print-config", action="store_true", help="print the configuration in force and exit")
    parser.add_argument(
        "--check",
        action="store_true",
        help="check the configuration and exit; whether models, devices, interfaces and folders can be had is seen at the start",
    )
    parser.add_argument("--version", action="version", version=f"penstockd {version('penstock')}")
    parser.add_argument(
        "--completion", action="store_true", help="print completion for bash of flags and keys, and exit"
    )
    options = parser.parse_args(arguments)

    from penstock_daemon.config import ConfigError, load_config, render_toml

    if options.completion:
        from penstock_daemon.config_fields import keys

        flags = re.findall(r"--[a-z-]+", parser.format_usage())
        names = (f"{key.section}.{key.name}=" for key in keys())
        print(COMPLETION.format(keys=" ".join(names), flags=" ".join(flags)), end="")
        return 0

    sets = [*options.set, *([f"record.folder={options.record}"] if options.record is not None else [])]
    try:
        config = load_config(options.config, os.environ, sets)
    except ConfigError as error:
        print(f"penstockd: {error}", file=sys.stderr)
        return 2
    if options.print_config:
        print(render_toml(config), end="")
        return 0
    if options.check:
        print(CHECKED)
        return 0
    try:
        import grpc  # noqa: F401 - Is the extra there?
        import numba  # noqa: F401
        import structlog  # noqa: F401
        import uvloop
    except ImportError as error:
        print(f"penstockd: {error.name} is missing; install it with: pip install 'penstock[daemon]'", file=sys.stderr)
        return 2
    from penstock_daemon.logs import configure_logs

    configure_logs(config.log.level, config.log.format)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_run(config))


async def _run(config: object) -> int:
    """Start, serve until a signal, stop."""
    from penstock_daemon.config import Config
    from penstock_daemon.derived import StartError
    from penstock_daemon.engine import EngineError
    from penstock_daemon.notify import Notifier
    from penstock_daemon.recorder import RecorderError
    from penstock_daemon.server import Daemon
    from penstock_daemon.socket_guard import ListenError
    from penstock_kernels.model import ModelError

    assert isinstance(config, Config), "load_config gives a Config"
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    daemon = Daemon(config, Notifier.from_environ(os.environ))
    try:
        starting = asyncio.create_task(daemon.start())
        stopping = asyncio.create_task(stop.wait())
        await asyncio.wait({starting, stopping}, return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        await starting
        wanted = await daemon.serve(stop)
    except (StartError, ListenError, RecorderError, EngineError, ModelError, MemoryError, OSError) as error:
        print(f"penstockd: {error}", file=sys.stderr)
        return 2
    finally:
        await daemon.stop()
    return 0 if wanted else 1


if __name__ == "__main__":
    sys.exit(main())
