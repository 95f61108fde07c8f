"""One replay: recorded ticks through a session, open loop, every tick's three times kept.

    scheduled <= sent <= received       per tick, monotonic nanoseconds; received 0 means: no answer
    predicted + errors + lost == sent   ticks

Everything that grows with the file is allocated before the first tick. The pacer runs on a kernel timer and sends all
that is due at each wake-up; where the daemon's in_flight_max holds it back, it goes on with the next answers.
"""

from __future__ import annotations

import asyncio
import gc
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from penstock.v1 import prediction_pb2 as pb
from penstock.v1.records import PREDICTION_BYTES, PREDICTION_DTYPE, TICK_BYTES
from penstock_client.batches import Batch, TickError
from penstock_client.channel import checked_address, open_channel
from penstock_client.errors import DeadlineExceeded, PenstockError
from penstock_client.event_loop import loop_factory
from penstock_client.files.sessions import RecordedSession
from penstock_client.instruments import Instrument, Pace
from penstock_client.reconnect import ReconnectPolicy
from penstock_client.replay_schedule import MAX_SPEED, due_offsets_ns, random_splits
from penstock_client.replay_timer import LoopTimer, tighten_timer_slack
from penstock_client.session import Session, connect
from penstock_client.settings import CONNECT_DEADLINE_S

LEAD_NS: Final = 50_000_000  # From Welcome to the first tick, for everything to be in its place.
LOOK_S: Final = 0.25  # Between two looks at progress.
OFFER_TICKS_MAX: Final = 8192  # At one wake-up, so that answers are read in between.
SPLIT_GAP_NS: Final = 300_000  # Between random splits, so that each goes out alone.
INTERRUPT_GRACE_S: Final = 2.0  # For answers under way when the user has had enough.
WATCH_LATER_S: Final = 1.0  # A session that can't reconnect says so itself, and better, before the watch does.
ERRORS_KEPT_MAX: Final = 1000

_OPAQUE: Final = np.dtype((np.void, PREDICTION_BYTES))  # NumPy copies plain bytes 30 times faster than fields.


@dataclass(frozen=True)
class ReplayPlan:
    """What to replay, where and how.

    Attributes:
        instruments: of the ticks.
        ticks: shape (ticks,), dtype TICK_DTYPE, in order.
        address: the daemon's.
        speed: times the market's; MAX_SPEED for as fast as the daemon takes them.
        model: its name; empty for the active one.
        client_name: in the daemon's logs.
        online_readout: whether forecasts are corrected by what followed the ticks. Its snapshots belong to a client
            name, so a replay that is to give the same predictions again has none.
        shared_memory: whether ticks go through rings in memory that the daemon, on this host, hands over.
        timeout_s: for Welcome (at most CONNECT_DEADLINE_S), for a lost connection to come back, and for any answer that is outstanding.
        splits_seed: cut the ticks into batches at random places; None for natural batching.
        recording: of which session of a daemon the ticks are; None for any other ticks.
    """

    instruments: list[Instrument]
    ticks: NDArray[np.void]
    address: str
    speed: float = 1.0
    model: str = ""
    client_name: str = "penstock replay"
    online_readout: bool = False
    shared_memory: bool = False
    timeout_s: float = 30.0
    splits_seed: int | None = None
    recording: RecordedSession | None = None

    @property
    def pace(self) -> Pace:
        """At true speed and below, budgets apply."""
        return Pace.REALTIME if self.speed <= 1 else Pace.BULK


