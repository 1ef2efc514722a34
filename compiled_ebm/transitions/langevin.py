"""Unadjusted Langevin dynamics."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor

from compiled_ebm import schedules
from compiled_ebm.schedules import ScheduleLike
from compiled_ebm.transitions.base import Noise, NoiseDraw, Target

__all__ = ["Langevin", "LangevinHyper", "LangevinInfo", "LangevinState"]


class LangevinState(NamedTuple):
    """What the next step needs: the position, and its energy and gradient, so that a step pays for one gradient."""

    x: Tensor
    energy: Tensor
    grad: Tensor


class LangevinInfo(NamedTuple):
    """The energy at the new position, for diagnostics."""

    energy: Tensor


class LangevinHyper(NamedTuple):
    """This step's scalars: the step size and the absolute standard deviation of the noise."""

    step_size: Tensor
    noise_std: Tensor


@dataclass(frozen=True)
class Langevin:
    r"""The unadjusted Langevin algorithm, by Euler-Maruyama.

    .. math:: x' = x - \eta \nabla E(x) + s \sqrt{2 \eta}\, \xi, \qquad \xi \sim N(0, I)

    Its continuous-time limit samples :math:`\exp(-E(x) / s^2)`; at a finite step the law is biased by O(eta).

    Args:
        step_size: eta > 0, a float or a schedule (step -> value).
        noise_scale: s >= 0, TorchEBM's convention; 1 samples exp(-E). A float or a schedule. Default 1.
        noise_std: The absolute standard deviation of the noise instead of s sqrt(2 eta), as EBM practice has it
            (step 1, std 0.01). At most one of ``noise_scale`` and ``noise_std`` may be given.
        clamp: (lo, hi) bounds applied to every element of x after each step.
        grad_clip: Largest L2 norm of a chain's gradient; a longer one is scaled down to it.

    Raises:
        ValueError: For a value outside its range; the message names argument, expectation and remedy.

    Source: Roberts and Tweedie, "Exponential convergence of Langevin distributions and their discrete
    approximations", Bernoulli 2(4), 1996, equation (4); clamp and absolute noise: Du and Mordatch, 2019.

    Example:
        >>> import torch, compiled_ebm as ce
        >>> sampler = ce.build_sampler(lambda x: 0.5 * x.square().sum(-1), ce.Langevin(step_size=0.1),
        ...                            event_shape=(2,), backend="eager")
        >>> result = sampler.run(sampler.init(n_chains=1000, seed=0), n_steps=100)
        >>> tuple(result.state.x.shape)
        (1000, 2)
    """

    step_size: ScheduleLike = 1e-3
    noise_scale: ScheduleLike | None = None
    noise_std: ScheduleLike | None = None
    clamp: tuple[float, float] | None = None
    grad_clip: float | None = None

    noise: ClassVar[Noise] = Noise(normals=1)
    hyper_type: ClassVar[type] = LangevinHyper
    info_type: ClassVar[type] = LangevinInfo

    def __post_init__(self) -> None:
        if self.noise_scale is not None and self.noise_std is not None:
            raise ValueError(
                "noise_scale, noise_std: expected at most one of them, got both; noise_scale multiplies "
                "sqrt(2 step_size), noise_std is the standard deviation itself"
            )
        if self.clamp is not None:
            object.__setattr__(self, "clamp", _checked_clamp(self.clamp))
        if self.grad_clip is not None:
            if isinstance(self.grad_clip, bool) or not isinstance(self.grad_clip, (int, float)):
                raise TypeError(
                    f"grad_clip: expected a number or None, got {type(self.grad_clip).__name__}; "
                    "give the largest L2 norm of a chain's gradient"
                )
            if not 0 < self.grad_clip < math.inf:
                raise ValueError(
                    f"grad_clip: expected a finite number above 0, got {self.grad_clip}; use None for no clipping"
                )
        self.hyper_table(0, 1)

    def __str__(self) -> str:
        """What is set, and the noise scale that holds where neither noise is."""
        shown = {field.name: getattr(self, field.name) for field in fields(self)}
        if self.noise_scale is None and self.noise_std is None:
            shown["noise_scale"] = 1.0
        given = ", ".join(f"{name}={value}" for name, value in shown.items() if value is not None)
        return f"{type(self).__name__}({given})"

    def init(self, x: Tensor, target: Target) -> LangevinState:
        """The state at x."""
        energy, grad = target.energy_and_grad(x)
        return LangevinState(x, energy, grad)

    def step(
        self, state: LangevinState, noise: NoiseDraw, hyper: LangevinHyper, target: Target
    ) -> tuple[LangevinState, LangevinInfo]:
        """One Euler-Maruyama step of one chain."""
        grad = state.grad
        if self.grad_clip is not None:
            largest = grad.abs().amax() if grad.ndim else grad.abs()
            unit = torch.where(largest > 0, largest, torch.ones_like(largest))  # or the squares would overflow
            norm = unit * (grad / unit).square().sum().sqrt()
            grad = torch.where(norm > self.grad_clip, grad / norm * self.grad_clip, grad)
        x = state.x - hyper.step_size * grad + hyper.noise_std * noise.normals
        if self.clamp is not None:
            # torch.clamp keeps NaN, so a diverged chain is still seen
            x = torch.clamp(x, *self.clamp)
        energy, grad = target.energy_and_grad(x)
        return LangevinState(x, energy, grad), LangevinInfo(energy)

    def hyper_table(self, first_step: int, n_steps: int) -> LangevinHyper:
        """Step size and noise standard deviation of each step, float64."""
        step_size = schedules.evaluate(self.step_size, first_step, n_steps, name="step_size", minimum=0.0, strict=True)
        if self.noise_std is not None:
            std = schedules.evaluate(self.noise_std, first_step, n_steps, name="noise_std", minimum=0.0)
        else:
            scale = 1.0 if self.noise_scale is None else self.noise_scale
            std = schedules.evaluate(scale, first_step, n_steps, name="noise_scale", minimum=0.0)
            # not torch.sqrt: MKL shares it out to threads that go on spinning, on the cores that the chains need
            std = std * torch.from_numpy(np.sqrt(2.0 * step_size.numpy()))
        return LangevinHyper(step_size, std)

    def structure(self) -> tuple[object, ...]:
        """Clamp and gradient clip are traced; step size and noise are not."""
        return (Langevin, self.clamp, self.grad_clip)


def _checked_clamp(clamp: object) -> tuple[float, float]:
    if not isinstance(clamp, (tuple, list)) or len(clamp) != 2:
        raise TypeError(f"clamp: expected a pair (lo, hi) or None, got {clamp!r}; for example clamp=(-1.0, 1.0)")
    if any(isinstance(bound, bool) or not isinstance(bound, (int, float)) for bound in clamp):
        raise TypeError(f"clamp: expected two numbers (lo, hi), got {clamp!r}")
    lo, hi = float(clamp[0]), float(clamp[1])
    if not lo < hi:
        raise ValueError(f"clamp: clamp min must be < max, got ({lo}, {hi}); swap the bounds or use None")
    return lo, hi
