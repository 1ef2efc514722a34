"""Where values stand in a generated Triton kernel: variables of one number a chain, or of a whole node a chain.

A node of few elements is a variable for each element, ``[chains]``. Any other is one variable with an axis for its
elements, padded to a power of two: ``[chains, elements]``, or ``[elements, chains]`` where chains come last. What the
padding holds is never looked at: it is masked where a sum or a product would take it in.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from compiled_ebm.backends.fused.groups import Plan
from compiled_ebm.backends.fused.program import (
    Carried,
    Carry,
    Ids,
    Input,
    Kind,
    Literal,
    Node,
    TileProgram,
    distinct,
    is_constant,
)
from compiled_ebm.backends.fused.triton.expressions import dtype, real
from compiled_ebm.backends.fused.triton.pools import Pools

__all__ = ["Form", "Lines", "Values", "padded"]

_GATHER = 3
"""Instructions that move a value between threads, for every place of the row that a thread holds."""
_FEW_SCALARS = 64
"""Constants that are loaded one by one before the loop over steps: each is a register of every thread."""


@dataclass(frozen=True)
class Form:
    """How a program is laid out over threads.

    Args:
        block: Chains of a program instance.
        warps: Of 32 threads, for each instance.
        chains_last: Whether neighbouring threads hold neighbouring chains of a node with an axis, not its elements.
        hoisted: Whether constants with an axis are loaded once a launch and held, not once a step.
        precision: Of matrix products: "tf32x3", "tf32", "bf16" or "fp16".
        unrolled: Whether every element is a variable of its own, and each thread has a chain for itself.
    """

    block: int
    warps: int
    chains_last: bool = False
    hoisted: bool = True
    precision: str = "tf32x3"
    unrolled: bool = False

    def __str__(self) -> str:
        order = "unrolled" if self.unrolled else "chains last" if self.chains_last else "chains first"
        return f"{self.block} chains on {self.warps} warp{'s' if self.warps > 1 else ''}, {order}"


@dataclass
class Lines:
    """Lines of Python at a depth of blocks."""

    depth: int
    lines: list[str] = field(default_factory=list)
    _noted: str = ""

    def __call__(self, line: str) -> None:
        self.lines.append("    " * self.depth + line)

    def open(self, line: str) -> None:
        """Begin a block."""
        self(line)
        self.depth += 1

    def close(self) -> None:
        """End it."""
        self.depth -= 1

    def note(self, line: str) -> None:
        """A comment, unless it is the one that stands above already."""
        if line and line != self._noted:
            self(f"# {line}")
            self._noted = line


def padded(size: int) -> int:
    """Length of an axis for so many elements."""
    return 1 << max(0, size - 1).bit_length()


class Values:
    """Expressions for the elements of a tile program.

    Args:
        program: The tile program.
        planned: Its groups.
        form: Its layout.
    """

    def __init__(self, program: TileProgram, planned: Plan, form: Form) -> None:
        self.program = program
        self.plan = planned
        self.form = form
        self.nodes = program.nodes
        self.owner = program.owner()
        self.pools = Pools()
        self.head = Lines(1)
        """Done once a launch."""
        self.out = Lines(2)
        """The step."""
        self.names: dict[int, str] = {}
        """Variables, by the element that they hold."""
        self.wide: dict[int, str] = {}
        """Variables with an axis, by the index of the node that they hold."""
        self.rounds: list[int] = []
        """How often each repetition is done."""
        self._held: list[dict[object, str]] = [{}]
        """What has been made in the blocks that are open, so that it is made once: the innermost last."""
        self._at_head: dict[object, str] = {}
        self.work = 0.0
        """About how many instructions a thread's code has: what the compiler's time grows with."""
        self._counter = 0
        self._n_scalars = 0
        self._varying = _find_varying(program, self.owner)

    # -- names -------------------------------------------------------------------------------------------------------

    def fresh(self, letter: str) -> str:
        """A name that is not in use."""
        self._counter += 1
        return f"{letter}{self._counter}"

    def enter(self) -> None:
        """A block begins: what is made in it is not there after it."""
        self._held.append({})

    def leave(self) -> None:
        """It ends."""
        self._held.pop()

    def once(self, key: object, letter: str, expression: str) -> str:
        """A variable for the expression, made now if it is not there."""
        for held in self._held:
            if key in held:
                return held[key]
        name = self.fresh(letter)
        self.out(f"{name} = {expression}")
        self._held[-1][key] = name
        return name

    def at_head(self, key: object, letter: str, expression: str) -> str:
        """The same, made before the loop over steps."""
        if key not in self._at_head:
            name = self.fresh(letter)
            self.head(f"{name} = {expression}")
            self._at_head[key] = name
        return self._at_head[key]

    # -- axes --------------------------------------------------------------------------------------------------------

    @property
    def axis(self) -> int:
        """The dimension of the elements."""
        return 0 if self.form.chains_last else 1

    def over_elements(self, name: str) -> str:
        """A value ``[chains]``, the same for all elements."""
        return f"{name}[None, :]" if self.form.chains_last else f"{name}[:, None]"

    def over_chains(self, name: str) -> str:
        """A value ``[elements]``, the same for all chains."""
        return f"{name}[:, None]" if self.form.chains_last else f"{name}[None, :]"

    def shape(self, size: int) -> str:
        """Of a variable with an axis for so many elements."""
        return f"({padded(size)}, BLOCK)" if self.form.chains_last else f"(BLOCK, {padded(size)})"

    def places(self, size: int) -> str:
        """0, 1, 2 .. along an axis, ``[elements]``."""
        return self.at_head(("places", padded(size)), "i", f"tl.arange(0, {padded(size)})")

    def inside(self, size: int) -> str | None:
        """Which places of an axis hold elements, over chains; None if all do."""
        if padded(size) == size:
            return None
        return self.at_head(("inside", size), "m", self.over_chains(f"({self.places(size)} < {size})"))

    def filled(self, value: str, size: int, by: str) -> str:
        """The value with its padding replaced."""
        inside = self.inside(size)
        return value if inside is None else f"tl.where({inside}, {value}, {by})"

    def each(self, size: int) -> float:
        """Elements of an axis that a thread holds, over all its chains."""
        return max(1.0, padded(size) * self.form.block / (32 * self.form.warps))

    # -- elements ----------------------------------------------------------------------------------------------------

    def node(self, i: int) -> Node:
        """The node that an element is of."""
        return self.nodes[int(self.owner[i])]

    def kind(self, ids: Ids) -> Kind:
        """Of all the elements, which are alike."""
        return self.node(int(ids.reshape(-1)[0])).kind

    def literal(self, value: float, kind: Kind) -> str:
        """A number: written as it is where Triton takes it with the precision that it has."""
        if kind is Kind.MASK:
            return self.at_head((kind, value != 0), "L", f"tl.full((), {int(value != 0)}, tl.int1)")
        if kind is Kind.INT:
            return self.at_head((kind, int(value)), "L", f"tl.full((), {int(value)}, tl.int64)")
        text = real(value)
        if self.program.real_bits == 32:
            return f"({text})" if value < 0 else text
        return self.at_head((kind, text), "L", f"tl.full((), {text}, tl.float64)")

    def operands(self, ids: Sequence[int]) -> list[str]:
        """Elements that an operation takes: at least one of them a tensor, which Triton's functions need."""
        found = [self.element(i) for i in ids]
        nodes = [self.node(i) for i in ids]
        if not all(isinstance(node, Literal) for node in nodes):
            return found
        return [
            self.at_head(("tensor", node.kind, text), "L", f"tl.full((), {text}, {dtype(node.kind)})")
            for node, text in zip(nodes, found, strict=True)
        ]

    def element(self, i: int) -> str:
        """One element, ``[chains]`` or one number for all chains."""
        if i in self.names:
            return self.names[i]
        node = self.node(i)
        offset = i - node.first
        if isinstance(node, Literal):
            return self.literal(float(node.values[offset]), node.kind)
        if is_constant(node):
            place = self.pools.add([(node, offset)], node.kind is Kind.REAL)
            array = "reals" if node.kind is Kind.REAL else "ints"
            text = f"tl.load({array} + {place})"
            if node.kind is Kind.MASK:  # Triton's interpreter broadcasts a number that is no number wrongly
                text = f"tl.broadcast_to({text}, (BLOCK,)) != 0"
            key = ("constant", array, place, node.kind)
            if key in self._at_head or self._n_scalars < _FEW_SCALARS:
                self._n_scalars += key not in self._at_head
                return self.at_head(key, "c", text)
            return self.once(key, "c", text)
        return self.once(("element", i), "p", self._picked(node, offset))

    def _picked(self, node: Node, offset: int) -> str:
        """One element of a variable with an axis."""
        here = self.over_chains(f"({self.places(node.size)} == {offset})")
        value = self.wide[int(self.owner[node.first])]
        if node.kind is Kind.MASK:
            return f"tl.sum(tl.where({here}, {value}.to(tl.int32), 0), {self.axis}) != 0"
        zero = "0.0" if node.kind is Kind.REAL else "0"
        return f"tl.sum(tl.where({here}, {value}, {zero}), {self.axis})"

    # -- nodes -------------------------------------------------------------------------------------------------------

    def access(self, ids: Ids, k: str = "") -> str:
        """The elements along an axis; with ``k`` a row of ``ids [rows, size]`` that a loop counts."""
        rows = ids.reshape(1, -1) if ids.ndim == 1 else ids
        flat = rows.reshape(-1)
        first = int(flat[0])
        if (flat == first).all():
            name = self.element(first)
            return self.over_elements(name) if self._has_chains(first) else name
        owners = distinct(self.owner[flat]).tolist()
        if len(owners) == 1 and len(rows) == 1:
            node = self.nodes[owners[0]]
            if node.size == flat.size and bool((flat == node.ids).all()) and owners[0] in self.wide:
                return self.wide[owners[0]]
        key = ("access", rows.tobytes(), rows.shape, k)
        for held in self._held:
            if key in held:
                return held[key]
        value = self._one_of_row(rows, k) if k and (rows == rows[:, :1]).all() else None
        value = value or self._assembled(rows, k)
        name = self.fresh("g")
        self.out(f"{name} = {value}")
        self._held[-1][key] = name
        return name

    def varies(self, ids: Ids | int) -> bool:
        """Whether chains differ in any of the elements."""
        return bool(self._varying[self.owner[np.atleast_1d(ids).reshape(-1)]].any())

    def _has_chains(self, i: int) -> bool:
        """Whether the variable of an element is ``[chains]``."""
        node = self.node(i)
        return self.varies(i) or (is_constant(node) and node.kind is Kind.MASK)

    def full(self, ids: Ids) -> str:
        """:meth:`access` in all its shape, though chains or elements may not differ."""
        flat = ids.reshape(-1)
        value = self.access(ids)
        if self.varies(flat) and (flat != flat[0]).any():
            return value
        if (flat == flat[0]).all() and isinstance(self.node(int(flat[0])), Literal):
            return self.zeros(flat.size, self.kind(flat), value)
        return f"tl.broadcast_to({value}, {self.shape(flat.size)})"

    def _one_of_row(self, rows: Ids, k: str) -> str | None:
        """The k-th row, all of one element; None if that is no simpler than any other row."""
        ids = rows[:, 0]
        owners = distinct(self.owner[ids]).tolist()
        nodes = [self.nodes[o] for o in owners]
        if all(isinstance(node, Literal) or is_constant(node) for node in nodes) and nodes[0].kind is Kind.REAL:
            start = self.pools.add([(self.node(int(i)), int(i) - self.node(int(i)).first) for i in ids], True)
            return f"tl.load(reals + {start} + {k})"
        if len(owners) > 1 or owners[0] not in self.wide or nodes[0].kind is not Kind.REAL:
            return None
        where = ids - nodes[0].first
        stride = int(where[1] - where[0]) if len(where) > 1 else 0
        place = f"{int(where[0])} + {stride} * {k}"
        if not (np.diff(where) == stride).all():
            place = f"tl.load(indices + {self.pools.add_indices(where)} + {k})"
        here = self.over_chains(f"({self.places(nodes[0].size)} == {place})")
        one = f"tl.sum(tl.where({here}, {self.wide[owners[0]]}, 0.0), {self.axis})"
        return self.over_elements(one)

    def _assembled(self, rows: Ids, k: str) -> str:
        """Elements of several nodes, or not in their order."""
        owner = self.owner[rows]
        numbers = np.zeros(rows.shape, dtype=bool)
        pieces: list[tuple[np.ndarray, str]] = []
        for o in distinct(owner.reshape(-1)).tolist():
            node, here = self.nodes[o], owner == o
            if isinstance(node, Literal) or is_constant(node):
                numbers |= here
            elif o in self.wide:
                pieces.append((here, self._gathered(node, np.where(here, rows - node.first, 0), k)))
            else:
                for i in distinct(rows[here]).tolist():
                    value = self.names[i]
                    pieces.append((rows == i, self.over_elements(value) if self.varies(i) else value))
        if numbers.any():
            pieces.append((numbers, self._numbers(rows, numbers, k)))
        pieces.sort(key=lambda piece: -int(piece[0].sum()))
        self.work += 2 * self.each(rows.shape[1]) * len(pieces)
        value = pieces[0][1]
        for here, piece in pieces[1:]:
            chosen = f"tl.where({self._where(here, k)}, {piece}, {value})"
            value = self.fresh("g")
            self.out(f"{value} = {chosen}")
        return value

    def _where(self, here: np.ndarray, k: str) -> str:
        """Which places of the axis a piece fills."""
        places = self.places(here.shape[1])
        if len(here) == 1:
            found = np.flatnonzero(here[0])
            if found[-1] - found[0] + 1 == len(found):
                if len(found) == 1:
                    return self.over_chains(f"({places} == {found[0]})")
                low, high = int(found[0]), int(found[-1]) + 1
                conditions = [f"({places} >= {low})"] if low else []
                conditions += [f"({places} < {high})"] if high < here.shape[1] else []
                return self.over_chains(f"({' & '.join(conditions)})")
        return f"({self._table(here.astype(np.int64), k)} != 0)"

    def _table(self, entries: Ids, k: str) -> str:
        """Whole numbers along an axis, over chains."""
        rows, size = entries.shape
        wide = np.zeros((rows, padded(size)), dtype=np.int64)
        wide[:, :size] = entries
        start = self.pools.add_indices(wide.reshape(-1))
        if rows > 1:
            load = f"tl.load(indices + {start} + {k} * {padded(size)} + {self.places(size)})"
            return self.once(("table", start, k), "t", self.over_chains(load))
        load = self.over_chains(f"tl.load(indices + {start} + {self.places(size)})")
        return self.at_head(("table", start), "t", load)

    def _gathered(self, node: Node, where: Ids, k: str) -> str:
        """Elements of a variable with an axis, by place."""
        value = self.wide[int(self.owner[node.first])]
        size = where.shape[1]
        self.work += _GATHER * self.each(size) * max(1.0, padded(node.size) / 32) * (1 + self.form.chains_last)
        line = self._line(where, node.size)
        index = line or self._table(where, k)
        spread = f"tl.broadcast_to({index}, {self.shape(size)})"
        index = self.at_head(("spread", spread), "t", spread) if len(where) == 1 else spread
        if node.kind is Kind.MASK:
            return f"(tl.gather({value}.to(tl.int32), {index}, {self.axis}) != 0)"
        return f"tl.gather({value}, {index}, {self.axis})"

    def _line(self, where: Ids, limit: int) -> str | None:
        """Places that go up by one, as an expression; held inside the axis."""
        if len(where) > 1 or where.shape[1] < 2 or not (np.diff(where[0]) == 1).all():
            return None
        start = int(where[0, 0])
        return self.over_chains(f"(({self.places(where.shape[1])} + {start}) & {padded(limit) - 1})")

    def _numbers(self, rows: Ids, here: np.ndarray, k: str) -> str:
        """Literals and elements of constants along an axis."""
        kind = self.kind(rows)
        n_rows, size = rows.shape
        entries: list[tuple[Node, int] | None] = []
        for row, present in zip(rows, here, strict=True):
            for i, is_here in zip(row.tolist(), present.tolist(), strict=True):
                node = self.node(i)
                entries.append((node, i - node.first) if is_here else None)
            entries += [None] * (padded(size) - size)
        start = self.pools.add(entries, kind is Kind.REAL)
        array = "reals" if kind is Kind.REAL else "ints"
        key = ("numbers", array, start, kind, n_rows > 1 and k)
        step = f"{k} * {padded(size)} + " if n_rows > 1 else ""
        load = self.over_chains(f"tl.load({array} + {start} + {step}{self.places(size)})")
        if kind is Kind.MASK:
            load += " != 0"
        if n_rows == 1 and self.form.hoisted:
            return self.at_head(key, "w", load)
        return self.once(key, "w", load)

    def zeros(self, size: int, kind: Kind, value: str) -> str:
        """An axis of one number."""
        return f"tl.full({self.shape(size)}, {value}, {dtype(kind)})"


def _find_varying(program: TileProgram, owner: Ids) -> np.ndarray:
    """By node index, whether chains differ in it."""
    varying = np.zeros(len(program.nodes), dtype=bool)
    for o, node in enumerate(program.nodes):
        if isinstance(node, Input):
            varying[o] = not node.role.uniform
        elif isinstance(node, (Carry, Carried)):
            varying[o] = True
        elif not isinstance(node, Literal):
            varying[o] = any(varying[owner[ids.reshape(-1)]].any() for ids in node.operands())
    return varying
