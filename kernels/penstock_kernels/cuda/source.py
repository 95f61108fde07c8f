"""The CUDA C++ text of a kernel, put together for one plan, and what the plan asks of a block.

A text stands alone: defines made from the Python constants, then the parts in order. So NVRTC needs no include path, the
host shim of the tests compiles the same text, and no number is written in both languages.

    every upper-case number of a module M below     ->     M_NAME        (leading underscores dropped)
    every field of a record R below                 ->     R_FIELD       its byte offset

The options fix the arithmetic: no fused multiply-add, subnormals kept, divisions and roots rounded once. With them the
kernels' float32 and float64 operations are the CPU's, to the bit.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from types import ModuleType
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from penstock.v1 import records
from penstock_kernels import elementary, features, lanes, linear_memory, model, packed, predictor, reservoir
from penstock_kernels.compiled import Float32s, Int64s
from penstock_kernels.cuda import layout

PREDICT: Final = "penstock_predict"
RESIDENT: Final = "penstock_resident"
ECHO: Final = "penstock_echo"
CLOCK: Final = "penstock_clock"

OPTIONS: Final = ("--std=c++17", "--fmad=false", "--ftz=false", "--prec-div=true", "--prec-sqrt=true")

_CONSTANTS: Final = (elementary, features, lanes, layout, linear_memory, model, packed, predictor, records, reservoir)
_RECORDS: Final = (
    ("HEAD", layout.WORK_HEAD_DTYPE),
    ("SLOT", layout.WORK_SLOT_DTYPE),
    ("RESULT", layout.RESULT_DTYPE),
    ("TICK", records.TICK_DTYPE),
)
_PARTS: Final = ("prelude.cuh", "elementary.cuh", "shape.cuh", "features.cuh", "work.cuh")
BLOCK_PARTS: Final = (*_PARTS, "reservoir.cuh", "readout.cuh", "block.cuh")  # All but the kernel itself.

WARP_THREADS: Final = 32
_OUTPUTS_MAX: Final = model.OUTPUTS_PER_HORIZON * records.HORIZONS_MAX
_CHAIN_THREADS: Final = lanes.LANES * _OUTPUTS_MAX  # One per lane of an output.
_THREADS_MAX: Final = 512  # Of a block of any size: each then has 128 registers on every card, and none is spilled.
_SCRATCH_THREADS_MAX: Final = 384  # As above: addresses of scratch take more.
BLOCK_BYTES: Final = 4608  # Of a block's own memory, beside the floats that grow with the model.


@dataclass(frozen=True)
class KernelPlan:
    """A kernel to be compiled and what its launches need.

    Attributes:
        name: of the function.
        source: one text that stands alone.
        options: of the compiler, without the architecture.
        threads: of a block.
        shared_bytes: dynamic, of a block.
        scratch_words: float32 of global memory for a block; 0 where shared memory holds all.
    """

    name: str
    source: str
    options: tuple[str, ...]
    threads: int
    shared_bytes: int
    scratch_words: int


def device_state_words(units_max: int, memory_words: int) -> int:
    """Return the float32 words of one state on the device: x of padded units once, then the linear memory."""
    return packed.padded(units_max) + memory_words


def half_words(header: Int64s) -> int:
    """Return the 16-bit words of one model whose reservoir is kept in half precision."""
    return int(header[packed.LEAK_OFFSET] - header[packed.RESERVOIR_OFFSET])


def half_precision(header: Int64s, weights: Float32s) -> NDArray[np.uint16]:
    """Return the reservoir's words of a packed model as 16-bit words in the same order.

    Weights become float16, which must lose nothing: round them before the model is packed. A sparse model's words that
    say whom a unit hears become integers of 16 bits.

    Args:
        header: of a PackedModel.
        weights: of a PackedModel.

    Returns:
        Shape (half_words,).

    Raises:
        ValueError: a weight is no half.
    """
    first, last = int(header[packed.RESERVOIR_OFFSET]), int(header[packed.LEAK_OFFSET])
    words = weights[first:last]
    with np.errstate(over="ignore"):
        halves = words.astype(np.float16)
    whole = halves.view(np.uint16).copy()
    heard = _heard_words(header)
    whole[heard] = words.view(np.int32)[heard].astype(np.uint16)
    exact = halves.astype(np.float32) == words
    exact[heard] = True
    if not exact.all():
        word = int(np.argmin(exact))
        raise ValueError(
            f"weights must be rounded to half precision before they are packed: word={first + word}, "
            f"value={float(words[word])!r}; round the model's bias, input and recurrent weights first"
        )
    return whole


def _heard_words(header: Int64s) -> NDArray[np.bool_]:
    """Say which of the reservoir's words are whom a unit hears."""
    heard = np.zeros(half_words(header), dtype=np.bool_)
    if header[packed.TOPOLOGY] != packed.SPARSE:
        return heard
    rows = int(header[packed.GROUP_WORDS]) // lanes.LANES
    first_row, units = 1 + int(header[packed.INPUTS]), int(header[packed.UNITS_PADDED])
    whole = units // packed.BLOCK * packed.BLOCK
    for part, together in ((heard[: whole * rows], packed.BLOCK), (heard[whole * rows :], lanes.LANES)):
        part.reshape(-1, rows, together)[:, first_row::2] = True
    return heard


