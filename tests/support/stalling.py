"""A daemon whose engine can be made to stand still: all else goes on, as with a thread that gets no CPU.

python -m support.stalling --set ...      penstockd; SIGUSR1 stalls its engine, SIGUSR2 lets it go on

Somebody has the states and keeps them, as a helper would that was descheduled; so it needs engine.idle = "block".
"""

from __future__ import annotations

import contextlib
import signal
import sys
from collections.abc import Callable
from typing import Any

from penstock_daemon import main, server
from penstock_daemon.engine import Engine
from support.device_engines import kept_asleep


def serve() -> int:
    engines: list[Engine] = []
    stall = contextlib.ExitStack()
    make: Callable[..., Any] = server.make_engine

    def make_engine(*arguments: Any) -> Any:
        engine, choice = make(*arguments)
        engines.append(engine)
        return engine, choice

    server.make_engine = make_engine
    signal.signal(signal.SIGUSR1, lambda *_: stall.enter_context(kept_asleep(engines[0])))
    signal.signal(signal.SIGUSR2, lambda *_: stall.close())
    return main.main()


if __name__ == "__main__":
    sys.exit(serve())
