"""The keys of [feed]: what each may be, and what does not go together."""

from __future__ import annotations

import pytest

from penstock_daemon.config import ConfigError, load_config
from penstock_daemon.config_feed import parse_group, split_instruments

GROUP = "feed.group=239.1.2.3:26400"


def faults(*sets: str) -> str:
    with pytest.raises(ConfigError) as refusal:
        load_config(None, {}, sets, cpus=frozenset({0}))
    return str(refusal.value)


def test_a_group_and_instruments_are_enough():
    feed = load_config(None, {}, [GROUP, "feed.instruments=AAPL, MSFT"], cpus=frozenset({0})).feed
    assert str(parse_group(feed.group)[0]) == "239.1.2.3"
    assert split_instruments(feed.instruments) == ["AAPL", "MSFT"]


@pytest.mark.parametrize(
    ("sets", "sentence"),
    [
        (["feed.group=10.0.0.1:5"], "feed.group: must be a multicast group, 224.0.0.0 to 239.255.255.255"),
        (["feed.group=239.1.2.3"], "feed.group: must be GROUP:PORT with an IPv4 address"),
        (["feed.group=239.1.2.3:0"], "feed.group: must end in a port of 1 to 65535"),
        (["feed.group=239.1.2.3:65536"], "feed.group: must end in a port of 1 to 65535"),
        (["feed.group=[ff02::1]:5"], "feed.group: must be GROUP:PORT with an IPv4 address"),
        (["feed.recovery=nowhere"], "feed.recovery: must be HOST:PORT, such as 10.0.0.5:26410, was 'nowhere'"),
        (["feed.recovery=host:0"], "feed.recovery: must be HOST:PORT"),
        (["feed.date=2024-13-01"], "feed.date: must be a day, such as 2024-08-08, was '2024-13-01'"),
        (["feed.date=20240808"], "feed.date: must be a day"),
        (["feed.time_zone=Mars/Olympus"], "feed.time_zone: must be a time zone that this host knows"),
        (["feed.instruments=A,,B"], "feed.instruments: must have a name on both sides of every comma, was 'A,,B'"),
        ([GROUP, "feed.instruments=A,A"], "feed.instruments: 'A' is named twice"),
        ([GROUP, "feed.instruments=A=4294967296"], "feed.instruments: 'A=4294967296' must have a whole number"),
        (["feed.name="], "feed.name: must be 1 to 64 characters"),
        (["feed.reorder_max=1000"], "feed.reorder_max: must be a power of two, 1024 to 1_048_576, was 1000"),
        ([GROUP], "feed.instruments: must name at least one symbol, was empty"),
        (["feed.group_b=239.1.2.4:1"], "feed.group: must be set where feed.group_b is (239.1.2.4:1), was ''"),
        (
            [GROUP, "feed.instruments=A", "feed.group_b=239.1.2.3:26400"],
            "feed.group_b: must be another group than feed.group on the same interface",
        ),
        ([GROUP, "feed.instruments=LONGSTOCK"], "feed.instruments: 'LONGSTOCK' must be 1 to 8 printable ASCII"),
        (
            [GROUP, "feed.instruments=AAPL:100"],
            "feed.instruments: 'AAPL:100' must have no size scale: shares are whole",
        ),
        ([GROUP, "feed.payload=dbn", "feed.instruments=A=1,B"], "feed.instruments: 'B' must have the id"),
    ],
)
def test_what_can_not_be_is_refused_by_a_sentence(sets, sentence):
    assert sentence in faults(*sets)


def test_faults_of_the_section_come_together():
    assert faults("feed.group=1", "feed.date=x", "feed.orders_max=3").count("feed.") == 3


def test_the_same_group_on_two_interfaces_is_two_lines():
    sets = [GROUP, "feed.instruments=A", "feed.group_b=239.1.2.3:26400", "feed.interface_b=eth1"]
    assert load_config(None, {}, sets, cpus=frozenset({0})).feed.group_b == "239.1.2.3:26400"


@pytest.mark.parametrize(
    ("sets", "sentence"),
    [
        (
            ["feed.idle=spin", "engine.cores=1"],
            'CPU of engine.cores while feed.idle is "spin" (the feed would starve the',
        ),
        (
            ["feed.idle=spin", "server.cores=1"],
            'CPU of server.cores while feed.idle is "spin" (the feed would starve the',
        ),
        (
            ["engine.idle=spin", "engine.cores=1"],
            "(the engine would starve the feed; give the feed another CPU), was [1]",
        ),
    ],
)
def test_thread_that_spins_may_not_have_the_only_cpu_of_another(sets: list[str], sentence: str) -> None:
    base = [GROUP, "feed.instruments=A", "feed.cores=1"]
    cpus = frozenset({0, 1, 2})
    with pytest.raises(ConfigError) as refused:
        load_config(None, {}, [*base, *sets], cpus=cpus)
    assert sentence in str(refused.value)
    apart = [one.replace("cores=1", "cores=2") for one in sets]
    assert load_config(None, {}, [*base, *apart], cpus=cpus).feed.cores == (1,)
    block = ["engine.idle=block", "feed.idle=block"]
    assert load_config(None, {}, [*base, *sets, *block], cpus=cpus).feed.cores == (1,)
