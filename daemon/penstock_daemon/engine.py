"""The engine thread: started with its memory, warmed up through its own rings, commanded through its control ring.

The thread enters compiled code once and stays there until it is stopped; nobody calls into it. All that reaches it is
memory: ticks, commands and model slots. ``Engine`` is the event loop's handle on that memory.

    compile -> start -> warm up -> READY -> stop

With a device the thread runs another loop over the same rings, commands and figures (``device/loop.py``).
"""

from __future__ import annotations

import os
import select
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from penstock.v1.records import TICK_BYTES, TICK_DTYPE, Clock
from penstock_daemon import engine_loop, rings
from penstock_daemon import engine_memory as memory
from penstock_daemon.device.backend import DeviceError
from penstock_daemon.engine_memory import AnswerBuffers, Command
from penstock_daemon.engine_settings import EngineSettings
from penstock_daemon.engine_sizes import EngineSizes, allocate, write_model
from penstock_daemon.entry import bind
from penstock_daemon.warm_up import WARM_UP_TICKS, send_warm_up
from penstock_host import affinity
from penstock_kernels.predictor import PackedModel

if TYPE_CHECKING:
    from penstock_daemon.device.device import Device

__all__ = ["Engine", "EngineError", "EngineSettings"]

_STOP_TIMEOUT_S: Final = 5.0
_OTHER_BITS: Final = (
    "the resident kernel predicts other bits than the graphs do; set engine.device_mode to graph, and report this"
)


class EngineError(Exception):
    """The engine could not be started, or is gone."""


