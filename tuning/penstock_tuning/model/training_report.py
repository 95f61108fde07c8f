"""What a model file tells about its own making: data, protocol, skill with intervals beside its baselines.

plain JSON numbers, texts, lists and objects; nothing of the clock, the machine or the folder it was made in
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from penstock_kernels.model import OUTPUTS_PER_HORIZON, HorizonKind
from penstock_tuning.model.block_pass import BlockPass
from penstock_tuning.model.bootstrap import BOOTSTRAP_BLOCKS, COVERAGE, DRAWS
from penstock_tuning.model.readouts import FEATURES, LINEAR_MEMORY, MODEL, Penalty
from penstock_tuning.model.rebuild import REBUILD_TICKS_MAX, TOLERANCE
from penstock_tuning.model.settings import (
    BLOCKS,
    FIRST_FOLD,
    FIRST_TEST,
    SURVEY_BLOCKS,
    WASHOUT_TICKS,
    WINSORISED,
    FitSettings,
)
from penstock_tuning.model.skill import IMBALANCE, HorizonSkill
from penstock_tuning.model.survey import Survey

CAVEAT: Final = "No figure includes costs, latency or market impact: none of them is a profit."
PROTOCOL: Final = (
    "Rows in order of time, never shuffled, in ten blocks with about as many ticks each. Each of the last seven is foretold "
    "by a readout of all earlier blocks, with the penalty that foretold those best in the same way; skill is that of "
    "these seven. A row whose label was known only after its block ended is not fitted on. Scales and limits come from the "
    "first three blocks. Intervals are those of a moving-block bootstrap, the same draws for every forecaster. The model's "
    "own readout is then fitted on all rows."
)


def make_report(settings: FitSettings, work: BlockPass, rebuild: Mapping[str, float | None]) -> dict[str, Any]:
    """Return the training report of a model from the finished *work*."""
    recordings, found = work.task.recordings, work.task.survey
    model_family = work.readouts.families[0]
    penalties = work.readouts.chosen(BLOCKS, model_family)
    return {
        "caveat": CAVEAT,
        "data": [
            {
                "name": one.name,
                "sha256": one.sha256,
                "ticks": one.ticks,
                "first_ns": one.first_ns,
                "last_ns": one.last_ns,
                "instruments": list(one.instruments),
            }
            for one in recordings.all
        ],
        "protocol": {
            "text": PROTOCOL,
            "blocks": BLOCKS,
            "surveyed_blocks": SURVEY_BLOCKS,
            "penalties_from_block": FIRST_FOLD + 1,
            "tested_from_block": FIRST_TEST + 1,
            "boundaries_ns": list(work.task.boundaries_ns),
            "washout_ticks": WASHOUT_TICKS,
            "winsorised_quantiles": list(WINSORISED),
            "penalties_tried": list(settings.penalties),
            "linear_penalties_tried": list(settings.linear_penalties),
            "bootstrap": {"blocks": BOOTSTRAP_BLOCKS, "draws": DRAWS, "coverage": COVERAGE},
        },
        "rows_by_block": list(found.rows),
        "reservoir": {
            "recurrence": settings.recurrence,
            "spectral_radius": settings.drawn_radius,
            "time_base": settings.time_base,
            "time_constants": [settings.time_constant_events_min, settings.time_constant_events_max],
            "leak": settings.leak,
            "input_scale": settings.input_scale,
            "bias_scale": settings.bias_scale,
        },
        "products": settings.made_products,
        "linear_memory": {"averages_events": list(settings.memory_averages), "lags": settings.memory_lags},
        "rebuild": {
            "forgetting_rate_per_tick": rebuild["forgetting_rate"],
            "tolerance": TOLERANCE,
            "ticks_max": REBUILD_TICKS_MAX,
            "ticks_needed": rebuild["ticks_needed"],
            "probability_difference": _round(rebuild["probability_difference"]),
        },
        "skill": {
            horizon.name: _skill(
                found,
                index,
                work.skills[index],
                penalties[index * OUTPUTS_PER_HORIZON : (index + 1) * OUTPUTS_PER_HORIZON],
                horizon.kind,
            )
            for index, horizon in enumerate(settings.horizons)
        },
    }


def _skill(
    found: Survey, index: int, skill: HorizonSkill, penalties: Sequence[Penalty], kind: HorizonKind
) -> dict[str, Any]:
    always = kind == HorizonKind.NEXT_MOVE
    auc_intervals, r2_intervals = skill.intervals()
    log_loss, fair_coin, log_loss_rows = skill.log_loss()
    names = [name for name in (MODEL, LINEAR_MEMORY, FEATURES, IMBALANCE) if name in skill.forecasters]
    model = skill.forecasters[MODEL]
    return {
        "direction_auc": {name: _round(skill.forecasters[name].direction.auc) for name in names},
        "direction_auc_intervals": auc_intervals,
        "direction_auc_by_instrument": {
            name: {"model": _round(direction.auc), "queue_imbalance": _round(imbalance.auc)}
            for name, (direction, imbalance) in sorted(skill.by_stream.items())
        },
        "direction_log_loss": {
            "model": _round(log_loss),
            "fair_coin": _round(fair_coin),
            "rows": log_loss_rows,
        },
        "moved_auc": None if always else _round(skill.moved.auc),
        "return_r2": {name: _round(skill.forecasters[name].returns.explained) for name in names if name != IMBALANCE},
        "return_r2_intervals": r2_intervals,
        "test_rows": model.returns.rows,
        "test_moves": model.direction.total,
        "moved_share": _round(found.moved[index]),
        "up_share": _round(found.up[index]),
        "winsorised": [_round(found.ranges[index].low), _round(found.ranges[index].high)],
        "penalties": [one.units for one in penalties],
        "linear_penalties": [one.linear for one in penalties],
    }


def _round(value: float | None) -> float | None:
    """Return *value* to six digits: enough to read, and nothing below them to differ by."""
    return None if value is None else float(f"{value:.6g}")
