"""The spectral radius of a reservoir's W, of any topology, by eigenvalues, offline.

It is rounded to six digits before it scales any weight, so that the last bits of a linear algebra library never reach
them. (Power iteration is wrong here: the largest eigenvalues of W are often a complex pair.)

    few units      all eigenvalues of the dense matrix
    many           ARPACK, with more vectors at each retry; where it does not converge, the dense matrix after all
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np
from numpy.typing import NDArray

from penstock_kernels.compiled import Float64s, Int64s
from penstock_kernels.model import TOPOLOGIES, ModelError

_DENSE_UNITS_MAX: Final = 600  # Up to here all eigenvalues of the dense matrix take less time than an iteration.
_EIGENVALUES: Final = 6
_ATTEMPTS: Final = 4
_VECTORS: Final = 40  # Of the first attempt; each retry has twice as many.


def spectral_radius_of(topology: str, recurrent: NDArray[np.floating], connections: Int64s) -> float:
    """Return the largest absolute eigenvalue of W, rounded to six significant digits.

    Args:
        topology: a key of TOPOLOGIES.
        recurrent: as in Model.
        connections: as in Model.

    Raises:
        ModelError: there is no such topology.
    """
    units = recurrent.shape[1]
    radius = None
    if units > _DENSE_UNITS_MAX:
        radius = _radius_by_iteration(product_of(topology, recurrent, connections), units)
    if radius is None:
        radius = float(np.abs(np.linalg.eigvals(dense_matrix(topology, recurrent, connections))).max())
    return float(f"{radius:.6g}")


def dense_matrix(topology: str, recurrent: NDArray[np.floating], connections: Int64s) -> Float64s:
    """Return W, shape (units, units), in float64; arguments and errors as of spectral_radius_of."""
    _check_topology(topology)
    units = recurrent.shape[1]
    if topology == "dense":
        return recurrent.astype(np.float64)
    rows = np.arange(units)
    matrix = np.zeros((units, units), dtype=np.float64)
    for weights, heard in zip(recurrent, connections, strict=True):
        np.add.at(matrix, (rows, (rows + heard) % units if topology == "cyclic" else heard), weights)
    return matrix


def product_of(
    topology: str, recurrent: NDArray[np.floating], connections: Int64s
) -> Callable[[NDArray[np.floating]], Float64s]:
    """Return the function x -> W x in float64, without a matrix; arguments and errors as of spectral_radius_of."""
    _check_topology(topology)
    weights = recurrent.astype(np.float64)
    units = weights.shape[1]
    if topology == "dense":
        return lambda vector: weights @ vector.reshape(-1)
    rows = np.arange(units)
    heard = (rows + connections[:, None]) % units if topology == "cyclic" else connections

    def product(vector: NDArray[np.floating]) -> Float64s:
        result = np.zeros(units)
        for weight, from_units in zip(weights, heard, strict=True):
            result += weight * vector.reshape(-1)[from_units]
        return result

    return product


def _check_topology(topology: str) -> None:
    if topology not in TOPOLOGIES:
        raise ModelError(f"topology must be one of {', '.join(TOPOLOGIES)}: topology={topology!r:.80}; choose one")


def _radius_by_iteration(product: Callable[[NDArray[np.floating]], Float64s], units: int) -> float | None:
    """Return the largest absolute eigenvalue by ARPACK, or None where SciPy is missing or it does not converge."""
    try:
        from scipy.sparse.linalg import ArpackError, LinearOperator, eigs
    except ImportError:
        return None
    operator = LinearOperator((units, units), matvec=product, dtype=np.float64)
    vectors = _VECTORS
    for _ in range(_ATTEMPTS):
        try:
            values = eigs(
                operator,
                k=_EIGENVALUES,
                ncv=min(vectors, units - 1),
                v0=np.ones(units),
                tol=1e-9,
                return_eigenvectors=False,
            )
        except ArpackError:  # ArpackNoConvergence is one; so is a start that lies in a subspace.
            vectors *= 2
            continue
        return float(np.abs(values).max())
    return None
