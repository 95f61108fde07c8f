"""Requests that can't be read are the client's fault, and are told so.

gRPC answers a request that its deserializer refuses with UNKNOWN, and writes a traceback into the log. Here messages are
read inside the handler instead: INVALID_ARGUMENT, with the detail that every refusal has.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeVar

import grpc
from google.protobuf.message import DecodeError

from penstock_daemon import faults

_Message = TypeVar("_Message")
_Reader = Callable[[bytes, Any], Awaitable[Any]]


def read_message(read: Callable[[bytes], _Message], data: bytes, name: str) -> _Message:
    """Return the message that *data* holds.

    Args:
        read: its type's FromString.
        data: as received.
        name: of the message, for the sentence.

    Raises:
        SessionFault: it can't be read.
    """
    try:
        return read(data)
    except DecodeError as error:
        raise faults.invalid(
            "MESSAGE_UNREADABLE", field="message", value=f"{len(data)} bytes", mend=f"send a {name}"
        ) from error


class ReadableRequests(grpc.aio.ServerInterceptor):
    """Reads the requests of every handler that leaves it to gRPC; it looks at a call once, when it begins.

    Args:
        count: called with the reason of each refusal.
    """

    def __init__(self, count: Callable[[str], None]) -> None:
        self._count = count

    async def intercept_service(self, continuation: Callable[..., Awaitable[Any]], call: Any) -> Any:
        """Return the handler of *call*, reading for itself."""
        handler = await continuation(call)
        if handler is None or handler.request_deserializer is None:
            return handler
        read, write = handler.request_deserializer, handler.response_serializer
        if handler.unary_unary is not None:
            return grpc.unary_unary_rpc_method_handler(_call(handler.unary_unary, self._reader(read)), None, write)
        if handler.unary_stream is not None:
            wrap = _generator if inspect.isasyncgenfunction(handler.unary_stream) else _call
            return grpc.unary_stream_rpc_method_handler(wrap(handler.unary_stream, self._reader(read)), None, write)
        assert inspect.isasyncgenfunction(handler.stream_stream), "every other kind of handler reads for itself"
        return grpc.stream_stream_rpc_method_handler(_stream(handler.stream_stream, self._reader(read)), None, write)

    def _reader(self, read: Callable[[bytes], Any]) -> _Reader:
        async def reading(data: bytes, context: Any) -> Any:
            try:
                return read_message(read, data, "message of this method's request type")
            except faults.SessionFault as fault:
                self._count(fault.reason)
                await context.abort(fault.code, str(fault), fault.trailers())

        return reading


def _call(behaviour: Callable[..., Awaitable[Any]], read: _Reader) -> Callable[..., Awaitable[Any]]:
    async def reading(data: bytes, context: Any) -> Any:
        return await behaviour(await read(data, context), context)

    return reading


def _generator(behaviour: Callable[..., AsyncIterator[Any]], read: _Reader) -> Callable[..., AsyncIterator[Any]]:
    async def reading(data: bytes, context: Any) -> AsyncIterator[Any]:
        async for response in behaviour(await read(data, context), context):
            yield response

    return reading


def _stream(behaviour: Callable[..., AsyncIterator[Any]], read: _Reader) -> Callable[..., AsyncIterator[Any]]:
    async def reading(requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[Any]:
        async def readable() -> AsyncIterator[Any]:
            async for data in requests:
                yield await read(data, context)

        async for response in behaviour(readable(), context):
            yield response

    return reading
