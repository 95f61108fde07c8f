"""What a daemon recorded, sent again, gives the prediction hash of the day itself."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from penstock.v1 import prediction_pb2 as pb
from support.daemon import running_daemon, small
from support.raw_stream import RawStream, hash_of, instruments, run_through, undisturbed
from support.recordings import read_recordings
from support.tick_stream import tick_stream

IDS = (1, 2)
STREAM = np.concatenate([tick_stream(80 + number, 700, instrument_id=number) for number in (*IDS, 9)])
STREAM = STREAM[np.random.default_rng(4).permutation(len(STREAM))]  # Instrument 9 is nobody's.


def test_recording_of_a_session_replays_to_its_hash(tmp_path: Path) -> None:
    """Splits, unknown instruments and a lost connection leave their mark on the session, and none on the recording."""
    recordings = tmp_path / "recordings"
    arguments = ("--record", str(recordings))
    with running_daemon(tmp_path, *small(tmp_path), arguments=arguments) as daemon:
        with RawStream(daemon.address) as stream:
            token = stream.hello(client_name="day", instruments=instruments(*IDS)).resume_token
            first = run_through(stream, STREAM[:1000], split=77)
            answered = stream.next_sequence
        with RawStream(daemon.address) as stream:
            welcome = stream.hello(instruments=instruments(*IDS), resume_token=token, next_prediction_sequence=answered)
            assert welcome.state_origin == pb.STATE_ORIGIN_RESUMED
            rest = run_through(stream, STREAM[1000:], split=131)
            stream.goodbye()
            assert stream.end().code == "OK"
    (recorded,) = read_recordings(recordings)
    known = STREAM[np.isin(STREAM["instrument_id"], IDS)]
    assert recorded.ticks.tobytes() == known.tobytes()
    with running_daemon(tmp_path, *small(tmp_path)) as daemon:
        again = undisturbed(daemon.address, recorded.ticks, instruments=instruments(*IDS))
    day = np.concatenate([first, rest])
    day["sequence"] = np.arange(len(day))  # Refused ticks took a number each.
    assert hash_of(again) == hash_of(day)


def test_rebuild_ticks_are_recorded_where_they_were_taken_in(tmp_path: Path) -> None:
    recordings = tmp_path / "recordings"
    ticks = STREAM[STREAM["instrument_id"] == 1]
    with running_daemon(tmp_path, *small(tmp_path, f"record.folder={recordings}")) as daemon:
        with RawStream(daemon.address) as stream:
            stream.hello(first_sequence=200)
            stream.rebuild(ticks[:200])
            predictions = run_through(stream, ticks[200:400])
            stream.goodbye()
            assert stream.end().code == "OK"
        with RawStream(daemon.address) as stream:
            stream.hello()
            stream.goodbye()
            assert stream.end().code == "OK"
        again = undisturbed(daemon.address, ticks[:400])
        assert again["forecasts"][200:].tobytes() == predictions["forecasts"].tobytes()
    found = read_recordings(recordings)
    assert [len(one.ticks) for one in found] == [400, 400], "a session without ticks leaves no file"
    assert found[0].ticks.tobytes() == found[1].ticks.tobytes() == ticks[:400].tobytes()
