"""An attachment is believed only as far as it was checked: the reply, the descriptors, the seals, each number of the header."""

from __future__ import annotations

import fcntl
import os
import socket
import threading
from pathlib import Path

import pytest

from penstock.v1 import shared_ring as layout
from penstock_client.errors import DaemonProtocolError, LocalUsageError, SessionRefused
from penstock_client.shared_memory import words
from penstock_client.shared_memory.attach import attach
from penstock_client.shared_memory.segment import Expected
from penstock_client.shared_memory.words import fences
from support.ring_stand_in import SEALS, RingStandIn


def open_descriptors() -> set[str]:
    return {path.name for path in Path("/proc/self/fd").iterdir() if path.exists()}  # But the look's own.


def attached(stand_in: RingStandIn, expected: Expected | None = None):
    return attach(str(stand_in.path), stand_in.token, 10.0, fences(), expected)


def test_a_sound_segment_is_mapped_and_its_descriptors_go_with_it(tmp_path: Path):
    before = open_descriptors()
    with RingStandIn(tmp_path / "a.sock", 128, session_id=7, first_sequence=9) as stand_in:
        segment = attached(stand_in, Expected(7, 128, 9))
        assert (segment.slots, segment.first_sequence) == (128, 9)
        assert segment.tick_records.shape == segment.predictions.shape == (128,)
        assert segment.tick_records["length"].tolist() == [20] * 128
        segment.words[layout.CLIENT_WAITING_AT // 8] = 1
        assert stand_in.words[layout.CLIENT_WAITING_AT // 8] == 1
        assert not os.get_inheritable(segment.bell)
        assert not os.get_inheritable(segment._event)
        del segment
    del stand_in
    assert not open_descriptors() - before  # An earlier test's may close late.


@pytest.mark.parametrize(
    ("field", "at", "size", "value"),
    [
        ("magic", layout.MAGIC_AT, 8, 1),
        ("layout_version", layout.LAYOUT_VERSION_AT, 4, 2),
        ("slots", layout.SLOTS_AT, 4, 65),
        ("slots", layout.SLOTS_AT, 4, 0),
        ("slots", layout.SLOTS_AT, 4, 1 << 31),
        ("segment_bytes", layout.SLOTS_AT, 4, 128),
        ("segment_bytes", layout.SEGMENT_BYTES_AT, 8, 4096),
        ("tick_ring", layout.TICK_RING_AT, 8, 4097),
        ("prediction_ring", layout.PREDICTION_RING_AT, 8, (1 << 64) - 8),
        ("tick_slot_bytes", layout.TICK_SLOT_BYTES_AT, 4, 64),
        ("prediction_slot_bytes", layout.PREDICTION_SLOT_BYTES_AT, 4, 0),
    ],
)
def test_a_header_with_a_wrong_number_is_refused_by_its_name(
    tmp_path: Path, field: str, at: int, size: int, value: int
):
    with RingStandIn(tmp_path / "a.sock") as stand_in:
        stand_in.put(at, value, size)
        before = open_descriptors()
        with pytest.raises(DaemonProtocolError, match=f"none: {field}="):
            attached(stand_in)
        assert len(open_descriptors() - before) <= 1  # The stand-in's end.


@pytest.mark.parametrize("missing", [fcntl.F_SEAL_SHRINK, fcntl.F_SEAL_GROW, fcntl.F_SEAL_SEAL])
def test_a_segment_that_could_be_cut_under_its_reader_is_refused(tmp_path: Path, missing: int):
    with RingStandIn(tmp_path / "a.sock") as stand_in:
        stand_in.seals = SEALS & ~missing
        with pytest.raises(DaemonProtocolError, match="seals="):
            attached(stand_in)


def test_another_sessions_segment_is_refused(tmp_path: Path):
    with (
        RingStandIn(tmp_path / "a.sock", session_id=7) as stand_in,
        pytest.raises(DaemonProtocolError, match="Welcome said"),
    ):
        attached(stand_in, Expected(8, 64, 0))


def test_a_size_that_is_not_the_files_is_refused(tmp_path: Path):
    with RingStandIn(tmp_path / "a.sock") as stand_in:
        stand_in.bytes += 4096
        with pytest.raises(DaemonProtocolError, match="size="):
            attached(stand_in)


def test_a_refusal_brings_the_daemons_sentence(tmp_path: Path):
    with RingStandIn(tmp_path / "a.sock") as stand_in:
        stand_in.refusal = b"token: was used before"
        with pytest.raises(SessionRefused, match="token: was used before"):
            attached(stand_in)


def test_a_refusal_that_another_stream_may_mend_is_an_os_error(tmp_path: Path):
    with RingStandIn(tmp_path / "a.sock") as stand_in:
        stand_in.refusal, stand_in.status = b"token: is too old", 16
        with pytest.raises(ConnectionRefusedError, match="UNAUTHENTICATED: token: is too old"):
            attached(stand_in)


def answer_with(path: Path, reply: bytes, descriptors: list[int]) -> threading.Thread:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listener.bind(str(path))
    listener.listen(1)

    def serve() -> None:
        with listener, listener.accept()[0] as attaching:
            attaching.recv(100)
            if reply:
                socket.send_fds(attaching, [reply], descriptors)
            attaching.recv(1)

    thread = threading.Thread(target=serve)
    thread.start()
    return thread


@pytest.mark.parametrize(
    ("reply", "descriptors", "error"),
    [
        (b"short", 0, DaemonProtocolError),
        (layout.ATTACH_REPLY.pack(0, 2, 4096), 0, DaemonProtocolError),
        (layout.ATTACH_REPLY.pack(0, 1, 4096), 0, DaemonProtocolError),
        (layout.ATTACH_REPLY.pack(0, 1, 4096), 1, DaemonProtocolError),
        (layout.ATTACH_REPLY.pack(0, 1, 4096), 2, DaemonProtocolError),
        (layout.ATTACH_REPLY.pack(0, 1, 4096), 3, DaemonProtocolError),
    ],
)
def test_a_reply_that_is_none_leaves_no_descriptor_open(tmp_path: Path, reply: bytes, descriptors: int, error: type):
    before = open_descriptors()
    with (tmp_path / "file").open("wb") as file:  # A file is neither a memfd nor an event.
        thread = answer_with(tmp_path / "a.sock", reply, [file.fileno()] * descriptors)
        with pytest.raises(error):
            attach(str(tmp_path / "a.sock"), bytes(16), 10.0, fences())
        thread.join()
    assert not open_descriptors() - before  # An earlier test's may close late.


def test_nobody_there_is_an_os_error(tmp_path: Path):
    with pytest.raises(FileNotFoundError):
        attach(str(tmp_path / "none.sock"), bytes(16), 1.0, fences())


def test_words_through_libatomic_are_the_same_words(tmp_path: Path):
    with RingStandIn(tmp_path / "a.sock") as stand_in:
        other = fences("aarch64")
        other.full()
        segment = attach(str(stand_in.path), stand_in.token, 10.0, other)
        segment.words[layout.TICK_PUBLISHED_AT // 8] = -(1 << 60)
        assert stand_in.words[layout.TICK_PUBLISHED_AT // 8] == -(1 << 60)
        stand_in.words[layout.CLOSED_AT // 8] = 3
        assert segment.words[layout.CLOSED_AT // 8] == 3
        with pytest.raises(AssertionError, match="outside"):
            segment.words[stand_in.bytes // 8]
        segment.words[layout.TICK_PUBLISHED_AT // 8] = 0
        del segment


class Call:
    """A function of libatomic's that does nothing but note the memory order that it was asked for."""

    def __init__(self) -> None:
        self.orders: list[int] = []

    def __call__(self, *arguments: int) -> int:
        self.orders.append(arguments[-1])
        return 0


def test_elsewhere_no_load_of_a_word_overtakes_a_store_even_without_a_fence():
    load, store = Call(), Call()
    found = words._AtomicCalls(load, store).over(memoryview(bytearray(64)))
    found[1] = 1
    assert found[2] == 0
    sequentially_consistent = 5
    assert load.orders == store.orders == [sequentially_consistent]


def test_a_machine_without_fences_is_refused_with_what_to_install(monkeypatch: pytest.MonkeyPatch):
    def missing(_name: str) -> None:
        raise OSError("no such library")

    monkeypatch.setattr(words.ctypes, "CDLL", missing)
    with pytest.raises(LocalUsageError, match="install libatomic"):
        fences("aarch64")
    fences("x86_64").full()
