"""``LangevinDynamics``, as TorchEBM has it."""

from __future__ import annotations

import warnings

import torch

from compiled_ebm.samplers.base import CompiledSampler
from compiled_ebm.schedules import ScheduleLike
from compiled_ebm.target import Energy
from compiled_ebm.transitions.langevin import Langevin

__all__ = ["LangevinDynamics"]


class LangevinDynamics(CompiledSampler):
    r"""Langevin dynamics with TorchEBM's constructor and ``sample``, compiled.

    .. math:: x_{t+1} = x_t - \eta \nabla E(x_t) + s \sqrt{2 \eta}\, \xi_t

    Args:
        model: The energy ``[n, *event] -> [n]``; any callable.
        step_size: eta > 0; a float, a schedule (step -> value) or a torchebm scheduler.
        noise_scale: s >= 0; likewise. The target is exp(-E / s^2).
        decay: Accepted for TorchEBM's sake; it has no effect, there or here.
        clamp: (lo, hi) bounds applied to x after every step.
        dtype: Of the positions handed in and out, and of the energy's arithmetic.
        device: Where to sample; by default where the model's tensors are, else where x is.
        integrator: Only TorchEBM's default, ``None`` or ``"euler_maruyama"``.
        backend: "auto", "fused", "inductor" or "eager".

    ``to(device, dtype)`` moves sampler and model as it does any module.

    Raises:
        TypeError, ValueError: Naming the argument, what was expected and what was given.

    Source: https://soran-ghaderi.github.io/torchebm, ``LangevinDynamics`` of version 0.8.

    Example:
        >>> import torch, compiled_ebm as ce
        >>> sampler = ce.LangevinDynamics(ce.DoubleWellModel(), step_size=0.01, backend="eager")
        >>> sampler.sample(dim=2, n_samples=64, n_steps=10).shape
        torch.Size([64, 2])
    """

    def __init__(
        self,
        model: Energy,
        step_size: ScheduleLike = 1e-3,
        noise_scale: ScheduleLike = 1.0,
        decay: float = 0.0,
        clamp: tuple[float, float] | None = None,
        dtype: torch.dtype = torch.float32,
        device: str | torch.device | None = None,
        integrator: object = None,
        *,
        backend: str = "auto",
    ) -> None:
        super().__init__(model, {"step_size": step_size, "noise_scale": noise_scale}, dtype, device, backend)
        if decay != 0.0:
            warnings.warn(f"decay: expected 0, got {decay}; it has no effect, as in TorchEBM", stacklevel=2)
        if integrator is not None and not _is_euler_maruyama(integrator):
            raise ValueError(
                f"integrator: expected None or 'euler_maruyama', got {integrator!r}; other integrators of TorchEBM "
                "are not compiled: use torchebm.samplers.LangevinDynamics for them"
            )
        self.decay = decay
        self.clamp = clamp
        self._transition()

    def _transition(self) -> Langevin:
        return Langevin(self._hyper["step_size"], self._hyper["noise_scale"], clamp=self.clamp)


def _is_euler_maruyama(integrator: object) -> bool:
    return integrator == "euler_maruyama" or type(integrator).__name__ == "EulerMaruyamaIntegrator"
