"""A transition in JAX: ``lax.scan`` over ``vmap`` of its step, the energy's gradient by ``jax.grad``, compiled whole.

Energy and step are traced apart. In the step two operations stand for the energy and its gradient, so that these are
what a user of JAX would have written; the weights are the energy's own.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from jax import experimental, lax
from torch import Tensor, fx
from torch.utils.dlpack import from_dlpack

from compiled_ebm import captures
from compiled_ebm.chaingraph import ChainGraph, trace_graph
from compiled_ebm.laboratory.jax_graphs import array_of, chain_function
from compiled_ebm.recorder import core_decomposition
from compiled_ebm.target import BatchTarget, Energy, own_gradient
from compiled_ebm.trace import ChainProgram, trace, unguarded_step

__all__ = ["JaxSteps"]

_FEW = 64
"""Chains at which gradients are compared."""
_CLOSE = 1e-2
"""Of the largest gradient: a backward that is no derivative is further off, half precision is not."""

_enable_x64: Any = jax.enable_x64 if hasattr(jax, "enable_x64") else vars(experimental)["enable_x64"]
"""Where it is depends on the version."""
_LIBRARY = torch.library.Library("compiled_ebm_standin", "DEF")  # type: ignore[no-untyped-call]
_LIBRARY.define("energy(Tensor x) -> Tensor")  # type: ignore[no-untyped-call]
_LIBRARY.define("gradient(Tensor x) -> Tensor")  # type: ignore[no-untyped-call]
for _name, _like in {"energy": lambda x: x.reshape(len(x), -1).sum(1), "gradient": torch.clone}.items():
    _LIBRARY.impl(_name, _like, "CompositeExplicitAutograd")  # type: ignore[no-untyped-call]


class _StandIn:
    """An energy of which a trace shows that it was called, and nothing else."""

    def __call__(self, x: Tensor) -> Tensor:
        found: Tensor = torch.ops.compiled_ebm_standin.energy(x)
        return found

    def gradient(self, x: Tensor) -> Tensor:
        found: Tensor = torch.ops.compiled_ebm_standin.gradient(x)
        return found


class JaxSteps:
    """All steps of all chains in one jitted call; noise by JAX's own generator; no quarantine of chains that fail.

    Args:
        energy: ``[n, *event] -> [n]``, as it was traced for ``program``.
        program: A sampler's.
        x0: ``[n_chains, *event]``, where the chains start.
        n_steps: Steps of a run.
        seed: Of the noise.
        also: ``[m, *event]``, positions at which JAX's gradient has to be torch's, beside the first of ``x0``; where it
            is not, JAX is given torch's, translated.

    Raises:
        UnsupportedEnergyError: An operation has no form here; names it and its line.
    """

    name = "jax"

    def __init__(
        self, energy: Energy, program: ChainProgram, x0: Tensor, n_steps: int, seed: int, also: Tensor | None = None
    ) -> None:
        self._program, self._n_steps, self._seed, self._x0 = program, n_steps, seed, x0
        on_cuda = x0.device.type == "cuda"
        self._place = jax.devices("gpu" if on_cuda else "cpu")[x0.device.index or 0 if on_cuda else 0]
        self._compiled: Any = None
        self._inputs: tuple[Any, ...] = ()
        with self._precision():
            self._init, self._step, self._needed = _chain(
                energy, program, x0, x0[:_FEW] if also is None else torch.cat([x0[:_FEW], also])
            )

    def build(self) -> float:
        """Compile the whole run; seconds."""
        begin = time.perf_counter()
        with self._precision():
            self._inputs = self._arguments()
            self._compiled = jax.jit(self._sample).lower(*self._inputs).compile()
        return time.perf_counter() - begin

    def run(self) -> Tensor:
        """All steps from the start; the last positions, waited for."""
        if self._compiled is None:
            raise RuntimeError("JaxSteps: call build() first")
        with self._precision():
            return from_dlpack(self._compiled(*self._inputs).block_until_ready())

    def draws(self) -> Tensor:
        """As :meth:`run`: nothing is done about chains that fail."""
        return self.run()

    def launches_per_step(self) -> float:
        """One call for all steps."""
        return 1 / self._n_steps

    @contextmanager
    def _precision(self) -> Iterator[None]:
        """In the carried dtype, on this device."""
        with _enable_x64(self._program.carry_dtype == torch.float64), jax.default_device(self._place):
            yield

    def _arguments(self) -> tuple[Any, ...]:
        carry = self._program.carry_dtype
        hyper = [array_of(t.to(carry)) for t in self._program.transition.hyper_table(0, self._n_steps)]
        given = (array_of(self._x0.to(carry)), jax.random.key(self._seed), hyper)
        return tuple(jax.device_put(given, self._place))

    def _sample(self, x: Any, key: Any, hyper: list[Any]) -> Any:
        count, noise = x.shape[0], self._program.transition.noise
        event = self._program.event_shape
        shape = (count, *event) if noise.normals == 1 else (count, noise.normals, *event)
        start = jax.vmap(lambda one: self._init(one, jnp.zeros((), int)))(x)

        def body(carry: tuple[Any, ...], given: tuple[Any, ...]) -> tuple[tuple[Any, ...], None]:
            key, index, now = given
            one, other = jax.random.split(key)
            state = list(start)
            for place, value in zip(self._needed, carry, strict=True):
                state[place] = value
            normals = jax.random.normal(one, shape, x.dtype)
            uniforms = 1 - jax.random.uniform(other, (count, noise.uniforms), x.dtype)
            after = jax.vmap(lambda *own: self._step(*own, index, *now))(*state, normals, uniforms)
            return tuple(after[place] for place in self._needed), None

        keys, indices = jax.random.split(key, self._n_steps), jnp.arange(self._n_steps)
        last, _ = lax.scan(body, tuple(start[place] for place in self._needed), (keys, indices, hyper))
        return last[self._needed.index(0)]


def _chain(
    energy: Energy, program: ChainProgram, x0: Tensor, tried: Tensor
) -> tuple[Callable[..., Any], Callable[..., Any], list[int]]:
    """``init(x, step)`` and ``step(*state, failed_at, normals, uniforms, step, *hyper)`` of one chain, and which of the
    state's leaves later positions depend on."""
    stepped = trace(
        _StandIn(),
        program.transition,
        program.event_shape,
        carry_dtype=program.carry_dtype,
        compute_dtype=program.compute_dtype,
        device=torch.device("cpu"),
        kwargs_spec=program.kwargs,
        kwargs_row={},
        guard=unguarded_step,
    )
    n = x0.shape[0]
    energies = chain_function(_traced(energy, program, n, lambda target, x: target.energy(x)))
    gradients: Callable[..., Any] = jax.grad(lambda x: energies(x)[0].sum())
    if own_gradient(energy) is not None or not _is_gradient(energy, program, tried):
        own = chain_function(_traced(energy, program, n, lambda target, x: target.energy_and_grad(x)[1]))
        gradients = lambda x: own(x)[0]  # noqa: E731
    others = {
        "compiled_ebm_standin.energy": _over_chains(lambda x: energies(x)[0], per_element=False),
        "compiled_ebm_standin.gradient": _over_chains(gradients, per_element=True),
    }
    init, step = (chain_function(graph, others) for graph in (stepped.init, stepped.step))
    return init, step, _needed(stepped.step, len(program.state_shapes) + 1)


