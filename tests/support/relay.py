"""A relay between clients and a daemon's socket that can be cut or frozen: the network's faults, with the daemon in peace."""

from __future__ import annotations

import selectors
import socket
import threading
from pathlib import Path
from types import TracebackType
from typing import Self


class Relay:
    """Listens on *path* and forwards both ways to the daemon's socket *to*; use it with ``with``."""

    def __init__(self, path: Path, to: str) -> None:
        self.address = f"unix:{path}"
        self.connections = 0
        self._path = path
        self._to = to.removeprefix("unix:")
        self._pairs: dict[socket.socket, socket.socket] = {}
        self._frozen: list[socket.socket] = []
        self._lock = threading.Lock()
        self._selector = selectors.DefaultSelector()
        self._stop, self._stopped = socket.socketpair()
        self._listener = socket.socket(socket.AF_UNIX)
        self._thread = threading.Thread(target=self._run, name="relay")

    def __enter__(self) -> Self:
        self._listener.bind(str(self._path))
        self._listener.listen()
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._selector.register(self._stopped, selectors.EVENT_READ)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stop.close()
        self._thread.join()
        self.cut()
        for end in (*self._frozen, self._listener, self._stopped):
            end.close()
        self._selector.close()
        self._path.unlink()

    def cut(self) -> None:
        """Break every connection."""
        with self._lock:
            for one in list(self._pairs):
                self._drop(one)

    def freeze(self) -> None:
        """Forward nothing more on the connections there are, and leave them open: half-open streams."""
        with self._lock:
            for one in self._pairs:
                self._selector.unregister(one)
            self._frozen += self._pairs
            self._pairs.clear()

    def _run(self) -> None:
        while True:
            for key, _ in self._selector.select():
                if key.fileobj is self._stopped:
                    return
                with self._lock:
                    if key.fileobj is self._listener:
                        self._accept()
                    elif key.fileobj in self._pairs:
                        self._forward(key.fileobj)  # type: ignore[arg-type]

    def _accept(self) -> None:
        client, _ = self._listener.accept()
        daemon = socket.socket(socket.AF_UNIX)
        try:
            daemon.connect(self._to)
        except OSError:
            client.close()
            daemon.close()
            return
        self.connections += 1
        for one, other in ((client, daemon), (daemon, client)):
            self._pairs[one] = other
            self._selector.register(one, selectors.EVENT_READ)

    def _forward(self, one: socket.socket) -> None:
        try:
            data = one.recv(1 << 20)
            if data:
                self._pairs[one].sendall(data)
                return
        except OSError:
            pass
        self._drop(one)

    def _drop(self, one: socket.socket) -> None:
        other = self._pairs.pop(one, None)
        if other is None:
            return
        self._pairs.pop(other, None)
        for end in (one, other):
            self._selector.unregister(end)
            end.close()
