"""Where the bounds of every element stand, and what is to be evaluated in which order: all that a program decides."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from compiled_ebm.backends.fused.bounds.intervals import (
    ANY_INT,
    RULES,
    SIDES,
    Bounds,
    Precision,
    flushed,
    rounded,
    wrapped,
)
from compiled_ebm.backends.fused.bounds.order import Order
from compiled_ebm.backends.fused.bounds.rows import REDUCTIONS, dot
from compiled_ebm.backends.fused.program import (
    Dot,
    Ids,
    Input,
    Kind,
    Literal,
    Node,
    Pointwise,
    Reduce,
    Role,
    distinct,
    is_constant,
)

__all__ = ["Memory", "Plan"]


@dataclass(eq=False)
class Memory:
    """Bounds of what is computed ``[2, cases, elements]``, known numbers ``[ends, 1, elements]``, and each constant."""

    table: Bounds
    known: Bounds
    constants: dict[int, NDArray[np.float64]]


_Read = Callable[[Memory], Bounds]


@dataclass(frozen=True, eq=False)
class _Step:
    place: slice
    bounds: _Read
    rounds: bool


class Plan:
    """What is to be evaluated.

    Args:
        nodes: Without loops, all with rules, and all needed but for inputs.
        outputs: What is asked for.
        precision: Of the program's reals.
    """

    def __init__(self, nodes: Sequence[Node], outputs: Sequence[Ids], precision: Precision) -> None:
        self._nodes = nodes
        self._precision = precision
        self._order = Order(nodes)
        total = max((node.first + node.size for node in nodes), default=0)
        self._owner, self._place, self._known_place, self._mirror = np.full((4, total), -1, dtype=np.int64)
        self._is_known = np.zeros(total, dtype=bool)
        self._literals: list[tuple[slice, NDArray[np.float64]]] = []
        self._constants: list[tuple[slice, int]] = []
        self._states: list[slice] = []
        self._steps: list[_Step] = []
        self._n_known = 0
        self.size = 0
        """Elements that are computed."""
        self.positions: set[int] = set()
        """Of the constants that are needed."""
        read = np.zeros(total, dtype=bool)
        for ids in (*outputs, *(operand for node in nodes for operand in node.operands())):
            read[ids] = True
        for i, node in enumerate(nodes):
            own = slice(node.first, node.first + node.size)
            self._owner[own] = i
            self._is_known[own] = isinstance(node, Literal) or is_constant(node)
            if isinstance(node, Input) and not is_constant(node) and read[own].any():
                self._input(node)
            elif not isinstance(node, (Input, Literal)):
                bounds, rounds = self._bounds(node)
                self._steps.append(_Step(self._take(node), bounds, rounds))
        for ids in outputs:
            if self._is_known[ids].any():
                self._mirrored(ids)

    def known_numbers(self, given: dict[int, NDArray[np.float64]]) -> Bounds:
        """Literals and constants ``[1, 1, elements]``."""
        known = np.empty((1, 1, self._n_known))
        for place, values in self._literals:
            known[0, 0, place] = values
        for place, position in self._constants:
            known[0, 0, place] = given[position]
        return known

    def run(self, memory: Memory, distances: Sequence[float], *, flush: bool) -> None:
        """Fill the table."""
        table = memory.table
        for place in self._states:
            table[:, :, place] = np.array(distances)[:, None] * SIDES
        for step in self._steps:
            bounds = step.bounds(memory)
            if step.rounds:
                bounds = rounded(bounds, self._precision)
            table[:, :, step.place] = flushed(bounds, self._precision) if flush else bounds

    # -- places ------------------------------------------------------------------------------------------------------

    def _take(self, node: Node) -> slice:
        place = slice(self.size, self.size + node.size)
        self._place[node.first : node.first + node.size] = np.arange(place.start, place.stop)
        self.size = place.stop
        return place

    def _input(self, node: Input) -> None:
        place = self._take(node)
        if node.role is Role.STATE and node.position == 0:
            self._states.append(place)
            return
        ends = {Kind.REAL: np.inf * SIDES, Kind.INT: ANY_INT * SIDES, Kind.MASK: 0.5 + 0.5 * SIDES}[node.kind]
        self._steps.append(_Step(place, lambda _: ends, rounds=False))

    def _know(self, ids: Ids) -> None:
        """Give the literals and constants a place among the known numbers."""
        for o in distinct(self._owner[ids.reshape(-1)]).tolist():
            node = self._nodes[o]
            if self._known_place[node.first] >= 0:
                continue
            place = slice(self._n_known, self._n_known + node.size)
            self._known_place[node.first : node.first + node.size] = np.arange(place.start, place.stop)
            self._n_known = place.stop
            if isinstance(node, Literal):
                self._literals.append((place, node.values))
            elif isinstance(node, Input):
                self._constants.append((place, node.position))
                self.positions.add(node.position)

    def _mirrored(self, ids: Ids) -> Ids:
        """Places in the table, of known numbers too."""
        known = distinct(ids[self._is_known[ids]])
        known = known[self._mirror[known] < 0]
        if known.size:
            self._know(known)
            where, place = self._known_place[known], slice(self.size, self.size + known.size)
            self._mirror[known] = np.arange(place.start, place.stop)
            self.size = place.stop
            self._steps.append(_Step(place, lambda memory: memory.known[:, :, where], rounds=False))
        return np.where(self._is_known[ids], self._mirror[ids], self._place[ids])

    def _reader(self, ids: Ids, *, whole: bool = False) -> _Read:
        """Bounds of the elements ``[ends, cases, elements]``, of one for all where they are the same, if not whole."""
        flat = ids.reshape(-1)
        known = self._is_known[flat]
        if known.all():
            self._know(flat)
            number = _selector(self._known_place[flat], whole)
            return lambda memory: memory.known[:, :, number]
        place = _selector(self._mirrored(flat) if known.any() else self._place[flat], whole)
        return lambda memory: memory.table[:, :, place]

    def _matrix(self, ids: Ids) -> _Read:
        """``[ends, cases, rows, columns]``; constants as they are."""
        node = self._nodes[int(self._owner[ids.flat[0]])]
        if isinstance(node, Input) and is_constant(node) and (self._owner[ids] == self._owner[node.first]).all():
            self.positions.add(node.position)
            position = node.position
            for matrix, turned in ((ids, False), (ids.T, True)):
                place = _selector((matrix - node.first).reshape(-1), True)
                if isinstance(place, slice):
                    return lambda memory: _as_matrix(memory.constants[position][place], matrix.shape, turned)
            return lambda memory: memory.constants[position][ids - node.first][None, None]
        read = self._reader(ids, whole=True)
        return lambda memory: _shaped(read(memory), ids.shape)

    # -- nodes -------------------------------------------------------------------------------------------------------

    def _bounds(self, node: Node) -> tuple[_Read, bool]:
        """What gives a node's bounds, and whether rounding is still to be added."""
        if isinstance(node, Pointwise):
            return self._pointwise(node)
        if isinstance(node, Reduce):
            return self._reduce(node), False
        assert isinstance(node, Dot)
        left, right, precision = self._matrix(node.left), self._matrix(node.right), self._precision

        def product(memory: Memory) -> Bounds:
            bounds = dot(left(memory), right(memory), precision)
            return bounds.reshape(*bounds.shape[:2], -1)

        return product, False

    def _pointwise(self, node: Pointwise) -> tuple[_Read, bool]:
        squared = node.op == "mul" and np.array_equal(node.args[0], node.args[1])
        rule = RULES["square" if squared else node.op]
        reads = [self._reader(arg) for arg in node.args]
        bounds = rule.bounds
        if len(reads) == 1:
            read = reads[0]
            return lambda memory: bounds(read(memory)), rule.rounds
        if node.op == "sub":
            return self._ordered(node, lambda memory: bounds(*[read(memory) for read in reads])), True
        if node.op == "add":
            return self._at_least_one(node, lambda memory: bounds(*[read(memory) for read in reads])), True
        return lambda memory: bounds(*[read(memory) for read in reads]), rule.rounds

    def _reduce(self, node: Reduce) -> _Read:
        read, rule, precision = self._reader(node.arg, whole=True), REDUCTIONS[node.op], self._precision
        shape = node.arg.shape
        if node.kind is Kind.INT:
            return lambda memory: wrapped(rule(_shaped(read(memory), shape), precision))
        return self._at_least_one(node, lambda memory: rule(_shaped(read(memory), shape), precision))

    def _ordered(self, node: Pointwise, plain: _Read) -> _Read:
        """A difference from something larger is at most 0, or the rounding of a product that is not rounded itself."""
        found = self._order.differences(node)
        if found is None:
            return plain
        exact, rounded = found
        size = self._reader(node.args[0][rounded]) if rounded.size else None
        unit, n = self._precision.unit, node.size

        def bounds(memory: Memory) -> Bounds:
            result = plain(memory)
            result = _full(result, n)
            result[1][:, exact] = np.minimum(result[1][:, exact], 0.0)
            if size is not None:
                slack = unit * np.abs(size(memory)).max(0)
                result[1][:, rounded] = np.minimum(result[1][:, rounded], slack)
            return result

        return bounds

    def _at_least_one(self, node: Node, plain: _Read) -> _Read:
        """A sum with exp(0) among its terms is 1 or more, if the zero is not a product that is not rounded itself."""
        found = self._order.maxima_of_sums(node)
        if not found:
            return plain
        places, tops, rounded = (np.array(column) for column in zip(*found, strict=True))
        top = self._reader(tops.astype(np.int64))
        slack, n = self._precision.unit * rounded, node.size

        def bounds(memory: Memory) -> Bounds:
            result = plain(memory)
            result = _full(result, n)
            least = 0.5 * np.exp(-slack * np.abs(top(memory)).max(0))
            result[0][:, places] = np.maximum(result[0][:, places], least)
            return result

        return bounds


def _full(bounds: Bounds, n: int) -> Bounds:
    """A copy with bounds of its own for each element."""
    return np.array(np.broadcast_to(bounds, (*bounds.shape[:2], n)))


def _shaped(bounds: Bounds, shape: tuple[int, ...]) -> Bounds:
    return bounds.reshape(*bounds.shape[:2], *shape)


def _as_matrix(numbers: NDArray[np.float64], shape: tuple[int, ...], turned: bool) -> Bounds:
    matrix = numbers.reshape(shape)
    return (matrix.T if turned else matrix)[None, None]


def _selector(places: Ids, whole: bool) -> slice | Ids:
    """A slice if it can be one."""
    first = int(places[0])
    if not whole and bool((places == first).all()):
        return slice(first, first + 1)
    if bool((np.diff(places) == 1).all()):
        return slice(first, first + places.size)
    return places
