"""Masks and other shapes that depend on data: constant ones become integer indices, the rest is refused.

``x[:, mask]`` has a shape that depends on the mask's values. A mask made from captured tensors alone is a constant of
the trace: it is replaced by the indices of its true elements, and the tensors it was made from are frozen (the
builder traces anew when their values change). A mask that depends on x cannot be compiled.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx

from compiled_ebm import sourcelines
from compiled_ebm.errors import UnsupportedEnergyError
from compiled_ebm.recorder import Recording
from compiled_ebm.repetition import BEGIN

__all__ = ["fold_masks"]


def fold_masks(recorded: Recording) -> tuple[Tensor, ...]:
    """Replace constant masks in place; the captured tensors that are frozen by that.

    Raises:
        UnsupportedEnergyError: A shape depends on x; names the operation and the line.
    """
    graph, frozen = recorded.graph, dict[int, Tensor]()
    depends = {node for node in graph.nodes if node.op == "placeholder"}
    for node in list(graph.nodes):
        if node.op != "call_function":
            continue
        # what a loop makes of constants is not what one recorded round makes of them
        if node.target is BEGIN or any(used in depends for used in node.all_input_nodes):
            depends.add(node)
        masks = _masks(node)
        tags = getattr(node.target, "tags", ())
        dynamic = torch.Tag.dynamic_output_shape in tags or torch.Tag.data_dependent_output in tags
        is_index = node.target in (torch.ops.aten.index.Tensor, *_PUTS)
        if any(mask in depends for mask in masks) or (dynamic and not is_index and node in depends):
            raise UnsupportedEnergyError(
                f"energy: the shape of {node.target}'s result depends on x, at {sourcelines.line_of_node(node)}; "
                "use torch.where(mask, a, b) or multiply by the mask"
            )
        if masks:
            indices: list[Any] = []
            for index in node.args[1]:
                indices += _as_indices(recorded, node, index, frozen) if index in masks else [index]
            node.args = (node.args[0], indices, *node.args[2:])
        elif dynamic and not is_index:
            value = _value(recorded, node, frozen)
            node.replace_all_uses_with(_constant(recorded, node, value))
            graph.erase_node(node)
    graph.eliminate_dead_code()
    return tuple(frozen.values())


_PUTS = (torch.ops.aten.index_put.default, torch.ops.aten.index_put_.default)


def _masks(node: fx.Node) -> list[fx.Node]:
    if node.target not in (torch.ops.aten.index.Tensor, *_PUTS):
        return []
    given: Any = node.args[1]
    return [i for i in given if isinstance(i, fx.Node) and i.meta["val"].dtype in (torch.bool, torch.uint8)]


def _as_indices(recorded: Recording, node: fx.Node, mask: fx.Node, frozen: dict[int, Tensor]) -> list[fx.Node]:
    return [_constant(recorded, node, i) for i in _value(recorded, mask, frozen).nonzero().unbind(1)]


def _constant(recorded: Recording, before: fx.Node, value: Tensor) -> fx.Node:
    with recorded.graph.inserting_before(before):
        return recorded.hold(f"folded_{len(recorded.held)}", value, before.meta)


def _value(recorded: Recording, node: fx.Node, frozen: dict[int, Tensor]) -> Tensor:
    """What a node computes from captured tensors, as they are now."""

    def compute(current: fx.Node) -> Any:
        if current.op == "get_attr":
            held = recorded.held[str(current.target)]
            frozen[id(held)] = held
            return held
        target: Any = current.target
        return target(*fx.map_arg(current.args, compute), **fx.map_arg(current.kwargs, compute))

    with torch.no_grad():
        result: Tensor = compute(node)
    return result
