"""Whether backends do the same: step by step on the same noise, and how far they drift apart by rounding."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from compiled_ebm.state import ChainState, RunResult

__all__ = ["Agreement", "Departure", "Steps", "agreements"]

_ROUNDINGS = 64.0
"""Units in the last place that a step may be off by, whatever it computes."""
_AMPLIFIED = 8.0
"""Times what the reference's own step changes by when it begins :data:`_NEARBY` units away."""
_NEARBY = 4.0


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
    begins four units away. A decision that a rounding can turn is counted in ``flipped``; one that it cannot is a
    departure.

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
    states = [state]
    for _ in range(n_steps):
        states.append(samplers[reference].run(states[-1], 1).state)
    nearby = [samplers[reference].run(_nudged(begin), 1).state for begin in states[:-1]]
    return [_agreement(name, sampler, states, nearby) for name, sampler in samplers.items() if name != reference]


def _agreement(name: str, sampler: Steps, states: list[ChainState], nearby: list[ChainState]) -> Agreement:
    eps = torch.finfo(states[0].dtype).eps
    departure, moved, flipped, drift = None, 0, 0, []
    alone = states[0]
    for step, (begin, wanted, near) in enumerate(zip(states, states[1:], nearby, strict=False), 1):
        got = sampler.run(begin, 1).state
        error = _distance(got, wanted, eps)
        allowed = torch.clamp(_AMPLIFIED * _distance(near, wanted, eps), min=_ROUNDINGS)
        went, goes = (_moves(begin, after) for after in (wanted, got))
        moved, flipped = moved + int(went.sum()), flipped + int((went != goes).sum())
        excess = error / allowed
        if departure is None and bool((excess > 1).any()):
            chain = int(excess.argmax())
            departure = Departure(step, chain, float(error[chain]), float(allowed[chain]))
        alone = sampler.run(alone, 1).state
        drift.append(float(_distance(alone, wanted, eps).median()))
    return Agreement(name, states[0].n_chains, len(drift), departure, tuple(drift), moved, flipped)


def _nudged(state: ChainState) -> ChainState:
    """The chains a few roundings away, each coordinate to the other side of its neighbour; what is kept of x is not."""
    x = state.positions
    signs = 1.0 - 2.0 * (torch.arange(x.numel(), device=x.device) % 2).reshape(x.shape).to(x.dtype)
    return replace(state, positions=x + _NEARBY * torch.finfo(state.dtype).eps * signs * x, weights=None)


def _distance(got: ChainState, wanted: ChainState, eps: float) -> Tensor:
    """``[n]`` units in the last place; infinite where only one has failed."""
    a, b = _rows(got.positions), _rows(wanted.positions)
    scale = torch.amax(b.abs(), 1).clamp(min=1.0)
    apart = ((a - b).abs().amax(1) / (eps * scale)).nan_to_num(nan=float("inf"))
    one_failed = (got.failed_at >= 0) != (wanted.failed_at >= 0)
    both_failed = (got.failed_at >= 0) & (wanted.failed_at >= 0)
    return torch.where(both_failed, 0.0, torch.where(one_failed, float("inf"), apart))


def _moves(before: ChainState, after: ChainState) -> Tensor:
    return (_rows(before.positions) != _rows(after.positions)).any(1)


def _rows(x: Tensor) -> Tensor:
    return x.reshape(x.shape[0], -1).double()
