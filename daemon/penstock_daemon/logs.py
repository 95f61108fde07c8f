"""The log: structlog and the standard library's logging through one handler, configured once, never again.

grpc.aio and a reconfiguration of ``logging`` can deadlock under garbage collection (grpc#43421), so ``configure_logs``
is called once, before gRPC is imported into work, and a second call is our mistake. One line is one ``write``: JSON
where a machine reads it, columns on a terminal. Names and values that clients chose can't write control characters.

Nothing in the tick path logs.
"""

from __future__ import annotations

import logging
import sys
import threading
from typing import Any, Final, TextIO

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

LEVELS: Final = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}

_configured = False


def configure_logs(level: str, log_format: str, stream: TextIO | None = None) -> None:
    """Set up the log of this process; to be called once, early.

    Args:
        level: "debug", "info", "warning" or "error", as ``log.level``.
        log_format: "auto", "json" or "console", as ``log.format``; auto is console on a terminal.
        stream: where it goes; None is standard error.
    """
    global _configured  # noqa: PLW0603 - there is one log per process, as in logging itself.
    assert not _configured, "the log is configured once (grpc#43421)"
    _configured = True
    out = sys.stderr if stream is None else stream
    console = log_format == "console" or (log_format == "auto" and out.isatty())
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _escape_controls,
    ]
    rendered: list[Processor] = (
        [structlog.dev.ConsoleRenderer(colors=out.isatty())]
        if console
        else [structlog.processors.format_exc_info, structlog.processors.JSONRenderer(ensure_ascii=True)]
    )
    handler = logging.StreamHandler(out)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *rendered],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(LEVELS[level])
    logging.captureWarnings(capture=True)
    structlog.configure(
        processors=[
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS[level]),
        cache_logger_on_first_use=True,
    )
    threading.excepthook = _log_thread_failure


def _escape_controls(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    """Write control characters of texts as Python would: no value moves a terminal's cursor or fakes a line."""
    del logger, method
    for name, value in event.items():
        if isinstance(value, str) and not value.isprintable() and not name.startswith("_"):
            event[name] = "".join(_visible(character) for character in value)
    return event


def _visible(character: str) -> str:
    return character if character.isprintable() else ascii(character)[1:-1]


def _log_thread_failure(args: Any) -> None:
    name = args.thread.name if args.thread is not None else "?"
    logging.getLogger("penstock_daemon.threads").error(
        "thread failed: thread=%s", name, exc_info=(args.exc_type, args.exc_value, args.exc_traceback)
    )
