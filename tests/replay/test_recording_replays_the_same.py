"""What a daemon recorded, sent again, gives the prediction hash of the day itself."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from penstock.v1 import prediction_pb2 as pb
from penstock.v1.shared_ring import REFUSED_FLAG
from support.daemon import running_daemon, small
from support.raw_stream import RawStream, hash_of, instruments, run_through, undisturbed
from support.recordings import read_recordings
from support.segment_client import SegmentClient, attach
from support.tick_stream import tick_stream

IDS = (1, 2)
STREAM = np.concatenate([tick_stream(80 + number, 700, instrument_id=number) for number in (*IDS, 9)])
STREAM = STREAM[np.random.default_rng(4).permutation(len(STREAM))]  # Instrument 9 is nobody's.


@pytest.fixture(scope="module")
def again(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of another daemon with the same model."""
    folder = tmp_path_factory.mktemp("again")
    with running_daemon(folder, *small(folder)) as daemon:
        yield daemon.address


def test_recording_of_a_session_replays_to_its_hash(again: str, tmp_path: Path) -> None:
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
    day = np.concatenate([first, rest])
    day["sequence"] = np.arange(len(day))  # Refused ticks took a number each.
    assert hash_of(undisturbed(again, recorded.ticks, instruments=instruments(*IDS))) == hash_of(day)


def through_segment(segment: SegmentClient, ticks: np.ndarray) -> np.ndarray:
    """Return the predictions of *ticks*, without what was refused."""
    found = []
    for start in range(0, len(ticks), 100):
        segment.publish(ticks[start : start + 100])
        found.append(segment.predictions(len(ticks[start : start + 100])))
    answers = np.concatenate(found)
    return answers[(answers["flags"] & REFUSED_FLAG) == 0]


def test_recordings_of_sessions_over_shared_memory_replay_to_their_hashes(again: str, tmp_path: Path) -> None:
    """Two at once: one is lost, leaves ticks unread and is resumed; the other one has rebuilt its states."""
    recordings = tmp_path / "recordings"
    known = STREAM[np.isin(STREAM["instrument_id"], IDS)]
    asked = {"instruments": instruments(*IDS), "shared_memory": True}
    with running_daemon(tmp_path, *small(tmp_path, f"record.folder={recordings}")) as daemon:
        with RawStream(daemon.address) as other, RawStream(daemon.address) as stream:
            token = stream.hello(client_name="day", **asked).resume_token
            other.hello(client_name="other", first_sequence=200, **asked)
            other.rebuild(known[:200])
            with attach(stream.welcome) as segment, attach(other.welcome) as others:
                first = through_segment(segment, STREAM[:1000])
                rebuilt = through_segment(others, known[200:700])
                segment.publish(STREAM[1000:1050])  # Taken, and never read before the connection is lost.
                segment.predictions(1)
                other.goodbye()
                assert other.end().code == "OK"
        with RawStream(daemon.address) as stream:
            welcome = stream.hello(resume_token=token, next_prediction_sequence=1000, **asked)
            assert welcome.state_origin == pb.STATE_ORIGIN_RESUMED
            with attach(welcome) as segment:
                taken = segment.first_sequence
                repeated = segment.predictions(taken - 1000)
                rest = through_segment(segment, STREAM[taken:])
                stream.goodbye()
                assert stream.end().code == "OK"
    one, two = sorted(read_recordings(recordings), key=lambda found: found.entry["session_id"])
    assert one.ticks.tobytes() == known.tobytes()
    assert two.ticks.tobytes() == known[:700].tobytes()
    assert (two.entry["rebuild_ticks"], one.entry["gaps"], two.entry["gaps"]) == (200, [], [])
    day = np.concatenate([first, repeated[(repeated["flags"] & REFUSED_FLAG) == 0], rest])
    day["sequence"] = np.arange(len(day))  # Refused ticks took a number each.
    assert hash_of(undisturbed(again, one.ticks, instruments=instruments(*IDS))) == hash_of(day)
    after = undisturbed(again, two.ticks, instruments=instruments(*IDS))[200:]
    assert after["forecasts"].tobytes() == rebuilt["forecasts"].tobytes()


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
