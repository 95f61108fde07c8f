"""The CUDA device of a benchmark: opened as the daemon opens it, or refused with what is missing."""

from __future__ import annotations

import importlib.util
from typing import Any, Final

from penstock_daemon.device.backend import DeviceBackend, DeviceError
from penstock_tuning.bench.errors import BenchError

_NO_CUPY: Final = "CuPy is not installed; pip install 'penstock[cuda12]' or 'penstock[cuda13]'"


def open_cuda(index: int = 0) -> tuple[DeviceBackend, Any]:
    """Return device *index* and the CuPy that reaches it.

    Raises:
        BenchError: no such device can be had here.
    """
    if importlib.util.find_spec("cupy") is None:
        raise BenchError(f"no GPU can be measured: {_NO_CUPY}")
    try:
        import cupy

        from penstock_daemon.device.cuda_backend import CudaBackend

        return CudaBackend(index), cupy
    except (ImportError, DeviceError) as exc:
        raise BenchError(f"no GPU can be measured: {exc}") from exc


def missing_device(index: int = 0) -> str:
    """Return why no CUDA device *index* can be had here, or nothing where one is.

    It is not opened: a GPU in exclusive mode takes one process, which is the one that measures.
    """
    if importlib.util.find_spec("cupy") is None:
        return f"no GPU can be measured: {_NO_CUPY}"
    from penstock_daemon.device.cuda_driver import count_devices, import_cuda

    try:
        count = count_devices(import_cuda())
    except DeviceError as exc:
        return f"no GPU can be measured: {exc}"
    return "" if index < count else f"no GPU can be measured: --index must be below {count}, was {index}"
