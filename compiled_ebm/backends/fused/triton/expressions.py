"""Pointwise operations in Triton: one row each, in terms of ``functions.py``."""

from __future__ import annotations

import math
from collections.abc import Sequence

from compiled_ebm.backends.fused.program import Kind

__all__ = ["COMBINE", "EXPRESSIONS", "REDUCE", "combined", "dtype", "neutral", "real"]

_COMPARED = {"eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">="}

EXPRESSIONS: dict[str, str] = {
    "add": "{0} + {1}",
    "sub": "{0} - {1}",
    "mul": "{0} * {1}",
    "div": "{0} / {1}",
    "neg": "-{0}",
    **{
        name: f"r_{name}({{0}})"
        for name in (
            "abs exp exp2 expm1 log log2 log10 log1p sqrt rsqrt sin cos tan asin acos atan sinh cosh tanh asinh acosh "
            "atanh erf erfc erfcx erfinv ndtri sigmoid softplus log1p_unit floor ceil trunc round sign lgamma digamma "
            "trigamma"
        ).split()
    },
    **{name: f"r_{name}({{0}}, {{1}})" for name in "max min fmax fmin pow atan2 fmod remainder hypot copysign".split()},
    "isnan": "{0} != {0}",
    "isinf": 'tl.abs({0}) == float("inf")',
    "isfinite": 'tl.abs({0}) < float("inf")',
    **{name: "tl.where({0}, {1}, {2})" for name in ("rsel", "isel", "msel")},
    **{f"{kind}{name}": f"{{0}} {sign} {{1}}" for kind in "ri" for name, sign in _COMPARED.items()},
    "iadd": "{0} + {1}",
    "isub": "{0} - {1}",
    "imul": "{0} * {1}",
    "imax": "tl.maximum({0}, {1})",
    "imin": "tl.minimum({0}, {1})",
    "iand": "{0} & {1}",
    "ior": "{0} | {1}",
    "ixor": "{0} ^ {1}",
    "ineg": "-{0}",
    "iabs": "tl.abs({0})",
    "inot": "~{0}",
    **{name: f"{name}({{0}}, {{1}})" for name in ("idiv_floor", "idiv_trunc", "imod_floor")},
    "mand": "{0} & {1}",
    "mor": "{0} | {1}",
    "mxor": "{0} ^ {1}",
    "mnot": "{0} == 0",
    "m_to_r": "{0}.to(REAL)",
    "m_to_i": "{0}.to(tl.int64)",
    "i_to_r": "{0}.to(REAL)",
    "i_to_m": "{0} != 0",
    "r_to_i": "{0}.to(tl.int64)",
    "r_to_m": "{0} != 0",
}
"""From operation to expression; ``{k}`` is the k-th operand."""

COMBINE = {
    ("sum", Kind.REAL): "{0} + {1}",
    ("prod", Kind.REAL): "{0} * {1}",
    ("max", Kind.REAL): "r_max({0}, {1})",
    ("min", Kind.REAL): "r_min({0}, {1})",
    ("sum", Kind.INT): "{0} + {1}",
    ("prod", Kind.INT): "{0} * {1}",
    ("max", Kind.INT): "tl.maximum({0}, {1})",
    ("min", Kind.INT): "tl.minimum({0}, {1})",
    ("all", Kind.MASK): "{0} & {1}",
    ("any", Kind.MASK): "{0} | {1}",
}
"""How a reduction takes in one more term."""

REDUCE = {
    ("sum", Kind.REAL): "tl.sum({0}, {1})",
    ("prod", Kind.REAL): "tl.reduce({0}, {1}, product_of)",
    ("max", Kind.REAL): "tl.reduce({0}, {1}, max_of)",
    ("min", Kind.REAL): "tl.reduce({0}, {1}, min_of)",
    ("sum", Kind.INT): "tl.sum({0}, {1})",
    ("prod", Kind.INT): "tl.reduce({0}, {1}, product_of)",
    ("max", Kind.INT): "tl.max({0}, {1})",
    ("min", Kind.INT): "tl.min({0}, {1})",
    ("all", Kind.MASK): "(tl.min({0}.to(tl.int32), {1}) != 0)",
    ("any", Kind.MASK): "(tl.max({0}.to(tl.int32), {1}) != 0)",
}
"""A reduction over an axis."""

_NEUTRAL = {
    Kind.REAL: {"sum": "0.0", "prod": "1.0", "max": '-float("inf")', "min": 'float("inf")'},
    Kind.INT: {"sum": "0", "prod": "1", "max": "-0x7FFFFFFFFFFFFFFF", "min": "0x7FFFFFFFFFFFFFFF"},
    Kind.MASK: {"all": "True", "any": "False"},
}


def neutral(op: str, kind: Kind) -> str:
    """What a term that is none counts as."""
    return _NEUTRAL[kind][op]


def combined(op: str, kind: Kind, terms: Sequence[str]) -> str:
    """A reduction of few terms as one expression."""
    total = terms[0]
    for term in terms[1:]:
        total = COMBINE[op, kind].format(f"({total})" if " " in total else total, term)
    return total


def dtype(kind: Kind) -> str:
    """Of the lanes."""
    return {Kind.REAL: "REAL", Kind.INT: "tl.int64", Kind.MASK: "tl.int1"}[kind]


def real(value: float) -> str:
    """The number as Triton takes it."""
    if math.isnan(value):
        return 'float("nan")'
    if math.isinf(value):
        return f'{"-" if value < 0 else ""}float("inf")'
    return repr(value)
