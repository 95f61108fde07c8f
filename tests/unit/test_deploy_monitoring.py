"""The alerts and the dashboard of deploy/ ask for metrics and labels that the daemon has."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from penstock.v1.histogram import BUCKETS
from penstock_daemon.budget_metrics import BudgetSnapshot, StageBudget
from penstock_daemon.clocks.metrics import ClocksSnapshot
from penstock_daemon.feed.metrics import FeedSnapshot
from penstock_daemon.metrics import LatencyHistogram, MetricsSnapshot, make_registry
from penstock_daemon.subscriptions import SubscriptionCounts

RULES = Path("deploy", "prometheus", "penstock-rules.yaml")
BOARD = Path("deploy", "grafana", "penstock-budget.json")
SCRAPED = {"instance", "job"}  # Prometheus's own labels of whatever it scrapes.


def shown_labels() -> dict[str, set[str]]:
    """Return the labels of every sample that a daemon shows, by its name."""
    counts = np.ones(BUCKETS, np.int64)
    snapshot = MetricsSnapshot(
        budget=BudgetSnapshot(stages=[StageBudget("grpc", "total", 5_000_000, 1)]),
        histograms=[LatencyHistogram("grpc", "total", "realtime", counts, 1)],
        clocks=ClocksSnapshot(synchronised=True),
        feed=FeedSnapshot("feed", gaps={"unrecovered": 1}, socket_drops={"a": 1}, counters={"ring_drops": 1}),
        subscriptions=SubscriptionCounts(),
    )
    text = generate_latest(make_registry(lambda: snapshot, "0")).decode()
    found: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found.setdefault(sample.name, set()).update(sample.labels)
    return found


def expressions(repository_root: Path, file: Path) -> list[str]:
    """Return the PromQL of a file."""
    text = (repository_root / file).read_text(encoding="utf-8")
    if file.suffix == ".json":
        board = json.loads(text)
        variables = [one["query"] for one in board["templating"]["list"] if one["type"] == "query"]
        return variables + [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    yaml = pytest.importorskip("yaml")
    return [rule["expr"] for group in yaml.safe_load(text)["groups"] for rule in group["rules"]]


@pytest.mark.parametrize("file", [RULES, BOARD], ids=["rules", "board"])
def test_every_metric_and_label_that_is_asked_for_is_there(repository_root: Path, file: Path) -> None:
    shown = shown_labels()
    asked = expressions(repository_root, file)
    assert len(asked) > 5
    for expression in asked:
        names = re.findall(r"\b(penstock_\w+)(?:\{([^}]*)\})?", expression)
        assert names or "penstock:" in expression, expression
        for name, selector in names:
            assert name in shown, f"{name} in {expression}"
            labels = set(re.findall(r"(\w+)\s*[=!]~?", selector))
            assert labels <= shown[name] | SCRAPED, f"{labels} in {expression}"


def test_recorded_name_that_an_alert_asks_for_is_recorded(repository_root: Path) -> None:
    text = (repository_root / RULES).read_text(encoding="utf-8")
    assert set(re.findall(r"\bpenstock:[\w:]+", text)) == set(re.findall(r"- record: (\S+)", text))


def test_each_alert_says_how_bad_and_what(repository_root: Path) -> None:
    yaml = pytest.importorskip("yaml")
    groups = yaml.safe_load((repository_root / RULES).read_text(encoding="utf-8"))["groups"]
    alerts = [rule for group in groups for rule in group["rules"] if "alert" in rule]
    assert {alert["labels"]["severity"] for alert in alerts} == {"critical", "warning", "info"}
    assert all("$labels.instance" in alert["annotations"]["summary"] for alert in alerts)
    assert len({alert["alert"] for alert in alerts}) == len(alerts)


@pytest.mark.skipif(shutil.which("promtool") is None, reason="no promtool on this host")
def test_rules_have_no_fault_that_promtool_finds(repository_root: Path) -> None:
    done = subprocess.run(
        ["promtool", "check", "rules", repository_root / RULES], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
