"""Hyper-parameters that several transitions have: checked, and evaluated for every step."""

from __future__ import annotations

import math
from dataclasses import fields
from typing import Any, NamedTuple

import torch
from torch import Tensor

from compiled_ebm import schedules
from compiled_ebm.schedules import ScheduleLike

__all__ = ["Diagonal", "TemperedHyper", "checked_diagonal", "given", "shown", "tempered_table"]

Diagonal = float | Tensor | None
"""A positive number for every element of x, or one for each."""


class TemperedHyper(NamedTuple):
    """A step's scalars; the target is exp(-E * inverse_temperature)."""

    step_size: Tensor
    inverse_temperature: Tensor


def tempered_table(step_size: ScheduleLike, temperature: ScheduleLike, first_step: int, n_steps: int) -> TemperedHyper:
    """Both of every step, float64 ``[n_steps]``; both given are above 0."""
    eta = schedules.evaluate(step_size, first_step, n_steps, name="step_size", minimum=0.0, strict=True)
    t = schedules.evaluate(temperature, first_step, n_steps, name="temperature", minimum=0.0, strict=True)
    return TemperedHyper(eta, 1 / t)


def checked_diagonal(name: str, value: object) -> Tensor | None:
    """A diagonal matrix as float64: 0-d, or with the shape of x."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float, Tensor)):
        raise TypeError(f"{name}: expected a number, a tensor of the shape of x or None, got {type(value).__name__}")
    if isinstance(value, Tensor) and (value.dtype == torch.bool or value.is_complex() or value.is_meta):
        raise TypeError(f"{name}: expected real numbers, got a tensor of {value.dtype} on {value.device}")
    if isinstance(value, Tensor) and not value.numel():
        raise ValueError(f"{name}: expected a number for each element of x, got a tensor of shape {list(value.shape)}")
    if isinstance(value, int) and abs(value) > 1 << 1000:
        raise ValueError(f"{name}: expected a number within the range of float64, got one of {value.bit_length()} bits")
    exact = value if isinstance(value, Tensor) else torch.tensor(value, dtype=torch.float64)
    found = exact.detach().to(device="cpu", dtype=torch.float64, copy=True)
    if not bool(((found > 0) & (found < math.inf)).all()):
        raise ValueError(f"{name}: expected finite numbers above 0, got {value!r}; it is the diagonal of a matrix")
    return found


def given(value: Diagonal) -> Tensor | None:
    """A checked diagonal: a tensor by now."""
    assert value is None or isinstance(value, Tensor)
    return value


def shown(transition: Any) -> str:
    """What is set, for messages and reports; a diagonal by its shape or its one number."""

    def text(value: object) -> str:
        if not isinstance(value, Tensor):
            return str(value)
        return f"{float(value):g}" if value.numel() == 1 else f"tensor{tuple(value.shape)}"

    given = {field.name: getattr(transition, field.name) for field in fields(transition)}
    return f"{type(transition).__name__}({', '.join(f'{k}={text(v)}' for k, v in given.items() if v is not None)})"
