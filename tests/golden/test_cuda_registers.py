"""What every kernel takes on each architecture stays as written down: registers, stack and spills of a thread.

A spill costs the latency that the kernel was written for, and shows in no result. Another version of NVRTC allots other
registers, so the file names its version, which constraints.txt pins. After a wanted change, write the file anew:

    PYTHONPATH=tests .venv/bin/python tests/golden/test_cuda_registers.py
"""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import pytest

from penstock_kernels.compiled import Int64s
from penstock_kernels.cuda.compile import compile_cubin, resources
from penstock_kernels.cuda.resident import plan_resident
from penstock_kernels.cuda.source import CLOCK, ECHO, KernelPlan, plan_predict, plan_small
from penstock_kernels.packed import pack
from support.models import random_model

WRITTEN: Final = Path(__file__).with_name("cuda_registers.json")
ARCHITECTURES: Final = ("sm_80", "sm_90", "sm_120")
UNITS, COLUMNS, MEMORY_WORDS = 4096, 4224, 128
SHARED_BYTES, SHARED_BYTES_SCARCE = 227 * 1024, 8 * 1024


def header(units: int) -> Int64s:
    """Return that of a packed model like the default one."""
    return pack(random_model(1, units=units, fan_in=8, products=units // 2)).header


def plans() -> dict[str, KernelPlan]:
    return {
        "predict, float32": plan_predict(UNITS, COLUMNS, MEMORY_WORDS, SHARED_BYTES),
        "predict, float16": plan_predict(UNITS, COLUMNS, MEMORY_WORDS, SHARED_BYTES, half=True),
        "predict, float32, in scratch": plan_predict(UNITS, COLUMNS, MEMORY_WORDS, SHARED_BYTES_SCARCE),
        "resident, all units in registers": plan_resident(header(1024), SHARED_BYTES),
        "resident, some units in shared memory": plan_resident(header(2048), SHARED_BYTES),
        "echo": plan_small(ECHO),
        "clock": plan_small(CLOCK),
    }


def _taken(plan: KernelPlan, architecture: str) -> dict[str, int]:
    return asdict(resources(compile_cubin(plan.source, architecture, plan.options))[plan.name])


@cache
def measured() -> dict[str, Any]:
    jobs = [(name, plan, architecture) for name, plan in plans().items() for architecture in ARCHITECTURES]
    with ThreadPoolExecutor(2) as workers:
        taken = list(workers.map(lambda job: _taken(*job[1:]), jobs))
    kernels: dict[str, dict[str, Any]] = {name: {} for name in plans()}
    for (name, _, architecture), of_one in zip(jobs, taken, strict=True):
        kernels[name][architecture] = of_one
    return {"nvidia-cuda-nvrtc": version("nvidia-cuda-nvrtc"), "kernels": kernels}


def test_every_kernel_takes_what_is_written_down() -> None:
    written = json.loads(WRITTEN.read_text())
    if version("nvidia-cuda-nvrtc") != written["nvidia-cuda-nvrtc"]:
        pytest.fail(
            f"{WRITTEN.name} was written with nvidia-cuda-nvrtc {written['nvidia-cuda-nvrtc']}, and"
            f" {version('nvidia-cuda-nvrtc')} is installed: install what constraints.txt pins, or write the file anew"
        )
    assert measured() == written, f"if this is wanted, write {WRITTEN.name} anew: see the top of {Path(__file__).name}"


def test_no_kernel_spills() -> None:
    spilled = {
        (name, architecture): taken["spill_bytes"]
        for name, of_each in measured()["kernels"].items()
        for architecture, taken in of_each.items()
        if taken["spill_bytes"]
    }
    assert not spilled


if __name__ == "__main__":
    WRITTEN.write_text(json.dumps(measured(), indent=2) + "\n")
