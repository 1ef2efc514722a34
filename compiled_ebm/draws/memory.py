"""Draws and per-step diagnostics, kept in memory."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

__all__ = ["Collector", "MemoryDraws", "StepDiagnostics", "Tee"]


class Collector(Protocol):
    """Takes the kept draws of each launch, in order."""

    def write(self, x: Tensor, energy: Tensor) -> None:
        """``x`` is ``[kept, n_chains, *event]``, ``energy`` ``[kept, n_chains]``; the buffers are reused."""


class MemoryDraws:
    """All draws in one tensor ``[n_chains, n_kept, *event]``."""

    def __init__(
        self, n_chains: int, n_kept: int, event_shape: tuple[int, ...], dtype: torch.dtype, device: torch.device
    ) -> None:
        self._all = torch.empty((n_chains, n_kept, *event_shape), dtype=dtype, device=device)
        self._written = 0

    def write(self, x: Tensor, energy: Tensor) -> None:
        """Append."""
        stop = self._written + x.shape[0]
        self._all[:, self._written : stop].copy_(x.movedim(0, 1))
        self._written = stop

    @property
    def draws(self) -> Tensor:
        """What was kept so far."""
        return self._all[:, : self._written]


class StepDiagnostics:
    """Across chains, at each kept step: mean and variance of x, mean energy (TorchEBM's diagnostics)."""

    def __init__(self, dtype: torch.dtype) -> None:
        self._dtype = dtype
        self._parts: list[tuple[Tensor, Tensor, Tensor]] = []

    def write(self, x: Tensor, energy: Tensor) -> None:
        """Reduce over chains, in the carried dtype."""
        if x.shape[1] > 1:
            var = x.var(dim=1, unbiased=False).clamp_(min=1e-10, max=1e10)
        else:
            var = torch.zeros_like(x[:, 0])
        self._parts.append((x.mean(dim=1).to(self._dtype), var.to(self._dtype), energy.mean(dim=1).to(self._dtype)))

    def result(self, event_shape: tuple[int, ...], device: torch.device) -> dict[str, Tensor]:
        """``mean`` and ``var`` ``[n_kept, *event]``, ``energy`` ``[n_kept]``."""
        shapes = {"mean": event_shape, "var": event_shape, "energy": ()}
        columns = zip(*self._parts, strict=True) if self._parts else ((), (), ())
        return {
            name: torch.cat(column) if column else torch.empty((0, *shape), dtype=self._dtype, device=device)
            for (name, shape), column in zip(shapes.items(), columns, strict=True)
        }


class Tee:
    """Several collectors at once."""

    def __init__(self, *collectors: Collector) -> None:
        self._collectors = collectors

    def write(self, x: Tensor, energy: Tensor) -> None:
        """Hand on."""
        for collector in self._collectors:
            collector.write(x, energy)
