"""The pools of sources and states, when tasks are cancelled or overtaken between two steps: nothing is lost or given twice."""

from __future__ import annotations

import asyncio
import gc
import socket
import time
import weakref
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio

from penstock.v1 import prediction_pb2 as pb
from penstock.v1.records import predictions_from_bytes
from penstock.v1.shared_ring import SegmentEnd
from penstock_daemon import faults
from penstock_daemon.engine import Engine, EngineSettings
from penstock_daemon.engine_sizes import EngineSizes
from penstock_daemon.loop_link import LoopLink
from penstock_daemon.model_table import ModelTable
from penstock_daemon.online_table import OnlineTable
from penstock_daemon.session_table import SessionLimits, SessionTable
from penstock_daemon.sessions import Hold, Session
from penstock_daemon.shared_memory.attachment import Attachment
from penstock_daemon.shared_memory.attachments import Attachments
from penstock_daemon.shared_memory.segment import Segment
from penstock_kernels.model_file import load_model
from support.client_runs import until
from support.daemon import small_model
from support.raw_stream import hello, instruments
from support.tick_arrays import quotes

SIZES = EngineSizes(sources=4, slots=64, states=7, model_slots=3, units_max=64, journal_ticks=64, segment_instruments=3)
LIMITS = SessionLimits(sessions_max=3, resumable_max=3, resume_grace_ns=10**15)


class GatedLink(LoopLink):
    """A link whose news of applied commands can be held back."""

    gate: asyncio.Event

    async def applied(self, commands: int) -> None:
        """Wait for the gate, then for the engine."""
        await self.gate.wait()
        await super().applied(commands)


class Table(SessionTable):
    """A table with what the tests look at."""

    engine: Engine
    link: GatedLink
    models: ModelTable

    def free(self) -> tuple[int, int]:
        """Return how many sources and states are free; none of them twice."""
        assert len(set(self._free_sources)) == len(self._free_sources)
        assert len(set(self._free_states)) == len(self._free_states)
        return len(self._free_sources), len(self._free_states)


@pytest_asyncio.fixture
async def table(tmp_path: Path) -> AsyncIterator[Table]:
    engine = Engine(SIZES, EngineSettings())
    models = ModelTable(engine, "")
    models.load_first(str(small_model(tmp_path, 1)))
    models.place(load_model(small_model(tmp_path, 2)))
    engine.compile()
    engine.start()
    link = GatedLink(engine, asyncio.get_running_loop())
    link.gate = asyncio.Event()
    link.gate.set()
    table = Table(engine, link, models, OnlineTable(engine, None), LIMITS)
    table.engine, table.link, table.models = engine, link, models
    yield table
    for session in table.sessions:
        await table.close(session)
    assert table.free() == (3, 6), "all came back"
    assert [entry.sessions for entry in models.entries] == [0, 0]
    link.close()
    engine.stop()
    engine.close()


async def attached(table: Table, **changes: object) -> Session:
    """Open a session, attach it, and give it a tick, so that it is worth keeping."""
    session, _ = await table.open(hello(**changes))
    table.attach(session, Hold())
    if session.published == 0:
        session.accept(pb.TickBatch(first_sequence=session.first_sequence, records=quotes(1).tobytes()), 1)
    return session


async def lost(table: Table, **changes: object) -> Session:
    session = await attached(table, **changes)
    assert table.detach(session)
    await asyncio.sleep(0.001)  # So that the next one is lost later.
    return session


async def turns(count: int = 5) -> None:
    """Let other tasks run."""
    for _ in range(count):
        await asyncio.sleep(0)


async def test_close_that_is_cancelled_still_gives_everything_back(table: Table) -> None:
    session = await attached(table, instruments=instruments(1, 2, 3))
    assert table.free() == (2, 3)
    table.link.gate.clear()
    closing = asyncio.create_task(table.close(session))
    await turns()
    closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing
    assert table.free() == (2, 3)
    table.link.gate.set()
    await until(lambda: table.free() == (3, 6))


async def test_open_that_is_cancelled_gives_everything_back(table: Table) -> None:
    table.link.gate.clear()
    opening = asyncio.create_task(table.open(hello(instruments=instruments(1, 2))))
    await turns()
    assert table.free() == (2, 4)
    opening.cancel()
    table.link.gate.set()
    with pytest.raises(asyncio.CancelledError):
        await opening
    await until(lambda: table.free() == (3, 6))
    assert table.sessions == []


async def test_grace_ends_for_who_is_lost_and_for_nobody_else(table: Table) -> None:
    living, oldest, resumed = await attached(table), await lost(table), await lost(table)
    table.link.gate.clear()
    oldest.lost_ns = resumed.lost_ns = 1  # Both long over their grace.
    _, origin = await table.open(hello(resume_token=resumed.token))
    table.attach(resumed, Hold())
    table.expire(time.monotonic_ns() + LIMITS.resume_grace_ns)
    assert origin == pb.STATE_ORIGIN_RESUMED
    assert [one.closed for one in (living, oldest, resumed)] == [False, True, False]
    table.link.gate.set()


async def test_place_that_is_about_to_be_free_is_waited_for(table: Table) -> None:
    sessions = [await attached(table, instruments=instruments(1, 2)) for _ in range(3)]
    table.link.gate.clear()
    closing = asyncio.create_task(table.close(sessions[1]))
    opening = asyncio.create_task(table.open(hello(instruments=instruments(1, 2))))
    await turns()
    assert not opening.done()
    table.link.gate.set()
    await closing
    session, _ = await opening
    assert session.source == sessions[1].source


