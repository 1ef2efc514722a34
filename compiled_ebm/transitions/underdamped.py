"""Underdamped Langevin dynamics, by BAOAB."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from compiled_ebm import schedules
from compiled_ebm.schedules import ScheduleLike
from compiled_ebm.transitions.base import Noise, NoiseDraw, Target
from compiled_ebm.transitions.hyper import Diagonal, checked_diagonal, given, shown, tempered_table
from compiled_ebm.transitions.langevin import LangevinInfo

__all__ = ["UnderdampedHyper", "UnderdampedLangevin", "UnderdampedState"]


class UnderdampedState(NamedTuple):
    """Position and momentum, and energy and gradient at the position."""

    x: Tensor
    energy: Tensor
    grad: Tensor
    momentum: Tensor


class UnderdampedHyper(NamedTuple):
    """This step's scalars; ``damping`` is exp(-gamma h)."""

    step_size: Tensor
    inverse_temperature: Tensor
    damping: Tensor


@dataclass(frozen=True, eq=False)
class UnderdampedLangevin:
    r"""Langevin dynamics with momentum for :math:`\exp(-E(x)/T - p^T M^{-1} p / 2T)`, by the splitting BAOAB.

    .. math::
        p &\leftarrow p - \tfrac{h}{2} \nabla E(x), \quad x \leftarrow x + \tfrac{h}{2} M^{-1} p \\
        p &\leftarrow c\,p + \sqrt{(1 - c^2)\, T M}\; \xi, \qquad c = e^{-\gamma h} \\
        x &\leftarrow x + \tfrac{h}{2} M^{-1} p, \quad p \leftarrow p - \tfrac{h}{2} \nabla E(x)

    Unadjusted: the law of x is biased by O(h^2), and on a Gaussian not at all, at any stable step. Chains begin at
    rest, p = 0.

    Args:
        step_size: h > 0, a float or a schedule (step -> value).
        friction: gamma >= 0, in units of 1 / time; likewise. At 0 the dynamics are Hamiltonian and deterministic.
        mass: The diagonal of M > 0, a number or a tensor of the shape of x; None is the identity. It is live.
        temperature: T > 0, a float or a schedule. Default 1.

    Raises:
        TypeError, ValueError: For a value outside its range; the message names argument, expectation and remedy.

    Source: Leimkuhler and Matthews, "Rational construction of stochastic numerical methods for molecular sampling",
    Applied Mathematics Research eXpress 2013(1), equation (4).

    Example:
        >>> import compiled_ebm as ce
        >>> move = ce.UnderdampedLangevin(step_size=0.5)
        >>> sampler = ce.build_sampler(ce.HarmonicModel(), move, event_shape=(2,), backend="eager")
        >>> sampler.run(sampler.init(n_chains=100, seed=0), n_steps=20).state.x.shape
        torch.Size([100, 2])
    """

    step_size: ScheduleLike = 1e-1
    friction: ScheduleLike = 1.0
    mass: Diagonal = None
    temperature: ScheduleLike = 1.0

    noise: ClassVar[Noise] = Noise(normals=1)
    hyper_type: ClassVar[type] = UnderdampedHyper
    info_type: ClassVar[type] = LangevinInfo
    vector_fields: ClassVar[tuple[str, ...]] = ("mass",)
    lasting: ClassVar[tuple[str, ...]] = ("momentum",)

    def __post_init__(self) -> None:
        object.__setattr__(self, "mass", checked_diagonal("mass", self.mass))
        self.hyper_table(0, 1)

    __str__ = shown

    def init(self, x: Tensor, target: Target) -> UnderdampedState:
        """The state at x, at rest."""
        return UnderdampedState(x, *target.energy_and_grad(x), torch.zeros_like(x))

    def step(
        self, state: UnderdampedState, noise: NoiseDraw, hyper: UnderdampedHyper, target: Target
    ) -> tuple[UnderdampedState, LangevinInfo]:
        """One step: B, A, O, A, B."""
        half = 0.5 * hyper.step_size
        spread = ((1 - hyper.damping.square()) / hyper.inverse_temperature).sqrt()
        p = state.momentum - half * state.grad
        x = state.x + half * self._velocity(p)
        mass = given(self.mass)
        p = hyper.damping * p + (spread if mass is None else spread * mass.sqrt()) * noise.normals
        x = x + half * self._velocity(p)
        energy, grad = target.energy_and_grad(x)
        return UnderdampedState(x, energy, grad, p - half * grad), LangevinInfo(energy)

    def _velocity(self, p: Tensor) -> Tensor:
        return p if self.mass is None else p / self.mass

    def hyper_table(self, first_step: int, n_steps: int) -> UnderdampedHyper:
        """Step size, inverse temperature and damping of each step, float64."""
        h, beta = tempered_table(self.step_size, self.temperature, first_step, n_steps)
        friction = schedules.evaluate(self.friction, first_step, n_steps, name="friction", minimum=0.0)
        return UnderdampedHyper(h, beta, torch.exp(-friction * h))

    def structure(self) -> tuple[object, ...]:
        """Whether there is a mass is traced."""
        return (UnderdampedLangevin, self.mass is None)
