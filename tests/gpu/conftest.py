"""What the tests on a card share: the card, or a skip that says what is missing. No test here needs anything else.

`make gpu-check` counts such a skip as a failure; everywhere else it is none.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from penstock_daemon.device.backend import DeviceBackend
from penstock_tuning.bench.errors import BenchError
from penstock_tuning.bench.gpu_device import open_cuda


@pytest.fixture(scope="session")
def cuda() -> Iterator[DeviceBackend]:
    """Give the first CUDA device, one for all tests: a test that breaks it does so in a process of its own."""
    try:
        backend, _ = open_cuda()
    except BenchError as exc:
        pytest.skip(str(exc))  # "no GPU can be measured: ..."
    yield backend
    backend.close()