def _is_gradient(energy: Energy, program: ChainProgram, x: Tensor) -> bool:
    """Whether JAX's gradient is torch's: an ``autograd.Function`` may have a backward that is no derivative."""
    compute = program.compute_dtype
    energies = chain_function(_traced(energy, program, len(x), lambda target, x: target.energy(x)))
    target = BatchTarget(energy, dict(program.kwargs.constants), compute, compute)
    slots = captures.find_slots(energy)
    with captures.substituted(slots, lambda tensor: _computed_in(compute, tensor)):
        wanted = target.energy_and_grad(x.to(compute))[1].cpu().double()
    found = jax.grad(lambda x: energies(x)[0].sum())(array_of(x.to(compute)))
    got = torch.from_numpy(np.array(found, dtype=np.float64))
    close = torch.isclose(got, wanted, rtol=_CLOSE, atol=_CLOSE * float(wanted.abs().nan_to_num().amax()))
    return bool((close | ~wanted.isfinite()).all())


def _computed_in(dtype: torch.dtype, tensor: Tensor) -> Tensor:
    return tensor.to(dtype) if tensor.dtype.is_floating_point else tensor


def _over_chains(function: Callable[[Any], Any], per_element: bool) -> Callable[..., Any]:
    """For a batch of one inside ``vmap``: the function of all chains, called once. Outside it there is no value."""

    def one(x: Any) -> Any:
        return jnp.full(x.shape[: None if per_element else 1], jnp.nan, x.dtype)

    def all_chains(size: int, mapped: list[bool], x: Any) -> tuple[Any, bool]:
        return function(x[:, 0])[:, None], True

    batched: Any = jax.custom_batching.custom_vmap(one)
    batched.def_vmap(all_chains)
    found: Callable[..., Any] = batched
    return found


def _traced(
    energy: Energy, program: ChainProgram, n: int, wanted: Callable[[BatchTarget, Tensor], Tensor]
) -> ChainGraph:
    """A function of the energy at all chains' positions, in the dtype that the energy is computed in."""
    compute = program.compute_dtype
    slots = captures.find_slots(energy)

    def function(x: Tensor) -> tuple[Tensor]:
        with captures.substituted(slots, lambda tensor: _computed_in(compute, tensor)):
            return (wanted(BatchTarget(energy, dict(program.kwargs.constants), compute, compute), x),)

    example = torch.randn((n, *program.event_shape), generator=torch.Generator().manual_seed(0))
    return trace_graph(function, (example.to(program.device, compute),), 1, 0, _in_words_of_jax)


def _in_words_of_jax(op: Any) -> Callable[..., Any] | None:
    """As in the core set, but for what JAX has whole, with a gradient of its own."""
    return None if op in (torch.ops.aten.logsumexp.default, torch.ops.aten.softplus.default) else core_decomposition(op)


def _needed(graph: ChainGraph, n_leaves: int) -> list[int]:
    """Leaves of the state that later positions depend on: the others need not be carried."""
    nodes = graph.body.graph.nodes
    inputs = [node for node in nodes if node.op == "placeholder"]
    outputs: Any = next(node for node in nodes if node.op == "output").args[0]
    found, ahead = set[int](), [0]
    while ahead:
        place = ahead.pop()
        if place in found:
            continue
        found.add(place)
        reached, stack = set[fx.Node](), [outputs[place]]
        while stack:
            node = stack.pop()
            if node not in reached:
                reached.add(node)
                stack += node.all_input_nodes
        ahead += [i for i in range(n_leaves) if inputs[i] in reached]
    return sorted(found)
