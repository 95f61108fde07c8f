"""The wall clock while the daemon serves: where it is, whether it stepped, and whether anybody still disciplines it.

    look             several times a second: realtime - monotonic is measured and published for the stamps that leave
    a step           it moved by more than both errors and SLEW_PPB of the time since: counted, told, and followed at once
    look_at_kernel   once a second, where it may block: synchronised or not, and the error that the kernel admits to

Durations inside the daemon are of CLOCK_MONOTONIC, which never steps: a step moves the Unix times of what comes after, and
nothing else. A host that slept looks like a step forward, and is one for everybody else.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

import structlog

from penstock_daemon.clocks.bracket import measure
from penstock_daemon.clocks.kernel_time import KernelTime, read_kernel_time
from penstock_daemon.clocks.seam import PPB, Base, ClockError, Offset
from penstock_daemon.log_limit import LogLimit

SLEW_PPB: Final = 500_000  # The most that the kernel steers a clock.
_STEP_MEND: Final = "let one daemon discipline the clock, without steps while you trade (penstock-tune check, N5)"
_SYNC_MEND: Final = "start chrony, or ptp4l with phc2sys, again (penstock-tune check, N3 to N5)"

_log = structlog.get_logger("penstock.clocks")


class ClockWatch:
    """Watches CLOCK_REALTIME.

    Args:
        publish: gets realtime - monotonic, nanoseconds, at every look.
        realtime_ns, monotonic_ns: read the clocks.
        kernel: returns the kernel's word; raises ClockError.
        limit: of the warnings.
    """

    def __init__(
        self,
        publish: Callable[[int], None],
        *,
        realtime_ns: Callable[[], int] = time.time_ns,
        monotonic_ns: Callable[[], int] = time.monotonic_ns,
        kernel: Callable[[], KernelTime] = read_kernel_time,
        limit: LogLimit | None = None,
    ) -> None:
        self.steps = 0
        self.last_step_ns = 0  # By how much the clock moved; forward is positive.
        self.sync_losses = 0
        self.word: KernelTime | None = None  # The kernel's last; None where it says nothing.
        self.refusal = ""  # Why it says nothing.
        self._publish = publish
        self._realtime_ns = realtime_ns
        self._monotonic_ns = monotonic_ns
        self._kernel = kernel
        self._limit = limit or LogLimit()
        self._synchronised: bool | None = None  # As last heard.
        self.offset = self.measured()
        publish(self.offset.offset_ns)

    def measured(self) -> Offset:
        """Return CLOCK_REALTIME against CLOCK_MONOTONIC, as of now."""
        return measure(Base.REALTIME, Base.MONOTONIC, self._realtime_ns, self._monotonic_ns)

    def look(self) -> None:
        """Measure, tell of a step, and publish."""
        before, now = self.offset, self.measured()
        self.offset = now
        self._publish(now.offset_ns)
        moved_ns = now.offset_ns - before.offset_ns
        if not stepped(before, now):
            return
        self.steps += 1
        self.last_step_ns = moved_ns
        held_back = self._limit.due("step")
        if held_back is not None:
            _log.warning(
                "wall_clock_stepped",
                moved_ns=moved_ns,
                old_offset_ns=before.offset_ns,
                new_offset_ns=now.offset_ns,
                steps=self.steps,
                not_written=held_back,
                mend=_STEP_MEND,
            )

    def look_at_kernel(self) -> None:
        """Ask whether the clock is disciplined, and tell where that changed. May block."""
        try:
            word = self._kernel()
        except ClockError as error:
            self.word, self.refusal = None, str(error)
            return
        self.word, self.refusal = word, ""
        before, self._synchronised = self._synchronised, word.synchronised
        if before in (None, word.synchronised):
            return
        if not word.synchronised:
            self.sync_losses += 1
        held_back = self._limit.due("regained" if word.synchronised else "lost")
        if held_back is None:
            return
        facts = {
            "maximum_error_ns": word.maximum_error_ns,
            "estimated_error_ns": word.estimated_error_ns,
            "losses": self.sync_losses,
            "not_written": held_back,
        }
        if word.synchronised:
            _log.info("clock_sync_regained", **facts)
        else:
            _log.warning("clock_sync_lost", **facts, mend=_SYNC_MEND)


def stepped(before: Offset, now: Offset) -> bool:
    """Return whether an offset moved by more than steering and both errors explain."""
    elapsed_ns = max(now.taken_ns - before.taken_ns, 0)
    allowed_ns = before.error_ns + now.error_ns + elapsed_ns * SLEW_PPB // PPB
    return abs(now.offset_ns - before.offset_ns) > allowed_ns
