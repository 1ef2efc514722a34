"""Trace: energy + transition become one chain's step, as a pure ATen graph.

Two passes. The first runs the transition's own ``step`` with the user's energy on one chain under ``make_fx``, which
records every operation with the user's line. Tensors that the energy captured (parameters, buffers, closures) are
lifted from constants to inputs. The second pass makes the graph functional, decomposes it to core ATen, and splits
off the prelude: what depends on captured tensors only, evaluated once a run, so that weights stay live.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn.attention import SDPBackend, sdpa_kernel

from compiled_ebm import captures, sourcelines
from compiled_ebm.errors import UnsupportedEnergyError
from compiled_ebm.target import BatchTarget, Energy
from compiled_ebm.transitions.base import NoiseDraw, Target, Transition

__all__ = [
    "ALIVE",
    "ChainGraph",
    "ChainProgram",
    "ChainTarget",
    "KwargsSpec",
    "guarded_init",
    "guarded_step",
    "mutations_undone",
    "trace",
]

ALIVE = -1
"""``failed_at`` of a chain that has not failed."""

_TRACE_LOCK = threading.RLock()


class ChainTarget:
    """The density of one chain: a batch of one."""

    def __init__(self, batch: BatchTarget) -> None:
        self._batch = batch

    def energy(self, x: Tensor) -> Tensor:
        """E(x), 0-d."""
        return self._batch.energy(x.unsqueeze(0)).squeeze(0)

    def energy_and_grad(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """E(x), 0-d, and its gradient."""
        energy, grad = self._batch.energy_and_grad(x.unsqueeze(0))
        return energy.squeeze(0), grad.squeeze(0)


def guarded_init(transition: Transition, target: Target, x: Tensor, step: Tensor) -> tuple[Any, Tensor]:
    """The transition's state at x, and the step at which the chain failed: this one if the energy is not finite."""
    state = transition.init(x, target)
    alive = torch.isfinite(state.energy)
    return state, torch.where(alive, torch.full_like(step, ALIVE), step)


def guarded_step(
    transition: Transition,
    target: Target,
    state: Any,
    failed_at: Tensor,
    step: Tensor,
    noise: NoiseDraw,
    hyper: Any,
) -> tuple[Any, Tensor]:
    """One step of one chain, quarantined: a chain that fails stays at its last finite position from then on.

    A chain fails at the first step whose new position or energy is not finite. Its own selects see to that: no host
    sync, and no other chain is touched.
    """
    new, _ = transition.step(state, noise, hyper, target)
    finite = torch.isfinite(new.x).all() & torch.isfinite(new.energy)
    alive = failed_at == ALIVE
    moves = alive & finite
    kept = type(state)(*(torch.where(moves, after, before) for after, before in zip(new, state, strict=True)))
    return kept, torch.where(alive & ~finite, step, failed_at)


@dataclass(frozen=True)
class KwargsSpec:
    """How ``model_kwargs`` enter a program: which are per chain, which are shared, which are plain constants."""

    per_chain: tuple[str, ...] = ()
    shared: tuple[str, ...] = ()
    constants: tuple[tuple[str, object], ...] = ()

    @classmethod
    def of(cls, model_kwargs: Mapping[str, Any], n_chains: int) -> KwargsSpec:
        """Tensors whose first dimension is the number of chains are per chain; other tensors are shared."""
        chain, shared, constants = [], [], []
        for name, value in sorted(model_kwargs.items()):
            if not isinstance(value, Tensor):
                constants.append((name, value))
            elif value.ndim > 0 and value.shape[0] == n_chains:
                chain.append(name)
            else:
                shared.append(name)
        return cls(tuple(chain), tuple(shared), tuple(constants))


@dataclass(frozen=True, eq=False)
class ChainGraph:
    """One traced function of one chain.

    ``body(*chain_inputs, *uniform_inputs, *constants)`` is pure. ``chain_inputs`` differ from chain to chain,
    ``uniform_inputs`` do not. ``constants = prelude(*captured, *shared_kwargs)``.
    """

    body: fx.GraphModule
    prelude: fx.GraphModule
    captured: tuple[Tensor, ...]
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


@dataclass(frozen=True, eq=False)
class ChainProgram:
    """Energy and transition, traced for one chain.

    ``step.body(*state, failed_at, *chain_kwargs, normals, uniforms, step, *hyper, *constants)``
    gives ``(*state, failed_at)``; ``init.body(x, *chain_kwargs, step, *constants)`` gives the same.
    """

    init: ChainGraph
    step: ChainGraph
    transition: Transition
    event_shape: tuple[int, ...]
    carry_dtype: torch.dtype
    compute_dtype: torch.dtype
    device: torch.device
    kwargs: KwargsSpec
    state_type: type
    state_shapes: tuple[tuple[int, ...], ...]
    notes: tuple[str, ...]

    @property
    def event_numel(self) -> int:
        """Elements of one position."""
        return int(torch.Size(self.event_shape).numel())

    def bytes_per_chain(self) -> int:
        """Bytes that a step of one chain keeps alive at most, by the liveness of the traced graph."""
        return _peak_bytes(self.step.body)

    def code(self) -> str:
        """The traced step, as readable Python."""
        return str(self.step.body.code)


