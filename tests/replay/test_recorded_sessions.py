"""A folder that several sessions were recorded into: never one stream by accident, and no hash that is not theirs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from penstock_client.cli import main
from penstock_client.files import open_ticks
from support.daemon import running_daemon, small
from support.raw_stream import RawStream, hash_of, run_through
from support.tick_stream import tick_stream

TICKS = tick_stream(3, 400)
REBUILD_TICKS = 100


@dataclass(frozen=True)
class Day:
    """Three sessions of one daemon: ticks 0 to 250, the rest, and the rest again after a rebuild."""

    address: str
    recordings: list[str]
    hashes: list[str]


@pytest.fixture(scope="module")
def day(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Day]:
    folder = tmp_path_factory.mktemp("day")
    sets, hashes = small(folder), []
    with running_daemon(folder, *sets, f"record.folder={folder / 'recordings'}") as daemon:
        for ticks, rebuild in ((TICKS[:250], 0), (TICKS[250:], 0), (TICKS[250:], REBUILD_TICKS)):
            with RawStream(daemon.address) as stream:
                stream.hello()
                if rebuild:
                    stream.rebuild(TICKS[250 - rebuild : 250])
                hashes.append(hash_of(run_through(stream, ticks)))
                stream.goodbye()
                assert stream.end().code == "OK"
    recordings = sorted(map(str, (folder / "recordings").glob("*.dbn")))
    assert len(recordings) == 3
    with running_daemon(folder, *sets) as daemon:
        yield Day(daemon.address, recordings, hashes)


def test_sessions_are_not_replayed_as_one_and_the_refusal_names_them(day: Day, tmp_path: Path, capsys) -> None:
    for command in (
        ["replay", *day.recordings, "--to", day.address],
        ["convert", *day.recordings, f"{tmp_path}/a.dbn"],
    ):
        assert main(command) == 2
        said = capsys.readouterr().err
        for number, recording in enumerate(day.recordings, start=1):
            assert f"session {number}: {Path(recording).name}" in said
        assert "--session ID" in said
        assert "--order ts_recv" in said


@pytest.mark.parametrize("session", [1, 2])
def test_chosen_session_replays_to_its_own_hash(day: Day, session: int, capsys) -> None:
    arguments = [*day.recordings, "--to", day.address, "--speed", "max", "--session", str(session)]
    assert main(["replay", *arguments, "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["recording"]["session_id"] == session
    assert said["recording"]["hash_differs_because"] == []
    assert said["prediction_hash"] == day.hashes[session - 1]


def test_session_with_a_rebuild_says_that_its_hash_is_another_one(day: Day, tmp_path: Path, capsys) -> None:
    report = tmp_path / "report.html"
    arguments = ["replay", day.recordings[2], "--to", day.address, "--speed", "max"]
    assert main([*arguments, "--json", "--report", str(report)]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["prediction_hash"] != day.hashes[2]
    assert said["recording"]["rebuild_ticks"] == REBUILD_TICKS
    why = "100 of its ticks restored states then and are predicted now"
    assert said["recording"]["hash_differs_because"] == [why]
    assert f"not the hash that recorded session 3 had: {why}" in report.read_text()
    assert main(arguments) == 0
    assert f"not the hash that recorded session 3 had: {why}" in capsys.readouterr().out


def test_part_of_a_session_says_that_its_hash_is_another_one(day: Day, capsys) -> None:
    ticks = open_ticks(day.recordings[0]).ticks
    half_s = (int(ticks["ts_recv"].max()) - int(ticks["ts_recv"][0])) / 2e9
    arguments = ["replay", day.recordings[0], "--to", day.address, "--speed", "max", "--seconds", str(half_s)]
    assert main(arguments) == 0
    assert "of its ticks were left out" in capsys.readouterr().out


def test_sessions_merge_as_markets_where_that_is_asked_for(day: Day, capsys) -> None:
    arguments = [*day.recordings, "--to", day.address, "--speed", "max", "--order", "ts_recv"]
    assert main(["replay", *arguments, "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["predictions"] == len(TICKS) + REBUILD_TICKS + 150
    assert said["recording"] is None
