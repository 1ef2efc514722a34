"""The function around a step: load a tile, loop over steps, check the chains, keep draws, store the tile."""

from __future__ import annotations

from compiled_ebm.backends.fused.cpp.checks import Check
from compiled_ebm.backends.fused.cpp.step import Step
from compiled_ebm.backends.fused.cpp.text import Text
from compiled_ebm.backends.fused.frame import CHECKED_LOOP, ENERGY, FRAME, PLAIN_LOOP, SEGMENT
from compiled_ebm.backends.fused.names import LETTER
from compiled_ebm.backends.fused.program import Input, Kind, Literal, Node, Role, is_constant

__all__ = ["assemble", "energy_function"]

_NUMBERS = 8
"""Whole numbers that every launch passes; the rounds of the repetitions follow."""
_TAKE = {Kind.REAL: "take_real", Kind.INT: "take_int", Kind.MASK: "take_mask"}


def assemble(step: Step, energy: str) -> str:
    """The source of the chain loop around a step; ``energy`` is that of the function that it calls, or empty."""
    body, step.out = step.out, Text(depth=1)
    step.mirror_now(lambda node: isinstance(node, Literal) or is_constant(node))
    of = _by_role(step)
    leaves = [*of[Role.STATE], *of[Role.FAILED]]
    check = Check(step, leaves, bool(energy)) if of[Role.SPREAD] else None
    head, load, store = Text(depth=1), Text(depth=2), Text(depth=2)
    for k, node in enumerate(leaves):
        name = LETTER[node.role] + str(node.position)
        head(f"{_lane_type(node)}* const p_{name} = ({_lane_type(node)}*)arrays[{k}];")
        _load(step, node, load)
        _store(step, node, store)
    _load_kwargs(step, of[Role.CHAIN_KWARG], head, load)
    _take_constants(step, head, len(leaves))
    begin = Text(depth=3)
    for node in of[Role.STEP]:
        begin(f"const I {step.names[node.first]} = iset(first_step + s);")
    for node in of[Role.HYPER]:
        begin(f"const R {step.names[node.first]} = rset(hyper[s * n_hyper + {node.position}]);")
    keep = Text(depth=4)
    for node, target in zip(of[Role.STATE][:2], ("keep_x", "keep_energy"), strict=False):
        row = f"{target} + (slot * n_kept_chains + tile * W) * {node.size}L"
        place = step.storage.slots.get(step.index_of(node))
        if place is None:
            for e in range(node.size):
                keep(f"keep_real({row} + {e}, {node.size}, left, {step.names[node.first + e]});")
        else:
            keep(f"for (long e = 0; e < {node.size}; ++e) keep_real({row} + e, {node.size}, left, at[{place} + e]);")
    if check is None:
        loop = PLAIN_LOOP.format(begin=begin, step=body.moved(1), keep=keep)
    else:
        load(f"R {check.spread};")
        loop = CHECKED_LOOP.format(
            begin=begin.moved(1), step=body.moved(2), keep=keep, segment=SEGMENT, **check.parts()
        )
    return FRAME.format(
        tables="\n".join(step.tables),
        scratch=step.storage.size[Kind.REAL],
        head="\n".join(head.lines + step.out.lines),
        energy=energy,
        load=load,
        loop=loop,
        store=store,
    )


def energy_function(step: Step, energy: int) -> str:
    """The source of a function from x to the energy, the element of that number."""
    body, step.out = step.out, Text(depth=1)
    step.mirror_now(lambda node: isinstance(node, Literal) or is_constant(node))
    of = _by_role(step)
    head, load = Text(depth=1), Text(depth=1)
    for node in of[Role.STATE]:  # x alone
        place = step.storage.slots.get(step.index_of(node))
        if place is not None:
            load(f"copy_all(at + {place}, x, {node.size});")
        else:
            for e in range(node.size):
                load(f"const R {step.names[node.first + e]} = x[{e}];")
    _load_kwargs(step, of[Role.CHAIN_KWARG], head, load)
    result = step.element(energy)
    _take_constants(step, head, 0)
    return ENERGY.format(
        tables="\n".join("    " + line for line in step.tables),
        scratch=step.storage.size[Kind.REAL],
        head="\n".join(head.lines + step.out.lines + load.lines),
        step=body.moved(-1),
        result=result,
    )


def _by_role(step: Step) -> dict[Role, list[Input]]:
    inputs = [node for node in step.nodes if isinstance(node, Input)]
    return {role: sorted((n for n in inputs if n.role is role), key=lambda n: n.position) for role in Role}


def _lane_type(node: Node) -> str:
    return "real" if node.kind is Kind.REAL else "long long"


def _load(step: Step, node: Input, load: Text) -> None:
    """A tile's elements of an input, from rows of chains."""
    name, place = LETTER[node.role] + str(node.position), step.storage.slots.get(step.index_of(node))
    take = _TAKE[node.kind]
    load(f"{_lane_type(node)}* const x_{name} = p_{name} + tile * (W * {node.size}L);")
    if place is not None:
        at = "iat" if node.kind is Kind.INT else "at"
        cast = "(R)" if node.kind is Kind.MASK else ""
        load(f"for (long e = 0; e < {node.size}; ++e) {at}[{place} + e] = {cast}{take}(x_{name} + e, {node.size});")
        return
    for e in range(node.size):
        load(f"{node.kind.value} {step.names[node.first + e]} = {take}(x_{name} + {e}, {node.size});")


def _store(step: Step, node: Input, store: Text) -> None:
    name, place = LETTER[node.role] + str(node.position), step.storage.slots.get(step.index_of(node))
    give = "give_real" if node.kind is Kind.REAL else "give_int"
    if place is not None:
        at = "iat" if node.kind is Kind.INT else "at"
        store(f"for (long e = 0; e < {node.size}; ++e) {give}(x_{name} + e, {node.size}, {at}[{place} + e]);")
        return
    for e in range(node.size):
        store(f"{give}(x_{name} + {e}, {node.size}, {step.names[node.first + e]});")


def _load_kwargs(step: Step, nodes: list[Input], head: Text, load: Text) -> None:
    for node in nodes:
        name = LETTER[node.role] + str(node.position)
        head(f"{_lane_type(node)}* const p_{name} = ({_lane_type(node)}*)kwargs[{node.position}];")
        _load(step, node, load)
        for i in node.ids.tolist():
            if i in step.storage.mirrors:
                load(step.mirrored(i))


def _take_constants(step: Step, head: Text, first_array: int) -> None:
    """What every launch passes: constants as they are, packed tables, rounds of repetitions."""
    kinds = {n.position: _lane_type(n) for n in step.nodes if isinstance(n, Input) and is_constant(n)}
    for k, position in enumerate(sorted(step.constants)):
        head(f"const {kinds[position]}* const c{position} = (const {kinds[position]}*)arrays[{first_array + k}];")
    for k in range(len(step.weights)):
        head(f"const real* const w{k} = (const real*)arrays[{first_array + len(step.constants) + k}];")
    for k in range(len(step.rounds)):
        head(f"const long long rounds{k} = numbers[{_NUMBERS + k}];  // of repetition {k}")
