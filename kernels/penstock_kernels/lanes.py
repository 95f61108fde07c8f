"""Sixteen float32 lanes as one value that kernels add, multiply and divide.

A lane value is an LLVM vector. The processor holds it in one 512-bit register, two of 256 or four of 128 bits; each
lane goes through the same IEEE operations in the same order on all of them, so the width changes the speed and never
a bit. Compilers vectorise sums only when they may reorder them; here the order is written down:

    total(v) = (((v0+v8) + (v4+v12)) + ((v2+v10) + (v6+v14))) + (((v1+v9) + (v5+v13)) + ((v3+v11) + (v7+v15)))

``load`` and ``store`` check no bounds and need no alignment; 64-byte aligned data is faster.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any, Final

from llvmlite import ir
from numba import types
from numba.extending import intrinsic, models, overload, register_model

LANES: Final = 16

_VECTOR: Final = ir.VectorType(ir.FloatType(), LANES)
_INDEX: Final = ir.IntType(32)
_INDICES: Final = ir.VectorType(_INDEX, LANES)
_EXPONENT_BIAS: Final = 127  # Of float32, as the next one.
_MANTISSA_BITS: Final = 23
_FLOAT32_BYTES: Final = 4


class Float32Lanes(types.Type):
    """The type of a lane value inside compiled code."""

    def __init__(self) -> None:
        super().__init__(name="Float32Lanes")


float32_lanes: Final = Float32Lanes()


@register_model(Float32Lanes)
class _Float32LanesModel(models.PrimitiveModel):
    """A lane value is one LLVM vector."""

    def __init__(self, manager: Any, lane_type: Any) -> None:
        super().__init__(manager, lane_type, _VECTOR)


def _address(context: Any, builder: Any, array_type: Any, array: Any, position: Any) -> Any:
    data = context.make_array(array_type)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [position]), _VECTOR.as_pointer())


@intrinsic
def load(typing_context: Any, array: Any, position: Any) -> Any:  # noqa: ARG001  # Numba's signature.
    """Return the 16 values of the contiguous float32 *array* from *position* on."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        address = _address(context, builder, signature.args[0], arguments[0], arguments[1])
        return builder.load(address, align=_FLOAT32_BYTES)

    return float32_lanes(array, types.intp), generate


@intrinsic
def gather(typing_context: Any, array: Any, first: Any, places: Any, position: Any) -> Any:  # noqa: ARG001  # As above.
    """Return sixteen values of *array*, from *first* on counted by the int32 words of *places* from *position* on.

    Sixteen loads: measured on AVX-512, the processor's own gather is no faster.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        data = builder.gep(context.make_array(signature.args[0])(context, builder, arguments[0]).data, [arguments[1]])
        address = _address(context, builder, signature.args[2], arguments[2], arguments[3])
        indices = builder.load(builder.bitcast(address, _INDICES.as_pointer()), align=_FLOAT32_BYTES)
        lanes = ir.Constant(_VECTOR, ir.Undefined)
        for lane in range(LANES):
            index = builder.extract_element(indices, ir.Constant(_INDEX, lane))
            value = builder.load(builder.gep(data, [index]), align=_FLOAT32_BYTES)
            lanes = builder.insert_element(lanes, value, ir.Constant(_INDEX, lane))
        return lanes

    return float32_lanes(array, types.intp, places, types.intp), generate


@intrinsic
def store(typing_context: Any, array: Any, position: Any, lanes: Any) -> Any:  # noqa: ARG001  # Numba's signature.
    """Write *lanes* into the contiguous float32 *array* from *position* on."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        address = _address(context, builder, signature.args[0], arguments[0], arguments[1])
        builder.store(arguments[2], address, align=_FLOAT32_BYTES)
        return context.get_dummy_value()

    return types.void(array, types.intp, lanes), generate


@intrinsic
def splat(typing_context: Any, value: Any) -> Any:  # noqa: ARG001  # Numba's signature.
    """Return sixteen times *value*, rounded to float32."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:  # noqa: ARG001  # As above.
        return _splat(builder, arguments[0])

    return float32_lanes(types.float32), generate


@intrinsic
def spread(typing_context: Any, array: Any, position: Any) -> Any:  # noqa: ARG001  # Numba's signature.
    """Return sixteen times the value of *array* at *position*; as ``load``, it checks no bounds."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        return _splat(builder, builder.load(builder.gep(data, [arguments[1]]), align=_FLOAT32_BYTES))

    return float32_lanes(array, types.intp), generate


