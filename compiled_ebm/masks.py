"""Masks and other shapes that depend on data: constant ones become integer indices, others selections, or are refused.

``x[:, mask]`` has a shape that depends on the mask's values. A mask made from captured tensors alone is a constant of
the trace: it is replaced by the indices of its true elements, and the tensors it was made from are frozen (the
builder traces anew when their values change).

A mask that depends on x cannot be compiled as an index. But what is done to the chosen elements one by one, and then
written back by the same mask (``y[mask] = 0``, ``y[mask] = x[mask].exp()``, ``y[mask] *= 3``) or summed up, may as
well be done to all, and then selected. So an element-wise operation on chosen elements is recorded as one on all.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx

from compiled_ebm import sourcelines
from compiled_ebm.errors import UnsupportedEnergyError
from compiled_ebm.recorder import Recording
from compiled_ebm.repetition import BEGIN

__all__ = ["FewChosenError", "fold_masks"]

aten: Any = torch.ops.aten


def fold_masks(recorded: Recording, device: torch.device) -> tuple[Tensor, ...]:
    """Replace constant masks in place; the captured tensors that are frozen by that.

    Raises:
        UnsupportedEnergyError: A shape depends on x; names the operation and the line.
    """
    graph, frozen = recorded.graph, dict[int, Tensor]()
    chosen = _Chosen(graph, device)
    depends = {node for node in graph.nodes if node.op == "placeholder"}
    for node in list(graph.nodes):
        if node.op != "call_function":
            continue
        # what a loop makes of constants is not what one recorded round makes of them
        if node.target is BEGIN or any(used in depends for used in node.all_input_nodes):
            depends.add(node)
        if chosen.rewritten(node, depends):
            continue
        masks = _masks(node)
        tags = getattr(node.target, "tags", ())
        dynamic = torch.Tag.dynamic_output_shape in tags or torch.Tag.data_dependent_output in tags
        is_index = node.target in (aten.index.Tensor, *_PUTS)
        if (
            any(mask in depends for mask in masks)
            or chosen.uses(node)
            or (dynamic and not is_index and node in depends)
        ):
            raise UnsupportedEnergyError(_refusal(node))
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


class FewChosenError(UnsupportedEnergyError):
    """At the example's position a mask chose one element or none: which operations broadcast it cannot be told."""


class _Chosen:
    """Nodes that stood for the elements which a mask of x had chosen, and now stand for all; by the mask's node."""

    def __init__(self, graph: fx.Graph, device: torch.device) -> None:
        self._graph = graph
        self._device = device
        self._mask_of: dict[fx.Node, fx.Node] = {}

    def uses(self, node: fx.Node) -> bool:
        """Whether the node works on chosen elements."""
        return any(used in self._mask_of for used in node.all_input_nodes)

    def rewritten(self, node: fx.Node, depends: set[fx.Node]) -> bool:
        """Whether the node chooses by a mask of x, or works on what was so chosen, and has been rewritten."""
        if node.target is aten.index.Tensor and not self.uses(node):
            mask = self._only_mask(node, depends)
            if mask is not None:
                if node.meta["val"].shape[0] < 2:
                    raise FewChosenError(_refusal(node))
                self._replace(node, aten.clone.default, (node.args[0],))
                self._mask_of[node] = mask
            return mask is not None
        if node.target in _PUTS:
            mask = self._only_mask(node, depends)
            return mask is not None and self._put(node, mask)
        if node.target is aten.new_zeros.default:  # which takes no more than a dtype from its operand
            return True
        masks = {self._mask_of[used] for used in node.all_input_nodes if used in self._mask_of}
        if len(masks) != 1:
            return False
        (mask,) = masks
        if node.target is aten.sum.default and len(node.args) == 1 and not node.kwargs:
            values: Any = node.args[0]
            kept = self._kept(node, mask, values, 0, values.meta["val"].ndim - 1)
            self._replace(node, node.target, (kept,))
            return True
        if node.target in (aten.view.default, aten.expand.default):
            viewed: Any = node.args[0]
            if viewed.meta["val"].shape != node.meta["val"].shape:
                return False
            self._replace(node, aten.alias.default, (viewed,))
        if torch.Tag.pointwise not in node.target.tags and node.target not in _ALIKE:  # type: ignore[union-attr]
            return False
        for other in node.all_input_nodes:
            if other in self._mask_of or other.meta["val"].ndim == 0:
                continue
            number = self._number(node, other)
            if number is None:
                return False
            node.replace_input_with(other, number)
        self._mask_of[node] = mask
        return True

    def _only_mask(self, node: fx.Node, depends: set[fx.Node]) -> fx.Node | None:
        """The mask, where it is the only index and depends on x."""
        given: Any = node.args[1]
        masks = _masks(node)
        return masks[0] if len(given) == 1 and masks and masks[0] in depends else None

    def _number(self, node: fx.Node, value: fx.Node) -> fx.Node | None:
        """What fills the value, as a 0-d tensor, if it is one number (a constant, the gradient of a sum)."""
        if value.target in (aten.zeros.default, aten.new_zeros.default):
            zero = self._before(node, aten.zeros.default, [])
            zero.kwargs = {"dtype": value.meta["val"].dtype, "device": self._device}
            return zero
        source: Any = value.args[0] if value.target is aten.expand.default else value
        return self._before(node, aten.reshape.default, source, []) if source.meta["val"].numel() == 1 else None

    def _put(self, node: fx.Node, mask: fx.Node) -> bool:
        """``into[mask] = values`` as a selection of all elements."""
        into: Any = node.args[0]
        values: Any = node.args[2]
        if into in self._mask_of:
            return False
        if self._mask_of.get(values) is not mask:
            values = None if values in self._mask_of else self._number(node, values)
        if values is None:
            return False
        if len(node.args) > 3 and node.args[3]:  # accumulate
            values = self._before(node, aten.add.Tensor, into, values)
        kept = self._kept(node, mask, values, into, into.meta["val"].ndim - mask.meta["val"].ndim)
        if node.target is aten.index_put_.default:
            self._replace(node, aten.copy_.default, (into, kept))
        else:
            self._replace(node, aten.clone.default, (kept,))
        return True

    def _kept(self, node: fx.Node, mask: fx.Node, values: fx.Node, others: Any, missing: int) -> fx.Node:
        """The values where the mask, which lacks their last ``missing`` dimensions, is true, ``others`` elsewhere."""
        for _ in range(missing):
            mask = self._before(node, aten.unsqueeze.default, mask, -1)
        where = aten.where.self if isinstance(others, fx.Node) else aten.where.ScalarOther
        return self._before(node, where, mask, values, others)

    def _before(self, node: fx.Node, target: Any, *args: Any) -> fx.Node:
        with self._graph.inserting_before(node):
            new = self._graph.call_function(target, args)
        new.meta = dict(node.meta)
        return new

    def _replace(self, node: fx.Node, target: Any, args: tuple[Any, ...]) -> None:
        node.target, node.args, node.kwargs = target, args, {}


_ALIKE = (
    *(aten.clone.default, aten.detach.default, aten.alias.default, aten._to_copy.default),
    *(aten.zeros_like.default, aten.ones_like.default, aten.full_like.default),
)


_PUTS = (aten.index_put.default, aten.index_put_.default)


def _refusal(node: fx.Node) -> str:
    return (
        f"energy: the shape of {node.target}'s result depends on x, at {sourcelines.line_of_node(node)}; "
        "use torch.where(mask, a, b) or multiply by the mask"
    )


def _masks(node: fx.Node) -> list[fx.Node]:
    if node.target not in (aten.index.Tensor, *_PUTS):
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
