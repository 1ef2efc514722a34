"""The update x' = clamp(a + k b + l xi) with its noise, in one kernel: xi never reaches memory."""

from __future__ import annotations

from collections.abc import Callable

import torch
import triton
import triton.language as tl
from torch import Tensor

from compiled_ebm.backends.head import Head
from compiled_ebm.backends.noise_kernel import BLOCK, NUM_WARPS, call_coordinates, in_order, index_type
from compiled_ebm.backends.triton_noise import normals4
from compiled_ebm.rng import Stream

__all__ = ["fill_update", "update_constants", "update_kernel"]


@triton.jit(do_not_specialize=["n_chains"])
def update_kernel(
    seed_pointer,
    step_pointer,
    cursor_pointer,
    table,
    ids,
    first,
    second,
    moved,
    n_chains,
    COUNT: tl.constexpr,
    COLUMNS: tl.constexpr,
    SECOND: tl.constexpr,
    NOISE: tl.constexpr,
    MINUS: tl.constexpr,
    CLAMPED: tl.constexpr,
    LOW: tl.constexpr,
    HIGH: tl.constexpr,
    STREAM: tl.constexpr,
    INDEX: tl.constexpr,
    FAST: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """``moved = clamp(first +- k second + l xi)``, each ``[n_chains, COUNT]``, float32 or float64.

    ``k`` and ``l`` are columns ``SECOND`` and ``NOISE`` of the row of ``table [., COLUMNS]`` at the cursor. Seed, step
    and cursor are read from the device. Four elements and one Philox call a thread; bound by 12 bytes an element.
    """
    real: tl.constexpr = moved.dtype.element_ty
    row = table + tl.load(cursor_pointer) * COLUMNS
    chain, block, low, high = call_coordinates(ids, n_chains, tl.program_id(0), COUNT, INDEX, BLOCK)
    a, b, c, d = normals4(tl.load(seed_pointer), STREAM, block, tl.load(step_pointer), low, high, real, FAST)
    number = 4 * block[:, None] + tl.arange(0, 4)[None, :]
    place = chain[:, None] * COUNT + number
    mask = (chain[:, None] < n_chains) & (number < COUNT)
    change = tl.load(row + SECOND) * tl.load(second + place, mask=mask)
    before = tl.load(first + place, mask=mask)
    drifted = before - change if MINUS else before + change
    value = drifted + tl.load(row + NOISE) * in_order(a, b, c, d, BLOCK)
    if CLAMPED:  # NaN stays NaN, so that a chain that fails is still seen
        value = tl.minimum(tl.maximum(value, LOW, tl.PropagateNan.ALL), HIGH, tl.PropagateNan.ALL)
    tl.store(moved + place, value, mask=mask)


def update_constants(head: Head, n_columns: int, n_chains: int, count: int, *, fast: bool) -> dict[str, object]:
    """The kernel's compile-time arguments."""
    return {
        "COUNT": count,
        "COLUMNS": n_columns,
        "SECOND": head.second_column,
        "NOISE": head.noise_column,
        "MINUS": head.minus,
        "CLAMPED": head.bounds != (float("-inf"), float("inf")),
        "LOW": head.bounds[0],
        "HIGH": head.bounds[1],
        "STREAM": int(Stream.TRANSITION),
        "INDEX": index_type(n_chains, count),
        "FAST": fast,
        "BLOCK": BLOCK,
    }


def fill_update(
    head: Head,
    seed: Tensor,
    step: Tensor,
    cursor: Tensor,
    table: Tensor,
    ids: Tensor,
    inputs: tuple[Tensor, Tensor],
    moved: Tensor,
    *,
    fast: bool,
) -> Callable[[], None]:
    """A function that writes ``moved [n, *event]`` for the step and the table's row of the time when it is called.

    Args:
        head: Which columns, which sign, which bounds.
        seed, step, cursor: 0-d int64.
        table: ``[rows, n_hyper]``.
        ids: int64 ``[n]``.
        inputs: The two terms, ``[n, *event]``.
        moved: ``[n, *event]``.
        fast: As in :func:`~compiled_ebm.backends.noise_kernel.fill_noise`.

    Raises:
        TypeError, ValueError: The tensors are of another dtype or layout than the kernel reads.
    """
    allowed = (torch.float32,) if fast else (torch.float32, torch.float64)
    for name, tensor in (("inputs", inputs[0]), ("inputs", inputs[1]), ("moved", moved), ("table", table)):
        if tensor.dtype not in allowed or tensor.dtype != moved.dtype:
            raise TypeError(f"{name}: expected one dtype, of {allowed} with fast={fast}, got {tensor.dtype}")
        if not tensor.is_contiguous():
            raise ValueError(f"{name}: expected a contiguous tensor, got strides {tensor.stride()}")
    n = ids.shape[0]
    count = moved.numel() // n
    known = update_constants(head, table.shape[1], n, count, fast=fast)
    programs = -(-n * -(-count // 4) // BLOCK)

    def fill() -> None:
        update_kernel[(programs,)](seed, step, cursor, table, ids, *inputs, moved, n, **known, num_warps=NUM_WARPS)

    return fill
