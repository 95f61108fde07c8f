"""What compiled code needs and Numba lacks: atomics, a fence, clocks, two system calls, and calls by address.

Numba may hoist a plain array load out of a spinning loop, and Arm may reorder two plain stores. So every word that two
threads share is read with ``load_acquire`` and written with ``store_release``; ``fence`` orders a store before a later
load, which neither of them does. All of these are LLVM instructions or calls by name: they hold on Arm, and Numba's
cache keeps functions that use them.
"""

from __future__ import annotations

import platform
from typing import Any, Final

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

CLOCK_REALTIME: Final = 0
CLOCK_MONOTONIC: Final = 1

_INT32: Final = ir.IntType(32)
_INT64: Final = ir.IntType(64)
_INT128: Final = ir.IntType(128)
_WORD_BYTES: Final = 8
_POLLIN: Final = 1
_X86: Final = platform.machine() in {"x86_64", "AMD64"}
_ARM: Final = platform.machine() in {"aarch64", "arm64"}
HAS_CYCLES: Final = _X86 or _ARM  # Whether there is a counter that a process may read.


def _pointer(context: Any, builder: Any, array_type: Any, array: Any, index: Any) -> Any:
    view = context.make_array(array_type)(context, builder, array)
    return cgutils.get_item_pointer(context, builder, array_type, view, [index])


@intrinsic
def load_acquire(_typing: Any, array: Any, _index: Any) -> Any:
    """Return ``array[index]``; what its writer stored before is visible after. array: int64, 1-D."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointer = _pointer(context, builder, signature.args[0], arguments[0], arguments[1])
        return builder.load_atomic(pointer, "acquire", _WORD_BYTES)

    return types.int64(array, types.intp), generate


@intrinsic
def store_release(_typing: Any, array: Any, _index: Any, _value: Any) -> Any:
    """Set ``array[index] = value``, after everything stored before. array: int64, 1-D."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointer = _pointer(context, builder, signature.args[0], arguments[0], arguments[1])
        builder.store_atomic(arguments[2], pointer, "release", _WORD_BYTES)
        return context.get_dummy_value()

    return types.none(array, types.intp, types.int64), generate


@intrinsic
def compare_and_swap(_typing: Any, array: Any, _index: Any, _expected: Any, _value: Any) -> Any:
    """Set ``array[index] = value`` if it is *expected*, as one step. Returns whether it was. array: int64, 1-D."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointer = _pointer(context, builder, signature.args[0], arguments[0], arguments[1])
        found = builder.cmpxchg(pointer, arguments[2], arguments[3], "acq_rel", "acquire")
        return builder.extract_value(found, 1)

    return types.boolean(array, types.intp, types.int64, types.int64), generate


@intrinsic
def fence(_typing: Any) -> Any:
    """Order every store before this point ahead of every load after it (sequentially consistent)."""

    def generate(context: Any, builder: Any, _signature: Any, _arguments: Any) -> Any:
        builder.fence("seq_cst")
        return context.get_dummy_value()

    return types.none(), generate


@intrinsic
def clock_ns(_typing: Any, _clock: Any) -> Any:
    """Return ``clock_gettime(clock)`` in nanoseconds."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        timespec = cgutils.alloca_once(builder, ir.ArrayType(_INT64, 2))
        function_type = ir.FunctionType(_INT32, [_INT32, cgutils.voidptr_t])
        function = cgutils.get_or_insert_function(builder.module, function_type, "clock_gettime")
        builder.call(function, [arguments[0], builder.bitcast(timespec, cgutils.voidptr_t)])
        seconds = builder.load(cgutils.gep_inbounds(builder, timespec, 0, 0))
        nanoseconds = builder.load(cgutils.gep_inbounds(builder, timespec, 0, 1))
        return builder.add(builder.mul(seconds, ir.Constant(_INT64, 1_000_000_000)), nanoseconds)

    return types.int64(types.int32), generate


