"""What gRPC logs of clients that are gone, left out of the log: a lost connection has a line of its session's own."""

from __future__ import annotations

import logging


class LostClients(logging.Filter):
    """Drops what gRPC logs, with a traceback, when a client is gone before its status could be sent."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether *record* is about anything else."""
        kind = record.exc_info[0] if record.exc_info else None
        return kind is None or kind.__name__ != "ExecuteBatchError"


def leave_out_lost_clients() -> None:
    """Set gRPC's logger up; to be called once, when the server is made."""
    logging.getLogger("grpc._cython.cygrpc").addFilter(LostClients())
