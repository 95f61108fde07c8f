"""Where threads may run: what is chosen, and what the kernel then says."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator

import pytest

from penstock_daemon.engine import EngineSettings
from penstock_daemon.placement import Placement, choose, describe
from penstock_host import affinity
from support.engines import running_engine

HOST = frozenset(range(8))


@pytest.fixture
def host_of_eight(monkeypatch: pytest.MonkeyPatch) -> None:
    """A host with eight CPUs, as far as the choice is concerned."""
    monkeypatch.setattr(affinity, "online_cpus", lambda: HOST)


@pytest.fixture
def restored() -> Iterator[None]:
    """Give all threads their CPUs back."""
    before = affinity.online_cpus()
    yield
    affinity.pin_all_threads(before)


@pytest.mark.usefixtures("host_of_eight")
@pytest.mark.parametrize(
    ("engine", "server", "expected"),
    [
        ((), (), ({7}, set(range(7)))),
        ((2,), (), ({2}, HOST - {2})),
        ((2, 3), (0, 1), ({2, 3}, {0, 1})),
        ((), (0, 1), (set(), {0, 1})),
        (tuple(range(8)), (), (HOST, HOST)),
    ],
)
def test_engine_and_server_get_cpus_apart(
    engine: tuple[int, ...], server: tuple[int, ...], expected: tuple[set[int], set[int]]
) -> None:
    chosen = choose(engine, server, pin=True)
    assert (chosen.engine, chosen.server) == expected


@pytest.mark.usefixtures("host_of_eight")
def test_nothing_is_pinned_where_pinning_is_off() -> None:
    chosen = choose((2,), (0,), pin=False)
    assert (chosen.engine, chosen.server) == (frozenset(), frozenset())
    assert chosen.reason == "engine.pin is off"


def test_few_cpus_are_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(affinity, "online_cpus", lambda: frozenset({0, 1, 2}))
    chosen = choose((), (), pin=True)
    assert (chosen.engine, chosen.server) == (frozenset(), frozenset())
    assert chosen.reason == "3 CPUs are shared; with 4 the engine gets its own"


@pytest.mark.usefixtures("restored")
def test_threads_started_later_inherit_the_servers_cpus() -> None:
    cpu = frozenset({min(os.sched_getaffinity(0))})
    Placement(frozenset(), cpu, "test").apply_to_server()
    seen: list[set[int]] = []
    thread = threading.Thread(target=lambda: seen.append(os.sched_getaffinity(0)))
    thread.start()
    thread.join()
    assert seen == [cpu]


@pytest.mark.usefixtures("restored")
def test_threads_started_before_get_the_servers_cpus_too() -> None:
    cpu, leave = frozenset({min(os.sched_getaffinity(0))}), threading.Event()
    thread = threading.Thread(target=leave.wait)
    thread.start()
    Placement(frozenset(), cpu, "test").apply_to_server()
    places = {one.thread_id: one.cpus for one in affinity.threads()}
    leave.set()
    thread.join()
    assert places[thread.native_id] == cpu
    assert set(places.values()) == {cpu}


def test_cpu_that_does_not_exist_is_the_kernels_refusal() -> None:
    with pytest.raises(OSError, match="Invalid argument"):
        Placement(frozenset(), frozenset({4095}), "test").apply_to_server()


def test_verify_names_threads_that_are_elsewhere() -> None:
    cpu = min(os.sched_getaffinity(0))
    with running_engine(settings=EngineSettings(cpus=frozenset({cpu}))) as engine:
        right = Placement(frozenset({cpu}), frozenset(), "test")
        assert right.verify() == []
        wrong = Placement(frozenset({4000}), frozenset(), "test")
        assert wrong.verify() == [f"thread penstock-engine ({engine.thread_id}) may run on CPUs {cpu}, wanted 4000"]
        shown = describe(right)
    assert shown["reason"] == "test"
    assert shown["threads"]["penstock-engine"] == str(cpu)


def test_threads_are_listed_with_their_names_and_cpus() -> None:
    inside, leave = threading.Event(), threading.Event()
    cpus = frozenset({max(os.sched_getaffinity(0))})

    def stay() -> None:
        affinity.name_this_thread("sixteen-letters-and-more")
        affinity.pin_this_thread(cpus)
        inside.set()
        leave.wait()

    thread = threading.Thread(target=stay)
    thread.start()
    inside.wait()
    places = {one.thread_id: one for one in affinity.threads()}
    leave.set()
    thread.join()
    assert places[thread.native_id].name == "sixteen-letters"
    assert places[thread.native_id].cpus == cpus
    assert places[os.getpid()].cpus == affinity.online_cpus()


@pytest.mark.parametrize(("cpus", "text"), [((), ""), ((3,), "3"), ((0, 1, 2), "0-2"), ((5, 0, 1, 7, 8), "0-1,5,7-8")])
def test_cpus_are_written_as_the_kernel_does(cpus: tuple[int, ...], text: str) -> None:
    assert affinity.format_cpus(frozenset(cpus)) == text


def test_the_feed_gets_its_own_cpus_and_leaves_the_others_to_the_server(monkeypatch):
    monkeypatch.setattr(affinity, "online_cpus", lambda: frozenset(range(6)))
    chosen = choose((), (), (5,), pin=True)
    assert (chosen.engine, chosen.server, chosen.feed) == ({4}, {0, 1, 2, 3}, {5})
    chosen = choose((1,), (), (2,), pin=True)
    assert (chosen.engine, chosen.server, chosen.feed) == ({1}, {0, 3, 4, 5}, {2})
    assert choose((1,), (), (2,), pin=False).feed == frozenset()
