"""Eight float64 lanes as one value, for sums of products: the kernels' lanes in double precision.

A lane value is an LLVM vector. Its width in registers changes the speed and never a bit: each lane is multiplied and
then added, rounded twice, as IEEE 754 says. ``load`` and ``store`` check no bounds.
"""

from __future__ import annotations

from typing import Any, Final

from llvmlite import ir
from numba import types
from numba.extending import intrinsic, models, register_model

LANES: Final = 8

_VECTOR: Final = ir.VectorType(ir.DoubleType(), LANES)
_INDEX: Final = ir.IntType(32)
_FLOAT64_BYTES: Final = 8


class Float64Lanes(types.Type):
    """The type of a lane value inside compiled code."""

    def __init__(self) -> None:
        super().__init__(name="Float64Lanes")


float64_lanes: Final = Float64Lanes()


@register_model(Float64Lanes)
class _Float64LanesModel(models.PrimitiveModel):
    """A lane value is one LLVM vector."""

    def __init__(self, manager: Any, lane_type: Any) -> None:
        super().__init__(manager, lane_type, _VECTOR)


def _address(context: Any, builder: Any, array_type: Any, array: Any, position: Any) -> Any:
    data = context.make_array(array_type)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [position]), _VECTOR.as_pointer())


@intrinsic
def load(typing_context: Any, array: Any, position: Any) -> Any:  # noqa: ARG001  # Numba's signature.
    """Return the 8 values of the contiguous, one-dimensional float64 *array* from *position* on."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        address = _address(context, builder, signature.args[0], arguments[0], arguments[1])
        return builder.load(address, align=_FLOAT64_BYTES)

    return float64_lanes(array, types.intp), generate


@intrinsic
def store(typing_context: Any, array: Any, position: Any, lanes: Any) -> Any:  # noqa: ARG001  # Numba's signature.
    """Write *lanes* into the contiguous, one-dimensional float64 *array* from *position* on."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        address = _address(context, builder, signature.args[0], arguments[0], arguments[1])
        builder.store(arguments[2], address, align=_FLOAT64_BYTES)
        return context.get_dummy_value()

    return types.void(array, types.intp, lanes), generate


@intrinsic
def add_product(typing_context: Any, lanes: Any, factor: Any, others: Any) -> Any:  # noqa: ARG001  # Numba's signature.
    """Return *lanes* + *factor* *others*, where *factor* is one float64; two roundings, never fused."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:  # noqa: ARG001  # As above.
        nothing = ir.Constant(_VECTOR, ir.Undefined)
        first = builder.insert_element(nothing, arguments[1], ir.Constant(_INDEX, 0))
        splat = builder.shuffle_vector(first, nothing, ir.Constant(ir.VectorType(_INDEX, LANES), [0] * LANES))
        return builder.fadd(arguments[0], builder.fmul(splat, arguments[2]))

    return float64_lanes(float64_lanes, types.float64, float64_lanes), generate
