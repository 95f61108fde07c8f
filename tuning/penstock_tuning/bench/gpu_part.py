"""The device benchmark's measurements, in a process of its own: a fault ends this process and not the command.

Each finding is written to a file of JSON lines as soon as it is known, so what was measured before a fault or a
time-out is kept. A cell is one mode at one number of states and units; it repeats for about the seconds it is given.
Each section has a process of its own, so that what breaks the device in one is not the end of the others.

    trip     host to host: the host begins to write a micro-batch of one tick for each state, until it sees the answer
    echo     the same for a graph whose kernel only says that it ran: what no micro-batch can beat
"""

from __future__ import annotations

import contextlib
import json
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from penstock_daemon.device.backend import DeviceBackend
from penstock_daemon.engine_memory import Idle
from penstock_kernels.compiled import Int64s
from penstock_kernels.cuda import source
from penstock_kernels.drive import run_features
from penstock_kernels.model import Model
from penstock_kernels.packed import pack
from penstock_tuning.bench import gpu_engine, gpu_loop, gpu_sides
from penstock_tuning.bench.gpu import SECTIONS
from penstock_tuning.bench.gpu_lane import Lane, Transfer, Visit
from penstock_tuning.bench.gpu_resident import ResidentLane
from penstock_tuning.bench.kernel_sides import drawn_model
from penstock_tuning.bench.parts import Plan, be_part
from penstock_tuning.market.settings import MarketSettings
from penstock_tuning.market.simulator import simulate

FAN_IN: Final = 8
BURST_TICKS: Final = 64
_TRIPS_LEAST: Final = 20
_TRIPS_MOST: Final = 20_000
_WARM_TRIPS: Final = 8
_COPIED_BYTES: Final = 2**28
_BUSY_TRIPS: Final = 200
_WHY_LETTERS: Final = 300

Finding = dict[str, Any]
Emit = Callable[[Finding], None]
Go = Callable[[int], Int64s]  # Make so many trips and return how long each took, ns.


