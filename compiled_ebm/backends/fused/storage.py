"""Where values live between the loops of a step: one scratch buffer a thread, reused as values die."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from compiled_ebm.backends.fused.groups import (
    Closing,
    Group,
    Loop,
    Opening,
    Plan,
    Product,
    Section,
    makers,
    reads,
    stretches,
)
from compiled_ebm.backends.fused.liveness import last_readers
from compiled_ebm.backends.fused.program import (
    Carried,
    Carry,
    Dot,
    Ids,
    Input,
    Kind,
    Literal,
    Node,
    Role,
    TileProgram,
    distinct,
    is_constant,
)

__all__ = ["Storage"]

_PAGE, _SKEW = 64, 9
"""Vectors of 64 bytes in 4096 bytes, and how far beyond a multiple of it the next buffer begins."""


class Storage:
    """Places of wide nodes, and of single elements that loops read by index.

    Args:
        program: The tile program.
        planned: Its groups.
    """

    def __init__(self, program: TileProgram, planned: Plan) -> None:
        self._program = program
        self._nodes = program.nodes
        self._plan = planned
        self._wide = planned.wide
        self._owner = program.owner()
        self.group_of = makers(program, planned)
        self.size = {Kind.REAL: 0, Kind.INT: 0}
        """Vectors of reals (masks among them), and of int64."""
        self.slots: dict[int, int] = {}
        """By node index, where its first element is."""
        self.mirrors: dict[int, int] = {}
        """By element, where it is too, beside the variable that holds it."""
        self.stored = self._find_stored()
        self._allocate()
        for i in self._find_mirrors():
            self.add_mirror(i)

    def add_mirror(self, i: int) -> None:
        """Give an element a place of its own."""
        space = _space(self._nodes[int(self._owner[i])].kind)
        self.mirrors[i] = self.size[space]
        self.size[space] += 1

    def place(self, i: int) -> int:
        """Where the element stands in memory."""
        o = int(self._owner[i])
        if o in self.slots:
            return self.slots[o] + i - self._nodes[o].first
        return self.mirrors[i]

    def _find_stored(self) -> set[int]:
        """Wide nodes that something reads from outside the round of the loop that makes them."""
        stored: set[int] = set()

        def note(ids: Ids, group: Group | None, size: int | None) -> None:
            for o in distinct(self._owner[ids.reshape(-1)]).tolist():
                node = self._nodes[o]
                if not self._wide[o] or isinstance(node, Literal) or is_constant(node):
                    continue
                here = group is not None and self.group_of.get(o) is group and not isinstance(group, Section)
                if not (here and size == node.size and ids.size == size and bool((ids == node.ids).all())):
                    stored.add(o)

        for group in self._plan.groups:
            for ids, size in reads(group):
                note(ids, group, size)
        for ids in self._program.outputs:
            note(ids, None, None)
        for i, node in enumerate(self._nodes):
            if self._wide[i] and isinstance(node, (Input, Dot, Carry, Carried)) and not is_constant(node):
                stored.add(i)
        return stored

    def _allocate(self) -> None:
        """Give every stored node a place: state first, then the rest, each place free again after its last reader."""
        last, end = last_readers(self._program, self._plan, self.group_of), len(self._plan.groups)
        free: dict[Kind, list[tuple[int, int]]] = {Kind.REAL: [], Kind.INT: []}
        for i, node in enumerate(self._nodes):
            if i in self.stored and isinstance(node, Input):
                self.slots[i] = self.grow(node)
                if node.role in (Role.STATE, Role.FAILED, Role.CHAIN_KWARG):
                    last[i] = end  # there in the next step, too
        in_place = self._in_place()
        expiring: dict[int, list[int]] = {}
        for i, node in enumerate(self._nodes):
            if i in self.slots and isinstance(node, Input) and last.get(i, end) < end:
                expiring.setdefault(last[i], []).append(i)
        for g, group in enumerate(self._plan.groups):
            dying = list(expiring.get(g, [])) if isinstance(group, Loop) else []
            for i in sorted(self._made_by(group)):
                if i not in self.stored or i in self.slots:
                    continue
                node = self._nodes[i]
                if isinstance(node, Carried):
                    self.slots[i] = self.slots[int(self._owner[node.carry.first])]
                    continue
                if i in in_place:
                    self.slots[i] = self.slots[in_place[i]]
                    continue
                heir = next((d for d in dying if self._may_inherit(node, d, group)), None)
                if heir is not None:  # element i is read before it is written over, in the same round
                    dying.remove(heir)
                    expiring[g].remove(heir)
                    self.slots[i] = self.slots[heir]
                else:
                    self.slots[i] = self._take(free[_space(node.kind)], node)
                expiring.setdefault(last.get(i, g), []).append(i)
            for i in expiring.pop(g, []):
                free[_space(self._nodes[i].kind)].append((self.slots[i], self._nodes[i].size))

    def _may_inherit(self, new: Node, index: int, group: Group) -> bool:
        """Whether ``new`` may take the place of a node that dies in the loop that makes it."""
        old = self._nodes[index]
        if old.size != new.size or _space(old.kind) is not _space(new.kind) or not isinstance(group, Loop):
            return False
        return all(self._may_replace(i, group, new) for i in (index, *self._results_of(index)))

    def _results_of(self, index: int) -> list[int]:
        """What a repetition leaves in the place of its carry, if the node is one."""
        if not isinstance(self._nodes[index], Carry):
            return []
        return [
            i
            for i, node in enumerate(self._nodes)
            if isinstance(node, Carried) and int(self._owner[node.carry.first]) == index
        ]

    def _in_place(self) -> dict[int, int]:
        """Results that may be written over the state that they replace: nothing reads that state afterwards."""
        groups, outputs = self._plan.groups, self._program.outputs
        leaves = self._program.leaves()
        found = self._replacing([(leaf, outputs[k]) for k, leaf in leaves.items()], outputs, 0, len(groups))
        for first, stop in stretches(self._plan):
            carries = groups[first].carries  # type: ignore[union-attr]
            found |= self._replacing([(c, c.next) for c in carries], [c.next for c in carries], first, stop)
        return found

    def _replacing(
        self, pairs: Sequence[tuple[Node, Ids]], nexts: Sequence[Ids], first: int, stop: int
    ) -> dict[int, int]:
        """The same for (old, new) pairs whose new values are made in groups ``first .. stop``, and taken at the end."""
        found: dict[int, int] = {}
        groups = self._plan.groups
        for leaf, ids in pairs:
            old, owner = int(self._owner[leaf.first]), int(self._owner[int(ids[0])])
            node, group = self._nodes[owner], self.group_of.get(owner)
            if not self._wide[old] or not isinstance(group, Loop) or node.size != leaf.size or owner in found:
                continue
            made = groups.index(group)
            if not bool((ids == node.ids).all()) or not first <= made < stop:
                continue
            later_reads = [r for g in groups[made + 1 : stop] for r, _ in reads(g)]
            later_reads += [other for other in nexts if other is not ids]
            if any((self._owner[r.reshape(-1)] == old).any() for r in later_reads):
                continue
            if self._may_replace(old, group, node):
                found[owner] = old
        return found

    def _may_replace(self, index: int, group: Loop, new: Node) -> bool:
        """Whether the loop reads element i of the node in round i alone, and not after it has made ``new``'s."""
        node = self._nodes[index]
        after = group.nodes[group.nodes.index(new) + 1 :]  # type: ignore[arg-type]
        late = [ids for n in after for ids in n.operands()] + [r.node.arg[r.row] for r in group.row_reduces]
        if any((self._owner[ids.reshape(-1)] == index).any() for ids in late):
            return False
        for ids, size in reads(group):
            if not (self._owner[ids.reshape(-1)] == index).any():
                continue
            if size != node.size or ids.size != size or not bool((ids == node.ids).all()):
                return False
        return True

    def _made_by(self, group: Group) -> Iterable[int]:
        return (i for i, made in self.group_of.items() if made is group and self._wide[i])

    def grow(self, node: Node) -> int:
        """Room for the node's elements at the end."""
        space = _space(node.kind)
        start = self.size[space]
        self.size[space] += node.size
        if node.size >= _PAGE // 2:
            # buffers a multiple of 4096 bytes apart would share their cache sets, and stores would stall loads
            self.size[space] += (_SKEW - node.size) % _PAGE
        return start

    def _take(self, free: list[tuple[int, int]], node: Node) -> int:
        fitting = [place for place in free if place[1] >= node.size]
        if not fitting:
            return self.grow(node)
        start, size = min(fitting, key=lambda place: place[1])
        free.remove((start, size))
        if size > node.size:
            free.append((start + node.size, size - node.size))
        return start

    def _find_mirrors(self) -> tuple[int, ...]:
        """Elements without a place in memory that some loop reads by an index that varies."""
        mirrored: dict[int, None] = {}
        in_memory = np.array([o in self.stored for o in range(len(self._nodes))])
        for group in self._plan.groups:
            for ids, _ in reads(group):
                if isinstance(group, (Section, Opening, Closing)):
                    continue
                flat = ids.reshape(-1)
                if (flat == flat[0]).all() and not isinstance(group, Product):
                    continue
                owners = distinct(self._owner[flat])
                nodes = [self._nodes[o] for o in owners]
                if all(isinstance(n, Literal) for n in nodes) and not isinstance(group, Product):
                    continue
                if len(nodes) == 1 and is_constant(nodes[0]):
                    continue
                elements = distinct(flat)
                for i in elements[~in_memory[self._owner[elements]]].tolist():
                    o = int(self._owner[i])
                    if self._wide[o] and self.group_of.get(o) is group and not isinstance(group, Product):
                        continue
                    mirrored[i] = None
        return tuple(mirrored)


def _space(kind: Kind) -> Kind:
    return Kind.INT if kind is Kind.INT else Kind.REAL
