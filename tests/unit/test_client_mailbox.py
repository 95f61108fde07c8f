"""Both kinds of mailbox keep order, bound what is unread, and give the end after all that came before it."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from penstock.v1.records import PREDICTION_DTYPE
from penstock_client.batches import Batch, TickError, TickErrorReason
from penstock_client.errors import DeadlineExceeded, SessionLost
from penstock_client.mailbox import TaskMailbox, ThreadMailbox


def batch(predictions: int, errors: int = 0) -> Batch:
    error = TickError(0, TickErrorReason.UNKNOWN_INSTRUMENT, "")
    return Batch(np.zeros(predictions, PREDICTION_DTYPE), [error] * errors, 0, 0)


async def test_a_task_reads_in_order_and_then_the_error_again_and_again():
    mailbox = TaskMailbox()
    batches = [batch(1), batch(2)]
    for one in batches:
        mailbox.put(one)
    mailbox.close(SessionLost("gone"))
    assert [await mailbox.get(), await mailbox.get()] == batches
    for _ in range(2):
        with pytest.raises(SessionLost):
            await mailbox.get()


async def test_a_task_that_waits_is_woken_by_a_batch_and_by_the_end():
    mailbox = TaskMailbox()
    waiting = asyncio.create_task(mailbox.get())
    await asyncio.sleep(0)
    mailbox.put(one := batch(1))
    assert await waiting is one
    waiting = asyncio.create_task(mailbox.get())
    await asyncio.sleep(0)
    mailbox.close(None)
    assert await waiting is None


async def test_predictions_and_errors_fill_a_task_mailbox_and_reading_makes_room():
    mailbox = TaskMailbox(unread_max=5)
    mailbox.put(batch(3))
    assert not mailbox.full
    mailbox.put(batch(1, errors=1))
    assert mailbox.full
    room = asyncio.create_task(mailbox.room())
    await asyncio.sleep(0)
    assert not room.done()
    await mailbox.get()
    await room
    assert mailbox.taken == 1


@pytest.mark.parametrize("kind", ["task", "thread"])
async def test_a_mailbox_without_its_bound_is_never_full_and_keeps_what_it_has(kind):
    mailbox = TaskMailbox(1) if kind == "task" else ThreadMailbox(asyncio.get_running_loop(), 1)
    mailbox.put(batch(9))
    room = asyncio.create_task(mailbox.room())
    await asyncio.sleep(0)
    assert not room.done()
    mailbox.lift_bound()
    await room
    mailbox.put(batch(8))
    assert not mailbox.full
    mailbox.close(None)
    got = [await mailbox.get() if kind == "task" else mailbox.get() for _ in range(3)]
    assert [one and len(one.predictions) for one in got] == [9, 8, None]


async def test_threads_read_in_order_and_then_the_end_again_and_again():
    mailbox = ThreadMailbox(asyncio.get_running_loop())
    batches = [batch(1), batch(2)]
    for one in batches:
        mailbox.put(one)
    mailbox.close(None)
    assert [mailbox.get() for _ in range(4)] == [*batches, None, None]
    failed = ThreadMailbox(asyncio.get_running_loop())
    failed.close(SessionLost("gone"))
    for _ in range(2):
        with pytest.raises(SessionLost):
            failed.get()
    with pytest.raises(DeadlineExceeded, match=r"timeout_s=0\.01"):
        ThreadMailbox(asyncio.get_running_loop()).get(0.01)


async def test_a_thread_that_reads_makes_room():
    mailbox = ThreadMailbox(asyncio.get_running_loop(), unread_max=2)
    mailbox.put(batch(2))
    assert mailbox.full
    room = asyncio.create_task(mailbox.room())
    await asyncio.sleep(0)
    with ThreadPoolExecutor(1) as pool:
        assert len(pool.submit(mailbox.get).result().predictions) == 2
    async with asyncio.timeout(60):
        await room
    assert not mailbox.full


async def test_a_hand_over_at_the_bound_never_stalls():
    mailbox = ThreadMailbox(asyncio.get_running_loop(), unread_max=1)
    seen: list[int] = []

    def read() -> None:
        while (one := mailbox.get(20)) is not None:
            seen.append(len(one.predictions))

    reader = threading.Thread(target=read)
    reader.start()
    async with asyncio.timeout(60):
        for _ in range(2000):
            mailbox.put(batch(1))
            if mailbox.full:
                await mailbox.room()
    mailbox.close(None)
    reader.join()
    assert sum(seen) == 2000
