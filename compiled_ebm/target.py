"""The user's energy as the library sees it: E(x) and its score on a batch, with its output checked."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from operator import attrgetter
from typing import Any

import torch
from torch import Tensor

from compiled_ebm.errors import UnsupportedEnergyError
from compiled_ebm.valuechecks import ValueChecks

__all__ = ["BatchTarget", "Energy", "own_gradient"]

Energy = Callable[..., Tensor]
"""Anything callable ``[n, *event] -> [n]``."""


def own_gradient(energy: Energy) -> Callable[..., Tensor] | None:
    """The energy's own ``gradient`` method where it overrides the default of a BaseModel, else None."""
    for cls in type(energy).__mro__:
        if "gradient" in vars(cls):
            is_default = cls.__name__ == "BaseModel" and cls.__module__.split(".")[0] in ("compiled_ebm", "torchebm")
            found: Callable[..., Tensor] | None = None if is_default else attrgetter("gradient")(energy)
            return found
    return None


class BatchTarget:
    """E and its gradient over a batch of chains, by the energy's own code.

    Args:
        energy: ``[n, *event] -> [n]``.
        model_kwargs: Passed on to every call.
        compute_dtype: The dtype in which the energy sees positions; results come back in ``carry_dtype``.
        carry_dtype: float32 or float64.
    """

    def __init__(
        self,
        energy: Energy,
        model_kwargs: Mapping[str, Any],
        compute_dtype: torch.dtype,
        carry_dtype: torch.dtype,
    ) -> None:
        self._energy = energy
        self._gradient = own_gradient(energy)
        self._kwargs = dict(model_kwargs)
        self._compute = compute_dtype
        self._carry = carry_dtype

    def _call(self, x: Tensor) -> Tensor:
        checks = ValueChecks(x.shape[0])
        with checks:
            energy = self._energy(x, **self._kwargs)
        if not isinstance(energy, Tensor):
            raise UnsupportedEnergyError(
                f"energy: expected a tensor of shape [{x.shape[0]}] for positions of shape {list(x.shape)}, got "
                f"{type(energy).__name__}; return one value per chain as a tensor"
            )
        if energy.shape != x.shape[:1]:
            remedy = "add .squeeze(-1)" if energy.shape == (x.shape[0], 1) else "sum over every dimension but the first"
            raise UnsupportedEnergyError(
                f"energy: expected output shape [{x.shape[0]}], one value per chain, for positions of shape "
                f"{list(x.shape)}, got {list(energy.shape)}; {remedy}"
            )
        if not energy.dtype.is_floating_point:
            raise UnsupportedEnergyError(f"energy: expected a floating-point output, got {energy.dtype}")
        return checks.applied(energy)

    def energy(self, x: Tensor) -> Tensor:
        """E of a batch ``[n, *event]``: ``[n]`` in the carried dtype."""
        with torch.no_grad():
            return self._call(x.to(self._compute)).to(self._carry)

    def energy_and_grad(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """E ``[n]`` and its gradient ``[n, *event]``, in the carried dtype."""
        inner = x.detach().to(self._compute)
        if self._gradient is not None:
            energy = self.energy(x)
            kwargs = {"model_kwargs": self._kwargs} if self._kwargs else {}
            with torch.enable_grad(), ValueChecks(x.shape[0]):
                own = self._gradient(inner, **kwargs)
            if not isinstance(own, Tensor) or own.shape != x.shape:
                got = list(own.shape) if isinstance(own, Tensor) else type(own).__name__
                raise UnsupportedEnergyError(
                    f"gradient: expected the shape of the positions {list(x.shape)}, got {got}; "
                    "an overridden gradient(x) returns dE/dx, one row per chain"
                )
            return energy, own.detach().to(self._carry)
        with torch.enable_grad():
            inner = inner.requires_grad_()
            energy = self._call(inner)
            grad = torch.autograd.grad(energy.sum(), inner, allow_unused=True)[0] if energy.requires_grad else None
        if grad is None:
            raise UnsupportedEnergyError(
                "energy: expected an output that depends on x in a differentiable way, got one that does not; "
                "look for .detach(), torch.no_grad(), .item() or an unused argument in the energy"
            )
        return energy.detach().to(self._carry), grad.to(self._carry)
