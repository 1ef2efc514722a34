"""A step's noise over a batch, from the coordinates of each chain."""

from __future__ import annotations

import torch
from torch import Tensor

from compiled_ebm import rng
from compiled_ebm.trace import ChainProgram
from compiled_ebm.transitions.base import NoiseDraw

__all__ = ["draw_noise"]


def draw_noise(program: ChainProgram, seed: Tensor, step: Tensor, ids: Tensor) -> NoiseDraw:
    """The random numbers of one step of every chain: ``[n, *event]`` normals and ``[n, k]`` uniforms."""
    noise, event = program.transition.noise, program.event_shape
    shape = event if noise.normals == 1 else (noise.normals, *event)
    numel = program.event_numel * noise.normals
    z = rng.normals(seed, step, ids, numel, dtype=program.carry_dtype) if numel else ids.new_empty(0)
    u = (
        rng.uniforms(seed, step, ids, noise.uniforms, dtype=program.carry_dtype)
        if noise.uniforms
        else torch.empty((*ids.shape, 0), dtype=program.carry_dtype, device=ids.device)
    )
    return NoiseDraw(z.reshape(*ids.shape, *shape), u)
