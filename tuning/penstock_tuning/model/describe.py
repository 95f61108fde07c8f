"""A model file in words: what it is, what it was trained on, and what it is worth beside its baselines."""

from __future__ import annotations

import datetime as dt
from math import log
from typing import Any, Final

from penstock_kernels.model import Model
from penstock_kernels.model_file import LoadedModel

_FORECASTERS: Final = ("model", "linear_memory_ridge", "features_ridge", "queue_imbalance")
_ROW: Final = "  {:18}{:>8}{:>8}{:>8}{:>8}{:>20}{:>20}"
_OTHERS: Final = "  {:18}{:>24}{:>16}{:>12}{:>12}"


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
        "products": model.products,
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
    fan_in = "" if model.topology == "dense" else f", fan-in {model.fan_in}"
    drawn = model.training.get("reservoir", {})
    radius = f", spectral radius {drawn['spectral_radius']:g}" if "spectral_radius" in drawn else ""
    lines.append(f"  reservoir      {model.topology}, {model.units} units{fan_in}, seed {model.seed}{radius}")
    memory = model.training.get("linear_memory", {})
    averages = ", ".join(f"{one:g}" for one in memory.get("averages_events", []))
    kept = f"{len(model.memory_gains)} averages{f' ({averages} events)' if averages else ''}, {model.memory_lags} lags"
    lines += [
        f"  readout sees   units, {model.products} products of units, linear memory, features",
        f"  linear memory  {kept}",
        f"  features       {', '.join(model.features)}",
        f"  rebuild ticks  {model.rebuild_ticks}{_forgetting(model)}",
    ]
    if not model.training:
        return "\n".join([*lines, "  trained        no report in the file"])
    return "\n".join([*lines, *_data_lines(model.training), "", *skill_lines(model)])


def _forgetting(model: Model) -> str:
    rate = model.training.get("rebuild", {}).get("forgetting_rate_per_tick")
    return f"; measured, what a state was halves every {log(2.0) / -rate:.3g} ticks" if rate else ""


def skill_lines(model: Model) -> list[str]:
    """Return the tables of skill on the test blocks, model beside baselines, and their caveat; empty without a report."""
    training = model.training
    if "skill" not in training:
        return []
    skills = {horizon.name: training["skill"][horizon.name] for horizon in model.horizons}
    lines = ["  on blocks of time that were each foretold by a readout of earlier ones alone"]
    for title, key in (("AUC of direction", "direction_auc"), ("R2 of return", "return_r2")):
        lines.append("")
        lines.append(_ROW.format(title, "model", "d2", "c", "QI", "model minus d2", "model minus c"))
        for name, skill in skills.items():
            figures = (_figure(skill[key].get(one)) for one in _FORECASTERS)
            apart = skill.get(f"{key}_intervals", {})
            intervals = (_interval(apart.get(f"model_minus_{one}")) for one in _FORECASTERS[1:3])
            lines.append(_ROW.format(name, *figures, *intervals))
            by_instrument = skill["direction_auc_by_instrument"] if key == "direction_auc" else {}
            if len(by_instrument) > 1:
                lines += [
                    f"    {instrument}: {_figure(one['model'])}, QI {_figure(one['queue_imbalance'])}"
                    for instrument, one in by_instrument.items()
                ]
    lines += ["", _OTHERS.format("beside", "log-loss of direction", "AUC of moved", "test rows", "moves")]
    for name, skill in skills.items():
        loss = f"{_figure(skill['direction_log_loss']['model'])} (coin 0.693)"
        lines.append(_OTHERS.format(name, loss, _figure(skill["moved_auc"]), skill["test_rows"], skill["test_moves"]))
    lines += [
        "  d2: ridge on the features and their averages and lags; c: ridge on the tick's features alone;",
        "  QI: the queue imbalance, unfitted; in brackets 95 % of a moving-block bootstrap",
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


def _interval(ends: list[float] | None) -> str:
    return "-" if ends is None else f"[{ends[0]:+.3f}, {ends[1]:+.3f}]"


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
