"""Torch's zeros without memory, which forward-mode differentiation makes: as plain zeros, where operations are watched.

A product with one crashes the process beneath a ``TorchDispatchMode`` (torch 2.13).
"""

from __future__ import annotations

from typing import Any

import torch

__all__ = ["with_memory"]


def with_memory(op: Any) -> Any:
    """The operation itself, or the one that makes plain zeros."""
    return torch.ops.aten.zeros.default if op is torch.ops.aten._efficientzerotensor.default else op
