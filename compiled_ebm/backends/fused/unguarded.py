"""Parts of a traced step: the transition without the quarantine around it, and a few results without the others."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import fx

__all__ = ["reads_energy", "moves_of", "results_of"]

_ENERGY = 1
"""The place of the energy among the leaves of a State."""


def moves_of(step: fx.GraphModule, n_leaves: int, with_energy: bool) -> fx.GraphModule:
    """The step's graph with the leaves that the transition proposes, as if every chain took them.

    Args:
        step: A guarded step: each leaf of its result is a select between the proposed one and the old one.
        n_leaves: Leaves of the state, with ``failed_at`` after them.
        with_energy: Whether the new energy is among the results, or the old one in its place.
    """

    def proposed(results: list[fx.Node]) -> list[fx.Node]:
        olds = [node for node in step.graph.nodes if node.op == "placeholder"][: n_leaves + 1]
        after = [_after(new, old) for new, old in zip(results[:n_leaves], olds, strict=False)]
        if not with_energy:
            after[_ENERGY] = olds[_ENERGY]
        return [*after, olds[n_leaves]]

    return results_of(step, proposed)


def reads_energy(step: fx.GraphModule, n_leaves: int) -> bool:
    """Whether the next state depends on the energy of the old one, as an accept decision makes it do."""
    energy = [node for node in moves_of(step, n_leaves, False).graph.nodes if node.op == "placeholder"][_ENERGY]
    return any(user.op != "output" for user in energy.users)


def results_of(body: fx.GraphModule, select: Callable[[list[fx.Node]], list[fx.Node]]) -> fx.GraphModule:
    """The graph of some of the results, or of what they are made of, without what these do not need."""
    graph, copies = fx.Graph(), dict[fx.Node, fx.Node]()
    results: list[fx.Node] = []
    for node in body.graph.nodes:
        if node.op == "output":
            results = select(list(node.args[0]))
        else:
            copies[node] = graph.node_copy(node, copies.__getitem__)
    graph.output([copies[node] for node in results])
    module = fx.GraphModule(body, graph)
    for node in reversed(graph.nodes):
        if node.op not in ("placeholder", "output") and not node.users:
            graph.erase_node(node)
    return module


def _after(new: fx.Node, old: fx.Node) -> fx.Node:
    """What the guard chooses where the chain moves."""
    if new is old:
        return old
    assert new.target is torch.ops.aten.where.self, f"{new} is no guarded leaf"
    chosen, otherwise = new.args[1], new.args[2]
    assert isinstance(chosen, fx.Node) and otherwise is old, f"{new} is no guarded leaf"
    return chosen
