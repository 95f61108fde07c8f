"""The feed's thread and the memory that it works in: laid out, compiled, warmed up on real packets, started, stopped.

The thread enters compiled code once and stays there until it is stopped; what it is told and what it tells is memory.

    Receiver -> compile -> warm_up -> start -> stop
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from penstock.v1 import moldudp64
from penstock_daemon import engine_memory, rings
from penstock_daemon.arena import Arena
from penstock_daemon.engine import Engine
from penstock_daemon.engine_memory import TICK_SLOT_DTYPE
from penstock_daemon.feed import memory
from penstock_daemon.feed.books import Books, books_bytes, make_books
from penstock_daemon.feed.loop import run
from penstock_daemon.feed.memory import BATCH_MAX, CONTROL_WORDS, LINES, PACKET_BYTES, FeedMemory, Payload
from penstock_daemon.feed.native_socket import POLLIN
from penstock_daemon.feed.publish import Ring, ring_of
from penstock_daemon.feed.sockets import FeedError
from penstock_daemon.feed.stamps import SO_RXQ_OVFL, SO_TIMESTAMPING
from penstock_daemon.feed.warm_messages import warm_messages
from penstock_host import affinity

THREAD_NAME: Final = "penstock-feed"
_STOP_TIMEOUT_S: Final = 5.0
_WARM_PACKETS: Final = 64
_WARM_PATIENCE_S: Final = 10.0
_SOFTWARE_STAMPS: Final = 8 | 16
_U32: Final = 0xFFFFFFFF


@dataclass(frozen=True)
class FeedShape:
    """How much the feed holds, and what it is about.

    Attributes:
        payload: what its messages are.
        names, ids, states: of each instrument; states are the engine's.
        held: messages of the window; a power of two.
        orders_max, levels_max: of the books.
        tap_ticks: that wait for the recorder, at most; 0 where the feed is not recorded.
    """

    payload: Payload
    names: Sequence[str]
    ids: Sequence[int]
    states: Sequence[int]
    held: int
    orders_max: int
    levels_max: int
    tap_ticks: int = 0

    @property
    def arena_bytes(self) -> int:
        """What all of it needs."""
        size = 0
        size += memory.feed_bytes(len(self.names), self.held, self.tap_ticks)
        size += books_bytes(len(self.names), self.orders_max, self.levels_max)
        return size


class Receiver:
    """The feed's thread, its memory and its books.

    Args:
        shape: taken from an arena of its own.
        source: of the engine.
    """

    def __init__(self, shape: FeedShape, source: int) -> None:
        self.shape = shape
        self.arena = Arena(shape.arena_bytes)
        self.memory = memory.make_feed_memory(self.arena.take, len(shape.names), shape.held, shape.tap_ticks)
        self.books: Books = make_books(
            self.arena.take, shape.names, shape.ids, orders_max=shape.orders_max, levels_max=shape.levels_max
        )
        self.arena.seal()
        self.thread_id = 0
        self._thread: threading.Thread | None = None
        self._failure: OSError | None = None
        self._stop_event = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        made, settings = self.memory, self.memory.settings
        made.states[:] = shape.states
        settings[memory.PAYLOAD] = shape.payload
        settings[memory.SOURCE] = source
        settings[memory.BATCH] = BATCH_MAX
        settings[memory.STOP_EVENT] = self._stop_event
        _lay_out_batch(made)
        self.listen_to([None] * LINES)

    def listen_to(self, sockets: Sequence[socket.socket | None]) -> None:
        """Name the sockets of line A, line B and the recovery server; the thread must not run."""
        assert not self.alive, "the thread has its sockets"
        settings, polled = self.memory.settings, self.memory.polled
        numbers = [-1 if one is None else one.fileno() for one in sockets]
        settings[memory.DESCRIPTORS : memory.DESCRIPTORS + LINES] = numbers
        for place, number in enumerate([*numbers, int(settings[memory.STOP_EVENT])]):
            polled[place] = (number & _U32) | POLLIN << 32

    @property
    def alive(self) -> bool:
        """True while the thread runs."""
        return self._thread is not None and self._thread.is_alive()

    def word(self, index: int) -> int:
        """Return one of the words, such as memory.PACKETS, as it stands."""
        return int(rings.shared_word(self.memory.words, index))

    def compile(self, engine: Engine) -> None:
        """Compile, or load from the cache, everything that runs on the thread."""
        self.memory.words[memory.STOP] = 1
        run(engine.buffers, ring_of(engine.buffers), self.memory, self.books)
        self.memory.words[memory.STOP] = 0

    def start(self, engine: Engine, cpus: frozenset[int] = frozenset(), ring: Ring | None = None) -> None:
        """Start the thread.

        Args:
            engine: whose ring it writes.
            cpus: where it may run; empty leaves it as it is.
            ring: that is written in the engine's place.

        Raises:
            FeedError: the CPUs can't be had.
        """
        assert self._thread is None, "the feed was started before"
        rings.set_shared_word(self.memory.words, memory.STOP, 0)
        started = threading.Event()
        arguments = (engine.buffers, ring or ring_of(engine.buffers), self.memory, self.books)
        self._thread = threading.Thread(
            target=self._main, args=(started, cpus, arguments), name=THREAD_NAME, daemon=True
        )
        self._thread.start()
        started.wait()
        if self._failure is not None:
            raise FeedError(
                f"feed.cores: CPUs {sorted(cpus)} can't be used ({self._failure.strerror}); "
                "name CPUs that are online and allowed to this process, or leave it empty"
            ) from self._failure

    def _main(self, started: threading.Event, cpus: frozenset[int], arguments: tuple[Any, ...]) -> None:
        try:
            affinity.name_this_thread(THREAD_NAME)
            self.thread_id = threading.get_native_id()
            if cpus:
                affinity.pin_this_thread(cpus)
        except OSError as error:
            self._failure = error
            return
        finally:
            started.set()
        run(*arguments)

    def stop(self) -> None:
        """Stop the thread and wait for it; nothing to do where it does not run.

        Raises:
            FeedError: it did not stop.
        """
        if self._thread is None:
            return
        rings.set_shared_word(self.memory.words, memory.STOP, 1)
        os.eventfd_write(self._stop_event, 1)
        self._thread.join(_STOP_TIMEOUT_S)
        if self._thread.is_alive():
            raise FeedError(f"the feed did not stop within {_STOP_TIMEOUT_S} s")
        self._thread = None

    def close(self) -> None:
        """Close what it holds; the thread must have stopped."""
        os.close(self._stop_event)


def warm_up(engine: Engine, payload: Payload) -> None:
    """Run the compiled loop on packets that really come through a socket, into memory that is thrown away after.

    So the code that takes a packet has run before the first one counts, and the kernel's stamps are on.

    Raises:
        FeedError: the packets did not come.
    """
    shape = FeedShape(payload, ["WARM"], [1], [0], 1024, 1024, 16)
    receiver = Receiver(shape, source=0)
    slots = np.zeros((1, 1024), TICK_SLOT_DTYPE)  # Nobody reads them: they hold every tick of the warm-up.
    words = slots.view(np.int64).reshape(1, 1024, -1)
    ring = Ring(np.zeros(engine_memory.CURSOR_WORDS, np.int64), slots, words)
    session = moldudp64.session_bytes("WARM")
    messages = warm_messages(payload)
    try:
        with (
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as listening,
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sending,
        ):
            listening.bind(("127.0.0.1", 0))
            listening.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPING, _SOFTWARE_STAMPS)
            listening.setsockopt(socket.SOL_SOCKET, SO_RXQ_OVFL, 1)
            sending.connect(listening.getsockname())
            receiver.memory.settings[memory.IDLE_BLOCK] = 1
            receiver.listen_to([listening, None, None])
            receiver.start(engine, ring=ring)
            for number in range(_WARM_PACKETS):
                first = 1 + number * len(messages)
                sending.send(moldudp64.pack_packet(session, first, messages))
                sending.send(moldudp64.pack_header(session, first + len(messages), moldudp64.HEARTBEAT))
            deadline_s = time.monotonic() + _WARM_PATIENCE_S
            while receiver.word(memory.PACKETS) < 2 * _WARM_PACKETS:
                if time.monotonic() > deadline_s or not receiver.alive:
                    raise FeedError("the feed's thread took no packet in its warm-up; is loopback (lo) up?")
                time.sleep(0.0002)
            receiver.stop()
    finally:
        receiver.stop()
        receiver.close()


def _lay_out_batch(made: FeedMemory) -> None:
    """Point every mmsghdr at its buffer and its control data, once."""
    packets, controls = made.packets.ctypes.data, made.controls.ctypes.data
    vectors = made.vectors.ctypes.data
    for place in range(BATCH_MAX):
        made.vectors[place] = (packets + place * PACKET_BYTES, PACKET_BYTES)
        made.headers[place] = (0, 0, vectors + place * 16, 1, controls + place * CONTROL_WORDS * 8, 0, 0, 0)
