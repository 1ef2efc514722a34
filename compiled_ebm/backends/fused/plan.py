"""The order of work inside one step: which elements are single statements, which are loops, and what they share.

Small programs are straight-line code. In others, nodes of more than a few elements are loops over their elements. A
node goes into the first loop of its size that it may be in: an operand that stands at the same place of the loop is a
variable of the loop's body; anything else must have been finished before, and is read from memory.

A repetition, the transition's own loop, is a stretch of groups between an opening and a closing one; no node is moved
into it or out of it.
"""

from __future__ import annotations

from collections.abc import Iterator

from compiled_ebm.backends.fused.groups import (
    Closing,
    Draw,
    Group,
    Loop,
    Opening,
    Plan,
    Product,
    RowReduce,
    Section,
    is_inner_loop,
)
from compiled_ebm.backends.fused.program import (
    Carried,
    Carry,
    Close,
    Dot,
    Ids,
    Input,
    Literal,
    Node,
    Open,
    Pointwise,
    Reduce,
    Role,
    TileProgram,
    distinct,
)

__all__ = ["LONG_OPERATIONS", "UNROLLED", "plan", "statements"]

_STRAIGHT_LINE = 1500
"""Statements of a program that has no loops at all: what a compiler takes in a fraction of a second."""
UNROLLED = 1 << 60
"""Statements of a program that shall have no loops."""
_CARRIED = 8
"""Statements that an element of the state or of a carry costs: it is loaded, stored, kept, and alive all the while."""
_LONG = 20
LONG_OPERATIONS = frozenset(
    "exp exp2 expm1 log log2 log10 log1p sin cos tan asin acos atan sinh cosh tanh asinh acosh atanh erf erfc erfcx "
    "erfinv ndtri sigmoid softplus log1p_unit lgamma digamma trigamma pow atan2 fmod remainder hypot".split()
)
"""Operations that are some twenty statements each once they are inlined."""
_SMALL = 16
"""Elements of a node whose elements are single statements in any program."""


def plan(program: TileProgram, straight_line: int = _STRAIGHT_LINE, small: int = _SMALL) -> Plan:
    """Put every node into a group."""
    nodes = program.nodes
    flat = sum(_statements(node) for node in nodes) <= straight_line
    wide = tuple(not flat and _is_wide(node, small) for node in nodes)
    planner = _Planner(program, wide, flat)
    for index, node in enumerate(nodes):
        planner.place(index, node)
    single = sum(_statements(node) for group in planner.groups if isinstance(group, Section) for node in group.nodes)
    return Plan(tuple(planner.groups), single, flat, wide)


def statements(program: TileProgram) -> int:
    """How many a program without loops has, an element of a pointwise operation being one."""
    return sum(
        node.arg.size
        if isinstance(node, Reduce)
        else node.left.size * node.right.shape[1]
        if isinstance(node, Dot)
        else node.size
        for node in program.nodes
        if isinstance(node, (Pointwise, Reduce, Dot))
    )


def _statements(node: Node) -> int:
    if isinstance(node, Pointwise):
        return node.size * (_LONG if node.op in LONG_OPERATIONS else 1)
    if isinstance(node, Reduce):
        return node.arg.size
    if isinstance(node, Carry) or (isinstance(node, Input) and node.role in (Role.STATE, Role.CHAIN_KWARG)):
        return _CARRIED * node.size
    return node.left.size * node.right.shape[1] if isinstance(node, Dot) else 0


def _is_wide(node: Node, small: int) -> bool:
    if isinstance(node, (Dot, Literal)):
        return True
    if isinstance(node, Input):
        return node.role is Role.CONSTANT or node.size > small
    return node.size > small


