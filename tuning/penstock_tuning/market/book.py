"""What happens at one arrival: orders come, go and trade at the top of one book, and queues that empty move the price.

The mechanism, per instrument:

    a quote event adds to or cancels from one side; cancels grow with the queue, so queues hover about QUEUE_MEAN
    a trade prints first (the book still as it was), then a quote record shows what it left, a few microseconds later
    a parent order (flow) leans trades, adds and cancels to one side until it is done; the leader's moves start others
    an emptied queue is refilled by hidden orders (HIDDEN_REFILL), or the price moves by one tick

The imbalance of the queues therefore tells something, never all, of the next move. ``signal`` s scales what it tells:
each of the three ways in which the mid can move (a queue empties, a wide spread closes, an absent side returns) goes
the way of the book with probability (1 + s REACH) / 2. With s = 0 every move is a fair coin that nothing before it
foretells, and the market is free of signal to any model.

Invariants: bid < ask where both stand; sizes are positive where a price stands and 0 where none does.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from penstock_kernels.compiled import compiled
from penstock_tuning.market.arrivals import uniform

# Columns of one instrument's row in ``books``, int64.
BID: Final = 0  # In ticks.
ASK: Final = 1  # In ticks.
BID_QUEUE: Final = 2  # In order units; 0 where the side is absent.
ASK_QUEUE: Final = 3
ABSENT: Final = 4  # -1 the bid is absent, +1 the ask is absent, 0 both stand.
LAST_MOVE: Final = 5  # -1, 0, +1.
FLOW: Final = 6  # Side of the parent order at work: -1 sells, +1 buys, 0 none.
FLOW_LEFT: Final = 7  # Its remaining events.
BOOK_COLUMNS: Final = 8

# What quote_event did, as returned: bit 0 a cancel, bit 1 on the ask.
CANCELLED: Final = 1
ON_ASK: Final = 2

QUEUE_MEAN: Final = 24.0  # In order units.
QUEUE_REVERSION: Final = 0.25  # An empty queue gets an add with probability one half and this, a huge one minus this.
TRADE_SHARE: Final = 0.24  # Of events.
TRADE_LEAN_FLOW: Final = 0.30  # Probability above one half that a trade goes with the parent order.
TRADE_LEAN_BOOK: Final = 0.30  # The same for a book wholly on one side: buyers hurry when few are left to sell.
QUOTE_LEAN_FLOW: Final = 0.12
FLOW_START: Final = 0.012  # Per event without a parent order.
FLOW_MEAN_EVENTS: Final = 40.0
FLOW_FOLLOWS: Final = 0.25  # A move of the leader starts a parent order in a follower.
PULL: Final = 0.015  # A cancel takes the whole queue with it.
HIDDEN_REFILL: Final = 0.15
ABSENCE: Final = 0.02  # A move leaves the side empty for some events.
RETURN: Final = 0.25  # Per event of an absence.
CLOSE_SPREAD: Final = 0.55  # Per event of a spread wider than one tick.
SPREAD_MAX_TICKS: Final = 3
REACH: Final = 0.95
PRICE_FLOOR_TICKS: Final = 10
ORDER_UNITS: Final = np.array([1, 1, 1, 1, 2, 2, 2, 3, 3, 4, 5, 5, 8, 10, 13, 25], dtype=np.int64)


@compiled
def open_book(book: NDArray[np.int64], first_ticks: int) -> None:
    """Set *book*, shape (BOOK_COLUMNS,), overwritten, to its first state."""
    book[:] = 0
    book[BID] = first_ticks
    book[ASK] = first_ticks + 1
    book[BID_QUEUE] = np.int64(QUEUE_MEAN)
    book[ASK_QUEUE] = np.int64(QUEUE_MEAN)


@compiled
def fresh_queue(word: np.uint64) -> int:
    """Return the size of a new best queue: two orders and a bit, in order units."""
    return (
        int(ORDER_UNITS[np.int64(word & np.uint64(15))])
        + int(ORDER_UNITS[np.int64((word >> np.uint64(4)) & np.uint64(15))])
        + int(ORDER_UNITS[np.int64((word >> np.uint64(8)) & np.uint64(15))])
        + int(np.int64((word >> np.uint64(12)) & np.uint64(7)))
    )


@compiled
def towards(direction: int, signal: float, word: np.uint64) -> int:
    """Return *direction* with probability (1 + *signal* REACH) / 2, else its opposite."""
    return direction if uniform(word) < 0.5 * (1.0 + signal * REACH) else -direction


@compiled
def move(book: NDArray[np.int64], direction: int, first: np.uint64, second: np.uint64) -> None:
    """Move the price of *book*, overwritten, by one tick: the side in the way steps back, the other stands refreshed.

    Upwards the ask steps up and gets a fresh queue; a bid that stood empty gets one too. Downwards the mirror image.
    """
    if direction < 0 and book[BID] <= PRICE_FLOOR_TICKS:
        direction = 1
    if direction > 0:
        book[ASK] += 1
        book[ASK_QUEUE] = fresh_queue(first)
        if book[BID_QUEUE] == 0:
            book[BID_QUEUE] = fresh_queue(second)
    else:
        book[BID] -= 1
        book[BID_QUEUE] = fresh_queue(first)
        if book[ASK_QUEUE] == 0:
            book[ASK_QUEUE] = fresh_queue(second)
    book[ABSENT] = 0
    book[LAST_MOVE] = direction


@compiled
def settle(book: NDArray[np.int64], signal: float, words: NDArray[np.uint64]) -> bool:
    """Resolve an emptied queue of *book*, overwritten; return whether the mid moved. Takes five of *words*."""
    if book[BID_QUEUE] > 0 and book[ASK_QUEUE] > 0:
        return False
    ask_emptied = book[ASK_QUEUE] == 0
    if uniform(words[0]) < HIDDEN_REFILL or book[ASK] - book[BID] >= SPREAD_MAX_TICKS:
        side = ASK_QUEUE if ask_emptied else BID_QUEUE
        book[side] = fresh_queue(words[1])
        return False
    if uniform(words[2]) < ABSENCE:
        book[ABSENT] = 1 if ask_emptied else -1
        return False
    move(book, towards(1 if ask_emptied else -1, signal, words[3]), words[1], words[4])
    return True


@compiled
def close_spread(book: NDArray[np.int64], signal: float, words: NDArray[np.uint64]) -> None:
    """Narrow a wide spread of *book*, overwritten, by one tick, rather the way of the last move. Takes two *words*."""
    direction = towards(book[LAST_MOVE] if book[LAST_MOVE] != 0 else 1, 0.5 * signal, words[0])
    if direction > 0:
        book[BID] += 1
        book[BID_QUEUE] = fresh_queue(words[1])
    else:
        book[ASK] -= 1
        book[ASK_QUEUE] = fresh_queue(words[1])
    book[LAST_MOVE] = direction


@compiled
def advance_flow(book: NDArray[np.int64], first: np.uint64, second: np.uint64) -> None:
    """Start, continue or end the parent order of *book*, overwritten."""
    if book[FLOW_LEFT] > 0:
        book[FLOW_LEFT] -= 1
        if book[FLOW_LEFT] == 0:
            book[FLOW] = 0
    elif uniform(first) < FLOW_START:
        start_flow(book, 1 if (second & np.uint64(1)) != 0 else -1, second)


@compiled
def start_flow(book: NDArray[np.int64], side: int, word: np.uint64) -> None:
    """Put a parent order of *side* to work in *book*, overwritten, for about FLOW_MEAN_EVENTS events."""
    book[FLOW] = side
    book[FLOW_LEFT] = 1 + np.int64(2.0 * FLOW_MEAN_EVENTS * uniform(word))


@compiled
def trade_side(book: NDArray[np.int64], word: np.uint64) -> int:
    """Return the aggressor of a trade in *book*: +1 buys, -1 sells."""
    bid, ask = float(book[BID_QUEUE]), float(book[ASK_QUEUE])
    lean = TRADE_LEAN_FLOW * book[FLOW] + TRADE_LEAN_BOOK * (bid - ask) / (bid + ask)
    return 1 if uniform(word) < 0.5 + lean else -1


@compiled
def quote_event(book: NDArray[np.int64], words: NDArray[np.uint64]) -> int:
    """Add to or cancel from one side of *book*, overwritten; both sides stand. Takes four of *words*.

    Returns:
        CANCELLED (or 0 for an add) plus ON_ASK (or 0 for the bid).
    """
    ask = (words[0] & np.uint64(1)) != 0
    queue = ASK_QUEUE if ask else BID_QUEUE
    lean = QUOTE_LEAN_FLOW * book[FLOW] * (1 if ask else -1)
    size = int(ORDER_UNITS[np.int64(words[1] & np.uint64(15))])
    pull_back = QUEUE_REVERSION * (QUEUE_MEAN - book[queue]) / (QUEUE_MEAN + book[queue])
    if uniform(words[2]) < 0.5 + pull_back - lean:
        book[queue] += size
        return ON_ASK if ask else 0
    book[queue] = 0 if uniform(words[3]) < PULL else max(0, book[queue] - size)
    return CANCELLED + (ON_ASK if ask else 0)
