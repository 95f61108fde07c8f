"""What can go wrong for a strategy, sorted by whose fault it is.

    LocalUsageError         the caller's: bad input or calls in a wrong order; nothing was sent
    ConnectFailed           nobody's yet: no daemon took the session within the connect deadline
    SessionRefused          the daemon said no, with its reason and the mend
    SessionLost             the connection went and could not be regained within the reconnect policy
    DaemonProtocolError     the daemon's: it broke the contract, so "exactly one answer" can't be vouched for
    DeadlineExceeded        a time that the caller set has passed

All derive from PenstockError; foreign exceptions (gRPC's, protobuf's) never leave this package.
"""

from __future__ import annotations


class PenstockError(Exception):
    """The base of everything this package raises on purpose."""


class LocalUsageError(PenstockError, ValueError):
    """The caller's input or order of calls is wrong; the sentence names field, value and mend."""


class ConnectFailed(PenstockError, ConnectionError):  # noqa: N818 - The agreed names say what happened.
    """No daemon took the session before the connect deadline; ``__cause__`` is the last refusal, if there was one."""


class SessionRefused(PenstockError):  # noqa: N818 - As ConnectFailed.
    """The daemon refused the session or ended it for a reason that trying again would not change.

    Attributes:
        code: the gRPC status code's name, such as "RESOURCE_EXHAUSTED".
        reason: stable and for programs, such as "SEQUENCE_GAP"; empty where the daemon gave none.
        field: what it is about, such as "TickBatch.first_sequence"; may be empty.
        value: what was found, shortened; may be empty.
        mend: what to do; may be empty.
        message: the daemon's sentence.
    """

    def __init__(
        self, message: str, *, code: str, reason: str = "", field: str = "", value: str = "", mend: str = ""
    ) -> None:
        self.code = code
        self.reason = reason
        self.field = field
        self.value = value
        self.mend = mend
        self.message = message
        super().__init__(message)

    def __str__(self) -> str:
        """Return one line: code, reason, the daemon's sentence, and what of the detail the sentence leaves out."""
        line = f"{self.code} {self.reason}: {self.message}" if self.reason else f"{self.code}: {self.message}"
        if self.field and self.field not in line:
            line += f" ({self.field}={self.value})"
        if self.mend and self.mend not in line:
            line += f"; {self.mend}"
        return line

    def __reduce__(self) -> tuple[object, ...]:
        """Pickle with the detail, so that the error survives a process boundary."""
        detail = {name: getattr(self, name) for name in ("code", "reason", "field", "value", "mend")}
        return _refused, (self.message, detail)


class SessionLost(PenstockError, ConnectionError):  # noqa: N818 - As ConnectFailed.
    """The connection was lost and not regained; ``unanswered`` ticks have got no answer.

    Attributes:
        unanswered: how many accepted ticks have no answer.
        attempts: how many reconnects were tried.
    """

    def __init__(self, message: str, *, unanswered: int = 0, attempts: int = 0) -> None:
        self.unanswered = unanswered
        self.attempts = attempts
        super().__init__(message)


class DaemonProtocolError(PenstockError):
    """The daemon broke the contract; the sentence says how. A fault to report, not to retry."""


class DeadlineExceeded(PenstockError, TimeoutError):  # noqa: N818 - As ConnectFailed.
    """A deadline or timeout that the caller set has passed; the sentence says which."""


def _refused(message: str, detail: dict[str, str]) -> SessionRefused:
    """Build a SessionRefused again from its pickle."""
    return SessionRefused(message, **detail)
