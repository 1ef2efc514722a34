"""Transitions with loops inside, for tests alone: leapfrog with an accept decision, and loops in loops."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

import compiled_ebm as ce
from compiled_ebm.repetition import repeat
from compiled_ebm.transitions.base import NoiseDraw, Target


class GradientState(NamedTuple):
    x: Tensor
    energy: Tensor
    grad: Tensor


class StepSize(NamedTuple):
    step_size: Tensor


@dataclass(frozen=True)
class Leapfrog:
    """HMC as a textbook has it, its inner loop by :func:`repeat`, or in Python where ``unrolled``."""

    rounds: int = 5
    step_size: float = 0.05
    unrolled: bool = False

    noise: ClassVar[ce.Noise] = ce.Noise(normals=1, uniforms=1)
    hyper_type: ClassVar[type] = StepSize

    def init(self, x: Tensor, target: Target) -> GradientState:
        return GradientState(x, *target.energy_and_grad(x))

    def step(
        self, state: GradientState, noise: NoiseDraw, hyper: StepSize, target: Target
    ) -> tuple[GradientState, None]:
        eta = hyper.step_size

        def move(x: Tensor, p: Tensor, energy: Tensor, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
            p = p - 0.5 * eta * grad
            x = x + eta * p
            energy, grad = target.energy_and_grad(x)
            return x, p - 0.5 * eta * grad, energy, grad

        carry = (state.x, noise.normals, state.energy, state.grad)
        if self.unrolled:
            for _ in range(self.rounds):
                carry = move(*carry)
        else:
            carry = repeat(self.rounds, move, carry)
        x, p, energy, grad = carry
        before = state.energy + 0.5 * noise.normals.square().sum()
        accept = noise.uniforms[0].log() < before - (energy + 0.5 * p.square().sum())
        new = zip((x, energy, grad), state, strict=True)
        return GradientState(*(torch.where(accept, a, b) for a, b in new)), None

    def hyper_table(self, first_step: int, n_steps: int) -> StepSize:
        return StepSize(torch.full((n_steps,), self.step_size, dtype=torch.float64))

    def structure(self) -> tuple[object, ...]:
        return (Leapfrog, self.rounds, self.unrolled)


@dataclass(frozen=True)
class Nested:
    """Descent by a loop of loops, which no accept decision repairs.

    The outer loop swaps two positions and keeps a counter and a flag; the inner one is a few steps of descent, with a
    carry that only the next round reads.
    """

    outer: int = 3
    inner: int = 2
    step_size: float = 0.02
    unrolled: bool = False

    noise: ClassVar[ce.Noise] = ce.Noise(normals=1)
    hyper_type: ClassVar[type] = StepSize

    def init(self, x: Tensor, target: Target) -> GradientState:
        return GradientState(x, *target.energy_and_grad(x))

    def step(
        self, state: GradientState, noise: NoiseDraw, hyper: StepSize, target: Target
    ) -> tuple[GradientState, None]:
        loop = _in_python if self.unrolled else repeat
        kick = 0.1 * hyper.step_size.sqrt() * noise.normals

        def descend(x: Tensor, damping: Tensor) -> tuple[Tensor, Tensor]:
            _, grad = target.energy_and_grad(x)
            return x - hyper.step_size * damping * grad, 0.5 * damping

        def swap(a: Tensor, b: Tensor, count: Tensor, odd: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
            new, _ = loop(self.inner, descend, (b, torch.ones_like(hyper.step_size)))
            new = new + kick * torch.where(odd, 1.0, -1.0) / (count + 1)
            return new, a, count + 1, ~odd

        start = (state.x, state.x.flip(0), torch.zeros_like(hyper.step_size, dtype=torch.int64), state.energy > 0)
        a, b, count, _ = loop(self.outer, swap, start)
        x = a + 0.1 * (b - a) * (count - self.outer + 1)
        return GradientState(x, *target.energy_and_grad(x)), None

    def hyper_table(self, first_step: int, n_steps: int) -> StepSize:
        return StepSize(torch.full((n_steps,), self.step_size, dtype=torch.float64))

    def structure(self) -> tuple[object, ...]:
        return (Nested, self.outer, self.inner, self.unrolled)


def _in_python(rounds: int, body: object, carry: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    for _ in range(rounds):
        carry = body(*carry)  # type: ignore[operator]
    return carry
