"""Compiles the feed's loop in a process of its own while the daemon's first start compiles the engine: two CPUs, not one.

Numba compiles under one lock, so a thread could not help. What comes out is found in the shared cache, where the daemon
looks anyway: a helper that fails costs time and nothing else, since the daemon then compiles the same itself.

    Helper -> the daemon compiles the engine meanwhile -> wait -> the feed's loop comes from the cache

A mark in the cache folder says that it was done for these sources: later starts need no helper.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Final

import numba

_PATIENCE_S: Final = 120.0
_ONLINE: Final = "--online"


class Helper:
    """The helper's process, or nobody where all is compiled already, or where there is one CPU.

    Args:
        online: whether the engine has online readouts: its memory has another type then.
    """

    def __init__(self, *, online: bool) -> None:
        folder = numba.config.CACHE_DIR
        self._mark = Path(folder) / ("feed-online-compiled" if online else "feed-compiled")
        self.process: subprocess.Popen[bytes] | None = None
        if not folder or self._mark.exists() or len(os.sched_getaffinity(0)) == 1:
            return
        command = [sys.executable, "-m", "penstock_daemon.feed.precompile", *([_ONLINE] if online else [])]
        nothing = subprocess.DEVNULL
        with contextlib.suppress(OSError):  # Nobody helps, then.
            self.process = subprocess.Popen(command, stdin=nothing, stdout=nothing, stderr=nothing)  # noqa: S603 - Ours.

    def wait(self) -> None:
        """Wait until the helper is done, if there is one."""
        if self.process is None:
            return
        with contextlib.suppress(subprocess.TimeoutExpired, OSError):
            if self.process.wait(_PATIENCE_S) == 0:
                self._mark.touch()
        self.end()

    def end(self) -> None:
        """End the helper where it still runs."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None


def main(*, online: bool) -> int:
    """Compile, as a helper. Returns an exit code."""
    from penstock_daemon.engine import Engine
    from penstock_daemon.engine_settings import EngineSettings
    from penstock_daemon.engine_sizes import EngineSizes
    from penstock_daemon.feed.memory import Payload
    from penstock_daemon.feed.thread import FeedShape, Receiver

    # Of the daemon's types; sizes are none of theirs.
    sizes = EngineSizes(sources=2, slots=64, states=2, model_slots=1, units_max=16, online_states=1 if online else 0)
    engine = Engine(sizes, EngineSettings())
    receiver = Receiver(FeedShape(Payload.DBN, ["HELPER"], [1], [1], 64, 64, 16), source=0)
    receiver.compile(engine)
    receiver.close()
    engine.close()
    return 0


if __name__ == "__main__":
    sys.exit(main(online=_ONLINE in sys.argv[1:]))
