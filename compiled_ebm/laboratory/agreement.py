"""Whether backends do the same: step by step on the same noise, and how far they drift apart by rounding."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from compiled_ebm.errors import NonFiniteChainWarning
from compiled_ebm.state import ChainState, RunResult

__all__ = ["Agreement", "Departure", "Steps", "agreements"]

_ROUNDINGS = 64.0
"""Units in the last place that a step may be off by, whatever it computes."""
_AMPLIFIED = 8.0
"""Times what the reference's own step changes by when it begins :data:`_NEARBY` units away."""
_NEARBY = 4.0
_LEAVES = 1e4
"""Times that by which energies, gradients and momenta may be off."""
_SIGMAS = 5.0


class Steps(Protocol):
    """What does steps: a :class:`~compiled_ebm.sampler.Sampler`, or what stands in for one."""

    def run(self, state: ChainState, n_steps: int, thin: int | None = None) -> RunResult:
        """Advance every chain."""


@dataclass(frozen=True)
class Departure:
    """Where a backend left the reference by more than rounding.

    Args:
        step: The first such step, counted from 1: of one step from the reference's own state.
        chain: The chain that was furthest off in it, by its place in the batch.
        ulps: By how much, in units in the last place.
        allowed: By how much it could have been.
    """

    step: int
    chain: int
    ulps: float
    allowed: float

    def __str__(self) -> str:
        return (
            f"at step {self.step}, chain {self.chain}, by {self.ulps:.3g} units in the last place, where rounding "
            f"explains {self.allowed:.3g}"
        )


@dataclass(frozen=True)
class Agreement:
    """How a backend's chains compare with the reference's.

    Args:
        backend: Its name.
        n_chains, n_steps: What was compared.
        departure: Where it first left the reference by more than rounding, or None.
        drift: After each step of runs of their own, the median over chains of the distance between the two, in units
            in the last place of the largest coordinate (of 1 where that is smaller): what rounding grows to.
        moved: How many of the chains' steps went anywhere in the reference, each from the reference's own state.
        flipped: How many steps the backend rejected where the reference accepted, or the other way round.
    """

    backend: str
    n_chains: int
    n_steps: int
    departure: Departure | None
    drift: tuple[float, ...]
    moved: int
    flipped: int

    @property
    def agrees(self) -> bool:
        """Whether nothing but rounding tells the two apart."""
        return self.departure is None


