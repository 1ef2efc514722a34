"""Comparisons, logic, bits, selections."""

from __future__ import annotations

from typing import Any

import torch

from compiled_ebm.backends.fused.elements import Elements, Value
from compiled_ebm.backends.fused.operations.table import ROWS, Operand, Row, Unsupported, as_value, promoted, real, row
from compiled_ebm.backends.fused.program import Kind

__all__ = ["comparison", "where"]

aten: Any = torch.ops.aten
prims: Any = torch.ops.prims


def comparison(name: str) -> Row:
    def row(e: Elements, a: Operand, b: Operand) -> Value:
        kind = promoted(a, b)
        if kind is Kind.MASK:
            kind = Kind.INT
        return e.pointwise(f"{kind.value.lower()}{name}", Kind.MASK, as_value(e, a, kind), as_value(e, b, kind))

    return row


for _name in ("eq", "ne", "lt", "le", "gt", "ge"):
    for _overload in ("Tensor", "Scalar"):
        ROWS[getattr(getattr(aten, _name), _overload)] = comparison(_name)


def _logic(mask: str, integer: str) -> Row:
    def row(e: Elements, a: Operand, b: Operand) -> Value:
        if promoted(a, b) is Kind.INT:
            return e.pointwise(integer, Kind.INT, as_value(e, a, Kind.INT), as_value(e, b, Kind.INT))
        return e.pointwise(mask, Kind.MASK, as_value(e, a, Kind.MASK), as_value(e, b, Kind.MASK))

    return row


for _name, _mask, _integer in (("and", "mand", "iand"), ("or", "mor", "ior"), ("xor", "mxor", "ixor")):
    for _overload in ("Tensor", "Scalar"):
        ROWS[getattr(getattr(aten, f"bitwise_{_name}"), _overload)] = _logic(_mask, _integer)
    ROWS[getattr(aten, f"logical_{_name}").default] = lambda e, a, b, op=_mask: e.pointwise(
        op, Kind.MASK, as_value(e, a, Kind.MASK), as_value(e, b, Kind.MASK)
    )


@row(aten.bitwise_not.default)
def _bitwise_not(e: Elements, x: Operand) -> Value:
    value = as_value(e, x)
    return e.pointwise("inot", Kind.INT, value) if value.kind is Kind.INT else e.pointwise("mnot", Kind.MASK, value)


def _shift(op: str) -> Row:
    """By a number that the trace knows: a product with a power of two, or a quotient rounded down."""

    def row(e: Elements, x: Operand, by: Operand) -> Value:
        if isinstance(by, Value):
            raise Unsupported("a shift by a number that the trace does not know")
        factor = as_value(e, 2 ** torch.as_tensor(by, dtype=torch.int64), Kind.INT)
        return e.pointwise(op, Kind.INT, as_value(e, x, Kind.INT), factor)

    return row


for _name, _op in (("left_shift", "imul"), ("right_shift", "idiv_floor")):
    for _packet in (getattr(aten, f"bitwise_{_name}"), getattr(aten, f"__{_name[0]}shift__")):
        for _overload in ("Tensor", "Scalar", "Tensor_Scalar"):
            if _overload in _packet.overloads():
                ROWS[getattr(_packet, _overload)] = _shift(_op)


@row(aten.logical_not.default)
def _logical_not(e: Elements, x: Operand) -> Value:
    return e.pointwise("mnot", Kind.MASK, as_value(e, x, Kind.MASK))


@row(aten.isnan.default)
def _isnan(e: Elements, x: Operand) -> Value:
    return e.pointwise("isnan", Kind.MASK, real(e, x))


@row(aten.isinf.default)
def _isinf(e: Elements, x: Operand) -> Value:
    return e.pointwise("isinf", Kind.MASK, real(e, x))


@row(aten.isfinite.default)
def _isfinite(e: Elements, x: Operand) -> Value:
    return e.pointwise("isfinite", Kind.MASK, real(e, x))


@row(aten.where.self, aten.where.ScalarOther, aten.where.ScalarSelf, aten.where.Scalar)
def where(e: Elements, condition: Operand, a: Operand, b: Operand) -> Value:
    kind = promoted(a, b)
    op = {Kind.REAL: "rsel", Kind.INT: "isel", Kind.MASK: "msel"}[kind]
    return e.pointwise(op, kind, as_value(e, condition, Kind.MASK), as_value(e, a, kind), as_value(e, b, kind))


@row(aten.masked_fill.Scalar, aten.masked_fill.Tensor)
def _masked_fill(e: Elements, x: Operand, mask: Operand, value: Operand) -> Value:
    return where(e, mask, as_value(e, value, as_value(e, x).kind), x)


@row(aten.clamp.default, aten.clamp.Tensor)
def _clamp(e: Elements, x: Operand, low: Operand = None, high: Operand = None) -> Value:
    value = as_value(e, x)
    kind = promoted(value, *(bound for bound in (low, high) if bound is not None))
    kind = kind if kind is not Kind.MASK else Kind.INT
    prefix = "i" if kind is Kind.INT else ""
    for bound, op in ((low, "max"), (high, "min")):
        if bound is not None:
            value = e.pointwise(prefix + op, kind, e.cast(value, kind), as_value(e, bound, kind))
    return value


@row(aten.relu.default)
def _relu(e: Elements, x: Operand) -> Value:
    return _clamp(e, x, 0.0)


@row(aten.clamp_min.default, aten.clamp_min.Tensor)
def _clamp_min(e: Elements, x: Operand, low: Operand) -> Value:
    return _clamp(e, x, low)


@row(aten.clamp_max.default, aten.clamp_max.Tensor)
def _clamp_max(e: Elements, x: Operand, high: Operand) -> Value:
    return _clamp(e, x, None, high)
