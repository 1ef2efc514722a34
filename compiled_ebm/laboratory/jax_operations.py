"""What each core ATen operation of a traced chain is in JAX; products, movements and reductions of one chain."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import torch
from jax import lax
from jax.scipy import special
from torch import Tensor

__all__ = ["OPERATIONS", "dtype_of"]

_DTYPES = {
    torch.float32: jnp.float32,
    torch.float64: jnp.float64,
    torch.float16: jnp.float16,
    torch.bfloat16: jnp.bfloat16,
    torch.bool: jnp.bool_,
    torch.int64: jnp.int64,
    torch.int32: jnp.int32,
    torch.int16: jnp.int16,
    torch.int8: jnp.int8,
    torch.uint8: jnp.uint8,
}


def dtype_of(tensor: Tensor) -> Any:
    """JAX's name of a dtype; integers have 32 bits unless it is told to take 64."""
    return jax.dtypes.canonicalize_dtype(_DTYPES[tensor.dtype])


_SAME = (
    "abs ceil cos cosh exp exp2 expm1 floor isinf isnan log log10 log1p log2 sign signbit sin sinh sqrt tan tanh trunc"
)
_ARC = {f"a{name}": f"arc{name}" for name in ("cos", "cosh", "sin", "sinh", "tan", "tanh")}
_BINARY = {
    **{name: name for name in "maximum minimum fmax fmin hypot copysign fmod remainder".split()},
    **{f"logical_{name}": f"logical_{name}" for name in ("and", "or", "xor")},
    **{f"bitwise_{name}": f"bitwise_{name}" for name in ("and", "or", "xor")},
    **{"eq": "equal", "ne": "not_equal", "lt": "less", "le": "less_equal", "gt": "greater", "ge": "greater_equal"},
    **{"__lshift__": "left_shift", "__rshift__": "right_shift", "atan2": "arctan2"},
}


def _add(a: Any, b: Any, alpha: float = 1) -> Any:
    return a + (b if alpha == 1 else alpha * b)


def _sub(a: Any, b: Any, alpha: float = 1) -> Any:
    return a - (b if alpha == 1 else alpha * b)


def _div(a: Any, b: Any, rounding_mode: str | None = None) -> Any:
    if rounding_mode is None:
        return jnp.true_divide(a, b)
    return jnp.floor_divide(a, b) if rounding_mode == "floor" else jnp.trunc(jnp.true_divide(a, b))


def _pow(x: Any, exponent: Any) -> Any:
    """A whole exponent stays one: a product, where a float would be a logarithm."""
    whole = isinstance(exponent, float) and exponent.is_integer()
    return jnp.power(x, int(exponent) if whole else exponent)


def _clamp(x: Any, low: Any = None, high: Any = None) -> Any:
    x = x if low is None else jnp.maximum(x, low)
    return x if high is None else jnp.minimum(x, high)


def _round(x: Any, decimals: int = 0) -> Any:
    return jnp.round(x, decimals)


def _elu(x: Any, alpha: float = 1.0, scale: float = 1.0, input_scale: float = 1.0) -> Any:
    # the argument of expm1 is kept finite, or its branch would overflow where it is not taken
    return scale * jnp.where(x > 0, x, alpha * jnp.expm1(jnp.minimum(x, 0) * input_scale))


def _gelu(x: Any, approximate: str = "none") -> Any:
    return jax.nn.gelu(x, approximate=approximate == "tanh")


def _softplus(x: Any, beta: float = 1, threshold: float = 20) -> Any:
    return jax.nn.softplus(beta * x) / beta


def _axes(dims: int | Sequence[int] | None, x: Any) -> tuple[int, ...] | None:
    """Those to reduce over: none named are all."""
    if dims is None or (not isinstance(dims, int) and not dims) or not x.ndim:
        return None
    return (dims,) if isinstance(dims, int) else tuple(dims)


def _reduction(function: Callable[..., Any]) -> Callable[..., Any]:
    def reduced(x: Any, dims: Any = None, keepdim: bool = False, **_: Any) -> Any:
        return function(x, axis=_axes(dims, x), keepdims=keepdim)

    return reduced


def _var_mean(x: Any, dims: Any = None, correction: Any = 1, keepdim: bool = False) -> tuple[Any, Any]:
    axes = _axes(dims, x)
    variance = jnp.var(x, axis=axes, ddof=1 if correction is None else correction, keepdims=keepdim)
    return variance, jnp.mean(x, axis=axes, keepdims=keepdim)