def agreements(
    samplers: Mapping[str, Steps], state: ChainState, n_steps: int, reference: str = "eager"
) -> list[Agreement]:
    """Compare samplers of one energy and one transition with the reference, on the same noise.

    Each step begins at the reference's state, so that a difference is the step's own and not what earlier ones grew
    to; what it may be is 64 units in the last place, or eight times what the reference's step changes by when it
    begins four units away. Energies, gradients and momenta may be off by far more, which is still far less than a wrong
    one is. Decisions that differ are counted in ``flipped``, and are a departure where they are more than rounding of
    energies of that size turns. At the end all steps are done again in one run, which has to leave the same bits as
    the backend's runs of one step.

    Args:
        samplers: By the name of their backend; the reference among them.
        state: Where all begin.
        n_steps: Steps, >= 1.
        reference: The name of the specification.

    Returns:
        One :class:`Agreement` for each of the others, in their order.

    Raises:
        ValueError: If the reference is not among the samplers, or fewer than one step is asked for.

    Example:
        >>> import compiled_ebm as ce
        >>> samplers = {
        ...     name: ce.build_sampler(ce.DoubleWellModel(), ce.Langevin(0.01), event_shape=2, backend="eager")
        ...     for name in ("eager", "another")
        ... }
        >>> [found] = agreements(samplers, samplers["eager"].init(n_chains=8, seed=0), n_steps=5)
        >>> found.agrees, max(found.drift)
        (True, 0.0)
    """
    if reference not in samplers:
        raise ValueError(f"reference: expected one of {', '.join(samplers)}, got {reference!r}")
    if n_steps < 1:
        raise ValueError(f"n_steps: expected at least 1, got {n_steps}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NonFiniteChainWarning)  # one a step would say the same
        return _agreements(samplers, state, n_steps, reference)


def _agreements(samplers: Mapping[str, Steps], state: ChainState, n_steps: int, reference: str) -> list[Agreement]:
    states = [state]
    for _ in range(n_steps):
        states.append(samplers[reference].run(states[-1], 1).state)
    nearby = [samplers[reference].run(_nudged(begin), 1).state for begin in states[:-1]]
    return [_agreement(name, sampler, states, nearby) for name, sampler in samplers.items() if name != reference]


def _agreement(name: str, sampler: Steps, states: list[ChainState], nearby: list[ChainState]) -> Agreement:
    departure, moved, drift = None, 0, list[float]()
    flipped, explained, first_flip = 0, 0.0, None
    alone = states[0]
    for step, (begin, wanted, near) in enumerate(zip(states, states[1:], nearby, strict=False), 1):
        got = sampler.run(begin, 1).state
        error, allowed = _step_error(got, wanted, near)
        went, goes = (_moves(begin, after) for after in (wanted, got))
        turned = (went != goes) & (error > allowed)
        moved, flipped = moved + int(went.sum()), flipped + int((went != goes).sum())
        explained += _turned_by_rounding(wanted)
        if first_flip is None and bool(turned.any()):
            chain = int(turned.int().argmax())
            first_flip = Departure(step, chain, float(error[chain]), float(allowed[chain]))
        excess = torch.where(turned, 0.0, error / allowed)
        if departure is None and bool((excess > 1).any()):
            chain = int(excess.argmax())
            departure = Departure(step, chain, float(error[chain]), float(allowed[chain]))
        alone = sampler.run(alone, 1).state
        drift.append(float(_distance(alone.positions, wanted.positions).median()))
    if first_flip is not None and flipped > explained + _SIGMAS * math.sqrt(explained):
        departure = first_flip if departure is None or first_flip.step < departure.step else departure
    if departure is None:
        departure = _launch_departure(sampler, states[0], alone, len(drift))
    return Agreement(name, states[0].n_chains, len(drift), departure, tuple(drift), moved, flipped)


def _step_error(got: ChainState, wanted: ChainState, near: ChainState) -> tuple[Tensor, Tensor]:
    """``[n]`` each, in units in the last place: how far a step is off, and how far it may be.

    The other leaves count where they are off by far more than the position may be: an energy is a sum, whose terms may
    be larger than it.
    """
    error = _distance(got.positions, wanted.positions)
    allowed = torch.clamp(_AMPLIFIED * _distance(near.positions, wanted.positions), min=_ROUNDINGS)
    for a, b, c in zip(got.carried or (), wanted.carried or (), near.carried or (), strict=False):
        if a.dtype.is_floating_point:
            may = torch.clamp(_AMPLIFIED * _distance(c, b), min=1.0) * _LEAVES
            error = torch.maximum(error, _distance(a, b) / may * allowed)
    return torch.where(got.failed_at != wanted.failed_at, float("inf"), error), allowed


def _turned_by_rounding(state: ChainState) -> float:
    """Decisions that rounding of the energies turns, in one step of all chains: each by the size of its error."""
    if state.energy is None:
        return 0.0
    sizes = state.energy.double().abs().nan_to_num(posinf=0.0)
    return float((_AMPLIFIED * torch.finfo(state.dtype).eps * sizes).clamp(max=1.0).sum())


def _launch_departure(sampler: Steps, begin: ChainState, alone: ChainState, n_steps: int) -> Departure | None:
    """Where all steps in one run do not leave the bits that as many runs of one step do."""
    whole = sampler.run(begin, n_steps).state
    off = (_rows(whole.positions) != _rows(alone.positions)).any(1) & ~(
        _rows(whole.positions).isnan() & _rows(alone.positions).isnan()
    ).any(1)
    if not bool(off.any()):
        return None
    chain = int(off.int().argmax())
    return Departure(n_steps, chain, float(_distance(whole.positions, alone.positions)[chain]), 0.0)


def _nudged(state: ChainState) -> ChainState:
    """The chains a few roundings away, each coordinate to the other side of its neighbour; what is kept of x is not."""
    x = state.positions
    signs = 1.0 - 2.0 * (torch.arange(x.numel(), device=x.device) % 2).reshape(x.shape).to(x.dtype)
    return replace(state, positions=x + _NEARBY * torch.finfo(state.dtype).eps * signs * x, weights=None)


def _distance(got: Tensor, wanted: Tensor) -> Tensor:
    """``[n]`` units in the last place of each chain's largest number; infinite where only one is not finite."""
    eps = torch.finfo(wanted.dtype).eps
    a, b = _rows(got), _rows(wanted)
    same = (a == b) | (a.isnan() & b.isnan())
    scale = torch.amax(b.abs().nan_to_num(posinf=1.0), 1).clamp(min=1.0)
    return torch.where(same, 0.0, (a - b).abs().nan_to_num(nan=float("inf"))).amax(1) / (eps * scale)


def _moves(before: ChainState, after: ChainState) -> Tensor:
    return (_rows(before.positions) != _rows(after.positions)).any(1)


def _rows(x: Tensor) -> Tensor:
    return x.reshape(x.shape[0], -1).double()
