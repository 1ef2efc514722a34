"""``HamiltonianMonteCarlo``, as TorchEBM has it."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from compiled_ebm.samplers.base import CompiledSampler
from compiled_ebm.schedules import ScheduleLike
from compiled_ebm.target import Energy
from compiled_ebm.transitions.hmc import HMC

__all__ = ["HamiltonianMonteCarlo"]


class HamiltonianMonteCarlo(CompiledSampler):
    r"""Hamiltonian Monte Carlo with TorchEBM's constructor and ``sample``, compiled.

    .. math:: p \sim N(0, M), \quad (x', p') = \text{leapfrog}^L_\epsilon(x, p), \quad
              P(\text{accept}) = \min(1, e^{H(x, p) - H(x', p')})

    Where TorchEBM turns what is not finite into 0 and clamps energies, proposals that diverge are rejected here.

    Args:
        model: The energy ``[n, *event] -> [n]``; any callable.
        step_size: epsilon > 0; a float, a schedule (step -> value) or a torchebm scheduler.
        n_leapfrog_steps: L >= 1.
        mass: The diagonal of M: a number, or a tensor of the shape of x; None is 1.
        dtype: Of the positions handed in and out, and of the energy's arithmetic.
        device: Where to sample; by default where the model's tensors are, else where x is.
        integrator: Only TorchEBM's default, ``None`` or ``"leapfrog"``.
        backend: "auto", "fused", "inductor" or "eager".

    ``return_diagnostics`` gives ``mean``, ``var``, ``energy`` and ``acceptance_rate``, the part of the proposals
    accepted by all chains since the draw before.

    Raises:
        TypeError, ValueError: Naming the argument, what was expected and what was given.

    Source: https://soran-ghaderi.github.io/torchebm, ``HamiltonianMonteCarlo`` of version 0.8.

    Example:
        >>> import torch, compiled_ebm as ce
        >>> sampler = ce.HamiltonianMonteCarlo(ce.DoubleWellModel(), step_size=0.1, backend="eager")
        >>> samples, diagnostics = sampler.sample(dim=2, n_samples=64, n_steps=5, return_diagnostics=True)
        >>> diagnostics["acceptance_rate"].shape
        torch.Size([5])
    """

    diagnostics: ClassVar[tuple[str, ...]] = ("mean", "var", "energy", "acceptance_rate")

    def __init__(
        self,
        model: Energy,
        step_size: ScheduleLike = 1e-3,
        n_leapfrog_steps: int = 10,
        mass: float | Tensor | None = None,
        dtype: torch.dtype = torch.float32,
        device: str | torch.device | None = None,
        integrator: object = None,
        *,
        backend: str = "auto",
    ) -> None:
        super().__init__(model, {"step_size": step_size}, dtype, device, backend)
        if isinstance(n_leapfrog_steps, int) and n_leapfrog_steps <= 0:
            raise ValueError(f"n_leapfrog_steps must be positive, got {n_leapfrog_steps}")
        if integrator is not None and not _is_leapfrog(integrator):
            raise ValueError(
                f"integrator: expected None or 'leapfrog', got {integrator!r}; other integrators of TorchEBM are not "
                "compiled: use torchebm.samplers.HamiltonianMonteCarlo for them"
            )
        self.n_leapfrog_steps = n_leapfrog_steps
        self.mass = mass
        self._transition()

    def _transition(self) -> HMC:
        return HMC(self._hyper["step_size"], self.n_leapfrog_steps, self.mass)

    def _event_shape(self, x: Tensor | None, dim: int | tuple[int, ...] | None, n_samples: int) -> tuple[int, ...]:
        mean = getattr(self.model, "mean", None)
        if x is None and dim is None and isinstance(mean, Tensor):
            dim = tuple(mean.shape)
        return super()._event_shape(x, dim, n_samples)

    def _shown(self) -> dict[str, object]:
        mass = f"tensor{tuple(self.mass.shape)}" if isinstance(self.mass, Tensor) else self.mass
        return {**super()._shown(), "n_leapfrog_steps": self.n_leapfrog_steps, "mass": mass}


def _is_leapfrog(integrator: object) -> bool:
    return integrator == "leapfrog" or type(integrator).__name__ == "LeapfrogIntegrator"
