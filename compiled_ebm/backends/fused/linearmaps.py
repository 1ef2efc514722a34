"""ATen operations that are linear in their input: convolutions, pools, resampling, padding; triangular solves."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from compiled_ebm.backends.fused.elements import Elements, Value
from compiled_ebm.backends.fused.operations import ROWS, Operand, Row, Unsupported, as_value, row
from compiled_ebm.backends.fused.program import Kind

__all__: list[str] = []

aten: Any = torch.ops.aten

_MOST_MAPPED = 2048
"""Elements on either side of a linear map that is found out element by element."""
_MOST_SOLVED = 256
"""Rows of a triangular matrix: each is a product of its own."""


# -- maps with known coefficients --------------------------------------------------------------------------------------


def _mapped(e: Elements, x: Operand, function: Callable[[Tensor], Tensor]) -> Value:
    """``function(x)``, linear with coefficients that the trace knows: its terms that are not zero, summed up."""
    value = as_value(e, x, Kind.REAL)
    if value.ids.numel() > _MOST_MAPPED:
        raise Unsupported(f"a linear map of {value.ids.numel()} elements, more than {_MOST_MAPPED}")
    units = torch.eye(value.ids.numel(), dtype=torch.float64).reshape(-1, *value.shape)
    images = torch.stack([function(unit) for unit in units])
    shape, matrix = images.shape[1:], images.reshape(len(units), -1).T
    if matrix.shape[0] > _MOST_MAPPED:
        raise Unsupported(f"a linear map to {matrix.shape[0]} elements, more than {_MOST_MAPPED}")
    terms = max(1, int((matrix != 0).sum(1).max()))
    places = (matrix != 0).to(torch.int8).argsort(dim=1, descending=True, stable=True)[:, :terms]
    factors = e.literal(matrix.gather(1, places), Kind.REAL)
    numbers = value.moved(value.ids.reshape(-1)[places])
    zero = e.literal(torch.zeros(()), Kind.REAL)
    products = e.pointwise("mul", Kind.REAL, numbers, factors).ids
    products = torch.where(matrix.gather(1, places) != 0, products, zero.ids)
    return Value(e.reduce("sum", Kind.REAL, Value(products, Kind.REAL)).ids.reshape(shape), Kind.REAL)


def _linear_map(target: Any) -> Row:
    return lambda e, x, *args, **kwargs: _mapped(e, x, lambda part: target(part, *args, **kwargs))


for _name in (
    "avg_pool1d avg_pool2d avg_pool3d _adaptive_avg_pool2d _adaptive_avg_pool3d adaptive_avg_pool1d "
    "upsample_nearest1d upsample_nearest2d upsample_nearest3d upsample_linear1d upsample_bilinear2d "
    "upsample_bicubic2d upsample_trilinear3d upsample_nearest1d_backward upsample_nearest2d_backward "
    "upsample_nearest3d_backward upsample_linear1d_backward upsample_bilinear2d_backward "
    "upsample_bicubic2d_backward upsample_trilinear3d_backward reflection_pad1d reflection_pad2d reflection_pad3d "
    "replication_pad1d replication_pad2d replication_pad3d"
).split():
    for _overload in getattr(aten, _name).overloads():
        if _overload in ("default", "vec"):
            ROWS[getattr(getattr(aten, _name), _overload)] = _linear_map(getattr(getattr(aten, _name), _overload))


def _linear_map_with_input(target: Any) -> Row:
    """Gradients that take the forward's input for its shape alone."""

    def mapped(e: Elements, grad: Operand, x: Operand, *args: Any, **kwargs: Any) -> Value:
        like = torch.zeros(x.shape, dtype=torch.float64)
        return _mapped(e, grad, lambda part: target(part, like, *args, **kwargs))

    return mapped


for _name in (
    "avg_pool2d_backward avg_pool3d_backward _adaptive_avg_pool2d_backward _adaptive_avg_pool3d_backward "
    "reflection_pad1d_backward reflection_pad2d_backward reflection_pad3d_backward "
    "replication_pad1d_backward replication_pad2d_backward replication_pad3d_backward"
).split():
    ROWS[getattr(aten, _name).default] = _linear_map_with_input(getattr(aten, _name).default)


