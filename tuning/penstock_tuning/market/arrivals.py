"""When things happen: self- and mutually exciting (Hawkes) arrivals, without a call into the C library.

Every event of instrument m adds to the intensities of the market, and the additions fade by half-lives:

    lambda_m(t) = base_m + sum over kernels k of excitement[m, k](t)
    excitement halves every HALF_LIFE_NS[k]; an event of weight w adds w BRANCHING[k] ln 2 / HALF_LIFE_NS[k],
    of which CROSS_SHARE goes to the other instruments in equal parts

The next arrival is drawn by Ogata's thinning: intensities only fall between events, so the present one is a bound.

Logarithms and exponentials are the kernels' own, so a seed gives the same nanoseconds on every platform. Source: Ogata, IEEE Transactions on Information Theory 27 (1981).
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from penstock_kernels.compiled import compiled
from penstock_kernels.elementary import exp, log

HALF_LIFE_NS: Final = (100_000.0, 10_000_000.0, 2_000_000_000.0)  # A volley, a burst, a busy second.
BRANCHING: Final = (0.42, 0.20, 0.26)  # Children of one event of mean weight, by kernel.
BRANCHING_TOTAL: Final = 0.42 + 0.20 + 0.26
CROSS_SHARE: Final = 0.12
KERNELS: Final = 3

LN_2: Final = 0.6931471805599453
_TWO_TO_MINUS_53: Final = 2.0**-53


@compiled
def uniform(word: np.uint64) -> float:
    """Return a number in (0, 1) from one raw 64-bit *word*: the middle of one of 2**53 equal steps."""
    return (float(np.int64(word >> np.uint64(11))) + 0.5) * _TWO_TO_MINUS_53


@compiled
def exponential(word: np.uint64) -> float:
    """Return -ln of a uniform number: an exponential variate of mean 1, at most about 37."""
    return -log(uniform(word))


@compiled
def fade(excitement: NDArray[np.float64], elapsed_ns: float) -> None:
    """Let *elapsed_ns* pass: each kernel's column of *excitement*, shape (instruments, KERNELS), is overwritten."""
    for kernel in range(KERNELS):
        factor = exp(-LN_2 * elapsed_ns / HALF_LIFE_NS[kernel])
        for instrument in range(excitement.shape[0]):
            excitement[instrument, kernel] *= factor


@compiled
def excite(excitement: NDArray[np.float64], instrument: int, weight: float) -> None:
    """Add an event of *instrument* with *weight* to *excitement*, shape (instruments, KERNELS), overwritten."""
    instruments = excitement.shape[0]
    for kernel in range(KERNELS):
        jump = weight * BRANCHING[kernel] * LN_2 / HALF_LIFE_NS[kernel]
        if instruments == 1:
            excitement[0, kernel] += jump
            continue
        excitement[instrument, kernel] += jump * (1.0 - CROSS_SHARE)
        other = jump * CROSS_SHARE / (instruments - 1)
        for index in range(instruments):
            if index != instrument:
                excitement[index, kernel] += other


@compiled
def intensity(base: NDArray[np.float64], excitement: NDArray[np.float64]) -> float:
    """Return the whole market's intensity per nanosecond; *base* has shape (instruments,)."""
    total = 0.0
    for instrument in range(base.shape[0]):
        total += base[instrument]
        for kernel in range(KERNELS):
            total += excitement[instrument, kernel]
    return total


@compiled
def whose(base: NDArray[np.float64], excitement: NDArray[np.float64], share: float) -> int:
    """Return the instrument whose band of the market's intensity holds *share*, a number per nanosecond."""
    reached = 0.0
    for instrument in range(base.shape[0]):
        reached += base[instrument]
        for kernel in range(KERNELS):
            reached += excitement[instrument, kernel]
        if share < reached:
            return instrument
    return int(base.shape[0]) - 1
