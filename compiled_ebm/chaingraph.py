"""One traced function of one chain: record, make functional, split off what depends on captured tensors only."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx
from torch.nn.attention import SDPBackend, sdpa_kernel

from compiled_ebm import sourcelines
from compiled_ebm.canonical import canonicalise
from compiled_ebm.errors import UnsupportedEnergyError
from compiled_ebm.loopgraph import gather_loops, loop_of
from compiled_ebm.masks import fold_masks
from compiled_ebm.recorder import Decompose, HostReadError, Recording, core_decomposition, record
from compiled_ebm.repetition import recorded_once

__all__ = ["ChainGraph", "peak_bytes", "split_prelude", "trace_graph"]


@dataclass(frozen=True, eq=False)
class ChainGraph:
    """One traced function of one chain.

    ``body(*chain_inputs, *uniform_inputs, *constants)`` is pure. ``chain_inputs`` differ from chain to chain,
    ``uniform_inputs`` do not. ``constants = prelude(*captured, *shared_kwargs)``. ``frozen`` pairs each captured
    tensor whose values the trace depends on (constant masks) with those values. ``host_reads`` are the
    lines at which Python took values out of a tensor.
    """

    body: fx.GraphModule
    prelude: fx.GraphModule
    captured: tuple[Tensor, ...]
    frozen: tuple[tuple[Tensor, Tensor], ...]
    host_reads: tuple[str, ...]
    n_chain_inputs: int
    n_uniform_inputs: int
    n_constants: int

    def constants(self, shared: Sequence[Tensor]) -> list[Tensor]:
        """What the body needs of the captured tensors, from their values as they are now."""
        with torch.no_grad():
            return [t.detach() for t in self.prelude(*self.captured, *shared)]

    def batched(self) -> Callable[..., Any]:
        """The body over a batch: chain inputs and all outputs get a leading chain dimension."""
        dims = (0,) * self.n_chain_inputs + (None,) * (self.n_uniform_inputs + self.n_constants)
        return torch.vmap(self.body, in_dims=dims)


def trace_graph(
    function: Callable[..., Any],
    example: Sequence[Tensor],
    n_chain: int,
    n_uniform: int,
    decompose: Decompose = core_decomposition,
) -> ChainGraph:
    """Trace ``function`` on ``example``: chain inputs first, then uniform inputs, then shared keyword arguments.

    ``decompose`` gives what is recorded in an operation's place.
    """
    with recorded_once():
        recorded, host_reads = _record(function, example)
    _refuse_random(recorded)
    frozen = tuple((tensor, tensor.detach().clone()) for tensor in fold_masks(recorded, example[0].device))
    captured = _lift_captured(recorded, len(example))
    n_own = n_chain + n_uniform
    flat = [*example[:n_own], *captured, *example[n_own:]]
    functional = _functional(recorded, captured, n_own, flat, decompose)
    root = gather_loops(functional)
    body, prelude, n_constants = split_prelude(functional, root, n_own)
    return ChainGraph(body, prelude, captured, frozen, host_reads, n_chain, n_uniform, n_constants)


def _record(function: Callable[..., Any], example: Sequence[Tensor]) -> tuple[Recording, tuple[str, ...]]:
    """First pass: the operations as they happen, each with the user's line; lines that read values on the host."""
    recorder = sourcelines.SourceRecorder()
    try:
        # fused kernels of attention and of recurrent nets have no decomposition
        with (
            recorder,
            sdpa_kernel(SDPBackend.MATH),
            _without_mkldnn(),
            _compiled_called_plainly(),
        ):
            return record(function, example), tuple(recorder.host_reads)
    except UnsupportedEnergyError:
        raise
    except Exception as error:
        line = sourcelines.line_of_error(error)
        if isinstance(error, HostReadError) or "data-dependent" in str(error):
            raise UnsupportedEnergyError(
                f"energy: control flow on data at {line}: a Python value was taken from a tensor that depends on x; "
                "use torch.where, torch.clamp or masks so that every chain runs the same operations"
            ) from error
        raise UnsupportedEnergyError(f"energy: cannot trace {line}: {type(error).__name__}: {error}") from error


@contextmanager
def _without_mkldnn() -> Iterator[None]:
    """As ``torch.backends.mkldnn.flags(enabled=False)``, which warns about GPUs that are not there."""
    was_on = torch._C._get_mkldnn_enabled()
    torch._C._set_mkldnn_enabled(False)
    try:
        yield
    finally:
        torch._C._set_mkldnn_enabled(was_on)


@contextmanager
def _compiled_called_plainly() -> Iterator[None]:
    """What the user has given to ``torch.compile`` is traced as what it was before."""
    if "torch._dynamo" not in sys.modules:
        yield
        return
    with torch.compiler.set_stance("force_eager"):
        yield


def _refuse_random(recorded: Recording) -> None:
    for node in recorded.graph.nodes:
        if node.op == "call_function" and torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ()):
            raise UnsupportedEnergyError(
                f"energy: random draw {node.target} at {sourcelines.line_of_node(node)}; E(x) must be the same at "
                "every call: call model.eval() if this is dropout, or pass the random numbers in as model_kwargs"
            )


