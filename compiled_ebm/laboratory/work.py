"""What a step of one chain has to do, counted in the program that was traced."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, fx
from torch.utils.flop_counter import flop_registry

from compiled_ebm.backends.fused.cost import count
from compiled_ebm.backends.fused.lower import lower_move
from compiled_ebm.backends.fused.lowered import Lowered
from compiled_ebm.backends.fused.program import TileProgram
from compiled_ebm.errors import UnsupportedEnergyError
from compiled_ebm.loopgraph import loop_of
from compiled_ebm.trace import ChainProgram
from compiled_ebm.transitions.base import NoiseDraw, Transition, with_own_vectors

__all__ = ["StepWork", "gradients_of", "step_work"]

_MOVEMENTS = set(
    "view reshape permute expand unsqueeze squeeze select slice slice_scatter select_scatter flip index index_put "
    "index_select gather cat repeat split_with_sizes constant_pad_nd diagonal as_strided clone full full_like "
    "scalar_tensor empty arange _to_copy where".split()
)
"""Operations that compute nothing."""


@dataclass(frozen=True)
class StepWork:
    """Of one step of one chain.

    Args:
        flops: Additions and multiplications; a multiply-add is two. Exponentials and the like are not among them.
        functions: How often each of those is evaluated; empty where the traced operations alone could be counted.
        normals: Random numbers.
        gradients: Evaluations of the gradient.
        bytes: Of the chain's state, read and written once: the least for whoever keeps chains in memory between steps.
    """

    flops: int
    functions: dict[str, int]
    normals: int
    gradients: int
    bytes: int


def step_work(program: ChainProgram) -> StepWork:
    """Count: by the fused kernels' lowering, or, for an energy that they do not take, by the traced operations."""
    numbers = program.transition.noise.normals * program.event_numel
    leaves = [math.prod(shape) for shape in program.state_shapes]
    moved = 2 * (sum(leaves) * program.carry_dtype.itemsize)
    gradients = gradients_of(program.transition, program.event_shape)
    try:
        cost = count(_tile_program(program))
        return StepWork(cost.flops, dict(cost.functions), numbers, gradients, moved)
    except UnsupportedEnergyError:
        return StepWork(_traced_flops(program.step.body), {}, numbers, gradients, moved)


def gradients_of(transition: Transition, event_shape: tuple[int, ...]) -> int:
    """How often one step evaluates the gradient."""
    target, transition = _Counting(), with_own_vectors(transition, event_shape, torch.float32, torch.device("cpu"))
    x = torch.zeros(event_shape)
    state = transition.init(x, target)
    target.gradients = 0
    shape = event_shape if transition.noise.normals == 1 else (transition.noise.normals, *event_shape)
    noise = NoiseDraw(torch.zeros(shape), torch.full((transition.noise.uniforms,), 0.5))
    hyper = transition.hyper_type(*(table[0].float() for table in transition.hyper_table(0, 1)))
    transition.step(state, noise, hyper, target)
    return target.gradients


class _Counting:
    """E = 0."""

    def __init__(self) -> None:
        self.gradients = 0

    def energy(self, x: Tensor) -> Tensor:
        return x.new_zeros(())

    def energy_and_grad(self, x: Tensor) -> tuple[Tensor, Tensor]:
        self.gradients += 1
        return x.new_zeros(()), torch.zeros_like(x)


def _tile_program(program: ChainProgram) -> TileProgram:
    shared = [torch.zeros(()) for _ in program.kwargs.shared]
    return Lowered(partial(lower_move, program, False), program.step, shared).program


def _traced_flops(graph: fx.GraphModule) -> int:
    """Products and convolutions by torch's own formulas, one for each number that another operation gives."""
    total = 0
    for node in graph.graph.nodes:
        loop = loop_of(node)
        if loop is not None:
            total += loop.rounds * _traced_flops(loop.body)
        if node.op != "call_function":
            continue
        value = node.meta.get("val")
        formula = flop_registry.get(getattr(node.target, "overloadpacket", None))
        if formula is not None:
            args, kwargs = fx.map_arg((node.args, node.kwargs), lambda n: n.meta["val"])
            total += int(formula(*args, **kwargs, out_val=value))
        elif isinstance(value, Tensor) and value.dtype.is_floating_point and not _only_moves(node):
            total += value.numel()
    return total


def _only_moves(node: fx.Node) -> bool:
    name = str(node.target).removeprefix("aten.").partition(".")[0]
    return name in _MOVEMENTS
