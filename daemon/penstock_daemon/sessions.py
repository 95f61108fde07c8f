"""Sessions: who is connected, which source and states each holds, and where in its sequence it stands.

    sequence of a tick = first_sequence + place in the ring - rebuild ticks       every tick takes one place
    published - released <= in_flight_max                                          unanswered ticks are bounded
    published - slots <= first answer that can be sent again                       what a resume may ask for

A session owns one source of the engine and one state per instrument. It is held by a stream, or lost and kept for the
grace time, or closed; whoever decides the closing frees its states at once, whatever becomes of the stream. A stream
that no longer holds its session touches nothing of it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from penstock.v1 import prediction_pb2 as pb
from penstock.v1.records import PREDICTION_BYTES, TICK_BYTES, TICK_LENGTH_WORDS, TICK_RTYPE, ticks_from_bytes
from penstock.v1.shared_ring import SegmentEnd
from penstock_daemon import engine_memory as memory
from penstock_daemon import faults, rings
from penstock_daemon.engine import Engine
from penstock_daemon.model_table import ModelEntry
from penstock_daemon.shared_memory.attachment import Attachment

ANSWERS_PER_MESSAGE: Final = 4096
FIRST_SEQUENCE_MAX: Final = 2**62  # No session lives long enough to count from here to the end of int64.
_REFUSALS: Final = {
    rings.UNKNOWN_INSTRUMENT: (
        pb.TickError.REASON_UNKNOWN_INSTRUMENT,
        "instrument_id: was {instrument_id}; name it in Hello.instruments",
    ),
    rings.TIME_OUT_OF_RANGE: (
        pb.TickError.REASON_TIME_OUT_OF_RANGE,
        "ts_recv: was {ts_recv}; give the Unix time in nanoseconds at which the tick was received, before the year 2262",
    ),
}
_NO_RECORD: Final = "TickBatch.records"


@dataclass
class Counts:
    """What the sessions of a daemon have had so far, in all; only grows."""

    ticks: dict[str, int] = field(default_factory=lambda: {"realtime": 0, "bulk": 0})  # Accepted, by pace.
    tick_errors: dict[str, int] = field(default_factory=dict)  # Ticks answered by an error, by reason.
    rebuilt_ticks: int = 0
    segments_attached: int = 0
    segments_lost: dict[str, int] = field(
        default_factory=dict
    )  # Ended by the strategy: HUNG_UP, or the name of a SegmentEnd.


class Hold:
    """A stream's hold on its session, until the stream ends or the session is taken away from it.

    Attributes:
        lost: done when the session was taken away, with the status that the stream ends with.
    """

    def __init__(self) -> None:
        self.lost: asyncio.Future[faults.SessionFault] = asyncio.get_running_loop().create_future()

    def lose(self, fault: faults.SessionFault) -> None:
        """Take the session away; the stream ends with *fault*, unless it has ended already."""
        if not self.lost.done():
            self.lost.set_result(fault)


@dataclass(frozen=True)
class Taken:
    """What became of a batch of ticks."""

    ticks: int
    refused: int


class Session:
    """One session's place in its sequence and its ends of the rings."""

    def __init__(
        self,
        engine: Engine,
        model: ModelEntry,
        *,
        session_id: int,
        token: bytes,
        source: int,
        states: Sequence[int],
        hello: pb.Hello,
        counts: Counts,
        online: Sequence[int] = (),
    ) -> None:
        self.session_id = session_id
        self.token = token
        self.source = source
        self.states = tuple(states)
        self.online = tuple(online)  # Online readouts, one per state; empty where the session asked for none.
        self.online_learned = False  # Whether any of them goes on with what was learned before.
        self.model = model
        self._counts = counts  # Of the daemon.
        self.client_name = hello.client_name
        self.bulk = hello.pace == pb.PACE_BULK
        self.instruments = [
            pb.Instrument(
                instrument_id=one.instrument_id,
                dataset=one.dataset,
                symbol=one.symbol,
                size_scale=one.size_scale or 1,
            )
            for one in hello.instruments
        ]
        order = np.argsort([one.instrument_id for one in self.instruments])
        self.ids: NDArray[np.int64] = np.array([self.instruments[index].instrument_id for index in order], np.int64)
        self.id_states: NDArray[np.int64] = np.array([self.states[index] for index in order], np.int64)
        self._engine = engine
        slots = engine.buffers.prediction_slots[source]
        self._answers = slots
        self._answer_bytes = memoryview(slots.view(np.uint8).reshape(-1))
        self.first_sequence = hello.first_sequence
        self.rebuild_ticks = 0  # Accepted to rebuild.
        self.rebuilt_ticks = 0  # Of those, acknowledged.
        self.published = 0  # Ticks put into the ring.
        self.released = 0  # Answers taken out of it; less again after a resume.
        self._released_most = 0  # What comes out again is not counted again.
        self.refused = 0
        self.closed = False
        self.shared = hello.shared_memory  # Ticks to predict and their answers go through a segment alone.
        self.attaching = False
        self.rebuilt_s = 0.0  # Monotonic, of the last rebuild ticks: a strategy attaches after them.
        self.attachment: Attachment | None = None  # While the engine serves the session's ends of the rings.
        self.wake = asyncio.Event()
        self.hold: Hold | None = None  # Of the stream that is attached.
        self.lost_ns = 0
        self.heard_ns = 0
        self.said_ns = 0

    @property
    def next_sequence(self) -> int:
        """The sequence that the next tick to predict must have."""
        return self.first_sequence + self.published - self.rebuild_ticks

    @property
    def unanswered(self) -> int:
        """Ticks whose answers were not yet handed to the transport."""
        return self.published - self.released

    @property
    def awaited(self) -> int:
        """Those that will be handed to the gRPC transport; of a session with shared memory its rebuild ticks alone."""
        return max(self.rebuild_ticks - self.released, 0) if self.shared else self.unanswered

    @property
    def repeated(self) -> int:
        """Answers that will be handed over, and were before."""
        return max(self._released_most - self.released, 0)

    def follow(self) -> None:
        """Note how far the engine has come with the session's segment; without one, nothing has changed."""
        if self.attachment is None:
            return
        released = self._engine.cursor(self.source, memory.PREDICTION_CONSUMED)  # First: never more than published.
        published = self._engine.cursor(self.source, memory.TICK_PUBLISHED)
        self._counts.ticks["bulk" if self.bulk else "realtime"] += published - self.published
        if published > self.published:
            self.heard_ns = time.monotonic_ns()
        self.published, self.released = published, released
        self._released_most = max(self._released_most, released)
        reasons = (pb.TickError.REASON_UNKNOWN_INSTRUMENT, pb.TickError.REASON_TIME_OUT_OF_RANGE)
        for reason, count in zip(reasons, self.attachment.refused(), strict=True):
            if count:
                self.refused += count
                self._count_errors(reason, count)

    async def let_go(self, why: SegmentEnd) -> None:
        """Take the ends of the rings back from the engine, and free the segment; without one, nothing happens."""
        attachment = self.attachment
        if attachment is None:
            return
        await asyncio.shield(attachment.end(why))
        if self.attachment is attachment:
            self.follow()
            self.attachment = None

    def accept(self, batch: pb.TickBatch, received_ns: int) -> Taken:
        """Put a batch's ticks into the ring.

        Args:
            batch: as received.
            received_ns: first stamp, monotonic.

        Raises:
            SessionFault: the batch ends the session; none of its ticks was taken.
        """
        size_bytes = len(batch.records)
        if size_bytes == 0 or size_bytes % TICK_BYTES:
            raise faults.invalid(
                "RECORDS_LENGTH",
                field=_NO_RECORD,
                value=f"{size_bytes} bytes",
                mend=f"send one or more DBN mbp-1 records of {TICK_BYTES} bytes",
            )
        count = size_bytes // TICK_BYTES
        if batch.purpose not in (pb.PURPOSE_UNSPECIFIED, pb.PURPOSE_PREDICT, pb.PURPOSE_REBUILD):
            raise faults.invalid(
                "PURPOSE",
                field="TickBatch.purpose",
                value=batch.purpose,
                mend="use PURPOSE_PREDICT or PURPOSE_REBUILD",
            )
        rebuild = batch.purpose == pb.PURPOSE_REBUILD
        if self.shared and (not rebuild or self.attachment is not None or self.attaching):
            raise faults.out_of_order(
                "TICKS_SHARED",
                field="TickBatch.purpose",
                value="PURPOSE_REBUILD" if rebuild else "PURPOSE_PREDICT",
                mend="write ticks to predict into the segment of Welcome.shared_memory; rebuild before you attach",
            )
        if rebuild and self.published > self.rebuild_ticks:
            raise faults.out_of_order(
                "REBUILD_TOO_LATE",
                field="TickBatch.purpose",
                value="PURPOSE_REBUILD",
                mend="send rebuild ticks before the first tick to predict",
            )
        if not rebuild and batch.first_sequence != self.next_sequence:
            raise faults.out_of_order(
                "SEQUENCE_GAP",
                field="TickBatch.first_sequence",
                value=batch.first_sequence,
                mend=f"number ticks without gaps; the next one is {self.next_sequence}",
            )
        in_flight_max = self._engine.sizes.slots
        if self.unanswered + count > in_flight_max:
            raise faults.exhausted(
                "IN_FLIGHT",
                field=_NO_RECORD,
                value=f"{self.unanswered + count} unanswered ticks",
                mend=f"wait for answers: Welcome.in_flight_max is {in_flight_max}",
            )
        records = ticks_from_bytes(batch.records)
        refused = self._engine.publish_ticks(
            self.source,
            records,
            self.next_sequence,
            rebuild,
            self.ids,
            self.id_states,
            received_ns,
            assist=True,
        )
        if refused <= rings.MALFORMED:
            raise self._malformed(records, rings.MALFORMED - refused)
        assert refused != rings.NO_SLOT, "in_flight_max leaves room in the ring"
        self.published += count
        if self._engine.assisted:
            self.wake.set()
        if rebuild:
            self.rebuild_ticks += count
            self.rebuilt_s = time.monotonic()
        else:
            self._counts.ticks["bulk" if self.bulk else "realtime"] += count
        self.refused += refused
        return Taken(count, refused)

    def accepted_records(self, batch: pb.TickBatch, taken: Taken) -> bytes:
        """Return the records of a batch that were not refused, for the recorder."""
        if not taken.refused:
            return batch.records
        records = ticks_from_bytes(batch.records)
        return records[np.isin(records["instrument_id"], self.ids) & (records["ts_recv"] < rings.TIME_END)].tobytes()

    def take_answers(self) -> list[pb.StreamPredictionsResponse]:
        """Take all that is ready out of the ring, as messages in order; mostly none or one."""
        messages: list[pb.StreamPredictionsResponse] = []
        while True:
            limit = self.rebuild_ticks - self.released if self.shared else ANSWERS_PER_MESSAGE
            if limit <= 0:
                return messages  # The engine gives them to the segment.
            place, count, special = self._engine.answers(self.source, min(limit, ANSWERS_PER_MESSAGE))
            if count == 0:
                return messages
            errors: list[pb.TickError] = []
            repeated = min(self._released_most - self.released, count)
            if special:
                records, errors, rebuilt = self._sorted_out(place, count, repeated)
                self.rebuilt_ticks += rebuilt
                self._counts.rebuilt_ticks += rebuilt
                if rebuilt:
                    progress = pb.RebuildProgress(ticks=self.rebuilt_ticks)
                    messages.append(pb.StreamPredictionsResponse(rebuild_progress=progress))
            else:
                records = bytes(self._answer_bytes[place * PREDICTION_BYTES : (place + count) * PREDICTION_BYTES])
            handed_ns = self._engine.release_answers(self.source, memory.PATH_GRPC, self.bulk, count, repeated=repeated)
            self.released += count
            self._released_most = max(self._released_most, self.released)
            if records or errors:
                batch = pb.PredictionBatch(
                    records=records, errors=errors, sent_ns=handed_ns + self._engine.unix_offset_ns
                )
                messages.append(pb.StreamPredictionsResponse(predictions=batch))
            if self.released == self.published:
                return messages  # No tick is left that an answer could be there for.

    def rewind(self, next_prediction_sequence: int) -> bool:
        """Go back to the first answer that a resumed client has not received.

        Returns:
            False where the ring no longer holds it: the session can't be resumed.

        Raises:
            SessionFault: the client claims answers that it was never sent.
        """
        position = next_prediction_sequence - self.first_sequence + self.rebuild_ticks
        # Rebuild ticks come first: while they are taken in, no answer was given, and none is missing.
        if next_prediction_sequence < self.first_sequence or position > max(self.released, self.rebuild_ticks):
            raise faults.invalid(
                "RESUME_POSITION",
                field="Hello.next_prediction_sequence",
                value=next_prediction_sequence,
                mend=f"give the first sequence whose answer is missing, {self.first_sequence} to "
                f"{self.first_sequence + max(self.released - self.rebuild_ticks, 0)}",
            )
        if position < self.published - self._engine.sizes.slots:
            return False
        if position > self.released:
            return True
        self._engine.rewind_answers(self.source, position)
        self.released = position
        return True

    def same_instruments(self, hello: pb.Hello) -> bool:
        """Return whether *hello* names the instruments of this session."""
        mine = {(one.instrument_id, one.dataset, one.symbol, one.size_scale) for one in self.instruments}
        theirs = {(one.instrument_id, one.dataset, one.symbol, one.size_scale or 1) for one in hello.instruments}
        return mine == theirs

    def _malformed(self, records: NDArray[np.void], index: int) -> faults.SessionFault:
        record = records[index]
        name, found, wanted = (
            ("rtype", int(record["rtype"]), TICK_RTYPE)
            if record["rtype"] != TICK_RTYPE
            else ("length", int(record["length"]), TICK_LENGTH_WORDS)
        )
        return faults.invalid(
            "RECORD_MALFORMED",
            field=f"TickBatch.records[{index}].{name}",
            value=found,
            mend=f"send DBN mbp-1 records alone, whose {name} is {wanted}",
        )

    def _count_errors(self, reason: pb.TickError.Reason, count: int) -> None:
        name = pb.TickError.Reason.Name(reason).removeprefix("REASON_")
        self._counts.tick_errors[name] = self._counts.tick_errors.get(name, 0) + count

    def _sorted_out(self, place: int, count: int, repeated: int) -> tuple[bytes, list[pb.TickError], int]:
        """Split answers into prediction bytes, errors, and how many rebuild ticks were taken in.

        Args:
            place: in the ring, of the first.
            count: how many.
            repeated: how many of them, from the first on, were taken out and counted before.
        """
        answers = self._answers[place : place + count]
        flags = answers["flags"]
        refused = (flags & np.uint32(memory.ANSWER_REFUSED)) != 0
        rebuilt = (flags & np.uint32(memory.ANSWER_REBUILT)) != 0
        rebuild_errors = 0
        errors = []
        first_rebuild = self.rebuild_ticks - self.released  # Places before this one are rebuild ticks.
        for index in np.flatnonzero(refused):
            if index < first_rebuild:
                rebuild_errors += 1  # A rebuild tick that nobody can use still counts as taken in.
                continue
            answer = answers[index]
            reason, sentence = _REFUSALS[int(answer["horizons"])]
            message = sentence.format(instrument_id=int(answer["instrument_id"]), ts_recv=int(answer["ts_recv"]))
            if index >= repeated:
                self._count_errors(reason, 1)
            errors.append(pb.TickError(sequence=int(answer["sequence"]), reason=reason, message=message))
        return answers[~(refused | rebuilt)].tobytes(), errors, int(rebuilt.sum()) + rebuild_errors
