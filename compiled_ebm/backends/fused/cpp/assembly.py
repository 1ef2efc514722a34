"""The function around a step: load a tile, loop over steps, keep draws, store the tile."""

from __future__ import annotations

from compiled_ebm.backends.fused.cpp.step import Step
from compiled_ebm.backends.fused.cpp.text import Text
from compiled_ebm.backends.fused.frame import FRAME
from compiled_ebm.backends.fused.names import LETTER
from compiled_ebm.backends.fused.program import Input, Kind, Literal, Role, is_constant

__all__ = ["assemble"]

_NUMBERS = 8
"""Whole numbers that every launch passes; the rounds of the repetitions follow."""


def assemble(step: Step) -> str:
    """The source: load a tile, loop over steps, keep draws, store the tile."""
    body, step.out = step.out, Text(depth=1)
    step.mirror_now(lambda node: isinstance(node, Literal) or is_constant(node))
    inputs = [node for node in step.nodes if isinstance(node, Input)]
    of = {role: sorted((n for n in inputs if n.role is role), key=lambda n: n.position) for role in Role}
    per_chain = [*of[Role.STATE], *of[Role.FAILED], *of[Role.CHAIN_KWARG]]
    head, load, store = Text(depth=1), Text(depth=2), Text(depth=2)
    for k, node in enumerate(per_chain):
        name, place = LETTER[node.role] + str(node.position), step.storage.slots.get(step.index_of(node))
        lane_type = "real" if node.kind is Kind.REAL else "long long"
        head(f"{lane_type}* const p_{name} = ({lane_type}*)arrays[{k}];")
        load(f"{lane_type}* const x_{name} = p_{name} + tile * (W * {node.size}L);")
        take = {Kind.REAL: "take_real", Kind.INT: "take_int", Kind.MASK: "take_mask"}[node.kind]
        give = "give_real" if node.kind is Kind.REAL else "give_int"
        if place is None:
            for e in range(node.size):
                load(f"{node.kind.value} {step.names[node.first + e]} = {take}(x_{name} + {e}, {node.size});")
                if node.role is Role.CHAIN_KWARG and node.first + e in step.storage.mirrors:
                    load(step.mirrored(node.first + e))
                if node.role is not Role.CHAIN_KWARG:
                    store(f"{give}(x_{name} + {e}, {node.size}, {step.names[node.first + e]});")
        else:
            at = "iat" if node.kind is Kind.INT else "at"
            cast = "(R)" if node.kind is Kind.MASK else ""
            load(f"for (long e = 0; e < {node.size}; ++e) {at}[{place} + e] = {cast}{take}(x_{name} + e, {node.size});")
            if node.role is not Role.CHAIN_KWARG:
                store(f"for (long e = 0; e < {node.size}; ++e) {give}(x_{name} + e, {node.size}, {at}[{place} + e]);")
    first_constant = len(per_chain)
    for k, position in enumerate(sorted(step.constants)):
        node = next(n for n in of[Role.CONSTANT] if n.position == position)
        lane_type = "real" if node.kind is Kind.REAL else "long long"
        head(f"const {lane_type}* const c{position} = (const {lane_type}*)arrays[{first_constant + k}];")
    for k in range(len(step.weights)):
        head(f"const real* const w{k} = (const real*)arrays[{first_constant + len(step.constants) + k}];")
    for k in range(len(step.rounds)):
        head(f"const long long rounds{k} = numbers[{_NUMBERS + k}];  // of repetition {k}")
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
    return FRAME.format(
        tables="\n".join(step.tables),
        scratch=step.storage.size[Kind.REAL],
        head="\n".join(head.lines + step.out.lines),
        load="\n".join(load.lines),
        begin="\n".join(begin.lines),
        step="\n".join("    " + line for line in body.lines),
        keep="\n".join(keep.lines),
        store="\n".join(store.lines),
    )
