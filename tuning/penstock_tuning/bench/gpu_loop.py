"""One micro-batch after another, timed from the host: written, launched, awaited, without the interpreter.

    due        the host begins to write the micro-batch: its ticks where they are staged, its number
    launched   the launch has returned
    done       the host has seen the number in pinned memory: DONE_NUMBER, or every resident block's answer

host to host = done - due. The same loop drives a captured graph and the resident kernel, so nothing else differs.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from penstock.v1.records import TICK_BYTES
from penstock_daemon.native import CLOCK_MONOTONIC, clock_ns, fence, load_acquire, nap_ns, store_release
from penstock_kernels.compiled import Int64s, compiled
from penstock_kernels.cuda.layout import (
    ANSWER_CALL,
    ANSWER_WORDS,
    BELL_CALL,
    BELL_HEARTBEAT,
    BELL_WORDS,
    CALL_NUMBER_SHIFT,
    CALL_NUMBERS,
    DONE_CLOCK_NS,
    DONE_NUMBER,
    RESULT_DTYPE,
    SLOT_BYTES,
    TICK_IN_SLOT,
)

_WORD_BYTES: Final = 8
SLOT_WORDS: Final = SLOT_BYTES // _WORD_BYTES
TICK_WORDS: Final = TICK_BYTES // _WORD_BYTES
_TICK_WORD: Final = TICK_IN_SLOT // _WORD_BYTES
_STARTED_WORD: Final = RESULT_DTYPE.fields["started_ns"][1] // _WORD_BYTES  # type: ignore[index]  # It has fields.

# Columns of the times.
DUE: Final = 0
LAUNCHED: Final = 1
DONE: Final = 2
DEVICE_NS: Final = 3  # On the device's clock, from the first block's start to completion; 0 for the resident kernel.
TIME_COLUMNS: Final = 4

# What trips() gives back instead of a count.
NOT_DONE: Final = -1  # A launch did not complete in time.
REFUSED: Final = -2  # A launch failed at once.


# Words of a route: where trips() sends its micro-batches.
LAUNCH_ADDRESS: Final = 0
EXECUTABLE: Final = 1
STREAM: Final = 2
RESIDENT_BLOCKS: Final = 3  # 0: a graph is launched.
STAGED_ITEMS: Final = 4  # Whose ticks the host copies into their slots, from the first on; 0: read where they lie.
TIMEOUT_NS: Final = 5
NUMBER: Final = 6  # Of the last launch; changes.
PLACE: Final = 7  # Of the next tick; changes.
PAUSE_NS: Final = 8  # Between looks, for a host whose processors are shared with the device; 0: spins.
ROUTE_WORDS: Final = 9

_LOOKS_MASK: Final = 1023  # A look at the clock for so many at the word.


@intrinsic
def call_launch(_typing: Any, _function: Any, _executable: Any, _stream: Any) -> Any:
    """Call the C function at an address with two words: ``cuGraphLaunch(executable, stream)``. Returns its int32."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        word = ir.IntType(64)
        function_type = ir.FunctionType(ir.IntType(32), [word, word])
        function = builder.inttoptr(arguments[0], function_type.as_pointer())
        return builder.call(function, [arguments[1], arguments[2]])

    return types.int32(types.int64, types.int64, types.int64), generate


@compiled
def _seen(words: Int64s, position: int, number: int, deadline_ns: int, pause_ns: int) -> bool:
    """Look at a word until it is *number*; False where it was not in time."""
    looks = 0
    while load_acquire(words, position) != number:
        looks += 1
        if pause_ns > 0:
            nap_ns(pause_ns)
        if (pause_ns > 0 or looks & _LOOKS_MASK == 0) and clock_ns(CLOCK_MONOTONIC) > deadline_ns:
            return False
    return True


@compiled
def trips(
    route: Int64s,
    work: Int64s,
    ticks: Int64s,
    results: Int64s,
    done: Int64s,
    bells: Int64s,
    answers: Int64s,
    times: Int64s,
) -> int:
    """Send the micro-batch that *work* describes once per row of *times*, with new ticks each time.

    Args:
        route: the Route words.
        work: the head's and slots' words, flat. The number, and staged ticks, are overwritten.
        ticks: whose records are taken in turn, flat, whole records.
        results: flat.
        done: the done words.
        bells: of the resident kernel, flat; the first route[RESIDENT_BLOCKS] of them are rung, each for the slot of its
            own number, whose "next" leads to the others.
        answers: of the resident kernel, flat.
        times: shape (trips, TIME_COLUMNS). Overwritten.

    Returns:
        How many trips were made, or NOT_DONE or REFUSED. route[NUMBER] is the last number used.
    """
    number, place = route[NUMBER], route[PLACE]
    records = len(ticks) // TICK_WORDS
    resident = route[RESIDENT_BLOCKS]
    for trip in range(len(times)):
        due_ns = clock_ns(CLOCK_MONOTONIC)
        number += 1
        for item in range(route[STAGED_ITEMS]):
            word = (1 + item) * SLOT_WORDS + _TICK_WORD
            first = place * TICK_WORDS
            for part in range(TICK_WORDS):
                work[word + part] = ticks[first + part]
            place = place + 1 if place + 1 < records else 0
        store_release(work, 0, number)
        call = (number & (CALL_NUMBERS - 1)) << CALL_NUMBER_SHIFT
        fence()
        if resident > 0:
            bells[BELL_HEARTBEAT] = number
            for block in range(resident):  # Slot b is resident block b's first.
                store_release(bells, block * BELL_WORDS + BELL_CALL, call | block)
        elif call_launch(route[LAUNCH_ADDRESS], route[EXECUTABLE], route[STREAM]) != 0:
            route[NUMBER] = number
            return REFUSED
        launched_ns = clock_ns(CLOCK_MONOTONIC)
        deadline_ns = launched_ns + route[TIMEOUT_NS]
        if resident > 0:
            for block in range(resident):
                if not _seen(answers, block * ANSWER_WORDS + ANSWER_CALL, call | block, deadline_ns, route[PAUSE_NS]):
                    route[NUMBER] = number
                    return NOT_DONE
        elif not _seen(done, DONE_NUMBER, number, deadline_ns, route[PAUSE_NS]):
            route[NUMBER] = number
            return NOT_DONE
        times[trip, DUE] = due_ns
        times[trip, LAUNCHED] = launched_ns
        times[trip, DONE] = clock_ns(CLOCK_MONOTONIC)
        times[trip, DEVICE_NS] = 0
        if resident == 0:
            times[trip, DEVICE_NS] = load_acquire(done, DONE_CLOCK_NS) - results[_STARTED_WORD]
    route[NUMBER], route[PLACE] = number, place
    return len(times)


def as_words(array: Any) -> Int64s:
    """Return contiguous memory of any type as flat int64 words, without a copy."""
    words: Int64s = array.reshape(-1).view(np.uint8).view(np.int64)
    return words
