"""What a person sees while a replay runs: a bar, the last second's percentiles, the latest predictions.

Drawing takes milliseconds, and the replay's loop has none to spare: the picture is drawn by a process of its own, at the
lowest priority, from one line of JSON four times a second. A line that doesn't fit into the pipe is left out.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from types import TracebackType
from typing import Any, Final, Self

import numpy as np

from penstock.v1.records import PROBABILITY_ONE, UNDEFINED_PRICE, PredictionFlag
from penstock_client.replay import ReplayRun
from penstock_client.replay_summary import BUDGET_NS, percentile_ns
from penstock_client.wording import microseconds_text, share_text

INSTRUMENTS_SHOWN: Final = 4
READY_S: Final = 3.0
PLAIN_LINE_S: Final = 10.0  # Between two lines where nobody can look at a bar.
_SAMPLE: Final = 2000  # Of the ticks since the last look: enough for a p99, and quick.
_LATEST: Final = 256  # Ticks in which the latest prediction of an instrument is looked for.


class Progress:
    """Shows a run on standard error; used as the ``look`` of a replay.

    Args:
        enabled: False for nothing at all.
    """

    def __init__(self, *, enabled: bool) -> None:
        self._enabled = enabled
        self._drawer: subprocess.Popen[bytes] | None = None
        self._looked_at = 0
        self._within = 0
        self._plain_due_s = time.monotonic() + PLAIN_LINE_S

    def __enter__(self) -> Self:
        """Start the drawing process, before gRPC starts: it must not be forked after."""
        if self._enabled and sys.stderr.isatty() and _rich_is_there():
            self._drawer = subprocess.Popen(
                [sys.executable, "-m", "penstock_client.replay_drawing"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                process_group=0,  # Ctrl-C is for the replay.
            )
            assert self._drawer.stdin is not None, "asked for a pipe"
            assert self._drawer.stdout is not None, "asked for a pipe"
            os.set_blocking(self._drawer.stdin.fileno(), False)
            select.select([self._drawer.stdout], [], [], READY_S)  # Its start must not cost the first ticks a core.
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Let the drawing process finish its picture."""
        if self._drawer is None or self._drawer.stdin is None:
            return
        try:
            self._drawer.stdin.close()
            if self._drawer.stdout is not None:
                self._drawer.stdout.close()
            self._drawer.wait(timeout=5)
        except (OSError, subprocess.TimeoutExpired):
            self._drawer.send_signal(signal.SIGKILL)
            self._drawer.wait()

    def __call__(self, run: ReplayRun) -> None:
        """Show *run* as it stands; quick."""
        if not self._enabled:
            return
        if self._drawer is None:
            self._plain(run)
            return
        line = json.dumps(self.sample(run)).encode() + b"\n"
        try:
            if self._drawer.stdin is not None:
                os.write(self._drawer.stdin.fileno(), line)
        except OSError:
            return  # Full, or the drawer is gone: the replay goes on without a picture.

    def sample(self, run: ReplayRun) -> dict[str, Any]:
        """Return what is new since the last call, for the drawing process."""
        first, end = self._looked_at, run.answered
        fresh_ns = run.received_ns[first:end] - run.scheduled_ns[first:end]
        self._looked_at = end
        self._within += int(np.count_nonzero(fresh_ns <= BUDGET_NS))
        shown_ns = np.sort(fresh_ns[:: max(len(fresh_ns) // _SAMPLE, 1)])
        return {
            "total": len(run.plan.ticks),
            "answered": end,
            "seconds": max(time.monotonic_ns() - run.start_ns, 0) / 1e9 if run.start_ns else 0.0,
            "fresh": len(fresh_ns),
            "p50_us": percentile_ns(shown_ns, 0.5) / 1e3,
            "p99_us": percentile_ns(shown_ns, 0.99) / 1e3,
            "max_us": int(fresh_ns.max(initial=0)) / 1e3,
            "share_within_5ms": self._within / end if end else 1.0,
            "resumed": run.resumed,
            "horizons": [one.name for one in run.welcome.horizons],
            "latest": _latest(run, end),
        }

    def _plain(self, run: ReplayRun) -> None:
        """Write a line now and then, for logs."""
        if time.monotonic() < self._plain_due_s:
            return
        self._plain_due_s = time.monotonic() + PLAIN_LINE_S
        now = self.sample(run)
        sys.stderr.write(
            f"{now['answered']:,} of {now['total']:,} ticks answered, p50 {microseconds_text(now['p50_us'])}, "
            f"p99 {microseconds_text(now['p99_us'])}, {share_text(now['share_within_5ms'])} within 5 ms\n"
        )


def _latest(run: ReplayRun, end: int) -> list[dict[str, Any]]:
    """Return the latest prediction of each instrument that had one just now."""
    start = max(end - _LATEST, 0)
    predictions = run.predictions[start:end]
    ticks = run.plan.ticks[start:end]
    found = []
    for one in run.plan.instruments[:INSTRUMENTS_SHOWN]:
        (of_it,) = np.nonzero((predictions["instrument_id"] == one.instrument_id) & run.predicted[start:end])
        if not of_it.size:
            continue
        prediction, tick = predictions[of_it[-1]], ticks[of_it[-1]]
        bid, ask = int(tick["bid_px"]), int(tick["ask_px"])
        forecast = prediction["forecasts"][0]
        found.append(
            {
                "symbol": one.symbol,
                "mid": None if UNDEFINED_PRICE in (bid, ask) else (bid + ask) / 2e9,
                "up": int(forecast["probability_up"]) / PROBABILITY_ONE,
                "down": int(forecast["probability_down"]) / PROBABILITY_ONE,
                "return_bp": float(forecast["expected_return"]) * 1e4,
                "warming": bool(int(prediction["flags"]) & PredictionFlag.WARMING),
            }
        )
    return found


def _rich_is_there() -> bool:
    try:
        import rich  # noqa: F401 - Only whether it is there.
    except ModuleNotFoundError:
        return False
    return True
