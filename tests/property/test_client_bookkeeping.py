"""Whatever connections do, every accepted tick gets one answer, in order, from a state that is none the worse for it."""

from __future__ import annotations

from collections import deque

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from penstock.v1 import prediction_pb2 as pb
from penstock.v1.records import UNDEFINED_TIME, predictions_from_bytes
from penstock_client import wire
from penstock_client.bookkeeping import Ledger
from penstock_client.instruments import Instrument, Pace
from support.model_daemon import ModelDaemon, ModelSession, Windows
from support.tick_arrays import quotes

KNOWN = (3, 7, 4_000_000_000)
UNKNOWN = 5


class Books(RuleBasedStateMachine):
    """A ledger, a daemon that keeps the rules, and two pipes between them that can break at any message."""

    @initialize(in_flight_max=st.integers(1, 20), rebuild_ticks=st.integers(0, 6), archive_ticks=st.integers(1, 40))
    def open(self, in_flight_max: int, rebuild_ticks: int, archive_ticks: int) -> None:
        self.ledger = Ledger(list(KNOWN), archive_ticks=archive_ticks)
        self.daemon = ModelDaemon(in_flight_max, rebuild_ticks)
        self.to_daemon: deque[pb.TickBatch] = deque()
        self.to_client: deque[pb.StreamPredictionsResponse] = deque()
        self.session: ModelSession | None = None
        self.token = b""
        self.accepted: list[np.void] = []
        self.answers: list[tuple[int, int, int]] = []  # Sequence, ts_event, digest; an error has -1s.
        # A smaller window after a restart would change the digests by right: the model's memory stays.
        self.rebuild_ticks = rebuild_ticks
        self.connect(first=True)

    def connect(self, *, first: bool = False) -> None:
        token = self.token if self.ledger.rebuilt else b""
        greeting = wire.Greeting("", "", tuple(Instrument(number, str(number)) for number in KNOWN), Pace.BULK)
        request = wire.hello(greeting, resume_token=token, next_answer=self.ledger.next_answer)
        self.session, welcome = self.daemon.open(pb.StreamPredictionsRequest.FromString(request).hello)
        limits = (welcome.next_sequence, welcome.in_flight_max, welcome.rebuild_ticks)
        if first:
            self.ledger.open_first(*limits)
        elif welcome.state_origin == pb.STATE_ORIGIN_RESUMED:
            self.ledger.reopen_resumed(*limits)
        else:
            self.ledger.reopen_cold(*limits)
        self.token = welcome.resume_token

    @rule(instruments=st.lists(st.sampled_from((*KNOWN, UNKNOWN)), max_size=25), untimed=st.integers(0, 30))
    def caller_sends(self, instruments: list[int], untimed: int) -> None:
        ticks = quotes(len(instruments))
        ticks["instrument_id"] = instruments
        ticks["ts_event"] = np.arange(len(ticks)) + self.ledger.next_sequence
        if untimed < len(ticks):
            ticks["ts_recv"][untimed] = UNDEFINED_TIME
        room = self.ledger.room
        taken = self.ledger.accept(memoryview(ticks.tobytes()))
        assert taken == min(room, len(ticks))
        self.accepted += list(ticks[:taken])

    @rule(ticks_max=st.integers(1, 9))
    def client_writes(self, ticks_max: int) -> None:
        outgoing = self.ledger.take(ticks_max) if self.session is not None else None
        if outgoing is not None:
            request = pb.StreamPredictionsRequest.FromString(wire.ticks(outgoing))
            self.to_daemon.append(request.ticks)

    @rule()
    def daemon_reads(self) -> None:
        if self.to_daemon:
            self.session.take(self.to_daemon.popleft())

    @rule(ticks_max=st.integers(0, 9))
    def daemon_writes(self, ticks_max: int) -> None:
        if self.session is not None:
            self.to_client += self.session.give(ticks_max)

    @rule()
    def client_reads(self) -> None:
        if not self.to_client:
            return
        response = self.to_client.popleft()
        if response.WhichOneof("message") == "rebuild_progress":
            self.ledger.rebuild_progress(response.rebuild_progress.ticks)
            return
        predictions = predictions_from_bytes(response.predictions.records)
        refused = [error.sequence for error in response.predictions.errors]
        self.ledger.answer(predictions["sequence"], refused)
        came = [(int(p["sequence"]), int(p["ts_event"]), int(p["model_serial"])) for p in predictions]
        self.answers += sorted(came + [(sequence, -1, -1) for sequence in refused])

    @rule(rounds=st.integers(1, 8), write_max=st.integers(1, 9), answer_max=st.integers(1, 9))
    def all_goes_well(self, rounds: int, write_max: int, answer_max: int) -> None:
        for _ in range(rounds):
            self.client_writes(write_max)
            while self.to_daemon:
                self.daemon_reads()
            self.daemon_writes(answer_max)
            while self.to_client:
                self.client_reads()

    @rule(
        still_delivered=st.integers(0, 3),
        daemon=st.sampled_from(["keeps its states", "loses its states", "restarts with other limits"]),
        in_flight_max=st.integers(1, 20),
        back_at_once=st.booleans(),
    )
    def connection_breaks(self, still_delivered: int, daemon: str, in_flight_max: int, back_at_once: bool) -> None:
        for _ in range(min(still_delivered, len(self.to_daemon))):
            self.session.take(self.to_daemon.popleft())
        self.to_daemon.clear()
        self.to_client.clear()
        self.session = None
        if daemon != "keeps its states":
            self.daemon.restart()
        if daemon == "restarts with other limits":
            self.daemon.in_flight_max = in_flight_max
        if back_at_once:
            self.connect()

    @rule()
    def client_reconnects(self) -> None:
        if self.session is None:
            self.connect()

    @rule(writes=st.integers(1, 3), write_max=st.integers(1, 9), still_delivered=st.integers(0, 2))
    def connection_breaks_again_at_once(self, writes: int, write_max: int, still_delivered: int) -> None:
        """Most interesting while a state is being rebuilt."""
        self.connection_breaks(still_delivered, "loses its states", 1, back_at_once=True)
        for _ in range(writes):
            self.client_writes(write_max)
        self.connection_breaks(still_delivered, "keeps its states", 1, back_at_once=True)

    @invariant()
    def answers_are_in_order_each_once(self) -> None:
        if hasattr(self, "answers"):
            assert [answer[0] for answer in self.answers] == list(range(len(self.answers)))
            assert self.ledger.next_answer == len(self.answers)
            assert self.ledger.unanswered == len(self.accepted) - len(self.answers)

    def teardown(self) -> None:
        if not hasattr(self, "answers"):
            return
        if self.session is None:
            self.connect()
        for _ in range(1_000):
            if not self.ledger.unanswered:
                break
            self.all_goes_well(1, 7, 5)
        windows = Windows(KNOWN, self.rebuild_ticks)
        expected = [
            (sequence, int(tick["ts_event"]), windows.step(tick)) if windows.takes(tick) else (sequence, -1, -1)
            for sequence, tick in enumerate(self.accepted)
        ]
        assert self.answers == expected


TestBooks = Books.TestCase
TestBooks.settings = settings(max_examples=200, stateful_step_count=80, deadline=None)