def plan_predict(
    units_max: int, columns_max: int, memory_words: int, shared_bytes_max: int, *, half: bool = False
) -> KernelPlan:
    """Plan the kernel of a micro-batch, for any model within these bounds.

    Args:
        units_max: of any model.
        columns_max: padded columns of any model's readout.
        memory_words: of any model's linear memory.
        shared_bytes_max: dynamic shared memory that a block may have.
        half: the reservoir's words are read from ``halves``.

    Returns:
        A plan that keeps the floats in shared memory if they fit, else in scratch. What shared memory is then left takes
        the readout's weights of models that fit there.
    """
    words = packed.padded(packed.padded(units_max) + columns_max + memory_words)
    scratch = BLOCK_BYTES + 4 * words > shared_bytes_max
    left = max(shared_bytes_max - BLOCK_BYTES - 4 * words, 0) // 4
    readout_words = min(_OUTPUTS_MAX * columns_max, left // lanes.LANES * lanes.LANES)
    threads = min(
        max(whole_warps(units_max), WARP_THREADS + _CHAIN_THREADS), _SCRATCH_THREADS_MAX if scratch else _THREADS_MAX
    )
    settings = {
        "PENSTOCK_THREADS": threads,
        "PENSTOCK_BLOCK_BYTES": BLOCK_BYTES,
        "PENSTOCK_WORK_WORDS": words,
        "PENSTOCK_READOUT_WORDS": readout_words,
        "PENSTOCK_SCRATCH": int(scratch),
        "PENSTOCK_HALF": int(half),
    }
    return KernelPlan(
        name=PREDICT,
        source=text_of(settings, (*BLOCK_PARTS, "predict.cu")),
        options=OPTIONS,
        threads=threads,
        shared_bytes=BLOCK_BYTES + (0 if scratch else 4 * (words + readout_words)),
        scratch_words=words if scratch else 0,
    )


def plan_small(name: str) -> KernelPlan:
    """Plan ECHO, which completes a launch and does nothing else, or CLOCK, which reads the device's clock."""
    assert name in {ECHO, CLOCK}, "only ECHO and CLOCK are small kernels"
    return KernelPlan(
        name=name,
        source=text_of({}, (*_PARTS, "small.cu")),
        options=OPTIONS,
        threads=WARP_THREADS,
        shared_bytes=0,
        scratch_words=0,
    )


def whole_warps(threads: int) -> int:
    """Return *threads* rounded up to whole warps."""
    return -(-threads // WARP_THREADS) * WARP_THREADS


def text_of(settings: dict[str, int], parts: tuple[str, ...]) -> str:
    """Return *parts* as one text that stands alone, behind the defines that they name."""
    folder = files("penstock_kernels.cuda")
    pieces = [defines(settings)]
    pieces += [f"// --- {part}\n\n{(folder / part).read_text(encoding='utf-8')}" for part in parts]
    return "\n".join(pieces)


def defines(settings: dict[str, int]) -> str:
    """Return the C text of every constant that the kernels name, then of *settings*."""
    lines = [f"#define {name} {_literal(value)}" for name, value in _named_numbers()]
    lines += [f"#define {name} {value}" for name, value in settings.items()]
    parameters = ", ".join(f"unsigned long long {name}" for name in layout.ARGUMENTS)
    fields = " ".join(f"unsigned long long {name};" for name in layout.ARGUMENTS)
    lines += [
        f"struct Arguments {{ {fields} }};",
        f"#define PENSTOCK_PARAMETERS {parameters}",
        f"#define PENSTOCK_GATHERED Arguments{{{', '.join(layout.ARGUMENTS)}}}",
    ]
    return "\n".join(lines) + "\n"


def _named_numbers() -> Iterator[tuple[str, Any]]:
    for module in _CONSTANTS:
        yield from _module_numbers(module)
    for name, dtype in _RECORDS:
        assert dtype.fields is not None, "records have fields"
        for field, (_, offset, *_rest) in dtype.fields.items():
            yield f"{name}_{field.upper()}", offset


def _module_numbers(module: ModuleType) -> Iterator[tuple[str, Any]]:
    prefix = module.__name__.rpartition(".")[2].upper()
    for name, value in vars(module).items():
        title = f"{prefix}_{name.lstrip('_')}"
        if not name.isupper():
            continue
        if isinstance(value, int | float | np.float32) and not isinstance(value, bool):
            yield title, value
        elif isinstance(value, tuple) and all(isinstance(part, np.float32) for part in value):
            yield from ((f"{title}_{position}", part) for position, part in enumerate(value))


def _literal(value: Any) -> str:
    """Return a C literal of the very same value and type: int, long long, unsigned long long, float or double."""
    if isinstance(value, np.float32):
        return f"{float(value)!r}f" if value >= 0 else f"({float(value)!r}f)"
    if isinstance(value, float):
        return repr(value) if value >= 0 else f"({value!r})"
    number = int(value)
    if number > np.iinfo(np.int64).max:
        return f"{number}ULL"
    wide = f"{number}LL" if abs(number) > np.iinfo(np.int32).max else str(number)
    return wide if number >= 0 else f"({wide})"
