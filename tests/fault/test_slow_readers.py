"""A client that does not read holds up nobody else, is refused at its bound, and holds nothing after that."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from support.daemon import RunningDaemon, running_daemon, small
from support.raw_stream import RawStream, hash_of, instruments, run_through, undisturbed
from support.scrape import scrape
from support.tick_arrays import quotes
from support.victim import wait_until

IN_FLIGHT_MAX = 4096  # 512 KiB of answers: far more than a stream's window takes.
TICKS = quotes(6 * IN_FLIGHT_MAX)


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningDaemon]:
    """A daemon with room for two sessions of four instruments."""
    folder = tmp_path_factory.mktemp("slow")
    sets = (
        "sessions.max=2",
        "sessions.states_max=5",
        f"sessions.in_flight_max={IN_FLIGHT_MAX}",
        "metrics.address=127.0.0.1:0",
    )
    with running_daemon(folder, *small(folder)[:2], *sets) as daemon:
        yield daemon


def refused(daemon: RunningDaemon) -> int:
    return int(scrape(daemon).get('penstock_refusals_total{reason="IN_FLIGHT"}', 0))


def predicted(daemon: RunningDaemon) -> int:
    return int(scrape(daemon)['penstock_predictions_total{pace="realtime"}'])


def send_without_reading(stream: RawStream, daemon: RunningDaemon) -> None:
    """Send until the daemon has refused to take more; not one answer is read."""
    before = refused(daemon)
    for start in range(0, len(TICKS), 512):
        stream.ticks(TICKS[start : start + 512])
    wait_until(lambda: refused(daemon) > before)


def test_client_that_never_reads_is_refused_and_others_go_on(daemon: RunningDaemon) -> None:
    expected = hash_of(undisturbed(daemon.address, TICKS[:2000]))
    with RawStream(daemon.address) as deaf, RawStream(daemon.address) as other:
        deaf.hello(instruments=instruments(1, 2, 3, 4))
        other.hello()
        first = run_through(other, TICKS[:1000])
        send_without_reading(deaf, daemon)
        rest = run_through(other, TICKS[1000:2000])
        assert hash_of(first, rest) == expected
        other.goodbye()
        assert other.end().code == "OK"
        end = deaf.end()  # Once it reads, it hears why.
    assert (end.code, end.reason) == ("RESOURCE_EXHAUSTED", "IN_FLIGHT")
    assert end.message.endswith(f"wait for answers: Welcome.in_flight_max is {IN_FLIGHT_MAX}")


def test_refused_states_are_free_at_once_though_the_refusal_does_not_arrive(daemon: RunningDaemon) -> None:
    with RawStream(daemon.address) as deaf, RawStream(daemon.address) as also_deaf:
        for stream in (deaf, also_deaf):
            stream.hello(instruments=instruments(1, 2, 3, 4))
            send_without_reading(stream, daemon)
            wait_until(lambda: scrape(daemon)["penstock_states"] == 0)
        with RawStream(daemon.address) as third, RawStream(daemon.address) as fourth:
            third.hello(instruments=instruments(1, 2, 3, 4))
            fourth.hello()
            assert len(run_through(third, TICKS[:100])) == 100


def test_answers_wait_in_order_for_a_client_that_reads_late(daemon: RunningDaemon) -> None:
    before = predicted(daemon)
    with RawStream(daemon.address) as stream:
        stream.hello()
        for start in range(0, IN_FLIGHT_MAX, 256):
            stream.ticks(TICKS[start : start + 256])
        wait_until(lambda: predicted(daemon) == before + IN_FLIGHT_MAX)
        late = stream.predictions(IN_FLIGHT_MAX)
        assert late["sequence"].tolist() == list(range(IN_FLIGHT_MAX))
        assert hash_of(late) == hash_of(undisturbed(daemon.address, TICKS[:IN_FLIGHT_MAX]))
