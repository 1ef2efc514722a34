"""A recording without mutation in the forms that batching rules and lowering take."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx

from compiled_ebm.recorder import Recording

__all__ = ["canonicalise"]


def canonicalise(pure: Recording, device: torch.device) -> None:
    """Drop operations that do nothing; give slices bounds that are not negative.

    The batching rule of ``slice_scatter`` (torch 2.13) misreads a negative end.
    """
    aten, graph = torch.ops.aten, pure.graph
    for node in list(graph.nodes):
        same = node.target in (aten.alias.default, aten.detach.default, aten.lift_fresh_copy.default)
        if node.target is aten.pow.Tensor_Scalar and node.args[1] == 1:
            same = node.args[0].meta["val"].dtype == node.meta["val"].dtype
        if node.target is aten.copy.default:
            # functionalised in-place writes; it has no batching rule
            with graph.inserting_before(node):
                _replace_copy(graph, node)
        elif node.target is aten.as_strided_scatter.default:
            with graph.inserting_before(node):
                _replace_strided_scatter(pure, node, device)
        elif same:
            node.replace_all_uses_with(node.args[0])
            graph.erase_node(node)
        elif node.target in (aten.slice.Tensor, aten.slice_scatter.default):
            first = 1 if node.target is aten.slice.Tensor else 2  # where dim, start, end, step begin
            given = [*node.args[first:], *(None,) * (first + 4 - len(node.args))]
            dim, start, end, stride = given[0] or 0, given[1], given[2], given[3] or 1
            size = node.args[0].meta["val"].shape[dim]
            start, end, _ = slice(start, end, stride).indices(size)
            node.args = (*node.args[:first], dim, start, max(start, end), stride)
    graph.eliminate_dead_code()


def _replace_copy(graph: fx.Graph, node: fx.Node) -> None:
    """``copy(target, source)`` as what it means: the source, in the target's shape and dtype."""
    target, source = node.all_input_nodes[0].meta["val"], node.all_input_nodes[-1]
    value = source.meta["val"]
    if value.dtype != target.dtype:
        source = graph.call_function(torch.ops.aten._to_copy.default, (source,), {"dtype": target.dtype})
        value = value.to(target.dtype)
        source.meta = {**node.meta, "val": value}
    if value.shape != target.shape:
        source = graph.call_function(torch.ops.aten.expand.default, (source, list(target.shape)))
        source.meta = {**node.meta, "val": value.expand(target.shape)}
    node.replace_all_uses_with(source)
    graph.erase_node(node)


def _replace_strided_scatter(pure: Recording, node: fx.Node, device: torch.device) -> None:
    """``as_strided_scatter`` into contiguous memory as a scatter by constant indices; it has no batching rule."""
    into, source = node.all_input_nodes[0], node.all_input_nodes[-1]
    value = into.meta["val"]
    if not value.is_contiguous():
        return
    given: tuple[Any, ...] = node.args
    sizes, strides, offset = given[2], given[3], (given[4] if len(given) > 4 else 0) or 0
    index = torch.full((), offset, dtype=torch.int64, device=device)
    for size, stride in zip(sizes, strides, strict=True):
        index = index.unsqueeze(-1) + stride * torch.arange(size, device=device)
    graph, aten = pure.graph, torch.ops.aten

    def call(target: Callable[..., Any], args: tuple[Any, ...], val: Tensor) -> fx.Node:
        new = graph.call_function(target, args)
        new.meta = {**node.meta, "val": val}
        return new

    where = pure.hold(f"strided_{len(pure.held)}", index.reshape(-1), node.meta)
    flat = call(aten.reshape.default, (into, [value.numel()]), value.reshape(-1))
    rows = call(aten.reshape.default, (source, [index.numel()]), source.meta["val"].reshape(-1))
    put = call(aten.index_put.default, (flat, [where], rows), value.reshape(-1))
    node.replace_all_uses_with(call(aten.reshape.default, (put, list(value.shape)), value))
    graph.erase_node(node)