class Engine:
    """The event loop's handle on the engine thread and its memory.

    Args:
        sizes: of the memory, all of which is taken here.
        settings: how it runs.
        device: that predicts in the CPU's place; it is the engine's from here on, and closed with it. Nobody then helps
            while the engine sleeps, whatever assist_max says.

    Raises:
        DeviceError: the device has not the memory.
    """

    def __init__(self, sizes: EngineSizes, settings: EngineSettings, device: Device | None = None) -> None:
        self.sizes = sizes
        self.settings = settings
        self.device = device
        self._assist_max = settings.assist_max if device is None else 0
        self.arena, self.buffers = allocate(sizes)
        if device is not None:
            device.take_memory(sizes, self.arena)
        self.engine_event = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self.loop_event = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self.poll = select.epoll()  # What the sleeping engine waits on: its eventfd, and the bells of segments.
        self.poll.register(self.engine_event, select.EPOLLIN)
        self._egress = AnswerBuffers(*(getattr(self.buffers, name) for name in AnswerBuffers._fields))
        self.assisted = 0  # Ticks of the last batch that were predicted where it was published.
        # The dispatchers stand in until ``compile`` binds them.
        self._publish: Callable[..., Any] = rings.publish_ticks
        self._waiting: Callable[..., Any] = rings.waiting_answers
        self._release: Callable[..., Any] = rings.release_answers
        self._found: Callable[..., Any] = rings.sources_with_answers
        self._word: Callable[..., Any] = rings.shared_word
        self._arm: Callable[..., Any] = rings.arm_loop
        self.thread_id = 0
        self._thread: threading.Thread | None = None
        self._failure: OSError | DeviceError | None = None
        self._queued: deque[NDArray[np.int64]] = deque()  # Commands that found the control ring full.
        self._given = 0  # Commands, those included.
        self._giving = threading.Lock()  # The warm-up gives commands from a thread of its own.
        words = self.buffers.settings
        settings.write(self.buffers)
        words[memory.ENGINE_EVENT] = self.engine_event
        words[memory.LOOP_EVENT] = self.loop_event
        words[memory.ENGINE_POLL] = self.poll.fileno()
        self.refresh_unix_offset()

    def load_model(self, slot: int, packed: PackedModel, serial: int) -> None:
        """Write a model into a slot that no session and no waiting command names.

        Raises:
            ValueError: the model does not fit; the sentence names the configuration key to raise.
            DeviceError: before the device serves, it refuses.
        """
        write_model(self.sizes, self.buffers, slot, packed, serial)
        if self.device is not None:
            self.device.load_model(slot, packed)

    def compile(self) -> None:
        """Compile, or load from the cache, everything that runs on the tick path; the engine must not run yet.

        Raises:
            DeviceError: the device can't compile or run its kernel.
        """
        buffers = self.buffers
        buffers.words[memory.STOP] = 1
        self._run()
        buffers.words[memory.STOP] = 0
        if self.device is not None:
            self.device.build()
        records = np.frombuffer(bytes(TICK_BYTES), TICK_DTYPE)  # Malformed: nothing is written.
        nobody = np.zeros(1, np.int64)
        self._publish = bind(rings.publish_ticks, buffers, 0, records, 0, 0, nobody, nobody, 0, 0, 0, 0)
        self._waiting = bind(rings.waiting_answers, self._egress, 0, 1)
        self._release = bind(rings.release_answers, self._egress, 0, 0, 0, 0, 0)
        self._found = bind(rings.sources_with_answers, self._egress, np.zeros(self.sizes.sources, np.int64))
        self._word = bind(rings.shared_word, buffers.words, 0)
        self._arm = bind(rings.arm_loop, buffers.words)  # The loop looks once more for it, no harm.
        rings.set_shared_word(buffers.words, memory.STOP, 0)

    def start(self) -> None:
        """Start the thread, pinned where the settings say so.

        Raises:
            EngineError: the CPUs can't be had.
            DeviceError: the thread can't have the device.
        """
        assert self._thread is None, "the engine was started before"
        started = threading.Event()
        self._thread = threading.Thread(target=self._main, args=(started,), name="penstock-engine", daemon=True)
        self._thread.start()
        started.wait()
        if isinstance(self._failure, DeviceError):
            raise self._failure
        if self._failure is not None:
            raise EngineError(
                f"engine.cores: CPUs {sorted(self.settings.cpus)} can't be used ({self._failure.strerror}); "
                "name CPUs that are online and allowed to this process, or leave it empty"
            ) from self._failure

    def _main(self, started: threading.Event) -> None:
        try:
            affinity.name_this_thread("penstock-engine")
            self.thread_id = threading.get_native_id()
            if self.settings.cpus:
                affinity.pin_this_thread(self.settings.cpus)
            if self.device is not None:
                self.device.enter_thread()
        except (OSError, DeviceError) as error:
            self._failure = error
            return
        finally:
            started.set()
        self._run()

    def _run(self) -> None:
        if self.device is None:
            engine_loop.run(self.buffers)
        else:
            self.device.run(self.buffers)

    @property
    def alive(self) -> bool:
        """True while the thread runs."""
        return self._thread is not None and self._thread.is_alive()

    def warm_up(self, model_slot: int, ticks: int = WARM_UP_TICKS) -> int:
        """Send ticks through a model by the real rings and wait for their predictions; the state is forgotten after.

        With a device that keeps a kernel resident, once by its graphs and once by that kernel: both must predict the same.

        Returns:
            The longest time from publishing to prediction among the last half, in nanoseconds.

        Raises:
            EngineError: no prediction came in time.
            DeviceError: the device failed, or its kernels predict different bits.
        """
        try:
            slowest_ns, forecasts = send_warm_up(self, model_slot, ticks)
            if self.device is not None and self.device.make_resident(model_slot):
                slowest_ns, resident = send_warm_up(self, model_slot, ticks)
                if resident.tobytes() != forecasts.tobytes():
                    raise DeviceError(_OTHER_BITS)
        except TimeoutError as error:
            raise EngineError(str(error)) from error
        self._forget_warm_up()
        if self.device is not None:
            self.device.seal()
        return slowest_ns

    def warm_up_on_cpu(self, model_slot: int, ticks: int = WARM_UP_TICKS) -> int:
        """Leave a device that failed in its warm-up, and warm up as above without it: all predictions are DEGRADED."""
        assert self.device is not None, "there is a device to leave"
        self.device.give_up()
        try:
            slowest_ns, _ = send_warm_up(self, model_slot, ticks)
        except TimeoutError as error:
            raise EngineError(str(error)) from error
        self._forget_warm_up()
        return slowest_ns

    def _forget_warm_up(self) -> None:
        self.buffers.histograms[:] = 0
        self.buffers.totals[:] = 0
        self.buffers.breaches[:] = 0

    def stop(self) -> None:
        """Stop the thread and wait for it; a device whose launch hangs for longer is given up.

        Raises:
            EngineError: it did not stop.
        """
        if self._thread is None:
            return
        rings.set_shared_word(self.buffers.words, memory.STOP, 1)
        os.eventfd_write(self.engine_event, 1)
        self._thread.join(_STOP_TIMEOUT_S)
        if self.device is not None and self._thread.is_alive():
            self.device.give_up()
            self._thread.join(_STOP_TIMEOUT_S)
        if self._thread.is_alive():
            raise EngineError(f"the engine did not stop within {_STOP_TIMEOUT_S} s")

    def close(self) -> None:
        """Close the descriptors, and the device; the thread must have stopped."""
        self.poll.close()
        os.close(self.engine_event)
        os.close(self.loop_event)
        if self.device is not None:
            self.device.close()

    # --- The event loop's ends of the rings ---------------------------------------------------------------------

    def publish_ticks(
        self,
        source: int,
        records: NDArray[np.void],
        first_sequence: int,
        rebuild: bool,
        instrument_ids: NDArray[np.int64],
        instrument_states: NDArray[np.int64],
        received_ns: int,
        *,
        assist: bool = False,
    ) -> int:
        """Put ticks into a source's ring; see ``rings.publish_ticks``.

        Args:
            assist: predict them here and now if they are few and the engine sleeps; ``assisted`` then says how many.
        """
        result, self.assisted = self._publish(
            self.buffers,
            source,
            records,
            first_sequence,
            1 if rebuild else 0,
            instrument_ids,
            instrument_states,
            received_ns,
            0,
            int(Clock.USER),
            self._assist_max if assist else 0,
        )
        return int(result)

    def answers(self, source: int, limit: int) -> tuple[int, int, bool]:
        """Look at a source's waiting answers; see ``rings.waiting_answers``."""
        place, count, special = self._waiting(self._egress, source, limit)
        return place, count, special

    def release_answers(self, source: int, path: int, bulk: bool, count: int, *, repeated: int = 0) -> int:
        """Give answers' slots back; see ``rings.release_answers``."""
        return int(self._release(self._egress, source, path, 1 if bulk else 0, count, repeated))

    def sources_with_answers(self, found: NDArray[np.int64]) -> int:
        """List the sources whose rings hold answers; see ``rings.sources_with_answers``."""
        return int(self._found(self._egress, found))

    def arm_loop(self) -> None:
        """Ask the engine to signal the loop at its next answer."""
        self._arm(self.buffers.words)

    def cursor(self, source: int, which: int) -> int:
        """Return a source's cursor, such as TICK_PUBLISHED."""
        return int(self._word(self.buffers.cursors, memory.cursor(source, which)))

    def segment_word(self, row: NDArray[np.int64], column: int) -> int:
        """Return a word of a source's row of ``buffers.segments``, such as SEGMENT_GIVEN."""
        return int(self._word(row, column))

    def reset_source(self, source: int) -> None:
        """Set a closed source's cursors to 0: the engine has applied its CLOSE_SOURCE."""
        start = memory.cursor(source, 0)
        self.buffers.cursors[start : start + memory.CURSOR_WORDS] = 0
        self.buffers.high_water[source] = 0

    def rewind_answers(self, source: int, position: int) -> None:
        """Let the egress send again from *position*, which the ring still holds."""
        rings.set_shared_word(self.buffers.cursors, memory.cursor(source, memory.PREDICTION_CONSUMED), position)

    # --- Commands -------------------------------------------------------------------------------------------------

    def command(self, kind: Command, *arguments: int) -> int:
        """Append a command for the engine.

        What the control ring has no room for waits here, in order, until the engine has applied some of it; there is
        never more of that than the commands of opening and closing every session at once.

        Returns:
            How many commands must be applied for this one to be.
        """
        row = np.zeros(memory.CONTROL_COLUMNS, np.int64)
        row[0] = kind
        row[1 : 1 + len(arguments)] = arguments
        with self._giving:
            self._given += 1
            self._queued.append(row)
            self._flush()
            return self._given

    def command_state(self) -> tuple[int, int]:
        """Return how many commands were given and how many are applied."""
        return self._given, int(self._word(self.buffers.words, memory.CONTROL_CONSUMED))

    def flush_commands(self) -> None:
        """Move queued commands into the control ring, as far as it has room; for whenever some were applied."""
        if self._queued:  # Asked at every look at the rings, so without the lock.
            with self._giving:
                self._flush()

    def _flush(self) -> None:
        while self._queued and rings.publish_command(self.buffers, self._queued[0]) != rings.NO_SLOT:
            self._queued.popleft()

    def wait_applied(self, commands: int, timeout_s: float = 5.0) -> None:
        """Block until *commands* commands are applied; for start-up, not for the event loop.

        Raises:
            EngineError: they are not in time.
        """
        deadline_s = time.monotonic() + timeout_s
        while self.command_state()[1] < commands:
            if time.monotonic() > deadline_s or not self.alive:
                raise EngineError(f"the engine applied no command for {timeout_s} s")
            time.sleep(0.0001)

    def use_cycles(self, fraction: int) -> None:
        """Time stages by the processor's counter of cycles, from each source's next drain on; at any time, from any thread.

        Args:
            fraction: nanoseconds of a cycle, in 2^-32; 0 for CLOCK_MONOTONIC.

        Raises:
            ValueError: *fraction* is no such number.
        """
        if not 0 <= fraction < 2**63:
            raise ValueError(f"a cycle must last from 0 to 2^63 - 1 parts: fraction={fraction}")
        rings.set_shared_word(self.buffers.settings, memory.CYCLE_FRACTION, fraction)

    def refresh_unix_offset(self) -> None:
        """Measure CLOCK_REALTIME against CLOCK_MONOTONIC anew, for the stamps that leave the daemon."""
        before = time.monotonic_ns()
        unix_ns = time.time_ns()
        after = time.monotonic_ns()
        self.set_unix_offset(unix_ns - (before + after) // 2)

    def set_unix_offset(self, offset_ns: int) -> None:
        """Use *offset_ns*, CLOCK_REALTIME minus CLOCK_MONOTONIC, from here on."""
        self.buffers.words[memory.UNIX_OFFSET_NS] = offset_ns

    @property
    def unix_offset_ns(self) -> int:
        """CLOCK_REALTIME minus CLOCK_MONOTONIC, as last measured."""
        return int(self.buffers.words[memory.UNIX_OFFSET_NS])