class _Planner:
    def __init__(self, program: TileProgram, wide: tuple[bool, ...], flat: bool) -> None:
        self.groups: list[Group] = []
        self._nodes = program.nodes
        self._owner = program.owner()
        self._wide = wide
        self._flat = flat
        self._group_of: dict[int, int] = {}
        """Where a node is made; inputs and literals are there from the start."""
        self._open: list[Opening | None] = [None]
        """The repetitions that are open."""
        self._within: list[Opening | None] = []
        """For each group, the innermost repetition that it stands in."""

    def place(self, index: int, node: Node) -> None:
        if isinstance(node, (Open, Carry, Close, Carried)):
            self._repetition(index, node)
        elif isinstance(node, Input):
            if node.role in (Role.NORMALS, Role.UNIFORMS) and self._wide[index]:
                self._group_of[index] = self._append(Draw(node))
        elif isinstance(node, Literal):
            pass
        elif isinstance(node, Dot) and not self._flat:
            self._group_of[index] = self._append(Product(node))
        elif isinstance(node, Reduce) and not self._wide[index] and not self._flat and is_inner_loop(node):
            self._group_of[index] = max(
                self._loop(node.arg.shape[1], [node.arg[row]], RowReduce(node, row)) for row in range(node.size)
            )
        elif self._wide[index]:
            assert isinstance(node, (Pointwise, Reduce))
            operands = list(node.operands())
            after = 0
            if isinstance(node, Reduce):
                if is_inner_loop(node):
                    after, operands = self._finished(node.arg), []
                else:
                    operands = list(node.arg.T)
            self._group_of[index] = self._loop(node.size, operands, node, after)
        else:
            self._group_of[index] = self._section(node)

    def _repetition(self, index: int, node: Open | Carry | Close | Carried) -> None:
        if isinstance(node, Open):
            opening = Opening(node)
            self._append(opening)
            self._open.append(opening)
        elif isinstance(node, Carry):
            opened = self._open[-1]
            assert opened is not None
            opened.carries.append(node)
            self._group_of[index] = self.groups.index(opened)
        elif isinstance(node, Close):
            self._open.pop()
            self._append(Closing(node))
        else:
            g, closing = next(
                (g, group)
                for g, group in enumerate(self.groups)
                if isinstance(group, Closing) and node.carry in group.node.carries
            )
            closing.results.append(node)
            self._group_of[index] = g

    def _append(self, group: Group) -> int:
        self.groups.append(group)
        self._within.append(self._open[-1])
        return len(self.groups) - 1

    def _from(self, first: int) -> Iterator[tuple[int, Group]]:
        """The groups from here on that stand in the repetition that is open."""
        for g in range(first, len(self.groups)):
            if self._within[g] is self._open[-1]:
                yield g, self.groups[g]

    def _owners(self, ids: Ids) -> Iterator[int]:
        yield from distinct(self._owner[ids.reshape(-1)]).tolist()

    def _finished(self, *operands: Ids) -> int:
        """The first group after all that make these elements."""
        return max((self._group_of.get(o, -1) + 1 for ids in operands for o in self._owners(ids)), default=0)

    def _section(self, node: Node) -> int:
        first = 0
        for ids in node.operands():
            for o in self._owners(ids):
                made = self._group_of.get(o, -1)
                first = max(first, made if made >= 0 and isinstance(self.groups[made], Section) else made + 1)
        for g, group in self._from(first):
            if isinstance(group, Section):
                group.nodes.append(node)
                return g
        return self._append(Section([node]))

    def _loop(self, size: int, operands: list[Ids], item: Pointwise | Reduce | RowReduce, after: int = 0) -> int:
        for ids in operands:
            owners = list(self._owners(ids))
            if len(owners) == 1 and self._aligned(ids, owners[0], size):
                after = max(after, self._group_of[owners[0]])
            else:
                after = max(after, self._finished(ids))
        fitting = (g for g, other in self._from(after) if isinstance(other, Loop) and other.size == size)
        g = next(fitting, -1)
        if g < 0:
            g = self._append(Loop(size))
        group = self.groups[g]
        assert isinstance(group, Loop)
        (group.row_reduces if isinstance(item, RowReduce) else group.nodes).append(item)  # type: ignore[arg-type]
        return g

    def _aligned(self, ids: Ids, owner: int, size: int) -> bool:
        made = self._group_of.get(owner, -1)
        if made < 0 or not isinstance(self.groups[made], Loop) or not self._wide[owner]:
            return False
        node = self._nodes[owner]
        return node.size == size and bool((ids == node.ids).all())
