"""Reductions, softmax, running sums, extremes and their places."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from compiled_ebm.backends.fused.elements import Elements, Value
from compiled_ebm.backends.fused.operations.table import ROWS, Operand, Row, Unsupported, as_value, real, row
from compiled_ebm.backends.fused.program import Kind

__all__ = ["reduction", "rows_of", "variance_of", "variance_row"]

aten: Any = torch.ops.aten

_MOST_PLACES = 128
"""Elements among which the place of an extreme is looked for: each costs a comparison and two selections."""
prims: Any = torch.ops.prims


def rows_of(value: Value, dims: Sequence[int] | int | None, keepdim: bool) -> tuple[Value, Callable[[Value], Value]]:
    """The reduced dimensions last and flat, and what puts the result into shape."""
    ndim = value.ids.ndim
    given = [dims] if isinstance(dims, int) else list(dims or ())
    chosen = sorted({d % max(ndim, 1) for d in given}) if given else list(range(ndim))
    kept = [d for d in range(ndim) if d not in chosen]
    shape = [1 if d in chosen else value.shape[d] for d in range(ndim)] if keepdim else [value.shape[d] for d in kept]
    ids = value.ids.permute(*kept, *chosen) if ndim else value.ids
    ids = ids.reshape(*[value.shape[d] for d in kept], -1)
    return value.moved(ids), lambda result: result.moved(result.ids.reshape(shape))


def reduction(op: str, *, mask: bool = False) -> Row:
    def row(e: Elements, x: Operand, dim: Any = None, keepdim: bool = False, **_: Any) -> Value:
        value = as_value(e, x, Kind.MASK) if mask else as_value(e, x)
        if value.kind is Kind.MASK and not mask:
            value = e.cast(value, Kind.INT)
        rows, shaped = rows_of(value, dim, keepdim)
        return shaped(e.reduce(op, value.kind, rows))

    return row


for _name, _op, _mask_result in (
    ("sum", "sum", False),
    ("prod", "prod", False),
    ("amax", "max", False),
    ("amin", "min", False),
    ("any", "any", True),
    ("all", "all", True),
):
    for _overload in ("default", "dim", "dims", "dim_int", "dim_IntList"):
        if _overload in getattr(aten, _name).overloads():
            ROWS[getattr(getattr(aten, _name), _overload)] = reduction(_op, mask=_mask_result)


ROWS[aten.max.default] = reduction("max")
ROWS[aten.min.default] = reduction("min")


@row(aten.mean.default, aten.mean.dim)
def _mean(e: Elements, x: Operand, dim: Any = None, keepdim: bool = False, **_: Any) -> Value:
    rows, shaped = rows_of(real(e, x), dim, keepdim)
    total = e.reduce("sum", Kind.REAL, rows)
    return shaped(e.pointwise("mul", Kind.REAL, total, real(e, 1.0 / rows.shape[-1])))


@row(aten.var.correction)
def variance_row(
    e: Elements, x: Operand, dim: Any = None, *, correction: float | None = 1, keepdim: bool = False
) -> Value:
    rows, shaped = rows_of(real(e, x), dim, keepdim)
    return shaped(variance_of(e, rows, 1 if correction is None else correction)[0])


@row(aten.var_mean.correction)
def _var_mean(
    e: Elements, x: Operand, dim: Any = None, *, correction: float | None = 1, keepdim: bool = False
) -> tuple[Value, Value]:
    rows, shaped = rows_of(real(e, x), dim, keepdim)
    variance, mean = variance_of(e, rows, 1 if correction is None else correction)
    return shaped(variance), shaped(mean)


def variance_of(e: Elements, rows: Value, correction: float) -> tuple[Value, Value]:
    n = rows.shape[-1]
    mean = e.pointwise("mul", Kind.REAL, e.reduce("sum", Kind.REAL, rows), real(e, 1.0 / n))
    apart = e.pointwise("sub", Kind.REAL, rows, mean.moved(mean.ids.unsqueeze(-1)))
    squares = e.reduce("sum", Kind.REAL, e.pointwise("mul", Kind.REAL, apart, apart))
    return e.pointwise("div", Kind.REAL, squares, real(e, float(max(n - correction, 0.0)))), mean


@row(aten._softmax.default)
def _softmax(e: Elements, x: Operand, dim: int, half_to_float: bool) -> Value:
    exponentials, total = _exponentials(e, real(e, x), dim)[:2]
    return e.pointwise("div", Kind.REAL, exponentials, total)


@row(aten._log_softmax.default)
def _log_softmax(e: Elements, x: Operand, dim: int, half_to_float: bool) -> Value:
    _, total, shifted = _exponentials(e, real(e, x), dim)
    return e.pointwise("sub", Kind.REAL, shifted, e.pointwise("log", Kind.REAL, total))


def _exponentials(e: Elements, value: Value, dim: int) -> tuple[Value, Value, Value]:
    """exp(x - max x), its sum, and x - max x."""
    rows, shaped = rows_of(value, dim, True)
    shifted = e.pointwise("sub", Kind.REAL, value, shaped(e.reduce("max", Kind.REAL, rows)))
    exponentials = e.pointwise("exp", Kind.REAL, shifted)
    rows, shaped = rows_of(exponentials, dim, True)
    return exponentials, shaped(e.reduce("sum", Kind.REAL, rows)), shifted


@row(aten.cumsum.default)
def _cumsum(e: Elements, x: Operand, dim: int, **_: Any) -> Value:
    value = as_value(e, x)
    if value.ids.ndim == 0:
        return value
    value = value if value.kind is Kind.REAL else e.cast(value, Kind.INT)
    op = "add" if value.kind is Kind.REAL else "iadd"
    total, sums = None, []
    for part in value.ids.unbind(dim):
        term = value.moved(part)
        total = term if total is None else e.pointwise(op, value.kind, total, term)
        sums.append(total.ids)
    return value if not sums else value.moved(torch.stack(sums, dim))


@row(aten.logcumsumexp.default)
def _logcumsumexp(e: Elements, x: Operand, dim: int) -> Value:
    value = real(e, x)
    if value.ids.ndim == 0:
        return value
    parts = [value.moved(part) for part in value.ids.unbind(dim)]
    sums = parts[:1]
    for part in parts[1:]:
        before = sums[-1]
        largest = e.pointwise("max", Kind.REAL, before, part)
        apart = e.pointwise("abs", Kind.REAL, e.pointwise("sub", Kind.REAL, before, part))
        rest = e.pointwise("exp", Kind.REAL, e.pointwise("neg", Kind.REAL, apart))
        total = e.pointwise("add", Kind.REAL, largest, e.pointwise("log1p", Kind.REAL, rest))
        # of equal infinities the difference is no number
        equal = e.pointwise("req", Kind.MASK, before, part)
        infinite = e.pointwise("mand", Kind.MASK, equal, e.pointwise("isinf", Kind.MASK, largest))
        sums.append(e.pointwise("rsel", Kind.REAL, infinite, largest, total))
    return value.moved(torch.stack([s.ids for s in sums], dim)) if sums else value


def _extreme(largest: bool) -> Callable[[Elements, Value], tuple[Value, Value]]:
    """The largest (smallest) of each row, and where it is; the first of equals, NaN before all."""

    def choose(e: Elements, rows: Value) -> tuple[Value, Value]:
        if rows.shape[-1] > _MOST_PLACES:
            raise Unsupported(f"the place of an extreme among {rows.shape[-1]} elements, more than {_MOST_PLACES}")
        if rows.kind is Kind.MASK:
            best, where = choose(e, e.cast(rows, Kind.INT))
            return e.cast(best, Kind.MASK), where
        prefix = "i" if rows.kind is Kind.INT else "r"
        best, where = rows.moved(rows.ids[..., 0]), e.literal(torch.zeros(rows.shape[:-1]), Kind.INT)
        for k in range(1, rows.shape[-1]):
            new = rows.moved(rows.ids[..., k])
            better = e.pointwise(prefix + ("gt" if largest else "lt"), Kind.MASK, new, best)
            if rows.kind is Kind.REAL:
                is_nan, was_nan = (e.pointwise("isnan", Kind.MASK, v) for v in (new, best))
                better = e.pointwise("mor", Kind.MASK, better, is_nan)
                better = e.pointwise("mand", Kind.MASK, better, e.pointwise("mnot", Kind.MASK, was_nan))
            best = e.pointwise("isel" if prefix == "i" else "rsel", rows.kind, better, new, best)
            where = e.pointwise("isel", Kind.INT, better, as_value(e, k, Kind.INT), where)
        return best, where

    return choose


def _arg(largest: bool) -> Row:
    def row(e: Elements, x: Operand, dim: int | None = None, keepdim: bool = False) -> Value:
        rows, shaped = rows_of(as_value(e, x), dim, keepdim)
        return shaped(_extreme(largest)(e, rows)[1])

    return row


def _with_place(largest: bool) -> Row:
    def row(e: Elements, x: Operand, dim: int, keepdim: bool = False) -> tuple[Value, Value]:
        rows, shaped = rows_of(as_value(e, x), dim, keepdim)
        best, where = _extreme(largest)(e, rows)
        return shaped(best), shaped(where)

    return row


ROWS[aten.argmax.default], ROWS[aten.argmin.default] = _arg(True), _arg(False)
ROWS[aten.max.dim], ROWS[aten.min.dim] = _with_place(True), _with_place(False)
