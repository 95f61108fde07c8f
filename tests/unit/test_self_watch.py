"""What the daemon sees of itself: real switches, faults, intruders, collections and full rings, and what it says of them."""

from __future__ import annotations

import contextlib
import errno
import gc
import os
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from penstock_daemon import engine_memory as memory
from penstock_daemon.engine import EngineSettings
from penstock_daemon.engine_memory import Idle
from penstock_daemon.housekeeper import Housekeeper
from penstock_daemon.self_watch.collector import CollectorWatch
from penstock_daemon.self_watch.foreign import ForeignThreads, Kind
from penstock_daemon.self_watch.threads import read_ran_ns, read_stat, read_switches
from penstock_daemon.self_watch.throttling import Throttled, Throttling
from penstock_daemon.self_watch.watch import INTRUDER_LOOKS, MINOR_FAULTS_TOLD, SelfWatch
from penstock_host import affinity
from support.engines import PATIENCE_S, frozen, open_source, running_engine
from support.tick_stream import tick_stream

CPU = max(affinity.online_cpus())
BUSY = "import os, sys; os.sched_setaffinity(0, {int(sys.argv[1])}); print(flush=True)\nwhile True: pass"


@contextlib.contextmanager
def busy_process(cpu: int) -> Iterator[int]:
    """A process that does nothing but run on *cpu*; its id."""
    with subprocess.Popen([sys.executable, "-c", BUSY, str(cpu)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        try:
            yield process.pid
        finally:
            process.kill()


def wait_for(found: Callable[[], bool]) -> None:
    """Ask again and again, until *found*."""
    deadline_s = time.monotonic() + PATIENCE_S
    while not found():
        assert time.monotonic() < deadline_s, "it never came"
        os.sched_yield()


# --- A thread, as /proc tells ---------------------------------------------------------------------------------------


def test_stat_of_a_thread_with_an_odd_name_is_read():
    name, read, end = [], threading.Event(), threading.Event()

    def run() -> None:
        affinity.name_this_thread("a) R 1 (b ")
        name.append(threading.get_native_id())
        read.set()
        end.wait()

    thread = threading.Thread(target=run)
    thread.start()
    read.wait()
    stat = read_stat(f"/proc/self/task/{name[0]}")
    end.set()
    thread.join()
    assert stat.name == "a) R 1 (b "
    assert stat.last_cpu in affinity.online_cpus()
    assert not stat.of_kernel


def test_faults_switches_and_time_of_this_thread_agree_with_getrusage():
    folder = f"/proc/self/task/{threading.get_native_id()}"
    before = resource.getrusage(resource.RUSAGE_THREAD)
    stat, switches = read_stat(folder), read_switches(folder)
    touched = bytearray(64 * 4096)  # New pages.
    time.sleep(0)
    after = resource.getrusage(resource.RUSAGE_THREAD)
    assert before.ru_minflt <= stat.minor_faults <= after.ru_minflt
    assert before.ru_majflt <= stat.major_faults <= after.ru_majflt
    assert before.ru_nivcsw <= switches.involuntary <= after.ru_nivcsw
    assert before.ru_nvcsw <= switches.voluntary <= after.ru_nvcsw
    assert read_stat(folder).minor_faults >= stat.minor_faults
    assert len(touched) == 64 * 4096


def test_thread_that_has_ended_is_no_fact():
    with pytest.raises(OSError, match="No such file"):
        read_stat(f"/proc/self/task/{2**22 + 1}")
    assert read_ran_ns(f"/proc/self/task/{2**22 + 1}") is None


# --- Who else is there ---------------------------------------------------------------------------------------------


def test_busy_process_on_the_engine_s_cpu_is_named():
    watch = ForeignThreads(frozenset({CPU}), engine_thread=0)
    with busy_process(CPU) as process:
        assert watch.look() == [], "nothing to compare with"
        found = []

        def seen() -> bool:
            found[:] = [one for one in watch.look() if one.process == process]
            return bool(found)

        wait_for(seen)
    (intruder,) = found
    assert (intruder.kind, intruder.cpu, intruder.thread) == (Kind.FOREIGN, CPU, process)
    assert intruder.ran_ns > 0


def test_process_on_another_cpu_and_the_engine_itself_are_no_intruders():
    others = affinity.online_cpus() - {CPU}
    if not others:
        pytest.skip("one CPU alone")
    with (
        running_engine(settings=EngineSettings(idle=Idle.SPIN, cpus=frozenset({CPU}))) as engine,
        busy_process(min(others)) as process,
    ):
        watch = ForeignThreads(frozenset({CPU}), engine.thread_id)
        watch.look()
        seen = {(one.process, one.thread) for _ in range(3) for one in watch.look()}
    assert (process, process) not in seen
    assert (os.getpid(), engine.thread_id) not in seen


def test_other_thread_of_this_process_counts_as_its_own():
    stop, placed = threading.Event(), threading.Event()
    ids: list[int] = []

    def run() -> None:
        affinity.pin_this_thread(frozenset({CPU}))
        ids.append(threading.get_native_id())
        placed.set()
        while not stop.is_set():
            sum(range(1_000))

    thread = threading.Thread(target=run)
    thread.start()
    placed.wait()
    watch = ForeignThreads(frozenset({CPU}), engine_thread=0)
    watch.look()
    try:
        wait_for(lambda: any(one.thread == ids[0] and one.kind == Kind.OWN for one in watch.look()))
    finally:
        stop.set()
        thread.join()


# --- What slows --------------------------------------------------------------------------------------------------------


def cgroup_tree(root: Path, membership: str, files: dict[str, str]) -> Path:
    for name, text in {"proc/self/cgroup": membership, **files}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def test_quota_of_the_group_or_of_one_above_it_is_read(tmp_path: Path):
    root = cgroup_tree(
        tmp_path,
        "0::/pods/one\n",
        {
            "sys/fs/cgroup/cpu.stat": "usage_usec 5\n",
            "sys/fs/cgroup/pods/cpu.stat": "nr_periods 9\nnr_throttled 4\nthrottled_usec 2500\n",
            "sys/fs/cgroup/pods/one/cpu.stat": "nr_throttled 1\nthrottled_usec 30\n",
        },
    )
    throttling = Throttling({0}, root)
    assert throttling.watched == ("quota",)
    assert throttling.read() == Throttled(4, 2_500_000, 0)


def test_quota_of_the_older_hierarchy_is_in_nanoseconds(tmp_path: Path):
    root = cgroup_tree(
        tmp_path,
        "4:memory:/m\n3:cpu,cpuacct:/daemon\n0::/\n",
        {"sys/fs/cgroup/cpu,cpuacct/daemon/cpu.stat": "nr_throttled 2\nthrottled_time 77\n"},
    )
    assert Throttling({0}, root).read() == Throttled(2, 77, 0)


def test_container_that_does_not_see_its_group_reads_the_top(tmp_path: Path):
    root = cgroup_tree(
        tmp_path, "0::/../../host/path\n", {"sys/fs/cgroup/cpu.stat": "nr_throttled 3\nthrottled_usec 1\n"}
    )
    assert Throttling({0}, root).read() == Throttled(3, 1_000, 0)


def test_heat_is_counted_for_the_engine_s_cpus_alone(tmp_path: Path):
    pattern = "sys/devices/system/cpu/cpu{}/thermal_throttle/core_throttle_count"
    root = cgroup_tree(tmp_path, "", {pattern.format(cpu): f"{cpu + 5}\n" for cpu in range(3)})
    throttling = Throttling({1, 2, 9}, root)
    assert (throttling.watched, throttling.read()) == (("heat",), Throttled(0, 0, 13))


def test_host_that_tells_nothing_is_not_watched(tmp_path: Path):
    assert (Throttling({0}, tmp_path).watched, Throttling({0}, tmp_path).read()) == ((), Throttled())
    Throttling({0}).read()  # This host, whatever it tells.


# --- The collector --------------------------------------------------------------------------------------------------


def test_collections_are_counted_from_open_to_close():
    times = iter([10, 40, 100, 190])
    watch = CollectorWatch(lambda: next(times))
    gc.disable()
    try:
        gc.collect()
        watch.open()
        gc.collect()
        gc.collect()
        watch.close()
        watch.close()
        gc.collect()
    finally:
        gc.enable()
    assert (watch.runs, watch.paused_ns, watch.longest_ns) == (2, 120, 90)


# --- All of it -------------------------------------------------------------------------------------------------------


def test_interrupted_engine_and_its_intruder_are_counted_and_told():
    with (
        running_engine(settings=EngineSettings(idle=Idle.SPIN, cpus=frozenset({CPU}))) as engine,
        capture_logs() as logs,
    ):
        watch = SelfWatch(engine)
        with busy_process(CPU) as process:

            def told() -> bool:
                watch.look()
                return {"engine_interrupted", "intruders_on_engine_cpus"} <= {entry["event"] for entry in logs}

            wait_for(told)
        snapshot = watch.snapshot()
        watch.look()
    assert snapshot.involuntary > 0
    assert "threads" in snapshot.watched
    assert snapshot.intruder_ns["foreign"] > 0
    named = [entry for entry in logs if entry["event"] == "intruders_on_engine_cpus"]
    assert len(named) == 1, "once a minute"
    assert f"(foreign, process {process}, thread {process}," in str(named[0]["threads"])
    assert "penstock-tune check, C1, C10" in str(named[0]["mend"])
    assert [entry["cpus"] for entry in logs if entry["event"] == "engine_interrupted"] == [str(CPU)]


def test_engine_on_shared_cpus_is_counted_and_not_complained_of():
    with running_engine() as engine, capture_logs() as logs:
        watch = SelfWatch(engine)
        for _ in range(2 * INTRUDER_LOOKS):
            watch.look()
        snapshot = watch.snapshot()
    assert snapshot.intruder_looks == 0
    assert not {entry["event"] for entry in logs} & {"engine_interrupted", "intruders_on_engine_cpus"}


def test_what_was_before_the_watch_does_not_count():
    with running_engine() as engine:
        folder = f"/proc/self/task/{engine.thread_id}"
        assert read_stat(folder).minor_faults > 0, "it was born with some"
        snapshot = SelfWatch(engine).snapshot()
    assert (snapshot.minor_faults, snapshot.major_faults, snapshot.voluntary, snapshot.involuntary) == (0, 0, 0, 0)


def test_threads_of_the_host_are_looked_at_seldom():
    with running_engine(settings=EngineSettings(idle=Idle.BLOCK, cpus=frozenset({CPU}))) as engine:
        watch = SelfWatch(engine)
        for _ in range(2 * INTRUDER_LOOKS):
            watch.look()
        assert 2 <= watch.snapshot().intruder_looks <= 2 * INTRUDER_LOOKS // (INTRUDER_LOOKS // 2)


def test_page_faults_throttling_and_pauses_are_told_with_their_mends(tmp_path: Path):
    quota, heat = "sys/fs/cgroup/cpu.stat", f"sys/devices/system/cpu/cpu{CPU}/thermal_throttle/core_throttle_count"
    root = cgroup_tree(tmp_path, "0::/\n", {quota: "nr_throttled 1\nthrottled_usec 5\n", heat: "3\n"})
    with running_engine() as engine, capture_logs() as logs:
        watch = SelfWatch(engine, root=root)
        watch.look()
        cgroup_tree(root, "0::/\n", {quota: "nr_throttled 4\nthrottled_usec 90005\n", heat: "5\n"})
        watch.collector.longest_ns, watch.collector.runs = 3_000_000, 2
        watch._tell_of_faults(0, MINOR_FAULTS_TOLD - 1)
        watch._tell_of_faults(1, 2)
        watch.look()
        watch.look()
        snapshot = watch.snapshot()
    told = {str(entry["event"]): entry for entry in logs}
    assert set(told) == {"engine_page_faults", "cpu_quota_used_up", "cpu_slowed_by_heat", "collector_paused"}
    assert told["engine_page_faults"]["major"] == 1
    assert (told["cpu_quota_used_up"]["periods"], told["cpu_quota_used_up"]["stood_still_ms"]) == (3, 90.0)
    assert told["cpu_slowed_by_heat"]["events"] == 2
    assert all(entry["mend"] and entry["not_written"] == 0 for entry in logs)
    assert (snapshot.throttled_periods, snapshot.throttled_ns, snapshot.heat_events) == (3, 90_000_000, 2)


def test_ring_that_was_nearly_full_is_told_once_for_each_new_height():
    with running_engine() as engine, capture_logs() as logs:
        source = open_source(engine)
        watch = SelfWatch(engine, sources=lambda: [source.number])
        engine.publish_ticks(source.number, frozen(tick_stream(3, 8)), 0, False, source.ids, source.states, 1)
        wait_for(lambda: engine.buffers.high_water[source.number, memory.HIGH_WATER_TICKS] > 0)
        watch.look()
        assert [ring.ring for ring in watch.snapshot().rings] == ["ticks", "predictions"]
        assert 0 < watch.snapshot().rings[0].most <= 8
        assert logs == []
        engine.buffers.high_water[source.number, memory.HIGH_WATER_TICKS] = engine.sizes.slots
        watch.look()
        watch.look()
        engine.buffers.source_table[source.number, memory.SOURCE_BULK] = 1
        watch._full_told.clear()
        watch.look()
    assert [(entry["event"], entry["most"]) for entry in logs] == [("ring_nearly_full", engine.sizes.slots)]


def test_engine_that_has_stopped_ends_the_watch_quietly():
    with running_engine() as engine:
        watch = SelfWatch(engine, lambda: 3)
    watch.look()
    assert watch.snapshot().stalls == 3


# --- The thread that does it --------------------------------------------------------------------------------------


def test_housekeeper_goes_on_without_a_look_that_fails():
    looked = []

    def fail() -> None:
        looked.append("failed")
        raise OSError("a file went away")

    with capture_logs() as logs:
        keeper = Housekeeper((fail, lambda: looked.append("looked")), period_s=0.001)
        wait_for(lambda: keeper.rounds >= 3)
        names = {thread.name for thread in affinity.threads()}
        keeper.close()
        keeper.close()
    rounds = keeper.rounds
    assert looked.count("failed") == 1
    assert looked.count("looked") == rounds
    assert "penstock-watch" in names
    assert [entry["event"] for entry in logs] == ["watch_failed"]


def test_housekeeper_looks_again_once_there_are_descriptors():
    looked = []

    def look() -> None:
        looked.append("looked")
        if len(looked) < 3:
            raise OSError(errno.EMFILE, "Too many open files")

    with capture_logs() as logs:
        keeper = Housekeeper((look,), period_s=0.001)
        wait_for(lambda: len(looked) >= 5)
        keeper.close()
    assert [entry["event"] for entry in logs] == ["watch_waits"] * 2