@dataclass
class ReplayRun:
    """What a replay left behind; valid at any moment, also after an error or an interrupt.

    Attributes:
        plan: what was asked.
        start_ns: monotonic time at which the first tick was due.
        scheduled_ns: shape (ticks,), when each was due; at MAX_SPEED when it was sent.
        sent_ns: shape (ticks,), when the session took it; 0 for never.
        received_ns: shape (ticks,), when its answer was here; 0 for never.
        predictions: shape (ticks,), dtype PREDICTION_DTYPE; all zeros where there is none.
        predicted: shape (ticks,), whether there is a prediction.
        sent: how many ticks were sent.
        errors: how many ticks the daemon answered with an error.
        tick_errors: the first ERRORS_KEPT_MAX of them.
        resumed: how often the connection was lost and regained.
        welcome: the daemon's last one.
        failure: what ended the replay early, if anything did.
        interrupted_by: the signal that did.
    """

    plan: ReplayPlan
    start_ns: int = 0
    scheduled_ns: NDArray[np.int64] = field(init=False)
    sent_ns: NDArray[np.int64] = field(init=False)
    received_ns: NDArray[np.int64] = field(init=False)
    predictions: NDArray[np.void] = field(init=False)
    predicted: NDArray[np.bool_] = field(init=False)
    sent: int = 0
    answered: int = 0
    errors: int = 0
    tick_errors: list[TickError] = field(default_factory=list)
    resumed: int = 0
    welcome: pb.Welcome = field(default_factory=pb.Welcome)
    failure: PenstockError | None = None
    interrupted_by: signal.Signals | None = None

    def __post_init__(self) -> None:
        count = len(self.plan.ticks)
        self.scheduled_ns, self.sent_ns, self.received_ns = np.full((3, count), -1, dtype=np.int64)  # Pages touched.
        self.sent_ns[:] = self.received_ns[:] = 0
        self.predictions = np.frombuffer(bytearray(count * PREDICTION_DTYPE.itemsize), dtype=PREDICTION_DTYPE)
        self.predictions["sequence"] = 0
        self.predicted = np.zeros(count, dtype=bool)

    @property
    def lost(self) -> int:
        """How many sent ticks have no answer."""
        return self.sent - self.answered

    @property
    def latencies_ns(self) -> NDArray[np.int64]:
        """From due to answered, shape (answered ticks,)."""
        answered = self.received_ns[: self.sent] > 0
        return (self.received_ns[: self.sent] - self.scheduled_ns[: self.sent])[answered]

    def save_raw(self, path: str) -> None:
        """Write sequence, scheduled, sent and received of every sent tick as a ``.npy`` file."""
        raw = np.zeros(self.sent, dtype=[(name, "<i8") for name in ("sequence", "scheduled", "sent", "received")])
        raw["sequence"] = np.arange(self.sent)
        raw["scheduled"], raw["sent"], raw["received"] = (
            times[: self.sent] for times in (self.scheduled_ns, self.sent_ns, self.received_ns)
        )
        np.save(path, raw, allow_pickle=False)


_LEFT_BEHIND: Final[list[object]] = []
_LOOKS: Final = 4
_APART_NS: Final = 20_000


def _monotonic_of(unix_ns: int) -> int:
    """Return a moment just past on the monotonic clock; whoever is held up between two clocks reads them again."""
    for _ in range(_LOOKS):
        before_ns, now_ns, after_ns = time.monotonic_ns(), time.time_ns(), time.monotonic_ns()
        if after_ns - before_ns < _APART_NS:
            break
    return before_ns - max(now_ns - unix_ns, 0)


Look = Callable[[ReplayRun], None]


def replay(plan: ReplayPlan, look: Look | None = None) -> ReplayRun:
    """Replay *plan* on an event loop of its own; SIGINT and SIGTERM end it early with what there is.

    Args:
        plan: what to do.
        look: called about every LOOK_S on the loop; must be quick.
    """
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        return runner.run(replay_async(plan, look))


async def replay_async(plan: ReplayPlan, look: Look | None = None) -> ReplayRun:
    """Replay *plan* on the running loop; see replay(). What goes wrong stands in the run's ``failure``."""
    run = ReplayRun(plan)
    keeper = open_channel(checked_address(plan.address))
    session = connect(
        plan.address,
        instruments=plan.instruments,
        model=plan.model,
        pace=plan.pace,
        client_name=plan.client_name,
        connect_deadline_s=min(plan.timeout_s, CONNECT_DEADLINE_S),
        reconnect=ReconnectPolicy(give_up_after_s=plan.timeout_s),
        online_readout=plan.online_readout,
        shared_memory=plan.shared_memory,
    )
    replayer = _Replayer(run, session, look)
    with _Signals(replayer.interrupt):
        try:
            await session.open()
            run.welcome = session.welcome
            await replayer.run_to_end()
        except PenstockError as error:
            run.failure = error
        except asyncio.CancelledError:
            if run.interrupted_by is None:
                raise
        finally:
            run.resumed = session.reconnects
            await session.close()
            if run.failure is not None or run.lost:
                _LEFT_BEHIND.append(keeper)
    return run


