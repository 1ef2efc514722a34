"""ATen operations as operations on elements: one row each. What is not here, and has no decomposition, is not fused."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

from compiled_ebm.backends.fused.elements import Elements, Value, kind_of
from compiled_ebm.backends.fused.program import Kind

__all__ = ["MOVES", "ROWS", "Operand", "Row", "Unsupported", "as_value", "row"]

Operand = Any
"""A :class:`Value`, a tensor that the trace knows, or a Python value."""
Row = Callable[..., Any]

aten: Any = torch.ops.aten
prims: Any = torch.ops.prims

_MOST_CHOICES = 128
"""Elements that an index which differs between chains can choose from: each costs a selection."""


class Unsupported(Exception):
    """An operation, or a form of it, that has no row."""


MOVES = {
    getattr(getattr(aten, name), overload)
    for name, overloads in {
        "view": ("default",),
        "reshape": ("default",),
        "_unsafe_view": ("default",),
        "_reshape_alias": ("default",),
        "expand": ("default",),
        "permute": ("default",),
        "transpose": ("int",),
        "t": ("default",),
        "squeeze": ("default", "dim", "dims"),
        "unsqueeze": ("default",),
        "slice": ("Tensor",),
        "select": ("int",),
        "flip": ("default",),
        "roll": ("default",),
        "unbind": ("int",),
        "split": ("Tensor",),
        "split_with_sizes": ("default",),
        "clone": ("default",),
        "alias": ("default",),
        "detach": ("default",),
        "lift_fresh_copy": ("default",),
        "repeat": ("default",),
        "diagonal": ("default",),
        "unfold": ("default",),
        "as_strided": ("default",),
        "narrow": ("default",),
        "movedim": ("int", "intlist"),
        "index_select": ("default",),
    }.items()
    for overload in overloads
}
"""Applied to the element numbers as they are."""

ROWS: dict[Any, Row] = {}


_F = TypeVar("_F", bound=Row)


def row(*targets: Any) -> Callable[[_F], _F]:
    """Register a function as the row of these operations."""

    def register(function: _F) -> _F:
        for target in targets:
            ROWS[target] = function
        return function

    return register


def as_value(e: Elements, x: Operand, kind: Kind | None = None) -> Value:
    """``x`` as elements, cast to ``kind`` if one is given."""
    if not isinstance(x, Value):
        if isinstance(x, Tensor):
            own = kind_of(x.dtype)
        else:
            own = Kind.MASK if isinstance(x, bool) else Kind.INT if isinstance(x, int) else Kind.REAL
        if kind is not None and kind is not Kind.MASK:
            own = kind
        x = e.literal(x, own)
    return x if kind is None else e.cast(x, kind)


def _real(e: Elements, x: Operand) -> Value:
    return as_value(e, x, Kind.REAL)


# -- pointwise ---------------------------------------------------------------------------------------------------------

_UNARY = (
    "exp exp2 expm1 log log2 log10 log1p sqrt rsqrt sin cos tan asin acos atan sinh cosh tanh asinh acosh atanh "
    "erf erfc sigmoid floor ceil trunc round sign lgamma digamma"
).split()


def _unary(op: str) -> Row:
    return lambda e, x, **_: e.pointwise(op, Kind.REAL, _real(e, x))


for _name in _UNARY:
    ROWS[getattr(aten, _name).default] = _unary(_name)
ROWS[aten.reciprocal.default] = lambda e, x: e.pointwise("div", Kind.REAL, _real(e, 1.0), _real(e, x))


def _arithmetic(real: str, integer: str | None, mask: str | None = None) -> Row:
    """A binary operation in the lanes that its operands promote to."""

    def row(e: Elements, a: Operand, b: Operand, *, alpha: complex = 1, **_: Any) -> Value:
        kind = _promoted(a, b)
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


def _promoted(*operands: Operand) -> Kind:
    kinds = []
    for x in operands:
        if isinstance(x, Value):
            kinds.append(x.kind)
        elif isinstance(x, Tensor):
            kinds.append(kind_of(x.dtype))
        else:
            kinds.append(Kind.MASK if isinstance(x, bool) else Kind.INT if isinstance(x, int) else Kind.REAL)
    return next(kind for kind in (Kind.REAL, Kind.INT, Kind.MASK) if kind in kinds)


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
def _div(e: Elements, a: Operand, b: Operand) -> Value:
    numbers = None if isinstance(b, Value) else torch.as_tensor(b, dtype=torch.float64)
    if numbers is not None and numbers.numel() and bool((torch.frexp(numbers)[0].abs() == 0.5).all()):
        return e.pointwise("mul", Kind.REAL, _real(e, a), _real(e, 1.0 / numbers))  # exact
    return e.pointwise("div", Kind.REAL, _real(e, a), _real(e, b))


@row(aten.div.Tensor_mode, aten.div.Scalar_mode)
def _div_mode(e: Elements, a: Operand, b: Operand, *, rounding_mode: str | None) -> Value:
    kind = _promoted(a, b)
    if kind is not Kind.REAL and rounding_mode is not None:
        return e.pointwise(f"idiv_{rounding_mode}", Kind.INT, as_value(e, a, Kind.INT), as_value(e, b, Kind.INT))
    quotient = e.pointwise("div", Kind.REAL, _real(e, a), _real(e, b))
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
    return _power(e, x, 2)


@row(aten.pow.Tensor_Scalar)
def _power(e: Elements, x: Operand, exponent: float) -> Value:
    value = as_value(e, x)
    if value.kind is not Kind.REAL and isinstance(exponent, int) and exponent >= 0:
        value = e.cast(value, Kind.INT)
        return _repeated(e, "imul", Kind.INT, value, exponent)
    value = _real(e, x)
    if exponent == 0.5:
        return e.pointwise("sqrt", Kind.REAL, value)
    if exponent == -0.5:
        return e.pointwise("rsqrt", Kind.REAL, value)
    if float(exponent).is_integer() and 0 <= abs(exponent) <= 8:
        power = _repeated(e, "mul", Kind.REAL, value, int(abs(exponent)))
        return power if exponent >= 0 else e.pointwise("div", Kind.REAL, _real(e, 1.0), power)
    return e.pointwise("pow", Kind.REAL, value, _real(e, float(exponent)))


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
    return e.pointwise("pow", Kind.REAL, _real(e, x), _real(e, exponent))


def _comparison(name: str) -> Row:
    def row(e: Elements, a: Operand, b: Operand) -> Value:
        kind = _promoted(a, b)
        if kind is Kind.MASK:
            kind = Kind.INT
        return e.pointwise(f"{kind.value.lower()}{name}", Kind.MASK, as_value(e, a, kind), as_value(e, b, kind))

    return row


for _name in ("eq", "ne", "lt", "le", "gt", "ge"):
    for _overload in ("Tensor", "Scalar"):
        ROWS[getattr(getattr(aten, _name), _overload)] = _comparison(_name)


def _logic(mask: str, integer: str) -> Row:
    def row(e: Elements, a: Operand, b: Operand) -> Value:
        if _promoted(a, b) is Kind.INT:
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
    return e.pointwise("isnan", Kind.MASK, _real(e, x))


@row(aten.isinf.default)
def _isinf(e: Elements, x: Operand) -> Value:
    return e.pointwise("isinf", Kind.MASK, _real(e, x))


@row(aten.isfinite.default)
def _isfinite(e: Elements, x: Operand) -> Value:
    return e.pointwise("isfinite", Kind.MASK, _real(e, x))


@row(aten.where.self, aten.where.ScalarOther, aten.where.ScalarSelf, aten.where.Scalar)
def _where(e: Elements, condition: Operand, a: Operand, b: Operand) -> Value:
    kind = _promoted(a, b)
    op = {Kind.REAL: "rsel", Kind.INT: "isel", Kind.MASK: "msel"}[kind]
    return e.pointwise(op, kind, as_value(e, condition, Kind.MASK), as_value(e, a, kind), as_value(e, b, kind))


@row(aten.masked_fill.Scalar, aten.masked_fill.Tensor)
def _masked_fill(e: Elements, x: Operand, mask: Operand, value: Operand) -> Value:
    return _where(e, mask, as_value(e, value, as_value(e, x).kind), x)


@row(aten.clamp.default, aten.clamp.Tensor)
def _clamp(e: Elements, x: Operand, low: Operand = None, high: Operand = None) -> Value:
    value = as_value(e, x)
    kind = value.kind if value.kind is not Kind.MASK else Kind.INT
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


@row(aten.softplus.default)
def _softplus(e: Elements, x: Operand, beta: float = 1.0, threshold: float = 20.0) -> Value:
    value = _real(e, x)
    scaled = e.pointwise("mul", Kind.REAL, value, _real(e, float(beta)))
    soft = e.pointwise("softplus", Kind.REAL, scaled)
    soft = e.pointwise("mul", Kind.REAL, soft, _real(e, 1.0 / beta))
    linear = e.pointwise("rgt", Kind.MASK, scaled, _real(e, float(threshold)))
    return e.pointwise("rsel", Kind.REAL, linear, value, soft)


@row(aten.elu.default)
def _elu(e: Elements, x: Operand, alpha: float = 1.0, scale: float = 1.0, input_scale: float = 1.0) -> Value:
    value = _real(e, x)
    inner = e.pointwise("mul", Kind.REAL, value, _real(e, float(input_scale)))
    negative = e.pointwise("expm1", Kind.REAL, inner)
    negative = e.pointwise("mul", Kind.REAL, negative, _real(e, alpha * scale))
    positive = e.pointwise("mul", Kind.REAL, value, _real(e, float(scale)))
    return e.pointwise("rsel", Kind.REAL, e.pointwise("rgt", Kind.MASK, value, _real(e, 0.0)), positive, negative)


@row(aten.hardshrink_backward.default, aten.softshrink_backward.default)
def _shrink_backward(e: Elements, grad: Operand, x: Operand, limit: float) -> Value:
    value = _real(e, x)
    low, high = _comparison("ge")(e, value, -float(limit)), _comparison("le")(e, value, float(limit))
    return _where(e, e.pointwise("mand", Kind.MASK, low, high), 0.0, _real(e, grad))


@row(prims.signbit.default, aten.signbit.default)
def _signbit(e: Elements, x: Operand) -> Value:
    sign = e.pointwise("copysign", Kind.REAL, _real(e, 1.0), _real(e, x))
    return e.pointwise("rlt", Kind.MASK, sign, _real(e, 0.0))


@row(aten._to_copy.default, prims.convert_element_type.default)
def _to_copy(e: Elements, x: Operand, dtype: torch.dtype | None = None, **_: Any) -> Value:
    value = as_value(e, x)
    return value if dtype is None else e.cast(value, kind_of(dtype))


@row(aten.fill.Scalar, aten.full_like.default)
def _full_like(e: Elements, x: Value, number: complex, **_: Any) -> Value:
    return e.literal(torch.full(x.shape, float(number.real), dtype=torch.float64), x.kind)


ROWS[aten.zeros_like.default] = lambda e, x, **_: _full_like(e, x, 0.0)
ROWS[aten.ones_like.default] = lambda e, x, **_: _full_like(e, x, 1.0)
ROWS[aten.new_zeros.default] = lambda e, x, size, **_: torch.zeros(size)
ROWS[aten.new_ones.default] = lambda e, x, size, **_: torch.ones(size)
ROWS[aten.new_full.default] = lambda e, x, size, fill, **_: torch.full(size, float(fill))
ROWS[aten.empty_like.default] = lambda e, x, **_: torch.zeros(x.shape)


# -- reductions --------------------------------------------------------------------------------------------------------


def _rows(value: Value, dims: Sequence[int] | int | None, keepdim: bool) -> tuple[Value, Callable[[Value], Value]]:
    """The reduced dimensions last and flat, and what puts the result into shape."""
    ndim = value.ids.ndim
    given = [dims] if isinstance(dims, int) else list(dims or ())
    chosen = sorted({d % max(ndim, 1) for d in given}) if given else list(range(ndim))
    kept = [d for d in range(ndim) if d not in chosen]
    shape = [1 if d in chosen else value.shape[d] for d in range(ndim)] if keepdim else [value.shape[d] for d in kept]
    ids = value.ids.permute(*kept, *chosen) if ndim else value.ids
    ids = ids.reshape(*[value.shape[d] for d in kept], -1)
    return value.moved(ids), lambda result: result.moved(result.ids.reshape(shape))


def _reduction(op: str, *, mask: bool = False) -> Row:
    def row(e: Elements, x: Operand, dim: Any = None, keepdim: bool = False, **_: Any) -> Value:
        value = as_value(e, x, Kind.MASK) if mask else as_value(e, x)
        if value.kind is Kind.MASK and not mask:
            value = e.cast(value, Kind.INT)
        rows, shaped = _rows(value, dim, keepdim)
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
            ROWS[getattr(getattr(aten, _name), _overload)] = _reduction(_op, mask=_mask_result)


ROWS[aten.max.default] = _reduction("max")
ROWS[aten.min.default] = _reduction("min")


@row(aten.mean.default, aten.mean.dim)
def _mean(e: Elements, x: Operand, dim: Any = None, keepdim: bool = False, **_: Any) -> Value:
    rows, shaped = _rows(_real(e, x), dim, keepdim)
    total = e.reduce("sum", Kind.REAL, rows)
    return shaped(e.pointwise("mul", Kind.REAL, total, _real(e, 1.0 / rows.shape[-1])))


@row(aten.var.correction)
def _var(e: Elements, x: Operand, dim: Any = None, *, correction: float | None = 1, keepdim: bool = False) -> Value:
    rows, shaped = _rows(_real(e, x), dim, keepdim)
    return shaped(_variance(e, rows, 1 if correction is None else correction)[0])


@row(aten.var_mean.correction)
def _var_mean(
    e: Elements, x: Operand, dim: Any = None, *, correction: float | None = 1, keepdim: bool = False
) -> tuple[Value, Value]:
    rows, shaped = _rows(_real(e, x), dim, keepdim)
    variance, mean = _variance(e, rows, 1 if correction is None else correction)
    return shaped(variance), shaped(mean)


def _variance(e: Elements, rows: Value, correction: float) -> tuple[Value, Value]:
    n = rows.shape[-1]
    mean = e.pointwise("mul", Kind.REAL, e.reduce("sum", Kind.REAL, rows), _real(e, 1.0 / n))
    apart = e.pointwise("sub", Kind.REAL, rows, mean.moved(mean.ids.unsqueeze(-1)))
    squares = e.reduce("sum", Kind.REAL, e.pointwise("mul", Kind.REAL, apart, apart))
    return e.pointwise("div", Kind.REAL, squares, _real(e, float(max(n - correction, 0.0)))), mean


@row(aten._softmax.default)
def _softmax(e: Elements, x: Operand, dim: int, half_to_float: bool) -> Value:
    exponentials, total = _exponentials(e, _real(e, x), dim)[:2]
    return e.pointwise("div", Kind.REAL, exponentials, total)


@row(aten._log_softmax.default)
def _log_softmax(e: Elements, x: Operand, dim: int, half_to_float: bool) -> Value:
    _, total, shifted = _exponentials(e, _real(e, x), dim)
    return e.pointwise("sub", Kind.REAL, shifted, e.pointwise("log", Kind.REAL, total))


def _exponentials(e: Elements, value: Value, dim: int) -> tuple[Value, Value, Value]:
    """exp(x - max x), its sum, and x - max x."""
    rows, shaped = _rows(value, dim, True)
    shifted = e.pointwise("sub", Kind.REAL, value, shaped(e.reduce("max", Kind.REAL, rows)))
    exponentials = e.pointwise("exp", Kind.REAL, shifted)
    rows, shaped = _rows(exponentials, dim, True)
    return exponentials, shaped(e.reduce("sum", Kind.REAL, rows)), shifted


@row(aten.linalg_vector_norm.default)
def _vector_norm(e: Elements, x: Operand, ord: float = 2, dim: Any = None, keepdim: bool = False, **_: Any) -> Value:
    rows, shaped = _rows(_real(e, x), dim, keepdim)
    size = e.pointwise("abs", Kind.REAL, rows)
    if math.isinf(ord):
        return shaped(e.reduce("max" if ord > 0 else "min", Kind.REAL, size))
    if ord == 0:
        return shaped(e.reduce("sum", Kind.REAL, e.cast(_comparison("ne")(e, rows, 0.0), Kind.REAL)))
    return shaped(_power(e, e.reduce("sum", Kind.REAL, _power(e, size if ord % 2 else rows, ord)), 1.0 / ord))


@row(aten._cdist_forward.default)
def _cdist(e: Elements, a: Operand, b: Operand, p: float, compute_mode: int | None = None) -> Value:
    return _vector_norm(e, _apart(e, a, b), p, -1)


@row(aten._cdist_backward.default)
def _cdist_backward(e: Elements, grad: Operand, a: Operand, b: Operand, p: float, distance: Operand) -> Value:
    """With respect to ``a``; 0 where two points coincide."""
    apart = _apart(e, a, b)
    length, given = (v.moved(v.ids.unsqueeze(-1)) for v in (_real(e, distance), _real(e, grad)))
    if p == 2:
        slope = e.pointwise("div", Kind.REAL, apart, length)
        slope = _where(e, _comparison("eq")(e, length, 0.0), 0.0, slope)
    elif p == 1 or math.isinf(p):
        slope = e.pointwise("sign", Kind.REAL, apart)
        if math.isinf(p):
            slope = _where(e, _comparison("eq")(e, e.pointwise("abs", Kind.REAL, apart), length), slope, 0.0)
    else:
        raise Unsupported(f"p={p}")
    rows, shaped = _rows(e.pointwise("mul", Kind.REAL, given, slope), -2, False)
    return shaped(e.reduce("sum", Kind.REAL, rows))


def _apart(e: Elements, a: Operand, b: Operand) -> Value:
    left, right = _real(e, a), _real(e, b)
    return e.pointwise("sub", Kind.REAL, left.moved(left.ids.unsqueeze(-2)), right.moved(right.ids.unsqueeze(-3)))


@row(aten.native_layer_norm.default)
def _layer_norm(
    e: Elements, x: Operand, shape: Sequence[int], weight: Operand, bias: Operand, eps: float
) -> tuple[Value, Value, Value]:
    dims = list(range(-len(shape), 0))
    rows, shaped = _rows(_real(e, x), dims, True)
    variance, mean = _variance(e, rows, 0)
    inverse = e.pointwise("rsqrt", Kind.REAL, e.pointwise("add", Kind.REAL, variance, _real(e, eps)))
    apart = e.pointwise("sub", Kind.REAL, _real(e, x), shaped(mean))
    out = e.pointwise("mul", Kind.REAL, apart, shaped(inverse))
    if weight is not None:
        out = e.pointwise("mul", Kind.REAL, out, _real(e, weight))
    if bias is not None:
        out = e.pointwise("add", Kind.REAL, out, _real(e, bias))
    return out, shaped(mean), shaped(inverse)


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
    value = _real(e, x)
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
        if rows.shape[-1] > _MOST_CHOICES:
            raise Unsupported(f"the place of an extreme among {rows.shape[-1]} elements, more than {_MOST_CHOICES}")
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
        rows, shaped = _rows(as_value(e, x), dim, keepdim)
        return shaped(_extreme(largest)(e, rows)[1])

    return row


def _with_place(largest: bool) -> Row:
    def row(e: Elements, x: Operand, dim: int, keepdim: bool = False) -> tuple[Value, Value]:
        rows, shaped = _rows(as_value(e, x), dim, keepdim)
        best, where = _extreme(largest)(e, rows)
        return shaped(best), shaped(where)

    return row


ROWS[aten.argmax.default], ROWS[aten.argmin.default] = _arg(True), _arg(False)
ROWS[aten.max.dim], ROWS[aten.min.dim] = _with_place(True), _with_place(False)


# -- products ----------------------------------------------------------------------------------------------------------


@row(aten.mm.default)
def _mm(e: Elements, a: Operand, b: Operand) -> Value:
    return e.matmul(_real(e, a), _real(e, b))


@row(aten.addmm.default)
def _addmm(e: Elements, bias: Operand, a: Operand, b: Operand, *, beta: float = 1, alpha: float = 1) -> Value:
    product = _mm(e, a, b)
    if alpha != 1:
        product = e.pointwise("mul", Kind.REAL, product, _real(e, float(alpha)))
    if beta == 0:
        return product
    return e.pointwise("add", Kind.REAL, product, e.pointwise("mul", Kind.REAL, _real(e, bias), _real(e, float(beta))))


@row(aten.mv.default)
def _mv(e: Elements, a: Operand, b: Operand) -> Value:
    vector = _real(e, b)
    product = _mm(e, a, vector.moved(vector.ids.unsqueeze(1)))
    return product.moved(product.ids.squeeze(1))


@row(aten.dot.default)
def _dot(e: Elements, a: Operand, b: Operand) -> Value:
    left, right = _real(e, a), _real(e, b)
    product = _mm(e, left.moved(left.ids.unsqueeze(0)), right.moved(right.ids.unsqueeze(1)))
    return product.moved(product.ids.reshape(()))


@row(aten.bmm.default)
def _bmm(e: Elements, a: Operand, b: Operand) -> Value:
    left, right = _real(e, a), _real(e, b)
    products = [_mm(e, left.moved(x), right.moved(y)).ids for x, y in zip(left.ids, right.ids, strict=True)]
    return left.moved(torch.stack(products))


@row(aten._trilinear.default)
def _trilinear(
    e: Elements,
    a: Operand,
    b: Operand,
    c: Operand,
    expand1: Sequence[int],
    expand2: Sequence[int],
    expand3: Sequence[int],
    sumdim: Sequence[int],
    unroll_dim: int = 1,
) -> Value:
    total: Value | None = None
    for x, dims in ((a, expand1), (b, expand2), (c, expand3)):
        value = _real(e, x)
        for d in dims:
            value = value.moved(value.ids.unsqueeze(d))
        total = value if total is None else e.pointwise("mul", Kind.REAL, total, value)
    assert total is not None
    rows, shaped = _rows(total, list(sumdim), False)
    return shaped(e.reduce("sum", Kind.REAL, rows)) if sumdim else total


# -- gathers and scatters ----------------------------------------------------------------------------------------------


def _choose(e: Elements, options: Value, index: Value) -> Value:
    """``options[index]`` along the first dimension of ``options``, for an index that differs between chains."""
    n = options.shape[0]
    if n > _MOST_CHOICES:
        raise Unsupported(f"an index that depends on the chain into {n} elements, more than {_MOST_CHOICES}")
    op = {Kind.REAL: "rsel", Kind.INT: "isel", Kind.MASK: "msel"}[options.kind]
    index = e.cast(index, Kind.INT)
    result = options.moved(options.ids[0])
    for k in range(1, n):
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
    if len(used) != 1:
        raise Unsupported("several indices that depend on the chain")
    dim = used[0]
    index = indices[dim]
    moved = value.ids.movedim(dim, 0)
    options = value.moved(moved.reshape(moved.shape[0], *(1,) * index.ids.ndim, *moved.shape[1:]))
    spread = index.moved(index.ids.reshape(*index.shape, *(1,) * (value.ids.ndim - 1)))
    chosen = _choose(e, options, spread)
    back = list(range(index.ids.ndim))
    return chosen.moved(chosen.ids.movedim(back, [dim + d for d in back]))


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
    less = _comparison("le" if right or side == "right" else "lt")(e, edges, value)
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
    moved = value.ids.movedim(dim, 0)[corner].unsqueeze(1)
    chosen = _choose(e, value.moved(moved), index.moved(index.ids.movedim(dim, 0)))
    return chosen.moved(chosen.ids.movedim(0, dim))


@row(aten.cat.default)
def _cat(e: Elements, parts: Sequence[Operand], dim: int = 0) -> Value:
    kind = _promoted(*parts)
    values = [as_value(e, part, kind) for part in parts]
    values = [v for v in values if not (v.ids.ndim == 1 and v.ids.numel() == 0)] or values[:1]
    return Value(torch.cat([v.ids for v in values], dim), kind)


@row(aten.stack.default)
def _stack(e: Elements, parts: Sequence[Operand], dim: int = 0) -> Value:
    kind = _promoted(*parts)
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


def _written(write: Callable[..., Tensor]) -> Row:
    """Part of a tensor replaced by another: on element numbers, the operation itself."""

    def row(e: Elements, x: Operand, source: Operand, *args: Any, **kwargs: Any) -> Value:
        kind = _promoted(x, source)
        return Value(write(as_value(e, x, kind).ids, as_value(e, source, kind).ids, *args, **kwargs), kind)

    return row


for _packet in (aten.slice_scatter, aten.select_scatter, aten.diagonal_scatter, aten.as_strided_scatter):
    ROWS[_packet.default] = _written(_packet.default)


@row(aten.index_put.default, aten._unsafe_index_put.default)
def _index_put(e: Elements, x: Operand, indices: Sequence[Operand], source: Operand, accumulate: bool = False) -> Value:
    if any(isinstance(i, Value) for i in indices):
        raise Unsupported("a scatter whose indices depend on the chain")
    kind = _promoted(x, source)
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
    kind = _promoted(x, source)
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
    if into.shape[dim] * index.shape[dim] > _MOST_CHOICES:
        raise Unsupported("a scatter whose indices depend on the chain, of so many elements")
    spread = what.ids.expand(index.shape).movedim(dim, 0)
    places = index.ids.movedim(dim, 0)
    out = list(into.ids.movedim(dim, 0).unbind(0))
    op, add = {Kind.REAL: ("rsel", "add"), Kind.INT: ("isel", "iadd"), Kind.MASK: ("msel", "mor")}[into.kind]
    if any(n != m for d, (n, m) in enumerate(zip(into.shape, index.shape, strict=True)) if d != dim):
        raise Unsupported("a scatter into part of a tensor whose indices depend on the chain")
    for k in range(len(places)):
        for j, old in enumerate(out):
            here = e.pointwise("ieq", Kind.MASK, index.moved(places[k]), as_value(e, j, Kind.INT))
            new = what.moved(spread[k])
            if accumulate:
                new = e.pointwise(add, into.kind, into.moved(old), new)
            out[j] = e.pointwise(op, into.kind, here, new, into.moved(old)).ids
    return into.moved(torch.stack(out).movedim(0, dim))


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
    kind = _promoted(x, source)
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


# -- prims, to which references decompose ------------------------------------------------------------------------------

for _name, _target in {
    **{n: getattr(aten, n).Tensor for n in "add sub mul remainder eq ne lt le gt ge".split()},
    **{n: getattr(aten, n).default for n in "neg abs maximum minimum sign floor ceil trunc round".split()},
    **{n: getattr(aten, n).default for n in "exp expm1 log log1p sqrt rsqrt sin cos tanh isfinite".split()},
    "pow": aten.pow.Tensor_Tensor,
    "where": aten.where.self,
}.items():
    ROWS[getattr(prims, _name).default] = ROWS[_target]
ROWS[prims.div.default] = lambda e, a, b: (
    _div(e, a, b) if _promoted(a, b) is Kind.REAL else _div_mode(e, a, b, rounding_mode="trunc")
)
for _name, _op in (("sum", "sum"), ("prod", "prod"), ("amax", "max"), ("amin", "min")):
    ROWS[getattr(prims, _name).default] = lambda e, x, dims=None, op=_op, **_: _reduction(op)(e, x, dims)


@row(prims.var.default)
def _prims_var(e: Elements, x: Operand, dims: Sequence[int] | None, correction: float | None = 1, **_: Any) -> Value:
    return _var(e, x, dims, correction=correction)


@row(prims.broadcast_in_dim.default)
def _broadcast_in_dim(e: Elements, x: Operand, shape: Sequence[int], dimensions: Sequence[int]) -> Value:
    value = as_value(e, x)
    sizes = [1] * len(shape)
    for size, d in zip(value.shape, dimensions, strict=True):
        sizes[d] = size
    return value.moved(value.ids.reshape(sizes).expand(*shape))
