"""Every accepted tick has exactly one answer, in order, whatever is lost on the way: sessions against a model.

A client sends ticks in batches of any size, some of which nobody can predict, drops its connection anywhere, and
resumes from any position that it may; what it gets must be what an undisturbed session would have got, to the bit.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import event, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from penstock.v1 import prediction_pb2 as pb
from penstock.v1.records import UNDEFINED_TIME, PredictionFlag, predictions_from_bytes
from penstock_kernels.model_file import load_model
from penstock_kernels.predictor import PackedModel, pack
from support.daemon import RunningDaemon, running_daemon, small_model
from support.engines import driven
from support.raw_stream import RawStream, instruments
from support.tick_stream import tick_stream

IDS = (1, 2)
STRANGER = 7
IN_FLIGHT_MAX = 64
TICKS = 2000
STREAM = np.concatenate([tick_stream(40 + number, TICKS, instrument_id=number) for number in (*IDS, STRANGER)])
STREAM = STREAM[np.random.default_rng(8).permutation(len(STREAM))]
STREAM["ts_recv"][::97] = UNDEFINED_TIME
LATE = np.uint32(PredictionFlag.LATE | PredictionFlag.STALE)


class Shared:
    """What the machines of one run share."""

    daemon: RunningDaemon
    packed: PackedModel


@pytest.fixture(scope="module", autouse=True)
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    folder = tmp_path_factory.mktemp("accounting")
    model = small_model(folder, 5)
    sets = (f"models.active={model}", "models.units_max=64", f"sessions.in_flight_max={IN_FLIGHT_MAX}")
    Shared.packed = pack(load_model(model).model)
    with running_daemon(folder, *sets) as Shared.daemon:
        yield


class Accounting(RuleBasedStateMachine):
    """One session, by its client's books; no rule's precondition depends on how fast the daemon is."""

    def __init__(self) -> None:
        super().__init__()
        self.stream: RawStream | None = None
        self.token = b""
        self.first = 0  # Sequence of the first tick to predict.
        self.rebuilt = 0  # Ticks that were sent to rebuild, from the start of STREAM.
        self.acknowledged = 0
        self.sent = 0  # Ticks to predict that were sent.
        self.accepted = 0  # Of those, what the daemon is known to have.
        self.received = 0  # Answers that came, each once.
        self.answers: dict[int, bytes] = {}

    # --- What a client does ---------------------------------------------------------------------------------------

    @initialize(first=st.sampled_from([0, 1, 1000, 2**40, 2**62]), rebuild=st.integers(0, 40), wait=st.booleans())
    def open(self, first: int, rebuild: int, wait: bool) -> None:
        self.first, self.rebuilt = first, rebuild
        self.say_hello(pb.STATE_ORIGIN_COLD)
        if rebuild:
            self.stream.ticks(STREAM[:rebuild], purpose=pb.PURPOSE_REBUILD)
        while wait and self.acknowledged < rebuild:
            self.take()

    @precondition(lambda self: self.stream is not None)
    @rule(sizes=st.lists(st.integers(1, 12), min_size=1, max_size=4))
    def send(self, sizes: list[int]) -> None:
        for size in sizes:
            unanswered = self.sent - self.received + self.rebuilt - self.acknowledged
            if unanswered + size <= IN_FLIGHT_MAX:
                start = self.rebuilt + self.sent
                self.stream.ticks(STREAM[start : start + size])
                self.sent += size

    @precondition(lambda self: self.stream is not None)
    @rule(answers=st.integers(1, 30))
    def receive(self, answers: int) -> None:
        wanted = min(self.received + answers, self.sent)
        while self.received < wanted:
            self.take()

    @precondition(lambda self: self.stream is not None)
    @rule()
    def lose(self) -> None:
        self.stream.close()
        self.stream = None

    @precondition(lambda self: self.token)
    @rule(back=st.integers(0, 40))
    def resume(self, back: int) -> None:
        """Offer the token, with or without having noticed a loss; *back* answers are forgotten."""
        if self.stream is not None:
            event("taken over")
        self.received = max(self.received - back, self.sent - IN_FLIGHT_MAX, 0)
        before, self.stream = self.stream, None
        self.say_hello(pb.STATE_ORIGIN_RESUMED)
        if before is not None:
            before.close()

    # --- What must hold -------------------------------------------------------------------------------------------

    def say_hello(self, wanted: int) -> None:
        stream = RawStream(Shared.daemon.address)
        welcome = stream.hello(
            instruments=instruments(*IDS),
            first_sequence=self.first,
            resume_token=self.token,
            next_prediction_sequence=self.first + self.received,
        )
        self.stream = stream
        if welcome.state_origin != wanted:
            assert welcome.state_origin == pb.STATE_ORIGIN_COLD
            assert self.received == 0, "what has had answers is not forgotten"
            event("came back before the first tick was in")
            self.answers.clear()
            self.accepted = self.rebuilt = self.acknowledged = 0
        self.token = welcome.resume_token
        has = welcome.next_sequence - self.first
        assert max(self.accepted, self.received) <= has <= self.sent
        self.accepted = self.sent = has

    def take(self) -> None:
        response = self.stream.receive()
        kind = response.WhichOneof("message")
        if kind == "rebuild_progress":
            assert self.acknowledged < response.rebuild_progress.ticks <= self.rebuilt
            self.acknowledged = response.rebuild_progress.ticks
            return
        assert kind == "predictions", response
        found = {one.sequence: one.reason.to_bytes() for one in response.predictions.errors}
        for record in predictions_from_bytes(response.predictions.records):
            assert int(record["sequence"]) not in found
            found[int(record["sequence"])] = (record["flags"] & ~LATE).tobytes() + record["forecasts"].tobytes()
        expected = self.first + self.received
        assert sorted(found) == list(range(expected, expected + len(found))), "in order, without gaps"
        for sequence, answer in found.items():
            assert self.answers.setdefault(sequence - self.first, answer) == answer, "the same answer again"
        self.received += len(found)
        self.accepted = max(self.accepted, self.received)
        self.acknowledged = self.rebuilt  # Ticks are taken in order.
        assert self.received <= self.sent

    @invariant()
    def daemon_lives(self) -> None:
        assert Shared.daemon.process.poll() is None

    def teardown(self) -> None:
        """Take the rest, say Goodbye, and compare with a session that lost nothing."""
        if self.stream is None and self.token:
            self.say_hello(pb.STATE_ORIGIN_RESUMED)
        if self.stream is None:
            return
        self.stream.goodbye()
        while self.received < self.sent:
            self.take()
        assert self.stream.end().code == "OK"
        self.stream.close()
        assert sorted(self.answers) == list(range(self.sent))
        ticks = STREAM[: self.rebuilt + self.sent]
        expected: dict[int, bytes] = {}
        for number in IDS:
            places = np.flatnonzero((ticks["instrument_id"] == number) & (ticks["ts_recv"] != UNDEFINED_TIME))
            forecasts, flags = driven(Shared.packed, ticks[places])
            for place, forecast, flag in zip(places.tolist(), forecasts, flags, strict=True):
                expected[place - self.rebuilt] = np.uint32(flag).tobytes() + forecast.tobytes()
        for place in range(self.sent):
            tick = ticks[self.rebuilt + place]
            if tick["instrument_id"] == STRANGER:
                wanted = pb.TickError.REASON_UNKNOWN_INSTRUMENT.to_bytes()
            elif tick["ts_recv"] == UNDEFINED_TIME:
                wanted = pb.TickError.REASON_TIME_OUT_OF_RANGE.to_bytes()
            else:
                wanted = expected[place]
            assert self.answers[place] == wanted, f"tick {place}"


TestAccounting = Accounting.TestCase
TestAccounting.settings = settings(deadline=None, max_examples=40, stateful_step_count=25)
