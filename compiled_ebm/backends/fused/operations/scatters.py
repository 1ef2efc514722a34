"""Elements written by index."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from compiled_ebm.backends.fused.elements import Elements, Value
from compiled_ebm.backends.fused.operations.choices import where
from compiled_ebm.backends.fused.operations.sorts import out_of_order
from compiled_ebm.backends.fused.operations.table import ROWS, Operand, Row, Unsupported, as_value, promoted, row
from compiled_ebm.backends.fused.program import Kind

__all__: list[str] = []

aten: Any = torch.ops.aten
prims: Any = torch.ops.prims

_MOST_SCATTERED = 1024
"""Elements written times places that each may go to: each costs a comparison and a selection."""


def _written(write: Callable[..., Tensor]) -> Row:
    """Part of a tensor replaced by another: on element numbers, the operation itself."""

    def row(e: Elements, x: Operand, source: Operand, *args: Any, **kwargs: Any) -> Value:
        kind = promoted(x, source)
        return Value(write(as_value(e, x, kind).ids, as_value(e, source, kind).ids, *args, **kwargs), kind)

    return row


for _packet in (aten.slice_scatter, aten.select_scatter, aten.diagonal_scatter, aten.as_strided_scatter):
    ROWS[_packet.default] = _written(_packet.default)


@row(aten.index_put.default, aten._unsafe_index_put.default)
def _index_put(e: Elements, x: Operand, indices: Sequence[Operand], source: Operand, accumulate: bool = False) -> Value:
    if any(isinstance(i, Value) for i in indices):
        raise Unsupported("a scatter whose indices depend on the chain")
    kind = promoted(x, source)
    into, what = as_value(e, x, kind), as_value(e, source, kind)
    places = torch.arange(into.ids.numel()).reshape(into.shape)[tuple(slice(None) if i is None else i for i in indices)]
    return _scattered(e, into, places, what.moved(what.ids.expand(places.shape)), "sum" if accumulate else None)


@row(aten.scatter.src, aten.scatter.value)
def _scatter(e: Elements, x: Operand, dim: int, index: Operand, source: Operand) -> Value:
    return _scatter_along(e, x, dim, index, source, None)


@row(aten.scatter_add.default)
def _scatter_add(e: Elements, x: Operand, dim: int, index: Operand, source: Operand) -> Value:
    return _scatter_along(e, x, dim, index, source, "sum")


def _scatter_along(e: Elements, x: Operand, dim: int, index: Operand, source: Operand, op: str | None) -> Value:
    kind = promoted(x, source)
    into, what = as_value(e, x, kind), as_value(e, source, kind)
    if isinstance(index, Value):
        return _dynamic_scatter(e, into, dim, index, what, op is not None)
    places = torch.arange(into.ids.numel()).reshape(into.shape)
    corner = tuple(slice(None) if d == dim % into.ids.ndim else slice(0, n) for d, n in enumerate(index.shape))
    places = places[corner].gather(dim, index)
    part = what.ids if what.ids.ndim == 0 else what.ids[tuple(slice(0, n) for n in index.shape)]
    return _scattered(e, into, places, what.moved(part.expand(places.shape)), op)


def _dynamic_scatter(e: Elements, into: Value, dim: int, index: Value, what: Value, accumulate: bool) -> Value:
    """Along one dimension, for indices that differ between chains: the gradient of a gather."""
    dim %= into.ids.ndim
    if any(n != m for d, (n, m) in enumerate(zip(into.shape, index.shape, strict=True)) if d != dim):
        raise Unsupported("a scatter into part of a tensor whose indices depend on the chain")
    spread, places = what.ids.expand(index.shape).movedim(dim, -1), index.moved(index.ids.movedim(dim, -1))
    old, known = into.moved(into.ids.movedim(dim, -1)), e.order_of(places)
    if known is not None and known[0].size == old.shape[-1] and e.is_literal(old, 0.0):
        order, chosen = known
        ids = old.ids.clone()
        ids[..., chosen] = spread
        return into.moved(out_of_order(e, into.moved(ids), order).ids.movedim(-1, dim))
    if into.shape[dim] * index.shape[dim] > _MOST_SCATTERED:
        raise Unsupported("a scatter whose indices depend on the chain, of so many elements")
    add = {Kind.REAL: "add", Kind.INT: "iadd", Kind.MASK: "mor"}[into.kind]
    every = e.literal(torch.arange(old.shape[-1], dtype=torch.float64), Kind.INT)
    for k in range(places.shape[-1]):
        here = e.pointwise("ieq", Kind.MASK, places.moved(places.ids[..., k : k + 1]), every)
        new = what.moved(spread[..., k : k + 1])
        old = where(e, here, e.pointwise(add, into.kind, old, new) if accumulate else new, old)
    return into.moved(old.ids.movedim(-1, dim))


@row(aten.scatter_reduce.two)
def _scatter_reduce(
    e: Elements, x: Operand, dim: int, index: Operand, source: Operand, reduce: str, *, include_self: bool = True
) -> Value:
    op = {"sum": "sum", "prod": "prod", "amax": "max", "amin": "min"}.get(reduce)
    if op is None or not include_self or isinstance(index, Value):
        raise Unsupported(f"{reduce}, an index that depends on the chain, or include_self=False")
    return _scatter_along(e, x, dim, index, source, op)


@row(aten.index_add.default)
def _index_add(e: Elements, x: Operand, dim: int, index: Operand, source: Operand, *, alpha: complex = 1) -> Value:
    if isinstance(index, Value):
        raise Unsupported("an index that depends on the chain")
    kind = promoted(x, source)
    into, what = as_value(e, x, kind), as_value(e, source, kind)
    if alpha != 1:
        what = e.pointwise("mul" if kind is Kind.REAL else "imul", kind, what, as_value(e, alpha, kind))
    places = torch.arange(into.ids.numel()).reshape(into.shape).index_select(dim, index)
    return _scattered(e, into, places, what, "sum")


def _scattered(e: Elements, into: Value, places: Tensor, what: Value, op: str | None) -> Value:
    """``what`` at ``places``, flat indices: in the place of what is there, or combined with it by a reduction."""
    flat_places, flat = places.reshape(-1), what.ids.reshape(-1)
    result = into.ids.reshape(-1).clone()
    if op is None:
        last = {place: i for i, place in enumerate(flat_places.tolist())}
        result[torch.tensor(list(last), dtype=torch.int64)] = flat[torch.tensor(list(last.values()), dtype=torch.int64)]
        return into.moved(result.reshape(into.shape))
    counts = torch.bincount(flat_places, minlength=result.numel())
    order = torch.argsort(flat_places, stable=True)
    starts = torch.cumsum(counts, 0) - counts
    for count in sorted(
        set(counts.tolist())
    ):  # those of as many terms together: a row has no room for neutral elements
        if count:
            touched = (counts == count).nonzero().reshape(-1)
            terms = flat[order[starts[touched].unsqueeze(1) + torch.arange(count)]]
            rows = torch.cat([result[touched].unsqueeze(1), terms], 1)
            result[touched] = e.reduce(op, into.kind, into.moved(rows)).ids
    return into.moved(result.reshape(into.shape))
