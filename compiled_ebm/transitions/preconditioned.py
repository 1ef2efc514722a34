"""Unadjusted Langevin dynamics with a diagonal preconditioner."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

from torch import Tensor

from compiled_ebm.schedules import ScheduleLike
from compiled_ebm.transitions.base import Noise, NoiseDraw, Target
from compiled_ebm.transitions.hyper import Diagonal, TemperedHyper, checked_diagonal, given, shown, tempered_table
from compiled_ebm.transitions.langevin import LangevinInfo

__all__ = ["PreconditionedLangevin", "PreconditionedState"]


class PreconditionedState(NamedTuple):
    """The position, and its energy and gradient, so that a step pays for one gradient."""

    x: Tensor
    energy: Tensor
    grad: Tensor


@dataclass(frozen=True, eq=False)
class PreconditionedLangevin:
    r"""The unadjusted Langevin algorithm in coordinates of different scales.

    .. math:: x' = x - \eta P \nabla E(x) + \sqrt{2 \eta T P}\; \xi, \qquad \xi \sim N(0, I)

    Its continuous-time limit samples :math:`\exp(-E(x) / T)` whatever P is; at a finite step the law is biased by
    O(eta).

    Args:
        step_size: eta > 0, a float or a schedule (step -> value).
        preconditioner: The diagonal P > 0, a number or a tensor of the shape of x: the variances of the target, say.
            None is the identity. It is live: a sampler takes another without being built again.
        temperature: T > 0, a float or a schedule. Default 1.

    Raises:
        TypeError, ValueError: For a value outside its range; the message names argument, expectation and remedy.

    Source: Roberts and Stramer, "Langevin diffusions and Metropolis-Hastings algorithms", Methodology and Computing in
    Applied Probability 4, 2002, equation (4), with a constant diagonal.

    Example:
        >>> import torch, compiled_ebm as ce
        >>> scales = torch.tensor([1.0, 10.0])
        >>> move = ce.PreconditionedLangevin(0.1, preconditioner=scales**2)
        >>> sampler = ce.build_sampler(lambda x: 0.5 * (x / scales).square().sum(-1), move, (2,), backend="eager")
        >>> sampler.run(sampler.init(n_chains=100, seed=0), n_steps=20).state.x.shape
        torch.Size([100, 2])
    """

    step_size: ScheduleLike = 1e-3
    preconditioner: Diagonal = None
    temperature: ScheduleLike = 1.0

    noise: ClassVar[Noise] = Noise(normals=1)
    hyper_type: ClassVar[type] = TemperedHyper
    info_type: ClassVar[type] = LangevinInfo
    vector_fields: ClassVar[tuple[str, ...]] = ("preconditioner",)

    def __post_init__(self) -> None:
        object.__setattr__(self, "preconditioner", checked_diagonal("preconditioner", self.preconditioner))
        self.hyper_table(0, 1)

    __str__ = shown

    def init(self, x: Tensor, target: Target) -> PreconditionedState:
        """The state at x."""
        return PreconditionedState(x, *target.energy_and_grad(x))

    def step(
        self, state: PreconditionedState, noise: NoiseDraw, hyper: TemperedHyper, target: Target
    ) -> tuple[PreconditionedState, LangevinInfo]:
        """One step."""
        eta = hyper.step_size
        drift, spread = eta * state.grad, (2 * eta / hyper.inverse_temperature).sqrt() * noise.normals
        if (diagonal := given(self.preconditioner)) is not None:
            drift, spread = diagonal * drift, diagonal.sqrt() * spread
        x = state.x - drift + spread
        energy, grad = target.energy_and_grad(x)
        return PreconditionedState(x, energy, grad), LangevinInfo(energy)

    def hyper_table(self, first_step: int, n_steps: int) -> TemperedHyper:
        """Step size and inverse temperature of each step, float64."""
        return tempered_table(self.step_size, self.temperature, first_step, n_steps)

    def structure(self) -> tuple[object, ...]:
        """Whether there is a preconditioner is traced."""
        return (PreconditionedLangevin, self.preconditioner is None)
