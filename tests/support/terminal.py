"""A command in a pseudo-terminal of its own, as a person has it: its screen as text, its keys, its size.

with Terminal(["top", "--to", address]) as terminal:
    terminal.until("SERVING")
    terminal.press("q")
"""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import time
from types import TracebackType
from typing import Any, Self

PATIENCE_S = 60.0
# Ctrl-C reaches who has the terminal as its own. Not by preexec_fn: Python 3.12 warns of that beside threads.
_OWN_IT = "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execv(sys.argv[1], sys.argv[1:])"
_OF_THE_CALLER = frozenset({"NO_COLOR", "FORCE_COLOR", "COLUMNS", "LINES", "COLORTERM"})
_PICTURE = re.compile(r"\x1b\[\?2026h\x1b\[H(.*?)\x1b\[\?2026l", re.DOTALL)
_ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class Terminal:
    """``penstock`` with *arguments* on a terminal of columns x rows."""

    def __init__(self, arguments: list[str], *, columns: int = 80, rows: int = 24, **environment: str) -> None:
        self._ours, self._theirs = pty.openpty()
        self._open = True
        self.resize(columns, rows)
        self.before = termios.tcgetattr(self._theirs)
        self.written = ""
        inherited = {name: value for name, value in os.environ.items() if name not in _OF_THE_CALLER}
        self.process = subprocess.Popen(
            [sys.executable, "-c", _OWN_IT, sys.executable, "-m", "penstock_client.cli", *arguments],
            stdin=self._theirs,
            stdout=self._theirs,
            stderr=self._theirs,
            env={**inherited, "TERM": "xterm-256color", "PYTHONUTF8": "1", **environment},
            start_new_session=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        if self._open:
            self.close()

    def close(self) -> None:
        """Close the window: the terminal is gone."""
        self._open = False
        os.close(self._theirs)
        os.close(self._ours)

    def forget(self) -> None:
        """Look at what is written from now on alone."""
        while self._read(0):
            pass
        self.written = ""

    def resize(self, columns: int, rows: int) -> None:
        fcntl.ioctl(self._theirs, termios.TIOCSWINSZ, struct.pack("4H", rows, columns, 0, 0))

    def press(self, keys: str) -> None:
        os.write(self._ours, keys.encode())

    def settings(self) -> list[Any]:
        """Return how the terminal is set now."""
        return termios.tcgetattr(self._theirs)

    def screen(self) -> list[str]:
        """Return the lines of the last whole picture."""
        whole = _PICTURE.findall(self.written)
        lines = [_ESCAPE.sub("", line).strip("\r") for line in whole[-1].split("\n")] if whole else []
        return lines[:-1] if lines and not lines[-1] else lines

    def until(self, *texts: str, gone: str = "") -> list[str]:
        """Read until a picture has all of *texts*, and not *gone*; return its lines."""
        deadline_s = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline_s:
            self._read(0.1)
            lines = self.screen()
            picture = "\n".join(lines)
            if lines and all(text in picture for text in texts) and not (gone and gone in picture):
                return lines
            if self.process.poll() is not None and not self._read(0):
                break
        raise AssertionError(
            f"no picture with {texts}; the last one:\n" + "\n".join(self.screen()) + self.written[-500:]
        )

    def ended(self) -> int:
        """Wait for the end, and return the exit code."""
        deadline_s = time.monotonic() + PATIENCE_S
        while self.process.poll() is None and time.monotonic() < deadline_s:
            self._read(0.05)
        while self._read(0):
            pass
        return self.process.wait(1)

    def _read(self, timeout_s: float) -> bool:
        if not select.select([self._ours], [], [], timeout_s)[0]:
            return False
        try:
            data = os.read(self._ours, 65536)
        except OSError:
            return False
        self.written += data.decode(errors="replace")
        return bool(data)
