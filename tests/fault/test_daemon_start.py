"""What keeps a daemon from starting: one sentence that names the key, the value and the mend, exit 2, no traceback."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from support.daemon import RunningDaemon, running_daemon, small, small_model
from support.raw_stream import undisturbed
from support.tick_arrays import quotes

REFUSED_S = 120


def penstockd(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run the command to its end; it must not serve."""
    return subprocess.run(
        [sys.executable, "-m", "penstock_daemon.main", *arguments],
        capture_output=True,
        text=True,
        timeout=REFUSED_S,
        env=os.environ | variables,
        stdin=subprocess.DEVNULL,
        check=False,
    )


def refusal(*sets: str) -> str:
    """Return the sentence of a start that is refused."""
    arguments = [argument for setting in ("metrics.address=", *sets) for argument in ("--set", setting)]
    done = penstockd(*arguments)
    assert done.returncode == 2, done
    assert done.stdout == ""
    assert "Traceback" not in done.stderr, done.stderr
    (sentence,) = (line for line in done.stderr.splitlines() if line.startswith("penstockd: "))
    others = [json.loads(line)["event"] for line in done.stderr.splitlines() if not line.startswith("penstockd: ")]
    assert set(others) <= {"draining", "stopped"}, "nothing but an orderly end beside it"
    return sentence.removeprefix("penstockd: ")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("start")


@pytest.fixture(scope="module")
def serving(folder: Path) -> Iterator[RunningDaemon]:
    """A daemon that serves already."""
    with running_daemon(
        folder, *small(folder, "metrics.address=127.0.0.1:0", f"record.folder={folder}/kept")
    ) as daemon:
        yield daemon


# --- Addresses and folders --------------------------------------------------------------------------------------------


def test_second_daemon_on_a_socket_is_refused_and_the_first_goes_on(serving: RunningDaemon) -> None:
    said = refusal(f"server.address={serving.address}")
    assert said == (
        f"server.address: must be free, was {serving.address}, where process {serving.pid} serves already; "
        "stop that one, or choose another server.address"
    )
    assert len(undisturbed(serving.address, quotes(10))) == 10


