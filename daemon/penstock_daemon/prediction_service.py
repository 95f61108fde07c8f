"""StreamPredictions: one session per stream, a reader and a writer that never wait for each other.

    reader: a request comes, its ticks go into the ring
    writer: the engine signals, all that is ready goes out as one message

A client that does not read holds up its own writer alone: its unanswered ticks reach in_flight_max, and it is refused.
A stream that ends without Goodbye leaves its session to be resumed. Whoever ends a stream from outside (the clock, a
resume elsewhere, the drain) does it through its Hold, so that the client hears a status.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import grpc
import structlog

from penstock.v1 import prediction_pb2 as pb
from penstock.v1.shared_ring import SegmentEnd
from penstock_daemon import engine_memory as memory
from penstock_daemon import faults
from penstock_daemon.readable import read_message
from penstock_daemon.recording import Recording
from penstock_daemon.session_table import SessionTable
from penstock_daemon.sessions import Hold, Session
from penstock_daemon.shared_memory.attachments import Attachments
from penstock_daemon.subscribe_service import SubscribeService

SERVICE: Final = "penstock.v1.PredictionService"
_SILENT_INTERVALS: Final = 3
_LOOK_S: Final = 0.002  # How often a segment's end is looked at: the engine wakes nobody for answers it gives itself.

_log = structlog.get_logger("penstock.sessions")


@dataclass
class _Conversation:
    """What the reader of a stream tells its writer."""

    said_goodbye: bool = False
    ended: bool = False  # No more requests will come.


class PredictionService:
    """Serves StreamPredictions on the event loop, and Subscribe through ``subscribe``.

    Args:
        table: of sessions.
        budgets_ns: bounds of TOTAL by path, for Welcome and Subscribed.
        daemon_version: for Welcome.
        daemon_id: for Welcome; drawn anew at each start.
        hello_timeout_s: how long a stream may take to say Hello.
        record: opens a recording for a new session, or None.
        attachments: hands out segments; None where the session table refuses every session that asks for one.
    """

    def __init__(
        self,
        table: SessionTable,
        *,
        in_flight_max: int,
        budgets_ns: tuple[int, ...],
        daemon_version: str,
        daemon_id: bytes,
        hello_timeout_s: float,
        record: Callable[[Session], Recording | None],
        attachments: Attachments | None = None,
    ) -> None:
        self._table = table
        self._in_flight_max = in_flight_max
        self._budgets_ns = budgets_ns
        self._daemon_version = daemon_version
        self._daemon_id = daemon_id
        self._hello_timeout_s = hello_timeout_s
        self._record = record
        self._attachments = attachments
        self._recordings: dict[int, Recording] = {}
        self._streams: set[asyncio.Task[None]] = set()
        self._greeting: set[Hold] = set()  # Of streams that have not said Hello.
        self.ready = False
        self.draining = False
        table.on_closed = self._on_closed
        self.subscribe = SubscribeService(
            budget_ns=budgets_ns[memory.PATH_FEED],
            heartbeat_interval_ns=table.limits.heartbeat_interval_ns,
            not_now=lambda: None if self.ready and not self.draining else self._not_now(),
            count_refusal=table.count_refusal,
        )

    def handler(self) -> grpc.GenericRpcHandler:
        """Return the handler to add to a server."""
        return grpc.method_handlers_generic_handler(
            SERVICE,
            {
                "StreamPredictions": grpc.stream_stream_rpc_method_handler(
                    self._stream,
                    request_deserializer=None,  # What can't be read is a fault of the client; gRPC would say UNKNOWN.
                    response_serializer=pb.StreamPredictionsResponse.SerializeToString,
                ),
                "Subscribe": self.subscribe.method(),
            },
        )

    @property
    def streams(self) -> int:
        """Streams that are open, subscriptions included."""
        return len(self._streams) + len(self.subscribe.streams)

    async def drain(self) -> None:
        """Say Goodbye to every session and subscriber and wait until each has had its answers; the caller bounds the wait."""
        self.draining = True
        for hold in self._greeting:
            hold.lose(self._not_now())
        for session in self._table.sessions:
            session.wake.set()
        await self.subscribe.drain()
        streams = list(self._streams)
        if streams:
            await asyncio.wait(streams)

    def keep(self, now_ns: int, late_ns: int) -> None:
        """Do what time brings: heartbeats, silent clients, expired graces. To be called several times a second.

        Args:
            now_ns: monotonic.
            late_ns: how much later than it should this call comes: a host that was paused has heard nobody, and what
                clients sent meanwhile is still to be read.
        """
        for session in self._table.sessions:
            session.follow()
        interval_ns = self._table.limits.heartbeat_interval_ns
        if interval_ns:
            for session in self._table.sessions:
                session.heard_ns += late_ns
                hold = session.hold
                if hold is None or hold.lost.done():
                    continue
                if now_ns - session.heard_ns > _SILENT_INTERVALS * interval_ns:
                    _log.warning("session_silent", session=session.session_id, client=session.client_name)
                    hold.lose(
                        faults.unavailable(
                            "SILENT",
                            field="heartbeat",
                            value=f"nothing for {(now_ns - session.heard_ns) / 1e9:.1f} s",
                            mend="send Heartbeat every Welcome.heartbeat_interval_ns, and resume with the token",
                        )
                    )
                elif now_ns - session.said_ns > interval_ns:
                    session.wake.set()
        self.subscribe.keep(now_ns)
        self._table.expire(now_ns)

    async def _stream(self, _requests: Any, context: Any) -> None:
        task = asyncio.current_task()
        assert task is not None
        hold = Hold()
        self._streams.add(task)
        try:
            await self._serve(context, hold)
        except faults.SessionFault as fault:
            self._streams.discard(task)  # A drain need not wait: an abort can hang while the client does not read.
            self._table.count_refusal(fault.reason)
            _log.info("session_refused", reason=fault.reason, detail=str(fault), peer=context.peer())
            await context.abort(fault.code, str(fault), fault.trailers())
        finally:
            self._streams.discard(task)

    def _not_now(self) -> faults.SessionFault:
        return faults.unavailable(
            "DRAINING" if self.draining else "NOT_READY",
            field="daemon",
            value="draining" if self.draining else "warming up",
            mend="try again soon, or ask another daemon",
        )

    async def _serve(self, context: Any, hold: Hold) -> None:
        if not self.ready or self.draining:
            raise self._not_now()
        hello = await self._hello(context, hold)
        if self.draining:
            raise self._not_now()
        session, origin = await self._table.open(hello)
        self._table.attach(session, hold)
        keep = True
        try:
            if origin == pb.STATE_ORIGIN_COLD:
                recording = self._record(session)
                if recording is not None:
                    self._recordings[session.session_id] = recording
            _log.info(
                "session_opened",
                session=session.session_id,
                client=session.client_name,
                resumed=origin == pb.STATE_ORIGIN_RESUMED,
                instruments=len(session.instruments),
                model=session.model.model.name,
                online=bool(session.online),
            )
            await context.write(pb.StreamPredictionsResponse(welcome=self._welcome(session, hold, origin)))
            said_goodbye = await self._converse(session, context, hold)
            keep = not said_goodbye and not self.draining
        except faults.SessionFault:
            # Taken away, not refused for what it sent: it may be resumed.
            keep = hold.lost.done() and hold.lost.result().code is grpc.StatusCode.UNAVAILABLE
            raise
        except grpc.aio.BaseError as error:  # The transport is gone: a lost connection, not a fault of ours.
            _log.info("session_transport_lost", session=session.session_id, detail=str(error))
            raise asyncio.CancelledError from error  # No status can be sent any more; gRPC takes this in silence.
        finally:
            await asyncio.shield(self._leave(session, hold, keep=keep))

    async def _converse(self, session: Session, context: Any, hold: Hold) -> bool:
        """Read and write until one side ends, or the session is taken away. Returns whether the client said Goodbye."""
        conversation = _Conversation()
        reader = asyncio.create_task(self._read(session, context, hold, conversation))
        writer = asyncio.create_task(self._write(session, context, hold, conversation))
        ends: set[asyncio.Future[Any]] = {writer, reader, hold.lost}
        try:
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            if reader.done():
                reader.result()  # Raises the fault that ends the session, at once.
                await asyncio.wait(ends - {reader}, return_when=asyncio.FIRST_COMPLETED)
            if hold.lost.done():
                raise hold.lost.result()
            await writer
        finally:
            for task in (reader, writer):
                task.cancel()
            await asyncio.gather(reader, writer, return_exceptions=True)
        return conversation.said_goodbye

    async def _leave(self, session: Session, hold: Hold, *, keep: bool) -> None:
        """Keep or close the session of a stream that has ended, unless another stream has taken it over."""
        if _holds(session, hold):
            await session.let_go(SegmentEnd.DRAINING if self.draining else SegmentEnd.CLOSED)
        if not _holds(session, hold):
            return
        if not (self._table.detach(session) and keep):
            await self._table.close(session)
        _log.info("session_ended", session=session.session_id, kept=not session.closed, ticks=session.published)

    async def _hello(self, context: Any, hold: Hold) -> pb.Hello:
        reading = asyncio.ensure_future(context.read())
        self._greeting.add(hold)
        try:
            ends: set[asyncio.Future[Any]] = {reading, hold.lost}
            await asyncio.wait(ends, timeout=self._hello_timeout_s, return_when=asyncio.FIRST_COMPLETED)
            if hold.lost.done():
                raise hold.lost.result()
            if not reading.done():
                raise faults.out_of_order(
                    "HELLO_TIMEOUT",
                    field="hello",
                    value=f"nothing for {self._hello_timeout_s} s",
                    mend="send Hello first",
                )
            request = _request(reading.result())
        finally:
            self._greeting.discard(hold)
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)
        kind = None if request is None else request.WhichOneof("message")
        if request is None or kind != "hello":
            raise faults.out_of_order(
                "HELLO_MISSING", field="message", value=kind or "nothing", mend="send Hello first"
            )
        return request.hello

    def _welcome(self, session: Session, hold: Hold, origin: pb.StateOrigin) -> pb.Welcome:
        limits = self._table.limits
        shared = None
        if session.shared:
            assert self._attachments is not None, (
                "the table refuses sessions that ask for a segment where there is none"
            )
            shared = self._attachments.offer(session, hold)
        return pb.Welcome(
            session_id=session.session_id,
            instruments=session.instruments,
            model=session.model.summary,
            horizons=session.model.horizons,
            budget_ns=self._budgets_ns[memory.PATH_SHARED_MEMORY if session.shared else memory.PATH_GRPC],
            in_flight_max=self._in_flight_max,
            rebuild_ticks=session.model.model.rebuild_ticks,
            state_origin=origin,
            resume_token=session.token,
            next_sequence=session.next_sequence,
            resume_grace_ns=limits.resume_grace_ns,
            heartbeat_interval_ns=limits.heartbeat_interval_ns,
            daemon_version=self._daemon_version,
            daemon_id=self._daemon_id,
            online_readout=_online_readout(session),
            shared_memory=shared,
        )

    async def _read(self, session: Session, context: Any, hold: Hold, conversation: _Conversation) -> None:
        """Take requests until Goodbye or the end of the client's side."""
        recording = self._recordings.get(session.session_id)
        try:
            while True:
                data = await context.read()
                received_ns = time.monotonic_ns()
                if session.hold is not hold:
                    return  # Taken over: these ticks come again, on the other stream.
                request = _request(data)
                if request is None:
                    return
                session.heard_ns = received_ns
                kind = request.WhichOneof("message")
                if kind == "ticks":
                    if self.draining:
                        continue  # After our Goodbye: the client sends them again elsewhere.
                    taken = session.accept(request.ticks, received_ns)
                    if recording is not None:
                        records = session.accepted_records(request.ticks, taken)
                        recording.append(records, rebuild=request.ticks.purpose == pb.PURPOSE_REBUILD)
                    if session.wake.is_set():
                        await asyncio.sleep(0)  # The answers are there: they go out before the next read begins.
                elif kind == "heartbeat":
                    continue
                elif kind == "goodbye":
                    conversation.said_goodbye = True
                    return
                elif kind == "hello":
                    raise faults.out_of_order(
                        "HELLO_TWICE", field="message", value="hello", mend="say Hello once per stream"
                    )
                else:
                    raise faults.invalid(
                        "MESSAGE_EMPTY", field="message", value="nothing", mend="set ticks, heartbeat or goodbye"
                    )
        finally:
            conversation.ended = True
            session.wake.set()

    async def _write(self, session: Session, context: Any, hold: Hold, conversation: _Conversation) -> None:
        """Send answers as they come, until all are sent and no more can come, or the session is taken away."""
        announced = False
        published: int | None = None  # Into its segment, when the end began: all of these are still answered.
        while session.hold is hold:
            if self.draining and not announced:
                announced = True
                goodbye = pb.Goodbye(reason=pb.Goodbye.REASON_DRAINING, message="the daemon is stopping")
                await context.write(pb.StreamPredictionsResponse(goodbye=goodbye))
            messages = session.take_answers()
            for message in messages:
                session.said_ns = time.monotonic_ns()
                await context.write(message)
            if messages:
                continue
            attachment = session.attachment
            if attachment is not None and (conversation.ended or announced):
                published = attachment.published() if published is None else published
                if attachment.answered(published):
                    return
                await asyncio.sleep(_LOOK_S)
                continue
            if session.awaited == 0 and (conversation.ended or announced):
                return
            now_ns = time.monotonic_ns()
            interval_ns = self._table.limits.heartbeat_interval_ns
            if interval_ns and now_ns - session.said_ns > interval_ns:
                session.said_ns = now_ns
                heartbeat = pb.Heartbeat(sent_ns=time.time_ns())
                await context.write(pb.StreamPredictionsResponse(heartbeat=heartbeat))
            await session.wake.wait()
            if session.hold is hold:
                session.wake.clear()

    def _on_closed(self, session: Session) -> None:
        recording = self._recordings.pop(session.session_id, None)
        if recording is not None:
            recording.close()


def _holds(session: Session, hold: Hold) -> bool:
    return not session.closed and session.hold is hold


def _online_readout(session: Session) -> pb.OnlineReadout:
    if not session.online:
        return pb.ONLINE_READOUT_OFF
    return pb.ONLINE_READOUT_LEARNED if session.online_learned else pb.ONLINE_READOUT_COLD


def _request(data: Any) -> pb.StreamPredictionsRequest | None:
    """Return what a client sent, or None for the end of its side.

    Raises:
        SessionFault: it can't be read.
    """
    if data is grpc.aio.EOF:
        return None
    return read_message(pb.StreamPredictionsRequest.FromString, data, "penstock.v1.StreamPredictionsRequest")
