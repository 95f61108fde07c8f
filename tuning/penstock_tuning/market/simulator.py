"""The simulator: arrivals and books become mbp-1 tick records, chunk by chunk.

    equal settings give equal bytes, whatever the size of the chunks they are asked for in
    ts_recv grows strictly; ts_event is the venue's millisecond, a little earlier, and at times runs backwards

Randomness is one stream of raw Philox words: each candidate arrival takes the next WORDS of them, whether it comes to
anything or not. The loop is compiled, takes no clock and allocates nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from penstock.v1.records import TICK_DTYPE, TICK_LENGTH_WORDS, TICK_RTYPE, UNDEFINED_PRICE, BookFlag
from penstock_client.instruments import Instrument
from penstock_kernels.compiled import compiled
from penstock_kernels.philox import Stream
from penstock_tuning.market import arrivals
from penstock_tuning.market import book as top
from penstock_tuning.market.settings import DATASET, SECONDS_MAX, MarketError, MarketSettings

WORDS: Final = 20  # Random words of one candidate arrival.
CHUNK_TICKS: Final = 65_536
TICKS_MAX: Final = 100_000_000  # 8 GB.

# Weights of an event in the excitement it brings; about 1 in the mean.
WEIGHT_QUOTE: Final = 0.41
WEIGHT_TRADE: Final = 1.2
WEIGHT_MOVE: Final = 5.0
TICKS_PER_EVENT: Final = 1.228  # Measured: a trade writes two records, and not every event can trade.
_CANDIDATES: Final = 4096  # Drawn at once.
_STREAM: Final = 0x6D61726B6574  # The market's own words of a seed: "market".

# Columns of the market's own row, int64.
CLOCK_NS: Final = 0
SEQUENCE: Final = 1
_MARKET_COLUMNS: Final = 2

# Columns of one instrument's fixed numbers, int64.
TICK_PRICE: Final = 0
SIZE_UNIT: Final = 1

DELAY_NS: Final = 350_000  # Venue to recorder, at least.
DELAY_SPREAD_BITS: Final = 18  # Up to 262 us more.
STRAGGLER_ONE_IN: Final = 32  # A record in so many is late by up to 4 ms more: venue time runs backwards.
STRAGGLER_BITS: Final = 22
VENUE_STEP_NS: Final = 1_000_000  # The venue stamps milliseconds.
PRINT_TO_QUOTE_BITS: Final = 12  # A quote follows its trade within 4 us.

_FLAG_LAST: Final = int(BookFlag.LAST | BookFlag.TOP_OF_BOOK)
_FLAG_TOP: Final = int(BookFlag.TOP_OF_BOOK)
_ADD, _CANCEL, _MODIFY, _TRADE, _BID, _ASK = (ord(letter) for letter in "ACMTBA")


@dataclass(frozen=True, eq=False)
class Market:
    """A simulated recording.

    Attributes:
        instruments: in order of instrument_id, from 1.
        ticks: shape (any,), dtype TICK_DTYPE, in order of ts_recv.
        dataset: of all instruments.
    """

    settings: MarketSettings
    instruments: list[Instrument]
    ticks: NDArray[np.void]
    dataset: str = DATASET


class Simulator:
    """One market from its first tick to its last; ask for chunks until one comes back empty."""

    def __init__(self, settings: MarketSettings, seconds: float) -> None:
        """Open the books of *settings*; the market closes after *seconds*.

        Raises:
            MarketError: *seconds* is not in (0, SECONDS_MAX].
        """
        if not 0.0 < seconds <= SECONDS_MAX:
            raise MarketError(
                f"seconds must be above 0 and at most {SECONDS_MAX} (a week): seconds={seconds}; 60 is usual"
            )
        self.settings = settings
        listings = settings.listings()
        self.instruments = [
            Instrument(index + 1, listing.symbol, DATASET, listing.size_scale) for index, listing in enumerate(listings)
        ]
        self.start_ns = settings.start_ns
        self.end_ns = settings.start_ns + int(seconds * 1e9)
        self._fixed = np.array([[one.tick_price, one.size_unit] for one in listings], dtype=np.int64)
        self._books = np.zeros((len(listings), top.BOOK_COLUMNS), dtype=np.int64)
        for index, listing in enumerate(listings):
            top.open_book(self._books[index], listing.first_ticks)
        events_per_ns = settings.ticks_per_second / TICKS_PER_EVENT / 1e9 / len(listings)
        self._base = np.full(len(listings), events_per_ns * (1.0 - arrivals.BRANCHING_TOTAL))
        self._excitement = np.tile(events_per_ns * np.array(arrivals.BRANCHING), (len(listings), 1))
        self._market = np.zeros(_MARKET_COLUMNS, dtype=np.int64)
        self._market[CLOCK_NS] = settings.start_ns
        self._random = Stream(settings.seed, _STREAM)
        self._words = np.empty((0, WORDS), dtype=np.uint64)

    @property
    def clock_ns(self) -> int:
        """Unix time that the market has reached."""
        return min(int(self._market[CLOCK_NS]), self.end_ns)

    def next(self, ticks_max: int = CHUNK_TICKS) -> NDArray[np.void]:
        """Simulate on for about *ticks_max* ticks (one more where a trade and its quote would be split).

        Returns:
            Shape (any,), dtype TICK_DTYPE; empty when the market has closed.
        """
        ticks = np.zeros(ticks_max + 1, dtype=TICK_DTYPE)
        made = 0
        while made < ticks_max and self._market[CLOCK_NS] < self.end_ns:
            if not len(self._words):
                self._words = self._random.words(_CANDIDATES * WORDS).reshape(_CANDIDATES, WORDS)
            made, used = _run(
                self._market,
                self._base,
                self._excitement,
                self._fixed,
                self._books,
                self.settings.signal,
                self._words,
                self.end_ns,
                ticks,
                made,
                ticks_max,
            )
            self._words = self._words[used:]
        return ticks[:made]


def simulate(settings: MarketSettings, seconds: float, on_progress: Callable[[float], None] | None = None) -> Market:
    """Return the first *seconds* of the market of *settings*.

    Args:
        settings: of the market.
        seconds: of market time, in (0, SECONDS_MAX].
        on_progress: called with the simulated seconds after each chunk.

    Raises:
        MarketError: *seconds* is out of range, or the ticks would not fit in memory.
    """
    simulator = Simulator(settings, seconds)
    expected = settings.ticks_per_second * seconds
    if expected > TICKS_MAX:
        raise MarketError(
            f"a market must have at most {TICKS_MAX} ticks: seconds={seconds:g} at rate={settings.ticks_per_second:g} "
            f"make about {expected:.0f}; lower either, or write several files of other seeds"
        )
    chunks = [simulator.next()]
    while len(chunks[-1]):
        if on_progress is not None:
            on_progress((simulator.clock_ns - simulator.start_ns) / 1e9)
        chunks.append(simulator.next())
    return Market(settings, simulator.instruments, np.concatenate(chunks))


@compiled
def _run(
    market: NDArray[np.int64],
    base: NDArray[np.float64],
    excitement: NDArray[np.float64],
    fixed: NDArray[np.int64],
    books: NDArray[np.int64],
    signal: float,
    words: NDArray[np.uint64],
    end_ns: int,
    ticks: NDArray[np.void],
    made: int,
    ticks_max: int,
) -> tuple[int, int]:
    """Take candidate arrivals until the words, the room in *ticks* or the time is used up.

    Args:
        market: shape (_MARKET_COLUMNS,). Overwritten.
        base: intensity per ns, shape (instruments,).
        excitement: shape (instruments, KERNELS). Overwritten.
        fixed: shape (instruments, 2).
        books: shape (instruments, BOOK_COLUMNS). Overwritten.
        signal: of the settings.
        words: raw random words, shape (candidates, WORDS).
        end_ns: Unix time at which the market closes.
        ticks: shape (at least ticks_max + 1,), dtype TICK_DTYPE, zeros from *made* on. Overwritten.
        made: how many of them stand already.
        ticks_max: stop at so many.

    Returns:
        How many ticks stand now, and how many rows of *words* were used.
    """
    for candidate in range(words.shape[0]):
        row = words[candidate]
        bound = arrivals.intensity(base, excitement)
        gap_ns = 1 + np.int64(arrivals.exponential(row[0]) / bound)
        market[CLOCK_NS] += gap_ns
        if market[CLOCK_NS] >= end_ns:
            return made, candidate + 1
        arrivals.fade(excitement, float(gap_ns))
        share = arrivals.uniform(row[1]) * bound
        if share >= arrivals.intensity(base, excitement):
            continue
        instrument = arrivals.whose(base, excitement, share)
        book = books[instrument]
        mid_before = book[top.BID] + book[top.ASK]
        top.advance_flow(book, row[3], row[4])
        traded, made = _event(market, book, fixed[instrument], instrument, signal, row, ticks, made)
        moved = book[top.BID] + book[top.ASK] - mid_before
        arrivals.excite(excitement, instrument, WEIGHT_MOVE if moved != 0 else WEIGHT_TRADE if traded else WEIGHT_QUOTE)
        if moved != 0 and instrument == 0:
            _pull_followers(books, 1 if moved > 0 else -1, row[14])
        if made >= ticks_max:
            return made, candidate + 1
    return made, words.shape[0]


@compiled
def _event(
    market: NDArray[np.int64],
    book: NDArray[np.int64],
    fixed: NDArray[np.int64],
    instrument: int,
    signal: float,
    row: NDArray[np.uint64],
    ticks: NDArray[np.void],
    made: int,
) -> tuple[bool, int]:
    """Let one event happen to *book* and write its one or two records; return whether it traded, and the new count."""
    chance = arrivals.uniform(row[2])
    action, side = _MODIFY, _BID
    if book[top.ABSENT] != 0:
        if chance < top.RETURN:
            top.move(book, top.towards(int(book[top.ABSENT]), signal, row[5]), row[6], row[7])
            action = _ADD
        side = _ASK if book[top.ABSENT] > 0 else _BID
    elif book[top.ASK] - book[top.BID] > 1 and chance < top.CLOSE_SPREAD:
        before = book[top.BID]
        top.close_spread(book, signal, row[5:7])
        action, side = _ADD, _BID if book[top.BID] != before else _ASK
    elif arrivals.uniform(row[13]) < top.TRADE_SHARE:
        buys = top.trade_side(book, row[5]) > 0
        queue = top.ASK_QUEUE if buys else top.BID_QUEUE
        units = min(book[queue], top.ORDER_UNITS[np.int64(row[6] & np.uint64(15))])
        _write(market, book, fixed, instrument, _TRADE, _BID if buys else _ASK, units, row[15], ticks[made])
        made += 1
        market[CLOCK_NS] += 1 + np.int64(row[17] >> np.uint64(64 - PRINT_TO_QUOTE_BITS))
        book[queue] -= units
        top.settle(book, signal, row[8:13])
        _write(market, book, fixed, instrument, _MODIFY, _ASK if buys else _BID, 0, row[16], ticks[made])
        return True, made + 1
    else:
        done = top.quote_event(book, row[5:9])
        top.settle(book, signal, row[8:13])
        action = _CANCEL if done & top.CANCELLED else _ADD
        side = _ASK if done & top.ON_ASK else _BID
    _write(market, book, fixed, instrument, action, side, 0, row[15], ticks[made])
    return False, made + 1


@compiled
def _pull_followers(books: NDArray[np.int64], direction: int, word: np.uint64) -> None:
    """After a move of the leader, start parent orders of its *direction* in some of the other *books*."""
    for follower in range(1, books.shape[0]):
        turned = (word >> np.uint64(follower % 61)) | (word << np.uint64(64 - follower % 61))
        if arrivals.uniform(turned) < top.FLOW_FOLLOWS:
            top.start_flow(books[follower], direction, turned * np.uint64(0x9E3779B97F4A7C15))


@compiled
def _write(
    market: NDArray[np.int64],
    book: NDArray[np.int64],
    fixed: NDArray[np.int64],
    instrument: int,
    action: int,
    side: int,
    trade_units: int,
    word: np.uint64,
    tick: Any,  # One record of TICK_DTYPE, as compiled code sees it.
) -> None:
    """Write *book* as it stands into the record *tick*, which is zeros; a trade of *trade_units* where that is not 0."""
    delay_ns = DELAY_NS + np.int64(word >> np.uint64(64 - DELAY_SPREAD_BITS))
    if (word & np.uint64(STRAGGLER_ONE_IN - 1)) == 0:
        delay_ns += np.int64((word >> np.uint64(5)) & np.uint64(2**STRAGGLER_BITS - 1))
    clock_ns = market[CLOCK_NS]
    venue_ns = clock_ns - delay_ns
    tick.length = TICK_LENGTH_WORDS
    tick.rtype = TICK_RTYPE
    tick.instrument_id = instrument + 1
    tick.ts_event = venue_ns - venue_ns % VENUE_STEP_NS
    tick.action = action
    tick.side = side
    tick.ts_recv = clock_ns
    tick.ts_in_delta = delay_ns
    tick.sequence = market[SEQUENCE] & 0xFFFFFFFF
    market[SEQUENCE] += 1
    tick.price = UNDEFINED_PRICE
    tick.flags = _FLAG_LAST
    if trade_units > 0:
        tick.price = (book[top.ASK] if side == _BID else book[top.BID]) * fixed[TICK_PRICE]
        tick.size = trade_units * fixed[SIZE_UNIT]
        tick.flags = _FLAG_TOP
    tick.bid_px = UNDEFINED_PRICE
    tick.ask_px = UNDEFINED_PRICE
    if book[top.ABSENT] >= 0:
        tick.bid_px = book[top.BID] * fixed[TICK_PRICE]
        tick.bid_sz = book[top.BID_QUEUE] * fixed[SIZE_UNIT]
        tick.bid_ct = 1 + book[top.BID_QUEUE] // 3
    if book[top.ABSENT] <= 0:
        tick.ask_px = book[top.ASK] * fixed[TICK_PRICE]
        tick.ask_sz = book[top.ASK_QUEUE] * fixed[SIZE_UNIT]
        tick.ask_ct = 1 + book[top.ASK_QUEUE] // 3
