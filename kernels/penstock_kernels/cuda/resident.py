"""The kernel that stays: where a block of it keeps the weights of its one model, by arithmetic.

    registers        units of a cyclic reservoir, each thread's first ones
    shared memory    the state, x twice; then the readout, whole or not at all; then units, 64 at a time
    L2 cache         what is left; the sums are the same wherever a weight is read

A unit of k weights and i inputs takes i + k + 2 registers (bias, inputs, weights, leak) and k more for its products with
x, which are made before the tick is there: 34 for k = 8, i = 16. 384 threads have 168 registers each on every card, and
what is not weights needs some 60. So a thread holds 3 such units, 352 threads 1,056 of them: all of N = 1024, in 100 KB
of registers. A larger model has a loop over its other units, which takes registers too: then a thread holds 2.

Kilobytes for k = 8, 16 inputs, 3 horizons and half as many products as units. Weights in registers are float32 whatever
the option; half precision halves those elsewhere. Each block's own memory takes 5 more.

    N                            512     1024     2048     4096
    state and row                  5       10       20       40
    readout                       28       55      109      217
    units past the registers       0        0      131      331       half: 66, 166

    in shared memory on
    sm_90, 227 KB        all     all     readout, 88 of 131; half: all        181 of 331; half: all 166, no readout
    sm_80, 163 KB        all     all     readout, 25 of 131; half: 28 of 66   113 of 331; half: 116 of 166, no readout
    sm_120, 99 KB        all     all     69 of 131, no readout; half: 66      50 of 331; half: 53 of 166, no readout
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from penstock_kernels import lanes, model, packed
from penstock_kernels.compiled import Int64s
from penstock_kernels.cuda.source import (
    BLOCK_BYTES,
    BLOCK_PARTS,
    OPTIONS,
    RESIDENT,
    WARP_THREADS,
    KernelPlan,
    text_of,
    whole_warps,
)

UNIT_THREADS_MAX: Final = 352  # With the warp of the features 384: 168 registers for each.
_HELD_WORDS_MAX: Final = 104  # Registers of a thread that hold weights and products.
_HELD_WORDS_MIXED: Final = 72  # Where the loop over other units takes registers too.
_RESIDENT_BYTES: Final = BLOCK_BYTES + 64  # Of a block's own memory, what it hears included.
_CYCLIC: Final = model.TOPOLOGIES["cyclic"]


@dataclass(frozen=True)
class _Places:
    """Where a block keeps what: units below *rounds* * threads in registers, then to *near_end* in shared memory."""

    rounds: int
    readout_words: int
    near_first: int
    near_end: int
    near_words: int


def plan_resident(
    header: Int64s, shared_bytes_max: int, *, half: bool = False, unit_threads_max: int = UNIT_THREADS_MAX
) -> KernelPlan:
    """Plan the resident kernel of one model.

    Args:
        header: of a PackedModel.
        shared_bytes_max: dynamic shared memory that a block may have.
        half: the reservoir's words are read from ``halves``.
        unit_threads_max: of a block, whole warps; fewer own more units each.

    Raises:
        ValueError: the model's state does not fit in a block's shared memory.
    """
    units, units_padded = int(header[packed.UNITS]), int(header[packed.UNITS_PADDED])
    horizons, fan_in = int(header[packed.HORIZONS]), int(header[packed.FAN_IN])
    chains = lanes.LANES * model.OUTPUTS_PER_HORIZON * horizons
    unit_threads = max(min(whole_warps(units), unit_threads_max), whole_warps(chains))
    words = packed.padded(units_padded + int(header[packed.COLUMNS_PADDED]) + int(header[packed.MEMORY_COLUMNS]))
    needed_bytes = _RESIDENT_BYTES + 4 * words
    if needed_bytes > shared_bytes_max:
        raise ValueError(
            f"a model of {units} units can't stay resident: its state takes {needed_bytes} bytes of a block's shared "
            f"memory, this GPU gives {shared_bytes_max}; use engine.device_mode = graph, or a smaller model"
        )
    places = _place(header, unit_threads, shared_bytes_max - needed_bytes, 2 if half else 4)
    cyclic = places.rounds > 0
    settings = {
        "PENSTOCK_THREADS": WARP_THREADS + unit_threads,
        "PENSTOCK_BLOCK_BYTES": _RESIDENT_BYTES,
        "PENSTOCK_HALF": int(half),
        "RESIDENT_UNITS_PADDED": units_padded,
        "RESIDENT_COLUMNS": int(header[packed.COLUMNS_PADDED]),
        "RESIDENT_GROUP_WORDS": int(header[packed.GROUP_WORDS]),
        "RESIDENT_HEARD": fan_in if cyclic else 1,
        "RESIDENT_WORK_WORDS": words,
        "RESIDENT_READOUT_WORDS": places.readout_words,
        "RESIDENT_ROUNDS": places.rounds,
        "RESIDENT_NEAR_FIRST_WORD": places.near_first // lanes.LANES * int(header[packed.GROUP_WORDS]),
        "RESIDENT_NEAR_WORDS": places.near_words,
        "RESIDENT_NEAR_END": places.near_end,
    }
    for name in (
        "UNITS",
        "FAN_IN",
        "INPUTS",
        "HORIZONS",
        "TOPOLOGY",
        "TIME_BASE",
        "PRODUCTS",
        "MEMORY_GAINS",
        "MEMORY_LAGS",
    ):
        value = int(header[getattr(packed, name)])
        settings[f"RESIDENT_{name}"] = value
    shifts = header[packed.SHIFTS : packed.SHIFTS + fan_in].tolist() if cyclic else [0]
    lists = f"#define RESIDENT_SHIFTS {{{', '.join(str(shift) for shift in shifts)}}}\n"
    kept_bytes = 4 * places.readout_words + (2 if half else 4) * places.near_words
    return KernelPlan(
        name=RESIDENT,
        source=lists + text_of(settings, (*BLOCK_PARTS, "held.cuh", "resident.cu")),
        options=OPTIONS,
        threads=WARP_THREADS + unit_threads,
        shared_bytes=needed_bytes + kept_bytes,
        scratch_words=0,
    )


def _place(header: Int64s, unit_threads: int, left_bytes: int, word_bytes: int) -> _Places:
    """Share out registers and *left_bytes* of shared memory among the weights, *word_bytes* each in a reservoir."""
    units, units_padded = int(header[packed.UNITS]), int(header[packed.UNITS_PADDED])
    inputs, fan_in = int(header[packed.INPUTS]), int(header[packed.FAN_IN])
    rounds = 0
    if header[packed.TOPOLOGY] == _CYCLIC:
        rounds, words = -(-units // unit_threads), 2 + inputs + 2 * fan_in
        if rounds * words > _HELD_WORDS_MAX:
            rounds = _HELD_WORDS_MIXED // words
    readout_words = int(header[packed.CALIBRATION_OFFSET] - header[packed.READOUT_OFFSET])
    if 4 * readout_words > left_bytes:
        readout_words = 0
    left_bytes -= 4 * readout_words
    near_first = min(rounds * unit_threads, units_padded) // packed.BLOCK * packed.BLOCK
    if rounds * unit_threads >= units:
        return _Places(rounds, readout_words, units_padded, units_padded, 0)
    group_bytes = int(header[packed.GROUP_WORDS]) * word_bytes
    groups = min(left_bytes // group_bytes, (units_padded - near_first) // lanes.LANES)
    near_end = near_first + groups * lanes.LANES
    if near_end < units_padded:
        near_end = near_end // packed.BLOCK * packed.BLOCK
    near_words = (near_end - near_first) // lanes.LANES * int(header[packed.GROUP_WORDS])
    return _Places(rounds, readout_words, near_first, near_end, near_words)
