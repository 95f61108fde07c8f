"""A daemon that has no descriptor or memory left for a strategy: a sentence or a wait, and nothing leaked or held up."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest

from penstock.v1 import shared_ring as layout
from penstock_daemon.shared_memory import segment as segments
from support.daemon import RunningDaemon, running_daemon, small
from support.raw_stream import RawStream
from support.segment_client import AttachRefusedError, attach, connect, reply_of, request
from support.tick_arrays import quotes
from support.victim import wait_until

MANY = (20_000, 20_000)


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningDaemon]:
    folder = tmp_path_factory.mktemp("shortage")
    with running_daemon(folder, *small(folder, "shared_memory.slots=128", "sessions.max=3")) as daemon:
        yield daemon


def descriptors(daemon: RunningDaemon) -> set[int]:
    return {int(path.name) for path in Path(f"/proc/{daemon.pid}/fd").iterdir()}


def mapped(daemon: RunningDaemon) -> int:
    return Path(f"/proc/{daemon.pid}/maps").read_text().count("penstock-session-")


@contextlib.contextmanager
def only(daemon: RunningDaemon, more: int) -> Iterator[None]:
    """Let the daemon open *more* descriptors than it has."""
    held = descriptors(daemon)
    free = (number for number in itertools.count() if number not in held)
    resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE, (next(itertools.islice(free, more, None)), MANY[1]))
    try:
        yield
    finally:
        resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE, MANY)


@pytest.mark.parametrize("more", [1, 2], ids=["none for the segment", "none for the bell"])
def test_attachment_without_descriptors_gets_a_sentence_and_leaks_nothing(daemon: RunningDaemon, more: int) -> None:
    before = len(descriptors(daemon))
    with RawStream(daemon.address) as stream:
        welcome = stream.hello(shared_memory=True)
        with only(daemon, more), pytest.raises(AttachRefusedError, match=r"shared_memory\.slots: was 128 \(Too many"):
            attach(welcome)
    wait_until(lambda: (len(descriptors(daemon)), mapped(daemon)) == (before, 0))


def test_strategy_that_nobody_can_accept_waits_and_the_event_loop_does_not_spin(daemon: RunningDaemon) -> None:
    with RawStream(daemon.address) as stream:
        welcome = stream.hello(shared_memory=True)
        before = len(daemon.events("attach_waits"))
        with only(daemon, 0), connect(welcome.shared_memory.address) as waiting:
            waiting.send(request(bytes(16)))
            wait_until(lambda: len(daemon.events("attach_waits")) > before)
            assert len(daemon.events("attach_waits")) == before + 1, (
                "one look in a while, not one in each turn of the loop"
            )
            resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE, MANY)
            assert reply_of(waiting)[2].startswith("token: "), "taken from the queue without another knock"
        with attach(welcome) as segment:
            segment.publish(quotes(5))
            assert len(segment.predictions(5)) == 5


def test_pages_that_the_host_does_not_have_are_an_error_and_not_a_signal_later(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def none_left(descriptor: int, start: int, size: int) -> None:
        asked.append((descriptor, start, size))
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    # Only a host that is out of memory says so by itself.
    monkeypatch.setattr(segments.os, "posix_fallocate", none_left)
    with pytest.raises(OSError, match="No space left"):
        segments.Segment(128, session_id=1, first_sequence=0, lock=False)
    ((descriptor, start, size),) = asked
    assert (start, size) == (0, layout.segment_bytes(128))
    with pytest.raises(OSError, match="Bad file"):
        os.fstat(descriptor)
