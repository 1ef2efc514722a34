"""Loops in a traced graph: what lies between the two markers of a loop becomes a module that the graph calls."""

from __future__ import annotations

from typing import Any

from torch import Tensor, fx, nn

from compiled_ebm import checksum
from compiled_ebm.errors import UnsupportedEnergyError
from compiled_ebm.recorder import Recording
from compiled_ebm.repetition import END, repeat_mapped
from compiled_ebm.sourcelines import line_of_node

__all__ = ["Rounds", "gather_loops", "loop_of", "loops_in", "readable_code"]


class Rounds(nn.Module):
    """``carry = body(*carry, *held)``, some number of times; called with carry and held in one list.

    Args:
        rounds: How often.
        body: A pure graph.
        n_carry: How many of its inputs are the carry; the others are the same in every round.
    """

    def __init__(self, rounds: int, body: fx.GraphModule, n_carry: int) -> None:
        super().__init__()
        self.rounds, self.body, self.n_carry = rounds, body, n_carry

    def forward(self, *given: Tensor) -> tuple[Tensor, ...]:
        """The carry after the last round."""
        return repeat_mapped(self.rounds, self.body, given[: self.n_carry], given[self.n_carry :])


def loop_of(node: fx.Node) -> Rounds | None:
    """The loop that a node calls."""
    if node.op != "call_module":
        return None
    found = node.graph.owning_module.get_submodule(str(node.target))  # type: ignore[union-attr]
    assert isinstance(found, Rounds)
    return found


def loops_in(graph: fx.GraphModule) -> list[Rounds]:
    """All loops of a graph, those inside others too."""
    return [module for module in graph.modules() if isinstance(module, Rounds)]


def readable_code(graph: fx.GraphModule) -> str:
    """The graph as Python, then the bodies of its loops, each under the name that it is called by."""
    named = ((name, part) for name, part in graph.named_modules() if isinstance(part, Rounds))
    bodies = (f"# one of the {loop.rounds} rounds of {name}\n{loop.body.code.strip()}" for name, loop in named)
    return "\n\n".join([graph.code.strip(), *bodies])


def gather_loops(recorded: Recording) -> fx.GraphModule | dict[str, Any]:
    """Replace markers, and what depends on the first and is needed by the second, by calls of :class:`Rounds`.

    What a body reads and does not depend on the carry stays outside, and is computed once.

    Returns:
        What the nodes of the graph call and get by name.
    """
    graph = recorded.graph
    if not any(node.target is END for node in graph.nodes):
        return recorded.held
    graph.eliminate_dead_code()
    module = fx.GraphModule(recorded.held, graph)
    for end in [node for node in graph.nodes if node.target is END]:  # inner loops end before outer ones
        _gather(module, end)
    module.delete_all_unused_submodules()
    graph.lint()
    module.recompile()
    return module


def _gather(module: fx.GraphModule, end: fx.Node) -> None:
    graph = module.graph
    values, mark = end.args
    begin: Any = mark.args[0]  # type: ignore[union-attr]
    carry, _, rounds = begin.args
    begun = {node.args[1]: node for node in begin.users}
    inside = _between(begin, end)
    own = {*inside, *begun.values(), begin}
    for node in own:
        for user in node.users:
            if user not in own and user is not end:
                raise UnsupportedEnergyError(
                    f"repeat: what {node} gives, made in one round at {line_of_node(node)}, is used after the loop at "
                    f"{line_of_node(user)}; only carry leaves the loop: make it an element of carry"
                )
    held = list(dict.fromkeys(n for node in (*inside, end) for n in node.all_input_nodes if n not in own))
    body = fx.Graph()
    env: dict[fx.Node, fx.Node] = {}
    for k, start in enumerate(carry):
        new = body.placeholder(f"carry_{k}")
        new.meta = {"val": start.meta["val"]}
        if k in begun:
            env[begun[k]] = new
    for k, node in enumerate(held):
        env[node] = body.placeholder(f"held_{k}")
        env[node].meta = dict(node.meta)
    for node in inside:
        env[node] = body.node_copy(node, env.__getitem__)
    body.output(tuple(env[value] for value in values))  # type: ignore[union-attr,index]
    loop = Rounds(rounds, fx.GraphModule(module, body), len(carry))
    # named by what is in it, so that graphs with equal code compute the same
    name = f"repeat_{rounds}_times_{checksum.of_code([loop.body.code]):016x}"
    module.add_submodule(name, loop)
    with graph.inserting_before(end):
        call = graph.call_module(name, (*carry, *held))
    call.meta = dict(end.meta)
    end.replace_all_uses_with(call)
    graph.erase_node(end)
    for node in reversed(inside):
        graph.erase_node(node)
    for node in (*begun.values(), begin):
        graph.erase_node(node)


def _between(begin: fx.Node, end: fx.Node) -> list[fx.Node]:
    """What depends on the one and is needed by the other, in order; not the parts of the carry themselves."""
    needed, pending = set(), list(end.all_input_nodes)
    while pending:
        node = pending.pop()
        if node not in needed:
            needed.add(node)
            pending += node.all_input_nodes
    found: dict[fx.Node, None] = {}
    node = begin
    while node is not end:
        is_part = begin in node.all_input_nodes
        if (
            node in needed
            and not is_part
            and any(i in found or begin in i.all_input_nodes for i in node.all_input_nodes)
        ):
            found[node] = None
        node = node.next
    return list(found)
