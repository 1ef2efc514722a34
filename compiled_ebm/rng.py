"""Counter-based randomness: every random number is a pure function of its coordinates.

Philox4x32-10 (Salmon et al., "Parallel Random Numbers: As Easy as 1, 2, 3", SC'11) maps a 64-bit key and a
128-bit counter to four 32-bit words. The layout, bit by bit:

====== ======= =====================================================================
word   bits    meaning
====== ======= =====================================================================
key 0  0-31    low half of the seed
key 1  0-31    high half of the seed
c0     0-23    draw block: which group of four numbers of this chain's step
c0     24-31   stream tag (:class:`Stream`): transition, initialisation, ...
c1     0-31    step, modulo 2^32
c2     0-31    low half of the global chain id
c3     0-31    high half of the global chain id
====== ======= =====================================================================

Number ``e`` of a chain's step is word ``e % 4`` of block ``e // 4``. Everything is int64 arithmetic on words held in
the low 32 bits, so that the same lines run eagerly, under ``torch.vmap`` and inside ``torch.compile``. This file is
the specification: every backend gives these bits.
"""

from __future__ import annotations

import enum
import math

import torch
from torch import Tensor

__all__ = ["MAX_NUMBERS", "Stream", "normals", "philox4x32", "seed_tensor", "uniforms", "words"]

_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)
_ROUNDS = 10
_LOW32 = 0xFFFFFFFF
_BLOCK_BITS = 24

MAX_NUMBERS = 4 << _BLOCK_BITS
"""Most numbers one chain can draw in one step: 2^24 blocks of four."""


class Stream(enum.IntEnum):
    """The purpose of a draw; streams never share a counter."""

    TRANSITION = 0
    TRANSITION_UNIFORM = 1
    INITIALISATION = 2
    RESAMPLING = 3
    EXCHANGE = 4


def seed_tensor(seed: int, device: torch.device) -> Tensor:
    """A 64-bit seed as 0-d int64."""
    signed = seed - (1 << 64) if seed >= 1 << 63 else seed
    # a fill, where torch.tensor would copy from the host and wait for the device
    return torch.full((), signed, dtype=torch.int64, device=device)


