"""Sorting, and what comes of it: the k largest, medians, running extremes.

A row is sorted by a network: pairs of places, each put in order, the same for all chains. The masks that say which
pairs were exchanged stand for the order itself: what another row is in that order, or a row back from it, takes two
selections a pair, where an index that differs between chains would take one for each place it may point to.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from compiled_ebm.backends.fused.elements import Elements, Order, Value
from compiled_ebm.backends.fused.operations.choices import where
from compiled_ebm.backends.fused.operations.table import ROWS, Operand, Row, Unsupported, as_value, row
from compiled_ebm.backends.fused.program import Kind

__all__ = ["in_order", "out_of_order"]

aten: Any = torch.ops.aten

_MOST_SORTED = 64
"""Elements of a row: 543 pairs, each a dozen operations."""


@functools.cache
def _network(n: int) -> tuple[tuple[NDArray[np.int64], NDArray[np.int64]], ...]:
    """Batcher's odd-even merge sort of ``n`` places: layers of pairs (lower, upper) that do not touch one another."""
    layers = []
    p = 1
    while p < n:
        k = p
        while k >= 1:
            lower = [
                i + j
                for j in range(k % p, n - k, 2 * k)
                for i in range(min(k, n - j - k))
                if (i + j) // (2 * p) == (i + j + k) // (2 * p)
            ]
            if lower:
                first = np.array(lower, dtype=np.int64)
                layers.append((first, first + k))
            k //= 2
        p *= 2
    return tuple(layers)


def _sorted(e: Elements, rows: Value, descending: bool) -> tuple[Value, Value, Order]:
    """Rows in order along the last dimension, the place that each element had, and the order; stable, NaN greatest."""
    n = rows.shape[-1]
    if n > _MOST_SORTED:
        raise Unsupported(f"a sort of {n} elements, more than {_MOST_SORTED}")
    if rows.kind is Kind.MASK:
        ordered, places, order = _sorted(e, e.cast(rows, Kind.INT), descending)
        return e.cast(ordered, Kind.MASK), places, order
    values, places = rows, e.literal(torch.arange(n, dtype=torch.float64).expand(rows.shape), Kind.REAL)
    swaps = []
    for lower, upper in _network(n):
        a, b = (values.moved(values.ids[..., k]) for k in (lower, upper))
        before, after = (places.moved(places.ids[..., k]) for k in (lower, upper))
        swap = _wrong(e, a, b, descending)
        equal = e.pointwise("req" if rows.kind is Kind.REAL else "ieq", Kind.MASK, a, b)
        late = e.pointwise("mand", Kind.MASK, equal, e.pointwise("rgt", Kind.MASK, before, after))
        swap = e.pointwise("mor", Kind.MASK, swap, late)
        values, places = (_exchanged(e, v, lower, upper, swap) for v in (values, places))
        swaps.append(swap)
    return values, e.cast(places, Kind.INT), Order(tuple(swaps), n)


def _wrong(e: Elements, a: Value, b: Value, descending: bool) -> Value:
    """Whether ``b`` belongs before ``a``."""
    if a.kind is Kind.INT:
        return e.pointwise("ilt" if descending else "igt", Kind.MASK, a, b)
    right = e.pointwise("rge" if descending else "rle", Kind.MASK, a, b)
    number = a if descending else b
    return e.pointwise(
        "mand", Kind.MASK, e.pointwise("mnot", Kind.MASK, right), e.pointwise("req", Kind.MASK, number, number)
    )


def _exchanged(e: Elements, rows: Value, lower: NDArray[np.int64], upper: NDArray[np.int64], swap: Value) -> Value:
    """The elements at ``lower`` and ``upper`` exchanged where ``swap`` says so."""
    ids = rows.ids.clone()
    a, b = rows.moved(rows.ids[..., lower]), rows.moved(rows.ids[..., upper])
    ids[..., lower], ids[..., upper] = where(e, swap, b, a).ids, where(e, swap, a, b).ids
    return rows.moved(ids)


def in_order(e: Elements, rows: Value, order: Order) -> Value:
    """Rows as the order puts them, along the last dimension."""
    for (lower, upper), swap in zip(_network(order.size), order.swaps, strict=True):
        rows = _exchanged(e, rows, lower, upper, swap)
    return rows


