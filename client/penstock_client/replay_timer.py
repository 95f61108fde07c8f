"""A timer of the kernel on an event loop: it wakes within microseconds where the loop's own rounds to milliseconds.

    one descriptor, armed with an absolute monotonic time; the callback runs on the loop

Python has timerfd from 3.13 on; before, it is a call into the C library.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
from collections.abc import Callable
from types import TracebackType
from typing import Final, Self

_CLOCK_MONOTONIC: Final = 1
_NONBLOCK_CLOEXEC: Final = os.O_NONBLOCK | os.O_CLOEXEC
_TFD_TIMER_ABSTIME: Final = 1
_PR_SET_TIMERSLACK: Final = 29


class _Timespec(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


class _TimerSpec(ctypes.Structure):
    _fields_ = (("interval", _Timespec), ("value", _Timespec))


def tighten_timer_slack() -> None:
    """Ask the kernel to wake the calling thread when it said so, not up to 50 us later to save wake-ups."""
    ctypes.CDLL(None).prctl(_PR_SET_TIMERSLACK, ctypes.c_ulong(1))


class LoopTimer:
    """Calls *callback* on the running event loop at the time it was last armed for."""

    def __init__(self, callback: Callable[[], None]) -> None:
        self._library = ctypes.CDLL(None, use_errno=True)
        self._descriptor = self._library.timerfd_create(_CLOCK_MONOTONIC, _NONBLOCK_CLOEXEC)
        if self._descriptor < 0:
            raise OSError(ctypes.get_errno(), "the kernel gave no timer")
        self._spec = _TimerSpec()
        self._reference = ctypes.byref(self._spec)
        self._callback = callback
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._descriptor, self._expired)

    def arm(self, monotonic_ns: int) -> None:
        """Call back at *monotonic_ns*, in place of any earlier arming; a time that has passed means now."""
        self._spec.value.seconds, self._spec.value.nanoseconds = divmod(max(monotonic_ns, 1), 1_000_000_000)
        if self._library.timerfd_settime(self._descriptor, _TFD_TIMER_ABSTIME, self._reference, None) != 0:
            raise OSError(ctypes.get_errno(), "the kernel refused a timer")

    def close(self) -> None:
        """Never call back again."""
        if self._descriptor >= 0:
            self._loop.remove_reader(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = -1

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close it."""
        self.close()

    def _expired(self) -> None:
        try:
            os.read(self._descriptor, 8)
        except BlockingIOError:
            return  # Armed anew between the wake-up and here.
        self._callback()
