"""Every way to predict, behind one small door, so that one list of checks can ask the same of all of them.

    side.predict(models, streams, schedule) -> for each stream: forecasts and flags of its ticks, in order

A schedule cuts the streams into micro-batches. A side that knows no micro-batches walks the parts in the same order.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from penstock.v1.records import HORIZONS_MAX
from penstock_daemon.device.backend import DeviceBackend
from penstock_kernels import reference
from penstock_kernels.drive import new_place, run_predictions
from penstock_kernels.model import Model
from penstock_kernels.packed import pack
from penstock_tuning.bench.gpu_lane import Lane, Transfer, Visit
from penstock_tuning.bench.gpu_resident import ResidentLane


@dataclass(frozen=True, eq=False)
class Stream:
    """The ticks of one state, all of them through one model."""

    ticks: NDArray[np.void]
    model: int = 0


@dataclass(frozen=True)
class Part:
    """The next *count* ticks of a stream."""

    stream: int
    count: int
    cold: bool = False
    advance: bool = False


Schedule = Sequence[Sequence[Part]]  # Micro-batches; a stream at most once in each.


@dataclass(eq=False)
class Answer:
    """What a stream's ticks got."""

    forecasts: NDArray[np.float64]  # Shape (ticks, HORIZONS_MAX, 4).
    flags: NDArray[np.int64] | None = None  # Shape (ticks,); None where a side has none.


class Side(Protocol):
    """A way to predict."""

    name: str
    exact: bool  # Its bits are those of the CPU engine.

    def predict(
        self, models: Sequence[Model], streams: Sequence[Stream], schedule: Schedule, *, poisoned: Sequence[int] = ()
    ) -> list[Answer]:
        """Predict from cold states; those of the streams in *poisoned* hold NaN instead."""


def _empty(streams: Sequence[Stream], *, flags: bool) -> list[Answer]:
    return [
        Answer(
            np.zeros((len(stream.ticks), HORIZONS_MAX, 4)),
            np.zeros(len(stream.ticks), np.int64) if flags else None,
        )
        for stream in streams
    ]


class ReferenceSide:
    """Float64 NumPy. It restarts at a cold part, and predicts where it should only advance, which is then left out."""

    name = "reference"
    exact = False

    def predict(
        self, models: Sequence[Model], streams: Sequence[Stream], schedule: Schedule, *, poisoned: Sequence[int] = ()
    ) -> list[Answer]:
        answers = _empty(streams, flags=False)
        for number, (stream, answer) in enumerate(zip(streams, answers, strict=True)):
            starts, silent, position = [0], np.zeros(len(stream.ticks), bool), 0
            for part in (part for batch in schedule for part in batch if part.stream == number):
                if part.cold and position:
                    starts.append(position)
                silent[position : position + part.count] = part.advance
                position += part.count
            for start, end in zip(starts, [*starts[1:], len(stream.ticks)], strict=True):
                answer.forecasts[start:end] = reference.predictions(models[stream.model], stream.ticks[start:end])
            answer.forecasts[silent] = 0.0
            if number in poisoned:
                answer.forecasts[: starts[1] if len(starts) > 1 else None] = np.nan
        return answers


class CpuSide:
    """The CPU engine's compiled steps, states side by side."""

    name = "cpu"
    exact = True

    def predict(
        self, models: Sequence[Model], streams: Sequence[Stream], schedule: Schedule, *, poisoned: Sequence[int] = ()
    ) -> list[Answer]:
        packed = [pack(model) for model in models]
        places = [new_place(packed[stream.model]) for stream in streams]
        for number in poisoned:
            places[number].state[:] = np.nan
            places[number].running[:] = np.nan
        answers = _empty(streams, flags=True)
        positions = [0] * len(streams)
        for part in (part for batch in schedule for part in batch):
            stream, answer, start = streams[part.stream], answers[part.stream], positions[part.stream]
            if part.cold:
                places[part.stream] = new_place(packed[stream.model])
            some = stream.ticks[start : start + part.count]
            assert answer.flags is not None
            flags = answer.flags[start : start + part.count]
            forecasts = run_predictions(packed[stream.model], some, places[part.stream], flags)
            answer.forecasts[start : start + part.count] = 0.0 if part.advance else forecasts
            positions[part.stream] += part.count
        return answers


