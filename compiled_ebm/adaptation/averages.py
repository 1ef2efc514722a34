"""Averages over the chains that are alive."""

from __future__ import annotations

import torch
from torch import Tensor

from compiled_ebm.backends.base import Chains

__all__ = ["Moments", "mean_of_alive"]


def mean_of_alive(leaf: Tensor, failed_at: Tensor, n_chains: int) -> Tensor:
    """float64, over the first so many chains but those that have failed; NaN if all have."""
    alive = failed_at[:n_chains] < 0
    shape = (n_chains, *(1,) * (leaf.ndim - 1))
    kept = torch.where(alive.view(shape), leaf[:n_chains].double(), 0.0)
    return kept.sum(dim=0) / alive.sum()


class Moments:
    """Mean and variance of every element of x, over chains and launches, on their device.

    Args:
        event_shape: Of x.
        n_chains: Chains; further rows are padding.
        every, first_step: Positions are taken after every so many steps from there on.
        device: Where the chains are.
    """

    def __init__(
        self, event_shape: tuple[int, ...], n_chains: int, every: int, first_step: int, device: torch.device
    ) -> None:
        self._n, self._every, self._first = n_chains, every, first_step
        self._shift: Tensor | None = None
        self._count = 0
        self._sum = torch.zeros(event_shape, dtype=torch.float64, device=device)
        self._squares = torch.zeros_like(self._sum)
        self._alive = torch.zeros((), dtype=torch.int64, device=device)

    def until(self, step: int) -> int:
        """Steps from this one to the next that is taken."""
        return self._every - (step - self._first) % self._every

    def act(self, chains: Chains, step: int) -> None:
        """Add the chains as they are, if it is time."""
        if (step - self._first) % self._every:
            return
        x = chains.state[0]
        if self._shift is None:  # so that the difference of two large numbers is not one of rounding errors
            self._shift = mean_of_alive(x, chains.failed_at, self._n)
        difference = x.double() - self._shift
        self._sum += mean_of_alive(difference, chains.failed_at, self._n)
        self._squares += mean_of_alive(difference.square(), chains.failed_at, self._n)
        self._count += 1
        self._alive = (chains.failed_at[: self._n] < 0).sum()

    def variance(self) -> Tensor:
        """float64 ``[*event]``, towards 1e-3 as far as few chains say little, as Stan does it."""
        mean = self._sum / self._count
        variance = self._squares / self._count - mean.square()
        n = self._alive * self._count
        return (n * variance + 5e-3) / (n + 5)
