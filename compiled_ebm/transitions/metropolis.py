"""The accept decision of Metropolis-Hastings moves, and what is told of it."""

from __future__ import annotations

from typing import NamedTuple, TypeVar

import torch
from torch import Tensor

__all__ = ["MetropolisInfo", "decide"]

_DIVERGENT = 1000.0
"""Energy error of a diverged trajectory, in units of the temperature: Stan's."""

State = TypeVar("State", bound=tuple[Tensor, ...])


class MetropolisInfo(NamedTuple):
    """One decision of one chain, 0-d tensors."""

    energy: Tensor
    """E of the position after the decision."""
    acceptance: Tensor
    """The probability min(1, r) with which the proposal was accepted; 0 where it was not finite."""
    accepted: Tensor
    """Whether it was: 1 or 0."""
    divergent: Tensor
    """Whether log r was below -1000 or not finite: 1 or 0."""


def decide(old: State, proposed: State, log_ratio: Tensor, uniform: Tensor) -> tuple[State, MetropolisInfo]:
    r"""The proposal with probability :math:`\min(1, r)`, else the old state.

    Args:
        old, proposed: States, whose second field is the energy.
        log_ratio: log r, 0-d. Where it is NaN or infinite, or the proposed energy is, the proposal is rejected.
        uniform: In (0, 1].

    Source: Hastings, "Monte Carlo sampling methods using Markov chains and their applications", 1970.
    """
    finite = torch.isfinite(log_ratio) & torch.isfinite(proposed[1])
    acceptance = torch.where(finite, torch.exp(log_ratio.clamp(max=0.0)), 0.0)
    accept = uniform <= acceptance
    new = type(old)(*(torch.where(accept, after, before) for after, before in zip(proposed, old, strict=True)))
    diverged = ~finite | (log_ratio < -_DIVERGENT)
    one, zero = torch.ones_like(log_ratio), torch.zeros_like(log_ratio)
    info = MetropolisInfo(new[1], acceptance, torch.where(accept, one, zero), torch.where(diverged, one, zero))
    return new, info
