"""Sessions that are refused: each with its status, reason, sentence and mend, and without an effect on another one."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import numpy as np
import pytest

from penstock.v1 import prediction_pb2 as pb
from support.daemon import RunningDaemon, running_daemon, small
from support.raw_stream import METHOD, RawStream, StreamEndError, end_of, hello, instruments, run_through
from support.scrape import scrape
from support.tick_arrays import quotes

MESSAGE_BYTES_MAX = 65_536
TICKS = quotes(400)


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningDaemon]:
    folder = tmp_path_factory.mktemp("refused")
    sets = (
        "sessions.max=4",
        "sessions.instruments_max=6",
        "sessions.states_max=10",
        "sessions.hello_timeout_s=3",
        f"server.message_bytes_max={MESSAGE_BYTES_MAX}",
        "metrics.address=127.0.0.1:0",
    )
    with running_daemon(folder, *small(folder, *sets)) as daemon:
        yield daemon


@pytest.fixture(scope="module")
def witness(daemon: RunningDaemon) -> Iterator[RawStream]:
    """A session that lives through every refusal."""
    with RawStream(daemon.address) as stream:
        stream.hello(client_name="witness")
        yield stream
        stream.goodbye()
        assert stream.end().code == "OK"


def batch(records: bytes = TICKS[:1].tobytes(), **changes: int) -> dict[str, pb.TickBatch]:
    return {"ticks": pb.TickBatch(records=records, **changes)}


def malformed(index: int, **changes: int) -> bytes:
    ticks = TICKS[:5].copy()
    for name, value in changes.items():
        ticks[name][index] = value
    return ticks.tobytes()


def named(*symbols: str) -> list[pb.Instrument]:
    return [pb.Instrument(instrument_id=index, symbol=symbol) for index, symbol in enumerate(symbols)]


def greeted(**changes: object) -> Callable[[RawStream], None]:
    return lambda stream: stream.send(hello=hello(**changes))


def after_hello(*messages: dict) -> Callable[[RawStream], None]:
    def say(stream: RawStream) -> None:
        stream.hello()
        for message in messages:
            stream.send(**message)

    return say


REFUSALS = {
    "nothing-said": (lambda _: None, "FAILED_PRECONDITION HELLO_TIMEOUT", "hello: was nothing for 3.0 s; send Hello first"),
    "ticks-first": (lambda stream: stream.send(**batch()), "FAILED_PRECONDITION HELLO_MISSING", "message: was ticks; send Hello first"),
    "closed-at-once": (RawStream.half_close, "FAILED_PRECONDITION HELLO_MISSING", "message: was nothing; send Hello first"),
    "hello-twice": (after_hello({"hello": hello()}), "FAILED_PRECONDITION HELLO_TWICE", "message: was hello; say Hello once per stream"),
    "old-protocol": (greeted(protocol_version=0), "FAILED_PRECONDITION PROTOCOL_VERSION", "Hello.protocol_version: was 0; this daemon speaks version 1"),
    "new-protocol": (greeted(protocol_version=2), "FAILED_PRECONDITION PROTOCOL_VERSION", "Hello.protocol_version: was 2; this daemon speaks version 1"),
    "no-instruments": (greeted(instruments=[]), "INVALID_ARGUMENT INSTRUMENTS_EMPTY", "Hello.instruments: was empty; name the instruments of your ticks"),
    "too-many-instruments": (greeted(instruments=instruments(*range(7))), "RESOURCE_EXHAUSTED INSTRUMENTS", "Hello.instruments: was 7 instruments; name 6 at most, or raise sessions.instruments_max"),
    "instrument-twice": (greeted(instruments=[*instruments(1, 2), pb.Instrument(instrument_id=2, symbol="X")]), "INVALID_ARGUMENT INSTRUMENT_TWICE", "Hello.instruments[2].instrument_id: was 2; give each id once"),
    "symbol-twice": (greeted(instruments=named("A", "A")), "INVALID_ARGUMENT SYMBOL_TWICE", "Hello.instruments[1].symbol: was A; name each dataset and symbol once"),
    "symbol-empty": (greeted(instruments=named("")), "INVALID_ARGUMENT SYMBOL", "Hello.instruments[0].symbol: give 1 to 64 characters"),
    "symbol-long": (greeted(instruments=named("A" * 65)), "INVALID_ARGUMENT SYMBOL", "Hello.instruments[0].symbol: was " + "A" * 65 + "; give 1 to 64 characters"),
    "name-long": (greeted(client_name="n" * 200), "INVALID_ARGUMENT CLIENT_NAME", "Hello.client_name: was " + "n" * 119 + "…; use 64 characters at most"),
    "pace": (greeted(pace=9), "INVALID_ARGUMENT PACE", "Hello.pace: was 9; use PACE_REALTIME or PACE_BULK"),
    "token-long": (greeted(resume_token=b"t" * 65), "INVALID_ARGUMENT RESUME_TOKEN", "Hello.resume_token: was 65 bytes; give the token of Welcome or Goodbye, or none"),
    "first-sequence": (greeted(first_sequence=2**62 + 1), "INVALID_ARGUMENT FIRST_SEQUENCE", "Hello.first_sequence: was 4611686018427387905; number ticks from 4611686018427387904 at most"),
    "unknown-model": (greeted(model="nobody"), "NOT_FOUND MODEL_UNKNOWN", "Hello.model: was nobody; loaded models are random-1; leave it empty for the active one"),
    "no-states": (greeted(instruments=instruments(*range(6))), "RESOURCE_EXHAUSTED STATES", "Hello.instruments: was 6 instruments; 3 states are free; name fewer, or raise sessions.states_max"),
    "empty-message": (after_hello({}), "INVALID_ARGUMENT MESSAGE_EMPTY", "message: was nothing; set ticks, heartbeat or goodbye"),
    "garbage": (lambda stream: stream.send_bytes(b"\xff" * 9), "INVALID_ARGUMENT MESSAGE_UNREADABLE", "message: was 9 bytes; send a penstock.v1.StreamPredictionsRequest"),
    "no-records": (after_hello(batch(b"")), "INVALID_ARGUMENT RECORDS_LENGTH", "TickBatch.records: was 0 bytes; send one or more DBN mbp-1 records of 80 bytes"),
    "part-of-a-record": (after_hello(batch(TICKS[:2].tobytes()[:-1])), "INVALID_ARGUMENT RECORDS_LENGTH", "TickBatch.records: was 159 bytes; send one or more DBN mbp-1 records of 80 bytes"),
    "rtype": (after_hello(batch(malformed(3, rtype=0))), "INVALID_ARGUMENT RECORD_MALFORMED", "TickBatch.records[3].rtype: was 0; send DBN mbp-1 records alone, whose rtype is 1"),
    "length": (after_hello(batch(malformed(4, length=21))), "INVALID_ARGUMENT RECORD_MALFORMED", "TickBatch.records[4].length: was 21; send DBN mbp-1 records alone, whose length is 20"),
    "purpose": (after_hello(batch(purpose=3)), "INVALID_ARGUMENT PURPOSE", "TickBatch.purpose: was 3; use PURPOSE_PREDICT or PURPOSE_REBUILD"),
    "gap": (after_hello(batch(), batch(first_sequence=2)), "FAILED_PRECONDITION SEQUENCE_GAP", "TickBatch.first_sequence: was 2; number ticks without gaps; the next one is 1"),
    "again": (after_hello(batch(), batch(first_sequence=0)), "FAILED_PRECONDITION SEQUENCE_GAP", "TickBatch.first_sequence: was 0; number ticks without gaps; the next one is 1"),
    "rebuild-late": (after_hello(batch(), batch(purpose=pb.PURPOSE_REBUILD)), "FAILED_PRECONDITION REBUILD_TOO_LATE", "TickBatch.purpose: was PURPOSE_REBUILD; send rebuild ticks before the first tick to predict"),
    "flood": (after_hello(batch(TICKS[:257].tobytes())), "RESOURCE_EXHAUSTED IN_FLIGHT", "TickBatch.records: was 257 unanswered ticks; wait for answers: Welcome.in_flight_max is 256"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSALS)
def test_refusal_names_field_value_and_mend(daemon: RunningDaemon, witness: RawStream, case: str) -> None:
    say, status, sentence = REFUSALS[case]
    before = scrape(daemon)
    with contextlib.ExitStack() as entered:
        if case == "no-states":
            entered.enter_context(RawStream(daemon.address)).hello(instruments=instruments(*range(6)))
        stream = entered.enter_context(RawStream(daemon.address))
        say(stream)
        end = stream.end()
        assert f"{end.code} {end.reason}" == status
        assert end.message == sentence
        after = scrape(daemon)
        assert after["penstock_sessions"] == before["penstock_sessions"] + (case == "no-states")
    counted = f'penstock_refusals_total{{reason="{end.reason}"}}'
    assert after[counted] == before.get(counted, 0) + 1
    assert len(run_through(witness, quotes(20, seed=5))) == 20


def test_nothing_of_a_malformed_batch_is_taken(daemon: RunningDaemon) -> None:
    with RawStream(daemon.address) as stream:
        stream.hello()
        stream.ticks(TICKS[:3])
        stream.send(ticks=pb.TickBatch(first_sequence=3, records=malformed(4, rtype=32)))
        assert stream.end().reason == "RECORD_MALFORMED"
    with RawStream(daemon.address) as stream:  # The refused session is gone, whatever was answered.
        assert stream.hello(resume_token=stream.welcome.resume_token).state_origin == pb.STATE_ORIGIN_COLD


def test_oversize_message_ends_its_own_stream_alone(daemon: RunningDaemon, witness: RawStream) -> None:
    with RawStream(daemon.address) as stream:
        stream.hello()
        stream.send_bytes(b"x" * (MESSAGE_BYTES_MAX + 1))
        end = stream.end()
    assert end.code == "RESOURCE_EXHAUSTED"
    assert "larger than max (65537 vs. 65536)" in end.message
    assert len(run_through(witness, quotes(20, seed=6))) == 20


def test_flood_of_hellos_is_refused_beyond_the_bound_and_leaves_room_after(
    daemon: RunningDaemon, witness: RawStream
) -> None:
    streams = [RawStream(daemon.address) for _ in range(30)]
    for stream in streams:
        stream.send(hello=hello())
    ends = []
    for stream in streams:
        try:
            stream.receive("welcome")
        except StreamEndError as end:
            ends.append(f"{end.code} {end.reason} {end.message}")
    sentence = "sessions.max: was 4; every session is in use; close one, raise sessions.max, or ask another daemon"
    assert ends == [f"RESOURCE_EXHAUSTED SESSIONS {sentence}"] * 27, "three found room beside the witness"
    for stream in streams:
        stream.close()
    for _ in range(4):
        with RawStream(daemon.address) as stream:
            welcome = hello_when_free(daemon, stream)
            assert welcome.session_id > 0
            stream.goodbye()
            assert stream.end().code == "OK"
    assert len(run_through(witness, quotes(20, seed=7))) == 20


def hello_when_free(daemon: RunningDaemon, stream: RawStream) -> pb.Welcome:
    """Say Hello once the daemon has noticed that others are gone."""
    while True:
        if scrape(daemon)["penstock_sessions"] < 4:
            return stream.hello()


def test_ticks_that_cannot_be_predicted_get_errors_in_their_place(daemon: RunningDaemon) -> None:
    ticks = quotes(10)
    ticks["instrument_id"][2] = 4_000_000_000
    ticks["ts_recv"][5] = 2**64 - 1
    before = scrape(daemon)
    with RawStream(daemon.address) as stream:
        stream.hello()
        stream.ticks(ticks)
        predictions = stream.predictions(10)
        stream.goodbye()
        assert stream.end().code == "OK"
    assert predictions["sequence"].tolist() == [0, 1, 3, 4, 6, 7, 8, 9]
    first, second = stream.errors
    assert (first.sequence, first.reason) == (2, pb.TickError.REASON_UNKNOWN_INSTRUMENT)
    assert first.message == "instrument_id: was 4000000000; name it in Hello.instruments"
    assert (second.sequence, second.reason) == (5, pb.TickError.REASON_TIME_OUT_OF_RANGE)
    assert second.message.startswith("ts_recv: was 18446744073709551615; give the Unix time in nanoseconds")
    after = scrape(daemon)
    for reason in ("UNKNOWN_INSTRUMENT", "TIME_OUT_OF_RANGE"):
        counted = f'penstock_tick_errors_total{{reason="{reason}"}}'
        assert after[counted] == before.get(counted, 0) + 1


def test_odd_books_are_data_with_a_flag(daemon: RunningDaemon) -> None:
    ticks = quotes(4)
    ticks["bid_px"][1] = ticks["ask_px"][1] + 10_000_000
    ticks["ask_px"][2] = 2**63 - 1
    ticks["bid_sz"], ticks["ask_sz"] = 0, 0
    ticks["ts_recv"][3] = ticks["ts_recv"][2] - 5
    with RawStream(daemon.address) as stream:
        stream.hello()
        predictions = run_through(stream, ticks)
    book = predictions["flags"] & np.uint32(32 | 64 | 256)
    assert book.tolist() == [0, 64, 32, 256]


def test_subscribing_to_a_daemon_without_a_feed_says_so(daemon: RunningDaemon) -> None:
    with grpc.insecure_channel(daemon.address) as channel:
        call = channel.unary_stream(METHOD.replace("StreamPredictions", "Subscribe"))
        with pytest.raises(grpc.RpcError) as refused:
            list(call(b"", timeout=20))
    end = end_of(refused.value)
    assert (end.code, end.reason) == ("NOT_FOUND", "NO_FEED")


def test_log_tells_of_every_refusal(daemon: RunningDaemon) -> None:
    reasons = {str(line["reason"]) for line in daemon.events("session_refused")}
    assert {status.split()[1] for _, status, _ in REFUSALS.values()} <= reasons
    assert Path(daemon.log_path).exists()
