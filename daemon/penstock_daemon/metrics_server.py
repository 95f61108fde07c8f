"""The HTTP server behind /metrics: small, bounded, started and stopped in order.

It answers GET and HEAD of /metrics and nothing else, on loopback, in a thread of its own; a scrape that fails is a 500
and a line in the log, and a client that says nothing is closed after a while. Its threads inherit the CPU affinity of
whoever starts it: start it before threads are pinned to hot cores.
"""

from __future__ import annotations

import selectors
import socket
import socketserver
import threading
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from typing import Any, Final

import structlog
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from penstock_daemon.addresses import TcpAddress
from penstock_daemon.metrics import MetricsSnapshot, make_registry
from penstock_daemon.socket_guard import ListenError, check_port_free

_SILENCE_S: Final = 5.0  # A client that sends nothing for this long is closed.
_STOP_S: Final = 5.0

log = structlog.get_logger(__name__)


class MetricsServer:
    """The server, while it runs."""

    def __init__(self, address: TcpAddress, take: Callable[[], MetricsSnapshot], version: str) -> None:
        """Listen and start to answer.

        Args:
            address: on loopback; port 0 takes a free one.
            take: returns a new snapshot; called once per scrape, from other threads.
            version: the daemon's.

        Raises:
            ListenError: the port is taken, or the host is not this one.
        """
        assert address.loopback, "metrics are served on loopback"
        check_port_free(address, key="metrics.address")
        family, _, _, _, where = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)[0]
        try:
            self._server = _Server(family, where, make_registry(take, version))
        except OSError as refusal:
            raise ListenError(
                f"metrics.address: must be free, was {address}: {refusal.strerror}; choose another port, or "
                '"" for no metrics'
            ) from refusal
        self.address = TcpAddress(address.host, self._server.server_address[1])  # With the port in use.
        self._stop, self._stopped = socket.socketpair()
        self._thread = threading.Thread(target=self._serve, name="penstock-metrics", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop listening; a scrape under way is left to end by itself. May be called twice."""
        self._stop.close()
        self._thread.join(_STOP_S)
        self._server.server_close()

    def _serve(self) -> None:
        """Answer until ``close``; sleeps in between, with no wake-up of its own."""
        with selectors.DefaultSelector() as selector, self._stopped:
            selector.register(self._server, selectors.EVENT_READ)
            selector.register(self._stopped, selectors.EVENT_READ)
            while not any(key.fileobj is self._stopped for key, _ in selector.select()):
                self._server.handle_request()


class _Server(socketserver.ThreadingTCPServer):
    """Not http.server's: that one asks the resolver for the host's name when it binds."""

    daemon_threads = True
    block_on_close = False
    allow_reuse_address = True
    request_queue_size = 16
    timeout = 0  # handle_request is called when there is one.

    def __init__(self, family: int, where: Any, registry: CollectorRegistry) -> None:
        self.address_family = family
        self.registry = registry
        super().__init__(where, _Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Stay silent: a client that goes away while it is answered is no event."""
        del request, client_address


class _Handler(BaseHTTPRequestHandler):
    """Answers one connection."""

    server: _Server
    timeout = _SILENCE_S
    server_version = "penstockd"
    sys_version = ""

    def do_GET(self) -> None:
        """Answer with the metrics, in the format that the client prefers."""
        if self.path.partition("?")[0] != "/metrics":
            self._answer(HTTPStatus.NOT_FOUND, "text/plain", b"try /metrics\n")
            return
        encode, content_type = choose_encoder(self.headers.get("Accept", ""))
        try:
            body = encode(self.server.registry)
        except Exception:
            # A scrape is an outsider's: a mistake of ours while answering costs that scrape and nothing else.
            log.exception("metrics can't be shown")
            self._answer(HTTPStatus.INTERNAL_SERVER_ERROR, "text/plain", b"the log says what is wrong\n")
            return
        self._answer(HTTPStatus.OK, content_type, body)

    def do_HEAD(self) -> None:
        """Answer as ``do_GET``, without the body."""
        self.do_GET()

    def _answer(self, status: HTTPStatus, content_type: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class names it.
        """Log nothing: scrapes come every few seconds."""
