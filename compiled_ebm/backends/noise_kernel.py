"""A step's noise on a GPU in one kernel: four numbers a Philox call, from coordinates that live on the device.

The draw cannot be inlined in Inductor's kernels: its pointwise code gives each element a call of its own, four times
the work, and once for each user of the number.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import triton
import triton.language as tl
from torch import Tensor

from compiled_ebm.backends.triton_noise import normals4, uniforms4
from compiled_ebm.rng import Stream
from compiled_ebm.transitions.base import NoiseDraw

__all__ = [
    "BLOCK",
    "NUM_WARPS",
    "call_coordinates",
    "constants",
    "fill_noise",
    "in_order",
    "index_type",
    "noise_kernel",
]

BLOCK = 128
"""Philox calls a program, one a thread: 10,000 chains in two dimensions then reach 79 multiprocessors."""
NUM_WARPS = 4


@triton.jit
def call_coordinates(ids, n_chains, program, COUNT: tl.constexpr, INDEX: tl.constexpr, BLOCK: tl.constexpr):
    """Chain, draw block, and the two words of the chain's id, for each Philox call of a program."""
    calls: tl.constexpr = (COUNT + 3) // 4
    call = program.to(INDEX) * BLOCK + tl.arange(0, BLOCK)
    chain = call // calls
    chain_id = tl.load(ids + chain, mask=chain < n_chains, other=0)
    return chain, (call % calls).to(tl.int32), chain_id.to(tl.uint32), (chain_id >> 32).to(tl.uint32)


@triton.jit
def in_order(a, b, c, d, BLOCK: tl.constexpr):
    """Four numbers a call as ``[BLOCK, 4]``, in one thread each: their load and store is one of 16 bytes."""
    return tl.reshape(tl.join(tl.join(a, c), tl.join(b, d)), (BLOCK, 4))


@triton.jit
def _stored(target, chain, number, values, COUNT: tl.constexpr, n_chains):
    """Store numbers ``number`` of chains ``chain``; those beyond the count are padding of the last call."""
    tl.store(target + chain * COUNT + number, values, mask=(chain < n_chains) & (number < COUNT))


@triton.jit
def _filled(
    target,
    seed,
    step,
    ids,
    n_chains,
    program,
    COUNT: tl.constexpr,
    STREAM: tl.constexpr,
    NORMAL: tl.constexpr,
    INDEX: tl.constexpr,
    FAST: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """One program's share of the numbers ``[n_chains, COUNT]``."""
    real: tl.constexpr = target.dtype.element_ty
    chain, block, low, high = call_coordinates(ids, n_chains, program, COUNT, INDEX, BLOCK)
    if NORMAL:
        a, b, c, d = normals4(seed, STREAM, block, step, low, high, real, FAST)
    else:
        a, b, c, d = uniforms4(seed, STREAM, block, step, low, high, real, FAST)
    if COUNT == 1:  # what is not stored is not computed, beyond the words
        _stored(target, chain, block, a, COUNT, n_chains)
    elif COUNT == 2:
        number = tl.arange(0, 2)[None, :]
        _stored(target, chain[:, None], number, tl.join(a, b), COUNT, n_chains)
    else:
        number = 4 * block[:, None] + tl.arange(0, 4)[None, :]
        _stored(target, chain[:, None], number, in_order(a, b, c, d, BLOCK), COUNT, n_chains)


@triton.jit(do_not_specialize=["n_chains"])
def noise_kernel(
    seed_pointer,
    step_pointer,
    ids,
    normals,
    uniforms,
    n_chains,
    NORMALS: tl.constexpr,
    UNIFORMS: tl.constexpr,
    NORMAL_STREAM: tl.constexpr,
    UNIFORM_STREAM: tl.constexpr,
    INDEX: tl.constexpr,
    FAST: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Fill ``normals [n_chains, NORMALS]`` and ``uniforms [n_chains, UNIFORMS]``, float32 or float64.

    Seed and step (int64, 0-d) are read from the device, so that a captured launch follows the step that the graph
    advances. The first programs draw normals, the rest uniforms. Bound by its integer arithmetic up to some 10^5
    numbers and by the store of four bytes a number beyond.
    """
    seed = tl.load(seed_pointer)
    step = tl.load(step_pointer)
    program = tl.program_id(0)
    calls: tl.constexpr = (NORMALS + 3) // 4
    first_uniform = ((n_chains.to(tl.int64) * calls + BLOCK - 1) // BLOCK).to(tl.int32)
    if program < first_uniform:
        if NORMALS > 0:
            _filled(normals, seed, step, ids, n_chains, program, NORMALS, NORMAL_STREAM, True, INDEX, FAST, BLOCK)
    else:
        if UNIFORMS > 0:
            rest = program - first_uniform
            _filled(uniforms, seed, step, ids, n_chains, rest, UNIFORMS, UNIFORM_STREAM, False, INDEX, FAST, BLOCK)


def index_type(n_chains: int, count: int) -> object:
    """Of offsets into ``[n_chains, count]``: 64 bits only where they are needed."""
    return tl.int32 if n_chains * 4 * -(-count // 4) + 4 * BLOCK < 1 << 31 else tl.int64


def constants(normals: int, uniforms: int, n_chains: int, *, fast: bool) -> dict[str, object]:
    """The kernel's compile-time arguments for so many numbers a chain."""
    return {
        "NORMALS": normals,
        "UNIFORMS": uniforms,
        "NORMAL_STREAM": int(Stream.TRANSITION),
        "UNIFORM_STREAM": int(Stream.TRANSITION_UNIFORM),
        "INDEX": index_type(n_chains, max(normals, uniforms)),
        "FAST": fast,
        "BLOCK": BLOCK,
    }


def fill_noise(seed: Tensor, step: Tensor, ids: Tensor, buffers: NoiseDraw, *, fast: bool) -> Callable[[], None]:
    """A function that fills ``buffers`` with the noise of the step that ``step`` holds when it is called.

    Args:
        seed, step: 0-d int64.
        ids: int64 ``[n]``.
        buffers: Normals ``[n, ...]`` and uniforms ``[n, m]``, contiguous; either may be empty.
        fast: The hardware's logarithm, sine and cosine, for float32: normals within 5e-6 of ``rng.py``'s.

    Returns:
        It takes nothing and allocates nothing, so it can be captured; it keeps the tensors alive.

    Raises:
        TypeError: The buffers are of another dtype than float32 or float64, or ``fast`` is asked of float64.
    """
    allowed = (torch.float32,) if fast else (torch.float32, torch.float64)
    for name, buffer in zip(buffers._fields, buffers, strict=True):
        if buffer.dtype not in allowed:
            raise TypeError(f"{name}: expected one of {allowed} with fast={fast}, got {buffer.dtype}")
        if not buffer.is_contiguous():
            raise ValueError(f"{name}: expected a contiguous buffer, got strides {buffer.stride()}")
    n = ids.shape[0]
    counts = [buffer.numel() // n for buffer in buffers]
    known = constants(counts[0], counts[1], n, fast=fast)
    programs = sum(-(-n * -(-count // 4) // BLOCK) for count in counts)

    def fill() -> None:
        if programs:
            noise_kernel[(programs,)](seed, step, ids, *buffers, n, **known, num_warps=NUM_WARPS)

    return fill
