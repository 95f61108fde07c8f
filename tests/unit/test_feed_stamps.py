"""Whose stamp a packet gets: the kernel's, a network card's that keeps Unix time, or the daemon's own."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numba import njit

from penstock.v1.records import Clock
from penstock_daemon.feed import memory
from penstock_daemon.feed.stamps import HARDWARE_LEAD_NS, judged

OFFSET_NS = 1_700_000_000_000_000_000  # Unix less monotonic.
RECEIVED_NS = 5_000_000_000
KERNEL_NS = OFFSET_NS + RECEIVED_NS - 2_000


@njit(cache=True)
def judge(words: Any, kernel_ns: int, nic_ns: int, received_ns: int, unix_offset_ns: int) -> Any:
    return judged(words, kernel_ns, nic_ns, received_ns, unix_offset_ns)


@pytest.fixture
def words() -> np.ndarray:
    return np.zeros(memory.FEED_WORDS, np.int64)


def test_the_kernels_stamp_is_the_first_where_no_card_gives_one(words):
    stamps = judge(words, KERNEL_NS, 0, RECEIVED_NS, OFFSET_NS)
    assert stamps == (KERNEL_NS, Clock.KERNEL, RECEIVED_NS - 2_000, RECEIVED_NS)
    assert (words[memory.KERNEL_TO_USER_NS], words[memory.KERNEL_TO_USER_MAX_NS]) == (2_000, 2_000)


@pytest.mark.parametrize("lead_ns", [0, 700, HARDWARE_LEAD_NS])
def test_a_cards_stamp_shortly_before_the_kernels_is_used(words, lead_ns):
    stamps = judge(words, KERNEL_NS, KERNEL_NS - lead_ns, RECEIVED_NS, OFFSET_NS)
    assert stamps == (KERNEL_NS - lead_ns, Clock.NIC_HARDWARE, RECEIVED_NS - 2_000 - lead_ns, RECEIVED_NS)
    assert words[memory.HARDWARE_STAMPS] == 1


@pytest.mark.parametrize("lead_ns", [-1, HARDWARE_LEAD_NS + 1, -37_000_000_000, OFFSET_NS])
def test_a_cards_stamp_that_is_not_unix_time_is_doubted(words, lead_ns):
    stamps = judge(words, KERNEL_NS, KERNEL_NS - lead_ns, RECEIVED_NS, OFFSET_NS)
    assert stamps == (KERNEL_NS, Clock.KERNEL, RECEIVED_NS - 2_000, RECEIVED_NS)
    assert (words[memory.HARDWARE_DOUBTED], words[memory.HARDWARE_STAMPS]) == (1, 0)


def test_without_a_stamp_the_daemons_own_time_is_the_first(words):
    assert judge(words, 0, 0, RECEIVED_NS, OFFSET_NS) == (0, Clock.USER, RECEIVED_NS, RECEIVED_NS)
    assert (words[memory.NO_STAMP], words[memory.KERNEL_TO_USER_NS]) == (1, 0)


def test_a_step_of_the_wall_clock_is_counted_and_not_clipped(words):
    stamps = judge(words, KERNEL_NS + 10**9, 0, RECEIVED_NS, OFFSET_NS)
    assert stamps == (KERNEL_NS + 10**9, Clock.KERNEL, RECEIVED_NS - 2_000 + 10**9, RECEIVED_NS)
    assert words[memory.NEGATIVE] == 1
    assert words[memory.KERNEL_TO_USER_MAX_NS] == 0
