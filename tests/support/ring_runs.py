"""Scripts for a scripted server whose sessions go through rings: the rules of model_daemon.py, over shared memory."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from penstock.v1 import prediction_pb2 as pb
from penstock.v1.records import PREDICTION_DTYPE
from penstock.v1.shared_ring import LAYOUT_VERSION, REFUSED_FLAG
from support.model_daemon import ModelSession
from support.ring_stand_in import RingStandIn
from support.scripted_server import Script, ServerStream

Responses = Iterator[pb.StreamPredictionsResponse | bytes]


class Runs:
    """The stand-ins of one server, one per stream, for a test to look at."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.stand_ins: list[RingStandIn] = []

    def by_the_rules(self, *, restart: bool = False, answers: int = 0) -> Script:
        """Serve by the rules; with *answers*, die after so many, and with *restart* forget the session."""

        def script(stream: ServerStream) -> Responses:
            session, welcome = stream.open()
            with self.stand_in(stream, session, welcome.welcome) as stand_in:
                if answers:
                    stand_in.answers_max = answers
                offer(welcome.welcome, stand_in)
                yield welcome
                if answers:
                    dead = threading.Thread(target=self._die, args=(stream, stand_in, answers, restart))
                    dead.start()
                try:
                    while True:
                        request = stream.receive()
                        kind = request.WhichOneof("message")
                        if kind == "goodbye":
                            return
                        if kind == "ticks":
                            assert request.ticks.purpose == pb.PURPOSE_REBUILD, "a tick to predict over the stream"
                            session.take(request.ticks)
                            yield from session.give(0)
                finally:
                    if answers:
                        dead.join()

        return script

    def stand_in(self, stream: ServerStream, session: ModelSession, welcome: pb.Welcome) -> RingStandIn:
        def answer(first_sequence: int, ticks: np.ndarray) -> np.ndarray:
            session.take(pb.TickBatch(first_sequence=first_sequence, records=ticks.tobytes()))
            return given(session)

        stand_in = RingStandIn(
            self.folder / f"{stream.number}.sock",
            session.in_flight_max,
            answer,
            session_id=welcome.session_id,
            first_sequence=session.next_sequence,
            again=given(session),
        )
        self.stand_ins.append(stand_in)
        return stand_in

    @staticmethod
    def _die(stream: ServerStream, stand_in: RingStandIn, answers: int, restart: bool) -> None:
        while stand_in.given < answers and not stand_in.errors:
            stand_in._stop.wait(0.001)
        if restart:
            stream.server.daemon.restart()
        stand_in.kill()
        stream.context.cancel()


def offer(welcome: pb.Welcome, stand_in: RingStandIn) -> None:
    welcome.shared_memory.address = str(stand_in.path)
    welcome.shared_memory.token = stand_in.token
    welcome.shared_memory.slots = stand_in.slots
    welcome.shared_memory.layout_version = LAYOUT_VERSION


def given(session: ModelSession) -> np.ndarray:
    """Return the answers that are ready as they stand in a ring."""
    answers: list[np.ndarray] = []
    for message in session.give(1 << 20):
        batch = message.predictions
        answers.append(np.frombuffer(batch.records, PREDICTION_DTYPE))
        for error in batch.errors:
            refused = np.zeros(1, PREDICTION_DTYPE)
            refused["sequence"], refused["horizons"], refused["flags"] = error.sequence, error.reason, REFUSED_FLAG
            answers.append(refused)
    together = np.concatenate(answers) if answers else np.empty(0, PREDICTION_DTYPE)
    return together[np.argsort(together["sequence"], kind="stable")]