def _splat(builder: Any, scalar: Any) -> Any:
    nothing = ir.Constant(_VECTOR, ir.Undefined)
    first = builder.insert_element(nothing, scalar, ir.Constant(_INDEX, 0))
    return builder.shuffle_vector(first, nothing, ir.Constant(ir.VectorType(_INDEX, LANES), [0] * LANES))


def _elementwise(instruction: str) -> Any:
    @intrinsic
    def apply(typing_context: Any, left: Any, right: Any) -> Any:  # noqa: ARG001  # Numba's signature.
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:  # noqa: ARG001  # As above.
            return getattr(builder, instruction)(arguments[0], arguments[1])

        return float32_lanes(float32_lanes, float32_lanes), generate

    return apply


def _teach(operation: Any, elementwise: Any) -> None:
    """Make *operation*, such as operator.add, mean *elementwise* between two lane values."""

    @overload(operation, strict=False)
    def choose(left: Any, right: Any) -> Callable[..., Any] | None:
        both = isinstance(left, Float32Lanes) and isinstance(right, Float32Lanes)
        return (lambda left, right: elementwise(left, right)) if both else None  # noqa: PLW0108  # Numba compiles it.


_teach(operator.add, _elementwise("fadd"))
_teach(operator.sub, _elementwise("fsub"))
_teach(operator.mul, _elementwise("fmul"))
_teach(operator.truediv, _elementwise("fdiv"))


@intrinsic
def clamp(typing_context: Any, lanes: Any, bound: Any) -> Any:  # noqa: ARG001  # Numba's signature.
    """Return *lanes* limited to -bound .. bound, lane by lane; NaN stays NaN."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:  # noqa: ARG001  # As above.
        upper = _splat(builder, arguments[1])
        lower = builder.fneg(upper)
        below = builder.select(builder.fcmp_ordered(">", arguments[0], upper), upper, arguments[0])
        return builder.select(builder.fcmp_ordered("<", below, lower), lower, below)

    return float32_lanes(float32_lanes, types.float32), generate


@intrinsic
def truncate(typing_context: Any, lanes: Any) -> Any:  # noqa: ARG001  # Numba's signature.
    """Return *lanes*, each of less than 2^31 in size, without their fractions."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:  # noqa: ARG001  # As above.
        return builder.sitofp(builder.fptosi(arguments[0], _INDICES), _VECTOR)

    return float32_lanes(float32_lanes), generate


@intrinsic
def power_of_two(typing_context: Any, lanes: Any) -> Any:  # noqa: ARG001  # Numba's signature.
    """Return 2 to the power of each of *lanes*, whole numbers of -126 to 127."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:  # noqa: ARG001  # As above.
        bias = ir.Constant(_INDICES, [_EXPONENT_BIAS] * LANES)
        shift = ir.Constant(_INDICES, [_MANTISSA_BITS] * LANES)
        exponent = builder.add(builder.fptosi(arguments[0], _INDICES), bias)
        return builder.bitcast(builder.shl(exponent, shift), _VECTOR)

    return float32_lanes(float32_lanes), generate


@intrinsic
def total(typing_context: Any, lanes: Any) -> Any:  # noqa: ARG001  # Numba's signature.
    """Return the sum of the sixteen lanes, by halves: the order that the file's head states."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:  # noqa: ARG001  # As above.
        lanes, width = arguments[0], LANES
        while width > 1:
            nothing = ir.Constant(ir.VectorType(ir.FloatType(), width), ir.Undefined)
            width //= 2
            index_type = ir.VectorType(_INDEX, width)
            lower = builder.shuffle_vector(lanes, nothing, ir.Constant(index_type, list(range(width))))
            upper = builder.shuffle_vector(lanes, nothing, ir.Constant(index_type, list(range(width, 2 * width))))
            lanes = builder.fadd(lower, upper)
        return builder.extract_element(lanes, ir.Constant(_INDEX, 0))

    return types.float32(float32_lanes), generate
