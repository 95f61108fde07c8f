"""penstock-bench as a person meets it: help, mistakes, the table, and that both sides of a comparison are alike."""

from __future__ import annotations

import inspect
import os
import re
from pathlib import Path

import pytest

from penstock.v1 import prediction_pb2 as pb
from penstock_daemon import grpc_server
from penstock_daemon.config import Config
from penstock_tuning.bench import cli, commands, echo_server, placement, round_trip_client
from penstock_tuning.bench.errors import BenchError
from penstock_tuning.bench.outcome import Outcome
from penstock_tuning.bench.processes import DaemonOptions, daemon


@pytest.mark.parametrize(
    "name",
    [
        "",
        "grpc",
        "shm",
        "load",
        "feed",
        "throughput",
        "memory",
        "startup",
        "kernels",
        "stamps",
        "reference",
        "gpu",
        "all",
    ],
)
def test_help_shows_examples(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([*([name] if name else []), "--help"]) == 0
    assert "penstock-bench load" in (said := capsys.readouterr().out) or f"penstock-bench {name}" in said
    assert "examples:" in said


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["grpc", "--block", "0"], "--block must be from 1 to --trips=3000: block=0"),
        (["grpc", "--trips", "-1"], "--trips must be from 1 to 10,000,000: trips=-1"),
        (["shm", "--trips", "0"], "--trips must be from 1 to 10,000,000: trips=0"),
        (["load", "--repeat", "0"], "--repeat must be from 1 to 1,000: repeat=0"),
        (["load", "--seconds", "nan"], "--seconds must be above 0 and below 1,000,000: seconds=nan"),
        (["load", "--speed", "-1"], "--speed must be above 0 and below 1,000,000: speed=-1.0"),
        (["load", "--ticks", "nothing.dbn"], "--ticks names no file: ticks='nothing.dbn'"),
        (["feed", "--repeat", "0"], "--repeat must be from 1 to 1,000: repeat=0"),
        (["feed", "--seconds", "0"], "--seconds must be above 0 and below 1,000,000: seconds=0.0"),
        (["feed", "--date", "today"], "--date must be a day as YYYY-MM-DD: date='today'"),
        (["feed", "--date", "2010-12-24"], "--date is for an ITCH file: name one with --ticks"),
        (["throughput", "--count", "0"], "--count must be from 1 to 5,000,000: count=0"),
        (["kernels", "--rounds", "0"], "--rounds must be from 1 to 1,000: rounds=0"),
        (["stamps", "--rounds", "0"], "--rounds must be from 1 to 1,000: rounds=0"),
        (["reference", "--seeds", "0"], "--seeds must be from 1 to 100: seeds=0"),
        (["memory", "--raw", "x.csv"], "--raw must end in .npy: raw='x.csv'"),
        (["startup", "--model", "none.safetensors"], "--model names no file: model='none.safetensors'"),
    ],
)
def test_mistake_is_one_sentence_and_exit_code_2(
    arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main([*arguments, "--quiet"]) == 2
    said = capsys.readouterr()
    assert said.err == f"penstock-bench {arguments[0]}: {sentence}\n"
    assert said.out == ""


def test_unknown_benchmark_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["speed"]) == 2
    assert "invalid choice: 'speed'" in capsys.readouterr().err


def test_daemon_that_refuses_its_settings_is_a_sentence_with_its_own_words(tmp_path: Path) -> None:
    with (
        pytest.raises(BenchError, match=r"penstockd ended with 2 at its start: penstockd: .*engine\.idle"),
        daemon(tmp_path, DaemonOptions(sets=("engine.idle=never",))),
    ):
        pass


def test_settings_of_the_environment_play_no_part(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PENSTOCK_ENGINE__IDLE", "never")
    with daemon(tmp_path, DaemonOptions()) as served:
        assert served.start_s > 0
        assert served.resident_kib > 1000


def test_echo_server_has_the_options_of_the_daemons_server() -> None:
    source = inspect.getsource(grpc_server)
    written = {"grpc.max_receive_message_length", "grpc.max_concurrent_streams"}  # From the configuration.
    for name, value in echo_server.OPTIONS:
        if name not in written:
            assert f'("{name}", {value:_})' in source, f"{name} differs"
    assert len(re.findall(r'\("grpc\.[a-z0-9_.]+", ', source)) == len(echo_server.OPTIONS)
    limits = dict(echo_server.OPTIONS)
    defaults = Config.defaults()
    assert limits["grpc.max_receive_message_length"] == defaults.server.message_bytes_max
    assert limits["grpc.max_concurrent_streams"] == 4 * defaults.sessions.max + 64


def test_bare_messages_are_as_long_as_those_of_one_tick() -> None:
    request = pb.StreamPredictionsRequest.FromString(round_trip_client._request(bytes(80)))
    assert (len(request.ticks.records), request.ticks.purpose) == (80, pb.PURPOSE_PREDICT)
    reply = pb.StreamPredictionsResponse.FromString(round_trip_client._reply())
    assert len(reply.predictions.records) == 128
    assert reply.predictions.sent_ns > 0


def test_processors_are_given_back_after_a_start() -> None:
    before = os.sched_getaffinity(0)
    with placement.on_processors(frozenset({min(before)})):
        assert os.sched_getaffinity(0) == {min(before)}
    assert os.sched_getaffinity(0) == before


def test_split_gives_each_side_processors_of_its_own() -> None:
    chosen = placement.choose("split")
    if len(os.sched_getaffinity(0)) < 2:
        assert chosen.name == "free"
        return
    assert not chosen.strategy & chosen.daemon
    assert chosen.strategy | chosen.daemon == os.sched_getaffinity(0)
    with pytest.raises(BenchError, match="placement must be one of"):
        placement.choose("elsewhere")


def test_table_names_aims_and_verdicts() -> None:
    figures = {"p50_ratio": 1.31, "p99_ratio": 1.5}
    said = commands.table([Outcome("grpc", figures, {}, ())])
    assert "| grpc | p50_ratio | <= 1.3 | 1.3100 | missed |" in said
    assert "| grpc | p99_ratio | <= 1.5 | 1.5000 | met |" in said
