"""How a line's network card keeps time, as its thread is told: the card's clock against CLOCK_MONOTONIC, and the error.

    known          the card of the line's interface is compared with this host's clocks, and off by at most ERROR_MAX_NS
    not known      the error is 0: stamps of the card are not used

Two words are written one after the other. A reader that has the new one of one and the old one of the other is wrong by what
the card drifted in between, nanoseconds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from numpy.typing import NDArray

from penstock_daemon import rings
from penstock_daemon.clocks.seam import Offset
from penstock_daemon.feed import memory

ERROR_MAX_NS: Final = 1_000_000  # A stamp that may be off by more is worth less than the kernel's.

# Returns how far the clock at a path, such as /dev/ptp0, is from CLOCK_MONOTONIC; None where nobody compares it.
CardOffset = Callable[[str], Offset | None]


def tell_card_clocks(words: NDArray[Any], cards: Sequence[str], card_offset: CardOffset) -> None:
    """Write what is known of each line's card; for the event loop.

    Args:
        words: of the feed; CARD_OFFSET_NS and CARD_ERROR_NS are overwritten.
        cards: the clock of each line's card, "" for none.
        card_offset: is asked.
    """
    for line, card in enumerate(cards):
        offset = card_offset(card) if card else None
        if offset is None or offset.error_ns > ERROR_MAX_NS:
            rings.set_shared_word(words, memory.CARD_ERROR_NS + line, 0)
            continue
        rings.set_shared_word(words, memory.CARD_OFFSET_NS + line, offset.offset_ns)
        rings.set_shared_word(words, memory.CARD_ERROR_NS + line, max(offset.error_ns, 1))
