"""The daemon's rules for sessions, in memory and in plain Python: what a client's books are judged against.

An answer's ``model_serial`` is a digest of the instrument's last ``rebuild_ticks`` ticks, its own included: the same as
without any loss if and only if the state was kept, or rebuilt from the right ticks in the right order.
"""

from __future__ import annotations

import zlib
from collections import deque
from collections.abc import Iterable

import numpy as np

from penstock.v1 import prediction_pb2 as pb
from penstock.v1.records import PREDICTION_DTYPE, UNDEFINED_TIME, ticks_from_bytes


class BreachError(Exception):
    """The client broke a rule."""


class Windows:
    """The state of each instrument: its last few ticks, named by their ts_event."""

    def __init__(self, instrument_ids: Iterable[int], ticks: int) -> None:
        self._windows: dict[int, deque[int]] = {number: deque(maxlen=max(ticks, 1)) for number in instrument_ids}

    def takes(self, tick: np.void) -> bool:
        """Whether *tick* can enter a state at all."""
        return int(tick["instrument_id"]) in self._windows and int(tick["ts_recv"]) != UNDEFINED_TIME

    def step(self, tick: np.void) -> int:
        """Take *tick* in and return the digest of the state after it."""
        window = self._windows[int(tick["instrument_id"])]
        window.append(int(tick["ts_event"]))
        return zlib.crc32(repr(list(window)).encode())


class ModelSession:
    """One session's rules."""

    def __init__(self, hello: pb.Hello, token: bytes, in_flight_max: int, rebuild_ticks: int) -> None:
        self.token = token
        self.in_flight_max = in_flight_max
        self.rebuild_ticks = rebuild_ticks
        self._windows = Windows([one.instrument_id for one in hello.instruments], rebuild_ticks)
        self._first = hello.first_sequence
        self._answers: list[np.void | pb.TickError] = []
        self._given = 0
        self._rebuilt = self._rebuild_told = 0

    @property
    def next_sequence(self) -> int:
        return self._first + len(self._answers)

    @property
    def ready(self) -> int:
        """Answers that are not yet given."""
        return len(self._answers) - self._given

    @property
    def idle(self) -> bool:
        """Whether nothing is left to give."""
        return not self.ready and self._rebuild_told == self._rebuilt

    def resume(self, next_prediction_sequence: int) -> None:
        position = next_prediction_sequence - self._first
        if not len(self._answers) - self.in_flight_max <= position <= self._given:
            raise BreachError(f"asks for answers from {position} on, was given {self._given}")
        self._given = position

    def take(self, batch: pb.TickBatch) -> None:
        ticks = ticks_from_bytes(batch.records)
        if len(ticks) == 0:
            raise BreachError("an empty batch")
        waiting = self.ready + self._rebuilt - self._rebuild_told
        if waiting + len(ticks) > self.in_flight_max:
            raise BreachError(f"{waiting} + {len(ticks)} ticks in flight, {self.in_flight_max} allowed")
        if batch.purpose == pb.PURPOSE_REBUILD:
            if self._answers:
                raise BreachError("rebuild ticks after the first tick to predict")
            for tick in ticks:
                self._windows.step(tick)
            self._rebuilt += len(ticks)
            return
        if batch.first_sequence != self.next_sequence:
            raise BreachError(f"a gap: first_sequence={batch.first_sequence}, expected {self.next_sequence}")
        for tick in ticks:
            if self._windows.takes(tick):
                answer = np.zeros((), dtype=PREDICTION_DTYPE)[()]
                answer["sequence"], answer["ts_event"] = self.next_sequence, tick["ts_event"]
                answer["instrument_id"], answer["ts_recv"] = tick["instrument_id"], tick["ts_recv"]
                answer["model_serial"] = self._windows.step(tick)
                self._answers.append(answer)
            else:
                known = int(tick["ts_recv"]) == UNDEFINED_TIME
                reason = pb.TickError.REASON_TIME_OUT_OF_RANGE if known else pb.TickError.REASON_UNKNOWN_INSTRUMENT
                self._answers.append(pb.TickError(sequence=self.next_sequence, reason=reason, message="no"))

    def give(self, ticks_max: int) -> list[pb.StreamPredictionsResponse]:
        """Return the next messages, with at most *ticks_max* answers."""
        messages = []
        if self._rebuild_told < self._rebuilt:
            self._rebuild_told = self._rebuilt
            messages.append(pb.StreamPredictionsResponse(rebuild_progress=pb.RebuildProgress(ticks=self._rebuilt)))
        answers = self._answers[self._given : self._given + ticks_max]
        if answers:
            self._given += len(answers)
            batch = pb.PredictionBatch(
                records=b"".join(answer.tobytes() for answer in answers if isinstance(answer, np.void)),
                errors=[answer for answer in answers if isinstance(answer, pb.TickError)],
                sent_ns=1,
            )
            messages.append(pb.StreamPredictionsResponse(predictions=batch))
        return messages


class ModelDaemon:
    """Sessions by their tokens, until a restart forgets them."""

    def __init__(self, in_flight_max: int = 16, rebuild_ticks: int = 4, heartbeat_interval_ns: int = 0) -> None:
        self.in_flight_max = in_flight_max
        self.rebuild_ticks = rebuild_ticks
        self.heartbeat_interval_ns = heartbeat_interval_ns
        self._sessions: dict[bytes, ModelSession] = {}
        self._opened = 0

    def restart(self) -> None:
        """Forget every session."""
        self._sessions.clear()

    def open(self, hello: pb.Hello) -> tuple[ModelSession, pb.Welcome]:
        """Answer Hello."""
        session = self._sessions.get(hello.resume_token)
        resumed = session is not None
        if session is None:
            self._opened += 1
            session = ModelSession(hello, b"token %d" % self._opened, self.in_flight_max, self.rebuild_ticks)
            self._sessions[session.token] = session
        else:
            session.resume(hello.next_prediction_sequence)
        return session, pb.Welcome(
            session_id=self._opened,
            instruments=hello.instruments,
            horizons=[pb.Horizon(name="next", kind=pb.Horizon.KIND_NEXT_MOVE)],
            in_flight_max=session.in_flight_max,
            rebuild_ticks=session.rebuild_ticks,
            state_origin=pb.STATE_ORIGIN_RESUMED if resumed else pb.STATE_ORIGIN_COLD,
            resume_token=session.token,
            next_sequence=session.next_sequence,
            heartbeat_interval_ns=self.heartbeat_interval_ns,
        )
