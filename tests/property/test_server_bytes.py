"""Whatever bytes a client sends: a documented status for it, predictions for everybody else."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from penstock.v1 import prediction_pb2 as pb
from penstock.v1.records import HORIZONS_MAX, TICK_BYTES, predictions_from_bytes
from support.daemon import RunningDaemon, running_daemon, small
from support.raw_stream import RawStream, StreamEndError, hello, instruments
from support.tick_arrays import odd_ticks, quotes

FUZZ = settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module")
def documented(repository_root: Path) -> set[tuple[str, str]]:
    """Give every (status, reason) of docs/bad-input.md."""
    page = (repository_root / "docs" / "bad-input.md").read_text(encoding="utf-8")
    found, code = set(), ""
    for row in re.findall(r"^\| *([A-Z_]*) *\| *`([A-Z_]+)` *\|", page, re.MULTILINE):
        code = row[0] or code
        found.add((code, row[1]))
    return found


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningDaemon]:
    folder = tmp_path_factory.mktemp("bytes")
    with running_daemon(
        folder, *small(folder, "server.message_bytes_max=65536", "record.folder=" + str(folder / "r"))
    ) as one:
        yield one


@pytest.fixture(scope="module")
def witness(daemon: RunningDaemon) -> Iterator[RawStream]:
    """Give a session that lives through all of it."""
    with RawStream(daemon.address) as stream:
        stream.hello(client_name="witness")
        yield stream
        stream.goodbye()
        assert stream.end().code == "OK"


def check(end: StreamEndError, documented: set[tuple[str, str]]) -> None:
    """Assert that *end* is one that the page names, with a sentence that names the field and the mend."""
    if end.code == "OK":
        return
    assert (end.code, end.reason) in documented, end
    assert end.message.startswith(f"{end.field}: ")
    assert end.mend
    assert end.message.endswith(end.mend)


def check_witness(witness: RawStream) -> None:
    """Assert that the other session goes on."""
    witness.ticks(quotes(3))
    sequences = witness.predictions(3)["sequence"]
    assert sequences.tolist() == list(range(witness.next_sequence - 3, witness.next_sequence))


def converse(daemon: RunningDaemon, *messages: bytes) -> tuple[StreamEndError, list[pb.StreamPredictionsResponse]]:
    """Send *messages* and the end of them; return how the stream ended, and what came."""
    came = []
    with RawStream(daemon.address) as stream:
        for message in messages:
            stream.send_bytes(message)
        stream.half_close()
        try:
            came.extend(stream.messages())
        except StreamEndError as end:
            return end, came
        return stream.end(), came


def request(**message: Any) -> bytes:
    return pb.StreamPredictionsRequest(**message).SerializeToString()


TEXT = st.text(max_size=70) | st.just("x" * 65)
NUMBER = st.sampled_from([0, 1, 2, 2**31, 2**32 - 1])
LARGE = st.sampled_from([0, 1, 2**62, 2**62 + 1, 2**63, 2**64 - 1]) | st.integers(0, 2**64 - 1)
INSTRUMENT = st.builds(pb.Instrument, instrument_id=NUMBER, dataset=TEXT, symbol=TEXT, size_scale=LARGE)
HELLO = st.builds(
    pb.Hello,
    protocol_version=st.just(1) | NUMBER,
    client_name=TEXT,
    model=st.just("") | TEXT,
    instruments=st.lists(INSTRUMENT, max_size=4) | st.just(instruments(1, 2)) | st.just(instruments(*range(40))),
    pace=st.integers(-1, 3),
    resume_token=st.binary(max_size=70),
    first_sequence=LARGE,
    next_prediction_sequence=LARGE,
)
RECORDS = st.one_of(
    st.binary(max_size=200),
    st.integers(0, 3).flatmap(lambda count: st.binary(min_size=count * TICK_BYTES, max_size=count * TICK_BYTES)),
    odd_ticks(max_size=20).map(lambda ticks: ticks.tobytes()),
    st.builds(lambda head, tail: head.tobytes() + tail, odd_ticks(max_size=4), st.binary(max_size=90)),
)
BATCH = st.builds(
    pb.TickBatch, records=RECORDS, first_sequence=st.sampled_from([0, 1, 2**64 - 1]), purpose=st.integers(-1, 3)
)


@FUZZ
@given(data=st.binary(max_size=300), after_hello=st.booleans())
def test_random_bytes_get_a_documented_status(
    daemon: RunningDaemon, witness: RawStream, documented: set[tuple[str, str]], data: bytes, after_hello: bool
) -> None:
    end, _ = converse(daemon, *([request(hello=hello())] if after_hello else []), data)
    check(end, documented)
    check_witness(witness)


@FUZZ
@given(said=HELLO)
def test_random_hello_gets_welcome_or_a_documented_status(
    daemon: RunningDaemon, witness: RawStream, documented: set[tuple[str, str]], said: pb.Hello
) -> None:
    end, came = converse(daemon, request(hello=said))
    check(end, documented)
    if end.code == "OK":
        (welcome,) = (response.welcome for response in came)
        assert welcome.next_sequence == said.first_sequence
        assert [one.size_scale for one in welcome.instruments] == [one.size_scale or 1 for one in said.instruments]
    check_witness(witness)


@FUZZ
@given(batches=st.lists(BATCH, min_size=1, max_size=4))
def test_random_batches_get_their_answers_or_a_documented_status(
    daemon: RunningDaemon, witness: RawStream, documented: set[tuple[str, str]], batches: list[pb.TickBatch]
) -> None:
    end, came = converse(
        daemon,
        request(hello=hello(instruments=instruments(0, 1, 2, 3))),
        *(request(ticks=batch) for batch in batches),
        request(goodbye=pb.Goodbye()),
    )
    check(end, documented)
    answered = sum(len(one.predictions.records) // 128 + len(one.predictions.errors) for one in came)
    rebuilt = max((one.rebuild_progress.ticks for one in came), default=0)
    if end.code == "OK":
        assert answered + rebuilt == sum(len(batch.records) // TICK_BYTES for batch in batches)
    check_witness(witness)


@FUZZ
@given(ticks=odd_ticks(max_size=40))
def test_any_sound_tick_gets_numbers_that_can_be_used(
    daemon: RunningDaemon, witness: RawStream, ticks: np.ndarray
) -> None:
    assume(len(ticks))
    batch = pb.TickBatch(records=ticks.tobytes())
    end, came = converse(
        daemon,
        request(hello=hello(instruments=instruments(0, 1, 2, 3))),
        request(ticks=batch),
        request(goodbye=pb.Goodbye()),
    )
    assert end.code == "OK"
    predictions = predictions_from_bytes(b"".join(one.predictions.records for one in came))
    assert len(predictions) == len(ticks)
    forecasts = predictions["forecasts"]
    assert forecasts.shape[1] == HORIZONS_MAX
    assert np.isfinite(forecasts["expected_return"]).all()
    assert (forecasts["deviation"] >= 0).all()
    assert np.isfinite(forecasts["deviation"]).all()
    assert (forecasts["probability_up"].astype(int) + forecasts["probability_down"] <= 65535).all()
    check_witness(witness)


def test_flood_of_garbage_leaves_nothing_behind(daemon: RunningDaemon, witness: RawStream) -> None:
    """More refusals than there are sessions: each gives back what it took."""
    for _ in range(40):
        with RawStream(daemon.address) as stream:
            stream.hello()
            stream.send(ticks=pb.TickBatch(records=b"x" * 81))
            assert stream.end().reason == "RECORDS_LENGTH"
    check_witness(witness)
    assert daemon.process.poll() is None
