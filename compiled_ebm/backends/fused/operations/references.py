"""The prims to which torch's references decompose."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from compiled_ebm.backends.fused.elements import Elements, Value
from compiled_ebm.backends.fused.operations.pointwise import div, div_mode
from compiled_ebm.backends.fused.operations.reductions import reduction, variance_row
from compiled_ebm.backends.fused.operations.table import ROWS, Operand, as_value, promoted, row
from compiled_ebm.backends.fused.program import Kind

__all__: list[str] = []

aten: Any = torch.ops.aten
prims: Any = torch.ops.prims


for _name, _target in {
    **{n: getattr(aten, n).Tensor for n in "add sub mul remainder eq ne lt le gt ge".split()},
    **{n: getattr(aten, n).default for n in "neg abs maximum minimum sign floor ceil trunc round".split()},
    **{n: getattr(aten, n).default for n in "exp expm1 log log1p sqrt rsqrt sin cos tanh isfinite".split()},
    "pow": aten.pow.Tensor_Tensor,
    "where": aten.where.self,
}.items():
    ROWS[getattr(prims, _name).default] = ROWS[_target]
ROWS[prims.div.default] = lambda e, a, b: (
    div(e, a, b) if promoted(a, b) is Kind.REAL else div_mode(e, a, b, rounding_mode="trunc")
)
for _name, _op in (("sum", "sum"), ("prod", "prod"), ("amax", "max"), ("amin", "min")):
    ROWS[getattr(prims, _name).default] = lambda e, x, dims=None, op=_op, **_: reduction(op)(e, x, dims)


@row(prims.var.default)
def _prims_var(e: Elements, x: Operand, dims: Sequence[int] | None, correction: float | None = 1, **_: Any) -> Value:
    return variance_row(e, x, dims, correction=correction)


@row(prims.broadcast_in_dim.default)
def _broadcast_in_dim(e: Elements, x: Operand, shape: Sequence[int], dimensions: Sequence[int]) -> Value:
    value = as_value(e, x)
    sizes = [1] * len(shape)
    for size, d in zip(value.shape, dimensions, strict=True):
        sizes[d] = size
    return value.moved(value.ids.reshape(sizes).expand(*shape))
