"""The Metropolis-adjusted Langevin algorithm."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

from torch import Tensor

from compiled_ebm.schedules import ScheduleLike
from compiled_ebm.transitions.base import Noise, NoiseDraw, Target
from compiled_ebm.transitions.hyper import Diagonal, TemperedHyper, checked_diagonal, given, shown, tempered_table
from compiled_ebm.transitions.metropolis import MetropolisInfo, decide

__all__ = ["MALA", "MALAState"]


class MALAState(NamedTuple):
    """The position, and its energy and gradient, so that a step pays for one gradient."""

    x: Tensor
    energy: Tensor
    grad: Tensor


@dataclass(frozen=True, eq=False)
class MALA:
    r"""A step of Langevin dynamics as a proposal, accepted so that :math:`\exp(-E(x)/T)` is exactly invariant.

    .. math:: x' = x - \frac{\eta}{T} P \nabla E(x) + \sqrt{2 \eta P}\, \xi, \qquad \xi \sim N(0, I)

    accepted with probability :math:`\min(1, r)`,
    :math:`\log r = (E(x) - E(x')) / T + (|\xi|^2 - |\xi'|^2) / 2`, where
    :math:`\xi' = \sqrt{\eta P / 2}\, (\nabla E(x) + \nabla E(x')) / T - \xi` is the noise of the way back.

    Args:
        step_size: eta > 0, a float or a schedule (step -> value).
        preconditioner: The diagonal P > 0, a number or a tensor of the shape of x; None is the identity. It is live:
            a sampler takes another without being built again.
        temperature: T > 0, a float or a schedule. Default 1.

    Raises:
        TypeError, ValueError: For a value outside its range; the message names argument, expectation and remedy.

    Source: Roberts and Tweedie, "Exponential convergence of Langevin distributions and their discrete
    approximations", Bernoulli 2(4), 1996, section 1.4.

    Example:
        >>> import compiled_ebm as ce
        >>> sampler = ce.build_sampler(ce.DoubleWellModel(), ce.MALA(step_size=0.05), event_shape=(2,), backend="eager")
        >>> result = sampler.run(sampler.init(n_chains=100, seed=0), n_steps=20, info=True)
        >>> bool(result.stats.info["acceptance"].mean() > 0.5)
        True
    """

    step_size: ScheduleLike = 1e-2
    preconditioner: Diagonal = None
    temperature: ScheduleLike = 1.0

    noise: ClassVar[Noise] = Noise(normals=1, uniforms=1)
    hyper_type: ClassVar[type] = TemperedHyper
    info_type: ClassVar[type] = MetropolisInfo
    vector_fields: ClassVar[tuple[str, ...]] = ("preconditioner",)
    target_acceptance: ClassVar[float] = 0.574

    def __post_init__(self) -> None:
        object.__setattr__(self, "preconditioner", checked_diagonal("preconditioner", self.preconditioner))
        self.hyper_table(0, 1)

    __str__ = shown

    def init(self, x: Tensor, target: Target) -> MALAState:
        """The state at x."""
        return MALAState(x, *target.energy_and_grad(x))

    def step(
        self, state: MALAState, noise: NoiseDraw, hyper: TemperedHyper, target: Target
    ) -> tuple[MALAState, MetropolisInfo]:
        """One proposal and its decision."""
        beta, z = hyper.inverse_temperature, noise.normals
        scale = (2 * hyper.step_size).sqrt()
        if (diagonal := given(self.preconditioner)) is not None:
            scale = scale * diagonal.sqrt()
        half = 0.5 * beta * scale
        x = state.x + scale * (z - half * state.grad)
        proposed = MALAState(x, *target.energy_and_grad(x))
        back = half * (state.grad + proposed.grad) - z
        log_ratio = beta * (state.energy - proposed.energy) + 0.5 * (z.square() - back.square()).sum()
        return decide(state, proposed, log_ratio, noise.uniforms[0])

    def hyper_table(self, first_step: int, n_steps: int) -> TemperedHyper:
        """Step size and inverse temperature of each step, float64."""
        return tempered_table(self.step_size, self.temperature, first_step, n_steps)

    def structure(self) -> tuple[object, ...]:
        """Whether there is a preconditioner is traced."""
        return (MALA, self.preconditioner is None)
