"""The tile program: what a generated kernel computes for one chain in one step, down to single elements.

Every element of every value has a number of its own. An operation that computes owns a run of them; an operation
that only moves elements (views, slices, concatenation, gathers with constant indices) has been applied to the numbers
when the program was made and is gone. So an operand is an array of numbers: where each element comes from.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

__all__ = [
    "Carried",
    "Carry",
    "Close",
    "Dot",
    "Ids",
    "Input",
    "Kind",
    "Literal",
    "Node",
    "Open",
    "Pointwise",
    "Reduce",
    "Role",
    "TileProgram",
    "distinct",
    "is_constant",
    "is_transpose",
]

Ids = NDArray[np.int64]
"""Element numbers, in any shape."""


class Kind(enum.Enum):
    """What a lane of a value holds."""

    REAL = "R"
    MASK = "M"
    INT = "I"


class Role(enum.Enum):
    """Where an input comes from."""

    STATE = "state"
    FAILED = "failed_at"
    CHAIN_KWARG = "chain_kwarg"
    NORMALS = "normals"
    UNIFORMS = "uniforms"
    STEP = "step"
    HYPER = "hyper"
    CONSTANT = "constant"
    SPREAD = "spread"
    """The sum of the squares of all positions since the last check."""

    @property
    def uniform(self) -> bool:
        """Whether all chains share the value."""
        return self in (Role.STEP, Role.HYPER, Role.CONSTANT)


@dataclass(eq=False)
class Node:
    """Elements ``first .. first + size - 1``, made together."""

    first: int
    size: int
    kind: Kind
    origin: str = field(default="", kw_only=True)
    """The user's line that asked for it."""

    @property
    def ids(self) -> Ids:
        """The numbers of its elements."""
        return np.arange(self.first, self.first + self.size, dtype=np.int64)

    def operands(self) -> tuple[Ids, ...]:
        """The elements that it reads."""
        return ()


@dataclass(eq=False)
class Input(Node):
    """An argument of the step; ``position`` counts within its role."""

    role: Role
    position: int
    name: str


@dataclass(eq=False)
class Literal(Node):
    """Numbers that the trace knows."""

    values: NDArray[np.float64]


@dataclass(eq=False)
class Pointwise(Node):
    """Element e is ``op(args[0][e], args[1][e], ...)``."""

    op: str
    args: tuple[Ids, ...]

    def operands(self) -> tuple[Ids, ...]:
        return self.args


@dataclass(eq=False)
class Reduce(Node):
    """Element e is ``op`` over the row ``arg[e]`` of ``arg [size, terms]``; op is sum, prod, max, min, all or any."""

    op: str
    arg: Ids

    def operands(self) -> tuple[Ids, ...]:
        return (self.arg,)


@dataclass(eq=False)
class Dot(Node):
    """``left [m, k] @ right [k, n]``, elements in row-major order."""

    left: Ids
    right: Ids

    def operands(self) -> tuple[Ids, ...]:
        return (self.left, self.right)


@dataclass(eq=False)
class Open(Node):
    """A loop begins: what stands between here and its :class:`Close` is done ``rounds`` times. It has no elements."""

    rounds: int


@dataclass(eq=False)
class Carry(Node):
    """What a round gets from the one before: ``start`` in the first, then the ``next`` that was made last.

    All carries of a loop follow its :class:`Open`, and take their new values at once.
    """

    start: Ids
    next: Ids = field(default_factory=lambda: np.zeros(0, dtype=np.int64))

    def operands(self) -> tuple[Ids, ...]:
        return (self.start, self.next)


@dataclass(eq=False)
class Close(Node):
    """The loop of ``carries`` ends. It has no elements."""

    opened: Open
    carries: tuple[Carry, ...]


@dataclass(eq=False)
class Carried(Node):
    """A carry after the last round: all that can be read of a loop from outside."""

    carry: Carry

    def operands(self) -> tuple[Ids, ...]:
        return (self.carry.ids,)


@dataclass(frozen=True)
class TileProgram:
    """One step of one chain.

    Args:
        nodes: In an order in which every operand is made before it is used, but for the ``next`` of a carry. What is
            made between an :class:`Open` and its :class:`Close` is read there alone.
        outputs: The elements of each new state leaf, then of ``failed_at``, then of the spread if there is one; flat.
        real_bits: 32 or 64, the width of real lanes.
        frozen: Captured integer tensors whose values the program has taken as indices: (constant's position, values).
        equal: Constants that the program takes for one, since they are two views of one tensor with equal elements: a
            symmetric matrix and its transpose.
        transposed: Constants of which the second is the transposed view of the first.
    """

    nodes: tuple[Node, ...]
    outputs: tuple[Ids, ...]
    real_bits: int
    frozen: tuple[tuple[int, NDArray[np.int64]], ...]
    equal: tuple[tuple[int, int], ...]
    transposed: tuple[tuple[int, int], ...] = ()

    def inputs(self) -> list[Input]:
        """The inputs that are read, in the order of their elements."""
        return [node for node in self.nodes if isinstance(node, Input)]

    def chain_kwargs(self) -> list[int]:
        """Positions of the keyword arguments of each chain that are read."""
        return sorted(node.position for node in self.inputs() if node.role is Role.CHAIN_KWARG)

    def leaves(self) -> dict[int, Input]:
        """The input that output number k is the next value of."""
        states = {n.position: n for n in self.inputs() if n.role is Role.STATE}
        failed = [n for n in self.inputs() if n.role is Role.FAILED]
        spread = [n for n in self.inputs() if n.role is Role.SPREAD]
        last = len(self.outputs) - 1 - len(spread)
        return {**states, **({last: failed[0]} if failed else {}), **({last + 1: spread[0]} if spread else {})}

    def owner(self) -> Ids:
        """For every element number the index in ``nodes`` of its node."""
        total = max(node.first + node.size for node in self.nodes)
        owner = np.full(total, -1, dtype=np.int64)
        for i, node in enumerate(self.nodes):
            owner[node.first : node.first + node.size] = i
        return owner


def is_constant(node: Node) -> bool:
    """Whether it is a captured tensor or made of such before the launch: all chains share it, and every step."""
    return isinstance(node, Input) and node.role is Role.CONSTANT


def is_transpose(matrix: Tensor, other: Tensor) -> bool:
    """Whether they are the same memory, seen as matrices and their transposes."""
    return (
        matrix.ndim == other.ndim >= 2
        and matrix.data_ptr() == other.data_ptr()
        and matrix.dtype == other.dtype
        and matrix.shape == other.mT.shape
        and matrix.stride() == other.mT.stride()
    )


def distinct(ids: Ids) -> Ids:
    """The numbers among ``ids``, ascending, without the 20 ms that ``np.unique`` takes to import ``numpy.ma``."""
    ordered = np.sort(ids, axis=None)
    return ordered[np.append(True, ordered[1:] != ordered[:-1])] if ordered.size else ordered
