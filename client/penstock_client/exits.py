"""How commands end: exit codes that scripts can rely on, and a sentence instead of a traceback.

0 done   1 a promise was missed   2 bad input or usage   3 the daemon is not there, or says no   70 a fault of ours
128 + signal: interrupted
"""

from __future__ import annotations

import sys
from enum import IntEnum

from penstock_client.errors import (
    ConnectFailed,
    DaemonProtocolError,
    DeadlineExceeded,
    LocalUsageError,
    PenstockError,
    SessionLost,
    SessionRefused,
)
from penstock_client.extras import MissingExtraError
from penstock_client.files.errors import TickFileError

_INTERRUPTED_BASE = 128


class Exit(IntEnum):
    """The exit codes of ``penstock``."""

    DONE = 0
    MISSED = 1  # Ticks were lost, or a --require-... was not met.
    BAD_INPUT = 2  # As argparse does.
    NO_DAEMON = 3  # Not there, lost, or it refused.
    OUR_FAULT = 70  # A mistake in penstock itself.


def exit_code_of(error: PenstockError) -> Exit:
    """Return the exit code that *error* means."""
    if isinstance(error, LocalUsageError | TickFileError | MissingExtraError):
        return Exit.BAD_INPUT
    if isinstance(error, ConnectFailed | SessionRefused | SessionLost | DaemonProtocolError):
        return Exit.NO_DAEMON
    if isinstance(error, DeadlineExceeded):
        return Exit.MISSED
    return Exit.NO_DAEMON


def signal_exit_code(number: int) -> int:
    """Return what a shell expects of a command that a signal ended."""
    return _INTERRUPTED_BASE + number


def complain(sentence: str) -> None:
    """Write *sentence* to standard error."""
    sys.stderr.write(f"penstock: {sentence}\n")