def test_port_of_another_program_is_refused_in_either_key(folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        sentence = (
            f"must be free, was 127.0.0.1:{port}, where another program listens; stop that one, or choose another port"
        )
        assert refusal(f"server.address=127.0.0.1:{port}") == f"server.address: {sentence}"
        free = f"server.address=unix:{folder}/free.sock"
        assert refusal(free, f"metrics.address=127.0.0.1:{port}") == f"metrics.address: {sentence}"
    assert not (folder / "free.sock").exists(), "told before the socket was made"


def test_paths_that_cannot_be_sockets_are_refused(folder: Path) -> None:
    long = f"unix:{folder}/{'x' * 120}"
    assert "at most 107 bytes" in refusal(f"server.address={long}")
    missing = f"unix:{folder}/nowhere/penstock.sock"
    assert refusal(f"server.address={missing}") == (
        f"server.address: must be in a folder that exists, was {missing}; make {folder}/nowhere, "
        "or choose another server.address"
    )
    (folder / "file").write_text("not a socket")
    assert "which is something else" in refusal(f"server.address=unix:{folder}/file")
    assert (folder / "file").read_text() == "not a socket"


def test_folder_that_another_daemon_records_into_is_refused(folder: Path, serving: RunningDaemon) -> None:
    said = refusal(f"server.address=unix:{folder}/r.sock", f"record.folder={folder}/kept")
    assert said.startswith(
        f"record.folder: must be a folder of its own, was {folder}/kept, where process {serving.pid}"
    )
    said = refusal(f"server.address=unix:{folder}/r.sock", f"record.folder={folder}/file/below")
    assert said.startswith("record.folder: must be a folder that can be made and written")


# --- Models -----------------------------------------------------------------------------------------------------------


def cut(data: bytes) -> bytes:
    return data[: len(data) // 2]


def with_nan(data: bytes) -> bytes:
    return data[:-4] + np.float32(np.nan).tobytes()


@pytest.mark.parametrize(
    "damage",
    [cut, with_nan, lambda _: b"PK\x03\x04 a zip file, perhaps of another framework"],
    ids=["cut", "nan", "foreign"],
)
def test_bad_model_file_is_refused(folder: Path, damage: Callable[[bytes], bytes]) -> None:
    bad = folder / "bad.safetensors"
    bad.write_bytes(damage(small_model(folder, 3).read_bytes()))
    said = refusal(f"server.address=unix:{folder}/m.sock", f"models.active={bad}")
    assert said.startswith(f"model file is refused: path={bad}: ")
    assert not (folder / "m.sock").exists()
    assert not (folder / "m.sock.lock").exists()


def test_model_that_is_missing_or_too_large_is_refused(folder: Path) -> None:
    address = f"server.address=unix:{folder}/m.sock"
    assert refusal(address, f"models.active={folder}/none").startswith(
        f"model file can't be read: path={folder}/none: No such file or directory; name an existing"
    )
    large = small_model(folder, 4, units=128, name="large")
    assert refusal(address, f"models.active={large}", "models.units_max=64") == (
        "model 'large': units was 128, this daemon holds at most 64; raise models.units_max where it is the units, "
        "or fit a smaller model"
    )


def test_dense_model_that_is_too_large_is_refused_by_the_key_that_lets_it_in(tmp_path: Path) -> None:
    dense = small_model(tmp_path, 5, units=512, topology="dense", name="dense")
    sets = (f"models.active={dense}", "models.units_max=512", "sessions.in_flight_max=256", "metrics.address=")
    said = refusal(f"server.address=unix:{tmp_path}/d.sock", *sets)
    assert said.startswith("model 'dense': dense with 512 units it takes ")
    assert said.endswith("; raise models.dense_units_max to 512, or fit a smaller model")
    with running_daemon(tmp_path, *sets, "models.dense_units_max=512") as daemon:
        (serving,) = daemon.events("serving")
        assert serving["model"] == "dense"


def test_memory_that_is_not_there_is_refused() -> None:
    said = refusal("sessions.max=1024", "sessions.in_flight_max=1048576")
    assert said.startswith("the arena of rings, states and models would take ")
    assert said.endswith(
        "lower sessions.max, sessions.in_flight_max, sessions.states_max, online.states, models.units_max or models.dense_units_max"
    )


# --- Threads ----------------------------------------------------------------------------------------------------------


def test_threads_run_where_the_configuration_says(tmp_path: Path) -> None:
    cpus = sorted(os.sched_getaffinity(0))
    if len(cpus) < 2:
        pytest.skip("one CPU is nothing to choose from")
    own, rest = cpus[-1], cpus[0]
    with running_daemon(tmp_path, *small(tmp_path, f"engine.cores={own}", f"server.cores={rest}")) as daemon:
        undisturbed(daemon.address, quotes(50))
        places: dict[str, set[frozenset[int]]] = {}
        for task in Path(f"/proc/{daemon.pid}/task").iterdir():
            name = (task / "comm").read_text().strip()
            places.setdefault(name, set()).add(frozenset(os.sched_getaffinity(int(task.name))))
        (served,) = daemon.events("serving")
        assert not daemon.events("thread_misplaced")
    assert places.pop("penstock-engine") == {frozenset({own})}
    assert places
    assert all(where == {frozenset({rest})} for where in places.values()), places
    assert served["threads"]["penstock-engine"] == str(own)


@pytest.mark.parametrize("key", ["engine.cores", "server.cores"])
def test_cpu_that_is_not_there_is_refused(key: str) -> None:
    assert refusal(f"{key}=8191").startswith(f"{key}: must be online (this host has 0")


# --- Configuration ----------------------------------------------------------------------------------------------------


def test_every_fault_of_a_configuration_is_told_at_once(tmp_path: Path) -> None:
    config = tmp_path / "penstockd.toml"
    config.write_text('[engine]\nidel = "spin"\nbatch_max = "many"\n[sessions]\nin_flight_max = 1000\n[extra]\nx = 1\n')
    for arguments in (("--config", str(config)), ("--config", str(config), "--check")):
        done = penstockd(*arguments, "--set", "budget.total_us=0")
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.startswith("penstockd: the configuration has 5 faults:\n")
        for key in ("engine.idel", "engine.batch_max", "sessions.in_flight_max", "extra", "budget.total_us"):
            assert key in done.stderr
        assert "Traceback" not in done.stderr


def test_printed_configuration_is_one_that_gives_itself(tmp_path: Path) -> None:
    sets = (
        "--set",
        f"server.address=unix:{tmp_path}/a.sock",
        "--set",
        "engine.idle=spin",
        "--set",
        "budget.stale_us=7000",
    )
    first = penstockd(*sets, "--print-config", PENSTOCK_SESSIONS__MAX="3")
    assert (first.returncode, first.stderr) == (0, "")
    config = tmp_path / "penstockd.toml"
    config.write_text(first.stdout)
    second = penstockd("--config", str(config), "--print-config")
    assert (second.returncode, second.stderr) == (0, "")
    assert second.stdout == first.stdout
    for line in ('idle = "spin"', "max = 3", "stale_us = 7000"):
        assert line in second.stdout


def test_check_says_that_all_is_well() -> None:
    done = penstockd("--check")
    assert (done.returncode, done.stderr) == (0, "")
    said = "whether models, devices, interfaces and folders can be had is seen at the start"
    assert done.stdout == f"the configuration has no fault; {said}\n"
    assert said in " ".join(penstockd("--help").stdout.split())


def test_check_refuses_what_the_start_refuses_without_a_model() -> None:
    done = penstockd("--set", "online.forgetting=0.99", "--check")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("penstockd: online.forgetting: must be at least 0.993750 where online.units is 0 (")
    assert done.stderr.endswith("), was 0.99\n")


def test_file_that_is_no_configuration_is_refused(tmp_path: Path) -> None:
    config = tmp_path / "penstockd.toml"
    config.write_bytes(b"\xff\xfe not TOML")
    for path in (config, tmp_path / "none.toml", tmp_path):
        done = penstockd("--config", str(path))
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.startswith("penstockd: ")
        assert str(path) in done.stderr
        assert "Traceback" not in done.stderr


@pytest.mark.parametrize("arguments", [("--no-such-option",), ("--set", "engine"), ("--set", "engine.idle")])
def test_wrong_usage_is_exit_2(arguments: tuple[str, ...]) -> None:
    done = penstockd(*arguments)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert done.stderr


def test_help_has_examples() -> None:
    done = penstockd("--help")
    assert done.returncode == 0
    assert "examples:" in done.stdout
    assert "--record recordings" in done.stdout
