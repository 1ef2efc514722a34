"""Matrix products: on tensor cores where one side is constant, else as a loop over the inner dimension."""

from __future__ import annotations

import numpy as np

from compiled_ebm.backends.fused.program import Dot, Ids, Kind, Literal, is_constant
from compiled_ebm.backends.fused.triton.values import Values, padded

__all__ = ["emit_product"]

_NARROW = {"bf16": "to_bf16", "fp16": "to_fp16"}
_LEAST = 16
"""Length of every side of a product on tensor cores, at least."""
_MOST = 1 << 14
"""Entries of its constant side, at most: shared memory holds it, in two parts, and its transpose for the gradient."""


def emit_product(v: Values, node: Dot, name: str) -> None:
    """``name`` becomes the product's elements in row-major order."""
    if node.left.shape[0] == 1:
        vector, matrix = node.left[0], node.right
    elif node.right.shape[1] == 1:
        vector, matrix = node.right[:, 0], node.left.T
    else:
        _by_terms(v, node, name)
        return
    inner, outer = matrix.shape
    sides = (padded(inner), padded(outer), v.form.block)
    if min(sides) >= _LEAST and padded(inner) * padded(outer) <= _MOST and _is_constant(v, matrix):
        _by_tensor_cores(v, vector, matrix, name)
    elif inner > outer:
        _by_results(v, vector, matrix, name)
    else:
        _by_terms(v, node, name)


def _by_tensor_cores(v: Values, vector: Ids, matrix: Ids, name: str) -> None:
    x = v.filled(v.full(vector), len(vector), "0.0")
    w = _tile(v, matrix)
    precision = "ieee" if v.program.real_bits == 64 else v.form.precision
    if precision in _NARROW:
        x, w, precision = f"{_NARROW[precision]}({x})", f"{_NARROW[precision]}({w})", "ieee"
    pair = f"{w}, {x}" if v.form.chains_last else f"{x}, {w}"
    v.out(f"{name} = tl.dot({pair}, input_precision={precision!r}, out_dtype=REAL)")


def _tile(v: Values, matrix: Ids) -> str:
    """The constant side, ``[inner, outer]``, or its transpose where chains come last."""
    inner, outer = matrix.shape
    entries = []
    for row in matrix:
        entries += [(v.node(int(i)), int(i) - v.node(int(i)).first) for i in row]
        entries += [None] * (padded(outer) - outer)  # type: ignore[list-item]
    entries += [None] * (padded(outer) * (padded(inner) - inner))  # type: ignore[list-item]
    start = v.pools.add(entries, True)  # type: ignore[arg-type]
    rows, columns = v.places(inner), v.places(outer)
    if v.form.chains_last:
        where = f"{columns}[:, None] + {rows}[None, :] * {padded(outer)}"
    else:
        where = f"{rows}[:, None] * {padded(outer)} + {columns}[None, :]"
    load = f"tl.load(reals + {start} + {where})"
    key = ("tile", start)
    return v.at_head(key, "w", load) if v.form.hoisted else v.once(key, "w", load)


def _by_terms(v: Values, node: Dot, name: str) -> None:
    """One term of every result after the other."""
    (m, terms), n = node.left.shape, node.right.shape[1]
    left = np.ascontiguousarray(np.repeat(node.left, n, axis=0).T)
    right = np.ascontiguousarray(np.tile(node.right, (1, m)))
    v.out(f"{name} = {v.zeros(node.size, Kind.REAL, '0.0')}")
    k = v.fresh("k")
    v.out.open(f"for {k} in tl.range(0, {terms}):")
    v.enter()
    a, b = v.access(left, k), v.access(right, k)
    v.out(f"{name} += {a} * {b}")
    v.leave()
    v.out.close()


def _by_results(v: Values, vector: Ids, matrix: Ids, name: str) -> None:
    """One result after the other, where those are fewer than the terms."""
    inner, outer = matrix.shape
    x = v.filled(v.full(vector), inner, "0.0")
    v.out(f"{name} = {v.zeros(outer, Kind.REAL, '0.0')}")
    k = v.fresh("k")
    v.out.open(f"for {k} in tl.range(0, {outer}):")
    v.enter()
    column = v.access(np.ascontiguousarray(matrix.T), k)
    total = v.over_elements(f"tl.sum({v.filled(f'{x} * {column}', inner, '0.0')}, {v.axis})")
    v.out(f"{name} = tl.where({v.over_chains(f'({v.places(outer)} == {k})')}, {total}, {name})")
    v.leave()
    v.out.close()


def _is_constant(v: Values, ids: Ids) -> bool:
    return all(
        isinstance(v.nodes[o], Literal) or is_constant(v.nodes[o]) for o in set(v.owner[ids.reshape(-1)].tolist())
    )
