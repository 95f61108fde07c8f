"""What a start gives: threads where they were asked for, memory locked or said why not, readiness only when warm."""

from __future__ import annotations

import ctypes
import os
import re
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from penstock.v1 import daemon_pb2, daemon_pb2_grpc
from support.compiled import share
from support.daemon import RunningDaemon, launch_daemon, running_daemon, small
from support.raw_stream import RawStream, StreamEndError, undisturbed
from support.tick_arrays import quotes

SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING
START_S = 300.0  # Compiling all of it takes half a minute where nobody else needs the CPUs.
LIMIT_BYTES = 64 << 10
MEND = r"LimitMEMLOCK=\d+K in the systemd unit, or 'ulimit -l \d+' before the start"
_PR_CAPBSET_DROP = 24
_CAP_IPC_LOCK = 14


def until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + START_S
    while not condition():
        assert time.monotonic() < deadline, f"{what} within {START_S} s"
        time.sleep(0.02)


# --- Compilation, before any other daemon of this page has done it ---------------------------------------------------


def cached_files(folder: Path) -> dict[str, int]:
    """Return the files below *folder* and when each was last written."""
    return {str(path): path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def test_readiness_follows_the_compilation_which_the_next_start_is_spared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared = Path(os.environ["NUMBA_CACHE_DIR"])
    monkeypatch.delenv("NUMBA_CACHE_DIR")  # Would take precedence.
    cache = tmp_path / "cache"
    environment = {"PENSTOCK_CACHE_DIR": str(cache)}
    sets = small(tmp_path)
    cold = launch_daemon(tmp_path, *sets, environment=environment)
    try:
        until((tmp_path / "penstock.sock").exists, "listened")
        with grpc.insecure_channel(cold.address) as channel:
            health = health_pb2_grpc.HealthStub(channel)

            def status() -> int:
                return health.Check(health_pb2.HealthCheckRequest(), wait_for_ready=True, timeout=START_S).status

            assert status() == NOT_SERVING
            warming = daemon_pb2_grpc.DaemonServiceStub(channel).DescribeDaemon(
                daemon_pb2.DescribeDaemonRequest(), timeout=START_S
            )
            assert list(warming.snapshot.reasons) == [daemon_pb2.NOT_SERVING_REASON_STARTING]
            assert not warming.snapshot.serving
            told = {field.name for field, _ in warming.snapshot.ListFields()}
            assert {"identity", "clocks"} <= told
            assert not {"model", "engine", "self_watch"} & told
            assert not cold.events("serving")
            with RawStream(cold.address) as early, pytest.raises(StreamEndError) as refused:
                early.hello()
            assert (refused.value.code, status()) == ("UNAVAILABLE", NOT_SERVING), refused.value
            assert "warm" in refused.value.message or "start" in refused.value.message
            until(lambda: status() == SERVING, "became ready")
        assert len(undisturbed(cold.address, quotes(20))) == 20
        assert cold.terminate() == 0
    finally:
        cold.kill()
    compiled = cached_files(cache)
    assert len(compiled) > 10
    with running_daemon(tmp_path, *sets, environment=environment) as warm:
        assert len(undisturbed(warm.address, quotes(20))) == 20
    assert cached_files(cache) == compiled, "nothing was compiled again"
    (own,) = (cache / "compiled").iterdir()
    share(own, shared)  # Else the next daemon compiles it again.
    assert {path.relative_to(own) for path in own.rglob("*.nbi")} <= {
        path.relative_to(shared) for path in shared.rglob("*.nbi")
    }


# --- Threads ----------------------------------------------------------------------------------------------------------


def cpus_by_thread(pid: int) -> dict[str, set[frozenset[int]]]:
    """Return, for the threads of each name, the CPUs that the kernel lets them use."""
    found: dict[str, set[frozenset[int]]] = {}
    for task in Path(f"/proc/{pid}/task").iterdir():
        found.setdefault((task / "comm").read_text().strip(), set()).add(
            frozenset(os.sched_getaffinity(int(task.name)))
        )
    return found


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="one CPU: threads can't be kept apart")
def test_every_thread_has_the_cpus_that_were_configured(tmp_path: Path) -> None:
    server, engine = sorted(os.sched_getaffinity(0))[:2]
    sets = small(tmp_path, f"engine.cores={engine}", f"server.cores={server}", "metrics.address=127.0.0.1:0")
    with running_daemon(tmp_path, *sets) as daemon:
        assert len(undisturbed(daemon.address, quotes(100))) == 100, "by now gRPC has all threads that it wants"
        found = cpus_by_thread(daemon.pid)
        (said,) = daemon.events("serving")
    assert found.pop("penstock-engine") == {frozenset({engine})}
    assert len(found) > 1, "gRPC's threads have names of their own"
    assert set().union(*found.values()) == {frozenset({server})}, found
    assert said["reason"] == "as configured"
    shown = dict(said["threads"])
    assert shown.pop("penstock-engine") == str(engine)
    assert set(shown.values()) == {str(server)}
    assert set(shown) <= set(found), "what is shown are threads that there are"
    assert any("event_engine" in name for name in shown), "gRPC's among them"
    assert not daemon.events("thread_misplaced")


