"""The two benchmarks that start no daemon, with small networks: their JSON has the promised fields, and adds up."""

from __future__ import annotations

import importlib.util
import json
from statistics import median
from typing import Any

import pytest

from penstock_tuning.bench import cli, kernel_times, reference

PEERS = importlib.util.find_spec("reservoirpy") is not None


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    code = cli.main([*arguments, "--quick", "--json"])
    said = capsys.readouterr()
    assert code == 0, said.err
    found: dict[str, Any] = json.loads(said.out)
    assert found["benchmark"] == arguments[0]
    assert found["scale"].startswith("quick")
    return found


def test_kernels_times_every_side_at_every_size(capsys: pytest.CaptureFixture[str]) -> None:
    found = run(capsys, "kernels", "--rounds", "2")
    sizes = {"64", "128"}
    for name in ("cyclic", "sparse", "dense", "floor", "numpy_dense", "scipy_csr"):
        assert found[f"{name}_us"].keys() == sizes
        assert min(found[f"{name}_us"].values()) > 0
    for name in ("reservoirpy_degree10", "reservoirpy_default"):
        assert found[f"{name}_us"].keys() == found[f"ratio_{name}"].keys() == (sizes if PEERS else set())
        for units, ratio in found[f"ratio_{name}"].items():
            assert ratio == found[f"{name}_us"][units] / found["cyclic_us"][units]
    assert found["weight_bytes"]["cyclic"]["128"] >= 4 * 128 * (1 + 16 + 8 + 1 + 9)
    assert found["weight_bytes"]["dense"]["128"] > 4 * 128 * 128
    assert found["l2_bandwidth_gb_per_s"] > 0
    assert found["linearity"].keys() == {"fixed_us", "per_unit_ns", "per_connection_ns", "r2", "worst_deviation"}
    assert found["cyclic_batched_us"].keys() == {f"{units}x{states}" for units in sizes for states in (1, 4, 16, 64)}
    assert min(found["cyclic_batched_us"].values()) > 0
    assert found["aims"] == {}  # They are for 1,024 units.


def test_linearity_finds_the_line() -> None:
    def cost(units: int, fan_in: int) -> float:
        return 0.5 + 1e-3 * units + 2e-4 * units * fan_in

    times = {str(units): cost(units, kernel_times.FAN_IN) for units in (512, 1024, 4096)}
    others = {f"{units}x{fan_in}": cost(units, fan_in) for units in (512, 1024, 4096) for fan_in in (4, 32)}
    fit = kernel_times.linearity({"cyclic_us": times, "cyclic_by_fan_in_us": others})
    assert fit["fixed_us"] == pytest.approx(0.5)
    assert fit["per_unit_ns"] == pytest.approx(1.0)
    assert fit["per_connection_ns"] == pytest.approx(0.2)
    assert fit["r2"] == pytest.approx(1.0)
    assert fit["worst_deviation"] == pytest.approx(0.0, abs=1e-9)


def test_reference_has_a_row_for_every_case_subject_and_seed(capsys: pytest.CaptureFixture[str]) -> None:
    found = run(capsys, "reference", "--seeds", "1")
    subjects = ["cyclic", "sparse", "dense", *(["reservoirpy"] if PEERS else [])]
    rows = found["rows"]
    assert [row["subject"] for row in rows if row["case"] == "memory"] == subjects
    assert [row["subject"] for row in rows if row["case"] == "narma10_10"] == subjects
    assert [row["subject"] for row in rows if row["subject"] == "linear"] == ["linear"]
    assert {row["task"] for row in rows} == {"narma10", "mackey_glass", "memory", "minimal_esn"}
    for row in rows:
        assert row["values"] == [row["median"]]
        compared = PEERS and row["subject"] in ("cyclic", "sparse", "dense")
        assert (row["within_peer_spread"] is not None) == compared
    assert found["comparisons"] == sum(row["within_peer_spread"] is not None for row in rows)
    assert found["comparisons_missed"] == sum(row["within_peer_spread"] is False for row in rows)


def test_row_tells_where_the_seeds_lie() -> None:
    case = reference.Case("narma10", 100, "NRMSE", published=0.3, source="somewhere")
    row = reference._row(case, "cyclic", [(value, 0.5) for value in (0.5, 0.1, 0.2, 0.4, 0.3)])
    assert (row["lower_quartile"], row["median"], row["upper_quartile"]) == (0.2, median(row["values"]), 0.4)
    assert (row["case"], row["units"], row["seconds"], row["published"]) == ("narma10_100", 100, 2.5, 0.3)


def test_within_the_spread_is_no_worse_than_the_peers_worst_quarter() -> None:
    lower = reference.Case("narma10", 100, "NRMSE")
    peer = {"lower_quartile": 0.2, "median": 0.25, "upper_quartile": 0.3}
    assert reference._within({"median": 0.29}, peer, lower)
    assert not reference._within({"median": 0.31}, peer, lower)
    capacity = reference.Case("memory", 100, "memory capacity", higher_is_better=True)
    assert reference._within({"median": 0.27}, peer, capacity)
    assert not reference._within({"median": 0.19}, peer, capacity)


def test_table_marks_what_was_missed_and_leaves_absent_columns_empty() -> None:
    row = {"case": "memory", "median": 1.5, "lower_quartile": 1.0, "upper_quartile": 2.0, "published": None}
    lines = reference.table([row | {"subject": "cyclic", "within_peer_spread": False}])
    assert lines[2] == "| memory | 1.5 (1 to 2) MISSED |  |  |  |  |  |"
