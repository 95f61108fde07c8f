"""The bits of predictions, for ever: a change of any of them must be meant, and is then written down here.

The hashes are of x86-64. Every operation is one that IEEE 754 fixes, so other architectures should agree; none was
tried.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from penstock_kernels.drive import run_predictions, run_raw_features
from penstock_kernels.model_file import model_to_bytes
from penstock_kernels.predictor import pack
from support.models import HORIZONS, random_model
from support.tick_stream import tick_stream

X86_64 = {
    "weights of each topology": "1446ee8c0916330eb42fd2385149b96c",
    "forecasts of each topology by seconds": "95fbac7dc5ac9030ef95c1f2ecfd8fd7",
    "ticks": "da91a59179897503c6cf0d792c8cd6bd",
    "features": "31dd043077dea12dfab60b6cf1ea90a1",
    "model file": "611f70835574fe156f99361f6a646dd5",
    "forecasts": "f9e24cae9cb33f5b11a2057a6deae455",
    "forecasts, 1000 units": "8eb3ca879d3374f118e14188433c1202",
}
WIDTHS = {"generic": "128-bit vectors", "haswell": "256-bit vectors and fused multiply-add"}

pytestmark = pytest.mark.skipif(
    platform.machine() != "x86_64", reason=f"the hashes are of x86_64, this is {platform.machine()}"
)


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:32]


def found() -> dict[str, str]:
    ticks = tick_stream(20_240_808, 5_000)
    model = random_model(42, units=100, horizons=HORIZONS)
    large = random_model(43, units=1_000, fan_in=8, horizons=HORIZONS)
    weights = hashlib.sha256()
    forecasts = hashlib.sha256()
    for topology in ("cyclic", "sparse", "dense"):
        memory = {"memory_gains": (0.5, 0.1, 0.03), "memory_lags": 3}
        drawn = random_model(44, units=75, fan_in=5, topology=topology, time_base="seconds", **memory)
        for name in ("recurrent", "connections", "input_weights", "bias", "leak"):
            weights.update(getattr(drawn, name).tobytes())
        forecasts.update(run_predictions(pack(drawn), ticks[:1_000]).astype("<f4").tobytes())
    return {
        "weights of each topology": weights.hexdigest()[:32],
        "forecasts of each topology by seconds": forecasts.hexdigest()[:32],
        "ticks": digest(ticks.tobytes()),
        "features": digest(run_raw_features(ticks).astype("<f8").tobytes()),
        "model file": digest(model_to_bytes(model)),
        "forecasts": digest(run_predictions(pack(model), ticks).astype("<f4").tobytes()),
        "forecasts, 1000 units": digest(run_predictions(pack(large), ticks).astype("<f4").tobytes()),
    }


def test_seeded_ticks_features_and_forecasts_have_the_recorded_bits():
    assert found() == X86_64


@pytest.mark.parametrize("processor", WIDTHS)
def test_code_for_other_processors_has_the_same_bits(processor):
    """Compiled as for another x86-64; where this machine could not run that code, there is nothing to compare."""
    code = "import json; from golden.test_kernels_prediction_hash import found; print(json.dumps(found()))"
    features = Path("/proc/cpuinfo").read_text(encoding="utf-8") if Path("/proc/cpuinfo").exists() else ""
    if processor == "haswell" and not {"avx2", "fma", "bmi2", "movbe"} <= set(features.split()):
        pytest.skip("this machine cannot run code for haswell")
    result = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parent.parent,
        env=os.environ | {"NUMBA_CPU_NAME": processor, "NUMBA_CPU_FEATURES": ""},
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(result.stdout) == X86_64
