"""The head of a batched step, where it is x' = clamp(a + k b + l xi): what one kernel can do with its noise in it.

A backend knows no transition: this looks at the traced operations alone, so that it holds for whatever move begins so
(Langevin does: a = x, b = its gradient, k the step size, l the noise's deviation).

It pays only where x' goes into a convolution or a product as it is. Then x' must be in memory anyway, and one kernel
that writes it replaces two: one launch and 8 bytes an element fewer. Where the energy begins with pointwise operations
Inductor fuses the update with them, and taken out it would save no launch and cost 8 bytes an element more, since the
rest of the step reads x, x' and the gradient again for the quarantine.
"""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

__all__ = ["Head", "take_head"]

_ATEN: Any = torch.ops.aten
_VIEWS = {
    *(_ATEN.view, _ATEN._unsafe_view, _ATEN.reshape, _ATEN.unsqueeze, _ATEN.squeeze, _ATEN.permute),
    *(_ATEN.transpose, _ATEN.t, _ATEN.alias),
}
_LIBRARY = {_ATEN.convolution, _ATEN.mm, _ATEN.addmm, _ATEN.bmm, _ATEN.baddbmm}
"""What Inductor hands to cuDNN and cuBLAS, which read their inputs from memory."""


@dataclass(frozen=True)
class Head:
    """x' = clamp(a +- k b + l xi).

    Args:
        first, second: Which inputs of the step a and b are.
        second_column, noise_column: Which hyper-parameters k and l are.
        minus: Whether k b is subtracted.
        bounds: Of the clamp; infinite without one.
    """

    first: int
    second: int
    second_column: int
    noise_column: int
    minus: bool
    bounds: tuple[float, float] = (float("-inf"), float("inf"))

    def __str__(self) -> str:
        sign, (low, high) = "-" if self.minus else "+", self.bounds
        value = f"input_{self.first} {sign} hyper[{self.second_column}] input_{self.second}"
        value += f" + hyper[{self.noise_column}] xi"
        return value if low == -high == float("-inf") else f"clamp({value}, {low:g}, {high:g})"


def take_head(graph: fx.GraphModule, n_state: int, normals: int, table: int) -> Head | None:
    """Take the update out of a step's graph, if it is one and that pays: the normals' input is x' from then on.

    Args:
        graph: Of :func:`~compiled_ebm.backends.batched.batched_step` with the cursor on the device; changed in place.
        n_state: How many leaves the state has; they are the first inputs, and what a and b may be.
        normals, table: Which inputs they are.
    """
    inputs = [node for node in graph.graph.nodes if node.op == "placeholder"]
    noise, hyper, state = inputs[normals], inputs[table], inputs[:n_state]
    scaled = _only_user(noise)
    added = None if scaled is None else _only_user(scaled)
    if scaled is None or added is None or added.target is not _ATEN.add.Tensor or added.kwargs:
        return None
    noise_column = _factor(scaled, noise, hyper)
    drift: Any = added.args[1] if added.args[0] is scaled else added.args[0]
    terms = _terms(drift, state, hyper)
    if noise_column is None or terms is None:
        return None
    last, bounds = _clamped(added)
    value, expected = last.meta["val"], noise.meta["val"]
    same = all(t.meta["val"].shape == expected.shape for t in (last, inputs[terms[0]], inputs[terms[1]]))
    if not same or value.dtype != expected.dtype or not _goes_to_a_library(last):
        return None
    last.replace_all_uses_with(noise)
    for node in (last, added, scaled, drift, *drift.all_input_nodes):
        if node.op != "placeholder" and not node.users and node in graph.graph.nodes:
            graph.graph.erase_node(node)
    graph.recompile()
    return Head(*terms[:3], noise_column, terms[3], bounds)


def _only_user(node: fx.Node) -> fx.Node | None:
    return next(iter(node.users)) if len(node.users) == 1 else None


def _column(node: object, table: fx.Node) -> int | None:
    """Which hyper-parameter a node is: an entry of the table's row at the cursor."""
    if not isinstance(node, fx.Node) or node.target is not operator.getitem:
        return None
    source: Any = node.args[0]
    for target in (_ATEN.unbind.int, _ATEN.squeeze.dim, _ATEN.index_select.default):
        if not isinstance(source, fx.Node) or source.target is not target:
            return None
        source = source.args[0]
    return int(node.args[1]) if source is table else None  # type: ignore[arg-type]


def _factor(product: fx.Node, other: object, table: fx.Node) -> int | None:
    """Which hyper-parameter ``other`` is multiplied by in ``product``, if it is one."""
    if product.target is not _ATEN.mul.Tensor or other not in product.args:
        return None
    return _column(product.args[1] if product.args[0] is other else product.args[0], table)


def _terms(drift: Any, state: list[fx.Node], table: fx.Node) -> tuple[int, int, int, bool] | None:
    """The leaves a and b, the column k and the sign of ``a +- k b``."""
    if not isinstance(drift, fx.Node) or drift.kwargs or drift.target not in (_ATEN.add.Tensor, _ATEN.sub.Tensor):
        return None
    minus = drift.target is _ATEN.sub.Tensor
    orders: list[Any] = [drift.args] if minus else [drift.args, drift.args[::-1]]
    for first, product in orders:
        if first not in state or not isinstance(product, fx.Node):
            continue
        for second in product.args:
            column = _factor(product, second, table) if second in state else None
            if column is not None:
                return state.index(first), state.index(second), column, minus  # type: ignore[arg-type]
    return None


def _clamped(node: fx.Node) -> tuple[fx.Node, tuple[float, float]]:
    """The node's clamp and its bounds, if nothing else uses the node."""
    user = _only_user(node)
    if user is None or user.target is not _ATEN.clamp.default:
        return node, (float("-inf"), float("inf"))
    given: list[Any] = [*user.args[1:], None, None]
    return user, (float("-inf") if given[0] is None else given[0], float("inf") if given[1] is None else given[1])


def _goes_to_a_library(node: fx.Node) -> bool:
    for user in node.users:
        packet = getattr(user.target, "overloadpacket", None)
        if packet in _LIBRARY or (packet in _VIEWS and _goes_to_a_library(user)):
            return True
    return False
