"""Who compiles the feed's loop beside the engine: once for the same sources, and never for longer than the start."""

from __future__ import annotations

import os
from pathlib import Path

import numba
import pytest

from penstock_daemon.feed import precompile
from penstock_daemon.feed.precompile import Helper


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder where nothing was marked; the helper itself compiles into the one that all tests share."""
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: {0, 1})
    return tmp_path


def test_helper_compiles_once_for_the_same_sources(cache: Path) -> None:
    """A mark that stands for it keeps the next start from asking again."""
    helper = Helper(online=False)
    assert helper.process is not None
    helper.wait()
    assert helper.process is None
    assert [path.name for path in cache.iterdir()] == ["feed-compiled"]
    assert Helper(online=False).process is None
    other = Helper(online=True)  # Another type of memory, another compilation.
    assert other.process is not None
    other.end()


def test_start_that_ends_half_way_leaves_no_helper_and_no_mark(cache: Path) -> None:
    """It is ended, and what it had not finished is not said to be compiled."""
    helper = Helper(online=False)
    assert helper.process is not None
    process = helper.process
    helper.end()
    assert process.returncode == -9
    helper.wait()
    assert not list(cache.iterdir())


def test_helper_that_fails_leaves_no_mark(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The daemon compiles by itself then, at this start and at the next."""
    monkeypatch.setattr(precompile.sys, "executable", "/bin/false")
    helper = Helper(online=False)
    helper.wait()
    assert not list(cache.iterdir())


def test_nobody_helps_where_there_is_one_cpu(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two processes on one CPU would take longer than one."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: {0})
    assert Helper(online=False).process is None
    assert not list(cache.iterdir())