# --- Memory -----------------------------------------------------------------------------------------------------------


def launch_under_a_tiny_limit(folder: Path, *sets: str) -> RunningDaemon:
    """Launch a daemon that may lock next to nothing, with the privilege to lock more taken away."""
    launched: list[RunningDaemon] = []

    def launch() -> None:
        # The bounding set is this thread's own, and what it starts can't get back what is not in it.
        ctypes.CDLL(None).prctl(_PR_CAPBSET_DROP, _CAP_IPC_LOCK, 0, 0, 0)
        daemon = launch_daemon(folder, *sets)
        resource.prlimit(daemon.pid, resource.RLIMIT_MEMLOCK, (LIMIT_BYTES, LIMIT_BYTES))
        launched.append(daemon)

    thread = threading.Thread(target=launch)
    thread.start()
    thread.join()
    (daemon,) = launched
    capabilities = re.search(r"CapEff:\s*([0-9a-f]+)", Path(f"/proc/{daemon.pid}/status").read_text())
    assert capabilities is not None
    if int(capabilities[1], 16) >> _CAP_IPC_LOCK & 1:
        daemon.kill()
        pytest.skip("CAP_IPC_LOCK can't be taken away here, and with it no limit holds")
    return daemon


def test_memory_that_must_be_locked_and_is_not_is_refused(tmp_path: Path) -> None:
    daemon = launch_under_a_tiny_limit(tmp_path, *small(tmp_path, "memory.lock=on"))
    try:
        assert daemon.process.wait(START_S) == 2
    finally:
        daemon.kill()
    (sentence,) = (line for line in daemon.output().splitlines() if line.startswith("penstockd: "))
    assert re.fullmatch(
        rf"penstockd: memory\.lock: memory is not locked: mlock of \d+ KiB failed \(.+\); raise the limit: {MEND}",
        sentence,
    )
    assert not daemon.events("serving")
    assert "Traceback" not in daemon.output()
    assert not (tmp_path / "penstock.sock").exists()


def test_memory_that_may_be_locked_and_is_not_is_said_and_served(tmp_path: Path) -> None:
    daemon = launch_under_a_tiny_limit(tmp_path, *small(tmp_path, "memory.lock=auto"))
    try:
        until(lambda: bool(daemon.events("serving")) or daemon.process.poll() is not None, "served")
        (said,) = daemon.events("memory_not_locked")
        assert said["level"] == "warning"
        assert re.search(MEND, str(said["detail"]))
        assert len(undisturbed(daemon.address, quotes(20))) == 20
        assert daemon.terminate() == 0
    finally:
        daemon.kill()


# --- Warm-up ----------------------------------------------------------------------------------------------------------

COUNTS_FROZEN = """
import asyncio, gc, os, sys
from penstock_daemon.config import load_config
from penstock_daemon.notify import Notifier
from penstock_daemon.server import Daemon

class Watched(Daemon):
    def _warm_up(self):
        slowest_ns = super()._warm_up()
        print(gc.get_freeze_count())
        return slowest_ns

async def main():
    daemon = Watched(load_config(None, {}, sys.argv[1:]), Notifier.from_environ({}))
    await daemon.start()
    print(gc.get_freeze_count())
    await daemon.stop()

asyncio.run(main())
"""


def test_collector_is_frozen_after_the_warm_up_and_not_before(tmp_path: Path) -> None:
    sets = (f"server.address=unix:{tmp_path}/s.sock", "metrics.address=", *small(tmp_path))
    done = subprocess.run(
        [sys.executable, "-c", COUNTS_FROZEN, *sets], capture_output=True, text=True, timeout=START_S, check=False
    )
    assert done.returncode == 0, done.stderr
    during, after = (int(line) for line in done.stdout.splitlines() if line.isdecimal())
    assert during == 0
    assert after > 10_000, "all that was imported and made lives as long as the daemon"
