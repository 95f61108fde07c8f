"""A daemon's side of one shared segment, in a thread: it answers ticks as a function says, and can be told to misbehave.

with RingStandIn(folder / "attach.sock", answer=echo) as stand_in:
    segment = attach(str(stand_in.path), stand_in.token, ...)

It sleeps on the event descriptor when it has nothing to do, and rings a client that waits, as the engine does: a client
that forgets one half of the protocol hangs.
"""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import select
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from penstock.v1 import shared_ring as layout
from penstock.v1.records import PREDICTION_DTYPE

SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
Answer = Callable[[int, np.ndarray], np.ndarray]


def echo(first_sequence: int, ticks: np.ndarray) -> np.ndarray:
    """Answer each tick with its own times and instrument."""
    answers = np.zeros(len(ticks), PREDICTION_DTYPE)
    answers["sequence"] = np.arange(first_sequence, first_sequence + len(ticks))
    for name in ("ts_event", "ts_recv", "instrument_id"):
        answers[name] = ticks[name]
    return answers


class RingStandIn:
    """The segment, its attach socket, and the thread that serves both; use it with ``with``.

    Args:
        path: of the attach socket.
        slots: of each ring.
        answer: from ticks to predictions.
        session_id: in the header.
        first_sequence: in the header.
        again: answers that come first: those of ticks that an earlier segment took.
    """

    def __init__(
        self,
        path: Path,
        slots: int = 64,
        answer: Answer = echo,
        *,
        session_id: int = 1,
        first_sequence: int = 0,
        again: np.ndarray | None = None,
    ) -> None:
        self.path = path
        self.token = os.urandom(layout.TOKEN_BYTES)
        self.slots = slots
        self.refusal = b""
        self.status = 9
        self.seals = SEALS
        self.beats = True
        self.answers_max = 1 << 60  # Then it answers no more.
        self.naps = 0  # How often it slept.
        self.rings = 0  # How often it rang.
        self.errors: list[BaseException] = []
        self.taken = self.given = 0
        self._answer = answer
        self._first = first_sequence
        self._again = again if again is not None else np.empty(0, PREDICTION_DTYPE)
        self._stop = threading.Event()
        self._memory = os.memfd_create("stand-in", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        self._event = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self.bytes = layout.segment_bytes(slots)
        os.ftruncate(self._memory, self.bytes)
        self.map = mmap.mmap(self._memory, self.bytes)
        self.words = memoryview(self.map).cast("q")
        self._ticks = np.frombuffer(self.map, layout.TICK_SLOT_DTYPE, slots, layout.HEADER_BYTES)
        at = layout.prediction_ring_at(slots)
        self._predictions = np.frombuffer(self.map, PREDICTION_DTYPE, slots, at)
        for where, size, value in (
            (layout.MAGIC_AT, 8, layout.MAGIC),
            (layout.LAYOUT_VERSION_AT, 4, layout.LAYOUT_VERSION),
            (layout.SLOTS_AT, 4, slots),
            (layout.SEGMENT_BYTES_AT, 8, self.bytes),
            (layout.TICK_RING_AT, 8, layout.HEADER_BYTES),
            (layout.PREDICTION_RING_AT, 8, at),
            (layout.SESSION_ID_AT, 8, session_id),
            (layout.FIRST_SEQUENCE_AT, 8, first_sequence),
            (layout.TICK_SLOT_BYTES_AT, 4, layout.TICK_SLOT_BYTES),
            (layout.PREDICTION_SLOT_BYTES_AT, 4, layout.PREDICTION_SLOT_BYTES),
        ):
            self.put(where, value, size)
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._listener.bind(str(path))
        self._listener.listen(1)
        self.socket: socket.socket | None = None
        self._killing = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="ring stand-in")

    def put(self, at: int, value: int, size: int = 8) -> None:
        """Write a number into the header."""
        self.map[at : at + size] = value.to_bytes(size, "little", signed=value < 0)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.kill()
        if error is None and self.errors:
            raise self.errors[0]

    def kill(self) -> None:
        """Hang up without a word, as a daemon that is killed; the second of two threads that do it waits for the first."""
        with self._killing:
            if self._event < 0:
                return
            self._stop.set()
            os.eventfd_write(self._event, 1)
            self._listener.close()
            self._thread.join()
            if self.socket is not None:
                self.socket.close()
            for descriptor in (self._memory, self._event):
                if descriptor >= 0:
                    os.close(descriptor)
            self._memory = self._event = -1

    def _run(self) -> None:
        try:
            self._hand_over()
            while self.socket is not None and not self._stop.is_set():
                self._serve()
        except BaseException as error:  # noqa: BLE001 - It reaches the test when the block ends.
            self.errors.append(error)

    def _hand_over(self) -> None:
        self._listener.settimeout(0.05)
        while not self._stop.is_set():
            try:
                attached, _ = self._listener.accept()
            except OSError:
                continue
            magic, version, _, token = layout.ATTACH_REQUEST.unpack(attached.recv(100))
            assert (magic, version, token) == (layout.ATTACH_MAGIC, layout.LAYOUT_VERSION, self.token)
            status = self.status if self.refusal else 0
            reply = layout.ATTACH_REPLY.pack(status, layout.LAYOUT_VERSION, self.bytes) + self.refusal
            if self.seals:
                fcntl.fcntl(self._memory, fcntl.F_ADD_SEALS, self.seals)
            socket.send_fds(attached, [reply], [] if self.refusal else [self._memory, self._event])
            self.socket = attached
            return

    def _serve(self) -> None:
        if self.beats:
            self.words[layout.DAEMON_BEAT_NS_AT // 8] = time.monotonic_ns()
        if self._work():
            return
        sleeping = layout.ENGINE_SLEEPING_AT // 8
        self.words[sleeping] = 1
        threading.Lock().__enter__()  # A locked instruction.
        if not self._work():
            self.naps += 1
            rung, _, _ = select.select([self._event], [], [], 0.1)
            if not rung and self._work() and not self._stop.is_set():
                rung, _, _ = select.select([self._event], [], [], 5)  # It came just now, or was forgotten.
                assert rung, "a tick was published and the sleeping engine not rung"
            with contextlib.suppress(BlockingIOError):
                os.eventfd_read(self._event)
        self.words[sleeping] = 0

    def _work(self) -> bool:
        """Answer what is there, and return whether anything was."""
        published = self.words[layout.TICK_PUBLISHED_AT // 8]
        consumed = self.words[layout.PREDICTION_CONSUMED_AT // 8]
        room = min(self.slots - (self.given - consumed), self.answers_max - self.given)
        if len(self._again):
            answers, self._again = self._again[:room], self._again[room:]
        else:
            count = min(published - self.taken, room)
            slots = np.arange(self.taken, self.taken + count) & (self.slots - 1)
            answers = self._answer(self._first + self.taken, self._ticks["tick"][slots]) if count > 0 else []
            self.taken += max(count, 0)
        if not len(answers):
            return False
        self._predictions[np.arange(self.given, self.given + len(answers)) & (self.slots - 1)] = answers
        self.given += len(answers)
        self.words[layout.TICK_CONSUMED_AT // 8] = self.taken
        self.words[layout.PREDICTION_PUBLISHED_AT // 8] = self.given
        threading.Lock().__enter__()
        waiting = layout.CLIENT_WAITING_AT // 8
        if self.words[waiting] and self.socket is not None:
            self.words[waiting] = 0
            self.rings += 1
            with contextlib.suppress(OSError):
                self.socket.send(b"!", socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
        return True
