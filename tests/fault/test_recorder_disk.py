"""Disks that are full, gone, slow or cut off, and daemons that are killed: what is left of a recording."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.v1.records import TICK_BYTES
from penstock_client.files import open_ticks
from penstock_client.instruments import Instrument
from penstock_daemon.recorder import Recorder
from penstock_daemon.recorder_file import encode_header, mend_partial
from support.recordings import read_recordings
from support.tick_arrays import quotes

ONE = [Instrument(1, "BTCUSDT", "X", 1000)]
TESTS = Path(__file__).resolve().parent.parent

BEGIN = """
import json, resource, sys, time
from pathlib import Path
from penstock_client.instruments import Instrument
from penstock_daemon.logs import configure_logs
from penstock_daemon.recorder import Recorder
from support.tick_arrays import quotes

configure_logs("info", "json")

def settle(recorder):
    while recorder.stats().queued_bytes:
        time.sleep(0.005)

folder = Path(sys.argv[1])
ticks = quotes(5000)
recorder = Recorder(folder, 2**30, 2**60, 2**30)
recording = recorder.open_session(1, "s", [Instrument(1, "BTCUSDT", "X", 1000)])
"""

END = """
closed = recorder.close(10)
stats = recorder.stats()
print(json.dumps([closed, stats.ticks_written, stats.ticks_lost, stats.ticks_dropped, stats.write_errors]))
"""


def in_process(folder: Path, body: str, *prefix: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*prefix, sys.executable, "-c", BEGIN + body, str(folder)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")])},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


FILL_AND_FREE = """
limit = 360 + 100 * 80 + 37  # Inside a record.
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
for start in range(0, 300, 30):
    assert recording.append(ticks[start:start + 30].tobytes())
    settle(recorder)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
assert recording.append(ticks[300:310].tobytes())
recording.close()
"""


def test_disk_that_takes_no_more_costs_ticks_and_never_the_caller(tmp_path):
    done = in_process(tmp_path, FILL_AND_FREE + END)
    assert done.returncode == 0, done.stderr
    closed, written, lost, dropped, errors = json.loads(done.stdout)
    assert (closed, written, lost, dropped, errors) == (True, 110, 200, 0, 7)
    assert done.stderr.count("ticks can't be recorded") == 1, "a full disk fills no log"
    (file,) = read_recordings(tmp_path)
    assert file.entry["gaps"] == [{"after_ticks": 100, "ticks": 200}]
    ticks = quotes(5000)
    assert file.ticks.tobytes() == ticks[:100].tobytes() + ticks[300:310].tobytes()
    assert open_ticks(file.path).recording.missing_ticks == 200


def test_disk_without_room_leaves_complete_files_of_whole_records(tmp_path):
    """A file system of 64 KiB in a mount namespace of its own; ENOSPC, also for the catalogue."""
    folder, out = tmp_path / "disk", tmp_path / "out"
    folder.mkdir()
    out.mkdir()
    body = """
for start in range(0, 5000, 200):
    assert recording.append(ticks[start:start + 200].tobytes())
    settle(recorder)
recording.close()
"""
    script = f'mount -t tmpfs -o size=64k none "{folder}" || exit 77; "$@" || exit 1; cp "{folder}"/* "{out}"/'
    try:
        done = in_process(folder, body + END, "unshare", "-rm", "sh", "-c", script, "sh")
    except FileNotFoundError:
        pytest.skip("no unshare")
    if done.returncode == 77 or "unshare" in done.stderr:
        pytest.skip(f"no mount namespace for an ordinary user here: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr
    closed, written, lost, dropped, errors = json.loads(done.stdout)
    assert closed
    assert (written + lost, dropped) == (5000, 0)
    assert lost > 4000
    assert errors > 0
    (path,) = out.glob("*.mbp-1.dbn*")
    if path.name.endswith(".partial"):
        mend_partial(path)
        path = path.with_name(path.name.removesuffix(".partial"))
    ticks = open_ticks(path).ticks
    assert len(ticks) == written
    assert ticks.tobytes() == quotes(5000)[:written].tobytes()


def test_folder_that_goes_away_costs_ticks_and_never_the_caller(tmp_path):
    folder = tmp_path / "recordings"
    recorder = Recorder(folder, 10 * TICK_BYTES, 2**60, 2**20)
    recording = recorder.open_session(1, "s", ONE)
    shutil.rmtree(folder)
    assert all(recording.append(quotes(8).tobytes()) for _ in range(10))
    recording.close()
    assert recorder.close(10)
    stats = recorder.stats()
    assert (stats.ticks_written, stats.ticks_lost, stats.gaps) == (0, 80, 1)
    assert stats.write_errors > 0


def test_catalogue_that_is_overwritten_costs_its_entry_alone(tmp_path):
    recorder = Recorder(tmp_path, 2**30, 2**60, 2**20)
    (tmp_path / "metadata.json").write_text("mine")
    recording = recorder.open_session(1, "s", ONE)
    assert recording.append(quotes(8).tobytes())
    assert recorder.close(10)
    assert (tmp_path / "metadata.json").read_text() == "mine"
    assert recorder.stats().write_errors == 2
    (path,) = tmp_path.glob("*.dbn")
    (tmp_path / "metadata.json").unlink()
    assert open_ticks(path).ticks.tobytes() == quotes(8).tobytes()


def test_killed_daemon_leaves_a_partial_file_that_the_next_one_completes(tmp_path):
    body = """
recording.append(ticks[:700].tobytes())
settle(recorder)
recording.append(ticks[700:].tobytes())
import os, signal
os.kill(os.getpid(), signal.SIGKILL)
"""
    done = in_process(tmp_path, body)
    assert done.returncode == -signal.SIGKILL
    (partial,) = tmp_path.glob("*.partial")
    with partial.open("ab") as torn:
        torn.write(b"\x14\x01torn")
    assert Recorder(tmp_path, 2**30, 2**60, 2**20).close(10)
    (file,) = read_recordings(tmp_path)
    assert not partial.exists()
    assert len(file.ticks) >= 700
    assert file.ticks.tobytes() == quotes(5000)[: len(file.ticks)].tobytes()
    assert (file.entry["rows"], file.entry["cut_short"]) == (len(file.ticks), True)
    assert open_ticks(file.path).instruments == ONE


def test_partial_file_without_a_record_is_removed(tmp_path):
    for name, content in {"a": b"", "b": b"DB", "c": encode_header(ONE, 0, 0), "d": b"foreign" * 100}.items():
        (tmp_path / f"{name}.mbp-1.dbn.partial").write_bytes(content)
    assert Recorder(tmp_path, 2**30, 2**60, 2**20).close(10)
    assert list(tmp_path.iterdir()) == []


@given(cut=st.integers(0, 360 + 3 * TICK_BYTES))
def test_partial_file_that_was_cut_anywhere_is_mended_to_whole_records(tmp_path_factory, cut):
    folder = tmp_path_factory.mktemp("cut")
    header = encode_header(ONE, 0, 0)
    (folder / "x.mbp-1.dbn.partial").write_bytes((header + quotes(3).tobytes())[:cut])
    whole = mend_partial(folder / "x.mbp-1.dbn.partial")
    assert whole == max(cut - len(header), 0) // TICK_BYTES
    left = list(folder.iterdir())
    if whole:
        assert open_ticks(left[0]).ticks.tobytes() == quotes(3)[:whole].tobytes()
    else:
        assert left == []
