"""How long a trajectory of Hamiltonian Monte Carlo should be."""

from __future__ import annotations

import torch
from torch import Tensor

from compiled_ebm.adaptation.averages import mean_of_alive
from compiled_ebm.backends.base import Chains

__all__ = ["LENGTHS", "Movement"]

LENGTHS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512)
"""Leapfrog steps that are tried, in this order."""


class Movement:
    r"""The change in the estimator of the expected square, ChEES, of the moves that chains make.

    .. math:: \mathrm{ChEES} = \tfrac14 E\left[\left(\|x' - \mu\|^2 - \|x - \mu\|^2\right)^2\right]

    with the mean over chains mu, and norms in the metric of the mass. Its ratio to the number of gradients says how
    fast squares are decorrelated for the work done.

    Args:
        x: Where the chains are, ``[rows, *event]``.
        mass: The diagonal of the metric, or None for the identity.
        n_chains: Chains; further rows are padding.

    Source: Hoffman, Radul and Sountsov, "An adaptive-MCMC scheme for setting trajectory lengths in Hamiltonian Monte
    Carlo", AISTATS 2021, equation (4).
    """

    def __init__(self, x: Tensor, mass: Tensor | None, n_chains: int) -> None:
        self._mass, self._n = mass, n_chains
        self._before = x.double().clone()
        self._sum = torch.zeros((), dtype=torch.float64, device=x.device)
        self._count = 0

    def until(self, step: int) -> int:
        """After every step."""
        return 1

    def act(self, chains: Chains, step: int) -> None:
        """Add the last move."""
        now = chains.state[0].double()
        mean = mean_of_alive(now, chains.failed_at, self._n)

        def squares(x: Tensor) -> Tensor:
            centred = (x - mean).square()
            return (centred if self._mass is None else self._mass * centred).reshape(len(x), -1).sum(dim=1)

        change = (squares(now) - squares(self._before)).square()
        self._sum += 0.25 * mean_of_alive(change, chains.failed_at, self._n)
        self._before = now.clone()
        self._count += 1

    def rate(self, n_gradients: int) -> float:
        """ChEES for each gradient; waits for the device."""
        return float(self._sum) / (self._count * n_gradients)
