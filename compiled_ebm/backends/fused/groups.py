"""The groups of a plan: what a step does one after the other, what each of them reads, and what it makes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from compiled_ebm.backends.fused.program import (
    Carried,
    Carry,
    Close,
    Dot,
    Ids,
    Input,
    Node,
    Open,
    Pointwise,
    Reduce,
    TileProgram,
)

__all__ = [
    "Closing",
    "Draw",
    "Group",
    "Loop",
    "Opening",
    "Plan",
    "Product",
    "RowReduce",
    "Section",
    "is_inner_loop",
    "makers",
    "reads",
    "stretches",
]

UNROLLED_TERMS = 16
"""Terms up to which a reduction inside a loop is one expression."""


@dataclass(eq=False)
class Section:
    """Elements computed by a statement each."""

    nodes: list[Node] = field(default_factory=list)


@dataclass(frozen=True, eq=False)
class RowReduce:
    """One row of a :class:`Reduce` of few rows, summed up in the loop that makes its terms."""

    node: Reduce
    row: int


@dataclass(eq=False)
class Loop:
    """``size`` rounds; round i makes element i of every node in it."""

    size: int
    nodes: list[Pointwise | Reduce] = field(default_factory=list)
    row_reduces: list[RowReduce] = field(default_factory=list)


@dataclass(eq=False)
class Product:
    """A matrix product by a kernel that keeps a block of results in registers."""

    node: Dot


@dataclass(eq=False)
class Draw:
    """The step's normals or uniforms, in memory."""

    node: Input


@dataclass(eq=False)
class Opening:
    """A repetition begins: its carries get what they start with."""

    node: Open
    carries: list[Carry] = field(default_factory=list)


@dataclass(eq=False)
class Closing:
    """A round ends: its carries get their new values; after the last, they are what the loop gives."""

    node: Close
    results: list[Carried] = field(default_factory=list)


Group = Section | Loop | Product | Draw | Opening | Closing


@dataclass(frozen=True)
class Plan:
    """Groups in the order in which they run.

    Args:
        groups: What to do.
        single: Statements that no loop holds: elements, terms and factors, long operations counted as what they are.
        straight_line: Whether everything is single statements.
        wide: By node index, whether its elements live in memory or in a loop, not in variables of their own.
    """

    groups: tuple[Group, ...]
    single: int
    straight_line: bool
    wide: tuple[bool, ...]


def is_inner_loop(node: Reduce) -> bool:
    """Whether a loop that makes the reduction sums up its terms in a loop of its own."""
    return bool(node.arg.shape[1] > UNROLLED_TERMS)


def reads(group: Group) -> list[tuple[Ids, int | None]]:
    """What a group reads, and for operands of loops the loop's size."""
    if isinstance(group, Section):
        return [(ids, None) for node in group.nodes for ids in node.operands()]
    if isinstance(group, Product):
        return [(group.node.left, None), (group.node.right, None)]
    if isinstance(group, Draw):
        return []
    if isinstance(group, Opening):
        return [(carry.start, None) for carry in group.carries]
    if isinstance(group, Closing):
        return [(carry.next, None) for carry in group.node.carries]
    found: list[tuple[Ids, int | None]] = []
    for node in group.nodes:
        if isinstance(node, Reduce) and is_inner_loop(node):
            found.append((node.arg, None))
        elif isinstance(node, Reduce):
            found += [(column, group.size) for column in node.arg.T]
        else:
            found += [(a, group.size) for a in node.args]
    return found + [(r.node.arg[r.row], group.size) for r in group.row_reduces]


def makers(program: TileProgram, planned: Plan) -> dict[int, Group]:
    """By node index, the group that makes it."""
    owner = program.owner()
    found: dict[int, Group] = {}
    for group in planned.groups:
        for node in _made(group):
            found[int(owner[node.first])] = group
    return found


def _made(group: Group) -> Sequence[Node]:
    if isinstance(group, (Section, Loop)):
        return group.nodes
    if isinstance(group, Opening):
        return group.carries
    return group.results if isinstance(group, Closing) else [group.node]


def stretches(planned: Plan) -> list[tuple[int, int]]:
    """The places of each repetition's opening and closing group, inner ones first."""
    found: list[tuple[int, int]] = []
    opened: list[int] = []
    for g, group in enumerate(planned.groups):
        if isinstance(group, Opening):
            opened.append(g)
        elif isinstance(group, Closing):
            found.append((opened.pop(), g))
    return found
