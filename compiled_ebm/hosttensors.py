"""Copies and checks of CPU tensors by the calling thread alone.

torch shares copies and comparisons of more than 32,768 elements out to its own threads, which then go on spinning for
some 4 ms on the cores that the chains are to run on: as long as a short run.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

_GRAIN = 32_768


def _is_shared_out(tensor: Tensor) -> bool:
    """Whether torch would use its threads, and NumPy has such tensors, too."""
    return tensor.device.type == "cpu" and tensor.numel() > _GRAIN and tensor.dtype != torch.bfloat16


def copied(tensor: Tensor) -> Tensor:
    """A contiguous copy without gradient."""
    if not _is_shared_out(tensor):
        return tensor.detach().clone(memory_format=torch.contiguous_format)
    copy = torch.empty(tensor.shape, dtype=tensor.dtype)
    copy.numpy()[...] = tensor.detach().resolve_neg().numpy()
    return copy


def sent(tensor: Tensor, device: torch.device) -> Tensor:
    """The CPU tensor on the device, without waiting for the device's work: from pinned memory, in stream order."""
    if device.type != "cuda" or tensor.numel() == 0:
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def finite_rows(tensor: Tensor) -> Tensor:
    """`[n]`, whether all of `tensor[i]` is finite."""
    rows = tensor.detach().reshape(len(tensor), -1)
    if _is_shared_out(tensor):
        return torch.from_numpy(np.isfinite(rows.resolve_neg().numpy()).all(axis=1))
    return torch.isfinite(rows).all(dim=1)
