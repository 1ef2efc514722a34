"""Where values stand: variables, scratch memory, literals, constants, as C++ expressions."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from compiled_ebm.backends.fused.expressions import literal, real
from compiled_ebm.backends.fused.groups import Loop, Plan
from compiled_ebm.backends.fused.program import Ids, Input, Kind, Literal, Node, TileProgram, distinct, is_constant
from compiled_ebm.backends.fused.storage import Storage

__all__ = ["References"]


class References:
    """Expressions for the elements of a tile program.

    Args:
        program: The tile program.
        planned: Its groups.
    """

    def __init__(self, program: TileProgram, planned: Plan) -> None:
        self.nodes = program.nodes
        self.owner = program.owner()
        self.storage = Storage(program, planned)
        self.names: dict[int, str] = {}
        """Variables, by the element that they hold."""
        self.constants: set[int] = set()
        """Positions of the constants that are read as they are."""
        self.tables: list[str] = []
        """Definitions of the tables of indices and numbers that loops read."""
        self._table_names: dict[bytes, str] = {}

    def element(self, i: int) -> str:
        """One element, as an expression."""
        if i in self.names:
            return self.names[i]
        o = int(self.owner[i])
        node = self.nodes[o]
        offset = i - node.first
        if isinstance(node, Literal):
            return literal(float(node.values[offset]), node.kind)
        if is_constant(node):
            return self._constant(node, str(offset))
        assert o in self.storage.slots, f"element {i} of {node} is nowhere"
        return self.load(node.kind, str(self.storage.slots[o] + offset))

    def _constant(self, node: Node, index: str) -> str:
        assert isinstance(node, Input)
        self.constants.add(node.position)
        at = f"c{node.position}[{index}]"
        return {Kind.REAL: f"rset({at})", Kind.INT: f"iset({at})", Kind.MASK: f"mset({at} != 0)"}[node.kind]

    def load(self, kind: Kind, index: str) -> str:
        """What stands in memory at an index."""
        return {Kind.REAL: f"at[{index}]", Kind.INT: f"iat[{index}]", Kind.MASK: f"(M)at[{index}]"}[kind]

    def access(self, ids: Ids, round_: str, group: Loop, kind: Kind) -> str:
        """``ids[round]`` inside a loop, or inside two nested ones where ``ids`` has two dimensions."""
        flat = ids.reshape(-1)
        first = int(flat[0])
        if (flat == first).all():
            return self.element(first)
        owners = distinct(self.owner[flat]).tolist()
        if len(owners) == 1:
            node = self.nodes[owners[0]]
            if (
                self.storage.group_of.get(owners[0]) is group
                and node.size == flat.size
                and bool((flat == node.ids).all())
            ):
                return f"v{node.first}"
            if is_constant(node):
                return self._constant(node, self.index(flat - node.first, ids.shape, round_))
        if all(isinstance(self.nodes[o], Literal) for o in owners):
            values = np.array([self._literal_value(int(i)) for i in flat])
            return self._literal_table(values, kind, self.index(np.arange(flat.size), ids.shape, round_))
        where = np.array([self.storage.place(int(i)) for i in flat], dtype=np.int64)
        return self.load(kind, self.index(where, ids.shape, round_))

    def _literal_value(self, i: int) -> float:
        node = self.nodes[int(self.owner[i])]
        assert isinstance(node, Literal)
        return float(node.values[i - node.first])

    def _literal_table(self, values: NDArray[np.float64], kind: Kind, index: str) -> str:
        if kind is Kind.REAL:
            name = self._table("real", [real(float(v)) for v in values])
            return f"rset({name}[{index}])"
        name = self._table("long long", [str(int(v)) for v in values])
        return f"iset({name}[{index}])" if kind is Kind.INT else f"mset({name}[{index}] != 0)"

    def index(self, where: NDArray[np.int64], shape: tuple[int, ...], round_: str) -> str:
        """``where`` as a function of the loops' counters: a line where it is one, else a table."""
        rounds = round_.split(",")
        grid = where.reshape(shape)
        strides = [
            int(np.diff(np.take(grid, [0, 1], axis=d), axis=d).reshape(-1)[0]) if n > 1 else 0
            for d, n in enumerate(shape)
        ]
        line = sum(
            (
                np.arange(n).reshape([-1 if d == e else 1 for e in range(len(shape))]) * s
                for d, (n, s) in enumerate(zip(shape, strides, strict=True))
            ),
            np.zeros(shape, dtype=np.int64),
        ) + int(grid.reshape(-1)[0])
        if (line == grid).all():
            terms = [r if s == 1 else f"{s} * {r}" for r, s in zip(rounds, strides, strict=True) if s != 0]
            start = int(grid.reshape(-1)[0])
            return " + ".join([*([str(start)] if start or not terms else []), *terms])
        name = self._table("int32_t", [str(int(v)) for v in where.reshape(-1)])
        counter = rounds[0] if len(rounds) == 1 else f"{rounds[0]} * {shape[1]} + {rounds[1]}"
        return f"{name}[{counter}]"

    def _table(self, type_: str, entries: list[str]) -> str:
        text = ", ".join(entries)
        key = f"{type_} {text}".encode()
        if key not in self._table_names:
            name = f"T{len(self.tables)}"
            self._table_names[key] = name
            self.tables.append(f"static const {type_} {name}[] = {{{text}}};")
        return self._table_names[key]

    def kind(self, ids: Ids) -> Kind:
        """Of all the elements, which are alike."""
        return self.nodes[int(self.owner[int(ids.reshape(-1)[0])])].kind

    def index_of(self, node: Node) -> int:
        """The node's place in the program."""
        return int(self.owner[node.first])