class Bench:
    """The measurements over one open device.

    Args:
        backend: the device.
        arrays: CuPy, or NumPy where the device is not a real one.
        plan: units, states, middle_units, cell_s (seconds of a cell), market_s (of simulated market). For a device that
            is not a real one also trips_least, pause_ns (between looks at the done word), copied_bytes.
        emit: takes each finding.
        reopen: opens the device once more, for an engine that closes it; None leaves the engine out.
    """

    def __init__(
        self,
        backend: DeviceBackend,
        arrays: Any,
        plan: Plan,
        emit: Emit,
        reopen: Callable[[], DeviceBackend] | None = None,
    ) -> None:
        self._backend, self._arrays, self._plan, self._emit, self._reopen = backend, arrays, plan, emit, reopen
        market = simulate(MarketSettings(ticks_per_second=2_000), plan["market_s"])
        self.ticks = market.ticks[market.ticks["instrument_id"] == market.ticks["instrument_id"][0]]

    def run(self, context_s: float, sections: Iterable[str] = SECTIONS) -> None:
        """Measure *sections*; within each, what matters most comes first."""
        self._emit({"kind": "device"} | asdict(self._backend.facts))
        states, middle = max(self._plan["states"]), self._plan["middle_units"]
        others = [units for units in self._plan["units"] if units != middle]
        for section in sections:
            if section == "graph":
                self._start(context_s, states, middle)
                self._sizes(middle, states, also=(self._echo, self._bursts, self._busy))
                self._bandwidth()
            elif section == "resident":
                for units in (middle, *others):
                    self._resident(drawn_model("cyclic", units, FAN_IN), units)
            elif section == "sizes":
                self._transfers(middle)
                self._engines(middle)
                for units in others:
                    self._sizes(units, states)
            else:
                assert section == "plain", f"no section: {section!r}"
                for units in (middle, *others):
                    self._plain(drawn_model("cyclic", units, FAN_IN), units)

    def _sizes(self, units: int, states: int, also: Sequence[Callable[[Lane], None]] = ()) -> None:
        model = drawn_model("cyclic", units, FAN_IN)
        lane = self._lane(model, states)
        self._memory(lane, model, units)
        for count in self._plan["states"]:
            self._graph(lane, units, count)
            self._eager(lane, units, count)
            self._cpu(model, units, count)
            if count == min(self._plan["states"]):
                for measure_more in also:
                    measure_more(lane)

    def _lane(self, model: Model, states: int, transfer: Transfer = Transfer.STAGED) -> Lane:
        items_max = max(states, BURST_TICKS)
        lane = Lane(self._backend, [pack(model)], states=states, items_max=items_max, transfer=transfer)
        lane.pause_ns = int(self._plan.get("pause_ns", 0))
        lane.kernel()
        return lane

    def _start(self, context_s: float, states: int, units: int) -> None:
        """Compile one kernel and capture and replay a graph for each power of two, as a daemon does at its start."""
        model = drawn_model("cyclic", units, FAN_IN)
        buckets = [1 << power for power in range(states.bit_length())]
        started_s = time.perf_counter()
        lane = self._lane(model, states)
        for blocks in buckets:
            lane.graph(blocks)
            lane.send([Visit(0, self.ticks[:1])], blocks=blocks)
        spent_s = time.perf_counter() - started_s
        times = lane.times
        self._emit(
            {
                "kind": "start",
                "context_s": context_s,
                "compile_s": times.compile_s,
                "first_launch_s": times.first_launch_s,
                "capture_s": times.capture_s,
                "memory_and_replay_s": spent_s - times.compile_s - times.first_launch_s - times.capture_s,
                "ready_s": context_s + spent_s,
                "graphs": times.graphs,
            }
        )

    # --- Cells ----------------------------------------------------------------------------------------------------------

    def _cell(self, go: Go, *, most: int = _TRIPS_MOST) -> Finding:
        """Return the figures of one cell: as many trips as the seconds allow, after some that are not counted."""
        go(_WARM_TRIPS)
        trip_s = max(float(np.median(go(_WARM_TRIPS))) / 1e9, 1e-7)
        least = int(self._plan.get("trips_least", _TRIPS_LEAST))
        count = min(max(int(self._plan["cell_s"] / trip_s), least), most)
        return figures_of(go(count))

    def _trip(self, mode: str, units: int, states: int, go: Go, **more: Any) -> None:
        cell = {"kind": "trip", "mode": mode, "units": units, "states": states}
        self._emit(cell | self._cell(go) | more)

    def _trips(self, lane: Lane, executable: int, states: int) -> Go:
        route = lane.route(executable, 0 if lane.transfer == Transfer.IN_PLACE else states)

        def go(count: int) -> Int64s:
            times = np.zeros((count, gpu_loop.TIME_COLUMNS), np.int64)
            route[gpu_loop.NUMBER] = lane.number
            lane.trips(route, self.ticks, times)
            return np.asarray(times[:, gpu_loop.DONE] - times[:, gpu_loop.DUE])

        return go

    def _write(self, lane: Lane, states: int) -> None:
        lane.write([Visit(state, self.ticks[state : state + 1]) for state in range(states)])

    def _graph(self, lane: Lane, units: int, states: int, mode: str = "graph") -> None:
        self._write(lane, states)
        self._trip(mode, units, states, self._trips(lane, lane.graph(states), states))

    def _resident(self, model: Model, units: int) -> None:
        """Ring the resident kernel; it is on the device for these cells alone.

        For each number of states it is launched anew, with no more blocks than states: each looks at its bell all the
        time, and those that nobody rings would keep the bus from those that somebody does.
        """
        for count in self._plan["states"]:
            try:
                lane = ResidentLane(self._backend, pack(model), states=count, items_max=count)
            except ValueError as exc:
                self._emit({"kind": "not_measured", "what": f"resident, {units} units", "why": str(exc)})
                return
            lane.pause_ns = int(self._plan.get("pause_ns", 0))
            with lane:
                self._write(lane, count)
                self._trip("resident", units, count, self._trips(lane, 0, count))

    def _eager(self, lane: Lane, units: int, states: int) -> None:
        self._write(lane, states)

        def go(count: int) -> Int64s:
            times = np.zeros(count, np.int64)
            for trip in range(count):
                started_ns = time.monotonic_ns()
                lane.launch(states)
                times[trip] = time.monotonic_ns() - started_ns
            return times

        self._trip("eager", units, states, go)

    def _cpu(self, model: Model, units: int, states: int) -> None:
        side = gpu_sides.CpuSide(pack(model), states)
        self._trip("cpu", units, states, lambda count: side.trips_ns(self.ticks, count))

    def _plain(self, model: Model, units: int) -> None:
        """Measure plain array code for every number of states, where the library can.

        CuPy needs CUDA's headers and cuBLAS for that, which penstock does not: without them these cells are left out.
        """
        inputs = run_features(pack(model), self.ticks[:1024])
        for name in ("take", "dense"):
            try:
                for states in self._plan["states"]:
                    step = gpu_sides.array_step(self._arrays, model, states, dense=name == "dense")
                    self._trip(
                        f"cupy_{name}",
                        units,
                        states,
                        lambda count, step=step, states=states: gpu_sides.array_trips_ns(step, inputs, states, count),  # type: ignore[misc]
                    )
            except Exception as exc:  # noqa: BLE001 - Whatever the library lacks: it is not what is measured.
                why = " ".join(f"{type(exc).__name__}: {exc}".split())[:_WHY_LETTERS]
                self._emit({"kind": "not_measured", "what": f"cupy_{name}, {units} units", "why": why})

    def _transfers(self, units: int) -> None:
        """Compare the ways across the bus: the same micro-batches in each."""
        states = max(self._plan["states"])
        for transfer in Transfer:
            lane = self._lane(drawn_model("cyclic", units, FAN_IN), states, transfer)
            for count in self._plan["states"]:
                self._write(lane, count)
                go = self._trips(lane, lane.graph(count), count)
                self._emit(
                    {"kind": "transfer", "transfer": str(transfer), "units": units, "states": count} | self._cell(go)
                )

    def _engines(self, units: int) -> None:
        """The whole engine, over the device and over the CPU."""
        if self._reopen is None:
            return
        packed = pack(drawn_model("cyclic", units, FAN_IN))
        idle = Idle.SPIN if self._plan.get("pause_ns", 0) == 0 else Idle.BLOCK
        for mode in ("engine", "engine_cpu"):
            for states in sorted({min(self._plan["states"]), max(self._plan["states"])}):
                with gpu_engine.engine_side(packed, states, self._reopen() if mode == "engine" else None, idle) as side:
                    self._trip(mode, units, states, lambda count, side=side: side.trips_ns(self.ticks, count))  # type: ignore[misc]

    def _echo(self, lane: Lane) -> None:
        for blocks in sorted({min(self._plan["states"]), max(self._plan["states"])}):
            go = self._trips(lane, lane.graph(blocks, source.ECHO), 0)
            self._emit({"kind": "echo", "states": blocks} | self._cell(go))

    def _bursts(self, lane: Lane) -> None:
        """One state, many ticks, one launch."""
        lane.write([Visit(0, self.ticks[:BURST_TICKS])])
        found = self._cell(self._trips(lane, lane.graph(1), BURST_TICKS))
        self._emit({"kind": "burst", "ticks": BURST_TICKS} | found)

    def _busy(self, lane: Lane) -> None:
        """One state, beside a Python thread that never waits: by the loop without the interpreter, and through it."""
        self._write(lane, 1)
        go = self._trips(lane, lane.graph(1), 1)

        def through(count: int) -> Int64s:
            times = np.zeros(count, np.int64)
            for trip in range(count):
                started_ns = time.monotonic_ns()
                go(1)
                times[trip] = time.monotonic_ns() - started_ns
            return times

        for name, way, busy in (
            ("compiled", go, False),
            ("compiled", go, True),
            ("interpreter", through, False),
            ("interpreter", through, True),
        ):
            with busy_thread() if busy else contextlib.nullcontext():
                found = self._cell(way, most=_BUSY_TRIPS if name == "interpreter" else _TRIPS_MOST)
            self._emit({"kind": "busy", "loop": name, "busy_thread": busy} | found)

    def _memory(self, lane: Lane, model: Model, units: int) -> None:
        self._emit(
            {
                "kind": "memory",
                "units": units,
                "state_bytes": lane.state_bytes,
                "weight_bytes": int(pack(model).weights.nbytes),
                "device_bytes": lane.device_bytes,
                "states": lane.states,
                "shared_bytes": lane.plan.shared_bytes,
                "scratch_words": lane.plan.scratch_words,
            }
        )

    def _bandwidth(self) -> None:
        """Copy a large array on the device: bytes read and written in a second. CuPy compiles nothing for that."""
        arrays, words = self._arrays, int(self._plan.get("copied_bytes", _COPIED_BYTES)) // 4
        here, there = arrays.empty(words, dtype=np.float32), arrays.empty(words, dtype=np.float32)
        wait = arrays.cuda.Device().synchronize if hasattr(arrays, "cuda") else lambda: None

        def go(count: int) -> Int64s:
            times = np.zeros(count, np.int64)
            for trip in range(count):
                wait()
                started_ns = time.monotonic_ns()
                there[...] = here
                wait()
                times[trip] = time.monotonic_ns() - started_ns
            return times

        found = self._cell(go, most=100)
        self._emit({"kind": "bandwidth", "gb_per_s": 2 * 4 * words / 1e3 / found["p50_us"]})