def _vector_norm(x: Any, order: float = 2, dims: Any = None, keepdim: bool = False, **_: Any) -> Any:
    axes = _axes(dims, x)
    if order == math.inf:
        return jnp.max(jnp.abs(x), axis=axes, keepdims=keepdim)
    if order == -math.inf:
        return jnp.min(jnp.abs(x), axis=axes, keepdims=keepdim)
    if order == 0:
        return jnp.sum(x != 0, axis=axes, keepdims=keepdim)
    if order == 2:
        return jnp.sqrt(jnp.sum(x * x, axis=axes, keepdims=keepdim))
    return jnp.sum(jnp.abs(x) ** order, axis=axes, keepdims=keepdim) ** (1 / order)


def _best(values: Callable[..., Any], places: Callable[..., Any]) -> Callable[..., Any]:
    def found(x: Any, dim: int, keepdim: bool = False) -> tuple[Any, Any]:
        return values(x, axis=dim, keepdims=keepdim), places(x, axis=dim, keepdims=keepdim)

    return found


def _arg_best(places: Callable[..., Any]) -> Callable[..., Any]:
    return lambda x, dim=None, keepdim=False: places(x, axis=dim, keepdims=keepdim)


def _sort(x: Any, dim: int = -1, descending: bool = False, stable: bool = True) -> tuple[Any, Any]:
    order = jnp.argsort(x, axis=dim, stable=True, descending=descending)
    return jnp.take_along_axis(x, order, dim), order


def _stable_sort(x: Any, stable: bool = True, dim: int = -1, descending: bool = False) -> tuple[Any, Any]:
    return _sort(x, dim, descending)


def _top(x: Any, k: int, dim: int = -1, largest: bool = True, sorted: bool = True) -> tuple[Any, Any]:
    values, order = _sort(x, dim, largest)
    return tuple(lax.slice_in_dim(part, 0, k, axis=dim % x.ndim) for part in (values, order))  # type: ignore[return-value]


def _addmm(c: Any, a: Any, b: Any, beta: float = 1, alpha: float = 1) -> Any:
    return (c if beta == 1 else beta * c) + (a @ b if alpha == 1 else alpha * (a @ b))


def _softmax(x: Any, dim: int, half_to_float: bool) -> Any:
    return jax.nn.softmax(x, axis=dim)


def _log_softmax(x: Any, dim: int, half_to_float: bool) -> Any:
    return jax.nn.log_softmax(x, axis=dim)


def _layer_norm(x: Any, shape: Sequence[int], weight: Any, bias: Any, eps: float) -> tuple[Any, Any, Any]:
    axes = tuple(range(x.ndim - len(shape), x.ndim))
    mean = x.mean(axes, keepdims=True)
    rstd = lax.rsqrt(x.var(axes, keepdims=True) + eps)
    out = (x - mean) * rstd
    out = out if weight is None else out * weight
    return (out if bias is None else out + bias), mean, rstd


def _group_norm(
    x: Any, weight: Any, bias: Any, n: int, channels: int, size: int, groups: int, eps: float
) -> tuple[Any, Any, Any]:
    rows = x.reshape(n, groups, -1)
    mean = rows.mean(-1, keepdims=True)
    rstd = lax.rsqrt(rows.var(-1, keepdims=True) + eps)
    out = ((rows - mean) * rstd).reshape(x.shape)
    wide = (1, channels, *(1,) * (x.ndim - 2))
    out = out if weight is None else out * weight.reshape(wide)
    return (out if bias is None else out + bias.reshape(wide)), mean[..., 0], rstd[..., 0]


