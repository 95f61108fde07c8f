"""What ``penstock subscribe`` does: read until a count, a time, a signal or the subscription's end, and print meanwhile."""

from __future__ import annotations

import asyncio
import signal
import sys

import numpy as np
from numpy.typing import NDArray

from penstock.v1 import prediction_pb2 as pb
from penstock.v1.records import PROBABILITY_ONE, PredictionFlag
from penstock_client.errors import PenstockError
from penstock_client.event_loop import loop_factory
from penstock_client.subscribe_summary import Received
from penstock_client.subscription import FeedBatch, Subscription


class Reading:
    """Reads one subscription.

    Args:
        subscription: not opened yet.
        received: takes in what comes.
        count: of predictions, after which it stops; None for no end.
        lines: whether a line is printed for each prediction.

    Attributes:
        subscribed: what the daemon said first; None where it said nothing.
    """

    def __init__(self, subscription: Subscription, received: Received, count: int | None, *, lines: bool) -> None:
        self._subscription = subscription
        self._received = received
        self._count = count
        self._lines = lines
        self._stopped_by: signal.Signals | None = None
        self._task: asyncio.Task[None] | None = None
        self.subscribed: pb.Subscribed | None = None

    def run(self, seconds: float | None) -> tuple[PenstockError | None, signal.Signals | None]:
        """Read on an event loop of its own, for *seconds* or for ever; SIGINT and SIGTERM end it.

        Returns:
            The error that ended the subscription, if one did, and the signal that did.

        Raises:
            PenstockError: it could not be opened.
        """
        with asyncio.Runner(loop_factory=loop_factory()) as runner:
            return runner.run(self._run(seconds))

    async def _run(self, seconds: float | None) -> tuple[PenstockError | None, signal.Signals | None]:
        loop = asyncio.get_running_loop()
        self._task = loop.create_task(self._work(seconds))
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._stop, number)
        try:
            await self._task
        except asyncio.CancelledError:
            if self._stopped_by is None:
                raise
        except PenstockError as error:
            if self.subscribed is None:
                raise
            return error, self._stopped_by
        finally:
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.remove_signal_handler(number)
        return None, self._stopped_by

    def _stop(self, number: signal.Signals) -> None:
        self._stopped_by = number
        if self._task is not None:
            self._task.cancel()

    async def _work(self, seconds: float | None) -> None:
        async with self._subscription:
            self.subscribed = self._subscription.subscribed
            reading = asyncio.ensure_future(self._read())
            try:
                await asyncio.wait([reading], timeout=seconds)
                if reading.done():
                    reading.result()
            finally:
                reading.cancel()

    async def _read(self) -> None:
        async for batch in self._subscription.batches():
            left = len(batch.predictions) if self._count is None else self._count - self._received.predictions
            predictions = batch.predictions[:left]
            self._received.add(batch, predictions)
            if self._lines:
                self._print(batch, predictions)
            if self._count is not None and self._received.predictions >= self._count:
                return

    def _print(self, batch: FeedBatch, predictions: NDArray[np.void]) -> None:
        """Write one line for each prediction."""
        assert self.subscribed is not None, "read before it was opened"
        symbols = {one.instrument_id: one.symbol for one in self.subscribed.instruments}
        horizons = [one.name for one in self.subscribed.horizons]
        if batch.after_gap:
            sys.stdout.write("-- the connection was lost and regained: predictions are missing here --\n")
        for one in predictions:
            forecasts = "  ".join(
                f"{name} up {forecast['probability_up'] / PROBABILITY_ONE:.3f} "
                f"down {forecast['probability_down'] / PROBABILITY_ONE:.3f} {forecast['expected_return'] * 1e4:+.4f} bp"
                for name, forecast in zip(horizons, one["forecasts"], strict=False)
            )
            flags = PredictionFlag(int(one["flags"]))
            names = " " + "|".join(str(flag.name) for flag in flags) if flags else ""
            symbol = symbols.get(int(one["instrument_id"]), "?")
            sys.stdout.write(f"{int(one['sequence'])} {symbol}  {forecasts}{names}\n")
        sys.stdout.flush()