@intrinsic
def cycles(_typing: Any) -> Any:
    """Return the processor's counter: the TSC, on Arm CNTVCT_EL0; 0 where HAS_CYCLES is False.

    Nothing is waited for: it may be read some nanoseconds before what stands ahead of it has ended.
    """

    def generate(_context: Any, builder: Any, _signature: Any, _arguments: Any) -> Any:
        function_type = ir.FunctionType(_INT64, [])
        if _X86:
            return builder.call(builder.module.declare_intrinsic("llvm.readcyclecounter", (), function_type), [])
        if _ARM:  # LLVM's own would read a counter that user space may not.
            return builder.asm(function_type, "mrs $0, cntvct_el0", "=r", [], True)
        return ir.Constant(_INT64, 0)

    return types.int64(), generate


@intrinsic
def scaled_cycles(_typing: Any, _count: Any, _fraction: Any) -> Any:
    """Return ``count * fraction >> 32`` as if words were wide enough. Both int64; *fraction* is not negative."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        count, fraction = (builder.sext(argument, _INT128) for argument in arguments)
        return builder.trunc(builder.ashr(builder.mul(count, fraction), ir.Constant(_INT128, 32)), _INT64)

    return types.int64(types.int64, types.int64), generate


@intrinsic
def eventfd_signal(_typing: Any, _descriptor: Any) -> Any:
    """Add one to an eventfd: ``write(descriptor, &one, 8)``. Returns what write returns."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        one = cgutils.alloca_once_value(builder, ir.Constant(_INT64, 1))
        function_type = ir.FunctionType(_INT64, [_INT32, cgutils.voidptr_t, _INT64])
        function = cgutils.get_or_insert_function(builder.module, function_type, "write")
        pointer = builder.bitcast(one, cgutils.voidptr_t)
        return builder.call(function, [arguments[0], pointer, ir.Constant(_INT64, _WORD_BYTES)])

    return types.int64(types.int32), generate


@intrinsic
def nap_ns(_typing: Any, _duration_ns: Any) -> Any:
    """Sleep for *duration_ns*, less than a second: ``nanosleep``."""

    def generate(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        timespec = cgutils.alloca_once(builder, ir.ArrayType(_INT64, 2))
        builder.store(ir.Constant(_INT64, 0), cgutils.gep_inbounds(builder, timespec, 0, 0))
        builder.store(arguments[0], cgutils.gep_inbounds(builder, timespec, 0, 1))
        function_type = ir.FunctionType(_INT32, [cgutils.voidptr_t, cgutils.voidptr_t])
        function = cgutils.get_or_insert_function(builder.module, function_type, "nanosleep")
        builder.call(
            function, [builder.bitcast(timespec, cgutils.voidptr_t), ir.Constant(_INT64, 0).inttoptr(cgutils.voidptr_t)]
        )
        return context.get_dummy_value()

    return types.none(types.int64), generate


@intrinsic
def call_with_two(_typing: Any, _address: Any, _first: Any, _second: Any) -> Any:
    """Call the C function ``int (void *, void *)`` at *address*; whoever gave the address keeps it valid."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return _call(builder, arguments[0], arguments[1:])

    return types.int32(types.int64, types.int64, types.int64), generate


@intrinsic
def call_with_one(_typing: Any, _address: Any, _first: Any) -> Any:
    """Call the C function ``int (void *)`` at *address*; whoever gave the address keeps it valid."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return _call(builder, arguments[0], arguments[1:])

    return types.int32(types.int64, types.int64), generate


def _call(builder: Any, address: Any, pointers: Any) -> Any:
    function_type = ir.FunctionType(_INT32, [cgutils.voidptr_t] * len(pointers))
    function = builder.inttoptr(address, function_type.as_pointer())
    return builder.call(function, [builder.inttoptr(pointer, cgutils.voidptr_t) for pointer in pointers])
