"""The C++ emitter: a tile program becomes one function that runs the whole chain loop.

A tile is one vector of chains. Its state is loaded once, all steps of the launch run in registers and a scratch buffer
in the first-level cache, and the state is stored again. What bounds the cost: multiply-adds of the products, the
polynomials of exp and its like, 0.6 ns a normal; loads and stores of the scratch buffer where loops pass values on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from compiled_ebm.backends.fused.expressions import COMBINE, EXPRESSIONS, literal, real
from compiled_ebm.backends.fused.frame import FRAME
from compiled_ebm.backends.fused.groups import Closing, Loop, Opening, Plan, Product, Section, is_inner_loop, reads
from compiled_ebm.backends.fused.names import LETTER
from compiled_ebm.backends.fused.plan import plan
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
    TileProgram,
    distinct,
    is_constant,
)
from compiled_ebm.backends.fused.storage import Storage

__all__ = ["Kernel", "emit"]

_NUMBERS = 8
"""Whole numbers that every launch passes; the rounds of the repetitions follow."""
_BLOCK = 12
"""Results of a product that are in registers at once: with the operand and a broadcast they leave AVX2 none to spare,
and hide the latency of the multiply-add on both."""
_MANY_SELECTS = 200
"""Selects from which on GCC shall not look through them."""
_START = {"sum": "0", "prod": "1", "max": "-(real)__builtin_inf()", "min": "(real)__builtin_inf()"}


@dataclass(frozen=True)
class Kernel:
    """Generated source and what its caller must provide.

    Args:
        source: C++, to be compiled behind ``lanes.h``.
        plan: The order of work.
        scratch: Vectors of reals, and int64 vectors, that a thread needs.
        weights: For every packed table of constants: the constant's position and, for each entry, its index.
        constants: Positions of the constants that are read as they are.
        rounds: How often each repetition is done: the source is the same for any number.
    """

    source: str
    plan: Plan
    scratch: tuple[int, int]
    weights: tuple[tuple[int, NDArray[np.int64]], ...]
    constants: tuple[int, ...]
    rounds: tuple[int, ...]


def emit(program: TileProgram) -> Kernel:
    """Generate the kernel of a tile program."""
    return _Emitter(program, plan(program)).kernel()


@dataclass
class _Text:
    lines: list[str] = field(default_factory=list)
    depth: int = 2

    def __call__(self, line: str) -> None:
        self.lines.append("    " * self.depth + line)

    def open(self, line: str) -> None:
        self(f"{line} {{".lstrip())
        self.depth += 1

    def close(self) -> None:
        self.depth -= 1
        self("}")


class _Emitter:
    def __init__(self, program: TileProgram, planned: Plan) -> None:
        self._program = program
        self._nodes = program.nodes
        self._plan = planned
        self._owner = program.owner()
        self._storage = Storage(program, planned)
        self._out = _Text()
        self._tables: list[str] = []
        self._table_names: dict[bytes, str] = {}
        self._weights: list[tuple[int, NDArray[np.int64]]] = []
        self._constants: set[int] = set()
        self._names: dict[int, str] = {}
        self._line = ""
        self._wide = planned.wide
        selects = [n.size for n in program.nodes if isinstance(n, Pointwise) and n.op == "rsel"]
        self._keeps_apart = sum(selects) > _MANY_SELECTS
        self._rounds: list[int] = []

    # -- references --------------------------------------------------------------------------------------------------

    def _element(self, i: int) -> str:
        """One element, as an expression."""
        if i in self._names:
            return self._names[i]
        o = int(self._owner[i])
        node = self._nodes[o]
        offset = i - node.first
        if isinstance(node, Literal):
            return literal(float(node.values[offset]), node.kind)
        if is_constant(node):
            return self._constant(node, str(offset))
        assert o in self._storage.slots, f"element {i} of {node} is nowhere"
        return self._load(node.kind, str(self._storage.slots[o] + offset))

    def _constant(self, node: Node, index: str) -> str:
        assert isinstance(node, Input)
        self._constants.add(node.position)
        at = f"c{node.position}[{index}]"
        return {Kind.REAL: f"rset({at})", Kind.INT: f"iset({at})", Kind.MASK: f"mset({at} != 0)"}[node.kind]

    def _load(self, kind: Kind, index: str) -> str:
        return {Kind.REAL: f"at[{index}]", Kind.INT: f"iat[{index}]", Kind.MASK: f"(M)at[{index}]"}[kind]

    def _store(self, kind: Kind, index: str, value: str) -> None:
        at = f"iat[{index}]" if kind is Kind.INT else f"at[{index}]"
        self._out(f"{at} = {f'(R){value}' if kind is Kind.MASK else value};")

    def _access(self, ids: Ids, round_: str, group: Loop, kind: Kind) -> str:
        """``ids[round]`` inside a loop, or inside two nested ones where ``ids`` has two dimensions."""
        flat = ids.reshape(-1)
        first = int(flat[0])
        if (flat == first).all():
            return self._element(first)
        owners = distinct(self._owner[flat]).tolist()
        if len(owners) == 1:
            node = self._nodes[owners[0]]
            if (
                self._storage.group_of.get(owners[0]) is group
                and node.size == flat.size
                and bool((flat == node.ids).all())
            ):
                return f"v{node.first}"
            if is_constant(node):
                return self._constant(node, self._index(flat - node.first, ids.shape, round_))
        if all(isinstance(self._nodes[o], Literal) for o in owners):
            values = np.array([self._literal_value(int(i)) for i in flat])
            return self._literal_table(values, kind, self._index(np.arange(flat.size), ids.shape, round_))
        where = np.array([self._storage.place(int(i)) for i in flat], dtype=np.int64)
        return self._load(kind, self._index(where, ids.shape, round_))

    def _literal_value(self, i: int) -> float:
        node = self._nodes[int(self._owner[i])]
        assert isinstance(node, Literal)
        return float(node.values[i - node.first])

    def _literal_table(self, values: NDArray[np.float64], kind: Kind, index: str) -> str:
        if kind is Kind.REAL:
            name = self._table("real", [real(float(v)) for v in values])
            return f"rset({name}[{index}])"
        name = self._table("long long", [str(int(v)) for v in values])
        return f"iset({name}[{index}])" if kind is Kind.INT else f"mset({name}[{index}] != 0)"

    def _index(self, where: NDArray[np.int64], shape: tuple[int, ...], round_: str) -> str:
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
            name = f"T{len(self._tables)}"
            self._table_names[key] = name
            self._tables.append(f"static const {type_} {name}[] = {{{text}}};")
        return self._table_names[key]

    # -- the step ----------------------------------------------------------------------------------------------------

    def kernel(self) -> Kernel:
        """Emit everything."""
        self._needed = self._find_needed()
        self._name_inputs()
        body = self._out
        self._mirror_now(lambda node: isinstance(node, Input) and node.role in (Role.STEP, Role.HYPER))
        self._draw_small()
        self._mirror_now(
            lambda node: isinstance(node, Input) and node.role in (Role.STATE, Role.FAILED, Role.NORMALS, Role.UNIFORMS)
        )
        for group in self._plan.groups:
            if isinstance(group, Section):
                self._emit_section(group)
            elif isinstance(group, Loop):
                self._emit_loop(group)
            elif isinstance(group, Product):
                self._emit_product(group.node)
            elif isinstance(group, Opening):
                self._emit_opening(group)
            elif isinstance(group, Closing):
                self._emit_closing(group)
            else:
                self._emit_draw(group.node)
        self._emit_outputs()
        source = self._assemble(body.lines)
        return Kernel(
            source=source,
            plan=self._plan,
            scratch=(self._storage.size[Kind.REAL], self._storage.size[Kind.INT]),
            weights=tuple(self._weights),
            constants=tuple(sorted(self._constants)),
            rounds=tuple(self._rounds),
        )

    def _find_needed(self) -> NDArray[np.bool_]:
        """Elements that something reads."""
        needed = np.zeros(self._owner.size, dtype=bool)
        for ids in self._program.outputs:
            needed[ids] = True
        for group in reversed(self._plan.groups):
            if not isinstance(group, Section):
                for ids, _ in reads(group):
                    needed[ids.reshape(-1)] = True
                continue
            for node in reversed(group.nodes):
                live = np.flatnonzero(needed[node.first : node.first + node.size])
                for operand in _element_operands(node):
                    needed[operand[live].reshape(-1)] = True
        return needed

    def _name_inputs(self) -> None:
        for i, node in enumerate(self._nodes):
            if not isinstance(node, Input) or self._wide[i] or is_constant(node):
                continue
            for e in range(node.size):
                self._names[node.first + e] = f"{LETTER[node.role]}{node.position}_{e}"

    def _mirror_now(self, wanted: Callable[[Node], bool]) -> None:
        for i in self._storage.mirrors:
            if wanted(self._nodes[int(self._owner[i])]):
                self._mirror(i)

    def _mirror(self, i: int) -> None:
        node = self._nodes[int(self._owner[i])]
        self._store(node.kind, str(self._storage.mirrors[i]), self._element(i))

    def _draw_small(self) -> None:
        for i, node in enumerate(self._nodes):
            if not isinstance(node, Input) or self._wide[i] or node.role not in (Role.NORMALS, Role.UNIFORMS):
                continue
            draw = "normals" if node.role is Role.NORMALS else "uniforms"
            self._note(f"this step's {draw}")
            for block in range(0, node.size, 4):
                count = 2 if node.size <= 2 and draw == "normals" else 4
                self._out(f"R {LETTER[node.role]}b{block}[{count}];")
                self._out(
                    f"{draw}{count}(keys, words, {block // 4}u | {draw}_stream, step, {LETTER[node.role]}b{block});"
                )
                for e in range(block, min(block + 4, node.size)):
                    self._out(f"const R {self._names[node.first + e]} = {LETTER[node.role]}b{block}[{e - block}];")

    def _emit_draw(self, node: Input) -> None:
        """Blocks of four into memory; the last may be shorter."""
        draw = "normals" if node.role is Role.NORMALS else "uniforms"
        start = self._storage.slots[self._index_of(node)]
        self._note(f"this step's {draw}")
        width = 8 if draw == "normals" and node.size % 8 == 0 else 4
        blocks, rest = divmod(node.size, width)
        if blocks:
            self._out.open(f"for (long b = 0; b < {blocks}; ++b)")
            self._out(f"R z[{width}];")
            block = f"{width // 4} * (uint32_t)b" if width > 4 else "(uint32_t)b"
            self._out(f"{draw}{width}(keys, words, {block} | {draw}_stream, step, z);")
            self._out(f"for (long j = 0; j < {width}; ++j) at[{start} + {width} * b + j] = z[j];")
            self._out.close()
        if rest:
            self._out.open("")
            self._out("R z[4];")
            self._out(f"{draw}4(keys, words, {blocks * width // 4}u | {draw}_stream, step, z);")
            self._out(f"for (long j = 0; j < {rest}; ++j) at[{start + blocks * width} + j] = z[j];")
            self._out.close()

    def _index_of(self, node: Node) -> int:
        return int(self._owner[node.first])

    def _comment(self, node: Node) -> None:
        if node.origin:
            self._note(node.origin)

    def _note(self, line: str) -> None:
        if line != self._line:
            self._out(f"// {line}")
            self._line = line

    # -- sections: depth first, so that few values are alive at once --------------------------------------------------

    def _emit_section(self, group: Section) -> None:
        inside = {self._index_of(node) for node in group.nodes}
        for node in reversed(group.nodes) if self._plan.straight_line else group.nodes:
            for i in node.ids.tolist():
                if self._needed[i]:
                    self._emit_element(i, inside)

    def _emit_element(self, root: int, inside: set[int]) -> None:
        stack = [root]
        while stack:
            i = stack[-1]
            if i in self._names:
                stack.pop()
                continue
            node = self._nodes[int(self._owner[i])]
            e = i - node.first
            operands = [int(x) for operand in _element_operands(node) for x in np.atleast_1d(operand[e]).reshape(-1)]
            missing = [x for x in operands if x not in self._names and int(self._owner[x]) in inside]
            if missing:
                stack += reversed(missing)
                continue
            stack.pop()
            self._comment(node)
            self._names[i] = f"e{i}"
            self._out(f"const {node.kind.value} e{i} = {self._expression(node, e)};")
            if i in self._storage.mirrors:
                self._mirror(i)

    def _expression(self, node: Node, e: int) -> str:
        if isinstance(node, Pointwise):
            form = "rsel_apart({0}, {1}, {2})" if node.op == "rsel" and self._keeps_apart else EXPRESSIONS[node.op]
            return form.format(*(self._element(int(a[e])) for a in node.args))
        if isinstance(node, Reduce):
            return self._folded(COMBINE[node.op, node.kind], [self._element(int(i)) for i in node.arg[e]])
        assert isinstance(node, Dot)
        row, column = divmod(e, node.right.shape[1])
        pairs = zip(node.left[row].tolist(), node.right[:, column].tolist(), strict=True)
        return " + ".join(f"{self._element(a)} * {self._element(b)}" for a, b in pairs)

    def _folded(self, combine: str, terms: list[str]) -> str:
        total = terms[0]
        for term in terms[1:]:
            total = combine.format(f"({total})" if " " in total else total, term)
        return total

    # -- loops -------------------------------------------------------------------------------------------------------

    def _emit_loop(self, group: Loop) -> None:
        self._line = ""
        for reduce in group.row_reduces:
            kind, i = reduce.node.kind, reduce.node.first + reduce.row
            self._out(f"{kind.value} e{i} = {self._start(reduce.node)};")
        inner = self._out
        inner.open(f"for (long i = 0; i < {group.size}; ++i)")
        for node in group.nodes:
            self._comment(node)
            if isinstance(node, Reduce) and is_inner_loop(node):
                inner(f"{node.kind.value} v{node.first} = {self._start(node)};")
                inner.open(f"for (long k = 0; k < {node.arg.shape[1]}; ++k)")
                term = self._access(node.arg, "i,k", group, node.kind)
                inner(f"v{node.first} = {COMBINE[node.op, node.kind].format(f'v{node.first}', term)};")
                inner.close()
            elif isinstance(node, Reduce):
                terms = [self._access(column, "i", group, node.kind) for column in node.arg.T]
                inner(f"const {node.kind.value} v{node.first} = {self._folded(COMBINE[node.op, node.kind], terms)};")
            else:
                operands = [self._access(a, "i", group, self._kind(a)) for a in node.args]
                inner(f"const {node.kind.value} v{node.first} = {EXPRESSIONS[node.op].format(*operands)};")
            if self._index_of(node) in self._storage.stored:
                place = self._storage.slots[self._index_of(node)]
                self._store(node.kind, f"{place} + i" if place else "i", f"v{node.first}")
        for reduce in group.row_reduces:
            i = reduce.node.first + reduce.row
            term = self._access(reduce.node.arg[reduce.row], "i", group, reduce.node.kind)
            inner(f"e{i} = {COMBINE[reduce.node.op, reduce.node.kind].format(f'e{i}', term)};")
        inner.close()
        for reduce in group.row_reduces:
            i = reduce.node.first + reduce.row
            self._names[i] = f"e{i}"
            if i in self._storage.mirrors:
                self._mirror(i)

    def _kind(self, ids: Ids) -> Kind:
        return self._nodes[int(self._owner[int(ids.reshape(-1)[0])])].kind

    def _start(self, node: Reduce) -> str:
        if node.kind is Kind.MASK:
            return f"mset({int(node.op == 'all')})"
        if node.kind is Kind.INT:
            edge = {"sum": "0", "prod": "1", "max": "(-0x7fffffffffffffffLL - 1)", "min": "0x7fffffffffffffffLL"}
            return f"iset({edge[node.op]})"
        return f"rset({_START[node.op]})"

    # -- products ----------------------------------------------------------------------------------------------------

    def _emit_product(self, node: Dot) -> None:
        """Rows times blocks of columns: the side that varies fastest in the packed table is the constant one."""
        self._comment(node)
        rows, columns, row_step, column_step = node.left, node.right.T, node.right.shape[1], 1
        if self._is_one_constant(node.left) and not self._is_one_constant(node.right):
            rows, columns, row_step, column_step = columns, rows, 1, row_step
        packed = self._is_one_constant(columns)
        n_columns = columns.shape[0]
        n_blocks = -(-n_columns // _BLOCK)
        block = -(-n_columns // n_blocks)
        start = self._storage.slots[self._index_of(node)]
        begin = 0
        while begin < n_columns:
            width = min(block, n_columns - begin)
            count = (n_columns - begin) // width if width == block else 1
            self._emit_blocks(
                rows,
                columns[begin : begin + count * width],
                width,
                packed,
                f"{start + begin * column_step}",
                row_step,
                column_step,
            )
            begin += count * width

    def _emit_blocks(
        self, rows: Ids, columns: Ids, width: int, packed: bool, start: str, row_step: int, column_step: int
    ) -> None:
        text, terms, n_blocks = self._out, rows.shape[1], len(columns) // width
        if len(rows) > 1:
            text.open(f"for (long r = 0; r < {len(rows)}; ++r)")
        text.open(f"for (long b = 0; b < {n_blocks}; ++b)")
        text(f"R sum[{width}];")
        text(f"for (int j = 0; j < {width}; ++j) sum[j] = rset(0);")
        if packed:
            owner = self._nodes[int(self._owner[int(columns[0, 0])])]
            assert isinstance(owner, Input)
            table = columns.reshape(n_blocks, width, terms).transpose(0, 2, 1) - owner.first
            weights = self._packed(owner.position, np.ascontiguousarray(table.reshape(-1)))
            text(f"const real* w = w{weights} + b * {terms * width};")
        text.open(f"for (long k = 0; k < {terms}; ++k)")
        where = np.array([self._storage.place(int(i)) for i in rows.reshape(-1)], dtype=np.int64)
        counters = ("r,k", rows.shape) if len(rows) > 1 else ("k", (terms,))
        text(f"const R h = at[{self._index(where, counters[1], counters[0])}];")
        if packed:
            text("LANES_UNROLL")
            text(f"for (int j = 0; j < {width}; ++j) sum[j] += h * rset(w[k * {width} + j]);")
        else:
            places = np.array([self._storage.place(int(i)) for i in columns.reshape(-1)], dtype=np.int64)
            blocks = places.reshape(n_blocks, width, terms)
            for j in range(width):
                index = self._index(np.ascontiguousarray(blocks[:, j]).reshape(-1), (n_blocks, terms), "b,k")
                text(f"sum[{j}] += h * at[{index}];")
        text.close()
        place = f"{start} + {row_step} * r" if len(rows) > 1 else start
        step = "" if column_step == 1 else f"{column_step} * "
        text("LANES_UNROLL")
        text(f"for (int j = 0; j < {width}; ++j) at[{place} + {step}({width} * b + j)] = sum[j];")
        text.close()
        if len(rows) > 1:
            text.close()

    def _packed(self, position: int, table: NDArray[np.int64]) -> int:
        """The number of a packed table; products inside a repetition and after it may share one."""
        for k, (other, known) in enumerate(self._weights):
            if other == position and np.array_equal(known, table):
                return k
        self._weights.append((position, table))
        return len(self._weights) - 1

    def _is_one_constant(self, ids: Ids) -> bool:
        owners = distinct(self._owner[ids.reshape(-1)])
        return len(owners) == 1 and is_constant(self._nodes[owners[0]])

    # -- repetitions: a carry stands in variables, or in a place of its own, and a round ends with its new values

    def _emit_opening(self, group: Opening) -> None:
        self._line = ""
        for carry in group.carries:
            index = self._index_of(carry)
            if self._wide[index]:
                where = self._places(carry.start)
                self._copy(carry, where, self._storage.slots[index])
                continue
            for i, start in zip(carry.ids.tolist(), carry.start.tolist(), strict=True):
                self._names[i] = f"q{i}"
                self._out(f"{carry.kind.value} q{i} = {self._element(start)};")
        k = len(self._rounds)
        self._rounds.append(group.node.rounds)
        self._out.open(f"for (long long round{k} = 0; round{k} < rounds{k}; ++round{k})")
        carried = {i for carry in group.carries for i in carry.ids.tolist()}
        for i in self._storage.mirrors:
            if i in carried:
                self._mirror(i)

    def _emit_closing(self, group: Closing) -> None:
        self._replace([(carry, carry.next) for carry in group.node.carries])
        self._out.close()
        self._line = ""
        for result in group.results:
            for i, now in zip(result.ids.tolist(), result.carry.ids.tolist(), strict=True):
                if now in self._names:
                    self._names[i] = self._names[now]
                if i in self._storage.mirrors:
                    self._mirror(i)

    # -- the end of the step -----------------------------------------------------------------------------------------

    def _emit_outputs(self) -> None:
        """The new state takes the place of the old one."""
        outputs = self._program.outputs
        self._replace([(leaf, outputs[k]) for k, leaf in sorted(self._program.leaves().items())])

    def _replace(self, pairs: list[tuple[Node, Ids]]) -> None:
        """New values take the place of old ones, all at once; where they are parts of the old, through variables."""
        new: list[tuple[str, str, Kind]] = []
        wide: list[tuple[Node, Ids]] = []
        for leaf, ids in pairs:
            index = self._index_of(leaf)
            if self._wide[index]:
                wide.append((leaf, ids))
                continue
            for e, i in enumerate(ids.tolist()):
                target = self._names[leaf.first + e]
                source = self._element(i)
                if source != target:
                    new.append((target, source, leaf.kind))
        self._note("the state for the next step")
        for target, source, kind in new:
            self._out(f"const {kind.value} n_{target} = {source};")
        moves = [(leaf, place) for leaf, ids in wide if (place := self._from(leaf, ids)) is not None]
        staged = {
            id(leaf): self._staged(leaf, where) for leaf, where in moves if self._is_overwritten(leaf, where, moves)
        }
        for leaf, where in moves:
            self._copy(leaf, staged.get(id(leaf), where), self._storage.slots[self._index_of(leaf)])
        for target, _, _ in new:
            self._out(f"{target} = n_{target};")

    def _places(self, ids: Ids) -> NDArray[np.int64]:
        """Where the elements stand in memory; those that do not are put there."""
        for i in ids.tolist():
            if int(self._owner[i]) not in self._storage.slots and i not in self._storage.mirrors:
                self._storage.add_mirror(i)
                self._mirror(i)
        return np.array([self._storage.place(i) for i in ids.tolist()], dtype=np.int64)

    def _from(self, leaf: Node, ids: Ids) -> NDArray[np.int64] | None:
        """Where the elements of the leaf's next value stand, or None if that is where they belong."""
        where = self._places(ids)
        at_home = bool((where == self._storage.slots[self._index_of(leaf)] + np.arange(leaf.size)).all())
        return None if at_home else where

    def _is_overwritten(
        self, leaf: Node, where: NDArray[np.int64], moves: list[tuple[Node, NDArray[np.int64]]]
    ) -> bool:
        """Whether what the leaf takes stands where some leaf's next value goes."""
        for other, _ in moves:
            start = self._storage.slots[self._index_of(other)]
            if other.kind is leaf.kind and bool(((where >= start) & (where < start + other.size)).any()):
                return True
        return False

    def _staged(self, leaf: Node, where: NDArray[np.int64]) -> NDArray[np.int64]:
        start = self._storage.grow(leaf)
        self._copy(leaf, where, start)
        return start + np.arange(leaf.size)

    def _copy(self, leaf: Node, where: NDArray[np.int64], start: int) -> None:
        self._out.open(f"for (long i = 0; i < {leaf.size}; ++i)")
        self._store(leaf.kind, f"{start} + i", self._load(leaf.kind, self._index(where, (leaf.size,), "i")))
        self._out.close()

    def _assemble(self, step: list[str]) -> str:
        """The function around the step: load a tile, loop over steps, keep draws, store the tile."""
        inputs = [node for node in self._nodes if isinstance(node, Input)]
        of = {role: sorted((n for n in inputs if n.role is role), key=lambda n: n.position) for role in Role}
        per_chain = [*of[Role.STATE], *of[Role.FAILED], *of[Role.CHAIN_KWARG]]
        head, load, store = _Text(depth=1), _Text(depth=2), _Text(depth=2)
        for k, node in enumerate(per_chain):
            name, place = LETTER[node.role] + str(node.position), self._storage.slots.get(self._index_of(node))
            lane_type = "real" if node.kind is Kind.REAL else "long long"
            head(f"{lane_type}* const p_{name} = ({lane_type}*)arrays[{k}];")
            load(f"{lane_type}* const x_{name} = p_{name} + tile * (W * {node.size}L);")
            take = {Kind.REAL: "take_real", Kind.INT: "take_int", Kind.MASK: "take_mask"}[node.kind]
            give = "give_real" if node.kind is Kind.REAL else "give_int"
            if place is None:
                for e in range(node.size):
                    load(f"{node.kind.value} {self._names[node.first + e]} = {take}(x_{name} + {e}, {node.size});")
                    if node.role is not Role.CHAIN_KWARG:
                        store(f"{give}(x_{name} + {e}, {node.size}, {self._names[node.first + e]});")
            else:
                at = "iat" if node.kind is Kind.INT else "at"
                cast = "(R)" if node.kind is Kind.MASK else ""
                load(
                    f"for (long e = 0; e < {node.size}; ++e) "
                    f"{at}[{place} + e] = {cast}{take}(x_{name} + e, {node.size});"
                )
                if node.role is not Role.CHAIN_KWARG:
                    store(
                        f"for (long e = 0; e < {node.size}; ++e) {give}(x_{name} + e, {node.size}, {at}[{place} + e]);"
                    )
        mirrored = self._out = _Text(depth=1)
        self._mirror_now(lambda node: isinstance(node, Literal) or is_constant(node))
        first_constant = len(per_chain)
        for k, position in enumerate(sorted(self._constants)):
            node = next(n for n in of[Role.CONSTANT] if n.position == position)
            lane_type = "real" if node.kind is Kind.REAL else "long long"
            head(f"const {lane_type}* const c{position} = (const {lane_type}*)arrays[{first_constant + k}];")
        for k in range(len(self._weights)):
            head(f"const real* const w{k} = (const real*)arrays[{first_constant + len(self._constants) + k}];")
        for k in range(len(self._rounds)):
            head(f"const long long rounds{k} = numbers[{_NUMBERS + k}];  // of repetition {k}")
        begin = _Text(depth=3)
        for node in of[Role.STEP]:
            begin(f"const I {self._names[node.first]} = iset(first_step + s);")
        for node in of[Role.HYPER]:
            begin(f"const R {self._names[node.first]} = rset(hyper[s * n_hyper + {node.position}]);")
        keep = _Text(depth=4)
        for node, target in zip(of[Role.STATE][:2], ("keep_x", "keep_energy"), strict=False):
            row = f"{target} + (slot * n_kept_chains + tile * W) * {node.size}L"
            place = self._storage.slots.get(self._index_of(node))
            if place is None:
                for e in range(node.size):
                    keep(f"keep_real({row} + {e}, {node.size}, left, {self._names[node.first + e]});")
            else:
                keep(
                    f"for (long e = 0; e < {node.size}; ++e) keep_real({row} + e, {node.size}, left, at[{place} + e]);"
                )
        return FRAME.format(
            tables="\n".join(self._tables),
            scratch=self._storage.size[Kind.REAL],
            head="\n".join(head.lines + mirrored.lines),
            load="\n".join(load.lines),
            begin="\n".join(begin.lines),
            step="\n".join("    " + line for line in step),
            keep="\n".join(keep.lines),
            store="\n".join(store.lines),
        )


def _element_operands(node: Node) -> list[Ids]:
    """For each operand an array whose entry e holds what element e reads."""
    if isinstance(node, Dot):
        m, n = node.left.shape[0], node.right.shape[1]
        return [np.repeat(node.left, n, axis=0), np.tile(node.right.T, (m, 1))]
    return list(node.operands())