def philox4x32(
    key: tuple[Tensor, Tensor], counter: tuple[Tensor, Tensor, Tensor, Tensor]
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Ten rounds of Philox4x32 on 32-bit words held in int64 tensors of any broadcastable shapes.

    Args:
        key: Two words in [0, 2^32).
        counter: Four words in [0, 2^32).

    Returns:
        Four words in [0, 2^32).

    Example:
        >>> zero = torch.tensor(0)
        >>> [f"{int(w):08x}" for w in philox4x32((zero, zero), (zero, zero, zero, zero))]
        ['6627e8d5', 'e169c58d', 'bc57ac4c', '9b00dbd8']
    """
    k0, k1 = key
    c0, c1, c2, c3 = counter
    for _ in range(_ROUNDS):
        (high0, low0), (high1, low1) = _multiply(c0, _MULTIPLIERS[0]), _multiply(c2, _MULTIPLIERS[1])
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
        k0, k1 = (k0 + _WEYL[0]) & _LOW32, (k1 + _WEYL[1]) & _LOW32
    return c0, c1, c2, c3


def _multiply(word: Tensor, multiplier: int) -> tuple[Tensor, Tensor]:
    """High and low words of ``word * multiplier``, without leaving int64.

    The product of two words needs 64 unsigned bits. Signed overflow is undefined in C++, and a compiler that counts on
    its absence drops the masks that would repair it (g++ under Inductor did, for words near 2^32). So half the range
    is subtracted first: with an odd M,  w M = q + (M >> 1) 2^32  where  q = (w - 2^31) M + 2^31  fits in int64.
    """
    q = (word - (1 << 31)) * multiplier + (1 << 31)
    return (q >> 32) + (multiplier >> 1), q & _LOW32


def words(seed: Tensor, step: Tensor, chain: Tensor, n_blocks: int, stream: int) -> tuple[Tensor, ...]:
    """Four words for each draw block of each chain: four int64 tensors ``[*chain.shape, n_blocks]``.

    Args:
        seed: 0-d int64, all 64 bits count.
        step: 0-d int64 (or the shape of ``chain``).
        chain: int64 global chain ids, any shape.
        n_blocks: Blocks of four words wanted, at most 2^24.
        stream: A :class:`Stream` tag.
    """
    if not 0 <= n_blocks <= 1 << _BLOCK_BITS:
        raise ValueError(
            f"n_blocks: expected 0 to 2**{_BLOCK_BITS} draw blocks of four numbers a chain and step, got {n_blocks}; "
            "split the event over several chains"
        )
    block = torch.arange(n_blocks, dtype=torch.int64, device=chain.device) | (int(stream) << _BLOCK_BITS)
    key = (seed & _LOW32, (seed >> 32) & _LOW32)
    counter = (
        block.expand(*chain.shape, n_blocks),
        (step & _LOW32).unsqueeze(-1),
        (chain & _LOW32).unsqueeze(-1),
        ((chain >> 32) & _LOW32).unsqueeze(-1),
    )
    return philox4x32(key, counter)


def _interleave(parts: list[Tensor], n: int) -> Tensor:
    return torch.stack(parts, dim=-1).flatten(-2)[..., :n]


def _unit(word: Tensor, dtype: torch.dtype) -> Tensor:
    """u = (w + 1/2) 2^-32, rounded to ``dtype``: never 0; in float32 the top 2^7 words round to 1."""
    return (word.to(dtype) + 0.5) * 2.0**-32


def uniforms(
    seed: Tensor,
    step: Tensor,
    chain: Tensor,
    n: int,
    stream: int = Stream.TRANSITION_UNIFORM,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """``n`` uniforms a chain, u = (w + 1/2) 2^-32: a tensor ``[*chain.shape, n]`` in (0, 1].

    Args:
        seed, step, chain, stream: The coordinates, as in :func:`words`.
        n: Numbers per chain.
        dtype: float32 or float64.

    Example:
        >>> u = uniforms(torch.tensor(0), torch.tensor(0), torch.arange(2), 3)
        >>> tuple(u.shape)
        (2, 3)
    """
    w = words(seed, step, chain, -(-n // 4), stream)
    return _interleave([_unit(x, dtype) for x in w], n)


def _box_muller(radius_word: Tensor, angle_word: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """z = sqrt(-2 ln u_r) (cos 2 pi u_a, sin 2 pi u_a).

    The radius keeps all 32 bits, so that it reaches sqrt(66 ln 2) = 6.76. The angle word is read as signed, which
    turns 2 pi u_a into the same angle in (-pi, pi), where float32 is twice as fine.
    """
    radius = torch.sqrt(-2.0 * torch.log(_unit(radius_word, dtype)))
    signed = torch.where(angle_word >= 1 << 31, angle_word - (1 << 32), angle_word)
    angle = (signed.to(dtype) + 0.5) * (math.pi * 2.0**-31)
    return radius * torch.cos(angle), radius * torch.sin(angle)


def normals(
    seed: Tensor,
    step: Tensor,
    chain: Tensor,
    n: int,
    stream: int = Stream.TRANSITION,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """``n`` standard normals a chain, by Box-Muller on (w0, w1) and (w2, w3): a tensor ``[*chain.shape, n]``.

    Args:
        seed, step, chain, stream: The coordinates, as in :func:`words`.
        n: Numbers per chain, at most 2^26.
        dtype: float32 or float64; the arithmetic is done in it.

    Example:
        >>> z = normals(torch.tensor(7), torch.tensor(0), torch.arange(1000), 2)
        >>> bool(z.mean().abs() < 0.1)
        True
    """
    w = words(seed, step, chain, -(-n // 4), stream)
    parts = [*_box_muller(w[0], w[1], dtype)]
    if n > 2:  # with one or two numbers a chain the second pair would be thrown away
        parts += _box_muller(w[2], w[3], dtype)
    return _interleave(parts, n)
