"""Bits of what energy and gradient depend on: whether what was computed from them still holds."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

__all__ = ["of_code", "of_tensor", "same_bits"]

_BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def of_code(code: Iterable[str]) -> int:
    """64 bits, the same in every process: Python's own hash of a string is not."""
    return int.from_bytes(hashlib.blake2b("\0".join(code).encode(), digest_size=8).digest(), "little")


def of_tensor(tensor: Tensor) -> int:
    """64 bits in which every bit of the tensor and its place count; waits for the device."""
    flat = tensor.detach().contiguous().reshape(-1)
    if flat.device.type == "cpu":
        data: Any = flat.view(torch.uint8).numpy() if flat.numel() else b""
        return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little")
    if flat.dtype == torch.bool:
        flat = flat.to(torch.uint8)
    elif flat.dtype.is_complex:
        flat = torch.view_as_real(flat).reshape(-1)
    bits = flat.view(_BITS[flat.element_size()]).to(torch.int64)
    # a mix that is not linear: in a plain weighted sum, two flipped signs of float64 numbers would cancel
    place = torch.arange(1, bits.numel() + 1, dtype=torch.int64, device=bits.device) * 0x1E3779B97F4A7C15
    mixed = (bits ^ place) * 0x3F58476D1CE4E5B9
    mixed = (mixed ^ (mixed >> 30)) * 0x14D049BB133111EB
    return int((mixed ^ (mixed >> 27)).sum())


def same_bits(tensor: Tensor, other: Tensor) -> bool:
    """Whether two tensors are the same to the last bit: 0 is not -0, and NaN is itself."""
    if tensor.shape != other.shape or tensor.dtype != other.dtype or tensor.device != other.device:
        return False
    if tensor.dtype.is_complex:
        tensor, other = torch.view_as_real(tensor), torch.view_as_real(other)
    if tensor.dtype.is_floating_point:
        bits = _BITS[tensor.element_size()]
        tensor, other = tensor.view(bits), other.view(bits)
    return torch.equal(tensor, other)