class DeviceSide:
    """A device, by graphs or by launches of their own.

    Args:
        name: of the side.
        backend: the device; closed by its owner.
        eager: launches of their own.
        transfer: how micro-batches cross the bus.
        half: reservoir weights are kept in half precision; the models must have been rounded.
        room_for: further models that the kernel has room for: with the same ones it is compiled once.
        pause_ns: between looks at the done word, where device and host share processors.
    """

    exact = True

    def __init__(
        self,
        name: str,
        backend: DeviceBackend,
        *,
        eager: bool = False,
        transfer: Transfer = Transfer.STAGED,
        half: bool = False,
        room_for: Sequence[Model] = (),
        pause_ns: int = 0,
    ) -> None:
        self.name = name
        self._room_for = [pack(model) for model in room_for]
        self.backend, self._eager, self._transfer, self._half = backend, eager, transfer, half
        self._pause_ns = pause_ns
        self.scratch_words = 0  # Of the last lane.

    def predict(
        self, models: Sequence[Model], streams: Sequence[Stream], schedule: Schedule, *, poisoned: Sequence[int] = ()
    ) -> list[Answer]:
        items_max = max(sum(part.count for part in batch) for batch in schedule)
        lane = Lane(
            self.backend,
            [pack(model) for model in models],
            states=len(streams) + 2,
            items_max=items_max,
            transfer=self._transfer,
            half=self._half,
            room_for=self._room_for,
        )
        lane.pause_ns = self._pause_ns
        self.scratch_words = lane.plan.scratch_words
        return walked(lane, streams, schedule, poisoned, eager=self._eager)


class ResidentSide:
    """The resident kernel, of one model at a time."""

    name = "resident"
    exact = True

    def __init__(self, backend: DeviceBackend, *, half: bool = False, pause_ns: int = 0, blocks_max: int = 0) -> None:
        self.backend, self._half, self._pause_ns, self._blocks_max = backend, half, pause_ns, blocks_max

    def predict(
        self, models: Sequence[Model], streams: Sequence[Stream], schedule: Schedule, *, poisoned: Sequence[int] = ()
    ) -> list[Answer]:
        assert len(models) == 1, "a resident kernel has one model"
        lane = ResidentLane(
            self.backend,
            pack(models[0]),
            states=len(streams) + 2,
            items_max=max(sum(part.count for part in batch) for batch in schedule),
            half=self._half,
            blocks_max=self._blocks_max,
        )
        lane.pause_ns = self._pause_ns
        return walked(lane, streams, schedule, poisoned)


def walked(
    lane: Lane, streams: Sequence[Stream], schedule: Schedule, poisoned: Sequence[int], *, eager: bool = False
) -> list[Answer]:
    """Return what a lane answers to a schedule, micro-batch by micro-batch."""
    state_of = [len(streams) - number for number in range(len(streams))]  # Not in order, and neither end is used.
    for number in poisoned:
        lane.spoil(state_of[number], np.nan)
    answers = _empty(streams, flags=True)
    positions = [0] * len(streams)
    with lane if isinstance(lane, ResidentLane) else contextlib.nullcontext():
        for batch in schedule:
            visits = []
            for part in batch:
                stream, start = streams[part.stream], positions[part.stream]
                some = stream.ticks[start : start + part.count]
                visits.append(Visit(state_of[part.stream], some, stream.model, part.cold, part.advance))
            results = lane.send(visits, eager=eager, blocks=1 << (len(visits) - 1).bit_length())
            item = 0
            for part in batch:
                start = positions[part.stream]
                answer, some = answers[part.stream], results[item : item + part.count]
                answer.forecasts[start : start + part.count] = some["forecasts"]
                assert answer.flags is not None
                answer.flags[start : start + part.count] = some["flags"]
                assert np.all(some["started_ns"] <= some["done_ns"])
                positions[part.stream] += part.count
                item += part.count
    return answers
