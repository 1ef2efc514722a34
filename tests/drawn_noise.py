"""A transition that hands out the noise of its step, for tests alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from loop_transitions import GradientState, StepSize
from torch import Tensor

import compiled_ebm as ce
from compiled_ebm import rng
from compiled_ebm.transitions.base import NoiseDraw, Target

DIM = 5


@dataclass(frozen=True)
class Drawn:
    """x' is the step's uniforms, and the gradient's place holds its normals."""

    noise: ClassVar[ce.Noise] = ce.Noise(normals=1, uniforms=DIM)
    hyper_type: ClassVar[type] = StepSize

    def init(self, x: Tensor, target: Target) -> GradientState:
        return GradientState(x, *target.energy_and_grad(x))

    def step(
        self, state: GradientState, noise: NoiseDraw, hyper: StepSize, target: Target
    ) -> tuple[GradientState, None]:
        energy, _ = target.energy_and_grad(noise.uniforms)
        return GradientState(noise.uniforms, energy, noise.normals), None

    def hyper_table(self, first_step: int, n_steps: int) -> StepSize:
        return StepSize(torch.ones(n_steps, dtype=torch.float64))

    def structure(self) -> tuple[object, ...]:
        return (Drawn,)


def drawn_and_specified(sampler: ce.Sampler, n: int, **where: int) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """Uniforms and normals ``[n, DIM]`` of the third step of a run, and those of ``rng.py`` on the CPU."""
    x0 = torch.zeros(n, DIM, dtype=sampler.dtype, device=sampler.device)
    state = sampler.run(sampler.init(x0, **where), 3).state
    at = torch.tensor(_signed(where["seed"])), torch.tensor(state.step - 1), state.chain_ids.cpu()
    specified = (f(*at, DIM, dtype=sampler.dtype) for f in (rng.uniforms, rng.normals))
    return (state.positions.cpu(), state.carried[1].cpu()), tuple(specified)


def _signed(seed: int) -> int:
    return seed - (1 << 64) if seed >= 1 << 63 else seed
