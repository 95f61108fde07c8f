"""The recorder: files that every DBN reader takes, in the order of the session, and what happens on the way."""

from __future__ import annotations

import datetime as dt
import json
import threading
import time
from pathlib import Path

import databento_dbn as dbn
import numpy as np
import pytest

from penstock.v1.records import TICK_BYTES
from penstock_client.files import merge, open_ticks
from penstock_client.instruments import Instrument
from penstock_daemon import recorder as recorder_module
from penstock_daemon.recorder import Recorder, RecorderError
from penstock_daemon.recorder_file import header_dataset, header_symbols
from support.recordings import read_recordings
from support.tick_arrays import quotes

MIB = 1024 * 1024
HOUR_NS = 3_600 * 10**9
TWO = [Instrument(1, "BTCUSDT", "BINANCE.USDM", 1000), Instrument(7, "ETHUSDT", "BINANCE.USDM", 100)]


def make_recorder(folder: Path, **changes) -> Recorder:
    settings = {"rotate_bytes": 64 * MIB, "rotate_ns": HOUR_NS, "queue_bytes": 8 * MIB} | changes
    return Recorder(folder, **settings)


def wait_for(recorder: Recorder, **wanted: int) -> None:
    deadline = time.monotonic() + 60
    while any(getattr(recorder.stats(), name) < value for name, value in wanted.items()):
        assert time.monotonic() < deadline, recorder.stats()
        time.sleep(0.005)


