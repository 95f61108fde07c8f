"""What host and device share for one micro-batch, to the byte: the work, the results and the words of completion.

A micro-batch is a number of blocks, one for each state that has ticks in it; a block walks its ticks in order.

    work      a head of one slot, then slots: slot b describes block b, slot i holds item i (and its tick, if staged)
    results   slot i answers item i
    done      DONE_NUMBER becomes the number of the launch when all of its blocks have written their results

A prefix of the work is everything a small micro-batch needs, so one copy of fixed size feeds a captured graph. Slots
are 128 bytes, two cache lines, so that one read across the bus brings what a block needs of a tick that is alone.
The host writes a slot before it launches and reads a result after the done word; nobody writes both.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from penstock.v1.records import HORIZONS_MAX, TICK_BYTES

SLOT_BYTES: Final = 128
TICK_IN_SLOT: Final = 48  # Byte offset of a staged tick in its slot.

# --- Work -----------------------------------------------------------------------------------------------------------

WORK_HEAD_DTYPE: Final = np.dtype(
    {
        "names": [
            "number",  # Of the launch, grows by one; never 0.
            "blocks",  # How many slots describe a block.
        ],
        "formats": ["<i8", "<i4"],
        "offsets": [0, 8],
        "itemsize": SLOT_BYTES,
    }
)

WORK_SLOT_DTYPE: Final = np.dtype(
    {
        "names": [
            "state",  # Of block b: a row of states and running.
            "model",  # Of block b: a model slot.
            "first",  # Of block b: its first item; the others follow.
            "count",  # Of block b: how many items, at least 1.
            "block_flags",  # Of block b: BLOCK_COLD.
            "item_flags",  # Of item i: ITEM_ADVANCE.
            "tick_offset",  # Of item i: bytes from the tick base to its 80-byte record.
            "next",  # Of block b: for a resident kernel, the next block of the same resident block, or LAST_SLOT.
            "tick",  # Of item i: the record, if ticks are staged.
        ],
        "formats": ["<i4", "<i4", "<i4", "<i4", "<i4", "<i4", "<i8", "<i4", (np.void, TICK_BYTES)],
        "offsets": [0, 4, 8, 12, 16, 20, 24, 32, TICK_IN_SLOT],
        "itemsize": SLOT_BYTES,
    }
)

BLOCK_COLD: Final = 1  # The block begins with a state of zeros, whatever the memory holds.
ITEM_ADVANCE: Final = 1  # Advance the state alone: the result's forecasts are 0.

# --- Results --------------------------------------------------------------------------------------------------------

RESULT_DTYPE: Final = np.dtype(
    {
        "names": [
            "forecasts",  # (HORIZONS_MAX, 4): expected return, deviation, probability up, down, as of predict_step.
            "flags",  # Of features_step.
            "fault",  # 0, or FAULT_*: nothing else of the slot is written then.
            "started_ns",  # The device's clock: the block took the tick.
            "done_ns",  # The device's clock: its forecasts are written.
        ],
        "formats": [("<f4", (HORIZONS_MAX, 4)), "<i4", "<i4", "<i8", "<i8"],
        "offsets": [0, 64, 68, 72, 80],
        "itemsize": SLOT_BYTES,
    }
)

FAULT_STATE: Final = 1  # A state, model slot, item or offset out of bounds: our own mistake, never followed.

# --- Completion: int64 words ----------------------------------------------------------------------------------------

DONE_NUMBER: Final = 0  # The number of the last launch that is complete.
DONE_FAULT: Final = 1  # FAULT_* of any block since the start.
DONE_CLOCK_NS: Final = 2  # The device's clock when DONE_NUMBER was written.
DONE_WORDS: Final = 16

# --- The resident kernel: one bell for each of its blocks, int64 words, a cache line apart -----------------------------

# A call is one word, so that one read across the bus brings all of it: a number that is another than the last call's in
# the upper half, in the lower half the first block slot of the work that this resident block walks. The others hang on
# it, each by the "next" of the one before; all of them are states that belong to this resident block.
BELL_CALL: Final = 0  # Written by the host when all else is. BELL_STOP ends the block.
BELL_HEARTBEAT: Final = 1  # Of bell 0 alone: changes while the host lives.
BELL_WORDS: Final = 8
BELL_STOP: Final = -1
CALL_NUMBER_SHIFT: Final = 32
CALL_NUMBERS: Final = 1 << 31  # A call's number is the launch's, modulo this.
CALL_FORGET: Final = (1 << 32) - 1  # In place of a first slot: keep no state any more; the memory has what was kept.
LAST_SLOT: Final = -1  # As a slot's next.

# A resident block's answers, int64 words, a cache line apart.
ANSWER_CALL: Final = 0  # The last call that it has finished, as its bell had it; ANSWER_ENDED when it has left.
ANSWER_REASON: Final = 1  # Why it left: REASON_*.
ANSWER_CLOCK_NS: Final = 2  # The device's clock when it finished.
ANSWER_WORDS: Final = 8
ANSWER_ENDED: Final = -1
REASON_STOPPED: Final = 1
REASON_WATCHDOG: Final = 2  # No heartbeat for longer than the limit.
REASON_MODEL: Final = 3  # It was compiled for another model.

# --- Arguments: every kernel gets them in this order, each as one 64-bit word --------------------------------------------

ARGUMENTS: Final = (
    "work",  # Device address of the head.
    "ticks",  # Device address that tick offsets count from.
    "tick_bytes",  # Bytes that may be read from there.
    "results",  # Device address.
    "done",  # Device address of the done words.
    "arrived",  # Device address of one int32, 0 between launches.
    "states",  # float32, (states, state_words): x of padded units, then the linear memory.
    "running",  # float64, (states, running_words).
    "headers",  # int64, (models, header_words), as PackedModel.
    "weights",  # float32, (models, weight_words), as PackedModel.
    "halves",  # float16, (models, half_words): the words from RESERVOIR_OFFSET to LEAK_OFFSET; 0 for none.
    "constants",  # float64, (models, constant_words), as PackedModel.
    "scratch",  # float32, (blocks, scratch_words): what shared memory has no room for; 0 for none.
    "states_count",
    "models_count",
    "items_max",  # Slots of the work, and of the results.
    "state_words",
    "running_words",
    "header_words",
    "weight_words",
    "half_words",
    "constant_words",
    "scratch_words",
    "bells",  # Of the resident kernel alone, as the next three.
    "answers",
    "watchdog_ns",
    "resident_model",  # The model slot whose weights it keeps in registers and shared memory.
)
