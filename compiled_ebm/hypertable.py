"""The hyper-parameters of each step, as launches read them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from compiled_ebm.hosttensors import sent
from compiled_ebm.transitions.base import Transition

__all__ = ["hyper_rows"]

_TABLE_STEPS = 1 << 22
"""Steps whose hyper-parameters are evaluated before the run starts: 32 MiB a hyper-parameter."""


def hyper_rows(
    transition: Transition, first_step: int, n_steps: int, carry: torch.dtype, device: torch.device
) -> Callable[[int, int], Tensor]:
    """The hyper-parameters of a stretch of the run's steps, ``[count, n_hyper]`` on the device.

    All of them are evaluated (and checked) at once, but for runs so long that the table itself would be large.
    """

    def table(first: int, count: int) -> Tensor:
        exact = np.stack([column.numpy() for column in transition.hyper_table(first, count)], axis=1)
        with np.errstate(over="ignore", under="ignore"):
            rounded = exact.astype(np.float64 if carry == torch.float64 else np.float32)
        if not (np.isfinite(rounded) & ((rounded == 0) == (exact == 0))).all():
            raise ValueError(
                f"transition: expected values within the range of {carry}, got {exact[0].tolist()} at the "
                f"first step of {transition}; choose larger or smaller ones, or dtype=torch.float64"
            )
        return sent(torch.from_numpy(rounded), device)

    if n_steps > _TABLE_STEPS:
        return lambda done, count: table(first_step + done, count)
    whole = table(first_step, n_steps)
    return lambda done, count: whole[done : done + count]
