"""Deterministic moves downhill: gradient descent, and Nesterov's accelerated form."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from compiled_ebm import schedules
from compiled_ebm.schedules import ScheduleLike
from compiled_ebm.transitions.base import Noise, NoiseDraw, Target
from compiled_ebm.transitions.hyper import shown
from compiled_ebm.transitions.langevin import LangevinInfo

__all__ = ["DescentHyper", "DescentState", "GradientDescent", "Nesterov", "NesterovState"]


class DescentState(NamedTuple):
    """The position, its energy and its gradient."""

    x: Tensor
    energy: Tensor
    grad: Tensor


class NesterovState(NamedTuple):
    """The position, its energy, and the velocity."""

    x: Tensor
    energy: Tensor
    velocity: Tensor


class DescentHyper(NamedTuple):
    """This step's scalar."""

    step_size: Tensor


@dataclass(frozen=True)
class GradientDescent:
    r"""Gradient descent: every chain to a minimum of E.

    .. math:: x' = x - \eta \nabla E(x)

    Args:
        step_size: eta > 0, a float or a schedule (step -> value).

    Raises:
        TypeError, ValueError: For a value outside its range; the message names argument, expectation and remedy.

    Source: Cauchy, "Méthode générale pour la résolution des systèmes d'équations simultanées", 1847.

    Example:
        >>> import compiled_ebm as ce
        >>> sampler = ce.build_sampler(ce.HarmonicModel(), ce.GradientDescent(0.5), event_shape=(2,), backend="eager")
        >>> bool(sampler.run(sampler.init(n_chains=10), n_steps=50).state.energy.max() < 1e-6)
        True
    """

    step_size: ScheduleLike = 1e-3

    noise: ClassVar[Noise] = Noise(normals=0)
    hyper_type: ClassVar[type] = DescentHyper
    info_type: ClassVar[type] = LangevinInfo

    def __post_init__(self) -> None:
        self.hyper_table(0, 1)

    __str__ = shown

    def init(self, x: Tensor, target: Target) -> DescentState:
        """The state at x."""
        return DescentState(x, *target.energy_and_grad(x))

    def step(
        self, state: DescentState, noise: NoiseDraw, hyper: DescentHyper, target: Target
    ) -> tuple[DescentState, LangevinInfo]:
        """One step."""
        x = state.x - hyper.step_size * state.grad
        energy, grad = target.energy_and_grad(x)
        return DescentState(x, energy, grad), LangevinInfo(energy)

    def hyper_table(self, first_step: int, n_steps: int) -> DescentHyper:
        """The step size of each step, float64."""
        return _table(self.step_size, first_step, n_steps)

    def structure(self) -> tuple[object, ...]:
        """Nothing of it is baked into the trace."""
        return (GradientDescent,)


@dataclass(frozen=True)
class Nesterov:
    r"""Nesterov's accelerated gradient descent, its velocity 0 at the start.

    .. math:: v' = \mu v - \eta \nabla E(x + \mu v), \qquad x' = x + v'

    Args:
        step_size: eta > 0, a float or a schedule (step -> value).
        momentum: mu, 0 <= mu < 1.

    Raises:
        TypeError, ValueError: For a value outside its range; the message names argument, expectation and remedy.

    Source: Sutskever, Martens, Dahl and Hinton, "On the importance of initialization and momentum in deep learning",
    ICML 2013, equations (3) and (4).

    Example:
        >>> import compiled_ebm as ce
        >>> sampler = ce.build_sampler(ce.HarmonicModel(), ce.Nesterov(0.1), event_shape=(2,), backend="eager")
        >>> bool(sampler.run(sampler.init(n_chains=10), n_steps=300).state.energy.max() < 1e-6)
        True
    """

    step_size: ScheduleLike = 1e-3
    momentum: float = 0.9

    noise: ClassVar[Noise] = Noise(normals=0)
    hyper_type: ClassVar[type] = DescentHyper
    info_type: ClassVar[type] = LangevinInfo
    lasting: ClassVar[tuple[str, ...]] = ("velocity",)

    def __post_init__(self) -> None:
        if isinstance(self.momentum, bool) or not isinstance(self.momentum, (int, float)):
            raise TypeError(f"momentum: expected a number, got {type(self.momentum).__name__}; 0.9 is usual")
        if not 0 <= self.momentum < 1:
            raise ValueError(f"momentum: expected a number from 0 to below 1, got {self.momentum}; 0.9 is usual")
        self.hyper_table(0, 1)

    __str__ = shown

    def init(self, x: Tensor, target: Target) -> NesterovState:
        """The state at x, at rest."""
        return NesterovState(x, target.energy(x), torch.zeros_like(x))

    def step(
        self, state: NesterovState, noise: NoiseDraw, hyper: DescentHyper, target: Target
    ) -> tuple[NesterovState, LangevinInfo]:
        """One step."""
        inertia = self.momentum * state.velocity
        _, grad = target.energy_and_grad(state.x + inertia)
        velocity = inertia - hyper.step_size * grad
        x = state.x + velocity
        energy = target.energy(x)
        return NesterovState(x, energy, velocity), LangevinInfo(energy)

    def hyper_table(self, first_step: int, n_steps: int) -> DescentHyper:
        """The step size of each step, float64."""
        return _table(self.step_size, first_step, n_steps)

    def structure(self) -> tuple[object, ...]:
        """The momentum is traced."""
        return (Nesterov, float(self.momentum))


def _table(step_size: ScheduleLike, first_step: int, n_steps: int) -> DescentHyper:
    return DescentHyper(schedules.evaluate(step_size, first_step, n_steps, name="step_size", minimum=0.0, strict=True))
