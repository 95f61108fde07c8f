"""A daemon on a real card, over gRPC: the hash of a replay is the CPU's, and the counters of the metrics are 0."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

pytestmark = pytest.mark.gpu

NEEDED = ("structlog", "grpc_health", "grpc_reflection", "databento_dbn", "prometheus_client")
TICKS = 2_000


def replayed(folder: Path, device: str, mode: str = "graph") -> tuple[str, int, dict[str, float]]:
    """Replay the same ticks through a daemon on *device*; returns the hash, the answers, and figures of its metrics."""
    from penstock_client.instruments import Instrument
    from penstock_client.replay import ReplayPlan, replay
    from penstock_client.replay_schedule import MAX_SPEED
    from penstock_client.replay_summary import prediction_hash
    from support.daemon import running_daemon, small
    from support.scrape import scrape
    from support.tick_arrays import quotes

    folder.mkdir()
    sets = (f"engine.device={device}", f"engine.device_mode={mode}", "metrics.address=127.0.0.1:0")
    with running_daemon(folder, *small(folder, *sets)) as daemon:
        instruments = [Instrument(number, f"S{number}", "TEST") for number in (1, 2, 3)]
        plan = ReplayPlan(instruments, quotes(TICKS, (1, 2, 3)), daemon.address, speed=MAX_SPEED)
        run = replay(plan)
        return prediction_hash(run), run.answered, scrape(daemon)


@pytest.mark.usefixtures("cuda")
def test_a_replay_through_the_card_has_the_hash_of_the_cpu(tmp_path: Path) -> None:
    for module in NEEDED:
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"needs {module}, which is not installed here")
    by_card = replayed(tmp_path / "cuda", "cuda")
    by_cpu = replayed(tmp_path / "cpu", "cpu")
    assert by_card[:2] == by_cpu[:2]
    assert by_card[1] == TICKS
    figures = by_card[2]
    assert figures["penstock_device_ticks_total"] >= TICKS
    assert 0 < figures["penstock_device_launches_total"] <= figures["penstock_device_ticks_total"]
    for name in ("eager_launches_total", "allocations_total", "degraded"):
        assert figures[f"penstock_device_{name}"] == 0, name
