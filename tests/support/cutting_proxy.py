"""A Unix socket in front of another that cuts each connection after so many bytes: what a crash or a broken link does.

with cutting_proxy(path, "unix:/daemon.sock", after_bytes=700):
    ... connect to f"unix:{path}" ...
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def cutting_proxy(path: Path, address: str, *, after_bytes: int) -> Iterator[str]:
    """Pass one connection on, both ways together at most *after_bytes*; give the address to connect to."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen(1)
    passed = 0
    ends: list[socket.socket] = []

    def cut() -> None:
        for end in ends:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def pump(source: socket.socket, sink: socket.socket) -> None:
        nonlocal passed
        with contextlib.suppress(OSError):
            while data := source.recv(4096):
                passed += len(data)
                if passed > after_bytes:
                    break
                sink.sendall(data)
        cut()

    def serve() -> None:
        with contextlib.suppress(OSError):
            client, _ = listener.accept()
            listener.close()  # Who tries again hears at once that nobody is there.
            daemon = socket.socket(socket.AF_UNIX)
            ends.extend((client, daemon))
            daemon.connect(address.removeprefix("unix:"))
            back = threading.Thread(target=pump, args=(daemon, client))
            back.start()
            pump(client, daemon)
            back.join()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield f"unix:{path}"
    finally:
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        cut()
        thread.join()
        for end in (listener, *ends):
            end.close()
        path.unlink()
