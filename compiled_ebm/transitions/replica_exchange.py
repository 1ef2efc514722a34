"""Replica exchange: chains of one ladder at different temperatures, which they swap now and then."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from compiled_ebm.schedules.checks import checked_count
from compiled_ebm.transitions.base import Noise, NoiseDraw, Target, Transition, extended, lasting_of

__all__ = ["ReplicaExchange"]


@dataclass(frozen=True, eq=False)
class ReplicaExchange:
    r"""A move at several temperatures at once, so that cold chains reach what only hot ones find.

    Chains :math:`jR, \dots, jR + R - 1` are ladder j of R rungs: one chain samples :math:`\exp(-E(x) / T_r)` for each
    r. After every ``swap_every`` steps, pairs of neighbouring rungs (0-1, 2-3, ... and 1-2, 3-4, ... in turns) swap
    their temperatures with probability

    .. math:: \min(1, \exp((1/T_r - 1/T_{r+1}) (E_r - E_{r+1}))).

    A chain keeps its position, and its temperature wanders: ``result.at_temperature(T)`` gathers the draws of one.
    Swaps are decided on the device, by numbers that depend on seed, step and ladder alone.

    Args:
        transition: A move with a ``temperature``: MALA, HMC, RandomWalk, Barker, UnderdampedLangevin or
            PreconditionedLangevin. Its own temperature, which may be a schedule, multiplies those of the ladder.
        temperatures: R >= 2 different numbers above 0; the first R chains begin in this order, and so does each
            further ladder.
        swap_every: Steps between swaps, >= 1.
        step_sizes: R factors of the step size, one for each temperature; None is 1 for all.

    Raises:
        TypeError, ValueError: For a value outside its range; the message names argument, expectation and remedy.

    Source: Geyer, "Markov chain Monte Carlo maximum likelihood", 1991; alternating pairs: Okabe et al., Chemical
    Physics Letters 335, 2001.

    Example:
        >>> import compiled_ebm as ce
        >>> move = ce.ReplicaExchange(ce.MALA(0.05), temperatures=[1.0, 2.0, 4.0])
        >>> sampler = ce.build_sampler(ce.DoubleWellModel(), move, event_shape=(2,), backend="eager")
        >>> result = sampler.run(sampler.init(n_chains=30, seed=0), n_steps=40, thin=10)
        >>> tuple(result.at_temperature(1.0).shape)
        (10, 4, 2)
    """

    transition: Transition
    temperatures: Sequence[float]
    swap_every: int = 10
    step_sizes: Sequence[float] | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.transition, Transition) or isinstance(self.transition, type):
            raise TypeError(f"transition: expected a move such as ce.MALA(0.05), got {self.transition!r}")
        if isinstance(self.transition, ReplicaExchange):
            raise ValueError(f"transition: expected a move with one temperature, got a ladder: {self.transition}")
        if "inverse_temperature" not in self.transition.hyper_type._fields:  # type: ignore[attr-defined]
            raise ValueError(
                f"transition: expected one with a temperature, got {self.transition}; use MALA, HMC, RandomWalk, "
                "Barker, UnderdampedLangevin or PreconditionedLangevin"
            )
        temperatures = _positive("temperatures", self.temperatures)
        rounded = torch.tensor(temperatures, dtype=torch.float32)  # at least so chains are carried
        if len(temperatures) < 2 or len(set(rounded.tolist())) < len(temperatures):
            raise ValueError(
                f"temperatures: expected two or more numbers that differ in float32, got {list(temperatures)}"
            )
        if not bool(((rounded > 0) & (rounded < math.inf)).all()):
            raise ValueError(f"temperatures: expected numbers within the range of float32, got {list(temperatures)}")
        object.__setattr__(self, "temperatures", temperatures)
        checked_count("swap_every", self.swap_every)
        factors = (1.0,) * len(temperatures) if self.step_sizes is None else _positive("step_sizes", self.step_sizes)
        if len(factors) != len(temperatures):
            raise ValueError(f"step_sizes: expected {len(temperatures)} numbers, one a temperature, got {len(factors)}")
        object.__setattr__(self, "step_sizes", factors)

    @property
    def noise(self) -> Noise:
        """That of the inner move."""
        return self.transition.noise

    @property
    def hyper_type(self) -> type:
        """That of the inner move."""
        return self.transition.hyper_type

    @property
    def lasting(self) -> tuple[str, ...]:
        """The inner move's, and what belongs to the rung that a chain is on."""
        return (*lasting_of(self.transition), "temperature", "step_factor")

    @property
    def rungs(self) -> tuple[str, ...]:
        """The ladder, which a state's temperatures belong to."""
        return (str(self.temperatures), str(self.step_sizes))

    def __getattr__(self, name: str) -> Any:
        """Vectors and what is told are those of the inner move."""
        if name == "transition" or name.startswith("__"):
            raise AttributeError(name)
        return getattr(self.transition, name)

    def init(self, x: Tensor, target: Target) -> Any:
        """The inner state at x, at temperature 1 until the chain is placed on its rung."""
        state = self.transition.init(x, target)
        one = torch.ones_like(state[1])
        return extended(type(state), ("temperature", "step_factor"))(*state, one, one.clone())

    def placed(self, ids: Tensor) -> dict[str, Tensor]:
        """Fields of the State that depend on the chain: the rung where each begins."""
        rung = ids % len(self.temperatures)
        columns = {"temperature": self.temperatures, "step_factor": self.step_sizes}
        return {
            name: torch.tensor(values, dtype=torch.float64, device=ids.device)[rung] for name, values in columns.items()
        }

    def step(self, state: Any, noise: NoiseDraw, hyper: Any, target: Target) -> tuple[Any, Any]:
        """The inner step at the chain's own temperature."""
        *inner, temperature, factor = state
        own = hyper._replace(
            step_size=hyper.step_size * factor, inverse_temperature=hyper.inverse_temperature / temperature
        )
        if "damping" in own._fields:  # of the step that this rung does: exp(-gamma h factor)
            own = own._replace(damping=hyper.damping**factor)
        new, info = self.transition.step(type(state).inner_type(*inner), noise, own, target)
        return type(state)(*new, temperature, factor), info

    def hyper_table(self, first_step: int, n_steps: int) -> Any:
        """The inner move's."""
        return self.transition.hyper_table(first_step, n_steps)

    def structure(self) -> tuple[object, ...]:
        """The inner move's, and the ladder."""
        return (ReplicaExchange, self.transition.structure(), self.temperatures, self.step_sizes, self.swap_every)

    def __str__(self) -> str:
        ladder = f"temperatures={list(self.temperatures)}, swap_every={self.swap_every}"
        return f"ReplicaExchange({self.transition}, {ladder})"


def _positive(name: str, values: object) -> tuple[float, ...]:
    if isinstance(values, Tensor):
        values = values.tolist()
    if not isinstance(values, Sequence) or isinstance(values, (str, bytes)):
        raise TypeError(f"{name}: expected a sequence of numbers, got {type(values).__name__}; use a list of floats")
    for value in values:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise TypeError(f"{name}: expected numbers, got {value!r} of type {type(value).__name__}")
        if not 0 < value < math.inf:
            raise ValueError(f"{name}: expected finite numbers above 0, got {value}")
    return tuple(float(value) for value in values)
