"""Interval arithmetic in float64: between which bounds an operation's result lies, exactly evaluated.

Bounds are arrays ``[ends, cases, elements]``, the lower ends first; known numbers have one end, ``[1, 1, elements]``.
What is not shown to be finite has NaN or a bound too large for its precision at one end at least. A rule may take its
operands to be finite: whoever applies it looks at all of them in the end. Rounding is the caller's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = [
    "ANY_INT",
    "DOUBLE",
    "RULES",
    "SIDES",
    "SINGLE",
    "Bounds",
    "Precision",
    "Rule",
    "around",
    "flushed",
    "rounded",
    "where",
    "wrapped",
]

Bounds = NDArray[np.float64]


@dataclass(frozen=True)
class Precision:
    """What a width of reals allows.

    Args:
        limit: Numbers up to here are finite, partial results between them included.
        small: Numbers above it are far from those that are flushed to zero.
        rounding: Relative error of an operation, with room to spare.
        unit: Relative error of one more term in a sum.
        product: Relative error of a product of matrices; in float32 its factors may have been rounded to TF32.
    """

    limit: float
    small: float
    rounding: float
    unit: float
    product: float


SINGLE = Precision(limit=1e37, small=1e-30, rounding=2e-5, unit=2.5e-7, product=2.5e-3)
DOUBLE = Precision(limit=1e300, small=1e-290, rounding=1e-11, unit=4.5e-16, product=1e-11)


@dataclass(frozen=True)
class Rule:
    """Bounds of a result from those of the operands; ``rounds`` if the result is rounded."""

    bounds: Callable[..., Bounds]
    rounds: bool = True


SIDES = np.array([-1.0, 1.0])[:, None, None]
"""Signs of the outward direction."""
ANY_INT = 2.0**63
"""No integer is larger."""
_LEAST_LGAMMA = -0.1215
_TINY = 1e-30
"""Nothing smaller is divided by, nor its logarithm taken."""
_LARGEST_QUOTIENT = 1e30
_EXACT_INT = 2.0**53


def rounded(bounds: Bounds, precision: Precision) -> Bounds:
    """Of a result that is rounded once, as of a product and of the sum that it is fused into."""
    return bounds + np.abs(bounds) * (precision.rounding * SIDES)


def flushed(bounds: Bounds, precision: Precision) -> Bounds:
    """Numbers that are so small may be 0, and those that should be 0 as large as that."""
    low, high, small = bounds[0], bounds[-1], precision.small
    low = np.where(np.abs(low) < small, np.where(low < 0, -small, 0.0), low)
    return np.stack([low, np.where(np.abs(high) < small, np.where(high > 0, small, 0.0), high)])


def _between(low: Bounds, high: Bounds) -> Bounds:
    bounds = np.empty((2, *(low.shape if low.shape == high.shape else np.broadcast(low, high).shape)))
    bounds[0], bounds[1] = low, high
    return bounds


def around(a: Bounds, sides: Bounds = SIDES) -> Bounds:
    """[-a, a]; nothing is known where ``a`` is NaN."""
    return a * sides


def _size(a: Bounds) -> Bounds:
    """The largest absolute value."""
    size: Bounds = np.abs(a).max(0)
    return size


def _least(a: Bounds) -> Bounds:
    """The least absolute value."""
    least: Bounds = np.maximum(np.maximum(a[0], -a[-1]), 0.0)
    return least


def where(shown: NDArray[np.bool_], bounds: Bounds) -> Bounds:
    return np.where(shown, bounds, np.nan)


# -- arithmetic --------------------------------------------------------------------------------------------------------


def _sub(a: Bounds, b: Bounds) -> Bounds:
    return a - b[::-1]


def _mul(a: Bounds, b: Bounds) -> Bounds:
    p = a * b
    if len(a) == 1 or len(b) == 1:
        return _between(np.minimum(p[0], p[-1]), np.maximum(p[0], p[-1]))
    q = a * b[::-1]
    low, high = np.minimum(p, q), np.maximum(p, q)
    return _between(np.minimum(low[0], low[1]), np.maximum(high[0], high[1]))


def _square(a: Bounds, _: Bounds) -> Bounds:
    return _between(_least(a) ** 2, _size(a) ** 2)


def _away_from_zero(a: Bounds) -> Bounds:
    return where((a[0] >= _TINY) | (a[-1] <= -_TINY), a)


def _positive(a: Bounds) -> Bounds:
    return where(a[0] >= _TINY, a)


def _div(a: Bounds, b: Bounds) -> Bounds:
    return _mul(a, 1.0 / _away_from_zero(b)[::-1])


def _abs(a: Bounds) -> Bounds:
    return _between(_least(a), _size(a))


def _pow(a: Bounds, b: Bounds) -> Bounds:
    """By the logarithm where the base is positive; else only with a known exponent that allows zero."""
    general = np.exp(_mul(b, np.log(_positive(a))))
    if len(b) == 2:
        return general
    power, size = b[0], _size(a)
    whole = (np.trunc(power) == power) & (power >= 0) & (power < _EXACT_INT)
    top = np.where(power >= 0, size**power, np.nan)
    by_size = np.where(whole, np.where(power % 2 == 0, 0.0, -top), np.where(a[0] >= 0, 0.0, np.nan))
    return np.where(a[0] >= _TINY, general, _between(by_size, top))


def _hypot(a: Bounds, b: Bounds) -> Bounds:
    return _between(np.hypot(_least(a), _least(b)), np.hypot(_size(a), _size(b)))


def _rest(a: Bounds, b: Bounds) -> Bounds:
    """Of a division whose quotient is finite: smaller than the divisor."""
    quotient = _size(a) / _least(_away_from_zero(b))
    return around(where(quotient < _LARGEST_QUOTIENT, _size(b) + 0.0 * quotient))


# -- functions ---------------------------------------------------------------------------------------------------------


def _bounded(limit: float) -> Callable[..., Bounds]:
    """Of any finite arguments within [-limit, limit]."""

    def rule(*args: Bounds) -> Bounds:
        return around(sum((0.0 * _size(a) for a in args), np.array([[limit]])))

    return rule


def _torch(function: Callable[[Tensor], Tensor]) -> Callable[[Bounds], Bounds]:
    """A function that numpy has not."""

    def rule(a: Bounds) -> Bounds:
        result: Bounds = function(torch.from_numpy(np.ascontiguousarray(a))).numpy()
        return result

    return rule


def _falling(function: Callable[[Bounds], Bounds]) -> Callable[[Bounds], Bounds]:
    return lambda a: function(a[::-1])


def _near_one(function: Callable[[Bounds], Bounds]) -> Callable[[Bounds], Bounds]:
    """A logarithm: beside its zero approximations are good to what is small beside 1."""
    return lambda a: function(_positive(a)) + 1e-6 * SIDES


def _log1p(a: Bounds) -> Bounds:
    return np.log1p(where(a[0] > -1 + 1e-6, a))


def _log1p_unit(a: Bounds) -> Bounds:
    return np.log1p(where((a[0] >= 0) & (a[-1] <= 1.1), a))


def _softplus(a: Bounds) -> Bounds:
    return np.maximum(a, 0.0) + np.log1p(np.exp(-np.abs(a)))


def _sigmoid(a: Bounds) -> Bounds:
    return 1.0 / (1.0 + np.exp(-a))


def _cosh(a: Bounds) -> Bounds:
    return _between(np.cosh(_least(a)), np.cosh(_size(a)))


def _lgamma(a: Bounds) -> Bounds:
    ends = _torch(torch.lgamma)(_positive(a))
    return _between(_LEAST_LGAMMA + 0.0 * ends[0], ends.max(0)) + 1e-6 * SIDES


def _digamma(a: Bounds) -> Bounds:
    return _torch(torch.digamma)(_positive(a)) + 1e-6 * SIDES


# -- masks: 0 and 1 ----------------------------------------------------------------------------------------------------


def _mask(surely: object, possibly: object) -> Bounds:
    return np.array([surely, possibly], dtype=np.float64)


def _lt(a: Bounds, b: Bounds) -> Bounds:
    return _mask(a[-1] < b[0], a[0] < b[-1])


def _le(a: Bounds, b: Bounds) -> Bounds:
    return _mask(a[-1] <= b[0], a[0] <= b[-1])


def _eq(a: Bounds, b: Bounds) -> Bounds:
    return _mask((a[0] == a[-1]) & (b[0] == b[-1]) & (a[0] == b[0]), (a[0] <= b[-1]) & (b[0] <= a[-1]))


def _not(a: Bounds) -> Bounds:
    return 1.0 - a[::-1]


def _xor(a: Bounds, b: Bounds) -> Bounds:
    return _abs(_sub(a, b))


def _isfinite(a: Bounds) -> Bounds:
    finite = np.isfinite(a).all(0)
    return _mask(finite, finite)


def _isinf(a: Bounds) -> Bounds:
    return _mask(np.isinf(a[0]) & (a[0] == a[-1]), np.isinf(a).any(0))


def _isnan(a: Bounds) -> Bounds:
    nan = np.isnan(a).any(0)
    return _mask(nan, nan)


def _select(mask: Bounds, a: Bounds, b: Bounds) -> Bounds:
    """Either, unless the mask is decided."""
    result = _between(np.minimum(a[0], b[0]), np.maximum(a[-1], b[-1]))
    yes, no = mask[0] == 1.0, mask[-1] == 0.0
    result = np.where(yes, a, result) if yes.any() else result
    return np.where(no, b, result) if no.any() else result


# -- integers ----------------------------------------------------------------------------------------------------------


def wrapped(bounds: Bounds) -> Bounds:
    """Of integers: nothing is known of those that float64 may not hold, and they wrap."""
    return np.where(np.abs(bounds).max(0) < _EXACT_INT, bounds, ANY_INT * SIDES)


def _integer(rule: Callable[..., Bounds]) -> Rule:
    return Rule(lambda *args: wrapped(rule(*args)), rounds=False)


def _anything(low: float, high: float) -> Rule:
    """Whatever the operands are."""
    ends = np.array([low, high])[:, None, None]
    return Rule(lambda *args: np.broadcast_to(ends, np.broadcast_shapes(ends.shape, *(a.shape for a in args))), False)


# -- what stands under a condition -------------------------------------------------------------------------------------


def _at_most(a: Bounds, b: Bounds) -> Bounds:
    bounds: Bounds = np.minimum(a, b[-1])
    return bounds


def _at_least(a: Bounds, b: Bounds) -> Bounds:
    bounds: Bounds = np.maximum(a, b[0])
    return bounds


RULES: dict[str, Rule] = {
    "add": Rule(np.add),
    "sub": Rule(_sub),
    "mul": Rule(_mul),
    "square": Rule(_square),
    "div": Rule(_div),
    "neg": Rule(lambda a: -a[::-1], rounds=False),
    "abs": Rule(_abs, rounds=False),
    **{name: Rule(np.maximum, rounds=False) for name in ("max", "fmax", "mor")},
    **{name: Rule(np.minimum, rounds=False) for name in ("min", "fmin", "mand")},
    "pow": Rule(_pow),
    "hypot": Rule(_hypot),
    "fmod": Rule(_rest),
    "remainder": Rule(_rest),
    "copysign": Rule(lambda a, b: around(_size(a) + 0.0 * _size(b)), rounds=False),
    "atan2": Rule(_bounded(np.pi)),
    "sin": Rule(_bounded(1.0)),
    "cos": Rule(_bounded(1.0)),
    "exp": Rule(np.exp),
    "exp2": Rule(np.exp2),
    "expm1": Rule(np.expm1),
    "log": Rule(_near_one(np.log)),
    "log2": Rule(_near_one(np.log2)),
    "log10": Rule(_near_one(np.log10)),
    "log1p": Rule(_log1p),
    "log1p_unit": Rule(_log1p_unit),
    "softplus": Rule(_softplus),
    "sigmoid": Rule(_sigmoid),
    "sqrt": Rule(np.sqrt),
    "rsqrt": Rule(lambda a: 1.0 / np.sqrt(_positive(a)[::-1])),
    "asin": Rule(np.arcsin),
    "acos": Rule(_falling(np.arccos)),
    "atan": Rule(np.arctan),
    "sinh": Rule(np.sinh),
    "cosh": Rule(_cosh),
    "tanh": Rule(np.tanh),
    "asinh": Rule(np.arcsinh),
    "acosh": Rule(np.arccosh),
    "atanh": Rule(np.arctanh),
    "erf": Rule(_torch(torch.erf)),
    "erfc": Rule(_falling(_torch(torch.erfc))),
    "erfcx": Rule(_falling(_torch(torch.special.erfcx))),
    "lgamma": Rule(_lgamma),
    "digamma": Rule(_digamma),
    "floor": Rule(np.floor, rounds=False),
    "ceil": Rule(np.ceil, rounds=False),
    "trunc": Rule(np.trunc, rounds=False),
    "round": Rule(np.round, rounds=False),
    "sign": Rule(np.sign, rounds=False),
    "isfinite": Rule(_isfinite, rounds=False),
    "isinf": Rule(_isinf, rounds=False),
    "isnan": Rule(_isnan, rounds=False),
    **{f"{kind}lt": Rule(_lt, rounds=False) for kind in "ri"},
    **{f"{kind}le": Rule(_le, rounds=False) for kind in "ri"},
    **{f"{kind}gt": Rule(lambda a, b: _lt(b, a), rounds=False) for kind in "ri"},
    **{f"{kind}ge": Rule(lambda a, b: _le(b, a), rounds=False) for kind in "ri"},
    **{f"{kind}eq": Rule(_eq, rounds=False) for kind in "ri"},
    **{f"{kind}ne": Rule(lambda a, b: _not(_eq(a, b)), rounds=False) for kind in "ri"},
    "mnot": Rule(_not, rounds=False),
    "mxor": Rule(_xor, rounds=False),
    **{f"{kind}sel": Rule(_select, rounds=False) for kind in "rim"},
    "iadd": _integer(np.add),
    "isub": _integer(_sub),
    "imul": _integer(_mul),
    "ineg": _integer(lambda a: -a[::-1]),
    "iabs": _integer(_abs),
    "imax": _integer(np.maximum),
    "imin": _integer(np.minimum),
    **{name: _anything(-ANY_INT, ANY_INT) for name in "iand ior ixor inot idiv_floor idiv_trunc imod_floor".split()},
    "m_to_r": Rule(lambda a: a, rounds=False),
    "m_to_i": Rule(lambda a: a, rounds=False),
    "i_to_r": Rule(lambda a: a),
    "i_to_m": _anything(0.0, 1.0),
    "r_to_i": _integer(np.trunc),
    "r_to_m": _anything(0.0, 1.0),
    "at_most": Rule(_at_most),
    "at_least": Rule(_at_least),
}
"""What is known of each pointwise operation; ``square`` is a product of an element with itself, ``at_most`` and
``at_least`` are the first operand where it has been compared with the second."""
