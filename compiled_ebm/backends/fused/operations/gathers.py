"""Elements by index, and other arrangements."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from compiled_ebm.backends.fused.elements import Elements, Value
from compiled_ebm.backends.fused.operations.choices import comparison
from compiled_ebm.backends.fused.operations.sorts import in_order
from compiled_ebm.backends.fused.operations.table import ROWS, Operand, Row, Unsupported, as_value, promoted, row
from compiled_ebm.backends.fused.program import Kind

__all__: list[str] = []

aten: Any = torch.ops.aten
prims: Any = torch.ops.prims

_MOST_CHOICES = 128
"""Elements that an index which differs between chains can choose from: each costs a selection."""


def _choose(e: Elements, options: Value, index: Value) -> Value:
    """``options[index]`` along the first dimension of ``options``, for an index that differs between chains.

    Where torch would raise, a real is NaN, so that the chain is known to have failed.
    """
    n = options.shape[0]
    if n > _MOST_CHOICES:
        raise Unsupported(f"an index that depends on the chain into {n} elements, more than {_MOST_CHOICES}")
    op = {Kind.REAL: "rsel", Kind.INT: "isel", Kind.MASK: "msel"}[options.kind]
    index = e.cast(index, Kind.INT)
    first = 0 if options.kind is Kind.REAL else 1
    result = as_value(e, math.nan, Kind.REAL) if options.kind is Kind.REAL else options.moved(options.ids[0])
    for k in range(first, n):
        same = e.pointwise("ieq", Kind.MASK, index, as_value(e, k, Kind.INT))
        same = e.pointwise("mor", Kind.MASK, same, e.pointwise("ieq", Kind.MASK, index, as_value(e, k - n, Kind.INT)))
        result = e.pointwise(op, options.kind, same, options.moved(options.ids[k]), result)
    return result


@row(aten.index.Tensor, aten._unsafe_index.Tensor)
def _index(e: Elements, x: Operand, indices: Sequence[Operand]) -> Value:
    value = as_value(e, x)
    if not any(isinstance(i, Value) for i in indices):
        return value.moved(value.ids[tuple(slice(None) if i is None else i for i in indices)])
    used = [d for d, i in enumerate(indices) if i is not None]
    dim = used[0]
    if used != list(range(dim, dim + len(used))):
        raise Unsupported("indices that depend on the chain, with a slice between them")
    value, index = _one_index(e, value, dim, [as_value(e, indices[d], Kind.INT) for d in used])
    moved = value.ids.movedim(dim, 0)
    options = value.moved(moved.reshape(moved.shape[0], *(1,) * index.ids.ndim, *moved.shape[1:]))
    spread = index.moved(index.ids.reshape(*index.shape, *(1,) * (value.ids.ndim - 1)))
    chosen = _choose(e, options, spread)
    back = list(range(index.ids.ndim))
    return chosen.moved(chosen.ids.movedim(back, [dim + d for d in back]))


def _one_index(e: Elements, value: Value, dim: int, indices: Sequence[Value]) -> tuple[Value, Value]:
    """Neighbouring dimensions as one, and their indices as its."""
    if len(indices) == 1:
        return value, indices[0]
    total: Value | None = None
    for d, index in enumerate(indices):
        n = value.shape[dim + d]
        negative = e.pointwise("ilt", Kind.MASK, index, as_value(e, 0, Kind.INT))
        wrapped = e.pointwise("iadd", Kind.INT, index, as_value(e, n, Kind.INT))
        place = e.pointwise("isel", Kind.INT, negative, wrapped, index)
        if total is None:
            total = place
            continue
        total = e.pointwise("iadd", Kind.INT, e.pointwise("imul", Kind.INT, total, as_value(e, n, Kind.INT)), place)
    assert total is not None
    return value.moved(value.ids.flatten(dim, dim + len(indices) - 1)), total


@row(aten.searchsorted.Tensor, aten.searchsorted.Scalar)
def _searchsorted(
    e: Elements, boundaries: Operand, x: Operand, *, right: bool = False, side: str | None = None, **others: Any
) -> Value:
    """How many boundaries are less than x."""
    edges, value = as_value(e, boundaries), as_value(e, x)
    if others.get("sorter") is not None:
        raise Unsupported("a sorter")
    if edges.ids.ndim != 1 and edges.shape[:-1] != value.shape[:-1]:
        raise Unsupported("boundaries and values of different shapes")
    edges = edges.moved(edges.ids.unsqueeze(-2) if edges.ids.ndim > 1 else edges.ids)
    value = value.moved(value.ids.unsqueeze(-1))
    less = comparison("le" if right or side == "right" else "lt")(e, edges, value)
    return e.reduce("sum", Kind.INT, e.cast(less, Kind.INT))


@row(aten.bucketize.Tensor, aten.bucketize.Scalar)
def _bucketize(e: Elements, x: Operand, boundaries: Operand, *, right: bool = False, **_: Any) -> Value:
    return _searchsorted(e, boundaries, x, right=right)


@row(aten.embedding.default)
def _embedding(e: Elements, weight: Operand, index: Operand, *_: Any) -> Value:
    return _index(e, weight, [index])


@row(aten.gather.default)
def _gather(e: Elements, x: Operand, dim: int, index: Operand, **_: Any) -> Value:
    value = as_value(e, x)
    if not isinstance(index, Value):
        return value.moved(value.ids.gather(dim, index))
    if value.ids.ndim == 0:
        return value
    dim %= value.ids.ndim
    others = tuple(slice(0, n) for d, n in enumerate(index.shape) if d != dim)
    corner: Any = (slice(None), *others)
    known = e.order_of(index.moved(index.ids.movedim(dim, -1)))
    if known is not None and value.shape == (*index.shape[:dim], known[0].size, *index.shape[dim + 1 :]):
        ordered = in_order(e, value.moved(value.ids.movedim(dim, -1)), known[0])
        return ordered.moved(ordered.ids[..., known[1]].movedim(-1, dim))
    moved = value.ids.movedim(dim, 0)[corner].unsqueeze(1)
    chosen = _choose(e, value.moved(moved), index.moved(index.ids.movedim(dim, 0)))
    return chosen.moved(chosen.ids.movedim(0, dim))


@row(aten.cat.default)
def _cat(e: Elements, parts: Sequence[Operand], dim: int = 0) -> Value:
    kind = promoted(*parts)
    values = [as_value(e, part, kind) for part in parts]
    values = [v for v in values if not (v.ids.ndim == 1 and v.ids.numel() == 0)] or values[:1]
    return Value(torch.cat([v.ids for v in values], dim), kind)


@row(aten.stack.default)
def _stack(e: Elements, parts: Sequence[Operand], dim: int = 0) -> Value:
    kind = promoted(*parts)
    return Value(torch.stack([as_value(e, part, kind).ids for part in parts], dim), kind)


@row(aten.constant_pad_nd.default)
def _pad(e: Elements, x: Operand, pad: Sequence[int], value: float = 0) -> Value:
    inner = as_value(e, x)
    fill = int(e.literal(torch.tensor(float(value)), inner.kind).ids)
    return inner.moved(aten.constant_pad_nd.default(inner.ids, list(pad), fill))


def _triangle_row(keep: Callable[..., Tensor]) -> Row:
    def row(e: Elements, x: Operand, diagonal: int = 0) -> Value:
        value = as_value(e, x)
        zero = int(e.literal(torch.tensor(0.0), value.kind).ids)
        return value.moved(torch.where(keep(torch.ones(value.shape), diagonal) != 0, value.ids, zero))

    return row


ROWS[aten.tril.default], ROWS[aten.triu.default] = _triangle_row(torch.tril), _triangle_row(torch.triu)