def trace(
    energy: Energy,
    transition: Transition,
    event_shape: tuple[int, ...],
    *,
    carry_dtype: torch.dtype,
    compute_dtype: torch.dtype,
    device: torch.device,
    kwargs_spec: KwargsSpec,
    kwargs_row: Mapping[str, Tensor],
) -> ChainProgram:
    """Trace one chain's ``init`` and ``step``.

    Args:
        energy: ``[n, *event] -> [n]``.
        transition: The move.
        event_shape: Shape of one position.
        carry_dtype: The dtype of the state, float32 or float64.
        compute_dtype: The dtype in which the energy is evaluated; captured floating tensors are cast to it.
        device: Where the chains live.
        kwargs_spec: Which ``model_kwargs`` are per chain.
        kwargs_row: One row (no chain dimension) of each per-chain tensor, and each shared tensor.

    Raises:
        UnsupportedEnergyError: Control flow on data, random draws, or an operation that cannot be traced.
    """
    slots = captures.find_slots(energy)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(event_shape, generator=generator, dtype=torch.float64).to(device=device, dtype=carry_dtype)
    step_index = torch.zeros((), dtype=torch.int64, device=device)
    chain_kwargs = [kwargs_row[name] for name in kwargs_spec.per_chain]
    shared_kwargs = [kwargs_row[name] for name in kwargs_spec.shared]
    n_kw = len(chain_kwargs)

    def cast(tensor: Tensor) -> Tensor:
        return tensor.to(compute_dtype) if tensor.dtype.is_floating_point else tensor

    def target(chain: Sequence[Tensor], shared: Sequence[Tensor]) -> ChainTarget:
        kwargs: dict[str, Any] = dict(kwargs_spec.constants)
        kwargs |= {k: cast(v).unsqueeze(0) for k, v in zip(kwargs_spec.per_chain, chain, strict=True)}
        kwargs |= {k: cast(v) for k, v in zip(kwargs_spec.shared, shared, strict=True)}
        return ChainTarget(BatchTarget(energy, kwargs, compute_dtype, carry_dtype))

    def init(*flat: Tensor) -> tuple[Tensor, ...]:
        position, rest = flat[0], flat[1:]
        chain, step, shared = rest[:n_kw], rest[n_kw], rest[n_kw + 1 :]
        with captures.substituted(slots, cast):
            state, failed = guarded_init(transition, target(chain, shared), position, step)
        return (*state, failed)

    example_init = (x, *chain_kwargs, step_index, *shared_kwargs)
    notes: list[str] = []
    with torch.no_grad(), mutations_undone(slots, notes):
        example_state = init(*example_init)
    state_type = type(transition.init(x, _ZeroTarget()))
    n_state = len(example_state) - 1
    normals_shape = event_shape if transition.noise.normals == 1 else (transition.noise.normals, *event_shape)
    normals = torch.zeros(normals_shape, dtype=carry_dtype, device=device)
    uniforms = torch.full((transition.noise.uniforms,), 0.5, dtype=carry_dtype, device=device)
    hyper = [t[0].to(device=device, dtype=carry_dtype) for t in transition.hyper_table(0, 1)]

    def step(*flat: Tensor) -> tuple[Tensor, ...]:
        state, failed, rest = state_type(*flat[:n_state]), flat[n_state], flat[n_state + 1 :]
        chain, rest = rest[:n_kw], rest[n_kw:]
        noise, index, rest = NoiseDraw(rest[0], rest[1]), rest[2], rest[3:]
        now, shared = transition.hyper_type(*rest[: len(hyper)]), rest[len(hyper) :]
        with captures.substituted(slots, cast):
            new, failed = guarded_step(transition, target(chain, shared), state, failed, index, noise, now)
        return (*new, failed)

    alive = torch.full((), ALIVE, dtype=torch.int64, device=device)
    example_step = (*example_state[:-1], alive, *chain_kwargs, normals, uniforms, step_index, *hyper, *shared_kwargs)
    with _TRACE_LOCK, mutations_undone(slots, []):
        init_graph = _trace_graph(init, example_init, 1 + n_kw, 1)
        step_graph = _trace_graph(step, example_step, n_state + 1 + n_kw + 2, 1 + len(hyper))
    return ChainProgram(
        init=init_graph,
        step=step_graph,
        transition=transition,
        event_shape=event_shape,
        carry_dtype=carry_dtype,
        compute_dtype=compute_dtype,
        device=device,
        kwargs=kwargs_spec,
        state_type=state_type,
        state_shapes=tuple(tuple(t.shape) for t in example_state[:-1]),
        notes=tuple(notes),
    )