async def test_swap_leaves_alone_what_closed_while_another_moved(table: Table) -> None:
    first, second = await attached(table), await attached(table)
    old, new = first.model, table.models.entries[1]
    table.link.gate.clear()
    swapping = asyncio.create_task(table.switch_model(table.check_switch(new), new))
    await turns()
    closing = asyncio.create_task(table.close(second))
    await turns()
    table.link.gate.set()
    assert await swapping == 1
    await closing
    assert (first.model, second.model) == (new, old)
    assert (new.sessions, old.sessions) == (1, 0)
    third = await attached(table)
    assert third.source == second.source
    deadline_s = time.monotonic() + 60
    while not (messages := third.take_answers()):
        assert time.monotonic() < deadline_s, "its source is not held"
        await asyncio.sleep(0.001)
    assert messages[0].predictions.records[28:32] == old.serial.to_bytes(4, "little")


async def test_last_place_goes_to_one_of_two(table: Table) -> None:
    await attached(table)
    await attached(table)
    oldest = await lost(table)
    results = await asyncio.gather(attached(table), attached(table), return_exceptions=True)
    (refusal,) = (one for one in results if isinstance(one, faults.SessionFault))
    assert refusal.reason == "SESSIONS"
    assert oldest.closed
    assert table.free()[0] == 0


async def test_nothing_gives_way_for_a_session_that_finds_no_room_anyway(table: Table) -> None:
    await attached(table, instruments=instruments(1, 2, 3, 4))
    kept = await lost(table)
    for refused, reason in (
        (hello(instruments=instruments(*range(1, 5))), "STATES"),
        (hello(model="x"), "MODEL_UNKNOWN"),
    ):
        with pytest.raises(faults.SessionFault) as refusal:
            await table.open(refused)
        assert refusal.value.reason == reason
    assert not kept.closed


async def test_session_lost_before_any_answer_was_taken_resumes(table: Table) -> None:
    """Rebuild ticks and a first tick are in, and nothing of them was acknowledged yet."""
    session, _ = await table.open(hello(first_sequence=100))
    table.attach(session, Hold())
    session.accept(pb.TickBatch(records=quotes(5).tobytes(), purpose=pb.PURPOSE_REBUILD), 1)
    session.accept(pb.TickBatch(records=quotes(2).tobytes(), first_sequence=100), 1)
    assert table.detach(session)
    with pytest.raises(faults.SessionFault) as refusal:
        await table.open(hello(resume_token=session.token, next_prediction_sequence=101))
    assert refusal.value.reason == "RESUME_POSITION"
    again, origin = await table.open(hello(resume_token=session.token, next_prediction_sequence=100))
    assert (again, origin, again.next_sequence) == (session, pb.STATE_ORIGIN_RESUMED, 102)
    assert await answers_of(session, 2) == [100, 101]
    assert session.rebuilt_ticks == 5


async def answers_of(session: Session, count: int) -> list[int]:
    """Return the sequences of the next *count* predictions."""
    found: list[int] = []
    deadline_s = time.monotonic() + 60
    while len(found) < count:
        assert time.monotonic() < deadline_s
        for message in session.take_answers():
            found += predictions_from_bytes(message.predictions.records)["sequence"].tolist()
        await asyncio.sleep(0.001)
    return found


async def test_stream_that_is_overtaken_hears_so_and_loses_its_hold(table: Table) -> None:
    session = await attached(table)
    before = session.hold
    again, _ = await table.open(hello(resume_token=session.token))
    now = Hold()
    table.attach(again, now)
    assert before.lost.result().reason == "TAKEN_OVER"
    assert session.hold is now
    assert not now.lost.done()


async def test_closing_a_session_ends_the_stream_that_holds_it(table: Table) -> None:
    session = await attached(table)
    hold = session.hold
    await table.close(session)
    assert hold.lost.done()
    assert session.hold is None
    await table.close(session)  # A second time is nothing.
    assert table.free() == (3, 6)


async def test_hellos_at_the_same_time_get_no_segment_too_many(table: Table) -> None:
    table.limits = replace(LIMITS, segments_max=1)

    async def held() -> Session:
        session, _ = await table.open(hello(shared_memory=True))
        table.attach(session, Hold())
        return session

    ends = await asyncio.gather(held(), held(), return_exceptions=True)
    assert {type(end) for end in ends} == {Session, faults.SessionFault}
    await table.close(next(end for end in ends if isinstance(end, Session)))
    assert isinstance(await held(), Session), "what was asked for is given back"


async def test_tokens_of_sessions_that_never_attach_are_forgotten(table: Table) -> None:
    table.limits = replace(LIMITS, segments_max=1)
    attachments = Attachments(
        table.engine, table.link, address="", slots=64, timeout_s=60.0, lock=False, counts=table.counts
    )
    kept = []
    for _ in range(5):
        session, _ = await table.open(hello(shared_memory=True))
        hold = Hold()
        table.attach(session, hold)
        attachments.offer(session, hold)
        kept.append(weakref.ref(session))
        await table.close(session)
    del session
    gc.collect()
    assert sum(one() is not None for one in kept) <= 1, "the last one at the most"


async def test_what_a_segment_says_is_not_looked_at_once_it_is_given_up(table: Table) -> None:
    session = await attached(table)
    segment = Segment(1 << 17, session_id=1, first_sequence=0, lock=False)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    attachment = Attachment(table.engine, table.link, session.source, segment, ours, lambda: None)
    with theirs:
        await attachment.begin(session.ids, session.id_states, repeated=0)
        assert attachment.published() == 0
        freed = attachment.end(SegmentEnd.CLOSED)
        while not freed.done():
            assert attachment.published() == 0
            await asyncio.sleep(0)
        assert attachment.published() == 0, "its memory is somebody else's by now"
        assert theirs.recv(1) == b""
