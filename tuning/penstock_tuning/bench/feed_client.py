"""The two ends of a feed's measurement: a player of the file, and a subscriber that keeps every time.

A part of feed.py, in a process of its own; the player is ``penstock feed`` in another, so that what is sent is what a user
sends. Its plan names the daemon, the player's arguments, and where times go.

    wire         when the kernel of the daemon's host had the packet          of prediction.wire_ns
    published    wire + the six stages of the record                          the prediction stands in its ring
    received     when this process had the message
"""

from __future__ import annotations

import asyncio
import gc
import json
import sys
import time
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from penstock.v1.records import PREDICTION_DTYPE, PredictionFlag
from penstock_client.errors import DeadlineExceeded
from penstock_client.event_loop import loop_factory
from penstock_client.subscription import FeedBatch, Subscription, subscribe
from penstock_tuning.bench.errors import BenchError
from penstock_tuning.bench.parts import Plan, be_part

QUIET_S: Final = 1.0  # Nothing came for so long after the last message: all has come.
PLAYER_EXTRA_S: Final = 60.0
TIMES: Final = ("wire", "published", "received")


def receive_a_play(plan: Plan) -> dict[str, Any]:
    """Subscribe, play, and write the times of every prediction: int64 of shape (3, predictions), monotonic ns."""
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        return runner.run(_receive(plan))


async def _receive(plan: Plan) -> dict[str, Any]:
    async with subscribe(plan["daemon"], reconnect=False) as subscription:
        gc.collect()
        gc.freeze()
        command = [sys.executable, "-m", "penstock_client.cli", "feed", *plan["player"], "--json"]
        player = await asyncio.create_subprocess_exec(
            *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )
        try:
            playing = asyncio.create_task(player.communicate())
            batches = await _until_quiet(subscription, playing, plan["timeout_s"])
            said, complaint = await playing
        finally:
            if player.returncode is None:
                player.kill()
    if player.returncode != 0:
        raise BenchError(f"penstock feed ended with {player.returncode}: {complaint.decode(errors='replace').strip()}")
    predictions, times_ns = _times(batches)
    np.save(plan["times"], times_ns, allow_pickle=False)
    sequences = predictions["sequence"].astype(np.int64)
    unsound = predictions["flags"] & np.uint32(PredictionFlag.BOOK_UNSOUND) != 0
    return {
        "player": json.loads(said),
        "predictions": len(predictions),
        "messages_received": len(batches),
        "missing": int(np.sum(np.diff(sequences) - 1)) if len(sequences) else 0,
        "unsound": int(np.count_nonzero(unsound)),
        "unstamped": int(np.count_nonzero(predictions["wire_ns"] == 0)),
    }


async def _until_quiet(
    subscription: Subscription, playing: asyncio.Task[tuple[bytes, bytes]], timeout_s: float
) -> list[FeedBatch]:
    """Return all batches until the player has ended and nothing has come for QUIET_S.

    Raises:
        BenchError: the player takes longer than *timeout_s*.
    """
    batches: list[FeedBatch] = []
    give_up_s = time.monotonic() + timeout_s
    while True:
        ended = playing.done()
        try:
            batch = await subscription.receive(QUIET_S)
        except DeadlineExceeded:
            if ended:
                return batches
            if time.monotonic() > give_up_s:
                raise BenchError(f"penstock feed took longer than {timeout_s:.0f} s") from None
            continue
        assert batch is not None, "nobody closes the subscription"
        batches.append(batch)


def _times(batches: list[FeedBatch]) -> tuple[NDArray[np.void], NDArray[np.int64]]:
    """Return all predictions, and their times on the monotonic clock, shape (3, predictions)."""
    predictions = np.concatenate([np.zeros(0, PREDICTION_DTYPE), *(batch.predictions for batch in batches)])
    unix_offset_ns = time.time_ns() - time.monotonic_ns()
    wire_ns = np.where(predictions["wire_ns"] > 0, predictions["wire_ns"], predictions["received_ns"]).astype(np.int64)
    published_ns = wire_ns + predictions["stage_ns"].astype(np.int64).sum(axis=1)
    counts = [len(batch.predictions) for batch in batches]
    received_ns = np.repeat(np.array([batch.received_ns for batch in batches], np.int64), counts)
    return predictions, np.stack([wire_ns, published_ns, received_ns]) - unix_offset_ns


if __name__ == "__main__":
    sys.exit(be_part(receive_a_play))
