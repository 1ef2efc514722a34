"""The Triton emitter: a tile program becomes one kernel that runs the whole chain loop.

A program instance holds ``BLOCK`` chains. Their state is loaded once, all steps of the launch run in registers, noise
included, and the state is stored again. What bounds the cost: instructions issued, or their latency where chains are
too few to fill the device; one load and store of the state a launch.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import numpy as np

from compiled_ebm.backends.fused.groups import (
    Closing,
    Draw,
    Loop,
    Opening,
    Plan,
    Product,
    RowReduce,
    Section,
    is_inner_loop,
)
from compiled_ebm.backends.fused.names import LETTER
from compiled_ebm.backends.fused.program import (
    Dot,
    Ids,
    Input,
    Kind,
    Literal,
    Node,
    Reduce,
    Role,
    TileProgram,
    is_constant,
)
from compiled_ebm.backends.fused.triton.expressions import COMBINE, EXPRESSIONS, REDUCE, combined, dtype, neutral
from compiled_ebm.backends.fused.triton.frame import assemble
from compiled_ebm.backends.fused.triton.pools import Pools
from compiled_ebm.backends.fused.triton.products import emit_product
from compiled_ebm.backends.fused.triton.values import Form, Values, padded

__all__ = ["Kernel", "emit"]


@dataclass(frozen=True)
class Kernel:
    """Generated source and what its caller must provide.

    Args:
        source: Python, the function ``chain_loop``.
        form: The layout that it was written for.
        pools: What it reads of constants, literals and indices; and what the energy's function does, if there is one.
        arguments: Its arguments in order, with their Triton types.
        rounds: How often each repetition is done.
        work: About how many instructions a thread's code has.
    """

    source: str
    form: Form
    pools: tuple[Pools, ...]
    arguments: tuple[tuple[str, str], ...]
    rounds: tuple[int, ...]
    work: float = 0.0


def emit(program: TileProgram, planned: Plan, form: Form, energy: tuple[TileProgram, Plan] | None = None) -> Kernel:
    """Generate the kernel of a tile program.

    Args:
        program: What is done in every step.
        planned: Its groups.
        form: Its layout.
        energy: What gives the energy where the program does not, and its groups; x has the same form in both.
    """
    values, writer = _written(program, planned, form)
    writer.replace(
        [(leaf, program.outputs[k]) for k, leaf in sorted(program.leaves().items())], "the state for the next step"
    )
    if energy is None:
        every = [values]
        source, arguments = assemble(values)
    else:
        function, writer = _written(*energy, form)
        result = writer.one(int(energy[0].outputs[0][0]), Kind.REAL)
        every = [values, function]
        source, arguments = assemble(values, function, result)
    return Kernel(
        source,
        form,
        tuple(v.pools for v in every),
        arguments,
        tuple(n for v in every for n in v.rounds),
        sum(v.work + len(v.out.lines) for v in every),
    )


def _written(program: TileProgram, planned: Plan, form: Form) -> tuple[Values, _Writer]:
    """All groups of a program, one after the other."""
    values = Values(program, planned, form)
    writer = _Writer(values)
    writer.inputs()
    for group in planned.groups:
        writer.group(group)
    return values, writer


class _Writer:
    def __init__(self, values: Values) -> None:
        self._v = values
        self._needed = _find_needed(values)
        self._undrawn: dict[int, tuple[Input, int]] = {}
        """By the element of noise, the node and where in it the block begins."""

    # -- what comes from outside -------------------------------------------------------------------------------------

    def inputs(self) -> None:
        """Names for the inputs; the noise of nodes without an axis."""
        v = self._v
        for o, node in enumerate(v.nodes):
            if not isinstance(node, Input) or is_constant(node):
                continue
            letter = f"{LETTER[node.role]}{node.position}"
            drawn = node.role in (Role.NORMALS, Role.UNIFORMS)
            if v.plan.wide[o]:
                v.wide[o] = letter
            else:
                for e in range(node.size):
                    v.names[node.first + e] = f"{letter}_{e}"
            for block in range(0, node.size, 4) if drawn and not v.plan.wide[o] else ():
                if v.plan.straight_line:  # when it is needed, so that little noise waits for its use
                    self._undrawn |= {node.first + e: (node, block) for e in range(block, min(block + 4, node.size))}
                else:
                    self._draw_block(node, block)

    def _draw_block(self, node: Input, block: int) -> None:
        letter = f"{LETTER[node.role]}{node.position}"
        drawn = [f"{letter}_{e}" if e < node.size else "_" for e in range(block, block + 4)]
        self._v.out(f"{', '.join(drawn)} = {_noise(node, str(block // 4), 'id_low', 'id_high')}")
        for e in range(block, min(block + 4, node.size)):
            self._undrawn.pop(node.first + e, None)

    def _draw_rest(self) -> None:
        while self._undrawn:
            self._draw_block(*next(iter(self._undrawn.values())))

    # -- groups ------------------------------------------------------------------------------------------------------

    def group(self, group: object) -> None:
        if isinstance(group, Section):
            self._section(group)
        elif isinstance(group, Loop):
            self._loop(group)
        elif isinstance(group, Product):
            v = self._v
            v.out.note(group.node.origin)
            name = f"v{group.node.first}"
            emit_product(v, group.node, name)
            v.wide[int(v.owner[group.node.first])] = name
        elif isinstance(group, Draw):
            self._draw(group.node)
        elif isinstance(group, Opening):
            self._opening(group)
        elif isinstance(group, Closing):
            self._closing(group)

    def _draw(self, node: Input) -> None:
        v, name = self._v, f"{LETTER[node.role]}{node.position}"
        blocks = padded(node.size) // 4
        if not blocks:  # an axis of one or two
            v.out(f"{name}a, {name}b, _, _ = {_noise(node, '0', 'id_low', 'id_high')}")
            first = v.over_chains(f"({v.places(node.size)} == 0)")
            v.out(f"{name} = tl.where({first}, {v.over_elements(name + 'a')}, {v.over_elements(name + 'b')})")
            return
        block = v.over_chains(v.places(blocks))
        low, high = v.over_elements("id_low"), v.over_elements("id_high")
        v.out(f"{name}a, {name}b, {name}c, {name}d = {_noise(node, block, low, high)}")
        v.out(f"{name} = interleaved({name}a, {name}b, {name}c, {name}d, {v.form.chains_last})")

    def _section(self, group: Section) -> None:
        v = self._v
        inside = {int(v.owner[node.first]) for node in group.nodes}
        for node in reversed(group.nodes) if v.plan.straight_line else group.nodes:
            for i in node.ids.tolist():
                if self._needed[i]:
                    self._element(i, inside)

    def _element(self, root: int, inside: set[int]) -> None:
        v, stack, taken = self._v, [root], defaultdict[int, int](int)
        while stack:
            i = stack[-1]
            if i in v.names:
                stack.pop()
                continue
            node = v.node(i)
            e = i - node.first
            terms = _terms(node, e)
            operands = terms[taken[i]] if terms else [int(a[e]) for a in node.operands()]
            missing = [x for x in operands if x not in v.names and int(v.owner[x]) in inside]
            if missing:
                stack += reversed(missing)
                continue
            for x in operands:
                if x in self._undrawn:
                    self._draw_block(*self._undrawn[x])
            v.out.note(node.origin)
            if not terms:
                expression = EXPRESSIONS[node.op].format(*v.operands(operands))  # type: ignore[attr-defined]
            else:  # a term as soon as it is there, so that few wait for their turn
                expression = " * ".join(v.element(x) for x in operands)
                if taken[i]:
                    op = node.op if isinstance(node, Reduce) else "sum"
                    expression = COMBINE[op, node.kind].format(f"e{i}", expression)
                taken[i] += 1
            v.out(f"e{i} = {expression}")
            if not terms or taken[i] == len(terms):
                v.names[i] = f"e{i}"
                stack.pop()

    def _loop(self, group: Loop) -> None:
        v = self._v
        for node in group.nodes:
            v.out.note(node.origin)
            v.work += v.each(node.size) * (node.arg.shape[1] if isinstance(node, Reduce) else 1)
            name = f"v{node.first}"
            if isinstance(node, Reduce) and is_inner_loop(node):
                self._inner_loop(node, name)
            elif isinstance(node, Reduce):
                v.out(f"{name} = {combined(node.op, node.kind, [v.access(column) for column in node.arg.T])}")
            else:
                v.out(f"{name} = {EXPRESSIONS[node.op].format(*(v.access(a) for a in node.args))}")
            if not v.varies(node.ids):
                v.out(f"{name} = tl.broadcast_to({name}, {v.shape(node.size)})")
            v.wide[int(v.owner[node.first])] = name
        for reduce in group.row_reduces:
            self._row_reduce(reduce)

    def _inner_loop(self, node: Reduce, name: str) -> None:
        v = self._v
        v.out(f"{name} = {v.zeros(node.size, node.kind, neutral(node.op, node.kind))}")
        k = v.fresh("k")
        v.out.open(f"for {k} in tl.range(0, {node.arg.shape[1]}):")
        v.enter()
        term = v.access(np.ascontiguousarray(node.arg.T), k)
        v.out(f"{name} = {COMBINE[node.op, node.kind].format(name, term)}")
        v.leave()
        v.out.close()

    def _row_reduce(self, reduce: RowReduce) -> None:
        v, node = self._v, reduce.node
        terms = node.arg[reduce.row]
        term = v.filled(v.full(terms), terms.size, neutral(node.op, node.kind))
        i = node.first + reduce.row
        v.out(f"e{i} = {REDUCE[node.op, node.kind].format(term, v.axis)}")
        v.names[i] = f"e{i}"

    # -- repetitions -------------------------------------------------------------------------------------------------

    def _opening(self, group: Opening) -> None:
        v = self._v
        self._draw_rest()
        starts: list[str] = []
        for carry in group.carries:
            o = int(v.owner[carry.first])
            if v.plan.wide[o]:
                starts.append(f"q{carry.first} = {v.full(carry.start)}")
                v.wide[o] = f"q{carry.first}"
                continue
            for i, start in zip(carry.ids.tolist(), carry.start.tolist(), strict=True):
                starts.append(f"q{i} = {self.one(start, carry.kind)}")
                v.names[i] = f"q{i}"
        for line in starts:
            v.out(line)
        k = len(v.rounds)
        v.rounds.append(group.node.rounds)
        v.out(f"round{k} = tl.full((), 0, tl.int64)")
        v.out.open(f"while round{k} < rounds{k}:")
        v.out(f"round{k} += 1")
        v.enter()

    def _closing(self, group: Closing) -> None:
        v = self._v
        self.replace([(carry, carry.next) for carry in group.node.carries], "the carry for the next round")
        v.leave()
        v.out.close()
        for result in group.results:
            o = int(v.owner[result.carry.first])
            if o in v.wide:
                v.wide[int(v.owner[result.first])] = v.wide[o]
                continue
            for i, now in zip(result.ids.tolist(), result.carry.ids.tolist(), strict=True):
                v.names[i] = v.names[now]

    def one(self, i: int, kind: Kind) -> str:
        """An element as a variable of one number a chain, whatever it is."""
        v = self._v
        value = v.element(i)
        if v.varies(i):
            return value
        if isinstance(v.node(i), Literal):
            return f"tl.full((BLOCK,), {value}, {dtype(kind)})"
        return f"tl.broadcast_to({value}, (BLOCK,))"

    def replace(self, pairs: list[tuple[Node, Ids]], what: str) -> None:
        """New values take the place of old ones, all at once."""
        v = self._v
        self._draw_rest()
        moves: list[tuple[str, str]] = []
        for leaf, ids in pairs:
            o = int(v.owner[leaf.first])
            if v.plan.wide[o]:
                moves.append((v.wide[o], v.full(ids)))
                continue
            for e, i in enumerate(ids.tolist()):
                target = v.names[leaf.first + e]
                source = self.one(i, leaf.kind)
                if source != target:
                    moves.append((target, source))
        v.out.note(what)
        for target, source in moves:
            v.out(f"n_{target} = {source}")
        for target, _ in moves:
            v.out(f"{target} = n_{target}")


def _noise(node: Input, block: str, low: str, high: str) -> str:
    stream, draw = (0, "normals4") if node.role is Role.NORMALS else (1, "uniforms4")
    return f"{draw}(seed, {stream}, {block}, step, {low}, {high}, REAL, FAST)"


def _find_needed(v: Values) -> np.ndarray:
    """Elements of nodes without an axis that something reads."""
    from compiled_ebm.backends.fused.groups import reads

    needed = np.zeros(v.owner.size, dtype=bool)
    for ids in v.program.outputs:
        needed[ids] = True
    for group in reversed(v.plan.groups):
        if not isinstance(group, Section):
            for ids, _ in reads(group):
                needed[ids.reshape(-1)] = True
            continue
        for node in reversed(group.nodes):
            live = np.flatnonzero(needed[node.first : node.first + node.size])
            for operand in _element_operands(node):
                needed[operand[live].reshape(-1)] = True
    return needed


def _terms(node: Node, e: int) -> list[list[int]]:
    """What an element that is a reduction takes in, term by term; nothing if it is none."""
    if isinstance(node, Reduce):
        return [[term] for term in node.arg[e].tolist()]
    if isinstance(node, Dot):
        row, column = divmod(e, node.right.shape[1])
        return [list(pair) for pair in zip(node.left[row].tolist(), node.right[:, column].tolist(), strict=True)]
    return []


def _element_operands(node: Node) -> list[Ids]:
    if isinstance(node, Dot):
        m, n = node.left.shape[0], node.right.shape[1]
        return [np.repeat(node.left, n, axis=0), np.tile(node.right.T, (m, 1))]
    return list(node.operands())
