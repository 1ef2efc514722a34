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


def assemble(step: Step, energy: str, n_energy_arrays: int) -> str:
    """The source of the chain loop.

    Args:
        step: One step of it, written.
        energy: The function that evaluates the energy where the step does not; empty if there is none.
        n_energy_arrays: How many arrays that function reads.
    """
    body, step.out = step.out, Text(depth=1)
    step.mirror_now(lambda node: isinstance(node, Literal) or is_constant(node))
    of = _by_role(step)
    head, load, store = Text(depth=1), Text(depth=2), Text(depth=2)
    leaves = [*of[Role.STATE], *of[Role.FAILED]]
    check = Check(step, leaves) if of[Role.SPREAD] else None
    for k, node in enumerate(leaves):
        name = LETTER[node.role] + str(node.position)
        head(f"{_lane_type(node)}* const p_{name} = ({_lane_type(node)}*)arrays[{k}];")
        _load(step, node, load)
        _store(step, node, store)
    arrays = _constant_heads(step, head, len(leaves), 0)
    if check is not None:
        arrays += n_energy_arrays
        head(f"const real* const limit = (const real*)arrays[{arrays}];")
        arrays += 1
        load(f"{check.spread_declaration}")
    for node in of[Role.CHAIN_KWARG]:
        _load_kwarg(step, node, arrays, head, load)
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
    parts = {name: "\n".join(text.lines) for name, text in (("begin", begin), ("keep", keep))}
    if check is None:
        loop = PLAIN_LOOP.format(**parts, step=_indented(body.lines, 1))
    else:
        loop = CHECKED_LOOP.format(
            **parts, step=_indented(body.lines, 2), segment=SEGMENT, **check.parts("energy_of" if energy else None)
        )
    return FRAME.format(
        tables="\n".join(step.tables),
        scratch=step.storage.size[Kind.REAL],
        head="\n".join(head.lines + step.out.lines),
        energy=energy,
        load="\n".join(load.lines),
        loop=loop,
        store="\n".join(store.lines),
    )


def energy_function(step: Step, energy: int, first_array: int, n_constants: int) -> str:
    """The source of a function from x to the energy.

    Args:
        step: The energy's program, written.
        energy: The element that is the energy.
        first_array: Where its constants begin among the arrays.
        n_constants: 
    """
    raise NotImplementedError


def _by_role(step: Step) -> dict[Role, list[Input]]:
    inputs = [node for node in step.nodes if isinstance(node, Input)]
    return {role: sorted((n for n in inputs if n.role is role), key=lambda n: n.position) for role in Role}


def _lane_type(node: Node) -> str:
    return "real" if node.kind is Kind.REAL else "long long"
