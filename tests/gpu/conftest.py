"""What the tests on a card share: the card, or a skip that says what is missing. No test here needs anything else.

`make gpu-check` counts such a skip as a failure; everywhere else it is none.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from penstock_daemon.device.backend import DeviceBackend
from penstock_tuning.bench.errors import BenchError
from penstock_tuning.bench.gpu_device import open_cuda


def _open() -> DeviceBackend:
    try:
        return open_cuda()[0]
    except BenchError as exc:
        pytest.skip(str(exc))  # "no GPU can be measured: ..."


@pytest.fixture(scope="session")
def cuda() -> Iterator[DeviceBackend]:
    """Give the first CUDA device, one for all tests: a test that breaks it does so in a process of its own."""
    backend = _open()
    yield backend
    backend.close()


@pytest.fixture
def own_cuda() -> DeviceBackend:
    """Give the first CUDA device anew, for an engine that closes it."""
    return _open()
