"""Damaged files of every format: sound ticks or a TickFileError, never another exception."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from penstock.v1.records import TICK_LENGTH_WORDS, TICK_RTYPE
from penstock_client.files import TickFileError, open_ticks, write_ticks
from penstock_client.instruments import Instrument
from support.tick_arrays import quotes

NAMES = ["a.dbn", "a.dbn.zst", "a.parquet", "a.csv", "a.csv.gz"]
TWO = [Instrument(1, "BTCUSDT", "TEST.VENUE", 1000), Instrument(2, "ETHUSDT", "TEST.VENUE", 10)]


def read_damaged(path: Path, content: bytes) -> bool:
    """Write and read; return whether it was taken for a tick file."""
    path.write_bytes(content)
    try:
        file = open_ticks(path)
    except TickFileError as refusal:
        sentence = str(refusal)
    else:
        sentence = ""
    if sentence:
        assert path.name in sentence
        assert ";" in sentence, "a refusal says what to do"
        return False
    assert set(file.ticks["instrument_id"].tolist()) == {one.instrument_id for one in file.instruments}
    assert set(file.ticks["length"].tolist()) <= {TICK_LENGTH_WORDS}
    assert set(file.ticks["rtype"].tolist()) <= {TICK_RTYPE}
    return True


@pytest.fixture(params=NAMES)
def sound(request, tmp_path) -> tuple[Path, bytes]:
    path = tmp_path / request.param
    write_ticks(path, quotes(20, (1, 2)), TWO)
    return path, path.read_bytes()


def test_a_file_cut_anywhere_is_refused_or_shorter(sound):
    path, whole = sound
    for size in range(0, len(whole), max(len(whole) // 300, 1)):
        taken = read_damaged(path, whole[:size])
        assert not taken or path.suffix in (".csv", ".dbn"), f"cut at {size} of {len(whole)} was not noticed"


def test_a_file_with_flipped_bits_is_refused_or_read(sound):
    path, whole = sound
    chance = random.Random(11)
    for _ in range(400):
        damaged = bytearray(whole)
        for _ in range(chance.choice([1, 1, 2, 8])):
            damaged[chance.randrange(len(damaged))] ^= 1 << chance.randrange(8)
        read_damaged(path, bytes(damaged))


def test_a_damaged_header_or_tail_is_refused_or_read(sound):
    path, whole = sound
    chance = random.Random(12)
    for _ in range(300):
        damaged = bytearray(whole)
        at = chance.randrange(min(len(whole), 64)) * chance.choice([1, -1])
        damaged[at] = chance.randrange(256)
        read_damaged(path, bytes(damaged))


def test_noise_after_a_known_start_is_refused(sound):
    path, whole = sound
    chance = random.Random(13)
    for size in (0, 1, 7, 80, 4096):
        assert not read_damaged(path, whole[:8] + chance.randbytes(size))
