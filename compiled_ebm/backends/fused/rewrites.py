"""Algebra on what has just been asked for: cheaper operations with the same value, or a more accurate one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from compiled_ebm.backends.fused.program import Kind, distinct

if TYPE_CHECKING:
    from compiled_ebm.backends.fused.elements import Elements, Value

__all__ = ["rewritten", "rewritten_reduction"]

_EXP_IS_FINITE = 88.0
"""Up to here exp does not overflow in float32."""


def rewritten(e: Elements, op: str, args: tuple[Value, ...]) -> Value | None:
    """The same elements otherwise, or None."""
    if op == "mul":
        return _gathered_factors(e, *args)
    if op in ("add", "sub"):
        return _without_negation(e, op, *args)
    if op == "rsel":
        return _softplus(e, *args)
    if op == "mnot":
        made = e.producer(args[0])
        return made[1][0] if made is not None and made[0] == "mnot" else None
    if op == "log1p":
        return _log1p_of_unit(e, *args)
    return None


def rewritten_reduction(e: Elements, op: str, rows: Value) -> Value | None:
    """``any`` or ``all`` over the last dimension otherwise, or None.

    That all x are finite is one multiply-add a term: the sum of 0 x is NaN if one is not, and 0 else.
    """
    made = e.producer(rows)
    if made is None:
        return None
    if op == "any" and made[0] == "mnot":
        return e.pointwise("mnot", Kind.MASK, e.reduce("all", Kind.MASK, made[1][0]))
    if op == "all" and made[0] == "isfinite":
        zero = e.literal(0.0)
        return e.pointwise(
            "req", Kind.MASK, e.reduce("sum", Kind.REAL, e.pointwise("mul", Kind.REAL, made[1][0], zero)), zero
        )
    return None


def _gathered_factors(e: Elements, left: Value, right: Value) -> Value | None:
    """a (b x) = (a b) x and (a x) (b y) = (a b x) y, with a and b known before the launch, one of them a number."""
    for outer, inner in ((left, right), (right, left)):
        scaled = _scaled(e, inner)
        if scaled is not None and e.is_constant(outer):
            both = _product(e, outer, scaled[0])
            return None if both is None else e.pointwise("mul", Kind.REAL, both, scaled[1])
    first, second = _scaled(e, left), _scaled(e, right)
    both = None if first is None or second is None else _product(e, first[0], second[0])
    if first is None or second is None or both is None:
        return None
    few, many = sorted((first[1], second[1]), key=lambda x: distinct(x.ids.numpy()).size)
    return e.pointwise("mul", Kind.REAL, e.pointwise("mul", Kind.REAL, both, few), many)


def _scaled(e: Elements, value: Value) -> tuple[Value, Value] | None:
    """(a, x) where the value is a x or, with a = -1, -x, and not known before the launch."""
    made = e.producer(value)
    if made is None or made[0] not in ("mul", "neg") or e.is_constant(value):
        return None
    if made[0] == "neg":
        return e.literal(torch.full(value.shape, -1.0, dtype=torch.float64)), made[1][0]
    return next(((a, x) for a, x in (made[1], made[1][::-1]) if e.is_constant(a)), None)


def _product(e: Elements, left: Value, right: Value) -> Value | None:
    """Of two known factors, one of them a number, no number large or small; no more of them than there were."""
    a, b = e.literal_values(left.ids), e.literal_values(right.ids)
    if a is not None and b is not None:
        plain = (_is_plain(a) & _is_plain(b)).all()
        return e.literal(torch.from_numpy(a * b).reshape(left.shape)) if plain else None
    number = a if a is not None else b
    if number is None or not _is_plain(number).all():
        return None
    pairs = np.stack([left.ids.reshape(-1).numpy(), right.ids.reshape(-1).numpy()])
    if len(set(map(tuple, pairs.T.tolist()))) > max(distinct(ids).size for ids in pairs):
        return None
    return e.pointwise("mul", Kind.REAL, left, right)


def _is_plain(numbers: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Where a product with something takes it neither out of the range of reals nor near its end."""
    return (np.abs(numbers) > 1e-4) & (np.abs(numbers) < 1e4)


def _without_negation(e: Elements, op: str, left: Value, right: Value) -> Value | None:
    """a + (-b) = a - b, (-a) + b = b - a, a - (-b) = a + b."""
    made = e.producer(right)
    if made is not None and made[0] == "neg":
        return e.pointwise("sub" if op == "add" else "add", Kind.REAL, left, made[1][0])
    made = e.producer(left)
    if op == "add" and made is not None and made[0] == "neg":
        return e.pointwise("sub", Kind.REAL, right, made[1][0])
    return None


def _softplus(e: Elements, mask: Value, far: Value, near: Value) -> Value | None:
    """Where x is at most a threshold: log1p(exp x) = softplus(x), and g exp x / (exp x + 1) = g sigmoid(x)."""
    tested, made = e.producer(mask), e.producer(near)
    if tested is None or made is None or tested[0] != "rgt" or made[0] not in ("log1p", "div", "mul"):
        return None
    x, limit = tested[1]
    threshold = e.literal_values(limit.ids)
    if threshold is None or not (threshold <= _EXP_IS_FINITE).all() or mask.shape != near.shape:
        return None
    if made[0] == "log1p":
        found = e.pointwise("softplus", Kind.REAL, x) if _is_exp(e, made[1][0], x) else None
    else:
        found = _times_sigmoid(e, x, near)
    return None if found is None else e.pointwise("rsel", Kind.REAL, mask, far, found)


def _times_sigmoid(e: Elements, x: Value, value: Value) -> Value | None:
    op, (top, below) = e.producer(value) or ("", (value, value))
    if op != "div" or not _is_exp_plus_one(e, below, x):
        return None
    sigmoid = e.pointwise("sigmoid", Kind.REAL, x)
    if _is_exp(e, top, x):
        return sigmoid
    made = e.producer(top)
    if made is not None and made[0] == "mul":
        for power, factor in (made[1], made[1][::-1]):
            if _is_exp(e, power, x):
                return e.pointwise("mul", Kind.REAL, factor, sigmoid)
    return None


def _is_exp(e: Elements, value: Value, x: Value) -> bool:
    made = e.producer(value)
    return made is not None and made[0] == "exp" and torch.equal(made[1][0].ids.reshape(-1), x.ids.reshape(-1))


def _is_exp_plus_one(e: Elements, value: Value, x: Value) -> bool:
    made = e.producer(value)
    if made is None or made[0] != "add":
        return False
    return any(_is_exp(e, a, x) and e.is_literal(b, 1.0) for a, b in (made[1], made[1][::-1]))


def _log1p_of_unit(e: Elements, value: Value) -> Value | None:
    """log1p(exp(-|x|)): the argument lies in [0, 1]."""
    for op in ("exp", "neg", "abs"):
        made = e.producer(value)
        if made is None or made[0] != op:
            return None
        if op == "exp":
            argument = value
        value = made[1][0]
    return e.pointwise("log1p_unit", Kind.REAL, argument)
