"""Triangular solves."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from compiled_ebm.backends.fused.elements import Elements, Value
from compiled_ebm.backends.fused.operations.table import Operand, Unsupported, as_value, row
from compiled_ebm.backends.fused.program import Kind

__all__ = ["batched_solve", "turned"]

aten: Any = torch.ops.aten

_MOST_SOLVED = 256
"""Rows of a triangular matrix: each is a product of its own."""


@row(aten.linalg_solve_triangular.default)
def _solve_triangular(
    e: Elements, a: Operand, b: Operand, *, upper: bool, left: bool = True, unitriangular: bool = False
) -> Value:
    matrix, right = as_value(e, a, Kind.REAL), as_value(e, b, Kind.REAL)
    if not left:
        solved = batched_solve(e, turned(matrix), turned(right), not upper, unitriangular)
        return turned(solved)
    return batched_solve(e, matrix, right, upper, unitriangular)


@row(aten.cholesky_solve.default)
def _cholesky_solve(e: Elements, b: Operand, factor: Operand, upper: bool = False) -> Value:
    right, matrix = as_value(e, b, Kind.REAL), as_value(e, factor, Kind.REAL)
    first, second = (turned(matrix), matrix) if upper else (matrix, turned(matrix))
    return batched_solve(e, second, batched_solve(e, first, right, False, False), True, False)


def turned(value: Value) -> Value:
    return value.moved(value.ids.mT)


def batched_solve(e: Elements, matrix: Value, right: Value, upper: bool, unit: bool) -> Value:
    n, columns = right.shape[-2:]
    batch = torch.broadcast_shapes(  # type: ignore[no-untyped-call]
        matrix.shape[:-2], right.shape[:-2]
    )
    matrices = matrix.ids.expand(*batch, n, n).reshape(-1, n, n)
    rights = right.ids.expand(*batch, n, columns).reshape(-1, n, columns)
    if n > _MOST_SOLVED:
        raise Unsupported(f"a triangular solve with {n} rows, more than {_MOST_SOLVED}")
    if (matrices == matrices[:1]).all() and len(matrices) > 1:  # the same for all: one solve with more columns
        wide = rights.movedim(0, -1).reshape(n, -1)
        solved = _solve(e, matrix.moved(matrices[0]), right.moved(wide), upper, unit)
        ids = solved.ids.reshape(n, columns, -1).movedim(-1, 0)
    else:
        ids = torch.stack(
            [_solve(e, matrix.moved(m), right.moved(r), upper, unit).ids for m, r in zip(matrices, rights, strict=True)]
        )
    return right.moved(ids.reshape(*batch, n, columns))


def _solve(e: Elements, matrix: Value, right: Value, upper: bool, unit: bool) -> Value:
    """By substitution. A constant matrix is inverted instead: outside the kernel, once a run, so that what is left of
    the solve is one product. That costs accuracy by the condition of the matrix, as every explicit inverse does."""
    if e.is_constant(matrix):
        n = matrix.shape[0]
        inverse = _substituted(e, matrix, e.literal(torch.eye(n), Kind.REAL), upper, unit)
        zero = e.literal(torch.zeros(()), Kind.REAL).ids
        kept = torch.ones(n, n, dtype=torch.bool)
        inverse = inverse.moved(torch.where(kept.triu() if upper else kept.tril(), inverse.ids, zero))
        return e.matmul(inverse, right)
    return _substituted(e, matrix, right, upper, unit)


def _substituted(e: Elements, matrix: Value, right: Value, upper: bool, unit: bool) -> Value:
    n = matrix.shape[0]
    solved: list[Tensor] = []
    order = list(range(n))[:: -1 if upper else 1]
    for step, i in enumerate(order):
        part = right.moved(right.ids[i : i + 1])
        if step:
            known = right.moved(torch.stack(solved))
            factors = matrix.moved(matrix.ids[i : i + 1, torch.tensor(order[:step])])
            part = e.pointwise("sub", Kind.REAL, part, e.matmul(factors, known))
        if not unit:
            part = e.pointwise("div", Kind.REAL, part, matrix.moved(matrix.ids[i, i]))
        solved.append(part.ids[0])
    return right.moved(torch.stack([solved[order.index(i)] for i in range(n)]))
