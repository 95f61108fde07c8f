"""Memory by its address, and the system calls around a segment, for compiled code.

A segment comes and goes while the engine runs, so it can't be an array of the engine's: its words are reached by
addresses that the event loop gave and keeps valid. What another process may change meanwhile is loaded exactly once,
each word whole: LLVM may neither tear these loads nor repeat them.

As in ``native.py``, all of these are LLVM instructions or calls by name: Numba's cache keeps functions that use them.
"""

from __future__ import annotations

from typing import Any, Final

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

_INT8: Final = ir.IntType(8)
_INT32: Final = ir.IntType(32)
_INT64: Final = ir.IntType(64)
_WORD_BYTES: Final = 8
_EVENT_BYTES: Final = 12  # struct epoll_event is packed on x86-64, and 16 bytes elsewhere.
_EVENTS: Final = 4
_MSG_DONTWAIT: Final = 0x40
_MSG_NOSIGNAL: Final = 0x4000
_SHUT_RDWR: Final = 2


def _word_at(builder: Any, address: Any) -> Any:
    return builder.inttoptr(address, _INT64.as_pointer())


@intrinsic
def load_at(_typing: Any, _address: Any) -> Any:
    """Return the int64 at *address*, a multiple of 8; what its writer stored before is visible after (acquire)."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.load_atomic(_word_at(builder, arguments[0]), "acquire", _WORD_BYTES)

    return types.int64(types.int64), generate


@intrinsic
def store_at(_typing: Any, _address: Any, _value: Any) -> Any:
    """Set the int64 at *address*, a multiple of 8, after everything stored before (release)."""

    def generate(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        builder.store_atomic(arguments[1], _word_at(builder, arguments[0]), "release", _WORD_BYTES)
        return context.get_dummy_value()

    return types.none(types.int64, types.int64), generate


@intrinsic
def word_at(_typing: Any, _address: Any) -> Any:
    """Return the int64 at *address*, a multiple of 8: loaded once and whole, in no order (relaxed)."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.load_atomic(_word_at(builder, arguments[0]), "monotonic", _WORD_BYTES)

    return types.int64(types.int64), generate


@intrinsic
def set_word_at(_typing: Any, _address: Any, _value: Any) -> Any:
    """Set the int64 at *address*, a multiple of 8, in no order (relaxed)."""

    def generate(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        builder.store_atomic(arguments[1], _word_at(builder, arguments[0]), "monotonic", _WORD_BYTES)
        return context.get_dummy_value()

    return types.none(types.int64, types.int64), generate


@intrinsic
def wait_for_any(_typing: Any, _poll: Any, _event: Any, _timeout_ms: Any) -> Any:
    """Sleep until a descriptor of an epoll is ready or *timeout_ms* is over; then clear the eventfd *event*.

    Args:
        _poll: the epoll's descriptor; that of *event* is in it, level-triggered, all others are edge-triggered.
        _event: an eventfd that does not block.
        _timeout_ms: -1 for no end.

    Returns:
        What epoll_wait returns.
    """

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        poll, event, timeout_ms = arguments
        events = cgutils.alloca_once(builder, ir.ArrayType(_INT64, 2 * _EVENTS))
        assert 2 * _EVENTS * _WORD_BYTES >= _EVENTS * _EVENT_BYTES
        wait_type = ir.FunctionType(_INT32, [_INT32, cgutils.voidptr_t, _INT32, _INT32])
        wait = cgutils.get_or_insert_function(builder.module, wait_type, "epoll_wait")
        ready = builder.call(
            wait, [poll, builder.bitcast(events, cgutils.voidptr_t), ir.Constant(_INT32, _EVENTS), timeout_ms]
        )
        with builder.if_then(builder.icmp_signed(">", ready, ir.Constant(_INT32, 0))):
            count = cgutils.alloca_once(builder, _INT64)
            read_type = ir.FunctionType(_INT64, [_INT32, cgutils.voidptr_t, _INT64])
            read = cgutils.get_or_insert_function(builder.module, read_type, "read")
            builder.call(read, [event, builder.bitcast(count, cgutils.voidptr_t), ir.Constant(_INT64, _WORD_BYTES)])
        return ready

    return types.int32(types.int32, types.int32, types.int32), generate


@intrinsic
def send_byte(_typing: Any, _descriptor: Any) -> Any:
    """Send one byte over a socket without waiting and without a signal. Returns what send returns."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        byte = cgutils.alloca_once_value(builder, ir.Constant(_INT8, 1))
        function_type = ir.FunctionType(_INT64, [_INT32, cgutils.voidptr_t, _INT64, _INT32])
        send = cgutils.get_or_insert_function(builder.module, function_type, "send")
        flags = ir.Constant(_INT32, _MSG_DONTWAIT | _MSG_NOSIGNAL)
        return builder.call(send, [arguments[0], byte, ir.Constant(_INT64, 1), flags])

    return types.int64(types.int32), generate


@intrinsic
def hang_up(_typing: Any, _descriptor: Any) -> Any:
    """Shut a socket down both ways, so that each side reads its end; it stays open. Returns what shutdown returns."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        function_type = ir.FunctionType(_INT32, [_INT32, _INT32])
        shutdown = cgutils.get_or_insert_function(builder.module, function_type, "shutdown")
        return builder.call(shutdown, [arguments[0], ir.Constant(_INT32, _SHUT_RDWR)])

    return types.int32(types.int32), generate
