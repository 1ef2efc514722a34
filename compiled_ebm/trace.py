"""Trace: energy + transition become one chain's step, as a pure ATen graph.

Two passes. The first runs the transition's own ``step`` with the user's energy on one chain under the recorder, which
records every operation with the user's line. Tensors that the energy captured (parameters, buffers, closures) are
lifted from constants to inputs. The second pass makes the graph functional, decomposes it to core ATen, and splits
off the prelude: what depends on captured tensors only, evaluated once a run, so that weights stay live.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor

from compiled_ebm import captures, checksum
from compiled_ebm.chaingraph import ChainGraph, peak_bytes, trace_graph
from compiled_ebm.loopgraph import readable_code
from compiled_ebm.masks import FewChosenError
from compiled_ebm.target import BatchTarget, Energy
from compiled_ebm.transitions.base import NoiseDraw, Target, Transition, vectors_of

__all__ = [
    "ALIVE",
    "ChainProgram",
    "ChainTarget",
    "KwargsSpec",
    "guarded_init",
    "guarded_step",
    "mutations_undone",
    "trace",
    "unguarded_step",
]

ALIVE = -1
"""``failed_at`` of a chain that has not failed."""

_EXAMPLES = 16
"""Positions at which a trace is tried."""
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


Guard: TypeAlias = Callable[[Transition, Target, Any, Tensor, Tensor, NoiseDraw, Any], tuple[Any, Tensor]]
"""A step of one chain: transition, target, state, ``failed_at``, the step's index, noise and hyper-parameters."""


def unguarded_step(
    transition: Transition, target: Target, state: Any, failed_at: Tensor, step: Tensor, noise: NoiseDraw, hyper: Any
) -> tuple[Any, Tensor]:
    """The transition's own step: a chain that fails goes on with what is not finite."""
    return transition.step(state, noise, hyper, target)[0], failed_at


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
class ChainProgram:
    """Energy and transition, traced for one chain.

    ``step.body(*state, failed_at, *chain_kwargs, normals, uniforms, step, *hyper, *constants)``
    gives ``(*state, failed_at)``; ``init.body(x, *chain_kwargs, step, *constants)`` gives the same.
    ``captured_names`` are those of ``step.captured`` in the user's code. With ``tf32`` the products of a generated
    CUDA kernel need not be better than TF32.
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
    captured_names: tuple[str, ...]
    notes: tuple[str, ...]
    tf32: bool = False

    @property
    def event_numel(self) -> int:
        """Elements of one position."""
        return int(torch.Size(self.event_shape).numel())

    def bytes_per_chain(self) -> int:
        """Bytes that a step of one chain keeps alive at most, by the liveness of the traced graph."""
        return peak_bytes(self.step.body, self.step.n_chain_inputs)

    @functools.cached_property
    def digest(self) -> int:
        """64 bits of the code, to tell programs apart."""
        graphs = (self.init.prelude, self.init.body, self.step.prelude, self.step.body)
        return checksum.of_code(graph.code for graph in graphs)

    def code(self) -> str:
        """The traced step, as readable Python."""
        return readable_code(self.step.body)


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
    example: int = 0,
    guard: Guard = guarded_step,
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
        example: Which position to trace at. Another is tried where a mask of x chooses too few elements to tell.
        guard: What is around the transition's own step.

    Raises:
        UnsupportedEnergyError: Control flow on data, random draws, or an operation that cannot be traced.
    """
    slots = captures.find_slots(energy)
    generator = torch.Generator().manual_seed(example)
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
    # further and further away, for a step downhill may lead to where a mask chooses nothing
    normals = example * torch.randn(normals_shape, generator=generator, dtype=torch.float64)
    normals = normals.to(device=device, dtype=carry_dtype)
    uniforms = torch.full((transition.noise.uniforms,), 0.5, dtype=carry_dtype, device=device)
    hyper = [t[0].to(device=device, dtype=carry_dtype) for t in transition.hyper_table(0, 1)]

    def step(*flat: Tensor) -> tuple[Tensor, ...]:
        state, failed, rest = state_type(*flat[:n_state]), flat[n_state], flat[n_state + 1 :]
        chain, rest = rest[:n_kw], rest[n_kw:]
        noise, index, rest = NoiseDraw(rest[0], rest[1]), rest[2], rest[3:]
        now, shared = transition.hyper_type(*rest[: len(hyper)]), rest[len(hyper) :]
        with captures.substituted(slots, cast):
            new, failed = guard(transition, target(chain, shared), state, failed, index, noise, now)
        return (*new, failed)

    alive = torch.full((), ALIVE, dtype=torch.int64, device=device)
    example_step = (*example_state[:-1], alive, *chain_kwargs, normals, uniforms, step_index, *hyper, *shared_kwargs)
    try:
        with _TRACE_LOCK, mutations_undone(slots, []):
            init_graph = trace_graph(init, example_init, 1 + n_kw, 1)
            step_graph = trace_graph(step, example_step, n_state + 1 + n_kw + 2, 1 + len(hyper))
    except FewChosenError:
        if example + 1 == _EXAMPLES:
            raise
        return trace(
            energy,
            transition,
            event_shape,
            carry_dtype=carry_dtype,
            compute_dtype=compute_dtype,
            device=device,
            kwargs_spec=kwargs_spec,
            kwargs_row=kwargs_row,
            example=example + 1,
            guard=guard,
        )
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
        captured_names=captures.names(slots, step_graph.captured, vectors_of(transition)),
        notes=tuple(notes),
    )


class _ZeroTarget:
    """E = 0, to learn the State type of a transition without calling the energy."""

    def energy(self, x: Tensor) -> Tensor:
        return x.new_zeros(())

    def energy_and_grad(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x.new_zeros(()), torch.zeros_like(x)


class mutations_undone:
    """Buffers that the energy changes in place while it is probed or traced get their old values back.

    It can be entered again, and then copies anew only what has changed in between.
    """

    def __init__(self, slots: list[captures.Slot], notes: list[str]) -> None:
        self._slots = captures.tensors(slots)
        self._saved: list[tuple[int, Tensor]] = [(-1, slot.value) for slot in self._slots]
        self._notes = notes

    def __enter__(self) -> None:
        for k, slot in enumerate(self._slots):
            if slot.value._version != self._saved[k][0]:
                self._saved[k] = slot.value._version, slot.value.detach().clone()

    def __exit__(self, *_: object) -> None:
        for k, (slot, (version, value)) in enumerate(zip(self._slots, self._saved, strict=True)):
            if slot.value._version != version:
                note = f"the energy changes {slot.path} in place when called; sampling leaves it as it is"
                if note not in self._notes:
                    self._notes.append(note)
                with torch.no_grad():
                    slot.value.copy_(value)
                self._saved[k] = slot.value._version, value
