"""What transitions tell of their steps, averaged chain by chain."""

from __future__ import annotations

import torch
from torch import Tensor

from compiled_ebm.backends.base import Chains

__all__ = ["InfoMeans"]

_WINDOW = 4096
"""Steps that are summed in the carried dtype before float64 takes them."""


class InfoMeans:
    """Takes the sums that a tallied transition keeps in its state, after each launch, and begins them anew.

    Args:
        told: Names of what is summed: the last leaves of the state, in this order.
        n_chains: Chains; further rows are padding.
        first_step: Where the run begins.
        thin: If draws are kept, also average over the steps that lead to each.
        device: Where the chains are.
    """

    def __init__(
        self, told: tuple[str, ...], n_chains: int, first_step: int, thin: int | None, device: torch.device
    ) -> None:
        self._told, self._n, self._first, self._thin = told, n_chains, first_step, thin
        self._every = _WINDOW if thin is None else thin
        self._sums = torch.zeros((len(told), n_chains), dtype=torch.float64, device=device)
        self._since = torch.zeros_like(self._sums)
        self._draws: list[Tensor] = []

    def until(self, step: int) -> int:
        """Steps from this one to the next time that sums are taken."""
        return self._every - (step - self._first) % self._every

    def act(self, chains: Chains, step: int) -> None:
        """Take the sums if it is time: by the step and not by the launch, whose length depends on the clock."""
        if (step - self._first) % self._every == 0:
            self._take(chains)

    def _take(self, chains: Chains) -> None:
        leaves = chains.state[-len(self._told) :]
        self._since += torch.stack([leaf[: self._n] for leaf in leaves])
        for leaf in leaves:
            leaf.zero_()
        self._sums += self._since
        if self._thin is not None:
            self._draws.append(self._since / self._thin)
        self._since.zero_()

    def means(self, chains: Chains, end: int) -> dict[str, Tensor]:
        """At the end: float64 ``[n_chains]``, over the steps in which a chain was alive; NaN where it was in none."""
        drawn = len(self._draws)
        if (end - self._first) % self._every:
            self._take(chains)
        del self._draws[drawn:]
        failed_at = chains.failed_at[: self._n]
        stop = torch.where(failed_at >= 0, failed_at.clamp(min=self._first), end)
        means = self._sums / (stop - self._first)
        return dict(zip(self._told, means.unbind(), strict=True))

    def draws(self) -> dict[str, Tensor]:
        """float64 ``[n_chains, n_kept]``: over the steps from the draw before to each; 0 where a chain was dead."""
        if self._thin is None:
            return {}
        kept = torch.stack(self._draws, dim=-1) if self._draws else self._sums.new_empty((*self._sums.shape, 0))
        return dict(zip(self._told, kept.unbind(), strict=True))
