"""The kernel of a micro-batch depends on no order of its threads: most barriers, if missing, would show here."""

from __future__ import annotations

import numpy as np
import pytest

from penstock_kernels.packed import pack
from support.host_device import FIRST_TO_LAST, LAST_TO_FIRST, SHUFFLED, host_device
from support.kernel_rig import Batch, KernelRig
from support.models import random_model
from support.tick_arrays import quotes

MODELS = {
    "cyclic": {"units": 100, "fan_in": 9, "products": 32, "memory_gains": (0.1, 0.02), "memory_lags": 2},
    "sparse": {"units": 50, "topology": "sparse"},
    "dense": {"units": 50, "topology": "dense"},
}


def _run(model, order, *, staged):
    with host_device(order=order) as device:
        rig = KernelRig(device, [model], states=2, staged=staged)
        batches = [Batch(state=0, ticks=quotes(5, seed=1)), Batch(state=1, ticks=quotes(4, seed=2), advance=(1,))]
        results = [rig.launch(batches, blocks=3) for _ in range(2)]
        states, running = rig.read_states()
    answers = np.concatenate(results)[["forecasts", "flags", "fault"]]
    return [np.ascontiguousarray(answers[name]).tobytes() for name in answers.dtype.names] + [
        states.tobytes(),
        running.tobytes(),
    ]


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("staged", [True, False])
def test_any_order_of_threads_gives_the_same_bits(name: str, staged: bool) -> None:
    model = pack(random_model(7, **MODELS[name]))
    expected = _run(model, FIRST_TO_LAST, staged=staged)
    for order in (LAST_TO_FIRST, SHUFFLED, SHUFFLED + 1):
        assert _run(model, order, staged=staged) == expected
