"""Making a tile program element by element: numbering, constant folding, common subexpressions."""

from __future__ import annotations

import bisect
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from compiled_ebm.backends.fused.identities import without_work, without_zeros
from compiled_ebm.backends.fused.program import (
    Carried,
    Carry,
    Close,
    Dot,
    Ids,
    Input,
    Kind,
    Literal,
    Node,
    Open,
    Pointwise,
    Reduce,
    Role,
    distinct,
    is_constant,
)
from compiled_ebm.backends.fused.rewrites import rewritten, rewritten_reduction

__all__ = ["Elements", "Order", "Value", "kind_of"]

_CHAIN_TERMS = 4
"""Reductions over at most this many terms become operations one after the other."""
_SKINNY_INNER = 8
"""Products over at most this many terms become multiply-adds."""
_SKINNY_OUTER = 4
"""Products with at most this many results become reductions, whose terms are formed where their factors are."""


@dataclass(frozen=True)
class Value:
    """A tensor of the trace: int64 element numbers in its shape. Movement operations work on ``ids`` as they are."""

    ids: Tensor
    kind: Kind

    @property
    def shape(self) -> torch.Size:
        return self.ids.shape

    def moved(self, ids: Tensor) -> Value:
        """The same elements in another shape or order."""
        return Value(ids, self.kind)


@dataclass(frozen=True)
class Order:
    """A permutation of ``size`` places that differs between chains, as the exchanges of a sorting network: layer by
    layer, which pairs were exchanged."""

    swaps: tuple[Value, ...]
    size: int


def kind_of(dtype: torch.dtype) -> Kind:
    """The kind of lanes that hold the dtype."""
    if dtype == torch.bool:
        return Kind.MASK
    return Kind.REAL if dtype.is_floating_point else Kind.INT


