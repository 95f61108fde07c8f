"""An engine that sleeps until it is rung: the time-outs that would hide a wake-up which was lost are taken from it.

python -m support.endless_sleep KIND EXAMPLES TURNS SEED     KIND: where the engine predicts, "cpu" or "device"

It says what went wrong, and ends with 1. A wake-up that was lost is an answer that never comes.

``epoll_wait`` is another one for all code that is compiled or loaded in this process after ``install``, so this must be a
process of its own. The engine's looks once a millisecond, while a strategy leaves it no room, stay what they are.
"""

from __future__ import annotations

import ctypes
import random
import sys
import threading
import time

import llvmlite.binding
import numpy as np
from hypothesis import HealthCheck, Phase, given, seed, settings
from numba import cfunc

from penstock_daemon import engine_memory as memory
from penstock_daemon import rings
from penstock_daemon.engine import Engine
from penstock_daemon.engine_loop import assist
from penstock_daemon.engine_memory import OldTick
from penstock_kernels.predictor import pack
from support.engine_world import MODELS, STEPS, TIMED, any_order_engine, check_any_order
from support.engines import close_source, driven, open_source, publish, take
from support.segment_client import SegmentClient
from support.segment_rig import attached
from support.tick_stream import tick_stream

SHORT_MS = 100  # From here on a time-out is none.
TICKS = tick_stream(17, 3000)

_wait = ctypes.CDLL(None).epoll_wait
_wait.argtypes = (ctypes.c_int32, ctypes.c_ssize_t, ctypes.c_int32, ctypes.c_int32)
_wait.restype = ctypes.c_int32


@cfunc("int32(int32, intp, int32, int32)")  # type: ignore[untyped-decorator]
def _wait_for_ever(poll: int, events: int, most: int, timeout_ms: int) -> int:
    return int(_wait(poll, events, most, -1 if timeout_ms >= SHORT_MS else timeout_ms))


def install() -> None:
    """Put it in the place of epoll_wait."""
    llvmlite.binding.add_symbol("epoll_wait", _wait_for_ever.address)


def sleeps_for_ever(engine: Engine) -> bool:
    """Whether the engine, which nobody has asked for anything, makes no pass in longer than its own time-outs."""
    passes = int(engine.buffers.words[memory.PASSES])
    time.sleep(0.3)
    return int(engine.buffers.words[memory.PASSES]) == passes


# --- Everybody at once ----------------------------------------------------------------------------------------------------


class Strategies:
    """Three producers that each ask for a few ticks at a time and wait for the answers, so that the engine often sleeps."""

    def __init__(self, engine: Engine, turns: int) -> None:
        self._engine = engine
        self._turns = turns
        self._publishing = threading.Lock()  # Two of the rings are the event loop's, which is one thread.
        self.failures: list[BaseException] = []

    def run(self, client: SegmentClient) -> None:
        jobs = (self.over_grpc, self.over_feed, lambda number: self.over_memory(number, client))
        threads = [threading.Thread(target=self._guarded, args=(job, number)) for number, job in enumerate(jobs, 1)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _guarded(self, job: object, number: int) -> None:
        try:
            job(number)  # type: ignore[operator]
        except BaseException as error:  # noqa: BLE001  # Told by the main thread.
            self.failures.append(error)

    def _parts(self, seed: int) -> list[slice]:
        choose = random.Random(seed)
        edges = np.cumsum([choose.choice((1, 1, 2, 3, 5)) for _ in range(self._turns)])
        return [slice(first, last) for first, last in zip([0, *edges], edges, strict=False)]

    def over_grpc(self, number: int) -> None:
        source = open_source(self._engine, number, states=(number,))
        found = []
        for part in self._parts(number):
            with self._publishing:
                publish(self._engine, source, TICKS[part], first=part.start, assist=True)
            found.append(take(self._engine, source, part.stop - part.start))
        close_source(self._engine, source)
        check(np.concatenate(found))

    def over_feed(self, number: int) -> None:
        """As the feed's thread: into the ring without the interpreter's lock, then help or wake."""
        engine, buffers = self._engine, self._engine.buffers
        source = open_source(engine, number, states=(number,), path=memory.PATH_FEED)
        slots = buffers.tick_slots[number]
        found = []
        for part in self._parts(number):
            for sequence in range(part.start, part.stop):
                place = sequence & (len(slots) - 1)
                slot = slots[place]
                buffers.tick_words[number, place, : memory.TICK_WORDS] = TICKS[sequence : sequence + 1].view(np.int64)
                slot["session_sequence"], slot["state"], slot["refusal"], slot["rebuild"] = sequence, number, 0, 0
                slot["received_ns"] = slot["first_ns"] = slot["ringed_ns"] = time.monotonic_ns()
            rings.set_shared_word(buffers.cursors, memory.cursor(number, memory.TICK_PUBLISHED), part.stop)
            if engine.device is None:
                assist(buffers, number)
            else:
                rings.wake_engine(buffers)  # Its states are the device's.
            found.append(take(engine, source, part.stop - part.start))
        close_source(engine, source)
        check(np.concatenate(found))

    def over_memory(self, number: int, client: SegmentClient) -> None:
        found = []
        for part in self._parts(number):
            client.publish(TICKS[part])
            found.append(client.predictions(part.stop - part.start))
        check(np.concatenate(found))


def check(answers: np.ndarray) -> None:
    """Hold the answers to the first of TICKS against a plain run."""
    forecasts, flags = driven(pack(MODELS[0]), TICKS[: len(answers)])
    assert answers["sequence"].tolist() == list(range(len(answers)))
    assert answers["forecasts"].tobytes() == forecasts.tobytes()
    assert (answers["flags"] & ~TIMED).tolist() == flags.tolist()


def main() -> int:
    kind, *numbers = sys.argv[1:]
    examples, turns, drawn_from = map(int, numbers)
    install()
    with any_order_engine(device=kind == "device") as engine:
        assert sleeps_for_ever(engine), "the engine wakes without being rung: epoll_wait is the real one"

        # Nothing is made smaller: the engine of a failure is no good for another try.
        @seed(drawn_from)
        @settings(
            max_examples=examples,
            deadline=None,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(**STEPS)
        def in_any_order(steps: list[tuple[object, ...]], policy: OldTick) -> None:
            check_any_order(engine, steps, policy)

        in_any_order()
        with attached(engine, 3, states=(3,)) as client:
            strategies = Strategies(engine, turns)
            strategies.run(client)
        for failure in strategies.failures:
            raise failure
    return 0


if __name__ == "__main__":
    sys.exit(main())
