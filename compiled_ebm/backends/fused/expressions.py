"""Pointwise operations in C++: one row each, in terms of ``lanes.h``."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from importlib import resources

from compiled_ebm.backends.fused.program import Kind

__all__ = ["COMBINE", "EXPRESSIONS", "combined", "lanes_header", "literal", "real", "start"]

EXPRESSIONS: dict[str, str] = {
    "add": "{0} + {1}",
    "sub": "{0} - {1}",
    "mul": "{0} * {1}",
    "div": "{0} / {1}",
    "neg": "r_neg({0})",
    **{
        name: f"r_{name}({{0}})"
        for name in (
            "abs exp exp2 expm1 log log2 log10 log1p sqrt rsqrt sin cos tan asin acos atan sinh cosh tanh asinh acosh "
            "atanh erf erfc erfcx erfinv ndtri sigmoid softplus log1p_unit floor ceil trunc round sign lgamma digamma "
            "trigamma"
        ).split()
    },
    **{name: f"r_{name}({{0}}, {{1}})" for name in "max min fmax fmin pow atan2 fmod remainder hypot copysign".split()},
    **{name: f"r{name}({{0}})" for name in ("isnan", "isinf", "isfinite")},
    **{name: f"{name}({{0}}, {{1}}, {{2}})" for name in ("rsel", "isel", "msel")},
    **{
        name: f"{name}({{0}}, {{1}})"
        for name in (
            "req rne rlt rle rgt rge ieq ine ilt ile igt ige iadd isub imul imax imin iand ior ixor idiv_floor "
            "idiv_trunc imod_floor mand mor mxor"
        ).split()
    },
    **{name: f"{name}({{0}})" for name in ("ineg", "iabs", "inot", "mnot")},
    "m_to_r": "m_to_r({0})",
    "m_to_i": "m_to_i({0})",
    "i_to_r": "i_to_r({0})",
    "i_to_m": "i_to_m({0})",
    "r_to_i": "r_to_i({0})",
    "r_to_m": "r_to_m({0})",
}
"""From operation to expression; ``{k}`` is the k-th operand."""

COMBINE = {
    ("sum", Kind.REAL): "{0} + {1}",
    ("prod", Kind.REAL): "{0} * {1}",
    ("max", Kind.REAL): "r_max({0}, {1})",
    ("min", Kind.REAL): "r_min({0}, {1})",
    ("sum", Kind.INT): "iadd({0}, {1})",
    ("prod", Kind.INT): "imul({0}, {1})",
    ("max", Kind.INT): "imax({0}, {1})",
    ("min", Kind.INT): "imin({0}, {1})",
    ("all", Kind.MASK): "mand({0}, {1})",
    ("any", Kind.MASK): "mor({0}, {1})",
}
"""How a reduction takes in one more term."""

_START = {
    Kind.REAL: {"sum": "0", "prod": "1", "max": "-(real)__builtin_inf()", "min": "(real)__builtin_inf()"},
    Kind.INT: {"sum": "0", "prod": "1", "max": "(-0x7fffffffffffffffLL - 1)", "min": "0x7fffffffffffffffLL"},
    Kind.MASK: {"all": "1", "any": "0"},
}
_SET = {Kind.REAL: "rset", Kind.INT: "iset", Kind.MASK: "mset"}


def start(op: str, kind: Kind) -> str:
    """What a reduction has before its first term."""
    return f"{_SET[kind]}({_START[kind][op]})"


def combined(op: str, kind: Kind, terms: Sequence[str]) -> str:
    """A reduction of few terms as one expression."""
    total = terms[0]
    for term in terms[1:]:
        total = COMBINE[op, kind].format(f"({total})" if " " in total else total, term)
    return total


@functools.cache
def lanes_header() -> str:
    """The text of ``lanes.h``, to be put before generated code: compilers know no path to it."""
    return resources.files(__package__).joinpath("lanes.h").read_text().replace("#pragma once\n", "")


def literal(value: float, kind: Kind) -> str:
    """The number in all lanes."""
    if kind is Kind.MASK:
        return f"mset({int(value != 0)})"
    if kind is Kind.INT:
        return f"iset({int(value)}LL)"
    return f"rset({real(value)})"


def real(value: float) -> str:
    """The number as a C++ constant expression, exact."""
    if math.isnan(value):
        return '(real)__builtin_nan("")'
    if math.isinf(value):
        return f"{'-' if value < 0 else ''}(real)__builtin_inf()"
    return f"(real){value.hex()}"
