"""The functions of ``functions.py`` for Triton's interpreter, which has no libdevice: by torch, on the CPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import triton.language as tl
from triton.runtime.interpreter import TensorHandle

from compiled_ebm.backends.fused.reference import OPERATIONS

__all__ = ["stand_ins"]


def stand_ins() -> dict[str, Callable[..., Any]]:
    """By the names that generated code calls them by."""
    real = {f"r_{name}": _by_torch(operation) for name, operation in OPERATIONS.items() if name[0] not in "im"}
    names = ("idiv_floor", "idiv_trunc", "imod_floor")
    return {
        **real,
        "to_bf16": _by_torch(lambda x: x.bfloat16().float()),  # the interpreter's own half arithmetic is wrong
        "to_fp16": _by_torch(lambda x: x.half().float()),
        **{f"r_{name}": _by_torch(OPERATIONS[name]) for name in ("max", "min")},
        **{name: _by_torch(_without_zero(OPERATIONS[name])) for name in names},
    }


def _without_zero(divide: Callable[..., Any]) -> Callable[..., Any]:
    def safe(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        done: torch.Tensor = divide(a, torch.where(b == 0, torch.ones_like(b), b))
        return torch.where(b == 0, torch.zeros_like(done), done)

    return safe


def _by_torch(operation: Callable[..., Any]) -> Callable[..., Any]:
    def call(*operands: Any) -> Any:
        like = next(x for x in operands if isinstance(x, tl.tensor))
        scalar, numpy_type = like.type.scalar, like.handle.data.dtype
        shape = np.broadcast_shapes(*(_shape(x) for x in operands))
        tensors = []
        for x in operands:
            array = np.asarray(x.handle.data if isinstance(x, tl.tensor) else x, dtype=numpy_type)
            tensors.append(torch.from_numpy(np.array(np.broadcast_to(array.reshape(_shape(x)), shape))))
        result = operation(*tensors).numpy().astype(numpy_type)
        handle = TensorHandle(result if shape else result.reshape(1), scalar)
        return tl.tensor(handle, tl.block_type(scalar, list(shape)) if shape else scalar)

    return call


def _shape(x: Any) -> tuple[int, ...]:
    return tuple(int(n) for n in x.shape) if isinstance(x, tl.tensor) else ()
