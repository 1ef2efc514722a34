"""Convolutions and their gradients, as products of windows and weights."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from compiled_ebm.backends.fused.elements import Elements, Value
from compiled_ebm.backends.fused.operations.table import Operand, Unsupported, as_value, row
from compiled_ebm.backends.fused.program import Kind

__all__: list[str] = []

aten: Any = torch.ops.aten


@row(aten.convolution.default)
def _convolution(
    e: Elements,
    x: Operand,
    weight: Operand,
    bias: Operand,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    transposed: bool,
    output_padding: Sequence[int],
    groups: int,
) -> Value:
    image, kernel = as_value(e, x, Kind.REAL), as_value(e, weight, Kind.REAL)
    if transposed:
        sizes = [
            (n - 1) * s - 2 * p + d * (k - 1) + o + 1
            for n, s, p, d, o, k in zip(
                image.shape[2:], stride, padding, dilation, output_padding, kernel.shape[2:], strict=True
            )
        ]
        out = _spread(e, image, kernel, sizes, stride, padding, dilation, groups)
    else:
        out = _correlated(e, image, kernel, stride, padding, dilation, groups)
    if bias is None:
        return out
    offsets = as_value(e, bias, Kind.REAL)
    shaped = offsets.moved(offsets.ids.reshape(-1, *(1,) * (image.ids.ndim - 2)))
    return e.pointwise("add", Kind.REAL, out, shaped)


@row(aten.convolution_backward.default)
def _convolution_backward(
    e: Elements,
    grad: Operand,
    x: Operand,
    weight: Operand,
    bias_sizes: Any,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    transposed: bool,
    output_padding: Sequence[int],
    groups: int,
    output_mask: Sequence[bool],
) -> tuple[Value | None, None, None]:
    """The gradient with respect to the image; that with respect to the weights is nobody's."""
    if any(output_mask[1:]):
        raise Unsupported("the gradient with respect to a convolution's weights")
    given, kernel = as_value(e, grad, Kind.REAL), as_value(e, weight, Kind.REAL)
    if transposed:
        return _correlated(e, given, kernel, stride, padding, dilation, groups), None, None
    return _spread(e, given, kernel, x.shape[2:], stride, padding, dilation, groups), None, None


def _correlated(
    e: Elements,
    image: Value,
    kernel: Value,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
) -> Value:
    """``[1, in, *size] * [out, in / groups, *k] -> [1, out, *size']``: a product of windows and weights."""
    zero = int(e.literal(torch.zeros(()), Kind.REAL).ids)
    ids = image.ids
    for d, p in enumerate(padding):
        ids = aten.constant_pad_nd.default(ids, [0, 0] * (ids.ndim - 3 - d) + [p, p], zero)
    for d, (k, s, gap) in enumerate(zip(kernel.shape[2:], stride, dilation, strict=True)):
        ids = ids.unfold(2 + d, gap * (k - 1) + 1, s)[..., ::gap]
    n_batch, spatial = ids.shape[0], ids.shape[2 : 2 + len(stride)]
    # [batch, in, *size', *k] -> [batch * size', in * k]
    ids = ids.movedim(1, 1 + len(stride)).reshape(n_batch * spatial.numel(), groups, -1)
    weights = kernel.ids.reshape(groups, kernel.shape[0] // groups, -1)
    parts = [
        e.matmul(Value(ids[:, g].contiguous(), Kind.REAL), Value(weights[g].T.contiguous(), Kind.REAL)).ids
        for g in range(groups)
    ]
    out = torch.cat(parts, 1).reshape(n_batch, *spatial, kernel.shape[0])
    return Value(out.movedim(-1, 1), Kind.REAL)


def _spread(
    e: Elements,
    grad: Value,
    kernel: Value,
    sizes: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
) -> Value:
    """The transpose of :func:`_correlated`, ``[1, out, *size'] -> [1, in, *size]``.

    Position q of the result gets tap t of position o where ``q + padding = o * stride + t * dilation``: for each
    remainder of ``q + padding`` by the stride other taps, so each is a product of its own.
    """
    zero = int(e.literal(torch.zeros(()), Kind.REAL).ids)
    n_batch, n_out = grad.shape[0], grad.shape[1]
    n_in = kernel.shape[1] * groups
    result = torch.full((n_batch, n_in, *sizes), zero, dtype=torch.int64)
    axes = [
        _phases(*numbers)
        for numbers in zip(grad.shape[2:], sizes, kernel.shape[2:], stride, padding, dilation, strict=True)
    ]
    padded = aten.constant_pad_nd.default(grad.ids, [0, 1] * len(axes), zero)
    for phases in itertools.product(*axes):
        made_sizes = [len(phase.positions) for phase in phases]
        if not math.prod(made_sizes):
            continue
        ids, weights = padded, kernel.ids
        for d, phase in enumerate(phases):
            chosen = ids.index_select(2 + 2 * d, phase.sources.reshape(-1))
            ids = chosen.unflatten(2 + 2 * d, phase.sources.shape)
            weights = weights.index_select(2 + d, torch.tensor(phase.taps, dtype=torch.int64))
        # [batch, out, q0, t0, q1, t1, ...] -> [batch * q, groups, out * t]
        last = 2 + 2 * len(axes)
        rows = ids.permute(0, *range(2, last, 2), 1, *range(3, last, 2)).reshape(n_batch * math.prod(made_sizes), -1)
        rows = rows.reshape(len(rows), groups, -1)
        weights = weights.reshape(groups, n_out // groups, kernel.shape[1], -1)
        parts = [
            e.matmul(
                Value(rows[:, g].contiguous(), Kind.REAL),
                Value(weights[g].movedim(1, -1).reshape(-1, kernel.shape[1]).contiguous(), Kind.REAL),
            ).ids
            for g in range(groups)
        ]
        made = torch.cat(parts, 1).reshape(n_batch, *made_sizes, n_in).movedim(-1, 1)
        corner: Any = (slice(None), slice(None), *_grid([phase.positions for phase in phases]))
        result[corner] = made
    return Value(result, Kind.REAL)


class _Phase(NamedTuple):
    """Positions along one axis that take the same taps; for each, and each tap, where it takes from."""

    positions: list[int]
    taps: list[int]
    sources: Tensor


def _phases(n: int, size: int, k: int, stride: int, padding: int, dilation: int) -> list[_Phase]:
    phases = []
    for remainder in range(stride):
        positions = [q for q in range(size) if (q + padding) % stride == remainder]
        taps = [t for t in range(k) if (t * dilation) % stride == remainder]
        sources = [[(q + padding - t * dilation) // stride for t in taps] for q in positions]
        inside = [[o if 0 <= o < n else n for o in row] for row in sources]  # n stands for what lies outside
        shape = (len(positions), len(taps))
        phases.append(_Phase(positions, taps, torch.tensor(inside, dtype=torch.int64).reshape(shape)))
    return phases


def _grid(axes: Sequence[Sequence[int]]) -> tuple[Tensor, ...]:
    tensors = [torch.tensor(axis, dtype=torch.int64) for axis in axes]
    return torch.meshgrid(*tensors, indexing="ij")
