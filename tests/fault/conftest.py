"""What tests of faults share: a socket's path that is short enough, and a look at what is left over."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from support.client_runs import until
from support.daemon import RunningDaemon, running_daemon, small


@pytest.fixture
def socket_path() -> Iterator[Path]:
    """Give a path for a Unix socket, well below the 107 characters that it may have."""
    with TemporaryDirectory(prefix="penstock-") as folder:
        yield Path(folder) / "s.sock"


@pytest.fixture(scope="session")
def rings_daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningDaemon]:
    """A daemon for tests of shared memory that leave it as it was."""
    folder = tmp_path_factory.mktemp("rings")
    with running_daemon(folder, *small(folder)) as running:
        yield running


@pytest.fixture
async def nothing_is_left_over() -> AsyncIterator[None]:
    """Check that a test leaves no task on its loop, and no thread of the client."""
    threads = set(threading.enumerate())
    tasks = asyncio.all_tasks()
    yield
    # gRPC ends its own task a moment after a call is cancelled.
    await until(lambda: not asyncio.all_tasks() - tasks - {asyncio.current_task()})
    assert not {thread.name for thread in set(threading.enumerate()) - threads if "penstock" in thread.name}
