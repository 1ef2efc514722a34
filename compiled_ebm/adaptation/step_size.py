"""The step size at which a move is accepted as often as it should be."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from compiled_ebm.adaptation.averages import mean_of_alive
from compiled_ebm.backends.base import Chains

__all__ = ["StepSize"]

_GAMMA, _T0, _KAPPA = 0.15, 10.0, 0.75
"""The shrinkage, the early steps held back, and how fast the average forgets. The first is three times the source's,
with which the step size swung by a factor of two: means over hundreds of chains have little noise."""
_SMALLEST, _LARGEST = math.log(1e-12), math.log(1e12)


class StepSize:
    r"""Dual averaging on the mean acceptance of all chains that are alive, on their device.

    .. math:: \bar h_t = (1 - \tfrac{1}{t + t_0}) \bar h_{t-1} + \tfrac{\delta - \alpha_t}{t + t_0}, \quad
              \log \epsilon_t = \mu - \tfrac{\sqrt t}{\gamma} \bar h_t, \quad
              \log \bar\epsilon_t = t^{-\kappa} \log \epsilon_t + (1 - t^{-\kappa}) \log \bar\epsilon_{t-1}

    Nothing here waits for the device: the next launch reads the step size from a tensor there.

    Args:
        start: The first step size.
        toward: exp(mu), to which it is drawn while little is known.
        target: The acceptance delta.
        every: Steps between updates.
        first_step: Where it begins.
        leaf: Which leaf of the state sums up the acceptance.
        n_told: How many of the last leaves are sums.
        n_chains: Chains; further rows are padding.
        device: Where the chains are.

    Source: Hoffman and Gelman, "The No-U-Turn sampler", JMLR 15, 2014, section 3.2.
    """

    def __init__(
        self,
        start: float,
        toward: float,
        target: float,
        every: int,
        first_step: int,
        leaf: int,
        n_told: int,
        n_chains: int,
        device: torch.device,
    ) -> None:
        self._target, self._every, self._first = target, every, first_step
        self._leaf, self._n_told, self._n = leaf, n_told, n_chains
        self._mu = math.log(toward)
        self._log = torch.full((), math.log(start), dtype=torch.float64, device=device)
        self._average = self._log.clone()
        self._error = torch.zeros_like(self._log)
        self._t = 0
        self.steps: list[Tensor] = []
        self.acceptances: list[Tensor] = []

    def rows(self, table: Tensor, column: int) -> Tensor:
        """The hyper-parameters of a launch, with the step size as it is now."""
        rows = table.clone()
        rows[:, column] = self._log.exp().to(rows.dtype)
        return rows

    def until(self, step: int) -> int:
        """Steps from this one to the next update."""
        return self._every - (step - self._first) % self._every

    def act(self, chains: Chains, step: int) -> None:
        """Update, if it is time."""
        if (step - self._first) % self._every:
            return
        acceptance = mean_of_alive(chains.state[self._leaf], chains.failed_at, self._n) / self._every
        for leaf in chains.state[-self._n_told :]:
            leaf.zero_()
        self._t += 1
        t = self._t
        weight = 1 / (t + _T0)
        self.steps.append(self._log.exp())
        self.acceptances.append(acceptance)
        self._error = (1 - weight) * self._error + weight * (self._target - acceptance)
        self._log = (self._mu - math.sqrt(t) / _GAMMA * self._error).clamp(_SMALLEST, _LARGEST)
        self._average = t**-_KAPPA * self._log + (1 - t**-_KAPPA) * self._average

    def found(self) -> float:
        """The averaged step size; waits for the device."""
        return float(self._average.exp())