class _ZeroTarget:
    """E = 0, to learn the State type of a transition without calling the energy."""

    def energy(self, x: Tensor) -> Tensor:
        return x.new_zeros(())

    def energy_and_grad(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x.new_zeros(()), torch.zeros_like(x)


class mutations_undone:
    """Buffers that the energy changes in place while it is probed or traced get their old values back."""

    def __init__(self, slots: list[captures.Slot], notes: list[str]) -> None:
        self._saved = [(slot, slot.value._version, slot.value.detach().clone()) for slot in captures.tensors(slots)]
        self._notes = notes

    def __enter__(self) -> None:
        return None

    def __exit__(self, *_: object) -> None:
        for slot, version, value in self._saved:
            if slot.value._version != version:
                self._notes.append(f"the energy changes {slot.path} in place when called; sampling leaves it as it is")
                with torch.no_grad():
                    slot.value.copy_(value)


def _trace_graph(function: Callable[..., Any], example: Sequence[Tensor], n_chain: int, n_uniform: int) -> ChainGraph:
    recorded = _record(function, example)
    _refuse_random(recorded)
    _refuse_masks(recorded)
    captured = _lift_captured(recorded, len(example))
    n_own = n_chain + n_uniform
    flat = [*example[:n_own], *captured, *example[n_own:]]
    functional = _functional(recorded, example, captured, n_own, flat)
    body, prelude, n_constants = _split_prelude(functional, n_own)
    return ChainGraph(body, prelude, captured, n_chain, n_uniform, n_constants)


def _record(function: Callable[..., Any], example: Sequence[Tensor]) -> fx.GraphModule:
    """First pass: the operations as they happen, each with the user's line."""
    try:
        with sourcelines.recording_metadata(), sourcelines.SourceRecorder(), sdpa_kernel(SDPBackend.MATH):
            return make_fx(function)(*example)
    except UnsupportedEnergyError:
        raise
    except Exception as error:
        line = sourcelines.line_of_error(error)
        if "data-dependent" in str(error) or "_local_scalar_dense" in str(error):
            raise UnsupportedEnergyError(
                f"energy: control flow on data at {line}: a Python value was taken from a tensor that depends on x; "
                "use torch.where, torch.clamp or masks so that every chain runs the same operations"
            ) from error
        raise UnsupportedEnergyError(f"energy: cannot trace {line}: {type(error).__name__}: {error}") from error


def _refuse_random(graph: fx.GraphModule) -> None:
    for node in graph.graph.nodes:
        if node.op == "call_function" and torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ()):
            raise UnsupportedEnergyError(
                f"energy: random draw {node.target} at {sourcelines.line_of_node(node)}; E(x) must be the same at "
                "every call: call model.eval() if this is dropout, or pass the random numbers in as model_kwargs"
            )


def _refuse_masks(graph: fx.GraphModule) -> None:
    for node in graph.graph.nodes:
        if node.op != "call_function":
            continue
        tags = getattr(node.target, "tags", ())
        dynamic = torch.Tag.dynamic_output_shape in tags or torch.Tag.data_dependent_output in tags
        if node.target is torch.ops.aten.index.Tensor:
            indices = [i for i in node.args[1] if isinstance(i, fx.Node)]
            dynamic = any(i.meta["val"].dtype in (torch.bool, torch.uint8) for i in indices)
        if dynamic:
            raise UnsupportedEnergyError(
                f"energy: the shape of {node.target}'s result depends on data, at {sourcelines.line_of_node(node)}; "
                "use torch.where(mask, a, b) or multiply by the mask, or index with integers found beforehand"
            )


def _lift_captured(recorded: fx.GraphModule, n_inputs: int) -> tuple[Tensor, ...]:
    """Captured tensors become placeholders after the function's own inputs."""
    graph = recorded.graph
    last = [node for node in graph.nodes if node.op == "placeholder"][n_inputs - 1]
    captured: dict[int, tuple[Tensor, fx.Node]] = {}
    for node in list(graph.nodes):
        if node.op != "get_attr":
            continue
        value = getattr(recorded, node.target)
        if id(value) not in captured:
            with graph.inserting_after(last):
                last = graph.placeholder(f"captured_{len(captured)}")
            captured[id(value)] = (value, last)
        node.replace_all_uses_with(captured[id(value)][1])
        graph.erase_node(node)
    graph.lint()
    recorded.recompile()
    return tuple(value for value, _ in captured.values())


