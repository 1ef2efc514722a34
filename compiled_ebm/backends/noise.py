"""A step's noise over a batch, from the coordinates of each chain."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from compiled_ebm import rng
from compiled_ebm.trace import ChainProgram
from compiled_ebm.transitions.base import NoiseDraw

__all__ = ["draw_noise"]


def draw_noise(program: ChainProgram, seed: Tensor, step: Tensor, ids: Tensor) -> NoiseDraw:
    """The random numbers of every chain: ``[*ids.shape, *event]`` normals and ``[*ids.shape, k]`` uniforms.

    Args:
        program: Says how many numbers a step takes.
        seed: 0-d int64.
        step: int64, broadcasts against ``ids``.
        ids: int64 chain ids ``[n]``, or ``[steps, n]`` with a column of steps.
    """
    noise, event = program.transition.noise, program.event_shape
    shape = event if noise.normals == 1 else (noise.normals, *event)

    def draw(numbers: Callable[..., Tensor], count: int, each: tuple[int, ...]) -> Tensor:
        if count == 0:
            return torch.empty((*ids.shape, 0), dtype=program.carry_dtype, device=ids.device)
        return numbers(seed, step, ids, count, dtype=program.carry_dtype).reshape(*ids.shape, *each)

    return NoiseDraw(
        draw(rng.normals, program.event_numel * noise.normals, shape),
        draw(rng.uniforms, noise.uniforms, (noise.uniforms,)),
    )
