"""What can go wrong with an energy, as exceptions."""

from __future__ import annotations

__all__ = ["BackendUnavailableError", "NonFiniteChainWarning", "UnsupportedEnergyError"]


class UnsupportedEnergyError(ValueError):
    """The energy cannot be sampled or compiled as asked: the message names the operation, the line, the way out."""


class BackendUnavailableError(RuntimeError):
    """The backend asked for cannot run on this machine: the message says what to install or to use instead."""


class NonFiniteChainWarning(UserWarning):
    """Chains left the region where the energy is finite; they stay at their last finite position."""
