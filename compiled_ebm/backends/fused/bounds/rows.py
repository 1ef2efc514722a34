"""Bounds of sums and other reductions of rows, and of products of matrices, rounding included.

Rows are bounded by ``[ends, cases, rows, terms]``.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from compiled_ebm.backends.fused.bounds.intervals import SIDES, Bounds, Precision, around, where

__all__ = ["REDUCTIONS", "dot"]

_MATRIX_SIDES = SIDES[..., None]


def _sum(rows: Bounds, precision: Precision) -> Bounds:
    """Sums in any order: partial sums are at most that of the sizes, which bounds the rounding too."""
    sizes = np.abs(rows).sum(-1)
    allowed = precision.rounding + rows.shape[-1] * precision.unit
    return where((sizes < precision.limit).all(0), rows.sum(-1) + sizes * (allowed * SIDES))


def _prod(rows: Bounds, precision: Precision) -> Bounds:
    """Products in any order: a part may be flushed to zero, whatever the whole is."""
    sizes = np.maximum(np.abs(rows).max(0), 1.0).prod(-1)
    allowed = precision.rounding + rows.shape[-1] * precision.unit
    return where(sizes < precision.limit, around(np.abs(rows).max(0).prod(-1) * (1 + allowed)))


REDUCTIONS: dict[str, Callable[[Bounds, Precision], Bounds]] = {
    "sum": _sum,
    "prod": _prod,
    "max": lambda rows, _: rows.max(-1),
    "min": lambda rows, _: rows.min(-1),
    "all": lambda rows, _: rows.min(-1),
    "any": lambda rows, _: rows.max(-1),
}
"""What is known of each reduction."""


def dot(left: Bounds, right: Bounds, precision: Precision) -> Bounds:
    """Products of matrices ``[ends, cases, m, k]`` and ``[ends, cases, k, n]``, in any order, rounding included.

    A known factor may be of any width: its products with the middle and with the radius of the other are two matrix
    products. Of two unknown factors the sizes alone are used.
    """
    terms = left.shape[-1]
    allowed = precision.product + terms * precision.unit
    if len(left) == len(right):
        sizes = np.matmul(np.abs(left).max(0), np.abs(right).max(0))
        return where(sizes < precision.limit, around(sizes * (1 + allowed), _MATRIX_SIDES))
    other, known = (left, right[0, 0]) if len(right) == 1 else (right, left[0, 0])
    middle, radius = 0.5 * (other[0] + other[1]), 0.5 * (other[1] - other[0])
    apart = radius + allowed * (np.abs(middle) + radius)
    middle, apart = middle.astype(known.dtype), apart.astype(known.dtype)
    if len(right) == 1:
        rows = (-1, terms)  # of all cases: one product
        shape = (*middle.shape[:-1], known.shape[1])
        centre = (middle.reshape(rows) @ known).reshape(shape)
        spread = (apart.reshape(rows) @ np.abs(known)).reshape(shape)
    else:
        centre, spread = known @ middle, np.abs(known) @ apart
    spread = where(spread < precision.limit * allowed, spread) + precision.small  # no partial sum is too large either
    bounds: Bounds = np.add(centre, spread * _MATRIX_SIDES, dtype=np.float64)
    return bounds
