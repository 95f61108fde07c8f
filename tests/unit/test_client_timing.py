"""When to try again, when to send a heartbeat, when to call the other side lost: on a clock of the test's own."""

from __future__ import annotations

import random

from penstock_client.pulse import Pulse
from penstock_client.reconnect import Backoff, ReconnectPolicy

POLICY = ReconnectPolicy(initial_s=0.1, max_s=2.0, factor=2.0, give_up_after_s=10.0)


def test_delays_double_up_to_their_bound_and_at_least_half_of_each_is_waited():
    backoff = Backoff(POLICY, random.Random(1))
    longest = [0.1, 0.2, 0.4, 0.8, 1.6, 2.0, 2.0, 2.0]
    delays = [backoff.next_delay_s() for _ in longest]
    assert all(most / 2 <= delay <= most for delay, most in zip(delays, longest, strict=True))
    assert len(set(delays)) == len(delays)


def test_a_thousand_attempts_do_not_overflow():
    backoff = Backoff(ReconnectPolicy(factor=1e6), random.Random(1))
    assert max(backoff.next_delay_s() for _ in range(2000)) <= 1.0


def test_the_time_left_counts_from_the_first_loss_since_progress():
    backoff = Backoff(POLICY, random.Random(1))
    assert backoff.remaining_s(100.0) == 10.0
    backoff.next_delay_s()
    assert backoff.remaining_s(107.0) == 3.0
    backoff.progress()
    assert backoff.attempts == 0
    assert backoff.remaining_s(108.0) == 10.0


def test_a_heartbeat_is_due_after_one_quiet_interval_and_not_before():
    pulse = Pulse.start(1.0, 100.0)
    pulse.sent_s = 100.7
    assert pulse.look(101.0) == (False, False)
    assert pulse.due_s == 101.7
    pulse.received_s = 101.0
    assert pulse.look(101.7) == (True, False)
    assert pulse.due_s == 102.7


def test_a_side_that_is_silent_for_three_intervals_is_lost():
    pulse = Pulse.start(1.0, 100.0)
    looks = []
    now_s = 100.0
    while now_s < 103.0:
        now_s = pulse.due_s
        looks.append((now_s, *pulse.look(now_s)))
        pulse.sent_s = now_s
    assert looks == [(101.0, True, False), (102.0, True, False), (103.0, True, True)]


def test_a_process_that_was_itself_away_does_not_blame_the_other_side():
    pulse = Pulse.start(1.0, 100.0)
    assert pulse.look(160.0) == (True, False)
    pulse.sent_s = 160.0
    assert pulse.look(161.0) == (True, False)
    pulse.sent_s = 161.0
    assert pulse.look(162.0) == (True, False)
    pulse.sent_s = 162.0
    assert pulse.look(163.0) == (True, True)
