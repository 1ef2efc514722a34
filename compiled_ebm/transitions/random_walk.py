"""Random-walk Metropolis: the baseline without gradients."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

from torch import Tensor

from compiled_ebm.schedules import ScheduleLike
from compiled_ebm.transitions.base import Noise, NoiseDraw, Target
from compiled_ebm.transitions.hyper import TemperedHyper, shown, tempered_table
from compiled_ebm.transitions.metropolis import MetropolisInfo, decide

__all__ = ["RandomWalk", "RandomWalkState"]


class RandomWalkState(NamedTuple):
    """The position and its energy."""

    x: Tensor
    energy: Tensor


@dataclass(frozen=True)
class RandomWalk:
    r"""A normal step, accepted so that :math:`\exp(-E(x)/T)` is exactly invariant; E needs no gradient.

    .. math:: x' = x + \epsilon\, \xi, \qquad \xi \sim N(0, I), \qquad \log r = (E(x) - E(x')) / T

    Args:
        step_size: epsilon > 0, the standard deviation; a float or a schedule (step -> value).
        temperature: T > 0, likewise. Default 1.

    Raises:
        TypeError, ValueError: For a value outside its range; the message names argument, expectation and remedy.

    Source: Metropolis et al., "Equation of state calculations by fast computing machines", 1953.

    Example:
        >>> import compiled_ebm as ce
        >>> sampler = ce.build_sampler(ce.DoubleWellModel(), ce.RandomWalk(0.5), event_shape=(2,), backend="eager")
        >>> sampler.run(sampler.init(n_chains=100, seed=0), n_steps=20).state.x.shape
        torch.Size([100, 2])
    """

    step_size: ScheduleLike = 1e-1
    temperature: ScheduleLike = 1.0

    noise: ClassVar[Noise] = Noise(normals=1, uniforms=1)
    hyper_type: ClassVar[type] = TemperedHyper
    info_type: ClassVar[type] = MetropolisInfo
    target_acceptance: ClassVar[float] = 0.234
    needs_gradient: ClassVar[bool] = False

    def __post_init__(self) -> None:
        self.hyper_table(0, 1)

    __str__ = shown

    def init(self, x: Tensor, target: Target) -> RandomWalkState:
        """The state at x."""
        return RandomWalkState(x, target.energy(x))

    def step(
        self, state: RandomWalkState, noise: NoiseDraw, hyper: TemperedHyper, target: Target
    ) -> tuple[RandomWalkState, MetropolisInfo]:
        """One proposal and its decision."""
        x = state.x + hyper.step_size * noise.normals
        proposed = RandomWalkState(x, target.energy(x))
        log_ratio = hyper.inverse_temperature * (state.energy - proposed.energy)
        return decide(state, proposed, log_ratio, noise.uniforms[0])

    def hyper_table(self, first_step: int, n_steps: int) -> TemperedHyper:
        """Step size and inverse temperature of each step, float64."""
        return tempered_table(self.step_size, self.temperature, first_step, n_steps)

    def structure(self) -> tuple[object, ...]:
        """Nothing of it is baked into the trace."""
        return (RandomWalk,)
