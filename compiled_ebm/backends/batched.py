"""One step over a fixed number of chains, as a flat ATen graph: noise, the mapped chain step, writes in place."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, fx
from torch.fx.experimental.proxy_tensor import make_fx

from compiled_ebm.backends.base import Chains
from compiled_ebm.backends.noise import draw_noise
from compiled_ebm.errors import UnsupportedEnergyError
from compiled_ebm.trace import ChainProgram

__all__ = ["batched_step", "flat_inputs"]

_SKINNY_INNER = 8
"""Products over at most this many terms become multiply-adds that fuse with their neighbours; BLAS would not."""
_SKINNY_OUTER = 4
"""Products with at most this many columns become as many reductions, for the same reason."""


def flat_inputs(
    chains: Chains, step: Tensor, hyper: Tensor, cursor: Tensor | None, constants: Sequence[Tensor]
) -> list[Tensor]:
    """The inputs of :func:`batched_step`'s graph, in its order."""
    cursor_input = [] if cursor is None else [cursor]
    return [
        *chains.state,
        chains.failed_at,
        *chains.chain_kwargs,
        chains.ids,
        chains.seed,
        step,
        hyper,
        *cursor_input,
        *constants,
    ]


def batched_step(program: ChainProgram, example: Sequence[Tensor], *, on_device_cursor: bool) -> fx.GraphModule:
    """Trace one step over the chains of ``example``.

    Args:
        program: The chain program.
        example: Inputs as :func:`flat_inputs` lays them out. ``hyper`` is this step's row ``[n_hyper]``; with
            ``on_device_cursor`` it is a table ``[length, n_hyper]``, read at ``cursor``, and the graph itself advances
            ``cursor`` and ``step``, so that it can be captured once and replayed.
    """
    n_state, n_kw = len(program.state_shapes), len(program.kwargs.per_chain)
    body = program.step.batched()

    def advance(*flat: Tensor) -> None:
        state, failed, rest = flat[:n_state], flat[n_state], flat[n_state + 1 :]
        chain_kwargs, (ids, seed, step, hyper), rest = rest[:n_kw], rest[n_kw : n_kw + 4], rest[n_kw + 4 :]
        row = hyper
        if on_device_cursor:
            cursor, rest = rest[0], rest[1:]
            row = hyper.index_select(0, cursor.reshape(1)).squeeze(0)
        noise = draw_noise(program, seed, step, ids, chain_last=True)
        new = body(*state, failed, *chain_kwargs, noise.normals, noise.uniforms, step, *row.unbind(), *rest)
        for buffer, value in zip((*state, failed), new, strict=True):
            buffer.copy_(value)
        if on_device_cursor:
            cursor.add_(1)
            step.add_(1)

    try:
        with torch.no_grad(), _no_vmap_fallback():
            graph = make_fx(advance)(*(t.clone() for t in example))
    except RuntimeError as error:
        if "vmap" not in str(error):
            raise
        raise UnsupportedEnergyError(
            f"energy: an operation has no batching rule, so the inductor backend cannot map it over chains: {error}; "
            "use backend='eager', or write that operation with others"
        ) from error
    _expand_skinny_products(graph)
    graph.graph.eliminate_dead_code()
    graph.recompile()
    return graph


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


def _expand_skinny_products(module: fx.GraphModule) -> None:
    """Rewrite ``mm`` and ``addmm`` with few terms or few columns as elementwise products and sums."""
    aten, graph = torch.ops.aten, module.graph
    for node in list(graph.nodes):
        if node.target not in (aten.mm.default, aten.addmm.default):
            continue
        if node.target is aten.addmm.default and node.kwargs:
            continue
        left, right = node.args[-2:]
        inner, columns = right.meta["val"].shape
        dtype = node.meta["val"].dtype
        if dtype not in (torch.float32, torch.float64) or (inner > _SKINNY_INNER and columns > _SKINNY_OUTER):
            continue

        def call(target: Callable[..., Any], *args: Any) -> fx.Node:
            return graph.call_function(target, args)

        with graph.inserting_before(node):
            if inner <= _SKINNY_INNER:
                terms = [
                    call(
                        aten.mul.Tensor, call(aten.slice.Tensor, left, 1, k, k + 1), call(aten.select.int, right, 0, k)
                    )
                    for k in range(inner)
                ]
                result = terms[0]
                for term in terms[1:]:
                    result = call(aten.add.Tensor, result, term)
            else:
                sums = [
                    call(
                        aten.sum.dim_IntList, call(aten.mul.Tensor, left, call(aten.select.int, right, 1, j)), [1], True
                    )
                    for j in range(columns)
                ]
                result = sums[0] if columns == 1 else call(aten.cat.default, sums, 1)
            if node.target is aten.addmm.default:
                result = call(aten.add.Tensor, result, node.args[0])
        node.replace_all_uses_with(result)
        graph.erase_node(node)
