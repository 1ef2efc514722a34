"""Algebra on what has just been asked for: cheaper operations with the same value, or a more accurate one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from compiled_ebm.backends.fused.program import Kind

if TYPE_CHECKING:
    from compiled_ebm.backends.fused.elements import Elements, Value

__all__ = ["rewritten", "rewritten_reduction"]

_EXP_IS_FINITE = 88.0
"""Up to here exp does not overflow in float32."""


def rewritten(e: Elements, op: str, args: tuple[Value, ...]) -> Value | None:
    """The same elements otherwise, or None."""
    if op == "mul":
        return _scaled_twice(e, *args)
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


def _scaled_twice(e: Elements, left: Value, right: Value) -> Value | None:
    """a (b x) = (a b) x, where a or b is a power of two, so that nothing is rounded otherwise."""
    for outer, inner in ((left, right), (right, left)):
        a = e.literal_values(outer.ids)
        made = None if a is None else e.producer(inner)
        if a is None or made is None or made[0] != "mul":
            continue
        for first, x in (made[1], made[1][::-1]):
            b = e.literal_values(first.ids)
            if b is None:
                continue
            product = a * b
            exact = (np.abs(np.frexp(a)[0]) == 0.5) | (np.abs(np.frexp(b)[0]) == 0.5)
            if not exact.all() or not (np.abs(product) > 1e-30).all() or not (np.abs(product) < 1e30).all():
                return None
            return e.pointwise("mul", Kind.REAL, e.literal(torch.from_numpy(product).reshape(inner.shape)), x)
    return None


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
