"""A transition that also sums up what it tells of its steps, chain by chain, in registers."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from compiled_ebm.transitions.base import NoiseDraw, Target, Transition, extended, lasting_of

__all__ = ["Tallied", "told_by"]


def told_by(transition: Transition) -> tuple[str, ...]:
    """The fields of its Info.

    Raises:
        ValueError: It has none.
    """
    info_type = getattr(transition, "info_type", None)
    if info_type is None:
        raise ValueError(
            f"info: expected a transition that tells of its steps, got {type(transition).__name__}, which has no "
            "info_type; give it one (a NamedTuple of 0-d tensors), or run without info"
        )
    fields: tuple[str, ...] = info_type._fields
    return fields


class Tallied:
    """The transition, its State followed by one sum for each field of its Info.

    Args:
        inner: Any transition with an ``info_type``.
    """

    def __init__(self, inner: Transition) -> None:
        self.inner = inner
        self.noise = inner.noise
        self.hyper_type = inner.hyper_type
        self.told = told_by(inner)
        self.lasting = (*lasting_of(inner), *map(_sum_name, self.told))

    def init(self, x: Tensor, target: Target) -> Any:
        """The inner state, and sums of nothing."""
        state = self.inner.init(x, target)
        zero = torch.zeros_like(state[1])
        return extended(type(state), tuple(map(_sum_name, self.told)))(*state, *(zero.clone() for _ in self.told))

    def step(self, state: Any, noise: NoiseDraw, hyper: Any, target: Target) -> tuple[Any, Any]:
        """The inner step, with what it tells added up."""
        n_told = len(self.told)
        new, info = self.inner.step(type(state).inner_type(*state[:-n_told]), noise, hyper, target)
        sums = (total + told for total, told in zip(state[-n_told:], info, strict=True))
        return type(state)(*new, *sums), info

    def hyper_table(self, first_step: int, n_steps: int) -> Any:
        """The inner one."""
        return self.inner.hyper_table(first_step, n_steps)

    def __getattr__(self, name: str) -> Any:
        """Vectors and the like are those of the inner one."""
        if name == "inner":
            raise AttributeError(name)
        return getattr(self.inner, name)

    def structure(self) -> tuple[object, ...]:
        """The inner one, and that it is tallied."""
        return (Tallied, self.inner.structure())


def _sum_name(field: str) -> str:
    return f"sum_of_{field}"