def _convolution(
    x: Any,
    weight: Any,
    bias: Any,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    transposed: bool,
    output_padding: Sequence[int],
    groups: int,
) -> Any:
    spatial = x.ndim - 2
    both = [(p, p) for p in padding]
    if transposed:
        inputs, outputs = weight.shape[:2]
        taps = weight.shape[2:]
        weight = jnp.flip(weight, tuple(range(2, weight.ndim))).reshape(groups, inputs // groups, outputs, *taps)
        weight = weight.swapaxes(1, 2).reshape(groups * outputs, inputs // groups, *taps)
        reach = [d * (k - 1) - p for d, k, p in zip(dilation, taps, padding, strict=True)]
        both = [(r, r + extra) for r, extra in zip(reach, output_padding, strict=True)]
    letters = "DHW"[3 - spatial :]
    out = lax.conv_general_dilated(
        x,
        weight,
        (1,) * spatial if transposed else tuple(stride),
        both,
        lhs_dilation=tuple(stride) if transposed else None,
        rhs_dilation=tuple(dilation),
        dimension_numbers=(f"NC{letters}", f"OI{letters}", f"NC{letters}"),
        feature_group_count=groups,
    )
    return out if bias is None else out + bias.reshape(1, -1, *(1,) * spatial)


def _convolution_backward(grad: Any, x: Any, weight: Any, bias_sizes: Any, *rest: Any) -> tuple[Any, Any, Any]:
    settings, wanted = rest[:6], rest[6]
    _, back = jax.vjp(lambda x, weight: _convolution(x, weight, None, *settings), x, weight)
    to_x, to_weight = back(grad)
    to_bias = grad.sum((0, *range(2, grad.ndim))) if wanted[2] else None
    return to_x, to_weight, to_bias


def _expand(x: Any, sizes: Sequence[int], implicit: bool = False) -> Any:
    lead = len(sizes) - x.ndim
    return jnp.broadcast_to(x, [x.shape[i - lead] if size == -1 else size for i, size in enumerate(sizes)])


def _select(x: Any, dim: int, index: int) -> Any:
    return lax.index_in_dim(x, index, dim % x.ndim, keepdims=False)


def _part(x: Any, dim: int, start: int | None, end: int | None, step: int) -> tuple[slice, ...]:
    return (*(slice(None),) * (dim % x.ndim), slice(start, end, step))


def _slice(x: Any, dim: int = 0, start: int | None = None, end: int | None = None, step: int = 1) -> Any:
    return x[_part(x, dim, start, end, step)]


def _slice_scatter(
    x: Any, source: Any, dim: int = 0, start: int | None = None, end: int | None = None, step: int = 1
) -> Any:
    return x.at[_part(x, dim, start, end, step)].set(source)


def _select_scatter(x: Any, source: Any, dim: int, index: int) -> Any:
    where = (*(slice(None),) * (dim % x.ndim), index)
    return x.at[where].set(source)


def _places(indices: Sequence[Any]) -> tuple[Any, ...]:
    return tuple(slice(None) if index is None else index for index in indices)


def _index_put(x: Any, indices: Sequence[Any], values: Any, accumulate: bool = False) -> Any:
    where = x.at[_places(indices)]
    return where.add(values) if accumulate else where.set(values)


def _along(x: Any, dim: int, index: Any) -> tuple[Any, ...]:
    """Where ``index`` points along one dimension and stays in place in the others."""
    places = list(jnp.indices(index.shape, sparse=True))
    places[dim % x.ndim] = index
    return tuple(places)


def _scatter(x: Any, dim: int, index: Any, source: Any) -> Any:
    return x.at[_along(x, dim, index)].set(_as_index(source, index))


def _scatter_add(x: Any, dim: int, index: Any, source: Any) -> Any:
    return x.at[_along(x, dim, index)].add(_as_index(source, index))


def _as_index(source: Any, index: Any) -> Any:
    """The part of the source that the index speaks of."""
    return source if not jnp.ndim(source) else source[tuple(slice(size) for size in index.shape)]


def _as_strided(x: Any, sizes: Sequence[int], strides: Sequence[int], offset: int | None = None) -> Any:
    place = jnp.full((), offset or 0)
    for size, stride in zip(sizes, strides, strict=True):
        place = place[..., None] + stride * jnp.arange(size)
    return x.reshape(-1)[place]


def _pad(x: Any, amounts: Sequence[int], value: float = 0.0) -> Any:
    pairs = [(amounts[i], amounts[i + 1], 0) for i in range(0, len(amounts), 2)]
    return lax.pad(x, jnp.asarray(value, x.dtype), [(0, 0, 0)] * (x.ndim - len(pairs)) + pairs[::-1])


def _split(x: Any, sizes: Sequence[int], dim: int = 0) -> list[Any]:
    ends = [sum(sizes[: i + 1]) for i in range(len(sizes) - 1)]
    return jnp.split(x, ends, axis=dim)


def _permute(x: Any, dims: Sequence[int]) -> Any:
    return jnp.transpose(x, [dim % x.ndim for dim in dims])


def _diagonal(x: Any, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Any:
    return jnp.diagonal(x, offset, dim1, dim2)


def _triangular(a: Any, b: Any, *, upper: bool, left: bool = True, unitriangular: bool = False) -> Any:
    batch = jnp.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    a, b = (jnp.broadcast_to(part, (*batch, *part.shape[-2:])) for part in (a, b))
    return lax.linalg.triangular_solve(a, b, left_side=left, lower=not upper, unit_diagonal=unitriangular)


def _full(sizes: Sequence[int], value: Any = 0, **_: Any) -> Any:
    return jnp.full(tuple(sizes), value)


OPERATIONS: dict[str, Callable[..., Any]] = {
    **{name: getattr(jnp, name) for name in _SAME.split()},
    **{name: getattr(jnp, other) for name, other in (_ARC | _BINARY).items()},
    "add": _add,
    "sub": _sub,
    "mul": jnp.multiply,
    "div": _div,
    "neg": jnp.negative,
    "reciprocal": jnp.reciprocal,
    "rsqrt": lax.rsqrt,
    "pow": _pow,
    "round": _round,
    "clamp": _clamp,
    "hardtanh": _clamp,
    "where": jnp.where,
    "bitwise_not": jnp.bitwise_not,
    "logical_not": jnp.logical_not,
    "erf": special.erf,
    "erfc": special.erfc,
    "erfinv": special.erfinv,
    "lgamma": special.gammaln,
    "digamma": special.digamma,
    "polygamma": special.polygamma,
    "special_ndtri": special.ndtri,
    "sigmoid": jax.nn.sigmoid,
    "relu": jax.nn.relu,
    "leaky_relu": lambda x, slope=0.01: jnp.where(x > 0, x, slope * x),
    "elu": _elu,
    "gelu": _gelu,
    "softplus": _softplus,
    "_softmax": _softmax,
    "_log_softmax": _log_softmax,
    "native_layer_norm": _layer_norm,
    "native_group_norm": _group_norm,
    "sum": _reduction(jnp.sum),
    "mean": _reduction(jnp.mean),
    "prod": _reduction(jnp.prod),
    "amax": _reduction(jnp.max),
    "amin": _reduction(jnp.min),
    "any": _reduction(jnp.any),
    "all": _reduction(jnp.all),
    "argmax": _arg_best(jnp.argmax),
    "argmin": _arg_best(jnp.argmin),
    "max.default": jnp.max,
    "min.default": jnp.min,
    "max.dim": _best(jnp.max, jnp.argmax),
    "min.dim": _best(jnp.min, jnp.argmin),
    "var": lambda *args, **kwargs: _var_mean(*args, **kwargs)[0],
    "var_mean": _var_mean,
    "linalg_vector_norm": _vector_norm,
    "cumsum": lambda x, dim, **_: jnp.cumsum(x, dim),
    "cumprod": lambda x, dim, **_: jnp.cumprod(x, dim),
    "logsumexp": _reduction(jax.nn.logsumexp),
    "logcumsumexp": lambda x, dim: lax.cumlogsumexp(x, dim % x.ndim),
    "sort.default": _sort,
    "sort.stable": _stable_sort,
    "topk": _top,
    "mm": jnp.matmul,
    "bmm": jnp.matmul,
    "mv": jnp.matmul,
    "dot": jnp.matmul,
    "addmm": _addmm,
    "addmv": _addmm,
    "baddbmm": _addmm,
    "convolution": _convolution,
    "convolution_backward": _convolution_backward,
    "linalg_solve_triangular": _triangular,
    "view": jnp.reshape,
    "reshape": jnp.reshape,
    "permute": _permute,
    "expand": _expand,
    "unsqueeze": jnp.expand_dims,
    "squeeze": lambda x, dims=None: jnp.squeeze(
        x, None if dims is None else tuple(d for d in _axes(dims, x) or () if x.shape[d] == 1)
    ),
    "select": _select,
    "slice": _slice,
    "slice_scatter": _slice_scatter,
    "select_scatter": _select_scatter,
    "flip": lambda x, dims: jnp.flip(x, tuple(dims)),
    "roll": lambda x, shifts, dims=(): jnp.roll(x, tuple(shifts), tuple(dims) or None),
    "repeat": lambda x, sizes: jnp.tile(x, sizes),
    "cat": lambda tensors, dim=0: jnp.concatenate(tensors, dim),
    "stack": lambda tensors, dim=0: jnp.stack(tensors, dim),
    "split_with_sizes": _split,
    "constant_pad_nd": _pad,
    "diagonal": _diagonal,
    "as_strided": _as_strided,
    "index": lambda x, indices: x[_places(indices)],
    "index_put": _index_put,
    "index_select": lambda x, dim, index: jnp.take(x, index, axis=dim),
    "embedding": lambda weight, index, *_: weight[index],
    "gather": lambda x, dim, index, sparse_grad=False: x[_along(x, dim, index)],
    "scatter": _scatter,
    "scatter_add": _scatter_add,
    "tril": jnp.tril,
    "triu": jnp.triu,
    "full": _full,
    "empty": _full,
    "full_like": lambda x, value, **_: jnp.full(x.shape, value),
    "scalar_tensor": lambda value, **_: jnp.asarray(value),
    "arange": lambda start, end, step=1, **_: jnp.arange(start, end, step),
    "clone": lambda x, **_: x,
    "_to_copy": lambda x, **_: x,
}
"""By the name of an operation, with that of its overload where overloads differ in their arguments' order.

What a value is cast to, the traced graph says: an operation here may give another dtype.
"""
