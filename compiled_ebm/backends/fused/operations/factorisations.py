"""Small matrices that depend on x: Cholesky and LU factors, and the determinants, inverses and solutions made of them.

Everything is unrolled. Where torch would raise an error (at the Cholesky factor of a matrix that is not positive
definite, at the inverse of a singular one) the results are not finite, so that the chain fails.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from compiled_ebm.backends.fused.elements import Elements, Value
from compiled_ebm.backends.fused.operations.choices import comparison, where
from compiled_ebm.backends.fused.operations.solves import batched_solve, turned
from compiled_ebm.backends.fused.operations.table import ROWS, Operand, Unsupported, as_value, row
from compiled_ebm.backends.fused.program import Kind

__all__: list[str] = []

aten: Any = torch.ops.aten

_MOST_FACTORED = 16
"""Rows of a matrix: the work grows with their third power, and all of it becomes code."""


def _square(e: Elements, x: Operand, what: str) -> Value:
    value = as_value(e, x, Kind.REAL)
    if value.shape[-1] > _MOST_FACTORED:
        raise Unsupported(f"{what} of {value.shape[-1]} rows, more than {_MOST_FACTORED}")
    return value


def _fits(e: Elements, matrix: Value) -> Value:
    """For each matrix of a batch 0: what torch says of one that it could factor."""
    return e.literal(torch.zeros(matrix.shape[:-2]), Kind.INT)


ROWS[aten._linalg_check_errors.default] = lambda e, info, *_, **__: None


@row(aten.linalg_cholesky_ex.default)
def _cholesky_ex(e: Elements, a: Operand, *, upper: bool = False, check_errors: bool = False) -> tuple[Value, Value]:
    """Column by column. ``info``, which tells torch of a failure, is 1 where a pivot is not positive."""
    matrix = _square(e, a, "a Cholesky factor")
    matrix = turned(matrix) if upper else matrix
    n = matrix.shape[-1]
    zero = int(e.literal(torch.zeros(()), Kind.REAL).ids)
    factor = torch.full(matrix.shape, zero, dtype=torch.int64)
    failed: Value | None = None
    for j in range(n):
        column = matrix.moved(matrix.ids[..., j:, j])
        for k in range(j):
            known = matrix.moved(factor[..., j:, k])
            product = e.pointwise("mul", Kind.REAL, known, matrix.moved(factor[..., j : j + 1, k]))
            column = e.pointwise("sub", Kind.REAL, column, product)
        pivot = column.moved(column.ids[..., :1])
        bad = e.pointwise("mnot", Kind.MASK, comparison("gt")(e, pivot, 0.0))
        failed = bad if failed is None else e.pointwise("mor", Kind.MASK, failed, bad)
        root = e.pointwise("sqrt", Kind.REAL, pivot)
        factor[..., j, j] = root.ids[..., 0]
        factor[..., j + 1 :, j] = e.pointwise("div", Kind.REAL, column.moved(column.ids[..., 1:]), root).ids
    made = matrix.moved(factor.mT if upper else factor)
    info = _fits(e, matrix) if failed is None else e.cast(failed.moved(failed.ids[..., 0]), Kind.INT)
    return made, info


def _lu(e: Elements, matrix: Value) -> tuple[Value, Value, Value]:
    """The factors in one matrix, the row (from 1) that each row was exchanged with, and the sign of the exchanges.

    By columns, the largest entry at or below the diagonal its pivot, the first of equals, as LAPACK has it.
    """
    n = matrix.shape[-1]
    rows = [matrix.moved(matrix.ids[..., i, :]) for i in range(n)]
    pivots: list[Tensor] = []
    sign = e.literal(torch.ones(matrix.shape[:-2]), Kind.REAL)
    for k in range(n):
        best = e.pointwise("abs", Kind.REAL, rows[k].moved(rows[k].ids[..., k]))
        place = e.literal(torch.full(matrix.shape[:-2], float(k)), Kind.INT)
        for i in range(k + 1, n):
            size = e.pointwise("abs", Kind.REAL, rows[i].moved(rows[i].ids[..., k]))
            larger = comparison("gt")(e, size, best)
            best = where(e, larger, size, best)
            place = where(e, larger, as_value(e, i, Kind.INT), place)
        pivots.append(e.pointwise("iadd", Kind.INT, place, as_value(e, 1, Kind.INT)).ids)
        rows = _exchanged(e, rows, k, place)
        if k + 1 < n:
            sign = where(e, comparison("eq")(e, place, k), sign, e.pointwise("neg", Kind.REAL, sign))
        pivot = rows[k].moved(rows[k].ids[..., k : k + 1])
        # zeros stand below a pivot of zero: a singular matrix has factors, and the determinant 0
        pivot = where(e, comparison("eq")(e, pivot, 0.0), as_value(e, 1.0, Kind.REAL), pivot)
        right = rows[k].moved(rows[k].ids[..., k + 1 :])
        for i in range(k + 1, n):
            factor = e.pointwise("div", Kind.REAL, rows[i].moved(rows[i].ids[..., k : k + 1]), pivot)
            product = e.pointwise("mul", Kind.REAL, factor, right)
            left = e.pointwise("sub", Kind.REAL, rows[i].moved(rows[i].ids[..., k + 1 :]), product)
            rows[i] = rows[i].moved(torch.cat([rows[i].ids[..., :k], factor.ids, left.ids], -1))
    exchanged = torch.stack(pivots, -1) if n else torch.zeros(*matrix.shape[:-2], 0, dtype=torch.int64)
    factors = torch.stack([r.ids for r in rows], -2) if n else matrix.ids
    return matrix.moved(factors), Value(exchanged, Kind.INT), sign


def _exchanged(e: Elements, rows: list[Value], k: int, place: Value) -> list[Value]:
    """Rows ``k`` and ``place >= k`` of each matrix exchanged."""
    old, result = rows[k], list(rows)
    index = place.moved(place.ids.unsqueeze(-1))
    for i in range(k + 1, len(rows)):
        here = comparison("eq")(e, index, i)
        result[k] = where(e, here, rows[i], result[k])
        result[i] = where(e, here, old, rows[i])
    return result


@row(aten.linalg_lu_factor_ex.default)
def _lu_factor_ex(
    e: Elements, a: Operand, *, pivot: bool = True, check_errors: bool = False
) -> tuple[Value, Value, Value]:
    if not pivot:
        raise Unsupported("pivot=False")
    matrix = _square(e, a, "an LU factorisation")
    if matrix.shape[-1] != matrix.shape[-2]:
        raise Unsupported("of a matrix that is not square")
    factors, pivots, _ = _lu(e, matrix)
    return factors, pivots, _fits(e, matrix)


@row(aten.linalg_lu_solve.default)
def _lu_solve(
    e: Elements, factors: Operand, pivots: Operand, b: Operand, *, left: bool = True, adjoint: bool = False
) -> Value:
    matrix, right = _square(e, factors, "a solution"), as_value(e, b, Kind.REAL)
    exchanges = as_value(e, pivots, Kind.INT)
    if not left:  # x a = b: a^T x^T = b^T
        return turned(_lu_solve(e, matrix, exchanges, turned(right), adjoint=not adjoint))
    n = matrix.shape[-1]
    one = as_value(e, 1, Kind.INT)
    places = [e.pointwise("isub", Kind.INT, exchanges.moved(exchanges.ids[..., k]), one) for k in range(n)]
    shape = torch.broadcast_shapes(matrix.shape[:-2], right.shape[:-2])  # type: ignore[no-untyped-call]
    places = [place.moved(place.ids.expand(shape)) for place in places]
    right = right.moved(right.ids.expand(*shape, n, right.shape[-1]))
    if adjoint:  # a = p^T l u
        right = batched_solve(e, turned(matrix), right, upper=False, unit=False)
        right = batched_solve(e, turned(matrix), right, upper=True, unit=True)
    rows = [right.moved(right.ids[..., i, :]) for i in range(n)]
    for k in range(n)[:: -1 if adjoint else 1]:
        rows = _exchanged(e, rows, k, places[k])
    right = right.moved(torch.stack([r.ids for r in rows], -2))
    if not adjoint:
        right = batched_solve(e, matrix, right, upper=False, unit=True)
        right = batched_solve(e, matrix, right, upper=True, unit=False)
    return right


@row(aten._linalg_solve_ex.default)
def _solve_ex(
    e: Elements, a: Operand, b: Operand, *, left: bool = True, check_errors: bool = False
) -> tuple[Value, Value, Value, Value]:
    matrix, right = _square(e, a, "a solution"), as_value(e, b, Kind.REAL)
    factors, pivots, _ = _lu(e, matrix)
    vectors = right.ids.ndim == 1 or (right.ids.ndim == matrix.ids.ndim - 1 and right.shape == matrix.shape[:-1])
    columns = right.moved(right.ids.unsqueeze(-1)) if vectors else right
    solved = _lu_solve(e, factors, pivots, columns, left=left)
    return solved.moved(solved.ids.squeeze(-1)) if vectors else solved, factors, pivots, _fits(e, matrix)


@row(aten.linalg_inv_ex.default)
def _inv_ex(e: Elements, a: Operand, *, check_errors: bool = False) -> tuple[Value, Value]:
    matrix = _square(e, a, "an inverse")
    factors, pivots, _ = _lu(e, matrix)
    unit = e.literal(torch.eye(matrix.shape[-1]).expand(matrix.shape), Kind.REAL)
    return _lu_solve(e, factors, pivots, unit), _fits(e, matrix)


def _product(e: Elements, sign: Value, factors: Value) -> Value:
    diagonal = factors.moved(factors.ids.diagonal(dim1=-2, dim2=-1))
    return e.pointwise("mul", Kind.REAL, sign, e.reduce("prod", Kind.REAL, diagonal))


@row(aten._linalg_det.default)
def _det(e: Elements, a: Operand, *, contiguous: bool) -> tuple[Value, Value, Value]:
    """The factors that torch hands to the gradient are those of the transpose where the matrix is contiguous."""
    matrix = _square(e, a, "a determinant")
    factors, pivots, sign = _lu(e, turned(matrix) if contiguous else matrix)
    return _product(e, sign, factors), factors, pivots


@row(aten._linalg_slogdet.default)
def _slogdet(e: Elements, a: Operand, *, contiguous: bool) -> tuple[Value, Value, Value, Value]:
    """See :func:`_det` on the factors."""
    matrix = _square(e, a, "a determinant")
    factors, pivots, sign = _lu(e, turned(matrix) if contiguous else matrix)
    diagonal = factors.moved(factors.ids.diagonal(dim1=-2, dim2=-1))
    sign = e.pointwise("mul", Kind.REAL, sign, e.reduce("prod", Kind.REAL, e.pointwise("sign", Kind.REAL, diagonal)))
    logs = e.pointwise("log", Kind.REAL, e.pointwise("abs", Kind.REAL, diagonal))
    return sign, e.reduce("sum", Kind.REAL, logs), factors, pivots
