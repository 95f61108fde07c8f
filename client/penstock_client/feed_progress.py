"""What a person sees while a feed is played: one line that is written over, or a plain line now and then.

Drawn on the player's own loop, so it is one short write: a picture that takes a millisecond would make messages late.
"""

from __future__ import annotations

import sys
import time
from typing import Final

import numpy as np

from penstock_client.feed_player import FeedRun
from penstock_client.replay_summary import percentile_ns
from penstock_client.wording import microseconds_text

PLAIN_LINE_S: Final = 10.0
_CELLS: Final = 24


class FeedProgress:
    """Shows a run on standard error; used as the ``look`` of a play.

    Args:
        enabled: False for no progress.
        announce: whether to say where re-requests are answered, before anything else.
    """

    def __init__(self, *, enabled: bool, announce: bool) -> None:
        self._enabled = enabled
        self._announce = announce
        self._live = enabled and sys.stderr.isatty()
        self._looked_at = 0
        self._plain_due_s = time.monotonic() + PLAIN_LINE_S

    def __call__(self, run: FeedRun) -> None:
        """Show *run* as it stands."""
        if self._announce and run.recovery is not None:
            self._announce = False
            sys.stderr.write(f"re-requests are answered at {run.recovery.address}\n")
            sys.stderr.flush()
        if not self._enabled or not (self._live or time.monotonic() >= self._plain_due_s):
            return
        line = self.line(run)
        if self._live:
            sys.stderr.write(f"\r\x1b[2K{line}")
        else:
            self._plain_due_s = time.monotonic() + PLAIN_LINE_S
            sys.stderr.write(f"{line}\n")
        sys.stderr.flush()

    def line(self, run: FeedRun) -> str:
        """Return the line for *run*; lateness is of the messages since the last call."""
        total = max(run.plan.file.messages, 1)
        late_ns = np.sort(run.late_ns[self._looked_at :])
        self._looked_at = run.sent
        filled = run.sent * _CELLS // total
        late = f"  late p99 {microseconds_text(percentile_ns(late_ns, 0.99) / 1e3)}" if len(late_ns) else "  idle"
        asked = f"  {run.recovery.requests:,} re-requests" if run.recovery is not None else ""
        bar = "#" * filled + "-" * (_CELLS - filled)
        return f"playing [{bar}] {run.sent:,} of {run.plan.file.messages:,} messages{late}{asked}"

    def close(self) -> None:
        """Leave the line as it stands."""
        if self._live:
            sys.stderr.write("\n")
            sys.stderr.flush()
