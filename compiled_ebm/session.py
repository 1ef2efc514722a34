"""The chains of one state on their way through launches: buffers in, a state out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Protocol

import torch
from torch import Tensor

from compiled_ebm import rng
from compiled_ebm.arguments import naming_kwargs
from compiled_ebm.backends.base import Chains, Launch
from compiled_ebm.hosttensors import copied
from compiled_ebm.state import ChainState
from compiled_ebm.trace import ChainProgram
from compiled_ebm.transitions.base import Transition, lasting_of
from compiled_ebm.transitions.tally import Tallied

__all__ = ["Builds", "Session", "buffers"]


class Builds(Protocol):
    """What the sampler asks of the builder."""

    def get(self, model_kwargs: Mapping[str, Any], n_chains: int, info: bool = ...) -> tuple[ChainProgram, Launch]:
        """Program and launch for these keyword arguments, built or rebuilt if need be; with info, a tallied one."""

    def adopt(self, transition: Transition) -> None:
        """Go on with another transition: with its tensors alone where it has the same structure."""

    def prepare(self, program: ChainProgram, launch: Launch, chains: Chains) -> Launch:
        """Compile for these buffers; may give another launch where ``auto`` finds that the first cannot do it."""

    def checksum(self, program: ChainProgram, chains: Chains) -> tuple[int, ...]:
        """Of everything but x that energy and gradient depend on."""

    def explain(self) -> str:
        """For :meth:`Sampler.explain`."""

    def source(self) -> str:
        """For :attr:`Sampler.source`."""

    @property
    def backend(self) -> str:
        """The backend in use."""

    @property
    def passed_over(self) -> dict[str, str]:
        """Backends that ``auto`` has passed over, and why."""

    @property
    def seconds(self) -> float:
        """Spent building so far."""


class Session:
    """A program, its launch, and copies of a state's chains in the buffers that it advances.

    Args:
        builds: Gives the program and the launch.
        state: Its tensors are not changed.
        kwargs: Checked keyword arguments of the energy.
        info: Whether the transition is to be a tallied one.
        check: Called with the launch before anything is allocated.
    """

    def __init__(
        self,
        builds: Builds,
        state: ChainState,
        kwargs: Mapping[str, Any],
        info: bool,
        check: Callable[[Launch], None],
    ) -> None:
        self._state = state
        self.program, self.launch = builds.get(kwargs, state.n_chains, info)
        check(self.launch)
        self.chains = buffers(self.program, self.launch, state, kwargs)
        with naming_kwargs(kwargs, self.program.kwargs, state.n_chains):
            while (prepared := builds.prepare(self.program, self.launch, self.chains)) is not self.launch:
                self.launch = prepared
                self.chains = buffers(self.program, self.launch, state, kwargs)
            self._weights = builds.checksum(self.program, self.chains)
            if not _own_leaves(self.program, self._state) or state.weights != self._weights:
                self._begin_anew()
        self.launch.begin(self.chains)

    @property
    def fields(self) -> tuple[str, ...]:
        """Names of the leaves of the chains' state."""
        names: tuple[str, ...] = self.program.state_type._fields  # type: ignore[attr-defined]
        return names

    def _begin_anew(self) -> None:
        """What belongs to x is evaluated; what does not stays, if there was any; failed chains stay failed."""
        chains, state, transition = self.chains, self._state, self.program.transition
        n_own = 1 + len(_own_leaves(self.program, self._state))
        lasting = [k for k, name in enumerate(self.fields[:n_own]) if name in lasting_of(transition)]
        leaves = {k: chains.state[k].clone() for k in lasting}
        self.launch.init(chains, state.step)
        placed: Callable[[Tensor], dict[str, Tensor]] | None = getattr(transition, "placed", None)
        values = {} if placed is None else placed(chains.ids)
        leaves |= {k: values[name] for k, name in enumerate(self.fields) if name in values and k not in leaves}
        for k, leaf in leaves.items():
            chains.state[k].copy_(leaf)
        n = state.n_chains
        chains.failed_at[:n] = torch.where(state.failed_at >= 0, state.failed_at, chains.failed_at[:n])

    def final(self, n_steps: int) -> ChainState:
        """The chains after so many steps."""
        n = self._state.n_chains
        x, *carried = (copied(leaf[:n]) for leaf in self.chains.state[: len(self.fields) - _n_told(self.program)])
        return replace(
            self._state,
            positions=x,
            carried=tuple(carried),
            failed_at=copied(self.chains.failed_at[:n]),
            step=self._state.step + n_steps,
            weights=self._weights,
            leaves=_leaf_names(self.program),
        )


def buffers(program: ChainProgram, launch: Launch, state: ChainState, kwargs: Mapping[str, Any]) -> Chains:
    """Copies of the state's tensors, padded to the launch's capacity by repeating the first chain."""
    n, capacity = state.n_chains, launch.capacity(state.n_chains)

    def padded(tensor: Tensor) -> Tensor:
        if capacity == n:
            return copied(tensor)
        return torch.cat([tensor, tensor[:1].expand(capacity - n, *tensor.shape[1:])])

    own, zero = _own_leaves(program, state), torch.zeros((), dtype=program.carry_dtype, device=program.device)
    further = [copied(zero.expand(capacity, *shape)) for shape in program.state_shapes[1 + len(own) :]]
    return Chains(
        (padded(state.positions), *map(padded, own), *further),
        padded(state.failed_at),
        padded(state.chain_ids),
        rng.seed_tensor(state.seed, program.device),
        tuple(padded(kwargs[name]) for name in program.kwargs.per_chain),
        tuple(kwargs[name] for name in program.kwargs.shared),
    )


def _own_leaves(program: ChainProgram, state: ChainState) -> tuple[Tensor, ...]:
    """The leaves that the state carries, if they are those of the program's transition; a tally has more."""
    return state.carried or () if state.leaves == _leaf_names(program) else ()


def _leaf_names(program: ChainProgram) -> tuple[str, ...]:
    """Of what a state carries, and what of the move belongs to it beside."""
    fields: tuple[str, ...] = program.state_type._fields  # type: ignore[attr-defined]
    rungs: tuple[str, ...] = getattr(program.transition, "rungs", ())
    return (*fields[1 : len(fields) - _n_told(program)], *rungs)


def _n_told(program: ChainProgram) -> int:
    return len(program.transition.told) if isinstance(program.transition, Tallied) else 0
