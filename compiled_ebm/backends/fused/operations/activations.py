"""Activations that do not decompose well, conversions, tensors of one number."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from compiled_ebm.backends.fused.elements import Elements, Value, kind_of
from compiled_ebm.backends.fused.operations.choices import comparison, where
from compiled_ebm.backends.fused.operations.table import ROWS, Operand, as_value, real, row
from compiled_ebm.backends.fused.program import Kind

__all__: list[str] = []

aten: Any = torch.ops.aten
prims: Any = torch.ops.prims


@row(aten.softplus.default)
def _softplus(e: Elements, x: Operand, beta: float = 1.0, threshold: float = 20.0) -> Value:
    value = real(e, x)
    scaled = e.pointwise("mul", Kind.REAL, value, real(e, float(beta)))
    soft = e.pointwise("softplus", Kind.REAL, scaled)
    soft = e.pointwise("mul", Kind.REAL, soft, real(e, 1.0 / beta))
    linear = e.pointwise("rgt", Kind.MASK, scaled, real(e, float(threshold)))
    return e.pointwise("rsel", Kind.REAL, linear, value, soft)


@row(aten.elu.default)
def _elu(e: Elements, x: Operand, alpha: float = 1.0, scale: float = 1.0, input_scale: float = 1.0) -> Value:
    value = real(e, x)
    inner = e.pointwise("mul", Kind.REAL, value, real(e, float(input_scale)))
    negative = e.pointwise("expm1", Kind.REAL, inner)
    negative = e.pointwise("mul", Kind.REAL, negative, real(e, alpha * scale))
    positive = e.pointwise("mul", Kind.REAL, value, real(e, float(scale)))
    return e.pointwise("rsel", Kind.REAL, e.pointwise("rgt", Kind.MASK, value, real(e, 0.0)), positive, negative)


@row(aten.hardshrink_backward.default, aten.softshrink_backward.default)
def _shrink_backward(e: Elements, grad: Operand, x: Operand, limit: float) -> Value:
    value = real(e, x)
    low, high = comparison("ge")(e, value, -float(limit)), comparison("le")(e, value, float(limit))
    return where(e, e.pointwise("mand", Kind.MASK, low, high), 0.0, real(e, grad))


@row(prims.signbit.default, aten.signbit.default)
def _signbit(e: Elements, x: Operand) -> Value:
    sign = e.pointwise("copysign", Kind.REAL, real(e, 1.0), real(e, x))
    return e.pointwise("rlt", Kind.MASK, sign, real(e, 0.0))


@row(aten._to_copy.default, prims.convert_element_type.default)
def _to_copy(e: Elements, x: Operand, dtype: torch.dtype | None = None, **_: Any) -> Value:
    value = as_value(e, x)
    return value if dtype is None else e.cast(value, kind_of(dtype))


@row(aten.new_full.default)
def _new_full(
    e: Elements, x: Value, size: Sequence[int], number: complex, *, dtype: torch.dtype | None = None, **_: Any
) -> Value:
    kind = x.kind if dtype is None else kind_of(dtype)
    return e.literal(torch.full(tuple(size), float(number.real), dtype=torch.float64), kind)


ROWS[aten.full_like.default] = lambda e, x, number, **options: _new_full(e, x, x.shape, number, **options)
ROWS[aten.fill.Scalar] = ROWS[aten.full_like.default]
ROWS[aten.zeros_like.default] = lambda e, x, **options: _new_full(e, x, x.shape, 0.0, **options)
ROWS[aten.ones_like.default] = lambda e, x, **options: _new_full(e, x, x.shape, 1.0, **options)
ROWS[aten.empty_like.default] = ROWS[aten.zeros_like.default]
ROWS[aten.new_zeros.default] = lambda e, x, size, **options: _new_full(e, x, size, 0.0, **options)
ROWS[aten.new_ones.default] = lambda e, x, size, **options: _new_full(e, x, size, 1.0, **options)
