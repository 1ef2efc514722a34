"""Norms, distances, layer norm."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from compiled_ebm.backends.fused.elements import Elements, Value
from compiled_ebm.backends.fused.operations.choices import comparison, where
from compiled_ebm.backends.fused.operations.pointwise import power
from compiled_ebm.backends.fused.operations.reductions import rows_of, variance_of
from compiled_ebm.backends.fused.operations.table import Operand, Unsupported, real, row
from compiled_ebm.backends.fused.program import Kind

__all__: list[str] = []

aten: Any = torch.ops.aten
prims: Any = torch.ops.prims


@row(aten.linalg_vector_norm.default)
def _vector_norm(e: Elements, x: Operand, ord: float = 2, dim: Any = None, keepdim: bool = False, **_: Any) -> Value:
    rows, shaped = rows_of(real(e, x), dim, keepdim)
    size = e.pointwise("abs", Kind.REAL, rows)
    if math.isinf(ord):
        return shaped(e.reduce("max" if ord > 0 else "min", Kind.REAL, size))
    if ord == 0:
        return shaped(e.reduce("sum", Kind.REAL, e.cast(comparison("ne")(e, rows, 0.0), Kind.REAL)))
    return shaped(power(e, e.reduce("sum", Kind.REAL, power(e, size if ord % 2 else rows, ord)), 1.0 / ord))


@row(aten._cdist_forward.default)
def _cdist(e: Elements, a: Operand, b: Operand, p: float, compute_mode: int | None = None) -> Value:
    return _vector_norm(e, _apart(e, a, b), p, -1)


@row(aten._cdist_backward.default)
def _cdist_backward(e: Elements, grad: Operand, a: Operand, b: Operand, p: float, distance: Operand) -> Value:
    """With respect to ``a``."""
    slope = _slope(e, grad, _apart(e, a, b), p, distance)
    rows, shaped = rows_of(slope, -2, False)
    return shaped(e.reduce("sum", Kind.REAL, rows))


@row(aten._pdist_forward.default)
def _pdist(e: Elements, x: Operand, p: float = 2) -> Value:
    points = real(e, x)
    first, second = torch.triu_indices(points.shape[0], points.shape[0], 1)
    return _vector_norm(e, _difference(e, points, first, second), p, -1)


@row(aten._pdist_backward.default)
def _pdist_backward(e: Elements, grad: Operand, x: Operand, p: float, distance: Operand) -> Value:
    points = real(e, x)
    n = points.shape[0]
    first, second = torch.triu_indices(n, n, 1)
    slope = _slope(e, grad, _difference(e, points, first, second), p, distance)
    opposite = e.pointwise("neg", Kind.REAL, slope)
    rows = [torch.cat([slope.ids[first == k], opposite.ids[second == k]]) for k in range(n)]
    return e.reduce("sum", Kind.REAL, slope.moved(torch.stack(rows).movedim(1, -1)))


def _difference(e: Elements, points: Value, first: torch.Tensor, second: torch.Tensor) -> Value:
    return e.pointwise("sub", Kind.REAL, points.moved(points.ids[first]), points.moved(points.ids[second]))


def _slope(e: Elements, grad: Operand, apart: Value, p: float, distance: Operand) -> Value:
    """The gradient with respect to each difference; 0 where two points coincide."""
    length, given = (v.moved(v.ids.unsqueeze(-1)) for v in (real(e, distance), real(e, grad)))
    if p == 2:
        slope = e.pointwise("div", Kind.REAL, apart, length)
        slope = where(e, comparison("eq")(e, length, 0.0), 0.0, slope)
    elif p == 1 or math.isinf(p):
        slope = e.pointwise("sign", Kind.REAL, apart)
        if math.isinf(p):
            slope = where(e, comparison("eq")(e, e.pointwise("abs", Kind.REAL, apart), length), slope, 0.0)
    else:
        raise Unsupported(f"p={p}")
    return e.pointwise("mul", Kind.REAL, given, slope)


def _apart(e: Elements, a: Operand, b: Operand) -> Value:
    left, right = real(e, a), real(e, b)
    return e.pointwise("sub", Kind.REAL, left.moved(left.ids.unsqueeze(-2)), right.moved(right.ids.unsqueeze(-3)))


@row(aten.native_layer_norm.default)
def _layer_norm(
    e: Elements, x: Operand, shape: Sequence[int], weight: Operand, bias: Operand, eps: float
) -> tuple[Value, Value, Value]:
    dims = list(range(-len(shape), 0))
    rows, shaped = rows_of(real(e, x), dims, True)
    variance, mean = variance_of(e, rows, 0)
    inverse = e.pointwise("rsqrt", Kind.REAL, e.pointwise("add", Kind.REAL, variance, real(e, eps)))
    apart = e.pointwise("sub", Kind.REAL, real(e, x), shaped(mean))
    out = e.pointwise("mul", Kind.REAL, apart, shaped(inverse))
    if weight is not None:
        out = e.pointwise("mul", Kind.REAL, out, real(e, weight))
    if bias is not None:
        out = e.pointwise("add", Kind.REAL, out, real(e, bias))
    return out, shaped(mean), shaped(inverse)
