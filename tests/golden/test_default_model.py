"""The embedded default model is what its documented command makes of today's code, to the byte."""

from __future__ import annotations

import hashlib

from penstock_kernels.model_file import default_model, model_to_bytes
from penstock_tuning.model.default import make_default


def test_documented_command_makes_the_embedded_model_again() -> None:
    made = hashlib.sha256(model_to_bytes(make_default())).hexdigest()
    assert made == default_model().content_hash.hex(), (
        "simulator, kernels or training changed: run penstock-train default"
    )
