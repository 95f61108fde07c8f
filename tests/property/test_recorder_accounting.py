"""Whatever a disk does, a recording and its catalogue account for every tick of the session."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from penstock.v1.records import TICK_BYTES
from penstock_client.instruments import Instrument
from penstock_daemon import recorder_file
from penstock_daemon.recorder_catalogue import Catalogue
from penstock_daemon.recorder_session import Chunk, SessionFiles, Tally
from support.recordings import read_recordings
from support.tick_arrays import quotes

ONE = [Instrument(1, "BTCUSDT", "X", 1000)]

# What the disk does to a write: takes it, takes so many bytes of it, or refuses it.
disk_moods = st.none() | st.integers(1, 400) | st.sampled_from([errno.ENOSPC, errno.EIO]).map(OSError)
writes = st.lists(st.lists(st.integers(1, 9), max_size=4), max_size=12)  # Ticks per chunk, chunks per write.


@contextmanager
def moody_disk(moods: Sequence[int | OSError | None]) -> Iterator[None]:
    """Let the disk take, cut short or refuse one write after the other; after the last mood it takes everything."""
    real, left = os.pwritev, list(moods)

    def write(descriptor: int, buffers: Sequence[memoryview], at: int) -> int:
        mood = left.pop(0) if left else None
        if isinstance(mood, OSError):
            raise mood
        if mood is None:
            return real(descriptor, buffers, at)
        return real(descriptor, [b"".join(buffers)[:mood]], at)

    with mock.patch.object(recorder_file.os, "pwritev", write):
        yield


@given(writes, st.lists(disk_moods, max_size=20), st.integers(1, 40), st.sets(st.integers(0, 11)))
def test_files_and_gaps_account_for_every_tick_in_order(plan, moods, rotate_ticks, gaps_before):
    ticks = quotes(sum(map(sum, plan)) + 10 * len(gaps_before), gap_ns=1000)
    tally = Tally(logged_ns=2**62)  # Quiet.
    at = dropped = 0
    with tempfile.TemporaryDirectory() as name, moody_disk(moods):
        folder = Path(name)
        files = SessionFiles(
            folder, Catalogue(folder), tally, 1, "s", ONE, rotate_bytes=rotate_ticks * TICK_BYTES, rotate_ns=10
        )
        for now_ns, counts in enumerate(plan):
            if now_ns in gaps_before:
                files.gap(10)
                at, dropped = at + 10, dropped + 10
            chunks = []
            for count in counts:
                chunks.append(Chunk(ticks[at : at + count].tobytes(), rebuild=False))
                at += count
            files.write(chunks, now_ns)
            files.rotate_if_due(now_ns)
        files.finish(len(plan))
        assert not list(folder.glob("*.partial"))
        recorded = read_recordings(folder) if (folder / "metadata.json").exists() else []

    assert tally.ticks_written + tally.ticks_lost + dropped == at
    assert sum(len(file.ticks) for file in recorded) == tally.ticks_written
    assert tally.files_completed == len(recorded)
    for file in recorded:
        expected = positions(file.entry)
        assert expected.size == len(file.ticks)
        assert file.ticks.tobytes() == ticks[expected].tobytes()
    assert (tally.write_errors == 0) <= (tally.ticks_lost == 0)


def positions(entry: dict) -> np.ndarray:
    """Return where in its session each tick of a file stands, by what the catalogue says."""
    found, at, within = [], entry["first_tick"], 0
    for gap in entry["gaps"]:
        found.append(np.arange(at, at + gap["after_ticks"] - within))
        at += gap["after_ticks"] - within + gap["ticks"]
        within = gap["after_ticks"]
    found.append(np.arange(at, at + entry["rows"] - within))
    return np.concatenate(found)
