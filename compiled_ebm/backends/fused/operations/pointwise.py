"""Arithmetic and functions of one element at a time."""

from __future__ import annotations

import math
from typing import Any

import torch

from compiled_ebm.backends.fused.elements import Elements, Value
from compiled_ebm.backends.fused.operations.table import ROWS, Operand, Row, Unsupported, as_value, promoted, real, row
from compiled_ebm.backends.fused.program import Kind

__all__ = ["div", "div_mode", "power"]

aten: Any = torch.ops.aten
prims: Any = torch.ops.prims


_UNARY = (
    "exp exp2 expm1 log log2 log10 log1p sqrt rsqrt sin cos tan asin acos atan sinh cosh tanh asinh acosh atanh "
    "erf erfc erfinv sigmoid lgamma digamma"
).split()


def _unary(op: str) -> Row:
    return lambda e, x, **_: e.pointwise(op, Kind.REAL, real(e, x))


for _name in _UNARY:
    ROWS[getattr(aten, _name).default] = _unary(_name)
ROWS[prims.erf_inv.default] = _unary("erfinv")
for _name in ("erfcx", "ndtri"):
    ROWS[getattr(aten, f"special_{_name}").default] = ROWS[getattr(prims, _name).default] = _unary(_name)


@row(aten.polygamma.default)
def _polygamma(e: Elements, order: int, x: Operand) -> Value:
    if order > 1:
        raise Unsupported(f"of order {order}")
    return e.pointwise("trigamma" if order else "digamma", Kind.REAL, real(e, x))


@row(aten.exp.default)
def _exp(e: Elements, x: Operand) -> Value:
    """The gradient of logsumexp is exp(x - (m + log S)), with exp(x - m) and S at hand: their quotient."""
    value = real(e, x)
    outer = e.producer(value)
    inner = e.producer(outer[1][1]) if outer is not None and outer[0] == "sub" else None
    if outer is not None and inner is not None and inner[0] == "add":
        for log, shift in (inner[1], inner[1][::-1]):
            total = e.producer(log)
            if total is None or total[0] != "log":
                continue
            known = len(e.nodes)
            shifted = e.pointwise("exp", Kind.REAL, e.pointwise("sub", Kind.REAL, outer[1][0], shift))
            if len(e.nodes) == known:
                return e.pointwise("div", Kind.REAL, shifted, total[1][0])
    return e.pointwise("exp", Kind.REAL, value)


def _rounding(op: str) -> Row:
    """Integers stay what they are."""

    def row(e: Elements, x: Operand, **_: Any) -> Value:
        value = as_value(e, x)
        return e.pointwise(op, Kind.REAL, value) if value.kind is Kind.REAL else value

    return row


for _name in ("floor", "ceil", "trunc", "round"):
    ROWS[getattr(aten, _name).default] = _rounding(_name)


@row(aten.sign.default)
def _sign(e: Elements, x: Operand) -> Value:
    value = as_value(e, x)
    if value.kind is Kind.REAL:
        return e.pointwise("sign", Kind.REAL, value)
    number, one = e.cast(value, Kind.INT), as_value(e, 1, Kind.INT)
    return e.pointwise("imax", Kind.INT, e.pointwise("imin", Kind.INT, number, one), as_value(e, -1, Kind.INT))


ROWS[aten.reciprocal.default] = lambda e, x: e.pointwise("div", Kind.REAL, real(e, 1.0), real(e, x))


def _arithmetic(real: str, integer: str | None, mask: str | None = None) -> Row:
    """A binary operation in the lanes that its operands promote to."""

    def row(e: Elements, a: Operand, b: Operand, *, alpha: complex = 1, **_: Any) -> Value:
        kind = promoted(a, b)
        if kind is Kind.MASK and mask is not None:
            left, right = as_value(e, a, kind), as_value(e, b, kind)
            return (_finite(e, left, right) if mask == "mand" else None) or e.pointwise(mask, kind, left, right)
        if kind is Kind.REAL or integer is None:
            kind, op = Kind.REAL, real
        else:
            kind, op = Kind.INT, integer
        second = as_value(e, b, kind)
        if alpha != 1:
            second = e.pointwise("mul" if kind is Kind.REAL else "imul", kind, second, as_value(e, alpha, kind))
        return e.pointwise(op, kind, as_value(e, a, kind), second)

    return row


def _finite(e: Elements, a: Value, b: Value) -> Value | None:
    """``(x == x) & (|x| != inf)``, to which isfinite is decomposed, as one comparison."""
    for equal, unequal in ((e.producer(a), e.producer(b)), (e.producer(b), e.producer(a))):
        if equal is None or unequal is None or equal[0] != "req" or unequal[0] != "rne" or a.shape != b.shape:
            continue
        x, size = equal[1][0], e.producer(unequal[1][0])
        if size is None or size[0] != "abs" or not e.is_literal(unequal[1][1], math.inf):
            continue
        if torch.equal(x.ids, equal[1][1].ids) and torch.equal(x.ids, size[1][0].ids):
            return e.pointwise("isfinite", Kind.MASK, x)
    return None