class Elements:
    """Collects the nodes of a tile program."""

    def __init__(self) -> None:
        self.nodes: list[Node] = []
        self._firsts: list[int] = []
        self.origin = ""
        self._count = 0
        self._literals: dict[tuple[Kind, int], int] = {}
        self._literal_values: dict[int, float] = {}
        self._seen: dict[tuple[object, ...], Node] = {}
        self._constant: list[bool] = []
        self._orders: dict[bytes, tuple[Order, slice]] = {}
        self._loops: list[tuple[Open, list[Carry], dict[tuple[object, ...], Node]]] = []
        """The loops that are open, each with what was there to be shared before it."""

    @property
    def size(self) -> int:
        """How many elements there are."""
        return self._count

    # -- leaves ------------------------------------------------------------------------------------------------------

    def input(self, role: Role, position: int, name: str, shape: Sequence[int], kind: Kind) -> Value:
        """An argument of the step."""
        size = int(np.prod(shape, dtype=np.int64))
        node = Input(self._count, size, kind, role=role, position=position, name=name)
        self._add(node)
        return Value(torch.from_numpy(node.ids).reshape(tuple(shape)), kind)

    def literal(self, given: Tensor | complex, kind: Kind | None = None) -> Value:
        """Numbers known to the trace, one element for each different one."""
        tensor = given if isinstance(given, Tensor) else torch.tensor(given, dtype=_dtype_of(given))
        kind = kind or kind_of(tensor.dtype)
        flat = tensor.detach().cpu().to(torch.float64).reshape(-1).numpy()
        keys = _keys(flat)
        new = [v for k, v in dict(zip(keys, flat.tolist(), strict=True)).items() if (kind, k) not in self._literals]
        if new:
            node = Literal(self._count, len(new), kind, values=np.array(new, dtype=np.float64))
            self._add(node)
            for i, value in enumerate(new):
                self._literal_values[node.first + i] = value
            self._literals.update(((kind, k), node.first + i) for i, k in enumerate(_keys(node.values)))
        ids = [self._literals[kind, k] for k in keys]
        return Value(torch.tensor(ids, dtype=torch.int64).reshape(tensor.shape), kind)

    def literal_values(self, ids: Tensor) -> NDArray[np.float64] | None:
        """The numbers behind ``ids`` if all are literals."""
        flat = ids.reshape(-1).numpy()
        if flat.size and int(flat[0]) not in self._literal_values:
            return None
        unique = distinct(flat)
        values = [self._literal_values.get(i) for i in unique.tolist()]
        return (
            None
            if any(v is None for v in values)
            else np.array(values, dtype=np.float64)[np.searchsorted(unique, flat)]
        )

    def is_literal(self, value: Value, number: float) -> bool:
        """Whether every element is this literal."""
        return bool((value.ids == self._literal_element(number, value.kind)).all())

    def is_constant(self, value: Value) -> bool:
        """Whether it depends on captured tensors and literals alone, so that it will be evaluated once a run."""
        return all(self._is_constant_node(o) for o in self._owners(value.ids.numpy()))

    # -- computing ---------------------------------------------------------------------------------------------------

    def pointwise(self, op: str, kind: Kind, *args: Value) -> Value:
        """``op`` on broadcast arguments; elements that are the same are computed once."""
        broadcast = torch.broadcast_tensors(*(a.ids for a in args))  # type: ignore[no-untyped-call]
        shape = broadcast[0].shape
        columns = np.stack([b.reshape(-1).numpy() for b in broadcast]) if broadcast[0].numel() else None
        if columns is None:
            return Value(torch.zeros(shape, dtype=torch.int64), kind)
        result = without_work(op, args[0].kind, columns, self._literal_element)
        left = np.flatnonzero(result < 0)
        if left.size == columns.shape[1]:
            other = rewritten(self, op, tuple(a.moved(b) for a, b in zip(args, broadcast, strict=True)))
            if other is not None:
                return other.moved(other.ids.reshape(shape))
        if left.size:
            unique, places = _unique_columns(columns[:, left])
            key = (op, unique.tobytes(), unique.shape)
            node = self._seen.get(key)
            if node is None:
                node = Pointwise(self._count, unique.shape[1], kind, op=op, args=tuple(unique), origin=self.origin)
                self._add(node)
                self._seen[key] = node
            result[left] = node.first + places
        return Value(torch.from_numpy(result).reshape(shape), kind)

    def producer(self, value: Value) -> tuple[str, tuple[Value, ...]] | None:
        """The operation that made all of these elements, and its operands at them; None if there is no one such."""
        flat = value.ids.reshape(-1).numpy()
        if not flat.size:
            return None
        found = bisect.bisect_right(self._firsts, int(flat[0])) - 1
        node = self.nodes[found]
        if not isinstance(node, Pointwise) or flat.min() < node.first or flat.max() >= node.first + node.size:
            return None
        kinds = [self.nodes[bisect.bisect_right(self._firsts, int(a[0])) - 1].kind for a in node.args]
        ids = [torch.from_numpy(a[flat - node.first]).reshape(value.shape) for a in node.args]
        return node.op, tuple(Value(i, k) for i, k in zip(ids, kinds, strict=True))

    def reduce(self, op: str, kind: Kind, rows: Value) -> Value:
        """``op`` over the last dimension."""
        *shape, terms = rows.shape
        if terms == 0:
            start = {"sum": 0.0, "prod": 1.0, "all": 1.0, "any": 0.0, "max": -np.inf, "min": np.inf}[op]
            return self.literal(torch.full(shape, start, dtype=torch.float64), kind)
        if op in ("any", "all"):
            other = rewritten_reduction(self, op, rows)
            if other is not None:
                return other
        flat = rows.ids.reshape(-1, terms).numpy()
        if op == "sum" and terms > 1:
            flat = without_zeros(flat, self._literal_element(0.0, rows.kind))
            terms = flat.shape[1]
        if terms <= _CHAIN_TERMS:
            chained = self._chain(op, kind, flat)
            return chained.moved(chained.ids.reshape(tuple(shape)))
        node = self._cached(
            "reduce " + op,
            kind,
            (flat,),
            lambda: Reduce(self._count, flat.shape[0], kind, op=op, arg=flat, origin=self.origin),
        )
        return Value(torch.from_numpy(node.ids).reshape(shape), kind)

    def matmul(self, left: Value, right: Value, start: Value | None = None) -> Value:
        """``[m, k] @ [k, n]``, added to ``start``: that is where a sum of few begins, each term a multiply-add."""
        (m, k), n = left.shape, right.shape[1]
        if start is not None and (k > _SKINNY_INNER or not k):
            return self.pointwise("add", Kind.REAL, self.matmul(left, right), start)
        if k <= _SKINNY_INNER:
            total = start
            for i in range(k):
                term = self.pointwise("mul", Kind.REAL, left.moved(left.ids[:, i : i + 1]), right.moved(right.ids[i]))
                total = term if total is None else self.pointwise("add", Kind.REAL, total, term)
            return total or self.literal(torch.zeros(m, n), Kind.REAL)
        if m * n <= _SKINNY_OUTER:
            sums = []
            for i in range(m):
                for j in range(n):
                    terms = self.pointwise("mul", Kind.REAL, left.moved(left.ids[i]), right.moved(right.ids[:, j]))
                    sums.append(self.reduce("sum", Kind.REAL, terms).ids.reshape(()))
            return Value(torch.stack(sums).reshape(m, n), Kind.REAL)
        a, b = left.ids.numpy(), right.ids.numpy()
        node = self._cached(
            "dot", Kind.REAL, (a, b), lambda: Dot(self._count, m * n, Kind.REAL, left=a, right=b, origin=self.origin)
        )
        return Value(torch.from_numpy(node.ids).reshape(m, n), Kind.REAL)

    def cast(self, value: Value, kind: Kind) -> Value:
        """The value in lanes of another kind; masks become 0 and 1."""
        if value.kind is kind:
            return value
        literal = self.literal_values(value.ids)
        if literal is not None:
            numbers = torch.from_numpy(literal).reshape(value.shape)
            if kind is Kind.MASK:
                numbers = (numbers != 0).double()
            return self.literal(numbers.trunc() if kind is Kind.INT else numbers, kind)
        return self.pointwise(f"{value.kind.value}_to_{kind.value}".lower(), kind, value)

    # -- permutations ------------------------------------------------------------------------------------------------

    def keep_order(self, places: Value, order: Order, chosen: slice) -> None:
        """Remember that the indices ``places [..., m]`` are those at ``chosen`` of an order."""
        self._orders[places.ids.contiguous().numpy().tobytes()] = order, chosen

    def order_of(self, places: Value) -> tuple[Order, slice] | None:
        """What :meth:`keep_order` was told of these indices."""
        return self._orders.get(places.ids.contiguous().numpy().tobytes())

    # -- loops -------------------------------------------------------------------------------------------------------

    def open(self, rounds: int, starts: Sequence[Value]) -> list[Value]:
        """Begin a loop; the values of its carry inside a round."""
        opened = Open(self._count, 0, Kind.REAL, rounds=rounds, origin=self.origin)
        self._append(opened)
        carries: list[Carry] = []
        for start in starts:
            ids = np.ascontiguousarray(start.ids.reshape(-1).numpy())
            carries.append(Carry(self._count, ids.size, start.kind, start=ids, origin=self.origin))
            self._add(carries[-1])
        self._loops.append((opened, carries, self._seen))
        self._seen = dict(self._seen)  # what a round makes is no common subexpression of what comes after the loop
        return [s.moved(torch.from_numpy(c.ids).reshape(s.shape)) for s, c in zip(starts, carries, strict=True)]

    def close(self, nexts: Sequence[Value]) -> list[Value]:
        """End the loop that was opened last, with what a round makes of the carry; the carry after the last round."""
        opened, carries, self._seen = self._loops.pop()
        for carry, value in zip(carries, nexts, strict=True):
            assert carry.kind is value.kind or not carry.size
            carry.next = np.ascontiguousarray(value.ids.reshape(-1).numpy())
        self._append(Close(self._count, 0, Kind.REAL, opened=opened, carries=tuple(c for c in carries if c.size)))
        results: list[Value] = []
        for carry, value in zip(carries, nexts, strict=True):
            result = Carried(self._count, carry.size, carry.kind, carry=carry)
            self._add(result)
            results.append(value.moved(torch.from_numpy(result.ids).reshape(value.shape)))
        return results

    # -- inside ------------------------------------------------------------------------------------------------------

    def _literal_element(self, number: float, kind: Kind) -> int:
        """The element that is this literal; one that there is not, if none is."""
        return self._literals.get((kind, _keys(np.array([number], dtype=np.float64))[0]), -1)

    def _owners(self, ids: Ids) -> list[int]:
        """Which nodes the elements are of."""
        return list(distinct(np.searchsorted(self._firsts, ids.reshape(-1), side="right") - 1).tolist())

    def _is_constant_node(self, index: int) -> bool:
        for node in self.nodes[len(self._constant) : index + 1]:
            operands = node.operands()
            made = isinstance(node, Literal) or is_constant(node)
            if isinstance(node, (Pointwise, Reduce, Dot)):
                made = all(self._constant[o] for ids in operands for o in self._owners(ids))
            self._constant.append(made)
        return self._constant[index]

    def _add(self, node: Node) -> None:
        if node.size:
            self._append(node)

    def _append(self, node: Node) -> None:
        self.nodes.append(node)
        self._firsts.append(node.first)
        self._count += node.size

    def _cached(self, op: str, kind: Kind, operands: tuple[Ids, ...], make: Callable[[], Node]) -> Node:
        key = (op, kind, *((o.tobytes(), o.shape) for o in operands))
        if key not in self._seen:
            node = make()
            self._add(node)
            self._seen[key] = node
        return self._seen[key]

    def _chain(self, op: str, kind: Kind, rows: Ids) -> Value:
        combine = _COMBINE[op]
        if kind is Kind.INT:
            combine = f"i{combine}"
        total = Value(torch.from_numpy(np.ascontiguousarray(rows[:, 0])), kind)
        for k in range(1, rows.shape[1]):
            total = self.pointwise(
                combine, kind, total, Value(torch.from_numpy(np.ascontiguousarray(rows[:, k])), kind)
            )
        return total