def left_behind() -> bool:
    """Whether gRPC may hold on to a daemon that reads no more: then only ``os._exit`` is sure to end the process.

    gRPC gives a socket back when what it was writing to it is written. Whoever drops the last channel of a process
    before that waits for it, with the event loop, and a daemon that hangs keeps it waiting for ever. So a replay that
    ended badly leaves a channel behind, never used, that is not dropped.
    """
    return bool(_LEFT_BEHIND)


class _Signals:
    """SIGINT and SIGTERM call back on the running loop while entered; nothing off the main thread."""

    def __init__(self, callback: Callable[[signal.Signals], None]) -> None:
        self._callback = callback
        self._loop = asyncio.get_running_loop()
        self._taken: list[signal.Signals] = []

    def __enter__(self) -> None:
        try:
            for one in (signal.SIGINT, signal.SIGTERM):
                self._loop.add_signal_handler(one, self._callback, one)
                self._taken.append(one)
        except (ValueError, RuntimeError, NotImplementedError):
            return  # Not the main thread: whoever owns it owns its signals.

    def __exit__(self, *_: object) -> None:
        for one in self._taken:
            self._loop.remove_signal_handler(one)


class _Replayer:
    """The pacer, the reader and the watch of one replay."""

    def __init__(self, run: ReplayRun, session: Session, look: Look | None) -> None:
        self._run = run
        self._session = session
        self._look = look
        self._count = len(run.plan.ticks)
        self._records = np.ascontiguousarray(run.plan.ticks).view(np.uint8).data
        self._kept = run.predictions.view(_OPAQUE)
        self._all_due = run.plan.speed == MAX_SPEED
        seed = run.plan.splits_seed
        self._splits = None if seed is None else random_splits(self._count, seed)
        self._held_back = False
        self._stopped = False
        self._first_sequence = 0
        self._received_ns = 0  # Of the last answers.
        self._done_sending: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._task: asyncio.Task[object] | None = asyncio.current_task()
        self._timer: LoopTimer | None = None

    def interrupt(self, number: signal.Signals) -> None:
        """Stop sending; the second time, or before Welcome, leave at once."""
        again = self._run.interrupted_by is not None
        self._run.interrupted_by = number
        if (again or not self._run.start_ns) and self._task is not None:
            self._task.cancel()
        self._stop()

    async def run_to_end(self) -> None:
        """Send every tick when it is due and read every answer.

        Raises:
            PenstockError: what ended the session.
            DeadlineExceeded: an answer was outstanding for longer than the timeout.
        """
        run = self._run
        self._first_sequence = self._session.next_sequence
        offsets_ns = due_offsets_ns(run.plan.ticks["ts_recv"], run.plan.speed)
        tighten_timer_slack()
        gc.collect()
        gc.freeze()  # What the files and imports left is never looked at again while ticks flow.
        run.start_ns = time.monotonic_ns() + LEAD_NS
        np.add(offsets_ns, run.start_ns, out=run.scheduled_ns)
        reader = asyncio.create_task(self._read(), name="replay reader")
        watch = asyncio.create_task(self._watch(), name="replay watch")
        try:
            with LoopTimer(self._pump) as self._timer:
                self._timer.arm(run.start_ns)
                await asyncio.wait([self._done_sending, reader, watch], return_when=asyncio.FIRST_COMPLETED)
            if not reader.done() and not watch.done():
                finishing = asyncio.create_task(self._session.finish(), name="replay finish")
                grace_s = INTERRUPT_GRACE_S if run.interrupted_by is not None else None
                done, _ = await asyncio.wait([finishing, watch], return_when=asyncio.FIRST_COMPLETED, timeout=grace_s)
                finishing.cancel()
                if finishing in done:
                    finishing.exception()  # The reader gets the same one, after what can still be read.
                    await asyncio.wait([reader])
        finally:
            self._timer = None
            gc.unfreeze()
            for task in (reader, watch):
                task.cancel()
            outcomes = await asyncio.gather(reader, watch, return_exceptions=True)
            if self._look is not None:
                self._look(run)
        for outcome in outcomes:
            if isinstance(outcome, Exception):
                raise outcome

    def _pump(self) -> None:
        """Send what is due, and arm the timer for what is next."""
        run = self._run
        try:
            while run.sent < self._count and not self._stopped:
                first = run.sent
                now_ns = time.monotonic_ns()
                if self._all_due:
                    due = min(first + OFFER_TICKS_MAX, self._count)
                else:
                    due = int(np.searchsorted(run.scheduled_ns, now_ns, side="right"))
                end = due
                if self._splits is not None and due > first:
                    end = min(due, int(self._splits[np.searchsorted(self._splits, first, side="right")]))
                records = self._records[first * TICK_BYTES : end * TICK_BYTES]
                taken = self._session.try_send(records) if end > first else 0
                run.sent_ns[first : first + taken] = now_ns
                if self._all_due:
                    run.scheduled_ns[first : first + taken] = now_ns
                run.sent = first + taken
                self._held_back = first + taken < end
                if self._held_back or self._timer is None:
                    return  # The next answers make room.
                if end < due or (self._all_due and run.sent < self._count):
                    # The session's writer and reader have their turn first, and a split is not to be gathered again.
                    self._timer.arm(now_ns if self._splits is None else now_ns + SPLIT_GAP_NS)
                    return
                if run.sent < self._count and run.scheduled_ns[run.sent] > now_ns:
                    self._timer.arm(int(run.scheduled_ns[run.sent]))
                    return
        except PenstockError as error:
            run.failure = error
            self._stop()
            return
        self._stop()

    def _stop(self) -> None:
        self._stopped = True
        if not self._done_sending.done():
            self._done_sending.set_result(None)

    async def _read(self) -> None:
        """Take in every answer until the session ends."""
        async for batch in self._session.batches():
            self._take(batch)
            if self._held_back:
                self._pump()

    def _take(self, batch: Batch) -> None:
        run = self._run
        # Answers come in order: what the clocks say less exactly than that does not count.
        received_ns = self._received_ns = max(_monotonic_of(batch.received_ns), self._received_ns)
        which = (batch.predictions["sequence"] - np.uint64(self._first_sequence)).astype(np.int64)
        self._kept[which] = batch.predictions.view(_OPAQUE)
        run.received_ns[which] = received_ns
        run.predicted[which] = True
        for error in batch.errors:
            run.received_ns[error.sequence - self._first_sequence] = received_ns
        run.errors += len(batch.errors)
        run.answered += len(which) + len(batch.errors)
        run.tick_errors.extend(batch.errors[: max(ERRORS_KEPT_MAX - len(run.tick_errors), 0)])

    async def _watch(self) -> None:
        """Show progress, and give up a daemon that lives and does not answer.

        Raises:
            DeadlineExceeded: no answer came within the timeout while one was outstanding.
        """
        run, loop = self._run, asyncio.get_running_loop()
        answered, changed_s = -1, loop.time()
        while True:
            await asyncio.sleep(LOOK_S)
            if self._look is not None:
                self._look(run)
            if answered != run.answered or not run.lost:
                answered, changed_s = run.answered, loop.time()
            elif loop.time() - changed_s > run.plan.timeout_s + WATCH_LATER_S:
                raise DeadlineExceeded(
                    f"{run.lost} ticks have no answer, and none came for timeout={run.plan.timeout_s:g} s; "
                    "look at the daemon's log, or allow more with --timeout"
                )
