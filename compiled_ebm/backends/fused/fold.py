"""What depends on constants alone leaves the kernel: it is evaluated with torch, once a run."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from compiled_ebm.backends.fused.program import (
    Dot,
    Ids,
    Input,
    Literal,
    Node,
    Pointwise,
    Reduce,
    Role,
    TileProgram,
    distinct,
    is_constant,
)
from compiled_ebm.backends.fused.reference import interpret

__all__ = ["Folded", "fold_constants"]


@dataclass(frozen=True)
class Folded:
    """A tile program whose further constants are results of another.

    Args:
        program: What is left for the kernel; constants from ``first`` on are the prelude's.
        prelude: Makes them, one output each; None if there are none.
        first: How many constants the step has of its own.
    """

    program: TileProgram
    prelude: TileProgram | None
    first: int

    def constants(self, given: list[Tensor]) -> list[Tensor]:
        """All constants of the kernel, flat, from the step's own."""
        if self.prelude is None:
            return given
        real = torch.float64 if self.prelude.real_bits == 64 else torch.float32
        inputs = {(Role.CONSTANT, node.position): _column(given[node.position], real) for node in self.prelude.inputs()}
        return [*given, *(value.reshape(-1) for value in interpret(self.prelude, inputs))]


def fold_constants(program: TileProgram, n_constants: int) -> Folded:
    """Split off the nodes all of whose operands are constants, literals or such nodes."""
    owner = program.owner()
    known = [isinstance(n, Literal) or is_constant(n) for n in program.nodes]
    folded: list[int] = []
    for i, node in enumerate(program.nodes):
        operands = node.operands()
        if isinstance(node, (Pointwise, Reduce, Dot)) and all(
            all(known[o] for o in distinct(owner[ids.reshape(-1)]).tolist()) for ids in operands
        ):
            known[i] = True
            folded.append(i)
    used = set()
    for i, node in enumerate(program.nodes):
        if not known[i]:
            used |= {o for ids in node.operands() for o in distinct(owner[ids.reshape(-1)]).tolist()}
    for ids in program.outputs:
        used |= set(distinct(owner[ids]).tolist())
    results = [i for i in folded if i in used]
    if not results:
        return Folded(program, None, n_constants)
    replaced: dict[int, Node] = {}
    for k, i in enumerate(results):
        node = program.nodes[i]
        position = n_constants + k
        name = _name(program.nodes, owner, node)
        replaced[i] = Input(node.first, node.size, node.kind, role=Role.CONSTANT, position=position, name=name)
    main = [replaced.get(i, n) for i, n in enumerate(program.nodes) if i in replaced or not known[i] or i in used]
    prelude = [n for i, n in enumerate(program.nodes) if known[i]]
    outputs = tuple(program.nodes[i].ids for i in results)
    return Folded(
        replace(program, nodes=tuple(main)), replace(program, nodes=tuple(prelude), outputs=outputs), n_constants
    )


def _name(nodes: tuple[Node, ...], owner: Ids, made: Node) -> str:
    """After the constants that it is made of."""
    names: dict[str, None] = {}
    pending, seen = [made], {made}
    while pending:
        node = pending.pop()
        if isinstance(node, Input):
            names[node.name] = None
        for ids in node.operands():
            new = {nodes[o] for o in distinct(owner[ids.reshape(-1)]).tolist()} - seen
            seen |= new
            pending += sorted(new, key=lambda n: n.first)
    operation = made.op if isinstance(made, (Pointwise, Reduce)) else "product"
    return "_".join([*list(names)[:2], operation])


def _column(tensor: Tensor, real: torch.dtype) -> Tensor:
    flat = tensor.detach().cpu().reshape(-1, 1)
    return flat.to(real) if flat.dtype.is_floating_point else flat