_COMBINE = {"sum": "add", "prod": "mul", "max": "max", "min": "min", "all": "mand", "any": "mor"}


def _dtype_of(number: complex) -> torch.dtype:
    """Wide enough to hold the number as it is."""
    return torch.bool if isinstance(number, bool) else torch.int64 if isinstance(number, int) else torch.float64


def _keys(numbers: NDArray[np.float64]) -> list[int]:
    """Their bits, by which -0 is not 0; those of one NaN for all."""
    return np.where(np.isnan(numbers), np.nan, numbers).view(np.int64).tolist()  # type: ignore[no-any-return]


def _unique_columns(columns: Ids) -> tuple[Ids, Ids]:
    """The different columns in order of first appearance, and for each column which of them it is."""
    n = columns.shape[1]
    for row in columns:
        if distinct(row).size == n:
            return columns, np.arange(n, dtype=np.int64)
    order = np.lexsort(columns)  # keeps the order of equal columns, so that the first of each is its first appearance
    ordered = columns[:, order]
    starts = np.append(True, (ordered[:, 1:] != ordered[:, :-1]).any(axis=0))
    first, inverse = order[starts], np.empty(n, dtype=np.int64)
    inverse[order] = np.cumsum(starts) - 1
    rank = np.empty(first.size, dtype=np.int64)
    order = np.argsort(first)
    rank[order] = np.arange(first.size)
    return np.ascontiguousarray(columns[:, first[order]]), rank[inverse]
