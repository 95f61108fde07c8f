"""One gRPC stream of a session, from Hello to its end, in raw bytes; grpc.aio's ways stop here.

    read()    is called by one task, write() by another: an awaited write waits for its completion
    after StreamEnded, or read() returning None, the stream only remains to be closed

grpc.aio reports a stream's end in several ways (AioRpcError, InvalidStateError, and CancelledError where the call was
cancelled on this side); here it is StreamEnded, and CancelledError means that the task was cancelled. It is raised
outside the handlers, without gRPC's exception behind it: that one holds on to its call, and so to the connection.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

import grpc
import grpc.aio

from penstock_client.channel import open_channel
from penstock_client.refusals import StreamEnded, ended_by
from penstock_client.wire import STREAM_METHOD

_LOCAL_CANCEL: Final = "the stream was given up on this side"


class Stream:
    """One StreamPredictions call, or one of *method*, and the channel under it."""

    def __init__(self, address: str, method: str = STREAM_METHOD) -> None:
        self._channel: Any = open_channel(address)
        self._call: Any = self._channel.stream_stream(method)()
        self._given_up = ""

    @classmethod
    async def open(
        cls, address: str, hello: bytes, timeout_s: float, method: str = STREAM_METHOD
    ) -> tuple[Stream, bytes]:
        """Connect, send *hello* and wait for the daemon's first message, which is returned with the stream.

        Raises:
            StreamEnded: refused, nobody there, or no answer within *timeout_s*.
        """
        stream = cls(address, method)
        try:
            async with asyncio.timeout(timeout_s):
                await stream.write(hello)
                first = await stream.read()
        except TimeoutError as exc:
            await stream.close()
            raise StreamEnded("DEADLINE_EXCEEDED", f"no Welcome within {timeout_s:.3g} s") from exc
        except BaseException:
            await stream.close()
            raise
        if first is None:
            await stream.close()
            raise StreamEnded("OK", "the daemon closed the stream before Welcome")
        return stream, first

    async def read(self) -> bytes | None:
        """Return the next message; None when the daemon has closed the stream with OK.

        Raises:
            StreamEnded: it ended in any other way.
        """
        try:
            data = await self._call.read()
        except grpc.RpcError as exc:
            end = ended_by(exc)
        except asyncio.CancelledError:
            if _task_is_cancelled():
                raise
            end = StreamEnded("CANCELLED", self._given_up or _LOCAL_CANCEL)
        else:
            return None if data is grpc.aio.EOF else data
        raise end

    async def write(self, data: bytes) -> None:
        """Send one message and wait until the transport has taken it.

        Raises:
            StreamEnded: it could not be sent; read() knows better why.
        """
        try:
            await self._call.write(data)
        except grpc.RpcError as exc:
            end = ended_by(exc)
        except asyncio.InvalidStateError as exc:
            end = StreamEnded("UNAVAILABLE", f"the stream has ended: {exc}")
        except asyncio.CancelledError:
            if _task_is_cancelled():
                raise
            end = StreamEnded("CANCELLED", self._given_up or _LOCAL_CANCEL)
        else:
            return
        raise end

    async def done_writing(self) -> None:
        """Say that nothing more will be sent.

        Raises:
            StreamEnded: the stream is gone already.
        """
        try:
            await self._call.done_writing()
        except (grpc.RpcError, grpc.aio.InternalError) as exc:
            raise StreamEnded("UNAVAILABLE", f"the stream has ended: {exc}") from exc

    def give_up(self, reason: str) -> None:
        """End the stream from this side, at once; read() then raises StreamEnded with *reason*."""
        self._given_up = reason
        self._call.cancel()

    async def close(self) -> None:
        """Cancel what is still under way and free the channel."""
        self._call.cancel()
        await self._channel.close()


def _task_is_cancelled() -> bool:
    """Whether the running task itself was asked to stop (and not only the gRPC call that it awaits)."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
