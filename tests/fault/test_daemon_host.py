"""A real daemon on this very host: what it says of it, when it refuses, and what the kernel takes back when it dies."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from penstock_host.host import Host
from penstock_host.latency import NO_LIMIT_US, latency_limit_us
from support.daemon import launch_daemon, running_daemon, small
from support.scrape import scrape
from support.victim import wait_until

START_S = 300.0


def checked_items() -> dict[str, dict[str, object]]:
    """Return what penstock-tune says of this host, by item."""
    command = [sys.executable, "-m", "penstock_host", "check", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode in {0, 1}, done.stderr
    return {item["id"]: item for item in json.loads(done.stdout)["items"]}


def test_daemon_says_what_penstock_tune_says_before_it_serves(tmp_path: Path) -> None:
    with running_daemon(tmp_path, *small(tmp_path, "metrics.address=127.0.0.1:0", "log.level=debug")) as daemon:
        (summary,) = daemon.events("host_checked")
        said = daemon.events("host_costs_latency")
        events = [line["event"] for line in daemon.log()]
        assert events.index("host_costs_latency") < events.index("host_checked") < events.index("serving")
        assert (summary["require"], summary["missed"]) == ("none", "none")
        assert str(summary["costly"]).split() == list(dict.fromkeys(line["item"] for line in said))
        items = checked_items()
        # Of the whole host, whoever looks.
        for item_id in ("C12", "C13", "C17", "C18", "C19", "C20"):
            lines = [line for line in said if line["item"] == item_id]
            assert bool(lines) == (items[item_id]["status"] == "DRIFT"), item_id
            assert "; ".join(dict.fromkeys(str(line["want"]) for line in lines)) == (
                items[item_id]["wanted"] if lines else ""
            )
        shown = {name: count for name, count in scrape(daemon).items() if name.startswith("penstock_host_items{")}
        drift = sum(count for name, count in shown.items() if 'status="DRIFT"' in name)
        assert drift == len({line["item"] for line in said if line["status"] == "DRIFT"})


def test_daemon_refuses_a_host_that_is_not_as_it_must_be(tmp_path: Path) -> None:
    # Whatever the host: an engine that is not pinned has no core of its own.
    daemon = launch_daemon(tmp_path, *small(tmp_path, "tuning.require=must", "engine.pin=false"))
    try:
        assert daemon.process.wait(START_S) == 2
    finally:
        daemon.kill()
    (sentence,) = (line for line in daemon.output().splitlines() if line.startswith("penstockd: "))
    assert sentence.startswith('penstockd: tuning.require: must be "none" on this host, was "must": ')
    assert "P1 the daemon's threads" in sentence
    assert "penstock-tune plan --only " in sentence
    assert "P1" in {line["item"] for line in daemon.events("host_costs_latency")}
    assert not daemon.events("serving")
    assert "Traceback" not in daemon.output()
    assert not (tmp_path / "penstock.sock").exists()


def test_profile_that_is_not_there_is_refused_before_any_work(tmp_path: Path) -> None:
    daemon = launch_daemon(tmp_path, *small(tmp_path, f"tuning.profile={tmp_path}/absent.toml"))
    try:
        assert daemon.process.wait(START_S) == 2
    finally:
        daemon.kill()
    assert "penstockd: tuning.profile: must be a file that can be read, was " in daemon.output()


@pytest.mark.skipif(
    os.environ.get("PENSTOCK_TUNE_MACHINE") != "1",
    reason="lets no CPU of this machine sleep for a moment: PENSTOCK_TUNE_MACHINE=1 asks for it",
)
@pytest.mark.parametrize("end", ["terminate", "kill"])
def test_kernel_lets_cpus_sleep_again_however_the_daemon_ends(end: str, tmp_path: Path) -> None:
    host = Host()
    if latency_limit_us(host) < NO_LIMIT_US:
        pytest.skip("somebody else holds /dev/cpu_dma_latency")
    with running_daemon(tmp_path, *small(tmp_path, "tuning.cpu_dma_latency_us=0")) as daemon:
        assert latency_limit_us(host) == 0
        assert "C7" not in {line["item"] for line in daemon.events("host_costs_latency")}
        getattr(daemon, end)()
        wait_until(lambda: latency_limit_us(host) == NO_LIMIT_US)
