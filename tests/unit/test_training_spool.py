"""Tick files laid out on disk: the same ticks and labels as read whole, in bounded memory."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from penstock_client.files import TickFileError, merge, open_pieces, open_ticks, write_ticks
from penstock_client.instruments import Instrument
from penstock_tuning.model.horizons import parse_horizons
from penstock_tuning.model.labelled import label
from penstock_tuning.model.spool import name_of, spool
from penstock_tuning.model.targets import make_targets, timeline
from support.tick_arrays import quotes

INSTRUMENTS = [Instrument(1, "AAA", "TEST"), Instrument(2, "BBB", "TEST", 100), Instrument(3, "CCC", "TEST")]


@pytest.fixture(params=["a.dbn", "a.dbn.zst", "a.parquet", "a.csv", "a.csv.gz"])
def file(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path = tmp_path / request.param
    ticks = quotes(9_000, (1, 2, 1, 3))
    ticks["bid_px"][::50] = 2**63 - 1
    write_ticks(path, ticks, INSTRUMENTS)
    return path


def test_pieces_are_the_ticks_of_the_file(file: Path) -> None:
    whole = open_ticks(file)
    names = {one.instrument_id: (one.dataset, one.symbol, one.size_scale) for one in whole.instruments}
    parts, told = [], []
    for instruments, ticks in open_pieces(file, piece_ticks=1_000):
        assert len(ticks) <= 4_000
        by_id = {one.instrument_id: (one.dataset, one.symbol, one.size_scale) for one in instruments}
        told += [by_id[one] for one in ticks["instrument_id"].tolist()]
        parts.append(ticks)
    assert len(parts) > 2
    together = np.concatenate(parts)
    assert told == [names[one] for one in whole.ticks["instrument_id"].tolist()]
    together["instrument_id"] = whole.ticks["instrument_id"]
    assert together.tobytes() == whole.ticks.tobytes()


def test_streams_are_the_instruments_of_the_file_in_order_of_time(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("penstock_tuning.model.spool.WALK_TICKS", 700)
    instruments, ticks = merge([open_ticks(file)])
    streams = spool(str(file), None, ())
    assert [one.name for one in streams] == sorted(name_of(one) for one in instruments)
    for one in instruments:
        (stream,) = (found for found in streams if found.name == name_of(one))
        own = ticks[ticks["instrument_id"] == one.instrument_id].copy()
        kept = stream.ticks.copy()
        kept["instrument_id"] = own["instrument_id"]
        assert kept.tobytes() == own.tobytes()
        direct = timeline(own)
        for name in ("stamp", "mid", "changes"):
            np.testing.assert_array_equal(getattr(stream.line, name), getattr(direct, name))


def test_ticks_out_of_order_are_sorted_stably(tmp_path: Path) -> None:
    ticks = quotes(5_000)
    ticks["ts_recv"] = (ticks["ts_recv"] // 10**8) * 10**8  # Many share a stamp.
    mixed = np.concatenate([ticks[3_000:], ticks[:3_000]])
    write_ticks(tmp_path / "a.dbn", mixed, INSTRUMENTS[:1])
    (stream,) = spool(str(tmp_path / "a.dbn"), None, ())
    assert stream.ticks.tobytes() == merge([open_ticks(tmp_path / "a.dbn")])[1].tobytes()


def test_fault_in_a_late_piece_names_its_record_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.dbn"
    write_ticks(path, quotes(5_000), INSTRUMENTS[:1])
    data = bytearray(path.read_bytes())
    data[-80 * 3 + 1] = 0xA0
    path.write_bytes(bytes(data))
    for read in (lambda: list(open_pieces(path, piece_ticks=1_000)), lambda: open_ticks(path)):
        with pytest.raises(TickFileError, match=r"record 4997: only mbp-1 records"):
            read()
    path.write_bytes(bytes(data[: -80 * 3 - 7]))
    with pytest.raises(TickFileError, match=r"record 4996: the file ends inside a record: 73 of 80 bytes"):
        list(open_pieces(path, piece_ticks=1_000))


def test_labels_of_a_stretch_are_those_of_the_whole() -> None:
    ticks = quotes(4_000)
    horizons = parse_horizons("next,next_1ms,20ev,50ms")
    line = timeline(ticks)
    stream = type("Stream", (), {"ticks": ticks, "line": line})()
    boundaries = [int(line.stamp[one]) for one in (900, 2_000, 3_100)]
    whole = label(stream, horizons, boundaries)
    for start, stop in ((0, 100), (100, 1_500), (1_500, 4_000)):
        part = label(stream, horizons, boundaries, start, stop)
        np.testing.assert_array_equal(part.segment, whole.segment[start:stop])
        for index, horizon in enumerate(horizons):
            direct = make_targets(ticks, horizon)
            for name in ("returns", "direction", "known_ns"):
                np.testing.assert_array_equal(getattr(part.targets[index], name), getattr(direct, name)[start:stop])


_BOUNDED = """
import resource, sys
from pathlib import Path
from penstock_tuning.model.cli import main
arguments = ["--units", "16", "--fan-in", "2", "--memory-averages", "none", "--memory-lags", "0", "--horizons", "20ev"]
assert main(["fit", sys.argv[1], *arguments, "--out", sys.argv[3]]) == 0
data_kb = next(int(line.split()[1]) for line in Path("/proc/self/status").read_text().splitlines() if "VmData" in line)
limit = 1024 * data_kb + int(sys.argv[4])
resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
if sys.argv[5] == "whole":
    from penstock_client.files import open_ticks
    open_ticks(sys.argv[2])
else:
    assert main(["fit", sys.argv[2], *arguments, "--out", sys.argv[3]]) == 0
"""


def test_memory_of_a_fit_does_not_grow_with_the_file(tmp_path: Path) -> None:
    """Twice as many bytes of ticks as the process may still allocate; read whole, they don't fit."""
    limit = 48 * 2**20
    ticks = quotes(2 * limit // 80, gap_ns=1_000)
    write_ticks(tmp_path / "large.dbn.zst", ticks, INSTRUMENTS[:1])
    write_ticks(tmp_path / "small.dbn.zst", ticks[:20_000], INSTRUMENTS[:1])
    command = [sys.executable, "-c", _BOUNDED, str(tmp_path / "small.dbn.zst"), str(tmp_path / "large.dbn.zst")]
    for how, code in (("pieces", 0), ("whole", 1)):
        done = subprocess.run(
            [*command, str(tmp_path / "m.safetensors"), str(limit), how], check=False, capture_output=True, text=True
        )
        assert (done.returncode != 0) == bool(code), done.stderr
    assert "MemoryError" in done.stderr or "malloc" in done.stderr