def figures_of(times_ns: NDArray[np.int64]) -> Finding:
    """Return p50_us, p99_us, p999_us, max_us and trips; a percentile that too few trips stand for is None."""
    ascending = np.sort(times_ns)
    count = len(ascending)

    def at(share: float, least: int) -> float | None:
        return float(ascending[min(int(share * count), count - 1)]) / 1e3 if count >= least else None

    return {
        "p50_us": at(0.5, 1),
        "p99_us": at(0.99, 100),
        "p999_us": at(0.999, 1000),
        "max_us": float(ascending[-1]) / 1e3,
        "trips": count,
    }


@contextlib.contextmanager
def busy_thread() -> Iterator[None]:
    """A Python thread that counts for the length of a block, and gives the interpreter up only when it must."""
    stop = threading.Event()

    def count() -> None:
        number = 0
        while not stop.is_set():
            number += 1

    thread = threading.Thread(target=count, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def software(arrays: Any) -> dict[str, str]:
    """Return the versions of CuPy, of the CUDA that it was built for, and of NVRTC; what can't be told is left out."""
    found = {"cupy": str(arrays.__version__)}
    with contextlib.suppress(AttributeError, RuntimeError, OSError):
        found["cuda"] = str(arrays.cuda.driver.get_build_version())
        found["nvrtc"] = ".".join(map(str, arrays.cuda.nvrtc.getVersion()))
    return found


def measure(plan: Plan) -> dict[str, Any]:
    """Open the CUDA device, measure plan["sections"], and write each finding to plan["found"].

    Raises:
        DeviceError: there is none, or it failed.
    """
    from penstock_tuning.bench.gpu_device import open_cuda

    path = Path(plan["found"])
    with path.open("a", encoding="utf-8") as out:
        out.write("\n")  # After a line that was cut off when the section before was stopped.

        def emit(finding: Finding) -> None:
            out.write(json.dumps(finding) + "\n")
            out.flush()

        started_s = time.perf_counter()
        backend, arrays = open_cuda(int(plan["index"]))
        try:
            context_s = time.perf_counter() - started_s
            emit({"kind": "software"} | software(arrays))
            bench = Bench(backend, arrays, plan, emit, lambda: open_cuda(int(plan["index"]))[0])
            bench.run(context_s, plan["sections"])
        finally:
            backend.close()
    return {}


if __name__ == "__main__":
    sys.exit(be_part(measure))
