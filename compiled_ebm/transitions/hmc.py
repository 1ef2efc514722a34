"""Hamiltonian Monte Carlo."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

from torch import Tensor

from compiled_ebm.repetition import repeat
from compiled_ebm.schedules import ScheduleLike
from compiled_ebm.schedules.checks import checked_count
from compiled_ebm.transitions.base import Noise, NoiseDraw, Target
from compiled_ebm.transitions.hyper import Diagonal, TemperedHyper, checked_diagonal, given, shown, tempered_table
from compiled_ebm.transitions.metropolis import MetropolisInfo, decide

__all__ = ["HMC", "HMCState", "leapfrog"]


_MOST_LEAPS = 1_000_000


class HMCState(NamedTuple):
    """The position, and its energy and gradient, so that L leapfrog steps pay for L gradients."""

    x: Tensor
    energy: Tensor
    grad: Tensor


def leapfrog(
    state: HMCState, p: Tensor, step_size: Tensor, force_scale: Tensor, mass: Tensor | None, rounds: int, target: Target
) -> tuple[HMCState, Tensor]:
    r"""Some steps of the leapfrog method for :math:`H = f E(x) + p^T M^{-1} p / 2`: position and momentum at the end.

    .. math:: p \leftarrow p - \tfrac{\epsilon f}{2} \nabla E(x), \quad x \leftarrow x + \epsilon M^{-1} p, \quad
              p \leftarrow p - \tfrac{\epsilon f}{2} \nabla E(x)

    Neighbouring halves are done in one, and the energy is evaluated at the end alone.

    Args:
        state: Where it begins, with the gradient there.
        p: Momentum ``[*event]``.
        step_size: epsilon, 0-d; negative to go back.
        force_scale: f, 0-d: 1 / T.
        mass: The diagonal of M, or None for the identity.
        rounds: How many steps, at least 1.
        target: The density.
    """
    kick = step_size * force_scale

    def drifted(x: Tensor, p: Tensor) -> Tensor:
        return x + step_size * (p if mass is None else p / mass)

    def move(x: Tensor, p: Tensor) -> tuple[Tensor, Tensor]:
        x = drifted(x, p)
        return x, p - kick * target.energy_and_grad(x)[1]

    x, p = repeat(rounds - 1, move, (state.x, p - 0.5 * kick * state.grad))
    x = drifted(x, p)
    end = HMCState(x, *target.energy_and_grad(x))
    return end, p - 0.5 * kick * end.grad


@dataclass(frozen=True, eq=False)
class HMC:
    r"""Hamiltonian Monte Carlo: a trajectory of leapfrog steps as a proposal for :math:`\exp(-E(x)/T)`.

    .. math:: p \sim N(0, M), \qquad (x', p') = \text{leapfrog}^L_\epsilon(x, p), \qquad
              \log r = H(x, p) - H(x', p'), \qquad H = E(x) / T + p^T M^{-1} p / 2

    Divergent and non-finite proposals are rejected; nothing is clamped or repaired. The gradient is kept, so that a
    step costs L gradients and one energy. In a generated kernel the trajectory is a loop: L = 100 builds as fast as 5.

    Args:
        step_size: epsilon > 0, a float or a schedule (step -> value).
        n_leapfrog_steps: L >= 1.
        mass: The diagonal of M > 0, a number or a tensor of the shape of x; None is the identity. It is live: a
            sampler takes another without being built again.
        temperature: T > 0, a float or a schedule. Default 1.
        jitter: Each step of each chain uses epsilon (1 + jitter (2 u - 1)) with a uniform u of its own, so that
            periodic trajectories do not come back to where they began; 0 <= jitter < 1. Default 0.

    Raises:
        TypeError, ValueError: For a value outside its range; the message names argument, expectation and remedy.

    Source: Neal, "MCMC using Hamiltonian dynamics", Handbook of Markov Chain Monte Carlo, 2011, section 5.3.

    Example:
        >>> import compiled_ebm as ce
        >>> sampler = ce.build_sampler(ce.DoubleWellModel(), ce.HMC(0.1, 5), event_shape=(2,), backend="eager")
        >>> result = sampler.run(sampler.init(n_chains=100, seed=0), n_steps=20, info=True)
        >>> bool(result.stats.info["acceptance"].mean() > 0.5)
        True
    """

    step_size: ScheduleLike = 1e-1
    n_leapfrog_steps: int = 10
    mass: Diagonal = None
    temperature: ScheduleLike = 1.0
    jitter: float = 0.0

    noise: ClassVar[Noise] = Noise(normals=1, uniforms=2)
    hyper_type: ClassVar[type] = TemperedHyper
    info_type: ClassVar[type] = MetropolisInfo
    vector_fields: ClassVar[tuple[str, ...]] = ("mass",)
    target_acceptance: ClassVar[float] = 0.8

    def __post_init__(self) -> None:
        count = checked_count("n_leapfrog_steps", self.n_leapfrog_steps)
        if count > _MOST_LEAPS:
            raise ValueError(f"n_leapfrog_steps: expected at most {_MOST_LEAPS:,}, got {count}; a step would not end")
        object.__setattr__(self, "n_leapfrog_steps", count)
        object.__setattr__(self, "mass", checked_diagonal("mass", self.mass))
        if isinstance(self.jitter, bool) or not isinstance(self.jitter, (int, float)):
            raise TypeError(f"jitter: expected a number, got {type(self.jitter).__name__}; 0.2 varies steps by 20%")
        if not 0 <= self.jitter < 1:
            raise ValueError(f"jitter: expected a number from 0 to below 1, got {self.jitter}; 0 is none")
        self.hyper_table(0, 1)

    __str__ = shown

    def init(self, x: Tensor, target: Target) -> HMCState:
        """The state at x."""
        return HMCState(x, *target.energy_and_grad(x))

    def step(
        self, state: HMCState, noise: NoiseDraw, hyper: TemperedHyper, target: Target
    ) -> tuple[HMCState, MetropolisInfo]:
        """One trajectory and its decision."""
        z, beta, epsilon = noise.normals, hyper.inverse_temperature, hyper.step_size
        if self.jitter:
            epsilon = epsilon * (1 + self.jitter * (2 * noise.uniforms[1] - 1))
        mass = given(self.mass)
        p = z if mass is None else mass.sqrt() * z
        proposed, p = leapfrog(state, p, epsilon, beta, mass, self.n_leapfrog_steps, target)
        kinetic = p.square() if mass is None else p.square() / mass
        log_ratio = beta * (state.energy - proposed.energy) + 0.5 * (z.square() - kinetic).sum()
        return decide(state, proposed, log_ratio, noise.uniforms[0])

    def hyper_table(self, first_step: int, n_steps: int) -> TemperedHyper:
        """Step size and inverse temperature of each step, float64."""
        return tempered_table(self.step_size, self.temperature, first_step, n_steps)

    def structure(self) -> tuple[object, ...]:
        """The length of the trajectory, whether there is a mass, and the jitter are traced."""
        return (HMC, self.n_leapfrog_steps, self.mass is None, float(self.jitter))
