"""Elements that need no work: sums with 0, products with 1, selections by a known mask."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from compiled_ebm.backends.fused.program import Ids, Kind

__all__ = ["without_work", "without_zeros"]

_SELECTIONS = ("rsel", "isel", "msel")


def without_work(op: str, kind: Kind, columns: Ids, literal: Callable[[float, Kind], int]) -> Ids:
    """For each element of a pointwise operation the one that has its value already, or -1.

    Args:
        op: The operation.
        kind: Of its first operand.
        columns: ``[operands, elements]``.
        literal: The element that is a number; -1 if there is none.
    """
    result = np.full(columns.shape[1], -1, dtype=np.int64)
    if op in ("add", "iadd", "sub", "isub"):
        _neutral(result, columns, literal(0.0, kind), both=op in ("add", "iadd"))
    elif op in ("mul", "imul", "div"):
        _neutral(result, columns, literal(1.0, kind), both=op != "div")
    elif op in (*_SELECTIONS, "mand", "mor", "mnot"):
        _masks(op, result, columns, literal(1.0, Kind.MASK), literal(0.0, Kind.MASK))
    return result


def _neutral(result: Ids, columns: Ids, element: int, both: bool) -> None:
    if both:
        result[columns[0] == element] = columns[1][columns[0] == element]
    result[columns[1] == element] = columns[0][columns[1] == element]


def _masks(op: str, result: Ids, columns: Ids, true: int, false: int) -> None:
    if op in _SELECTIONS:
        result[columns[0] == true] = columns[1][columns[0] == true]
        result[columns[0] == false] = columns[2][columns[0] == false]
        same = columns[1] == columns[2]
        result[same] = columns[1][same]
    elif op == "mnot":
        if true >= 0 and false >= 0:
            result[columns[0] == true] = false
            result[columns[0] == false] = true
    else:
        neutral, absorbing = (true, false) if op == "mand" else (false, true)
        for a, b in ((0, 1), (1, 0)):
            result[columns[a] == neutral] = columns[b][columns[a] == neutral]
            result[columns[a] == absorbing] = absorbing


def without_zeros(rows: Ids, zero: int) -> Ids:
    """Rows with their literal zeros moved to the end, and columns of nothing but zeros dropped."""
    is_zero = rows == zero
    if not is_zero.any():
        return rows
    order = np.argsort(is_zero, axis=1, kind="stable")
    packed = np.take_along_axis(rows, order, axis=1)
    keep = max(1, int((~is_zero).sum(axis=1).max()))
    return np.ascontiguousarray(packed[:, :keep])
