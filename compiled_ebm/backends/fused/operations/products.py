"""Products of matrices and vectors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from compiled_ebm.backends.fused.elements import Elements, Value
from compiled_ebm.backends.fused.operations.reductions import rows_of
from compiled_ebm.backends.fused.operations.table import Operand, real, row
from compiled_ebm.backends.fused.program import Kind

__all__: list[str] = []

aten: Any = torch.ops.aten
prims: Any = torch.ops.prims


@row(aten.mm.default)
def _mm(e: Elements, a: Operand, b: Operand) -> Value:
    return e.matmul(real(e, a), real(e, b))


@row(aten.addmm.default)
def _addmm(e: Elements, bias: Operand, a: Operand, b: Operand, *, beta: float = 1, alpha: float = 1) -> Value:
    left = e.pointwise("mul", Kind.REAL, real(e, a), real(e, float(alpha))) if alpha != 1 else real(e, a)
    if beta == 0:
        return e.matmul(left, real(e, b))
    return e.matmul(left, real(e, b), e.pointwise("mul", Kind.REAL, real(e, bias), real(e, float(beta))))


@row(aten.mv.default)
def _mv(e: Elements, a: Operand, b: Operand) -> Value:
    vector = real(e, b)
    product = _mm(e, a, vector.moved(vector.ids.unsqueeze(1)))
    return product.moved(product.ids.squeeze(1))


@row(aten.dot.default)
def _dot(e: Elements, a: Operand, b: Operand) -> Value:
    left, right = real(e, a), real(e, b)
    product = _mm(e, left.moved(left.ids.unsqueeze(0)), right.moved(right.ids.unsqueeze(1)))
    return product.moved(product.ids.reshape(()))


@row(aten.bmm.default)
def _bmm(e: Elements, a: Operand, b: Operand) -> Value:
    left, right = real(e, a), real(e, b)
    products = [_mm(e, left.moved(x), right.moved(y)).ids for x, y in zip(left.ids, right.ids, strict=True)]
    return left.moved(torch.stack(products))


@row(aten._trilinear.default)
def _trilinear(
    e: Elements,
    a: Operand,
    b: Operand,
    c: Operand,
    expand1: Sequence[int],
    expand2: Sequence[int],
    expand3: Sequence[int],
    sumdim: Sequence[int],
    unroll_dim: int = 1,
) -> Value:
    total: Value | None = None
    for x, dims in ((a, expand1), (b, expand2), (c, expand3)):
        value = real(e, x)
        for d in dims:
            value = value.moved(value.ids.unsqueeze(d))
        total = value if total is None else e.pointwise("mul", Kind.REAL, total, value)
    assert total is not None
    rows, shaped = rows_of(total, list(sumdim), False)
    return shaped(e.reduce("sum", Kind.REAL, rows)) if sumdim else total
