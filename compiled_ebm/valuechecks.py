"""Checks of values that torch makes in Python: a chain that does not pass fails, and no other.

``torch.distributions`` raises an error where one parameter or value of all is outside its support, and ``one_hot``
where one class is. That takes a value out of a tensor, which cannot be compiled, and it would end the run of all
chains for the sake of one. Here such checks are collected: each chain's energy is NaN where one of its own is not met.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

__all__ = ["ValueChecks"]

_DISTRIBUTIONS = os.path.dirname(torch.distributions.__file__)
_ALL = (torch._is_all_true, torch.all, Tensor.all)


class ValueChecks(TorchFunctionMode):
    """Inside, checks of values are passed and remembered.

    Args:
        n_chains: The first dimension of what differs between chains.
    """

    def __init__(self, n_chains: int) -> None:
        super().__init__()
        self._n_chains = n_chains
        self._met: list[Tensor] = []

    def applied(self, energy: Tensor) -> Tensor:
        """``energy [n]``, NaN for the chains that have not met every check."""
        for met in self._met:
            energy = torch.where(met, energy, torch.nan)
        return energy

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in _ALL and len(args) == 1 and not kwargs and _asked_by_distributions():
            return self._noted(args[0]) or func(*args)
        if func is torch.nn.functional.one_hot:
            return self._one_hot(*args, **kwargs)
        return func(*args, **kwargs)

    def _noted(self, met: Tensor) -> bool:
        """Whether it is known whose check this is; if not, it is for torch to make."""
        if torch._C._functorch.is_functorch_wrapped_tensor(met):  # of one sample inside the energy's own vmap
            return False
        if self._n_chains == 1:
            self._met.append(met.all())
        elif met.ndim and met.shape[0] == self._n_chains:
            self._met.append(met.flatten(1).all(1) if met.ndim > 1 else met)
        else:
            return False
        return True

    def _one_hot(self, classes: Tensor, num_classes: int = -1) -> Tensor:
        met = (classes >= 0) & (classes < num_classes)
        if num_classes < 1 or classes.dtype != torch.int64 or not self._noted(met):
            return torch.nn.functional.one_hot(classes, num_classes)
        return (classes.unsqueeze(-1) == torch.arange(num_classes, device=classes.device)).long()


def _asked_by_distributions() -> bool:
    """Whether the function was called by ``torch.distributions``, whose one use of it is to raise an error."""
    name = sys._getframe(2).f_code.co_filename
    return os.path.dirname(name) == _DISTRIBUTIONS and os.path.basename(name) in ("distribution.py", "constraints.py")
