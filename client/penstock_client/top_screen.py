"""The screen of ``penstock top``: a terminal that is redrawn when there is news, a key or another size, and left whole.

    entered: alternate screen, no cursor, keys without echo        left: all of it taken back, whatever ends the loop

Ctrl-C, a closed terminal and SIGTERM end it as q does, but for the exit code; Ctrl-Z leaves the terminal whole, too.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import signal
import sys
import termios
import time
import tty
from collections.abc import Iterator
from types import FrameType
from typing import Any, Final

from rich.console import Console
from rich.text import Text

from penstock_client.exits import Exit, signal_exit_code
from penstock_client.top_layout import lay_out, waiting_lines
from penstock_client.top_watch import Latest, Watch

_LOOK_S: Final = 0.1
_SILENT_INTERVALS: Final = 3.0
_SILENT_S: Final = 2.0
_ENTER: Final = "\x1b[?1049h\x1b[?25l\x1b[?7l"  # Alternate screen, no cursor, no wrapping.
_LEAVE: Final = "\x1b[?7h\x1b[?25h\x1b[?1049l"
_BEGIN: Final = "\x1b[?2026h\x1b[H"  # From here to _END the terminal may show all at once.
_END: Final = "\x1b[?2026l"
_CLEAR_LINE: Final = "\x1b[K"  # From its first cell: after its last one it would take that with it.
_CLEAR_REST: Final = "\r\n\x1b[J"
_SIZE_UNKNOWN: Final = os.terminal_size((80, 24))
_KEYS: Final = "q quit  p pause"
_KEYS_PAUSED: Final = "q quit  p GO ON (paused)"


class _EndedBySignal(Exception):  # noqa: N818 - It is no error.
    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def show_screen(watch: Watch, interval_s: float) -> int:
    """Show *watch* on the terminal that standard output is until somebody ends it; return the exit code.

    Raises:
        PenstockError: the daemon refuses for good.
    """
    screen = _Screen(Console(file=sys.stdout, force_terminal=True), sys.stdout.fileno(), interval_s)
    try:
        with _signals(screen), screen.entered():
            while True:
                if watch.failure is not None:
                    raise watch.failure
                screen.draw(watch.latest, watch.address)
                if not screen.look(watch):
                    return Exit.DONE
    except KeyboardInterrupt:
        return signal_exit_code(signal.SIGINT)
    except _EndedBySignal as end:
        return signal_exit_code(end.number)
    except OSError as error:
        if error.errno != errno.EIO:
            raise
        return signal_exit_code(signal.SIGHUP)  # The terminal is gone, and its signal still under way.


class _Screen:
    """What is on the terminal, and what was asked by keys."""

    def __init__(self, console: Console, terminal: int, interval_s: float) -> None:
        self._console = console  # Turns styles into what the terminal takes; writes nothing itself.
        self._terminal = terminal
        self._silent_s = max(_SILENT_INTERVALS * interval_s, _SILENT_S)
        self._ascii = not console.encoding.lower().startswith("utf")
        self._keyboard = sys.stdin.fileno() if sys.stdin is not None and sys.stdin.isatty() else -1
        self._saved: list[Any] | None = None
        self._paused: Latest | None = None
        self._drawn: tuple[object, ...] = ()

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        """Take the terminal for the length of a block."""
        self.enter()
        try:
            yield
        finally:
            self.leave()

    def enter(self) -> None:
        """Take the terminal."""
        if self._keyboard >= 0:
            self._saved = termios.tcgetattr(self._keyboard)
            tty.setcbreak(self._keyboard, termios.TCSANOW)
        self._write(_ENTER)
        self._drawn = ()

    def leave(self) -> None:
        """Give the terminal back as it was; nothing happens to one that is gone."""
        with contextlib.suppress(OSError, ValueError):
            self._write(_LEAVE)
        if self._saved is not None:
            with contextlib.suppress(termios.error):
                termios.tcsetattr(self._keyboard, termios.TCSADRAIN, self._saved)
            self._saved = None

    def look(self, watch: Watch) -> bool:
        """Wait a moment for news or a key. Returns False where the person wants to go."""
        if self._keyboard < 0:
            watch.wait(watch.latest.number, _LOOK_S)
            return True
        ready, _, _ = select.select([self._keyboard], [], [], _LOOK_S)
        if not ready:
            return True
        pressed = os.read(self._keyboard, 64)
        if not pressed or b"q" in pressed or b"Q" in pressed:  # Nothing: the terminal has hung up.
            return False
        if b"p" in pressed or b"P" in pressed:
            self._paused = watch.latest if self._paused is None else None
        return True

    def draw(self, latest: Latest, address: str) -> None:
        """Draw what is known, where anything changed."""
        size = self._size()
        shown = self._paused or latest
        silent_s = int(time.monotonic() - shown.taken_s) if shown.facts is not None else 0
        note = self._note(latest, silent_s)
        state = (shown.number, latest.trouble, note, size, self._paused is not None)
        if state == self._drawn:
            return
        self._drawn = state
        keys = "" if self._keyboard < 0 else _KEYS_PAUSED if self._paused else _KEYS
        if shown.facts is None:
            reason = latest.trouble or "asking"
            lines = waiting_lines(address, reason, size.columns, size.lines, keys, ascii_only=self._ascii)
        else:
            lines = lay_out(
                shown.facts, size.columns, size.lines, note=note, keys=keys or "Ctrl-C quit", ascii_only=self._ascii
            )
        rest = _CLEAR_REST if len(lines) < size.lines else ""
        self._write(_BEGIN + "\r\n".join(self._ansi(line) for line in lines) + rest + _END)

    def _note(self, latest: Latest, silent_s: int) -> str:
        if latest.trouble:
            return f"DAEMON GONE for {silent_s} s, waiting for it: {latest.trouble}"
        if self._paused is None and silent_s >= self._silent_s:
            return f"NO ANSWER for {silent_s} s"
        return ""

    def _ansi(self, line: Text) -> str:
        """Return a line as the terminal takes it, styles and all, in the place of what was there."""
        with self._console.capture() as captured:
            self._console.print(line, end="", soft_wrap=True)
        return _CLEAR_LINE + captured.get()

    def _size(self) -> os.terminal_size:
        """Return columns and rows as they are now: not those of COLUMNS and LINES, which stay what they were."""
        size = os.get_terminal_size(self._terminal)
        return size if size.columns and size.lines else _SIZE_UNKNOWN

    def _write(self, text: str) -> None:
        """Write past Python's buffer, which would keep what a closed terminal does not take."""
        data = text.encode(self._console.encoding, "replace")
        while data:
            data = data[os.write(self._terminal, data) :]


@contextlib.contextmanager
def _signals(screen: _Screen) -> Iterator[None]:
    """End the block at SIGTERM and SIGHUP, and hand the terminal over at Ctrl-Z, until the block ends."""

    def end(number: int, _frame: FrameType | None) -> None:
        raise _EndedBySignal(number)

    def rest(_number: int, _frame: FrameType | None) -> None:
        screen.leave()
        os.kill(os.getpid(), signal.SIGSTOP)
        screen.enter()

    before = {
        number: signal.signal(number, act)
        for number, act in ((signal.SIGTERM, end), (signal.SIGHUP, end), (signal.SIGTSTP, rest))
    }
    try:
        yield
    finally:
        for number, act in before.items():
            signal.signal(number, act)
