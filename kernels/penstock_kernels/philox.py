"""Philox4x64-10: random words that depend on a seed and a position, and on nothing else.

Reservoirs are drawn from raw 64-bit words, because NumPy promises the words of its generators for ever but not what
its distributions make of them. Source: Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC11.

    words(seed, stream, n)     ==  numpy.random.Philox(key=[seed, stream]).random_raw(n)
    uniform                    ==  (word >> 11) / 2^53, in [0, 1)
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from penstock_kernels.compiled import Float64s, Int64s

UInt64s = NDArray[np.uint64]

_ROUNDS: Final = 10
_MULTIPLIERS: Final = (np.uint64(0xD2E7470EE14C6C93), np.uint64(0xCA5A826395121157))
_KEY_STEPS: Final = (0x9E3779B97F4A7C15, 0xBB67AE8584CAA73B)
_WORD_MASK: Final = 2**64 - 1
_HALF_BITS: Final = np.uint64(32)
_HALF_MASK: Final = np.uint64(2**32 - 1)
_UNIFORM_SHIFT: Final = np.uint64(11)
_UNIFORM_STEP: Final = 2.0**-53


class Stream:
    """A sequence of random words: (seed, stream) is the key, the position counts up.

    Different streams of one seed are independent, so that drawing more of one thing changes no other.
    """

    def __init__(self, seed: int, stream: int) -> None:
        self._key = (seed & _WORD_MASK, stream & _WORD_MASK)
        self._blocks_drawn = 0
        self._left: UInt64s = np.empty(0, dtype=np.uint64)

    def words(self, count: int) -> UInt64s:
        """Return the next *count* words, shape (count,)."""
        missing = max(count - len(self._left), 0)
        blocks = -(-missing // 4)
        # NumPy counts up before it draws: its first block has the number 1.
        numbers = np.arange(self._blocks_drawn + 1, self._blocks_drawn + 1 + blocks, dtype=np.uint64)
        self._blocks_drawn += blocks
        available = np.concatenate([self._left, philox_blocks(self._key, numbers).reshape(-1)])
        self._left = available[count:]
        return available[:count]

    def uniform(self, count: int, low: float = 0.0, high: float = 1.0) -> Float64s:
        """Return the next *count* floats, uniform in [low, high), shape (count,), one word each."""
        unit = (self.words(count) >> _UNIFORM_SHIFT).astype(np.float64) * _UNIFORM_STEP
        return low + (high - low) * unit

    def distinct(self, count: int, low: int, high: int) -> Int64s:
        """Return *count* different integers of low .. high - 1 in the order drawn, shape (count,).

        Raises:
            ValueError: there are fewer than *count* of them.
        """
        if count > high - low:
            raise ValueError(f"count must be at most high - low: count={count}, low={low}, high={high}")
        pool = np.arange(low, high, dtype=np.int64)
        for position in range(count):
            # Modulo favours small numbers by less than 1 part in 2^40 here.
            other = position + int(self.words(1)[0]) % (len(pool) - position)
            pool[position], pool[other] = pool[other], pool[position]
        return pool[:count].copy()


def philox_blocks(key: tuple[int, int], numbers: UInt64s) -> UInt64s:
    """Return the four words of each block, shape (blocks, 4).

    Each of ten rounds maps the counter words (c0, c1, c2, c3), with 128-bit products, to

        high(M1 c2) ^ c1 ^ k0,  low(M1 c2),  high(M0 c0) ^ c3 ^ k1,  low(M0 c0)

    Args:
        key: k0 and k1, 64 bits each.
        numbers: c0 of each block; c1 to c3 are 0, shape (blocks,).
    """
    c0 = numbers
    c1 = c2 = c3 = np.zeros_like(numbers)
    k0, k1 = key
    for _ in range(_ROUNDS):
        high0, low0 = _multiply(_MULTIPLIERS[0], c0)
        high1, low1 = _multiply(_MULTIPLIERS[1], c2)
        c0, c1, c2, c3 = high1 ^ c1 ^ np.uint64(k0), low1, high0 ^ c3 ^ np.uint64(k1), low0
        k0, k1 = (k0 + _KEY_STEPS[0]) & _WORD_MASK, (k1 + _KEY_STEPS[1]) & _WORD_MASK
    return np.stack([c0, c1, c2, c3], axis=1)


def _multiply(multiplier: np.uint64, words: UInt64s) -> tuple[UInt64s, UInt64s]:
    """Return the high and the low 64 bits of each 128-bit product, from products of 32-bit halves."""
    m_high, m_low = multiplier >> _HALF_BITS, multiplier & _HALF_MASK
    w_high, w_low = words >> _HALF_BITS, words & _HALF_MASK
    middle = m_high * w_low + (m_low * w_low >> _HALF_BITS)
    cross = m_low * w_high + (middle & _HALF_MASK)
    high = m_high * w_high + (middle >> _HALF_BITS) + (cross >> _HALF_BITS)
    return high, words * multiplier
