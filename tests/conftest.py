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

RecordedFile = Callable[[str], Path]


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