def _functional(
    recorded: fx.GraphModule,
    example: Sequence[Tensor],
    captured: Sequence[Tensor],
    n_own: int,
    flat: Sequence[Tensor],
) -> fx.GraphModule:
    """Second pass: no mutation, core ATen only; inputs in the order own, captured, shared kwargs."""

    def run(*inputs: Tensor) -> Any:
        own, held, shared = inputs[:n_own], inputs[n_own : n_own + len(captured)], inputs[n_own + len(captured) :]
        return fx.Interpreter(recorded).run(*own, *shared, *held, enable_io_processing=False)

    functional = torch.func.functionalize(run, remove="mutations")
    with sourcelines.recording_metadata(), torch.no_grad():
        graph = make_fx(functional, decomposition_table=_decompositions())(*(t.detach() for t in flat))
    placeholders = {node for node in graph.graph.nodes if node.op == "placeholder"}
    for node in list(graph.graph.nodes):
        # functionalize ends with a copy into each input that was changed; captured tensors stay as they are
        if node.target is torch.ops.aten.copy_.default and node.args[0] in placeholders:
            node.replace_all_uses_with(node.args[1])
            graph.graph.erase_node(node)
    _canonicalise(graph)
    return graph


def _decompositions() -> Mapping[Any, Callable[..., Any]]:
    table: Any = torch._decomp.core_aten_decompositions()
    return dict(table.items())


def _canonicalise(graph: fx.GraphModule) -> None:
    """Drop operations that do nothing; give slices bounds that are not negative.

    The batching rule of ``slice_scatter`` (torch 2.13) misreads a negative end.
    """
    aten = torch.ops.aten
    for node in list(graph.graph.nodes):
        same = node.target in (aten.alias.default, aten.detach.default, aten.lift_fresh_copy.default)
        if node.target is aten.pow.Tensor_Scalar and node.args[1] == 1:
            same = node.args[0].meta["val"].dtype == node.meta["val"].dtype
        if node.target is aten.copy.default:
            # functionalised in-place writes; it has no batching rule
            with graph.graph.inserting_before(node):
                _replace_copy(graph.graph, node)
        elif same:
            node.replace_all_uses_with(node.args[0])
            graph.graph.erase_node(node)
        elif node.target in (aten.slice.Tensor, aten.slice_scatter.default):
            first = 1 if node.target is aten.slice.Tensor else 2  # where dim, start, end, step begin
            given = [*node.args[first:], *(None,) * (first + 4 - len(node.args))]
            dim, start, end, stride = given[0] or 0, given[1], given[2], given[3] or 1
            size = node.args[0].meta["val"].shape[dim]
            start, end, _ = slice(start, end, stride).indices(size)
            node.args = (*node.args[:first], dim, start, max(start, end), stride)
    graph.graph.eliminate_dead_code()
    graph.recompile()


def _split_prelude(graph: fx.GraphModule, n_own: int) -> tuple[fx.GraphModule, fx.GraphModule, int]:
    """Split off what depends on captured tensors only.

    A node without any tensor input (``arange``, ``full``) goes where it is used.
    """
    nodes = list(graph.graph.nodes)
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
    free = {n for n in nodes if n not in from_chain and n not in from_held and n.op == "call_function"}

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
    for part in (prelude_graph, body_graph):
        part.eliminate_dead_code()
        part.lint()
    return fx.GraphModule(graph, body_graph), fx.GraphModule(graph, prelude_graph), len(boundary)


def _replace_copy(graph: fx.Graph, node: fx.Node) -> None:
    """``copy(target, source)`` as what it means: the source, in the target's shape and dtype."""
    target, source = node.args[0].meta["val"], node.args[1]
    value = source.meta["val"]
    for call, args, kwargs, changes in (
        (torch.ops.aten._to_copy.default, (), {"dtype": target.dtype}, value.dtype != target.dtype),
        (torch.ops.aten.expand.default, (list(target.shape),), {}, value.shape != target.shape),
    ):
        if changes:
            source = graph.call_function(call, (source, *args), kwargs)
            value = value.to(target.dtype) if "dtype" in kwargs else value.expand(target.shape)
            source.meta = {**node.meta, "val": value}
    node.replace_all_uses_with(source)
    graph.erase_node(node)


def _peak_bytes(graph: fx.GraphModule) -> int:
    last_use: dict[fx.Node, int] = {}
    nodes = list(graph.graph.nodes)
    for position, node in enumerate(nodes):
        for used in node.all_input_nodes:
            last_use[used] = position
    live = peak = 0
    expiring: dict[int, int] = {}
    for position, node in enumerate(nodes):
        value = node.meta.get("val")
        size = value.numel() * value.element_size() if isinstance(value, Tensor) else 0
        live += size
        expiring[last_use.get(node, position)] = expiring.get(last_use.get(node, position), 0) + size
        peak = max(peak, live)
        live -= expiring.pop(position, 0)
    return peak
