"""One step over a fixed number of chains, as a flat ATen graph: noise, the mapped chain step, writes in place."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from compiled_ebm.backends.base import Chains
from compiled_ebm.backends.first_state import init_chains
from compiled_ebm.backends.noise import draw_noise
from compiled_ebm.chaingraph import split_prelude
from compiled_ebm.errors import UnsupportedEnergyError
from compiled_ebm.loopgraph import gather_loops
from compiled_ebm.products import ChainProducts
from compiled_ebm.recorder import Recording, record
from compiled_ebm.repetition import recorded_once
from compiled_ebm.trace import ChainProgram
from compiled_ebm.transitions.base import NoiseDraw

__all__ = [
    "BatchedStep",
    "batched_noise",
    "batched_step",
    "copies",
    "first_row",
    "noise_buffers",
    "started",
    "step_inputs",
]


def step_inputs(
    chains: Chains, noise: NoiseDraw, step: Tensor, hyper: Tensor, cursor: Tensor | None, constants: Sequence[Tensor]
) -> list[Tensor]:
    """The inputs of :func:`batched_step`'s graph, in its order."""
    cursor_input = [] if cursor is None else [cursor]
    return [*chains.state, chains.failed_at, *chains.chain_kwargs, *noise, step, hyper, *cursor_input, *constants]


def noise_buffers(program: ChainProgram, n_steps: int, ids: Tensor) -> NoiseDraw:
    """Zeros with room for the noise of several steps: normals ``[k, n, *event]`` and uniforms ``[k, n, m]``."""
    steps = torch.zeros((n_steps, 1), dtype=torch.int64, device=ids.device)
    seed = torch.zeros((), dtype=torch.int64, device=ids.device)
    return NoiseDraw(*(torch.zeros_like(t) for t in draw_noise(program, seed, steps, ids.expand(n_steps, -1))))


def started(program: ChainProgram, chains: Chains) -> Chains:
    """A copy of the chains with the state of their positions, for a step that goes somewhere: what is compiled is
    checked by one, with noise and with :func:`first_row`."""
    rest = chains.failed_at.clone(), chains.ids.clone(), chains.seed.clone(), tuple(copies(chains.chain_kwargs))
    found = Chains(tuple(copies(chains.state)), *rest, chains.shared_kwargs)
    init_chains(program, found, 0)
    return found


def first_row(program: ChainProgram) -> Tensor:
    """The hyper-parameters of the first step, ``[n_hyper]``."""
    return torch.stack([c[0] for c in program.transition.hyper_table(0, 1)]).to(program.device, program.carry_dtype)


def batched_noise(program: ChainProgram, example: Sequence[Tensor]) -> fx.GraphModule:
    """Trace the noise of several steps: ``(seed, steps [k], ids [n], normals, uniforms)`` fills the last two.

    A graph of its own, since Inductor would inline the generator into its users and compute it once for each element
    (a 2-d mixture was 20 times slower); every energy with the same event shares it.
    """

    def draw(seed: Tensor, steps: Tensor, ids: Tensor, normals: Tensor, uniforms: Tensor) -> None:
        drawn = draw_noise(program, seed, steps.unsqueeze(1), ids.expand(steps.shape[0], -1))
        normals.copy_(drawn.normals)
        if uniforms.numel():
            uniforms.copy_(drawn.uniforms)

    drawn = _flat(draw, example)
    return fx.GraphModule(drawn.held, drawn.graph)


@dataclass(frozen=True, eq=False)
class BatchedStep:
    """A flat graph of one step over a fixed number of chains.

    Args:
        graph: Writes the new state into its inputs: :func:`step_inputs`, with ``layout(*constants)`` for constants.
        layout: What the graph makes of the program's constants alone, evaluated once a run.
    """

    graph: fx.GraphModule
    layout: fx.GraphModule


