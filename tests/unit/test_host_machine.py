"""penstock-tune on this machine itself: what it lets us set is set, read again, and put back.

Runs only when asked, by PENSTOCK_TUNE_MACHINE=1, as root and where nobody is in the way: for a moment it changes kernel
settings, interrupts' places and governors of the machine that the tests run on.
"""

from __future__ import annotations

import os
import shutil

import pytest

from penstock_host.affinity import threads
from penstock_host.change.apply import Step, apply
from penstock_host.change.journal import STATE, Lock, open_journal, read_journal
from penstock_host.change.revert import revert
from penstock_host.checklist.items import Status
from penstock_host.checklist.process import threads_of
from penstock_host.faults import AbsentError, UnreadableError
from penstock_host.host import Host
from penstock_host.latency import holders, latency_limit_us, no_sleep_states
from penstock_host.profile import Profile

pytestmark = pytest.mark.skipif(
    os.environ.get("PENSTOCK_TUNE_MACHINE") != "1",
    reason="changes settings of this machine for a moment: PENSTOCK_TUNE_MACHINE=1 asks for it",
)

# Kernel settings, governors, sleep states by CPU, work queues, interrupts: nothing that goes away with a CPU or a link.
ITEMS = ("C5", "C7", "C9", "C12", "C13", "C14", "C15", "C17", "C18", "C20", "I2", "I3", "I6", "I10", "N7")


def test_what_can_be_set_on_this_machine_is_set_and_put_back() -> None:
    host = Host(profile=Profile(only=ITEMS))
    if os.geteuid() != 0:
        pytest.skip("needs root")
    if read_journal(host).entries:
        pytest.skip("penstock-tune has been applied here: its journal is not ours to revert")
    there_before = host.exists(STATE)
    with Lock(host), open_journal(host) as journal:
        try:
            applied = apply(host, journal)
            turned = {entry.knob.words: (entry.knob, entry.original) for entry in journal.entries.values()}
            again = apply(host, journal)
        finally:
            reverted = revert(host, journal)
    if not there_before:
        shutil.rmtree(host.path(STATE))
    steps = [deed.step for deed in applied.deeds]
    print(*applied.deeds, sep="\n")
    assert Step.SET in steps
    assert Step.FAILED not in steps
    assert not {deed.step for deed in again.deeds} & {Step.SET, Step.CONFLICT}
    assert {deed.step for deed in reverted.deeds} <= {Step.RESTORED, Step.ALREADY}
    assert all(knob.read(host) == original for knob, original in turned.values())
    set_items = {deed.item_id for deed in applied.deeds if deed.step is Step.SET} - {
        deed.item_id for deed in applied.deeds if deed.step is not Step.SET
    }
    standing = {finding.item.item_id: finding.status for finding in applied.findings}
    for item_id in set_items:
        # C7 waits for the daemon as well; an interrupt may not have come yet.
        assert standing[item_id] in {Status.OK, Status.REPORT_ONLY, Status.PENDING, Status.UNSUPPORTED}, item_id


def test_sleep_states_of_this_machine_are_off_while_held() -> None:
    host = Host()
    try:
        before = latency_limit_us(host)
    except (AbsentError, UnreadableError) as fault:
        pytest.skip(str(fault))
    with no_sleep_states():
        assert latency_limit_us(host) == 0
        assert holders(host, [1, os.getpid()]) == {os.getpid()}
    assert latency_limit_us(host) == before


def test_own_threads_are_seen_as_the_kernel_has_them() -> None:
    host = Host()
    seen = {one.thread: one.allowed for one in threads_of(host, os.getpid())}
    assert seen == {place.thread_id: place.cpus for place in threads()}
