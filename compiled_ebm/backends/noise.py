"""A step's noise over a batch, from the coordinates of each chain."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from compiled_ebm import rng
from compiled_ebm.trace import ChainProgram
from compiled_ebm.transitions.base import NoiseDraw

__all__ = ["draw_noise"]


def draw_noise(
    program: ChainProgram, seed: Tensor, step: Tensor, ids: Tensor, *, chain_last: bool = False
) -> NoiseDraw:
    """The random numbers of one step of every chain: ``[n, *event]`` normals and ``[n, k]`` uniforms.

    With ``chain_last`` the same tensors are laid out in memory with the chains innermost.
    """
    noise, event = program.transition.noise, program.event_shape
    shape = event if noise.normals == 1 else (noise.normals, *event)
    numel = program.event_numel * noise.normals

    def mapped(draw: Callable[..., Tensor], count: int, each: tuple[int, ...]) -> Tensor:
        if count == 0:
            return torch.empty((*ids.shape, 0), dtype=program.carry_dtype, device=ids.device)
        numbers = draw(seed, step, ids, count, dtype=program.carry_dtype, chain_last=chain_last)
        if chain_last:
            return numbers.reshape(*each, *ids.shape).movedim(-1, 0)
        return numbers.reshape(*ids.shape, *each)

    return NoiseDraw(mapped(rng.normals, numel, shape), mapped(rng.uniforms, noise.uniforms, (noise.uniforms,)))