def batched_step(program: ChainProgram, example: Sequence[Tensor], *, on_device_cursor: bool) -> BatchedStep:
    """Trace one step over the chains of ``example``.

    Args:
        program: The chain program.
        example: Inputs as :func:`step_inputs` lays them out. ``hyper`` is this step's row ``[n_hyper]``; with
            ``on_device_cursor`` it is a table ``[length, n_hyper]``, read at ``cursor``, and the graph itself advances
            ``cursor`` and ``step``, so that it can be captured once and replayed.
    """
    n_state, n_kw = len(program.state_shapes), len(program.kwargs.per_chain)
    n_chains = example[0].shape[0]
    body = program.step.batched()

    def advance(*flat: Tensor) -> None:
        state, failed, rest = flat[:n_state], flat[n_state], flat[n_state + 1 :]
        chain_kwargs, (normals, uniforms, step, hyper), rest = rest[:n_kw], rest[n_kw : n_kw + 4], rest[n_kw + 4 :]
        row = hyper
        if on_device_cursor:
            cursor, rest = rest[0], rest[1:]
            row = hyper.index_select(0, cursor.reshape(1)).squeeze(0)
        with ChainProducts(n_chains, fused=True):
            new = body(*state, failed, *chain_kwargs, normals, uniforms, step, *row.unbind(), *rest)
        for buffer, value in zip((*state, failed), new, strict=True):
            buffer.copy_(value)
        if on_device_cursor:
            cursor.add_(1)
            step.add_(1)

    flat = _flat(advance, example)
    _materialise_scatter_targets(flat.graph)
    step, layout, _ = split_prelude(flat, gather_loops(flat), len(example) - program.step.n_constants)
    return BatchedStep(step, layout)


def _flat(function: Callable[..., Any], example: Sequence[Tensor]) -> Recording:
    try:
        with torch.no_grad(), _no_vmap_fallback(), recorded_once():
            return record(function, copies(example))
    except RuntimeError as error:
        raise UnsupportedEnergyError(
            f"energy: an operation cannot be mapped over chains for the inductor backend: {error}; "
            "use backend='eager', or write that operation with others"
        ) from error


def copies(example: Sequence[Tensor]) -> list[Tensor]:
    """The same numbers in the same strides, also in those that ``clone`` would change: of columns, of what is expanded.

    What is compiled is specialised to strides, and compiled anew, unchecked, if it is called with others.
    """
    found = []
    for tensor in example:
        extent = 1 + sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
        if tensor.numel():
            found.append(tensor.as_strided((extent,), (1,)).clone().as_strided(tensor.shape, tensor.stride()))
        else:
            found.append(torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device=tensor.device))
    return found


@contextmanager
def _no_vmap_fallback() -> Iterator[None]:
    """An operation without a batching rule is an error, not a loop over chains unrolled into the graph."""
    functorch: Any = torch._C._functorch
    was_on = functorch._is_vmap_fallback_enabled()
    functorch._set_vmap_fallback_enabled(False)
    try:
        yield
    finally:
        functorch._set_vmap_fallback_enabled(was_on)


def _materialise_scatter_targets(graph: fx.Graph) -> None:
    """Give every scatter a target with memory of its own.

    Mapping over chains expands an unbatched target to all of them with stride 0. Inductor (torch 2.13) keeps the
    stride for the result's buffer, so that all chains would add into one row.
    """
    aten: Any = torch.ops.aten
    packets = (aten.index_put, aten._unsafe_index_put, aten.scatter, aten.scatter_add, aten.scatter_reduce)
    scatters = {getattr(packet, name) for packet in (*packets, aten.index_add) for name in packet.overloads()}
    for node in list(graph.nodes):
        if node.target not in scatters:
            continue
        target = node.args[0]
        value = target.meta["val"]
        if any(stride == 0 and size > 1 for stride, size in zip(value.stride(), value.shape, strict=True)):
            with graph.inserting_before(node):
                owned = graph.call_function(aten.clone.default, (target,), {"memory_format": torch.contiguous_format})
            owned.meta = {**target.meta, "val": value.contiguous()}
            node.replace_input_with(target, owned)
