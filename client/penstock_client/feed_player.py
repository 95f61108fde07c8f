"""One play of a recorded file as a feed: packets onto the groups when their messages are due, open loop.

    scheduled[i] <= sent[i]          per message; a sender that falls behind is measured, not forgiven
    first .. first + count - 1       every message has one sequence and is in one packet, faults or not

Whatever is due goes out in as few packets as hold it, never a message before its time. While nothing is due, a heartbeat
says once a second which sequence comes next, so that a lost tail is noticed; at the end the session is ended, several
times, since packets can be lost.
"""

from __future__ import annotations

import asyncio
import signal
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from penstock.v1.moldudp64 import END_OF_SESSION, FIRST_SEQUENCE, HEADER_BYTES, HEARTBEAT, MESSAGES_MAX, pack_header
from penstock_client.errors import LocalUsageError, PenstockError
from penstock_client.event_loop import loop_factory
from penstock_client.feed_faults import ON_BOTH, FaultMaker, FaultPlan
from penstock_client.feed_file import FeedFile
from penstock_client.feed_group import Group, interface_address, open_sender
from penstock_client.feed_recovery import RecoveryServer
from penstock_client.replay_schedule import MAX_SPEED, due_offsets_ns
from penstock_client.replay_timer import LoopTimer, tighten_timer_slack

LEAD_NS: Final = 50_000_000  # From the first heartbeat to the first message.
LOOK_S: Final = 0.25  # Between two looks at progress.
PACKETS_AT_ONCE: Final = 16  # Between two looks at re-requests and signals.
ENDS: Final = 3  # How often the end of the session is said.


@dataclass(frozen=True)
class FeedPlan:
    """What to play, where and how.

    Attributes:
        file: its messages, at least one.
        groups: line A, and line B where there is one.
        session: 10 bytes, as moldudp64.session_bytes() makes them.
        interface: out of which the packets go.
        speed: times the recording's; MAX_SPEED for all at once.
        payload_bytes_max: of a packet, header included.
        ttl: how many routers a packet may pass, plus one.
        loopback: whether this machine's own listeners hear it.
        heartbeat_s: of silence until a heartbeat.
        linger_s: how long the end is said again, and re-requests are answered, after the last message.
        recovery_port: where re-requests are answered; 0 for any port, None for nowhere.
        faults: made on purpose.
    """

    file: FeedFile
    groups: tuple[Group, ...]
    session: bytes
    interface: str = "lo"
    speed: float = 1.0
    payload_bytes_max: int = 1472
    ttl: int = 1
    loopback: bool = True
    heartbeat_s: float = 1.0
    linger_s: float = 1.0
    recovery_port: int | None = None
    faults: FaultPlan = field(default_factory=FaultPlan)


@dataclass
class FeedRun:
    """What a play left behind; valid at any moment.

    Attributes:
        plan: what was asked.
        start_ns: monotonic time at which the first message was due; 0 before the start.
        scheduled_ns: shape (messages,), monotonic: when each was due; at MAX_SPEED when it was sent.
        sent_ns: shape (messages,), when its packet was handed to the kernel, or was lost on purpose.
        sent: messages so far.
        packets: with messages, before faults.
        payload_bytes: of those packets.
        heartbeats: that were sent.
        recovery: the server of re-requests, if there is one.
        faults: what was done to packets on purpose.
        interrupted_by: the signal that ended it early.
    """

    plan: FeedPlan
    start_ns: int = 0
    scheduled_ns: NDArray[np.int64] = field(init=False)
    sent_ns: NDArray[np.int64] = field(init=False)
    sent: int = 0
    packets: int = 0
    payload_bytes: int = 0
    heartbeats: int = 0
    recovery: RecoveryServer | None = None
    faults: FaultMaker = field(init=False)
    interrupted_by: signal.Signals | None = None

    def __post_init__(self) -> None:
        self.scheduled_ns, self.sent_ns = np.full((2, self.plan.file.messages), -1, np.int64)  # Pages touched.
        self.faults = FaultMaker(self.plan.faults)

    @property
    def late_ns(self) -> NDArray[np.int64]:
        """By how much each sent message was late, shape (sent,)."""
        return self.sent_ns[: self.sent] - self.scheduled_ns[: self.sent]


