"""The system calls of the feed thread, for compiled code: receive a batch, send, wait, and why a call failed.

Calls by name, as in ``penstock_daemon.native``. Structures of C are int64 arrays here: struct mmsghdr is 8 words, struct
iovec 2, struct pollfd 1.
"""

from __future__ import annotations

from typing import Any, Final

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

EINTR: Final = 4
EAGAIN: Final = 11
POLLIN: Final = 1
MSG_TRUNC: Final = 0x20
_MSG_DONTWAIT: Final = 0x40
_MSG_NOSIGNAL: Final = 0x4000

_INT32: Final = ir.IntType(32)
_INT64: Final = ir.IntType(64)


def _address(context: Any, builder: Any, array_type: Any, array: Any) -> Any:
    view = context.make_array(array_type)(context, builder, array)
    return builder.bitcast(view.data, cgutils.voidptr_t)


def _null() -> Any:
    return ir.Constant(_INT64, 0).inttoptr(cgutils.voidptr_t)


@intrinsic
def receive_batch(_typing: Any, _descriptor: Any, headers: Any, _count: Any) -> Any:
    """Call ``recvmmsg(descriptor, headers, count, MSG_DONTWAIT, NULL)``. Returns how many packets came, or -1.

    headers: int64, (count or more, 8), each of a struct mmsghdr; its lengths and flags are overwritten.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        function_type = ir.FunctionType(_INT32, [_INT32, cgutils.voidptr_t, _INT32, _INT32, cgutils.voidptr_t])
        function = cgutils.get_or_insert_function(builder.module, function_type, "recvmmsg")
        pointer = _address(context, builder, signature.args[1], arguments[1])
        flags = ir.Constant(_INT32, _MSG_DONTWAIT)
        return builder.call(function, [arguments[0], pointer, arguments[2], flags, _null()])

    return types.int32(types.int32, headers, types.int32), generate


@intrinsic
def send_bytes(_typing: Any, _descriptor: Any, data: Any, _count: Any) -> Any:
    """Send the first *count* bytes of *data* (uint8), without waiting. Returns what send returns."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        function_type = ir.FunctionType(_INT64, [_INT32, cgutils.voidptr_t, _INT64, _INT32])
        function = cgutils.get_or_insert_function(builder.module, function_type, "send")
        pointer = _address(context, builder, signature.args[1], arguments[1])
        flags = ir.Constant(_INT32, _MSG_DONTWAIT | _MSG_NOSIGNAL)
        return builder.call(function, [arguments[0], pointer, arguments[2], flags])

    return types.int64(types.int32, data, types.int64), generate


@intrinsic
def wait_ready(_typing: Any, polled: Any, _count: Any, _timeout_ns: Any) -> Any:
    """Sleep until one of *count* descriptors is ready or *timeout_ns* (less than a second) is over: ``ppoll``.

    polled: int64, each a struct pollfd; overwritten. Returns what ppoll returns.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        timespec = cgutils.alloca_once(builder, ir.ArrayType(_INT64, 2))
        builder.store(ir.Constant(_INT64, 0), cgutils.gep_inbounds(builder, timespec, 0, 0))
        builder.store(arguments[2], cgutils.gep_inbounds(builder, timespec, 0, 1))
        function_type = ir.FunctionType(_INT32, [cgutils.voidptr_t, _INT64, cgutils.voidptr_t, cgutils.voidptr_t])
        function = cgutils.get_or_insert_function(builder.module, function_type, "ppoll")
        pointer = _address(context, builder, signature.args[0], arguments[0])
        limit = builder.bitcast(timespec, cgutils.voidptr_t)
        return builder.call(function, [pointer, arguments[1], limit, _null()])

    return types.int32(polled, types.int64, types.int64), generate


@intrinsic
def last_error(_typing: Any) -> Any:
    """Return errno of this thread: of the call that failed last."""

    def generate(_context: Any, builder: Any, _signature: Any, _arguments: Any) -> Any:
        function_type = ir.FunctionType(_INT32.as_pointer(), [])
        function = cgutils.get_or_insert_function(builder.module, function_type, "__errno_location")
        return builder.load(builder.call(function, []))

    return types.int32(), generate
