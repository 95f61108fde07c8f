"""Lines that say nothing: a sender gives a sign of life every second, so a quiet line is dead, or was never there.

silent for SILENT_NS, in a session that has not ended     told once for each silence
heard again                                               told once, with how long it was
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from penstock_daemon.feed import memory

SILENT_NS: Final = 5_000_000_000
_NAMES: Final = {memory.LINE_A: "a", memory.LINE_B: "b"}
_NEVER: Final = "see that feed.group and feed.interface are right, and that the network forwards the group (IGMP)"
_NO_MORE: Final = "see that the sender lives, the interface is up and the network forwards the group (IGMP)"


@dataclass
class _Line:
    """What was last seen of one line."""

    packets: int = 0
    heard_ns: int = 0
    silent: bool = False


class SilenceWatch:
    """Tells of lines that fall silent.

    Args:
        log: what is told goes there.
        word: returns one of the feed's words.
        now_ns: monotonic.
    """

    def __init__(self, log: Any, word: Callable[[int], int], now_ns: int) -> None:
        self._log = log
        self._word = word
        self._lines = {line: _Line(heard_ns=now_ns) for line in _NAMES}

    def look(self, lines: Sequence[int], now_ns: int) -> None:
        """Look once. lines: those that the feed has, of LINE_A and LINE_B."""
        ended = self._word(memory.ENDED) != 0
        for place in lines:
            line, packets = self._lines[place], self._word(memory.PACKETS + place)
            quiet_ns = now_ns - line.heard_ns
            if packets != line.packets:
                if line.silent:
                    self._log.info("feed_line_heard_again", line=_NAMES[place], silent_s=round(quiet_ns / 1e9, 1))
                line.packets, line.heard_ns, line.silent = packets, now_ns, False
            elif quiet_ns >= SILENT_NS and not line.silent and not ended:
                line.silent = True
                self._log.warning(
                    "feed_line_silent",
                    line=_NAMES[place],
                    silent_s=round(quiet_ns / 1e9, 1),
                    packets=packets,
                    mend=_NO_MORE if packets else _NEVER,
                )
