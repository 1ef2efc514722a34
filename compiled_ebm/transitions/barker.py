"""The Barker proposal: as fast as MALA, and robust to the choice of the step size."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import softplus

from compiled_ebm.schedules import ScheduleLike
from compiled_ebm.transitions.base import Noise, NoiseDraw, Target
from compiled_ebm.transitions.hyper import TemperedHyper, shown, tempered_table
from compiled_ebm.transitions.metropolis import MetropolisInfo, decide

__all__ = ["Barker", "BarkerState"]


class BarkerState(NamedTuple):
    """The position, and its energy and gradient."""

    x: Tensor
    energy: Tensor
    grad: Tensor


@dataclass(frozen=True)
class Barker:
    r"""A normal step of each coordinate whose sign the gradient makes likely, accepted so that the target is invariant.

    .. math:: x'_i = x_i + b_i z_i, \quad z \sim N(0, \epsilon^2 I), \quad
              P(b_i = 1) = 1 / (1 + e^{z_i g_i}), \quad g = \nabla E(x) / T

    accepted with :math:`\log r = (E(x) - E(x')) / T + \sum_i \log \frac{1 + e^{d_i g_i}}{1 + e^{-d_i g'_i}}`, where
    :math:`d = x' - x`.

    Args:
        step_size: epsilon > 0, a float or a schedule (step -> value).
        temperature: T > 0, likewise. Default 1.

    Raises:
        TypeError, ValueError: For a value outside its range; the message names argument, expectation and remedy.

    Source: Livingstone and Zanella, "The Barker proposal: combining robustness and efficiency in gradient-based MCMC",
    JRSS B 84(2), 2022, algorithm 2.

    Example:
        >>> import compiled_ebm as ce
        >>> sampler = ce.build_sampler(ce.DoubleWellModel(), ce.Barker(0.5), event_shape=(2,), backend="eager")
        >>> sampler.run(sampler.init(n_chains=100, seed=0), n_steps=20).state.x.shape
        torch.Size([100, 2])
    """

    step_size: ScheduleLike = 1e-1
    temperature: ScheduleLike = 1.0

    noise: ClassVar[Noise] = Noise(normals=2, uniforms=1)
    hyper_type: ClassVar[type] = TemperedHyper
    info_type: ClassVar[type] = MetropolisInfo
    target_acceptance: ClassVar[float] = 0.4

    def __post_init__(self) -> None:
        self.hyper_table(0, 1)

    __str__ = shown

    def init(self, x: Tensor, target: Target) -> BarkerState:
        """The state at x."""
        return BarkerState(x, *target.energy_and_grad(x))

    def step(
        self, state: BarkerState, noise: NoiseDraw, hyper: TemperedHyper, target: Target
    ) -> tuple[BarkerState, MetropolisInfo]:
        """One proposal and its decision."""
        beta, z = hyper.inverse_temperature, hyper.step_size * noise.normals[0]
        uniform = 0.5 * torch.erfc(noise.normals[1] * math.sqrt(0.5))  # one for each coordinate
        d = torch.where(uniform < torch.sigmoid(-beta * z * state.grad), z, -z)
        x = state.x + d
        proposed = BarkerState(x, *target.energy_and_grad(x))
        ways = softplus(beta * d * state.grad) - softplus(-beta * d * proposed.grad)
        log_ratio = beta * (state.energy - proposed.energy) + ways.sum()
        return decide(state, proposed, log_ratio, noise.uniforms[0])

    def hyper_table(self, first_step: int, n_steps: int) -> TemperedHyper:
        """Step size and inverse temperature of each step, float64."""
        return tempered_table(self.step_size, self.temperature, first_step, n_steps)

    def structure(self) -> tuple[object, ...]:
        """Nothing of it is baked into the trace."""
        return (Barker,)
