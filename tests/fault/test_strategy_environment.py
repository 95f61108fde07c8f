"""A strategy installs penstock and nothing else: the wheel of this tree, in a clean environment, against a real daemon."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from penstock_kernels.model_file import save_model
from support.daemon import RunningDaemon, running_daemon
from support.installing import clean_environment, install
from support.models import random_model
from support.tick_arrays import quotes

pytestmark = pytest.mark.install

BASE = {"penstock", "grpcio", "numpy", "protobuf", "typing-extensions"}
ABSENT = ("numba", "llvmlite", "scipy", "cupy", "pyarrow", "structlog", "uvloop", "matplotlib", "databento_dbn", "rich")
TICKS = 3_000

# What is in README.md is what runs here; only the feed is this test's.
RUN_THE_README = """
import io, json, sys
import numpy as np
from contextlib import redirect_stdout
from penstock.v1.records import TICK_DTYPE

readme = open(sys.argv[1], encoding="utf-8").read()
exec(readme.split("```python")[1].split("```")[0])


async def feed():
    ticks = np.fromfile(sys.argv[2], dtype=TICK_DTYPE)
    for part in np.array_split(ticks, 7):
        yield part


printed = io.StringIO()
with redirect_stdout(printed):
    asyncio.run(strategy(feed()))
print(json.dumps({"numbers": len(printed.getvalue().replace("[", " ").replace("]", " ").split())}))
"""

PREDICT = """
import json, sys
import numpy as np
from penstock.v1.records import TICK_DTYPE
from penstock_client import Instrument
from penstock_client.blocking import connect

ticks = np.fromfile(sys.argv[2], dtype=TICK_DTYPE)
sequences, forecasts = [], []
for shared_memory in (True, False):
    with connect(sys.argv[1], instruments=[Instrument(1, "BTCUSDT")], shared_memory=shared_memory) as session:
        session.send(ticks)
        session.finish()
        answers = np.concatenate([batch.predictions for batch in session.batches()])
        welcome = session.welcome
    sequences.append(answers["sequence"].tolist())
    forecasts.append(answers["forecasts"].tobytes())
assert forecasts[0] == forecasts[1]
loaded = {name.partition(".")[0] for name in sys.modules}
print(json.dumps({"sequences": sequences, "model": welcome.model.name, "loaded": sorted(loaded)}))
"""


@pytest.fixture(scope="module")
def wheel(repository_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel of this tree, with the back end that make has installed."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "wheel", "--quiet", "--no-deps"]
    command += ["--no-build-isolation", "--wheel-dir", str(folder), str(repository_root)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return next(folder.glob("penstock-*.whl"))


@pytest.fixture(scope="module")
def strategy(repository_root: Path, wheel: Path) -> Path:
    """Give the bin folder of an environment into which pip installed the wheel and what that asks for.

    It is kept while the wheel asks for the same, and then gets the wheel alone anew.
    """
    environment = repository_root / ".tools" / f"strategy-cp3{sys.version_info[1]}"
    pins = repository_root / "constraints.txt"
    with zipfile.ZipFile(wheel) as archive:
        name = next(name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        wanted = [line for line in archive.read(name).decode().splitlines() if line.startswith("Requires-")]
    digest = hashlib.sha256("\n".join([*wanted, str(environment)]).encode() + pins.read_bytes()).hexdigest()
    stamp = environment / "made-of"
    if not (stamp.exists() and stamp.read_text(encoding="utf-8") == digest):
        shutil.rmtree(environment, ignore_errors=True)
        base = Path(sys.base_prefix) / "bin" / f"python3.{sys.version_info[1]}"
        subprocess.run([base, "-m", "venv", "--without-pip", environment], check=True)
        # Without an index pip speaks of a conflict; asked for one package, it says that it finds none.
        install("--dry-run", "--ignore-installed", "--no-deps", "protobuf", environment=environment)
        install("--constraint", str(pins), str(wheel), environment=environment)
        stamp.write_text(digest, encoding="utf-8")
    else:
        install("--no-deps", "--force-reinstall", str(wheel), environment=environment)
    return environment / "bin"


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningDaemon]:
    folder = tmp_path_factory.mktemp("daemon")
    save_model(random_model(1), folder / "model.safetensors")
    with running_daemon(folder, f"models.active={folder / 'model.safetensors'}") as running:
        yield running


@pytest.fixture(scope="module")
def ticks_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("ticks") / "ticks.bin"
    path.write_bytes(quotes(TICKS).tobytes())
    return path


def run(strategy: Path, *command: str | Path, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    program, *arguments = command
    return subprocess.run(
        [strategy / program, *arguments],
        cwd=cwd,
        env=clean_environment(PATH=f"{strategy}{os.pathsep}/usr/bin{os.pathsep}/bin", **environment),
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )


def answer(done: subprocess.CompletedProcess[str]) -> dict[str, object]:
    assert done.returncode == 0, done.stdout + done.stderr
    said: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    return said


def test_wheel_holds_all_that_runs_and_nothing_else(repository_root: Path, wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
    rooms = ("protos", "kernels", "daemon", "client", "tuning")
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", *rooms],
        cwd=repository_root,
        capture_output=True,
        text=True,
        check=False,
    )
    if listed.returncode:
        pytest.skip("not a git checkout")
    written = {name.partition("/")[2] for name in listed.stdout.splitlines() if (repository_root / name).is_file()}
    assert held == {name for name in written if name.startswith("penstock")}


def test_base_install_brings_what_a_strategy_needs_and_nothing_else(strategy: Path, tmp_path: Path) -> None:
    script = """
