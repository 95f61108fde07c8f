"""Snapshots of online readouts: what is compared before one is taken, what may change meanwhile, and nothing by halves.

docs/online.md tells operators which keys they may change between two starts; the tests here are what it relies on.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from penstock_daemon.online_snapshot import Owner, SnapshotError, restore, snapshot_bytes
from penstock_kernels import online_layout as layout
from penstock_kernels.drive import new_place
from penstock_kernels.model import Model
from penstock_kernels.online_drive import OnlinePlace, new_online_place, run_online
from penstock_kernels.online_layout import OnlineSettings, learned_parts
from penstock_kernels.predictor import pack
from support.models import HORIZONS, random_model
from support.tick_stream import tick_stream

SETTINGS = OnlineSettings(units=5, forgetting=0.999, trace_max=10.0, updates_per_tick=4, pending_max=64)
OWNER = Owner("maker", "alpha", "0f" * 32, "GLBX.MDP3", "ESU4")
TICKS = tick_stream(31, 600)


def learned(model: Model) -> OnlinePlace:
    """Return a readout that has learned from the first 300 ticks."""
    place = new_online_place(model, SETTINGS)
    run_online(pack(model), TICKS[:300], place)
    assert place.learned > 0
    return place


def parts_of(place: OnlinePlace, model: Model) -> bytes:
    """Return all that the horizons have learned, as bytes."""
    horizons = range(len(model.horizons))
    return b"".join(part.tobytes() for index in horizons for part in learned_parts(place.words, place.values, index))


@pytest.mark.parametrize(
    "changes",
    [{}, {"forgetting": 0.9999}, {"trace_max": 0.5}, {"updates_per_tick": 1}, {"pending_max": 200}],
)
def test_how_it_learns_may_change_between_two_starts_and_what_was_learned_is_kept(changes: dict[str, float]) -> None:
    model = random_model(30)
    before = learned(model)
    settings = replace(SETTINGS, **changes)  # type: ignore[arg-type]  # Each value has its field's type.
    after = new_online_place(model, settings)
    restore(snapshot_bytes(OWNER, before.words, before.values), OWNER, after.words, after.values)
    assert parts_of(after, model) == parts_of(before, model)
    assert after.learned == before.learned
    run_online(pack(model), TICKS[300:], after, new_place(pack(model)))
    assert after.learned > before.learned
    for horizon in range(len(model.horizons)):
        root = learned_parts(after.words, after.values, horizon)[1].astype(np.float64)
        assert (root**2).sum() <= settings.trace_max * 1.001  # The bound of now, not that of the snapshot.


@pytest.mark.parametrize("field", ["client", "model", "model_sha256", "dataset", "symbol"])
def test_snapshot_of_another_owner_is_refused(field: str) -> None:
    model = random_model(30)
    before, after = learned(model), new_online_place(model, SETTINGS)
    fresh = parts_of(after, model)
    with pytest.raises(SnapshotError, match=f"^{field} is 'other', wanted "):
        restore(
            snapshot_bytes(replace(OWNER, **{field: "other"}), before.words, before.values),
            OWNER,
            after.words,
            after.values,
        )
    assert parts_of(after, model) == fresh


def test_snapshot_of_other_shapes_is_refused() -> None:
    model = random_model(30)
    data = snapshot_bytes(OWNER, learned(model).words, learned(model).values)
    for other, settings, sentence in (
        (model, replace(SETTINGS, units=4), "regressors is"),
        (random_model(30, horizons=HORIZONS[:1]), SETTINGS, "horizons is"),
    ):
        after = new_online_place(other, settings)
        fresh = parts_of(after, other)
        with pytest.raises(SnapshotError, match=sentence):
            restore(data, OWNER, after.words, after.values)
        assert parts_of(after, other) == fresh
        assert after.words[layout.LEARNED] == 0
