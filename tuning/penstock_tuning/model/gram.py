"""Sums of products of design rows, streamed: one float64 matrix, however many rows pass.

    sums[i, j] = sum over rows r, in order, of rows[r, i] rows[r, j]        for i <= j

Rows are float32 and sums float64 (a float32 Gram ruins a ridge readout), so each product is exact and only the order
of the additions could change a bit. That order is the order of the rows, whatever the block size or the machine: BLAS
promises none of this, and on the machine at hand it was not faster.

For speed, rows are laid out in tiles of TILE columns, and a piece of the matrix stays in registers while the rows of
a block pass.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from penstock_kernels.compiled import Float32s, Float64s, compiled
from penstock_tuning.model.float64_lanes import LANES, add_product, load, store

TILE: Final = 2 * LANES  # Columns; sizes are padded to multiples of it.
_BLOCK: Final = 128  # Rows at a time: two tiles of them stay in the first-level cache.


def padded(size: int) -> int:
    """Return *size* rounded up to whole tiles."""
    return -(-size // TILE) * TILE


class Gram:
    """Streamed sums of products of *columns* columns.

    Attributes:
        rows: how many rows were added.
        sums: upper triangle of the matrix, shape (padded(columns), padded(columns)). Padding is 0; what lies left of
            the diagonal means nothing.
    """

    def __init__(self, columns: int) -> None:
        self.columns = columns
        self.rows = 0
        self.sums: Float64s = np.zeros((padded(columns), padded(columns)))

    def add(self, rows: Float32s) -> None:
        """Add *rows*, shape (any, columns)."""
        for start in range(0, len(rows), _BLOCK):
            block = in_tiles(rows[start : start + _BLOCK])
            add_products(block, block, self.sums, 0)
        self.rows += len(rows)

    def plus(self, other: Gram) -> Gram:
        """Return the sums of both, as a new Gram.

        Raises:
            ValueError: they have different columns.
        """
        if self.columns != other.columns:
            raise ValueError(f"sums of different columns can't be added: {self.columns} and {other.columns}")
        both = Gram(self.columns)
        both.rows = self.rows + other.rows
        both.sums = self.sums + other.sums
        return both

    def matrix(self) -> Float64s:
        """Return the whole symmetric matrix, shape (columns, columns)."""
        upper = np.triu(self.sums[: self.columns, : self.columns])
        return upper + np.triu(upper, 1).T


def in_tiles(rows: Float32s | Float64s) -> Float64s:
    """Return *rows*, shape (rows, columns), as float64 tiles of columns, shape (tiles, rows, TILE), padded with 0."""
    size = padded(rows.shape[1])
    whole = np.zeros((len(rows), size))
    whole[:, : rows.shape[1]] = rows
    return np.ascontiguousarray(whole.reshape(len(rows), size // TILE, TILE).swapaxes(0, 1))


@compiled
def add_products(left: Float64s, right: Float64s, sums: Float64s, first: int) -> None:
    """Add to the upper triangle of *sums*, in its tiles of rows from *first* on, the products of each row in turn.

        sums[i, j] <- ((sums[i, j] + left[0, i] right[0, j]) + left[1, i] right[1, j]) + ...

    Args:
        left: in tiles, shape (tiles, rows, TILE).
        right: same shape.
        sums: shape (tiles TILE, tiles TILE). Overwritten, left of the diagonal too where a tile meets it.
        first: a tile.
    """
    rows = left.shape[1]
    stride = sums.shape[1]
    flat = sums.reshape(-1)
    for tile in range(first, left.shape[0]):
        factors = left[tile]
        for other in range(tile, right.shape[0]):
            values = right[other].reshape(-1)
            for row in range(0, TILE, 4):
                at = (tile * TILE + row) * stride + other * TILE
                a0, a1 = load(flat, at), load(flat, at + LANES)
                b0, b1 = load(flat, at + stride), load(flat, at + stride + LANES)
                c0, c1 = load(flat, at + 2 * stride), load(flat, at + 2 * stride + LANES)
                d0, d1 = load(flat, at + 3 * stride), load(flat, at + 3 * stride + LANES)
                for index in range(rows):
                    x0, x1 = load(values, index * TILE), load(values, index * TILE + LANES)
                    factor = factors[index, row]
                    a0, a1 = add_product(a0, factor, x0), add_product(a1, factor, x1)
                    factor = factors[index, row + 1]
                    b0, b1 = add_product(b0, factor, x0), add_product(b1, factor, x1)
                    factor = factors[index, row + 2]
                    c0, c1 = add_product(c0, factor, x0), add_product(c1, factor, x1)
                    factor = factors[index, row + 3]
                    d0, d1 = add_product(d0, factor, x0), add_product(d1, factor, x1)
                store(flat, at, a0)
                store(flat, at + LANES, a1)
                store(flat, at + stride, b0)
                store(flat, at + stride + LANES, b1)
                store(flat, at + 2 * stride, c0)
                store(flat, at + 2 * stride + LANES, c1)
                store(flat, at + 3 * stride, d0)
                store(flat, at + 3 * stride + LANES, d1)