Look = Callable[[FeedRun], None]


def play(plan: FeedPlan, look: Look | None = None) -> FeedRun:
    """Play *plan* on an event loop of its own; SIGINT and SIGTERM end the session early and properly.

    Raises:
        LocalUsageError: the interface, a group or the port of re-requests can't be had.
    """
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        return runner.run(play_async(plan, look))


async def play_async(plan: FeedPlan, look: Look | None = None) -> FeedRun:
    """Play *plan* on the running loop; see play()."""
    run = FeedRun(plan)
    player = _Player(run)
    loop = asyncio.get_running_loop()
    taken: list[signal.Signals] = []
    try:
        for one in (signal.SIGINT, signal.SIGTERM):
            try:
                loop.add_signal_handler(one, player.interrupt, one)
            except (ValueError, RuntimeError):
                break  # Not the main thread: whoever owns it owns its signals.
            taken.append(one)
        await player.run_to_end(look)
    finally:
        for one in taken:
            loop.remove_signal_handler(one)
        player.close()
    return run


class _Player:
    """The pacer of one play, and its sockets."""

    def __init__(self, run: FeedRun) -> None:
        plan = run.plan
        self._run = run
        self._plan = plan
        self._count = plan.file.messages
        self._starts = plan.file.starts
        self._blocks = plan.file.blocks
        self._room = plan.payload_bytes_max - HEADER_BYTES
        self._senders: list[socket.socket] = []
        self._all_due = plan.speed == MAX_SPEED
        self._heartbeat_ns = round(plan.heartbeat_s * 1e9)
        self._said_ns = 0  # When the last packet of any kind went out.
        self._done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._leave = asyncio.Event()  # At once, without lingering.
        longest = int(np.diff(self._starts).max(initial=0))
        if longest > self._room:
            raise LocalUsageError(
                f"--payload must hold the longest message: payload={plan.payload_bytes_max}; "
                f"take {longest + HEADER_BYTES} or more"
            )
        try:
            for group in plan.groups:
                self._senders.append(open_sender(group, plan.interface, ttl=plan.ttl, loopback=plan.loopback))
            if plan.recovery_port is not None:
                host = interface_address(plan.interface)
                run.recovery = RecoveryServer(
                    host, plan.recovery_port, plan.session, self._packet_from, lambda: run.sent
                )
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the sockets; nothing is sent after it."""
        for sender in self._senders:
            sender.close()
        if self._run.recovery is not None:
            self._run.recovery.close()

    def interrupt(self, number: signal.Signals) -> None:
        """End the session; where it has ended, leave at once."""
        if self._done.done():
            self._leave.set()
            return
        self._run.interrupted_by = number
        self._finish()

    async def run_to_end(self, look: Look | None) -> None:
        """Send every message when it is due, then end the session.

        Raises:
            PenstockError: the kernel refused a packet.
        """
        run, plan, loop = self._run, self._plan, asyncio.get_running_loop()
        offsets_ns = due_offsets_ns(plan.file.times_ns, plan.speed)
        tighten_timer_slack()
        if run.recovery is not None:
            loop.add_reader(run.recovery.socket.fileno(), run.recovery.answer)
        looking = None if look is None else loop.create_task(self._look_at_times(look))
        try:
            run.start_ns = time.monotonic_ns() + LEAD_NS
            np.add(offsets_ns, run.start_ns, out=run.scheduled_ns)
            self._heartbeat()
            with LoopTimer(self._pump) as self._timer:
                self._timer.arm(run.start_ns)
                await self._done
            await self._end()
        finally:
            if run.recovery is not None:
                loop.remove_reader(run.recovery.socket.fileno())
            if looking is not None:
                looking.cancel()
                await asyncio.gather(looking, return_exceptions=True)
            if look is not None:
                look(run)

    def _pump(self) -> None:
        """Send what is due, and arm the timer for what is next."""
        if self._done.done():
            return
        try:
            self._send_due()
        except (PenstockError, OSError) as error:
            self._done.set_exception(_refused(error))

    def _send_due(self) -> None:
        run = self._run
        now_ns = time.monotonic_ns()
        due = self._count if self._all_due else int(np.searchsorted(run.scheduled_ns, now_ns, side="right"))
        for _ in range(PACKETS_AT_ONCE):
            if run.sent >= due:
                break
            self._send_messages(due)
        if run.sent >= self._count:
            self._finish()
        elif run.sent < due:
            self._timer.arm(now_ns)
        else:
            quiet_ns = self._said_ns + self._heartbeat_ns
            if now_ns >= quiet_ns:
                self._heartbeat()
                quiet_ns = self._said_ns + self._heartbeat_ns
            self._timer.arm(min(int(run.scheduled_ns[run.sent]), quiet_ns))

    def _send_messages(self, due: int) -> None:
        """Send one packet of messages before *due*."""
        run, first = self._run, self._run.sent
        packet, end = self._packet(first, due)
        if self._plan.faults.any:
            self._send_with_faults(packet)
        else:
            for sender in self._senders:
                sender.send(packet)
        now_ns = self._said_ns = time.monotonic_ns()
        run.sent_ns[first:end] = now_ns
        if self._all_due:
            run.scheduled_ns[first:end] = now_ns
        run.packets += 1
        run.payload_bytes += len(packet)
        run.sent = end

    def _send_with_faults(self, packet: bytes) -> None:
        sent = self._run.faults.packets(packet)
        for line, sender in enumerate(self._senders):
            for one in sent if line == 0 or self._plan.faults.lines == ON_BOTH else [packet]:
                sender.send(one)

    def _send_kept_back(self) -> None:
        """Send a packet that waited for another one to overtake it: none comes for a while."""
        kept = self._run.faults.rest()
        for line, sender in enumerate(self._senders):
            for one in kept if line == 0 or self._plan.faults.lines == ON_BOTH else []:
                sender.send(one)

    def _packet(self, first: int, due: int) -> tuple[bytes, int]:
        """Return a packet of the messages from *first* on, as many before *due* as fit, and the first after them."""
        starts = self._starts
        fitting = int(np.searchsorted(starts, starts[first] + self._room, side="right")) - 1
        end = min(due, fitting, first + MESSAGES_MAX)
        header = pack_header(self._plan.session, FIRST_SEQUENCE + first, end - first)
        return header + self._blocks[starts[first] : starts[end]], end

    def _packet_from(self, first: int, count: int) -> bytes:
        """Return an answer to a re-request."""
        return self._packet(first, first + count)[0]

    def _heartbeat(self) -> None:
        self._send_kept_back()
        self._send_sign(HEARTBEAT)
        self._run.heartbeats += 1

    def _send_sign(self, count: int) -> None:
        packet = pack_header(self._plan.session, FIRST_SEQUENCE + self._run.sent, count)
        for sender in self._senders:
            sender.send(packet)
        self._said_ns = time.monotonic_ns()

    def _finish(self) -> None:
        if not self._done.done():
            self._done.set_result(None)

    async def _end(self) -> None:
        """Say the end of the session several times, and answer re-requests meanwhile."""
        leaving = asyncio.get_running_loop().create_task(self._leave.wait())
        try:
            self._send_kept_back()
            for _ in range(ENDS - 1):
                self._send_sign(END_OF_SESSION)
                await asyncio.wait([leaving], timeout=self._plan.linger_s / (ENDS - 1))
            self._send_sign(END_OF_SESSION)
        except OSError as error:
            raise _refused(error) from error
        finally:
            leaving.cancel()

    async def _look_at_times(self, look: Look) -> None:
        while True:
            look(self._run)
            await asyncio.sleep(LOOK_S)


def _refused(error: Exception) -> PenstockError:
    if isinstance(error, PenstockError):
        return error
    reason = error.strerror if isinstance(error, OSError) else error
    return LocalUsageError(f"the kernel took no packet ({reason}); is the interface up, and a route there?")
