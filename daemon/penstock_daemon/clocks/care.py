"""The clocks of one daemon: which one stamps what, chosen at the start, said in one line, and watched from then on.

    begin     the first look at the cycle counter, early in the start
    choose    the second, with the engine ready to run: its rate, or the sentence why not
    serve     the wall clock is watched, the card's clock opened
    look      several times a second, on the event loop: microseconds
    look_slowly   once a second, where it may block: adjtimex, the counter's drift, the card

A counter that breaks while serving is left for good: the engine goes on with CLOCK_MONOTONIC, and one warning says so.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import numpy as np
import structlog
from numpy.typing import NDArray

from penstock_daemon import engine_memory as memory
from penstock_daemon.clocks import ptp
from penstock_daemon.clocks.cycles import Anchor, read_anchor
from penstock_daemon.clocks.gpu import DRIFT_PPB as GPU_DRIFT_PPB
from penstock_daemon.clocks.gpu import device_offset
from penstock_daemon.clocks.kernel_time import KernelTime, read_kernel_time
from penstock_daemon.clocks.metrics import ClocksSnapshot
from penstock_daemon.clocks.ptp import PtpClock
from penstock_daemon.clocks.seam import UNKNOWN_NS, Base, ClockError, ClockReading, Offset, ReadableClock
from penstock_daemon.clocks.system import SteadyClock, WallClock, reader_ns
from penstock_daemon.clocks.tsc import BASELINE_NS, TscClock, refusal
from penstock_daemon.clocks.watch import SLEW_PPB, ClockWatch, stepped
from penstock_daemon.config_clock import ClockConfig
from penstock_daemon.derived import StartError
from penstock_daemon.engine import Engine
from penstock_daemon.log_limit import LogLimit

CARD_DRIFT_PPB: Final = SLEW_PPB  # What a card's clock is let drift from the host's between two comparisons.
_TSC_MEND: Final = "look at the clock source (penstock-tune check, C23), then start the daemon again to have it back"
_PTP_MEND: Final = "see the card's driver and ptp4l's log (penstock-tune check, N1 and N3)"

_log = structlog.get_logger("penstock.clocks")


class ClockCare:
    """Chooses and watches the clocks.

    Args:
        config: what is asked for.
        anchor: looks at the cycle counter.
        kernel: returns the kernel's word on its clock.
        root: of the host's files; tests give a tree.
        open_ptp: opens a card's clock.
    """

    def __init__(
        self,
        config: ClockConfig,
        *,
        anchor: Callable[[], Anchor] = read_anchor,
        kernel: Callable[[], KernelTime] = read_kernel_time,
        root: Path = Path("/"),
        open_ptp: Callable[[str], PtpClock] = PtpClock,
    ) -> None:
        self.watch: ClockWatch | None = None
        self._config = config
        self._read_anchor = anchor
        self._kernel = kernel
        self._root = root
        self._open_ptp = open_ptp
        self._limit = LogLimit()
        self._first: Anchor | None = None
        self._tsc: TscClock | None = None
        self._why = ""
        self._engine: Engine | None = None
        self._tsc_failures = 0
        self._ptp: PtpClock | None = None
        self._ptp_failures = 0
        self._ptp_offset: Offset | None = None
        self._device_words: NDArray[np.int64] | None = None

    # --- Start ----------------------------------------------------------------------------------------------------

    def begin(self, feed_card: str = "", *, needed: bool = False) -> None:
        """Look at the cycle counter for the first time, if it may be used. Not for the event loop: it compiles.

        Args:
            feed_card: the clock of the card that stamps a feed's packets, "" for none; taken where clock.ptp names none.
            needed: whether those stamps must be had: feed.stamps is "hardware".

        Raises:
            StartError: it is asked for by name, and not sound here; or the card's clock that is named or needed can't be had.
        """
        if self._config.stamps == "monotonic":
            self._why = 'clock.stamps is "monotonic"'
        else:
            self._why = refusal(self._root)
            self._refuse_if_asked()
            if not self._why:
                self._read_anchor()  # The first pays for being the first.
                self._first = self._read_anchor()
        self._open_card(feed_card, needed=needed)

    def choose(self, engine: Engine) -> None:
        """Let *engine*, which does not run yet, time its stages with the counter where that may be. May sleep for 20 ms.

        Raises:
            StartError: the counter is asked for by name, and does not count.
        """
        if self._first is None:
            return
        last = self._read_anchor()
        while 0 <= last.raw_ns - self._first.raw_ns < BASELINE_NS:
            time.sleep(BASELINE_NS / 1e9)
            last = self._read_anchor()
        try:
            self._tsc = TscClock(self._first, last)
        except ValueError as error:
            self._why = str(error)
            self._refuse_if_asked()
            return
        self._why = "the TSC is invariant, and the kernel trusts it"
        engine.use_cycles(self._tsc.rate.fraction)

    def _refuse_if_asked(self) -> None:
        if self._why and self._config.stamps == "tsc":
            raise StartError(f'clock.stamps: must be "auto" or "monotonic" on this host, was "tsc": {self._why}')

    def _open_card(self, feed_card: str, *, needed: bool) -> None:
        wanted = self._config.ptp
        path = wanted
        if wanted in ("", "auto"):
            path = feed_card or (ptp.first_clock(self._root) if wanted else "")
        if not path:
            if wanted:
                _log.info(
                    "no_card_clock",
                    detail="no network interface of this host has a clock",
                    mend="leave clock.ptp empty",
                )
            return
        if needed and feed_card not in ("", path):
            raise StartError(f'clock.ptp: must be "" or "{feed_card}" with feed.stamps = "hardware", was "{path}"')
        try:
            self._ptp = self._open_ptp(path)
        except ClockError as error:
            if wanted not in ("", "auto"):
                raise StartError(f"clock.ptp: {error}") from error
            if needed and feed_card:
                raise StartError(f"feed.stamps: no stamps of the network card: {error}") from error
            _log.warning("card_clock_refused", detail=str(error), mend=_PTP_MEND)

    def serve(self, engine: Engine) -> None:
        """Watch from here on, for *engine*, which is told where the wall clock is, and when the counter breaks."""
        self._engine = engine
        self._device_words = engine.device.buffers.words if engine.device is not None else None
        self.watch = ClockWatch(engine.set_unix_offset, kernel=self._kernel)
        self.look_slowly()
        _log.info("clocks", **self._described())

    def _described(self) -> dict[str, object]:
        """Return what the log says at the start: which clock for what, and how far each may be off."""
        assert self.watch is not None, "serve was called"
        word = self.watch.word
        said: dict[str, object] = {"stages": self.stamps, "stages_why": self._why}
        if self._tsc is not None:
            said["tsc_mhz"] = round(self._tsc.rate.hertz / 1e6, 3)
            said["tsc_error_ppb"] = self._tsc.rate.error_ppb
        said["unix_times"] = "realtime"
        said["realtime_to_monotonic_error_ns"] = self.watch.offset.error_ns
        if word is None:
            said["synchronised"], said["synchronised_why"] = "unknown", self.watch.refusal
        else:
            said["synchronised"] = word.synchronised
            said["maximum_error_ns"] = word.maximum_error_ns if word.synchronised else "unknown"
        if self._ptp is not None:
            said["card"] = self._ptp.path
            said["card_of"] = " ".join(ptp.interfaces_of_clock(self._ptp.path, self._root)) or "no interface"
            said["card_error_ns"] = self._ptp_offset.error_ns if self._ptp_offset else "unknown"
        return said

    # --- Service --------------------------------------------------------------------------------------------------

    @property
    def stamps(self) -> str:
        """What the engine times its stages with: "tsc" or "monotonic"."""
        return "tsc" if self._tsc is not None and not self._tsc.broken else "monotonic"

    def card_offset(self) -> Offset | None:
        """Return the card's clock against CLOCK_MONOTONIC as of now, its error grown since; None for no card.

        To be asked now and then, by who maps a card's stamps; from any thread.
        """
        offset = self._ptp_offset
        return offset.aged(time.monotonic_ns(), CARD_DRIFT_PPB) if offset is not None else None

    def offset_of(self, path: str) -> Offset | None:
        """Return ``card_offset()`` where *path* is the card's clock that is compared; None where it is another."""
        return self.card_offset() if self._ptp is not None and self._ptp.path == path else None

    def look(self) -> None:
        """Look at the wall clock; for the event loop."""
        assert self.watch is not None, "serve was called"
        self.watch.look()

    def look_slowly(self) -> None:
        """Look at all that may block."""
        assert self.watch is not None, "serve was called"
        self.watch.look_at_kernel()
        if self._tsc is not None and not self._tsc.broken and not self._tsc.watch(self._read_anchor()):
            self._give_up_tsc(self._tsc)
        if self._ptp is not None:
            self._compare_card(self._ptp)

    def _give_up_tsc(self, clock: TscClock) -> None:
        assert self._engine is not None, "serve was called"
        self._engine.use_cycles(0)
        self._tsc_failures += 1
        self._why = f"the TSC was given up: {clock.broken}"
        _log.warning("tsc_given_up", detail=clock.broken, stages="monotonic", mend=_TSC_MEND)

    def _compare_card(self, clock: PtpClock) -> None:
        """Measure the card against the wall clock, and that against CLOCK_MONOTONIC, with no step in between."""
        assert self.watch is not None, "serve was called"
        before = self.watch.measured()
        try:
            card = clock.offset()
        except ClockError as error:
            self._ptp_failures += 1
            held_back = self._limit.due("card")
            if held_back is not None:
                _log.warning("card_clock_silent", detail=str(error), not_written=held_back, mend=_PTP_MEND)
            return
        after = self.watch.measured()
        if not stepped(before, after):
            self._ptp_offset = card.then(after)

    def snapshot(self) -> ClocksSnapshot:
        """Return what the metrics show; from any thread."""
        watch, tsc = self.watch, self._tsc
        word = watch.word if watch else None
        known = word is not None and word.synchronised
        used = tsc if tsc is not None and not tsc.broken else None
        return ClocksSnapshot(
            stamps=self.stamps,
            why=self._why,
            tsc_hertz=used.rate.hertz if used else None,
            tsc_error_ppb=used.rate.error_ppb if used else None,
            tsc_drift_ppb=used.drift_ppb if used else None,
            tsc_failures=self._tsc_failures,
            synchronised=word.synchronised if word else None,
            maximum_error_ns=word.maximum_error_ns if word and known else UNKNOWN_NS,
            estimated_error_ns=word.estimated_error_ns if word and known else UNKNOWN_NS,
            tai_offset_s=word.tai_offset_s if word else 0,
            steps=watch.steps if watch else 0,
            last_step_ns=watch.last_step_ns if watch else 0,
            sync_losses=watch.sync_losses if watch else 0,
            readings=tuple(self.readings()),
            offsets=tuple(self._offsets()),
            ptp=self._ptp.path if self._ptp else "",
            ptp_failures=self._ptp_failures,
            behind_venue=self._engine_word(memory.BEHIND_VENUE),
            behind_venue_max_ns=self._engine_word(memory.BEHIND_VENUE_NS),
        )

    def _engine_word(self, index: int) -> int:
        return int(self._engine.buffers.words[index]) if self._engine is not None else 0

    def readings(self) -> list[ClockReading]:
        """Look once at every clock of this host that can be had; from any thread."""
        clocks: list[ReadableClock] = [
            SteadyClock(base, reader_ns(base)) for base in (Base.MONOTONIC, Base.MONOTONIC_RAW)
        ]
        clocks += [WallClock(base, reader_ns(base), self._last_word) for base in (Base.REALTIME, Base.TAI)]
        found = []
        for clock in clocks:
            with contextlib.suppress(ClockError):  # TAI, where the kernel was not told of it.
                found.append(clock.read())
        if self._tsc is not None and not self._tsc.broken:
            found.append(self._tsc.reading(self._read_anchor().cycles))
        return found

    def _last_word(self) -> KernelTime:
        """Return what the kernel said last, at most a second ago."""
        word = self.watch.word if self.watch else None
        if word is None:
            raise ClockError(self.watch.refusal if self.watch else "the kernel was not asked yet")
        return word

    def _offsets(self) -> list[Offset]:
        """Return every offset that is known, as of now."""
        found = [self.watch.offset] if self.watch else []
        card = self.card_offset()
        if card is not None:
            found.append(card)
        if self._device_words is not None:
            device = device_offset(self._device_words)
            if device is not None:
                found.append(device.aged(time.monotonic_ns(), GPU_DRIFT_PPB))
        return found

    def close(self) -> None:
        """Let go of the card's clock. May be called twice."""
        if self._ptp is not None:
            self._ptp.close()
