"""A thread for what a serving daemon looks at once a second and what may block: files of /proc, ioctls, adjtimex.

It runs where the event loop's thread may run, never on the engine's CPU, and sleeps in between. A look that fails is
logged and left out from then on; the others go on. One for which the process has no descriptor is made again the next time.
"""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable, Sequence
from typing import Final

import structlog

from penstock_host import affinity

PERIOD_S: Final = 1.0
_STOP_S: Final = 5.0
_SHORTAGES: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM})
_NAME: Final = "penstock-watch"

_log = structlog.get_logger("penstock.daemon")


class Housekeeper:
    """The thread, from here on until ``close``.

    Args:
        looks: what is called each time, in this order.
        period_s: between two times.
    """

    def __init__(self, looks: Sequence[Callable[[], None]], period_s: float = PERIOD_S) -> None:
        self.rounds = 0
        self._looks = list(looks)
        self._period_s = period_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=_NAME, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End it, and wait for that. May be called twice."""
        self._stop.set()
        self._thread.join(_STOP_S)

    def _run(self) -> None:
        affinity.name_this_thread(_NAME)
        while not self._stop.wait(self._period_s):
            for look in tuple(self._looks):
                try:
                    look()
                except Exception as error:  # noqa: BLE001 - Policy: watching must not end what it watches, nor what else is watched.
                    if isinstance(error, OSError) and error.errno in _SHORTAGES:
                        _log.warning("watch_waits", detail=f"{error.strerror}: the next look may have more")
                        continue
                    self._looks.remove(look)
                    _log.exception("watch_failed", mend="report this; the daemon serves on without this watch")
            self.rounds += 1
