"""Writes into slices as selections, for Inductor.

Mapped over chains a ``slice_scatter`` becomes a scatter into zeros. Inductor (torch 2.13, CPU) may fuse the fill of
those zeros with what reads the result, before the scatter itself: a term of the gradient was missing, in silence.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import fx

__all__ = ["without_slice_scatter"]


def without_slice_scatter(body: fx.GraphModule, device: torch.device) -> fx.GraphModule:
    """The same function on the device; in its graphs, and loops inside, each element is chosen from two tensors."""
    made = copy.deepcopy(body)
    for module in made.modules():
        if isinstance(module, fx.GraphModule) and _rewrite(module.graph, device):
            module.recompile()
    return made


def _rewrite(graph: fx.Graph, device: torch.device) -> bool:
    found = [node for node in graph.nodes if node.target is torch.ops.aten.slice_scatter.default]
    for node in found:
        with graph.inserting_before(node):
            node.replace_all_uses_with(_selected(graph, device, node.meta["val"].shape, *node.args, **node.kwargs))
        graph.erase_node(node)
    return bool(found)


def _selected(
    graph: fx.Graph,
    device: torch.device,
    shape: Sequence[int],
    target: fx.Node,
    source: fx.Node,
    dim: int = 0,
    start: int | None = None,
    end: int | None = None,
    step: int = 1,
) -> fx.Node:
    """``target`` with ``source`` in the places ``start, start + step, ...`` below ``end`` of a dimension."""
    aten: Any = torch.ops.aten
    size, rest = shape[dim], len(shape) - 1 - dim % len(shape)
    first, stop, _ = slice(start, end, step).indices(size)
    if first >= stop:
        return target
    call = graph.call_function
    place = call(aten.arange.start_step, (0, size, 1), {"dtype": torch.int64, "device": device})
    beyond = call(aten.sub.Tensor, (place, first))
    nearest = call(aten.div.Tensor_mode, (beyond, step), {"rounding_mode": "floor"})
    index = call(aten.clamp.default, (nearest, 0, (stop - first - 1) // step))
    inside = call(aten.logical_and.default, (call(aten.ge.Scalar, (place, first)), call(aten.lt.Scalar, (place, stop))))
    on_step = call(aten.eq.Scalar, (call(aten.remainder.Scalar, (beyond, step)), 0))
    mask = call(aten.view.default, (call(aten.logical_and.default, (inside, on_step)), [size, *[1] * rest]))
    return call(aten.where.self, (mask, call(aten.index_select.default, (source, dim, index)), target))