import json
from importlib import metadata, util
print(json.dumps({
    "installed": sorted(found.metadata["Name"].lower().replace("_", "-") for found in metadata.distributions()),
    "importable": [name for name in %r if util.find_spec(name)],
}))
"""
    said = answer(run(strategy, "python", "-I", "-c", script % (ABSENT,), cwd=tmp_path))
    assert set(said["installed"]) <= BASE  # type: ignore[arg-type]
    assert {"penstock", "grpcio", "numpy", "protobuf"} <= set(said["installed"])  # type: ignore[arg-type]
    assert said["importable"] == []


def test_strategy_connects_and_gets_a_prediction_for_each_tick(
    strategy: Path, daemon: RunningDaemon, ticks_path: Path, tmp_path: Path
) -> None:
    said = answer(run(strategy, "python", "-I", "-c", PREDICT, daemon.address, ticks_path, cwd=tmp_path))
    assert said["sequences"] == [list(range(TICKS))] * 2, "through shared memory, and over gRPC"
    assert said["model"] == "random-1"
    assert not {"penstock_daemon", "penstock_kernels", "penstock_tuning", "penstock_host", *ABSENT} & set(
        said["loaded"]
    )  # type: ignore[call-overload]


def test_strategy_of_the_readme_runs_as_it_stands_there(
    strategy: Path, daemon: RunningDaemon, ticks_path: Path, repository_root: Path, tmp_path: Path
) -> None:
    readme = repository_root / "README.md"
    folder, name = os.path.split(daemon.address.removeprefix("unix:"))
    assert name == "penstock.sock", "the daemon listens where one without a configuration would"
    command = ("python", "-I", "-c", RUN_THE_README, readme, ticks_path)
    done = run(strategy, *command, cwd=tmp_path, XDG_RUNTIME_DIR=folder)
    assert int(str(answer(done)["numbers"])) > 0


@pytest.mark.parametrize(
    ("command", "extra"),
    [
        (("penstockd",), "daemon"),
        (("penstock", "replay", "ticks.dbn", "--to", "unix:/nowhere"), "files"),
        (("penstock-train", "fit", "ticks.dbn", "--out", "model.safetensors"), "train"),
        (("penstock-bench", "throughput"), "train"),
    ],
)
def test_command_without_its_extra_says_what_to_install(
    strategy: Path, tmp_path: Path, command: tuple[str, ...], extra: str
) -> None:
    (tmp_path / "ticks.dbn").write_bytes(b"DBN\x03\x00\x00\x00\x00")
    done = run(strategy, *command, cwd=tmp_path)
    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    named = re.search(r"pip install 'penstock\[([a-z,]+)\]'", done.stderr)
    assert named, done.stderr
    assert extra in named[1].split(",")


@pytest.mark.parametrize("command", ["penstock", "penstockd", "penstock-train", "penstock-bench"])
def test_every_command_gives_help_without_its_extra(strategy: Path, tmp_path: Path, command: str) -> None:
    done = run(strategy, command, "--help", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "usage" in done.stdout.lower()
