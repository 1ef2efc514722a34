"""The table of operations: what an ATen operation is on elements."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor

from compiled_ebm.backends.fused.elements import Elements, Value, kind_of
from compiled_ebm.backends.fused.program import Kind

__all__ = ["MOVES", "ROWS", "Operand", "Row", "Unsupported", "as_value", "promoted", "real", "row"]

Operand = Any
"""A :class:`Value`, a tensor that the trace knows, or a Python value."""
Row = Callable[..., Any]

aten: Any = torch.ops.aten
prims: Any = torch.ops.prims


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


def real(e: Elements, x: Operand) -> Value:
    return as_value(e, x, Kind.REAL)


def promoted(*operands: Operand) -> Kind:
    kinds = []
    for x in operands:
        if isinstance(x, Value):
            kinds.append(x.kind)
        elif isinstance(x, Tensor):
            kinds.append(kind_of(x.dtype))
        else:
            kinds.append(Kind.MASK if isinstance(x, bool) else Kind.INT if isinstance(x, int) else Kind.REAL)
    return next(kind for kind in (Kind.REAL, Kind.INT, Kind.MASK) if kind in kinds)