def _lift_captured(recorded: Recording, n_inputs: int) -> tuple[Tensor, ...]:
    """Held tensors become placeholders after the function's own inputs."""
    graph = recorded.graph
    last = [node for node in graph.nodes if node.op == "placeholder"][n_inputs - 1]
    captured: dict[int, tuple[Tensor, fx.Node]] = {}
    for node in list(graph.nodes):
        if node.op != "get_attr":
            continue
        value = recorded.held.pop(node.target)
        if id(value) not in captured:
            with graph.inserting_after(last):
                last = graph.placeholder(f"captured_{len(captured)}")
            captured[id(value)] = (value, last)
        node.replace_all_uses_with(captured[id(value)][1])
        graph.erase_node(node)
    return tuple(value for value, _ in captured.values())


def _functional(
    recorded: Recording, captured: Sequence[Tensor], n_own: int, flat: Sequence[Tensor], decompose: Decompose
) -> Recording:
    """Second pass: no mutation, decomposed; inputs in the order own, captured, shared kwargs."""

    def run(*inputs: Tensor) -> Any:
        own, held, shared = inputs[:n_own], inputs[n_own : n_own + len(captured)], inputs[n_own + len(captured) :]
        return recorded.replay(*own, *shared, *held)

    with torch.no_grad():
        pure = record(torch.func.functionalize(run, remove="mutations"), flat, decompose)
    placeholders = {node for node in pure.graph.nodes if node.op == "placeholder"}
    for node in list(pure.graph.nodes):
        # functionalize ends with a copy into each input that was changed; captured tensors stay as they are
        if node.target is torch.ops.aten.copy_.default and node.args[0] in placeholders:
            node.replace_all_uses_with(node.args[1])
            pure.graph.erase_node(node)
    canonicalise(pure, flat[0].device)
    return pure


def split_prelude(
    recorded: Recording, root: fx.GraphModule | dict[str, Any], n_own: int
) -> tuple[fx.GraphModule, fx.GraphModule, int]:
    """Split off what depends on the inputs after the first ``n_own`` only: (body, prelude, values between them).

    ``root`` has what the graph's nodes get and call by name. A node without any tensor input (``arange``, ``full``)
    goes where it is used.
    """
    nodes = list(recorded.graph.nodes)
    placeholders = [n for n in nodes if n.op == "placeholder"]
    own, held = placeholders[:n_own], placeholders[n_own:]
    from_chain: set[fx.Node] = set(own)
    from_held: set[fx.Node] = set(held)
    for node in nodes:
        if node.op in ("placeholder", "output"):
            continue
        if any(i in from_chain for i in node.all_input_nodes):
            from_chain.add(node)
        elif node.op == "get_attr" or any(i in from_held for i in node.all_input_nodes):
            from_held.add(node)
    output = next(n for n in nodes if n.op == "output")
    free = {n for n in nodes if n not in from_chain and n not in from_held and n.op in ("call_function", "call_module")}

    def needs(user: fx.Node) -> bool:
        return user in from_chain or user is output or (user in free)

    boundary = [n for n in nodes if n in from_held and any(needs(user) for user in n.users)]

    prelude_graph = fx.Graph()
    prelude_env: dict[fx.Node, fx.Node] = {}
    body_graph = fx.Graph()
    body_env: dict[fx.Node, fx.Node] = {}
    for node in held:
        prelude_env[node] = prelude_graph.node_copy(node, lambda n: prelude_env[n])
    for node in own:
        body_env[node] = body_graph.node_copy(node, lambda n: body_env[n])
    for i, node in enumerate(boundary):
        new = body_graph.placeholder(f"constant_{i}")
        new.meta = dict(node.meta)
        body_env[node] = new
    for node in nodes:
        if node in free:
            prelude_env[node] = prelude_graph.node_copy(node, lambda n: prelude_env[n])
            body_env[node] = body_graph.node_copy(node, lambda n: body_env[n])
        elif node in from_held and node.op != "placeholder":
            prelude_env[node] = prelude_graph.node_copy(node, lambda n: prelude_env[n])
        elif node in from_chain and node.op != "placeholder":
            body_env[node] = body_graph.node_copy(node, lambda n: body_env[n])
    prelude_graph.output(tuple(prelude_env[n] for n in boundary))
    body_graph.output(fx.map_arg(output.args[0], lambda n: body_env[n]))
    prelude, body = fx.GraphModule(root, prelude_graph), fx.GraphModule(root, body_graph)
    for part in (prelude, body):
        if part.graph.eliminate_dead_code():
            part.delete_all_unused_submodules()
            part.recompile()
        part.graph.lint()
    return body, prelude, len(boundary)


def peak_bytes(graph: fx.GraphModule, n_chain_inputs: int) -> int:
    """Bytes that depend on the chain and are alive at once at most, by the last use of each value.

    What all chains share (constants and what is made of them) is not counted.
    """
    last_use: dict[fx.Node, int] = {}
    nodes = list(graph.graph.nodes)
    per_chain = set([node for node in nodes if node.op == "placeholder"][:n_chain_inputs])
    for node in nodes:
        if not per_chain.isdisjoint(node.all_input_nodes):
            per_chain.add(node)
    for position, node in enumerate(nodes):
        for used in node.all_input_nodes:
            last_use[used] = position
    live = peak = 0
    expiring: dict[int, int] = {}
    for position, node in enumerate(nodes):
        value = node.meta.get("val")
        size = value.numel() * value.element_size() if node in per_chain and isinstance(value, Tensor) else 0
        live += size
        loop = loop_of(node)
        inside = peak_bytes(loop.body, loop.n_carry) if loop is not None and node in per_chain else 0
        expiring[last_use.get(node, position)] = expiring.get(last_use.get(node, position), 0) + size
        peak = max(peak, live + inside)
        live -= expiring.pop(position, 0)
    return peak