def partials(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.partial"))


def test_recorded_session_is_read_by_databento_dbn_to_the_byte(tmp_path):
    ticks = quotes(1000, (1, 7))
    recorder = make_recorder(tmp_path)
    recording = recorder.open_session(3, "momentum/1", TWO)
    assert all(recording.append(ticks[start : start + 70].tobytes()) for start in range(0, 1000, 70))
    recording.close()
    assert recorder.close(10)
    (file,) = read_recordings(tmp_path)
    assert file.ticks.tobytes() == ticks.tobytes()
    metadata = file.metadata
    assert (metadata.version, metadata.schema, metadata.dataset) == (3, "mbp-1", "BINANCE.USDM")
    assert (metadata.start, metadata.end) == (ticks["ts_recv"][0], ticks["ts_recv"][-1])
    assert {symbol: one[0]["symbol"] for symbol, one in metadata.mappings.items()} == {"BTCUSDT": "1", "ETHUSDT": "7"}
    day = dt.datetime.fromtimestamp(int(ticks["ts_recv"][0]) // 10**9, tz=dt.UTC).date()
    interval = metadata.mappings["BTCUSDT"][0]
    assert interval["start_date"] <= day < interval["end_date"]
    assert file.path.name.endswith("Z-000003-momentum-1-0001.mbp-1.dbn")
    assert sorted(one.name for one in tmp_path.iterdir()) == [file.path.name, "metadata.json"]


def test_catalogue_has_what_a_header_has_no_place_for(tmp_path):
    recorder = make_recorder(tmp_path)
    recording = recorder.open_session(3, "é", TWO)
    recording.append(quotes(5, (1, 7)).tobytes(), rebuild=True)
    recording.append(quotes(7, (1, 7)).tobytes())
    assert recorder.close(10)
    (file,) = read_recordings(tmp_path)
    assert file.entry == {
        "file": file.path.name,
        "format": "DBN v3, mbp-1",
        "session_id": 3,
        "client_name": "é",
        "part": 1,
        "first_tick": 0,
        "instruments": {
            "1": {"dataset": "BINANCE.USDM", "symbol": "BTCUSDT"},
            "7": {"dataset": "BINANCE.USDM", "symbol": "ETHUSDT"},
        },
        "size_scale": {"1": 1000, "7": 100},
        "rows": 12,
        "rebuild_ticks": 5,
        "gaps": [],
    }


def test_client_reads_a_recording_in_the_order_of_its_session(tmp_path):
    ticks = quotes(300, (1, 7))[::-1]  # Times that run backwards are data.
    recorder = make_recorder(tmp_path, rotate_bytes=100 * TICK_BYTES)
    recording = recorder.open_session(1, "s", TWO)
    for start in range(0, 300, 50):
        recording.append(ticks[start : start + 50].tobytes())
    assert recorder.close(10)
    files = [open_ticks(path) for path in sorted(tmp_path.glob("*.dbn"))]
    assert all(file.keeps_order for file in files)
    instruments, merged = merge(files)
    assert merged.tobytes() == ticks.tobytes()
    assert instruments == TWO


def test_recorder_stopped_without_a_close_of_its_sessions_completes_their_files(tmp_path):
    recorder = make_recorder(tmp_path)
    sessions = [recorder.open_session(number, "s", TWO) for number in range(3)]
    for number, session in enumerate(sessions):
        session.append(quotes(number + 1).tobytes())
    assert recorder.close(10)
    assert [len(file.ticks) for file in read_recordings(tmp_path)] == [1, 2, 3]
    assert not partials(tmp_path)
    assert recorder.close(10)


def test_session_without_ticks_leaves_no_file(tmp_path):
    recorder = make_recorder(tmp_path)
    recorder.open_session(1, "s", TWO).close()
    recording = recorder.open_session(2, "s", TWO)
    assert recording.append(b"")
    assert recorder.close(10)
    assert list(tmp_path.iterdir()) == []


def test_file_is_completed_before_it_grows_past_its_size(tmp_path):
    ticks = quotes(1000)
    recorder = make_recorder(tmp_path, rotate_bytes=100 * TICK_BYTES)
    recording = recorder.open_session(1, "s", TWO)
    for start in range(0, 1000, 30):
        recording.append(ticks[start : start + 30].tobytes())
    assert recorder.close(10)
    files = read_recordings(tmp_path)
    assert [len(file.ticks) for file in files] == [90] * 10 + [100]
    assert [file.entry["first_tick"] for file in files] == list(range(0, 990, 90))
    assert [file.entry["part"] for file in files] == list(range(1, 12))
    assert b"".join(file.ticks.tobytes() for file in files) == ticks.tobytes()
    assert recorder.stats().files_completed == 11


def test_message_that_is_larger_than_a_file_stays_whole(tmp_path):
    recorder = make_recorder(tmp_path, rotate_bytes=10 * TICK_BYTES)
    recording = recorder.open_session(1, "s", TWO)
    for count in (3, 40, 3):
        recording.append(quotes(count).tobytes())
    assert recorder.close(10)
    assert [len(file.ticks) for file in read_recordings(tmp_path)] == [3, 40, 3]


def test_file_is_completed_when_it_is_old_enough(tmp_path):
    now_ns = [0]
    recorder = make_recorder(tmp_path, rotate_ns=1000, clock_ns=lambda: now_ns[0])
    recording = recorder.open_session(1, "s", TWO)
    recording.append(quotes(3).tobytes())
    wait_for(recorder, ticks_written=3)
    assert len(partials(tmp_path)) == 1
    now_ns[0] = 1000
    wait_for(recorder, files_completed=1)  # Without another tick: the thread looks by itself.
    assert not partials(tmp_path)
    recording.append(quotes(4).tobytes())
    assert recorder.close(10)
    assert [len(file.ticks) for file in read_recordings(tmp_path)] == [3, 4]


def test_open_file_is_named_partial_and_holds_whole_records(tmp_path):
    recorder = make_recorder(tmp_path)
    recording = recorder.open_session(1, "s", TWO)
    recording.append(quotes(3).tobytes())
    wait_for(recorder, ticks_written=3)
    (partial,) = partials(tmp_path)
    assert not list(tmp_path.glob("*.dbn"))
    assert partial.stat().st_mode & 0o777 == 0o600
    decoder = dbn.DBNDecoder(compression=dbn.Compression.NONE)
    assert len(decoder.write_and_decode(partial.read_bytes())) == 1 + 3
    assert recorder.close(10)


def test_full_queue_drops_whole_messages_counts_them_and_notes_where(tmp_path, monkeypatch):
    slow = threading.Event()
    real = recorder_module.SessionFiles.write

    def stuck(self, chunks, now_ns):
        assert slow.wait(60)
        real(self, chunks, now_ns)

    monkeypatch.setattr(recorder_module.SessionFiles, "write", stuck)  # The one way to have a disk stand still.
    recorder = make_recorder(tmp_path, queue_bytes=10 * TICK_BYTES)
    recording = recorder.open_session(1, "s", TWO)
    ticks = quotes(40)
    taken = [recording.append(ticks[start : start + 4].tobytes()) for start in range(0, 40, 4)]
    assert taken == [True, True] + [False] * 8
    stats = recorder.stats()
    assert (stats.ticks_dropped, stats.queued_bytes, stats.queue_bytes) == (32, 8 * TICK_BYTES, 10 * TICK_BYTES)
    slow.set()
    wait_for(recorder, ticks_written=8)
    while recorder.stats().queued_bytes:
        time.sleep(0.005)
    assert recording.append(ticks[:5].tobytes())
    assert recorder.close(10)
    (file,) = read_recordings(tmp_path)
    assert file.ticks.tobytes() == ticks[:8].tobytes() + ticks[:5].tobytes()
    assert file.entry["gaps"] == [{"after_ticks": 8, "ticks": 32}]
    assert recorder.stats().gaps == 1


def test_ticks_dropped_at_the_end_are_noted_too(tmp_path):
    recorder = make_recorder(tmp_path, queue_bytes=10 * TICK_BYTES)
    recording = recorder.open_session(1, "s", TWO)
    assert recording.append(quotes(3).tobytes())
    assert not recording.append(quotes(11).tobytes())
    recording.close()
    recording.close()
    assert recorder.close(10)
    (file,) = read_recordings(tmp_path)
    assert file.entry["gaps"] == [{"after_ticks": 3, "ticks": 11}]


def test_append_after_the_recorder_stopped_is_a_drop(tmp_path):
    recorder = make_recorder(tmp_path)
    recording = recorder.open_session(1, "s", TWO)
    assert recorder.close(10)
    assert not recording.append(quotes(3).tobytes())
    recording.close()
    assert recorder.stats().ticks_dropped == 3


def test_part_of_a_record_is_our_mistake(tmp_path):
    recorder = make_recorder(tmp_path)
    recording = recorder.open_session(1, "s", TWO)
    with pytest.raises(AssertionError, match="whole records"):
        recording.append(b"x" * 81)
    assert recorder.close(10)


def test_append_after_the_recording_is_closed_is_a_drop(tmp_path):
    recorder = make_recorder(tmp_path)
    recording = recorder.open_session(1, "s", TWO)
    assert recording.append(quotes(2).tobytes())
    recording.close()
    assert not recording.append(quotes(3).tobytes())
    assert recorder.close(10)
    assert (recorder.stats().ticks_written, recorder.stats().ticks_dropped) == (2, 3)


def test_recordings_of_several_sessions_never_mix(tmp_path):
    recorder = make_recorder(tmp_path, rotate_bytes=64 * TICK_BYTES)
    sessions = {number: recorder.open_session(number, f"c{number}", TWO) for number in range(4)}
    sent = {number: quotes(200, seed=number) for number in sessions}

    def feed(number: int) -> None:
        for start in range(0, 200, 7):
            assert sessions[number].append(sent[number][start : start + 7].tobytes())

    threads = [threading.Thread(target=feed, args=(number,)) for number in sessions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert recorder.close(10)
    files = read_recordings(tmp_path)
    for number in sessions:
        own = [file.ticks for file in files if file.entry["session_id"] == number]
        assert np.concatenate(own).tobytes() == sent[number].tobytes()


def test_folder_that_another_recorder_has_is_refused(tmp_path):
    recorder = make_recorder(tmp_path)
    with pytest.raises(RecorderError, match=r"record\.folder: must be a folder of its own, was .*, where process"):
        make_recorder(tmp_path)
    assert recorder.close(10)
    assert make_recorder(tmp_path).close(10)


def test_folder_is_made_where_it_is_missing(tmp_path):
    assert make_recorder(tmp_path / "a" / "b").close(10)
    assert (tmp_path / "a" / "b").is_dir()


def test_folder_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RecorderError, match=r"record\.folder: must be a folder that can be made and written"):
        make_recorder(tmp_path / "file")
    with pytest.raises(RecorderError, match=r"record\.folder: must be a folder that can be made and written"):
        make_recorder(Path("a\0b"))


@pytest.mark.parametrize("content", ["[]", "{", '{"files": [1]}', '{"files": {}}', "[" * 100_000])
def test_foreign_catalogue_is_refused_and_left_as_it_is(tmp_path, content):
    (tmp_path / "metadata.json").write_text(content)
    with pytest.raises(RecorderError, match="is no catalogue of recordings"):
        make_recorder(tmp_path)
    assert (tmp_path / "metadata.json").read_text() == content
    (tmp_path / "metadata.json").unlink()
    assert make_recorder(tmp_path).close(10)


def test_catalogue_keeps_what_others_wrote(tmp_path):
    entries = [{"file": "a.dbn", "size_scale": {"1": 7}}, {"file": "a.dbn"}, {"file": 5}, {}]
    theirs = {"note": "mine", "files": entries, "é": [1, {"x": None}]}
    (tmp_path / "metadata.json").write_text(json.dumps(theirs))
    recorder = make_recorder(tmp_path)
    recorder.open_session(1, "s", TWO).append(quotes(3).tobytes())
    assert recorder.close(10)
    whole = json.loads((tmp_path / "metadata.json").read_text())
    *kept, ours = whole.pop("files")
    assert kept == theirs.pop("files")
    assert whole == theirs
    assert ours["rows"] == 3


def test_catalogue_keeps_what_others_write_while_it_is_open(tmp_path):
    recorder = make_recorder(tmp_path)
    recording = recorder.open_session(1, "s", TWO)
    recording.append(quotes(3).tobytes())
    wait_for(recorder, ticks_written=3)
    whole = json.loads((tmp_path / "metadata.json").read_text())
    theirs = {"file": "a.dbn", "size_scale": {"1": 7}}
    (tmp_path / "metadata.json").write_text(json.dumps({"files": [theirs, *whole["files"]]}))
    assert recorder.close(10)
    (file,) = read_recordings(tmp_path)
    assert file.entry["rows"] == 3
    assert json.loads((tmp_path / "metadata.json").read_text())["files"][0] == theirs


@pytest.mark.parametrize(
    ("instruments", "names"),
    [
        ([Instrument(1, "A"), Instrument(2, "B")], ["A", "B"]),
        ([Instrument(1, "A", "X"), Instrument(2, "A", "Y")], ["X/A", "Y/A"]),
        ([Instrument(1, "é" * 64), Instrument(2, "中")], ["?" * 53 + "#1", "?#2"]),
        ([Instrument(4294967295, "x" * 64), Instrument(2, "a\tb")], ["x" * 64, "a?b#2"]),
        (
            [Instrument(1, "x" * 64, "X"), Instrument(2, "x" * 64, "Y")],
            ["X/" + "x" * 51 + "#1", "Y/" + "x" * 51 + "#2"],
        ),
    ],
)
def test_symbols_that_a_header_can_not_hold_are_spelled_in_a_way_it_can(tmp_path, instruments, names):
    assert header_symbols(instruments) == names
    recorder = make_recorder(tmp_path)
    ids = tuple(one.instrument_id for one in instruments)
    recorder.open_session(1, "s", instruments).append(quotes(4, ids).tobytes())
    assert recorder.close(10)
    (file,) = read_recordings(tmp_path)
    assert sorted(file.metadata.mappings) == sorted(names)
    assert [file.entry["instruments"][str(one.instrument_id)]["symbol"] for one in instruments] == [
        one.symbol for one in instruments
    ]


@pytest.mark.parametrize(
    ("datasets", "dataset"),
    [(["X", "X"], "X"), (["X", "Y"], "PENSTOCK"), ([""], "PENSTOCK"), (["x" * 16], "PENSTOCK"), (["é"], "PENSTOCK")],
)
def test_dataset_that_a_header_can_not_hold_is_left_to_the_catalogue(datasets, dataset):
    instruments = [Instrument(number, f"S{number}", name) for number, name in enumerate(datasets)]
    assert header_dataset(instruments) == dataset


@pytest.mark.parametrize("ts_recv", [0, 2**63 - 1, 2**64 - 1])
def test_any_time_has_a_date_in_the_header(tmp_path, ts_recv):
    ticks = quotes(2)
    ticks["ts_recv"] = ts_recv
    recorder = make_recorder(tmp_path)
    recorder.open_session(1, "s", TWO).append(ticks.tobytes())
    assert recorder.close(10)
    assert recorder.stats().write_errors == 0
    (file,) = read_recordings(tmp_path)
    assert file.ticks.tobytes() == ticks.tobytes()
