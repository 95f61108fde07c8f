"""An engine in this process and strategies' segments on it, with neither gRPC nor the attach socket between.

with segment_engine() as engine, attached(engine, 1) as client:
    client.publish(ticks)
    predictions = client.predictions(len(ticks))
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
from collections.abc import Iterator, Sequence
from dataclasses import replace

from penstock.v1.shared_ring import SegmentEnd
from penstock_daemon import engine_memory as memory
from penstock_daemon.engine import Engine, EngineSettings
from penstock_daemon.engine_memory import Command
from penstock_daemon.shared_memory.segment import Segment
from support.engines import SIZES, running_engine
from support.models import random_model
from support.segment_client import SegmentClient

SEGMENT_SIZES = replace(SIZES, segment_instruments=4)
SLOTS = 64
MODEL = random_model(1)


@contextlib.contextmanager
def segment_engine(*, sources: int = 5, settings: EngineSettings | None = None, tap_ticks: int = 0) -> Iterator[Engine]:
    """An engine that can serve segments, on every source but that of the warm-up."""
    sizes = replace(SEGMENT_SIZES, sources=sources, tap_ticks=tap_ticks)
    with running_engine(MODEL, settings=settings, sizes=sizes) as engine:
        yield engine


@contextlib.contextmanager
def attached(
    engine: Engine,
    source: int,
    *,
    ids: Sequence[int] = (1,),
    states: Sequence[int] = (1,),
    bulk: bool = False,
    slots: int = SLOTS,
    first_sequence: int = 0,
    opened: bool = False,
    repeated: int = 0,
) -> Iterator[SegmentClient]:
    """A strategy that is attached to *source*, which is opened for it unless it is *opened* before; see Attachment.begin."""
    if not opened:
        engine.reset_source(source)
        for state in states:
            engine.command(Command.RESET_STATE, state)
        engine.command(Command.OPEN_SOURCE, source, 0, memory.PATH_SHARED_MEMORY, int(bulk))
    engine.buffers.segment_ids[source, : len(ids)] = ids
    engine.buffers.segment_states[source, : len(states)] = states
    segment = Segment(slots, session_id=source, first_sequence=first_sequence, lock=False)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    bell = os.eventfd(0, os.EFD_NONBLOCK)
    engine.poll.register(bell, select.EPOLLIN | select.EPOLLET)
    command = (source, segment.address, slots, ours.fileno(), len(ids), first_sequence, repeated)
    engine.wait_applied(engine.command(Command.ATTACH_SEGMENT, *command))
    client = SegmentClient(theirs, os.dup(segment.descriptor), os.dup(bell), segment.size_bytes)
    segment.close_descriptor()
    try:
        yield client
    finally:
        engine.wait_applied(engine.command(Command.DETACH_SEGMENT, source, SegmentEnd.CLOSED))
        if not opened:
            engine.wait_applied(engine.command(Command.CLOSE_SOURCE, source))
        client.close()
        engine.poll.unregister(bell)
        os.close(bell)
        ours.close()
        segment.free()


def fault(engine: Engine, source: int) -> SegmentEnd:
    """Why the engine serves a source's segment no longer; SERVED while it does."""
    return SegmentEnd(int(engine.buffers.segments[source, memory.SEGMENT_FAULT]))
