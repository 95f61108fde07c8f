"""A model file in words: what it is, what it was trained on, and what it is worth beside its baselines."""

from __future__ import annotations

import datetime as dt
from typing import Any

from penstock_kernels.model import Model
from penstock_kernels.model_file import LoadedModel


def as_json(loaded: LoadedModel) -> dict[str, Any]:
    """Return all of a model but its weights, as plain JSON."""
    model = loaded.model
    return {
        "name": model.name,
        "version": model.version,
        "content_hash": loaded.content_hash.hex(),
        "serial": loaded.serial,
        "demonstration": model.demonstration,
        "notice": model.notice,
        "topology": model.topology,
        "units": model.units,
        "fan_in": model.fan_in,
        "seed": model.seed,
        "time_base": model.time_base,
        "memory_gains": [float(gain) for gain in model.memory_gains],
        "memory_lags": model.memory_lags,
        "features": list(model.features),
        "horizons": [
            {"name": one.name, "kind": one.kind.name, "events": one.events, "duration_ns": one.duration_ns}
            for one in model.horizons
        ],
        "calibration": [
            {
                "return_scale": one.return_scale,
                "deviation": one.deviation,
                "direction_slope": one.direction_slope,
                "direction_offset": one.direction_offset,
                "moved_slope": one.moved_slope,
                "moved_offset": one.moved_offset,
            }
            for one in model.calibration
        ],
        "rebuild_ticks": model.rebuild_ticks,
        "training": model.training,
    }


def as_text(loaded: LoadedModel) -> str:
    """Return what a person wants to know of a model, in lines."""
    model = loaded.model
    title = f"{model.name} {model.version}".strip()
    lines = [f"{title}  (serial {loaded.serial}, sha256 {loaded.content_hash.hex()[:16]}...)"]
    if model.notice:
        lines.append(f"  {model.notice}")
    lines += [
        f"  reservoir      {model.topology}, {model.units} units, fan-in {model.fan_in}, seed {model.seed}",
        f"  features       {', '.join(model.features)}",
        f"  rebuild ticks  {model.rebuild_ticks}",
    ]
    if not model.training:
        return "\n".join([*lines, "  trained        no report in the file"])
    return "\n".join([*lines, *_data_lines(model.training), "", *skill_lines(model)])


def skill_lines(model: Model) -> list[str]:
    """Return the table of skill on the test rows, model beside baselines, and its caveat; empty without a report."""
    training = model.training
    if "skill" not in training:
        return []
    row = "  {:10}{:>8}{:>10}{:>11}{:>10}{:>12}{:>10}{:>11}{:>10}"
    lines = [
        "  on the last rows, foretold by a readout that saw none of them",
        row.format("", "AUC of", "direction", "", "log-loss", "return R2", "", "moved AUC", "rows"),
        row.format("horizon", "model", "features", "imbalance", "model", "model", "features", "model", ""),
    ]
    for name in (horizon.name for horizon in model.horizons):
        skill = training["skill"][name]
        auc, r2 = skill["direction_auc"], skill["return_r2"]
        figures = (
            auc["model"],
            auc["features_ridge"],
            auc["queue_imbalance"],
            skill["direction_log_loss"]["model"],
            r2["model"],
            r2["features_ridge"],
            skill["moved_auc"],
        )
        lines.append(row.format(name, *(_figure(one) for one in figures), skill["test_rows"]))
        by_instrument = skill["direction_auc_by_instrument"]
        if len(by_instrument) > 1:
            lines += [
                f"    {instrument}: {_figure(one['model'])}, imbalance {_figure(one['queue_imbalance'])}"
                for instrument, one in by_instrument.items()
            ]
    lines += [
        "  features: ridge on the tick's features alone; imbalance: the queues' own, unfitted; log-loss of a fair coin 0.693",
        f"  {training['caveat']}",
    ]
    return lines


def _data_lines(training: dict[str, Any]) -> list[str]:
    lines = []
    for index, one in enumerate(training.get("data", [])):
        span_s = (one["last_ns"] - one["first_ns"]) / 1e9
        start = dt.datetime.fromtimestamp(one["first_ns"] // 10**9, tz=dt.UTC).strftime("%Y-%m-%d %H:%M:%S")
        lines.append(
            f"  {'trained on' if index == 0 else '':14} {one['name']}: {one['ticks']} ticks, {span_s:.0f} s from {start} "
            f"UTC, {', '.join(one['instruments'])}, sha256 {one['sha256'][:16]}..."
        )
    return lines


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
