"""When to try again after a lost connection, and when to stop.

    delay of attempt n = uniform(1/2, 1) * min(initial_s * factor ** n, max_s)

The random half keeps the strategies of a restarted daemon from all arriving at once. Attempts, and the time after which
they end, count from the first loss since the last sign of progress: a daemon that dies of every tick it is sent does
not keep a session going for ever.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from penstock_client.errors import LocalUsageError


@dataclass(frozen=True, slots=True)
class ReconnectPolicy:
    """How a session goes after a daemon that it lost.

    Args:
        initial_s: the first delay; small, so that a daemon's quick restart costs little.
        max_s: the longest delay.
        factor: by which a delay grows.
        give_up_after_s: time without progress after which the session is lost. Beyond Welcome.resume_grace_ns the
            states are cold and are rebuilt.
    """

    initial_s: float = 0.02
    max_s: float = 1.0
    factor: float = 2.0
    give_up_after_s: float = 60.0

    def __post_init__(self) -> None:
        """Raise LocalUsageError for a policy that can't be followed."""
        if not 0 < self.initial_s <= self.max_s:
            raise LocalUsageError(
                f"reconnect must have 0 < initial_s <= max_s: initial_s={self.initial_s}, max_s={self.max_s}"
            )
        if not self.factor >= 1:
            raise LocalUsageError(f"reconnect.factor must be at least 1: was {self.factor}")
        if not self.give_up_after_s > 0:
            raise LocalUsageError(f"reconnect.give_up_after_s must be above 0: was {self.give_up_after_s}")


class Backoff:
    """The state of one session's attempts; times are those of one monotonic clock, in seconds.

    Args:
        policy: what to follow.
        draw: for the random half.
    """

    def __init__(self, policy: ReconnectPolicy, draw: random.Random) -> None:
        self._policy = policy
        self._draw = draw
        self._lost_at_s: float | None = None
        self._longest_s = policy.initial_s
        self.attempts = 0

    def progress(self) -> None:
        """Forget earlier losses: the present connection does its work."""
        self._lost_at_s = None
        self._longest_s = self._policy.initial_s
        self.attempts = 0

    def remaining_s(self, now_s: float) -> float:
        """Return how long there is left to try; 0 or less when it is over."""
        if self._lost_at_s is None:
            self._lost_at_s = now_s
        return self._lost_at_s + self._policy.give_up_after_s - now_s

    def next_delay_s(self) -> float:
        """Return how long to wait before the next attempt, which is counted."""
        longest_s = self._longest_s
        self._longest_s = min(longest_s * self._policy.factor, self._policy.max_s)
        self.attempts += 1
        return longest_s * (0.5 + 0.5 * self._draw.random())
