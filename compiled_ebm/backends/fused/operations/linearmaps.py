"""Pools, resampling, padding: linear in their input, with coefficients that the trace knows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from compiled_ebm.backends.fused.elements import Elements, Value
from compiled_ebm.backends.fused.operations.table import ROWS, Operand, Row, Unsupported, as_value
from compiled_ebm.backends.fused.program import Kind

__all__: list[str] = []

aten: Any = torch.ops.aten

_MOST_MAPPED = 2048
"""Elements on either side of a linear map that is found out element by element."""


def _mapped(e: Elements, x: Operand, function: Callable[[Tensor], Tensor]) -> Value:
    """``function(x)``, linear with coefficients that the trace knows: its terms that are not zero, summed up."""
    value = as_value(e, x, Kind.REAL)
    if value.ids.numel() > _MOST_MAPPED:
        raise Unsupported(f"a linear map of {value.ids.numel()} elements, more than {_MOST_MAPPED}")
    units = torch.eye(value.ids.numel(), dtype=torch.float64).reshape(-1, *value.shape)
    images = torch.stack([function(unit) for unit in units])
    shape, matrix = images.shape[1:], images.reshape(len(units), -1).T
    if matrix.shape[0] > _MOST_MAPPED:
        raise Unsupported(f"a linear map to {matrix.shape[0]} elements, more than {_MOST_MAPPED}")
    terms = max(1, int((matrix != 0).sum(1).max()))
    places = (matrix != 0).to(torch.int8).argsort(dim=1, descending=True, stable=True)[:, :terms]
    factors = e.literal(matrix.gather(1, places), Kind.REAL)
    numbers = value.moved(value.ids.reshape(-1)[places])
    zero = e.literal(torch.zeros(()), Kind.REAL)
    products = e.pointwise("mul", Kind.REAL, numbers, factors).ids
    products = torch.where(matrix.gather(1, places) != 0, products, zero.ids)
    return Value(e.reduce("sum", Kind.REAL, Value(products, Kind.REAL)).ids.reshape(shape), Kind.REAL)


def _linear_map(target: Any) -> Row:
    return lambda e, x, *args, **kwargs: _mapped(e, x, lambda part: target(part, *args, **kwargs))


for _name in (
    "avg_pool1d avg_pool2d avg_pool3d _adaptive_avg_pool2d _adaptive_avg_pool3d adaptive_avg_pool1d "
    "upsample_nearest1d upsample_nearest2d upsample_nearest3d upsample_linear1d upsample_bilinear2d "
    "upsample_bicubic2d upsample_trilinear3d upsample_nearest1d_backward upsample_nearest2d_backward "
    "upsample_nearest3d_backward upsample_linear1d_backward upsample_bilinear2d_backward "
    "upsample_bicubic2d_backward upsample_trilinear3d_backward reflection_pad1d reflection_pad2d reflection_pad3d "
    "replication_pad1d replication_pad2d replication_pad3d"
).split():
    for _overload in getattr(aten, _name).overloads():
        if _overload in ("default", "vec"):
            ROWS[getattr(getattr(aten, _name), _overload)] = _linear_map(getattr(getattr(aten, _name), _overload))


def _linear_map_with_input(target: Any) -> Row:
    """Gradients that take the forward's input for its shape alone."""

    def mapped(e: Elements, grad: Operand, x: Operand, *args: Any, **kwargs: Any) -> Value:
        like = torch.zeros(x.shape, dtype=torch.float64)
        return _mapped(e, grad, lambda part: target(part, like, *args, **kwargs))

    return mapped


for _name in (
    "avg_pool2d_backward avg_pool3d_backward _adaptive_avg_pool2d_backward _adaptive_avg_pool3d_backward "
    "reflection_pad1d_backward reflection_pad2d_backward reflection_pad3d_backward "
    "replication_pad1d_backward replication_pad2d_backward replication_pad3d_backward"
).split():
    ROWS[getattr(aten, _name).default] = _linear_map_with_input(getattr(aten, _name).default)
