"""Heartbeats of one stream: when to send one, and when the other side is taken for lost.

The clock is the caller's. Nothing is asked between two due times, so that an idle session sleeps.

    send     when nothing was sent for one interval
    lost     when nothing came for three

A process that was itself stopped (a debugger, a suspended machine) sees its own absence first: a check that comes later
than half an interval clears the other side of blame and waits anew.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

INTERVALS_TO_LOST: Final = 3


@dataclass(slots=True)
class Pulse:
    """Times of one stream, in seconds of one monotonic clock.

    Args:
        interval_s: Welcome.heartbeat_interval_ns in seconds, above 0.
        sent_s: when something was last sent.
        received_s: when something last came.
        due_s: when to look next.
    """

    interval_s: float
    sent_s: float
    received_s: float
    due_s: float

    @classmethod
    def start(cls, interval_s: float, now_s: float) -> Pulse:
        """Return the pulse of a stream that was opened now."""
        return cls(interval_s, now_s, now_s, now_s + interval_s)

    def look(self, now_s: float) -> tuple[bool, bool]:
        """Return (send a heartbeat, the other side is lost), and set ``due_s`` anew."""
        if now_s - self.due_s > self.interval_s / 2:
            self.received_s = now_s
        send = now_s >= self.sent_s + self.interval_s
        lost = now_s >= self.received_s + INTERVALS_TO_LOST * self.interval_s
        next_send_s = (now_s if send else self.sent_s) + self.interval_s
        self.due_s = max(min(next_send_s, self.received_s + INTERVALS_TO_LOST * self.interval_s), now_s)
        return send, lost