for _name, _arithmetic_row in {
    "add": _arithmetic("add", "iadd", "mor"),
    "sub": _arithmetic("sub", "isub"),
    "mul": _arithmetic("mul", "imul", "mand"),
    "maximum": _arithmetic("max", "imax", "mor"),
    "minimum": _arithmetic("min", "imin", "mand"),
    "fmax": _arithmetic("fmax", "imax"),
    "fmin": _arithmetic("fmin", "imin"),
    "atan2": _arithmetic("atan2", None),
    "fmod": _arithmetic("fmod", None),
    "remainder": _arithmetic("remainder", "imod_floor"),
    "hypot": _arithmetic("hypot", None),
    "copysign": _arithmetic("copysign", None),
}.items():
    for _overload in getattr(aten, _name).overloads():
        if _overload in ("Tensor", "Scalar", "default"):
            ROWS[getattr(getattr(aten, _name), _overload)] = _arithmetic_row


@row(aten.div.Tensor, aten.div.Scalar, aten.true_divide.Tensor)
def div(e: Elements, a: Operand, b: Operand) -> Value:
    numbers = None if isinstance(b, Value) else torch.as_tensor(b, dtype=torch.float64)
    if numbers is not None and numbers.numel() and bool((torch.frexp(numbers)[0].abs() == 0.5).all()):
        return e.pointwise("mul", Kind.REAL, real(e, a), real(e, 1.0 / numbers))  # exact
    return e.pointwise("div", Kind.REAL, real(e, a), real(e, b))


@row(aten.div.Tensor_mode, aten.div.Scalar_mode)
def div_mode(e: Elements, a: Operand, b: Operand, *, rounding_mode: str | None) -> Value:
    kind = promoted(a, b)
    if kind is not Kind.REAL and rounding_mode is not None:
        return e.pointwise(f"idiv_{rounding_mode}", Kind.INT, as_value(e, a, Kind.INT), as_value(e, b, Kind.INT))
    quotient = e.pointwise("div", Kind.REAL, real(e, a), real(e, b))
    return quotient if rounding_mode is None else e.pointwise(rounding_mode, Kind.REAL, quotient)


@row(aten.neg.default)
def _neg(e: Elements, x: Operand) -> Value:
    value = as_value(e, x)
    return e.pointwise("neg", Kind.REAL, value) if value.kind is Kind.REAL else e.pointwise("ineg", Kind.INT, value)


@row(aten.abs.default)
def _abs(e: Elements, x: Operand) -> Value:
    value = as_value(e, x)
    return e.pointwise("abs", Kind.REAL, value) if value.kind is Kind.REAL else e.pointwise("iabs", Kind.INT, value)


@row(aten.square.default)
def _square(e: Elements, x: Operand) -> Value:
    return power(e, x, 2)


@row(aten.pow.Tensor_Scalar)
def power(e: Elements, x: Operand, exponent: float) -> Value:
    value = as_value(e, x)
    if value.kind is not Kind.REAL and isinstance(exponent, int) and exponent >= 0:
        value = e.cast(value, Kind.INT)
        return _repeated(e, "imul", Kind.INT, value, exponent)
    value = real(e, x)
    if exponent == 0.5:
        return e.pointwise("sqrt", Kind.REAL, value)
    if exponent == -0.5:
        return e.pointwise("rsqrt", Kind.REAL, value)
    if float(exponent).is_integer() and 0 <= abs(exponent) <= 8:
        power = _repeated(e, "mul", Kind.REAL, value, int(abs(exponent)))
        return power if exponent >= 0 else e.pointwise("div", Kind.REAL, real(e, 1.0), power)
    return e.pointwise("pow", Kind.REAL, value, real(e, float(exponent)))


def _repeated(e: Elements, op: str, kind: Kind, base: Value, exponent: int) -> Value:
    result: Value | None = None
    while exponent:
        if exponent & 1:
            result = base if result is None else e.pointwise(op, kind, result, base)
        exponent >>= 1
        if exponent:
            base = e.pointwise(op, kind, base, base)
    return e.literal(torch.ones(base.shape, dtype=torch.float64), kind) if result is None else result


@row(aten.pow.Tensor_Tensor, aten.pow.Scalar)
def _pow(e: Elements, x: Operand, exponent: Operand) -> Value:
    power = e.pointwise("pow", Kind.REAL, real(e, x), real(e, exponent))
    return power if promoted(x, exponent) is Kind.REAL else e.cast(power, Kind.INT)