def out_of_order(e: Elements, rows: Value, order: Order) -> Value:
    """The inverse of :func:`in_order`."""
    for (lower, upper), swap in zip(_network(order.size)[::-1], order.swaps[::-1], strict=True):
        rows = _exchanged(e, rows, lower, upper, swap)
    return rows


def _sort_along(
    e: Elements, x: Operand, dim: int, descending: bool, chosen: slice = slice(None)
) -> tuple[Value, Value]:
    """The elements at ``chosen`` of the sorted rows, and where they stood."""
    value = as_value(e, x)
    if value.ids.ndim == 0:
        return value, e.literal(torch.zeros(()), Kind.INT)
    ordered, places, order = _sorted(e, value.moved(value.ids.movedim(dim, -1)), descending)
    ordered, places = ordered.moved(ordered.ids[..., chosen]), places.moved(places.ids[..., chosen])
    e.keep_order(places, order, chosen)
    return ordered.moved(ordered.ids.movedim(-1, dim)), places.moved(places.ids.movedim(-1, dim))


@row(aten.sort.default)
def _sort(e: Elements, x: Operand, dim: int = -1, descending: bool = False) -> tuple[Value, Value]:
    return _sort_along(e, x, dim, descending)


@row(aten.sort.stable)
def _sort_stably(
    e: Elements, x: Operand, *, stable: bool | None, dim: int = -1, descending: bool = False
) -> tuple[Value, Value]:
    return _sort_along(e, x, dim, descending)


@row(aten.topk.default)
def _topk(
    e: Elements, x: Operand, k: int, dim: int = -1, largest: bool = True, sorted: bool = True
) -> tuple[Value, Value]:
    return _sort_along(e, x, dim, largest, slice(0, k))


@row(aten.kthvalue.default)
def _kthvalue(e: Elements, x: Operand, k: int, dim: int = -1, keepdim: bool = False) -> tuple[Value, Value]:
    value, place = _sort_along(e, x, dim, False, slice(k - 1, k))
    if keepdim or value.ids.ndim == 0:
        return value, place
    return value.moved(value.ids.squeeze(dim)), place.moved(place.ids.squeeze(dim))


@row(aten.median.dim)
def _median(e: Elements, x: Operand, dim: int, keepdim: bool = False) -> tuple[Value, Value]:
    """The lower of two middle elements; NaN if any is."""
    value = as_value(e, x)
    n = value.shape[dim] if value.ids.ndim else 1
    middle, place = _kthvalue(e, value, (n + 1) // 2, dim, keepdim)
    if value.kind is Kind.REAL and value.ids.ndim:
        last = _kthvalue(e, value, n, dim, keepdim)[0]
        middle = where(e, e.pointwise("isnan", Kind.MASK, last), last, middle)
    return middle, place


@row(aten.median.default)
def _median_of_all(e: Elements, x: Operand) -> Value:
    value = as_value(e, x)
    return _median(e, value.moved(value.ids.reshape(-1)), 0)[0]


def _running(largest: bool) -> Row:
    """The last of equals, and NaN from the first on."""

    def row(e: Elements, x: Operand, dim: int) -> tuple[Value, Value]:
        value = as_value(e, x)
        if value.kind is Kind.MASK:
            raise Unsupported("of booleans")
        if value.ids.ndim == 0:
            return value, e.literal(torch.zeros(()), Kind.INT)
        letter = "r" if value.kind is Kind.REAL else "i"
        parts = [value.moved(part) for part in value.ids.unbind(dim)]
        best, place = parts[0], e.literal(torch.zeros(parts[0].shape), Kind.INT)
        bests, places = [best.ids], [place.ids]
        for k, part in enumerate(parts[1:], 1):
            better = e.pointwise(letter + ("ge" if largest else "le"), Kind.MASK, part, best)
            if value.kind is Kind.REAL:
                better = e.pointwise("mor", Kind.MASK, better, e.pointwise("isnan", Kind.MASK, part))
            best = where(e, better, part, best)
            place = where(e, better, as_value(e, k, Kind.INT), place)
            bests.append(best.ids)
            places.append(place.ids)
        return value.moved(torch.stack(bests, dim)), place.moved(torch.stack(places, dim))

    return row


ROWS[aten.cummax.default], ROWS[aten.cummin.default] = _running(True), _running(False)
