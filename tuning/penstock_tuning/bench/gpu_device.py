"""The CUDA device of a benchmark: opened as the daemon opens it, or refused with what is missing."""

from __future__ import annotations

import importlib.util
from typing import Any

from penstock_daemon.device.backend import DeviceBackend, DeviceError
from penstock_tuning.bench.errors import BenchError


def open_cuda(index: int = 0) -> tuple[DeviceBackend, Any]:
    """Return device *index* and the CuPy that reaches it.

    Raises:
        BenchError: no such device can be had here.
    """
    if importlib.util.find_spec("cupy") is None:
        raise BenchError(
            "no GPU can be measured: CuPy is not installed; pip install 'penstock[cuda12]' or 'penstock[cuda13]'"
        )
    try:
        import cupy

        from penstock_daemon.device.cuda_backend import CudaBackend

        return CudaBackend(index), cupy
    except (ImportError, DeviceError) as exc:
        raise BenchError(f"no GPU can be measured: {exc}") from exc


def missing_device() -> str:
    """Return why no CUDA device can be had here, or nothing where one can."""
    try:
        backend, _ = open_cuda()
    except BenchError as exc:
        return str(exc)
    backend.close()
    return ""
