"""What every kind of test shares: where the recorded files are, and that a missing one skips with its reason."""

from __future__ import annotations

import os

# Before any library reads it: threads of OpenMP that spin for one another take minutes where cores are shared.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# No test is about time taken: a busy machine, or the first call of a compiled function, is no failure.
explore = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("explore", explore)
# Each run draws the same cases, so that a change fails for what it did and not for what was drawn on the day; `make fuzz`
# draws new ones.
settings.register_profile("penstock", explore, derandomize=True, database=None)
settings.load_profile("penstock")

ROOT = Path(__file__).resolve().parent.parent

# Which modules begin, in this order; the others follow in the order of their names. What takes long comes early, so that
# no process waits for another's last module. And what takes long to compile is compiled once: the daemon's code by the
# first, and while the third compiles that of a device, nobody else needs either.
FIRST = (
    "fault/test_start_up.py",
    "golden/test_default_model.py",
    "replay/test_device_engine.py",
    "replay/test_showcase.py",
    "replay/test_bench_runs.py",
    "replay/test_replay_through_daemon.py",
    "unit/test_evaluation_commands.py",
    "unit/test_training_commands.py",
    "replay/test_online_serving.py",
    "replay/test_replay_accounting.py",
    "unit/test_bench_gpu.py",
    "replay/test_recorded_determinism.py",
    "golden/test_kernels_prediction_hash.py",
    "fault/test_daemon_start.py",
)

RecordedFile = Callable[[str], Path]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the modules of FIRST first; the order within a module stays."""
    turns = {ROOT / "tests" / name: turn for turn, name in enumerate(FIRST)}
    items.sort(key=lambda item: turns.get(item.path, len(turns)))


@pytest.fixture(scope="session")
def repository_root() -> Path:
    """Give the folder that holds pyproject.toml."""
    return ROOT


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """Give the folder of the recorded files, ``PENSTOCK_DATA`` or ``../shared/data``; without it, skip."""
    named = os.environ.get("PENSTOCK_DATA")
    folder = Path(named) if named else ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"no recorded files at {folder}: set PENSTOCK_DATA to their folder")
    return folder


@pytest.fixture(scope="session")
def recorded_file(data_folder: Path) -> RecordedFile:
    """Give a function that turns a name into the path of a recorded file; without that file, the test skips."""

    def find(name: str) -> Path:
        path = data_folder / name
        if not path.is_file():
            pytest.skip(f"no recorded file {path}: set PENSTOCK_DATA to the folder that has it")
        return path

    return find
