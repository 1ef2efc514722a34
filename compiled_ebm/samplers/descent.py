"""``GradientDescentSampler`` and ``NesterovSampler``, as TorchEBM has them."""

from __future__ import annotations

from typing import ClassVar

import torch

from compiled_ebm.samplers.base import CompiledSampler
from compiled_ebm.schedules import ScheduleLike
from compiled_ebm.target import Energy
from compiled_ebm.transitions.descent import GradientDescent, Nesterov

__all__ = ["GradientDescentSampler", "NesterovSampler"]


class GradientDescentSampler(CompiledSampler):
    r"""Gradient descent with TorchEBM's constructor and ``sample``, compiled.

    .. math:: x_{k+1} = x_k - \eta \nabla E(x_k)

    Args:
        model: The energy ``[n, *event] -> [n]``; any callable.
        step_size: eta > 0; a float, a schedule (step -> value) or a torchebm scheduler.
        dtype: Of the positions handed in and out, and of the energy's arithmetic.
        device: Where to sample; by default where the model's tensors are, else where x is.
        backend: "auto", "fused", "inductor" or "eager".

    Raises:
        TypeError, ValueError: Naming the argument, what was expected and what was given.

    Source: https://soran-ghaderi.github.io/torchebm, ``GradientDescentSampler`` of version 0.8.

    Example:
        >>> import torch, compiled_ebm as ce
        >>> sampler = ce.GradientDescentSampler(ce.DoubleWellModel(), step_size=0.01, backend="eager")
        >>> sampler.sample(dim=2, n_samples=64, n_steps=10).shape
        torch.Size([64, 2])
    """

    diagnostics: ClassVar[tuple[str, ...]] = ("energy",)

    def __init__(
        self,
        model: Energy,
        step_size: ScheduleLike = 1e-3,
        dtype: torch.dtype = torch.float32,
        device: str | torch.device | None = None,
        *,
        backend: str = "auto",
    ) -> None:
        super().__init__(model, {"step_size": step_size}, dtype, device, backend)
        self._transition()

    def _transition(self) -> GradientDescent:
        return GradientDescent(self._hyper["step_size"])


class NesterovSampler(CompiledSampler):
    r"""Nesterov's accelerated gradient descent with TorchEBM's constructor and ``sample``, compiled.

    .. math:: v_{k+1} = \mu v_k - \eta \nabla E(x_k + \mu v_k), \qquad x_{k+1} = x_k + v_{k+1}

    Args:
        model: The energy ``[n, *event] -> [n]``; any callable.
        step_size: eta > 0; a float, a schedule (step -> value) or a torchebm scheduler.
        momentum: mu, 0 <= mu < 1.
        dtype: Of the positions handed in and out, and of the energy's arithmetic.
        device: Where to sample; by default where the model's tensors are, else where x is.
        backend: "auto", "fused", "inductor" or "eager".

    Raises:
        TypeError, ValueError: Naming the argument, what was expected and what was given.

    Source: https://soran-ghaderi.github.io/torchebm, ``NesterovSampler`` of version 0.8.

    Example:
        >>> import torch, compiled_ebm as ce
        >>> sampler = ce.NesterovSampler(ce.DoubleWellModel(), step_size=0.01, backend="eager")
        >>> sampler.sample(dim=2, n_samples=64, n_steps=10).shape
        torch.Size([64, 2])
    """

    diagnostics: ClassVar[tuple[str, ...]] = ("energy",)

    def __init__(
        self,
        model: Energy,
        step_size: ScheduleLike = 1e-3,
        momentum: float = 0.9,
        dtype: torch.dtype = torch.float32,
        device: str | torch.device | None = None,
        *,
        backend: str = "auto",
    ) -> None:
        super().__init__(model, {"step_size": step_size}, dtype, device, backend)
        if isinstance(momentum, (int, float)) and not 0 <= momentum < 1:
            raise ValueError(f"momentum must be in [0, 1), got {momentum}")
        self.momentum = momentum
        self._transition()

    def _transition(self) -> Nesterov:
        return Nesterov(self._hyper["step_size"], self.momentum)

    def _shown(self) -> dict[str, object]:
        return {**super()._shown(), "momentum": self.momentum}
