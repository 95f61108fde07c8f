"""The order books of a feed's instruments: messages in, best bids and offers out.

The door to what lies behind it: the books' memory (``book_memory.py``), and what one message does to them (``itch.py``,
``dbn_payload.py``). A book that may be wrong is unsound, and its ticks carry BookFlag.MAYBE_BAD_BOOK until it is sound again.
"""

from __future__ import annotations

from penstock_daemon.feed.book_memory import Books, books_bytes, make_books, mark_unsound, new_session
from penstock_daemon.feed.book_ticks import untell
from penstock_daemon.feed.dbn_payload import apply_dbn
from penstock_daemon.feed.itch import apply_itch

__all__ = ["Books", "apply_dbn", "apply_itch", "books_bytes", "make_books", "mark_unsound", "new_session", "untell"]
