"""The shape of one position, where an energy tells it."""

from __future__ import annotations

import torch
from torch import nn

from compiled_ebm import captures
from compiled_ebm.arguments import checked_shape
from compiled_ebm.energies.registry import BUILTIN_ENERGIES
from compiled_ebm.target import Energy

__all__ = ["event_shape_of"]


def event_shape_of(energy: Energy) -> tuple[int, ...]:
    """By its attribute ``event_shape``; as the energy of that class that has a name; or as its first linear layer takes
    it, if the energy takes that.

    Raises:
        ValueError: It does not tell.
    """
    own = getattr(energy, "event_shape", None)
    if own is not None:
        return checked_shape(own)
    for shape in _likely(energy):
        if _takes(energy, shape):
            return shape
    raise ValueError(
        "event_shape: expected the shape of one position, such as 2 or (1, 28, 28), got none; the energy has no "
        "attribute event_shape that would tell"
    )


def _likely(energy: Energy) -> list[tuple[int, ...]]:
    linear = [module for module in captures.modules(energy) if isinstance(module, nn.Linear)]
    named = [
        builtin.event_shape
        for builtin in BUILTIN_ENERGIES.values()
        if type(energy) is getattr(builtin.factory, "func", builtin.factory)
    ]
    return [*((module.in_features,) for module in linear[:1]), *named]


def _takes(energy: Energy, shape: tuple[int, ...]) -> bool:
    held = next((slot.value for slot in captures.tensors(captures.find_slots(energy))), torch.zeros(()))
    dtype = held.dtype if held.dtype.is_floating_point else torch.float32
    try:
        with torch.no_grad():
            return energy(torch.zeros(2, *shape, device=held.device, dtype=dtype)).shape == (2,)
    except Exception:  # whatever a foreign function raises for a shape that is not its own
        return False