# -- convolutions ------------------------------------------------------------------------------------------------------


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


# -- triangular solves -------------------------------------------------------------------------------------------------


@row(aten.linalg_solve_triangular.default)
def _solve_triangular(
    e: Elements, a: Operand, b: Operand, *, upper: bool, left: bool = True, unitriangular: bool = False
) -> Value:
    matrix, right = as_value(e, a, Kind.REAL), as_value(e, b, Kind.REAL)
    if not left:
        solved = _batched_solve(e, _turned(matrix), _turned(right), not upper, unitriangular)
        return _turned(solved)
    return _batched_solve(e, matrix, right, upper, unitriangular)


@row(aten.cholesky_solve.default)
def _cholesky_solve(e: Elements, b: Operand, factor: Operand, upper: bool = False) -> Value:
    right, matrix = as_value(e, b, Kind.REAL), as_value(e, factor, Kind.REAL)
    first, second = (_turned(matrix), matrix) if upper else (matrix, _turned(matrix))
    return _batched_solve(e, second, _batched_solve(e, first, right, False, False), True, False)


def _turned(value: Value) -> Value:
    return value.moved(value.ids.mT)


def _batched_solve(e: Elements, matrix: Value, right: Value, upper: bool, unit: bool) -> Value:
    n, columns = right.shape[-2:]
    batch = torch.broadcast_shapes(  # type: ignore[no-untyped-call]
        matrix.shape[:-2], right.shape[:-2]
    )
    matrices = matrix.ids.expand(*batch, n, n).reshape(-1, n, n)
    rights = right.ids.expand(*batch, n, columns).reshape(-1, n, columns)
    if n > _MOST_SOLVED:
        raise Unsupported(f"a triangular solve with {n} rows, more than {_MOST_SOLVED}")
    if (matrices == matrices[:1]).all() and len(matrices) > 1:  # the same for all: one solve with more columns
        wide = rights.movedim(0, -1).reshape(n, -1)
        solved = _solve(e, matrix.moved(matrices[0]), right.moved(wide), upper, unit)
        ids = solved.ids.reshape(n, columns, -1).movedim(-1, 0)
    else:
        ids = torch.stack(
            [_solve(e, matrix.moved(m), right.moved(r), upper, unit).ids for m, r in zip(matrices, rights, strict=True)]
        )
    return right.moved(ids.reshape(*batch, n, columns))


def _solve(e: Elements, matrix: Value, right: Value, upper: bool, unit: bool) -> Value:
    """By substitution. A constant matrix is inverted instead: outside the kernel, once a run, so that what is left of
    the solve is one product. That costs accuracy by the condition of the matrix, as every explicit inverse does."""
    if e.is_constant(matrix):
        n = matrix.shape[0]
        inverse = _substituted(e, matrix, e.literal(torch.eye(n), Kind.REAL), upper, unit)
        zero = e.literal(torch.zeros(()), Kind.REAL).ids
        kept = torch.ones(n, n, dtype=torch.bool)
        inverse = inverse.moved(torch.where(kept.triu() if upper else kept.tril(), inverse.ids, zero))
        return e.matmul(inverse, right)
    return _substituted(e, matrix, right, upper, unit)


def _substituted(e: Elements, matrix: Value, right: Value, upper: bool, unit: bool) -> Value:
    n = matrix.shape[0]
    solved: list[Tensor] = []
    order = list(range(n))[:: -1 if upper else 1]
    for step, i in enumerate(order):
        part = right.moved(right.ids[i : i + 1])
        if step:
            known = right.moved(torch.stack(solved))
            factors = matrix.moved(matrix.ids[i : i + 1, torch.tensor(order[:step])])
            part = e.pointwise("sub", Kind.REAL, part, e.matmul(factors, known))
        if not unit:
            part = e.pointwise("div", Kind.REAL, part, matrix.moved(matrix.ids[i, i]))
        solved.append(part.ids[0])
    return right.moved(torch.stack([solved[order.index(i)] for i in range(n)]))
