"""The books in plain Python, with arrays that refuse an index outside of them: run as a program with NUMBA_DISABLE_JIT=1.

Compiled code checks no index, and both it and NumPy take negative ones from the end. Here each is looked at. Prints how
many messages were applied and what came of them, as JSON.
"""

from __future__ import annotations

import collections
import json
import random
import sys

import numba
import numpy as np

from penstock.v1.records import TICK_DTYPE
from penstock_daemon.feed.books import Books, apply_dbn, apply_itch
from support.book_runs import outcome, packed, small_books
from support.itch_orders import STOCKS, Flow, mutated
from support.reference_books import ReferenceBooks


class Guarded(np.ndarray):
    def _look(self, key) -> None:
        for axis, index in enumerate(key if isinstance(key, tuple) else (key,)):
            if not isinstance(index, slice) and not 0 <= index < self.shape[axis]:
                raise AssertionError(f"index out of bounds: axis={axis}, index={index}, shape={self.shape}")

    def __getitem__(self, key):
        self._look(key)
        return super().__getitem__(key)

    def __setitem__(self, key, value) -> None:
        self._look(key)
        super().__setitem__(key, value)


def guarded(books: Books) -> Books:
    return Books(*(array.view(Guarded) for array in books))


def main(flows: int) -> None:
    assert numba.config.DISABLE_JIT, "run with NUMBA_DISABLE_JIT=1"
    np.seterr(over="ignore")  # The hash wraps, as it does in compiled code.
    draw = random.Random(7)
    outcomes: collections.Counter[str] = collections.Counter()
    out = np.zeros(1, dtype=TICK_DTYPE).view(np.recarray)
    for _ in range(flows):
        orders_max, levels_max = draw.choice(((1, 1), (9, 3), (50, 30)))
        books = guarded(small_books(STOCKS, [5, 1, 9], orders_max=orders_max, levels_max=levels_max))
        reference = ReferenceBooks(STOCKS, [5, 1, 9], orders_max=orders_max, levels_max=levels_max)
        flow = Flow(prices=draw.choice((2, 40)))
        messages = mutated(
            flow.opening() + flow.messages(draw.randbytes(6 * 150)), draw.randbytes(4 * draw.randrange(30))
        )
        data, starts, lengths = packed(messages)
        for index, message in enumerate(messages):
            code = apply_itch(books, data.view(Guarded), int(starts[index]), int(lengths[index]), 0, out)
            found = outcome(STOCKS, int(code))
            assert found == reference.apply(message, 0)[0], (index, message, found)
            outcomes[found] += 1
            apply_dbn(books, data.view(Guarded), int(starts[index]), int(lengths[index]), 0, out)
            for stock, name in enumerate(STOCKS):  # Messages of the other payload leave doubts, and nothing else.
                books.unsound[stock] = int(reference.stocks[name].unsound)
        beyond = len(data)
        for at, length in ((-1, 5), (beyond, 1), (beyond - 1, 2), (0, 0), (0, -1), (beyond + 9, 36)):
            assert outcome(STOCKS, int(apply_itch(books, data.view(Guarded), at, length, 0, out))) == "WRONG_LENGTH"
            assert outcome(STOCKS, int(apply_dbn(books, data.view(Guarded), at, length, 0, out))) == "WRONG_LENGTH"
    print(json.dumps(outcomes))


if __name__ == "__main__":
    main(int(sys.argv[1]))
