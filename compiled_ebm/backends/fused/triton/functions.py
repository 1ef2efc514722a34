"""Device functions that generated Triton kernels call: what Triton's own language lacks or names otherwise."""

from __future__ import annotations

import triton
import triton.language as tl
from triton.language.extra import libdevice


@triton.jit
def product_of(x, y):
    return x * y


@triton.jit
def max_of(x, y):
    return tl.maximum(x, y, propagate_nan=tl.PropagateNan.ALL)


@triton.jit
def min_of(x, y):
    return tl.minimum(x, y, propagate_nan=tl.PropagateNan.ALL)


@triton.jit
def interleaved(a, b, c, d, CHAIN_LAST: tl.constexpr):
    """Values of blocks ``[.., blocks]`` as elements ``[.., 4 blocks]``; along the first dimension if so are they."""
    joined = tl.join(tl.join(a, c), tl.join(b, d))
    if CHAIN_LAST:
        blocks: tl.constexpr = a.shape[0]
        chains: tl.constexpr = a.shape[1]
        return tl.reshape(tl.permute(joined, (0, 2, 3, 1)), (4 * blocks, chains))
    else:
        chains: tl.constexpr = a.shape[0]
        blocks: tl.constexpr = a.shape[1]
        return tl.reshape(joined, (chains, 4 * blocks))


@triton.jit
def r_exp(x):
    return tl.exp(x)


@triton.jit
def r_exp2(x):
    return tl.exp2(x)


@triton.jit
def r_expm1(x):
    return libdevice.expm1(x)


@triton.jit
def r_log(x):
    return tl.log(x)


@triton.jit
def r_log2(x):
    return tl.log2(x)


@triton.jit
def r_log10(x):
    return libdevice.log10(x)


@triton.jit
def r_log1p(x):
    return libdevice.log1p(x)


@triton.jit
def r_log1p_unit(x):
    return libdevice.log1p(x)


@triton.jit
def r_sqrt(x):
    return libdevice.sqrt_rn(x)


@triton.jit
def r_rsqrt(x):
    return tl.rsqrt(x)


@triton.jit
def r_sin(x):
    return tl.sin(x)


@triton.jit
def r_cos(x):
    return tl.cos(x)


@triton.jit
def r_tan(x):
    return libdevice.tan(x)


@triton.jit
def r_asin(x):
    return libdevice.asin(x)


@triton.jit
def r_acos(x):
    return libdevice.acos(x)


@triton.jit
def r_atan(x):
    return libdevice.atan(x)


@triton.jit
def r_sinh(x):
    return libdevice.sinh(x)


@triton.jit
def r_cosh(x):
    return libdevice.cosh(x)


@triton.jit
def r_tanh(x):
    return libdevice.tanh(x)


@triton.jit
def r_asinh(x):
    return libdevice.asinh(x)


@triton.jit
def r_acosh(x):
    return libdevice.acosh(x)


@triton.jit
def r_atanh(x):
    return libdevice.atanh(x)


@triton.jit
def r_erf(x):
    return libdevice.erf(x)


@triton.jit
def r_erfc(x):
    return libdevice.erfc(x)


@triton.jit
def r_erfcx(x):
    return libdevice.erfcx(x)


@triton.jit
def r_erfinv(x):
    return libdevice.erfinv(x)


@triton.jit
def r_ndtri(x):
    return libdevice.normcdfinv(x)


@triton.jit
def r_lgamma(x):
    return libdevice.lgamma(x)


@triton.jit
def r_digamma(x):
    """By the recurrence up to x > 6 and the asymptotic series; by reflection below 0."""
    reflect = x <= 0.0
    y = tl.where(reflect, 1.0 - x, x)
    shift = y * 0.0
    for _ in tl.static_range(6):
        small = y < 6.0
        shift += tl.where(small, 1.0 / y, 0.0)
        y = tl.where(small, y + 1.0, y)
    z = 1.0 / (y * y)
    series = z * (
        1.0 / 12 - z * (1.0 / 120 - z * (1.0 / 252 - z * (1.0 / 240 - z * (1.0 / 132 - z * (691.0 / 32760 - z / 12)))))
    )
    value = tl.log(y) - 0.5 / y - series - shift
    turned = value - 3.141592653589793 / libdevice.tan(3.141592653589793 * (x - tl.floor(x)))
    pole = (x == tl.floor(x)) & (x < 0.0)
    result = tl.where(reflect, tl.where(pole, float("nan"), turned), value)
    return tl.where(x == 0.0, libdevice.copysign(x * 0.0 + float("inf"), -x), result)


@triton.jit
def r_trigamma(x):
    """By the recurrence up to x > 6 and the asymptotic series; by reflection below 1/2."""
    reflect = x < 0.5
    y = tl.where(reflect, 1.0 - x, x)
    shift = y * 0.0
    for _ in tl.static_range(6):
        small = y < 6.0
        shift += tl.where(small, 1.0 / (y * y), 0.0)
        y = tl.where(small, y + 1.0, y)
    z = 1.0 / (y * y)
    series = 1.0 / 6 - z * (
        1.0 / 30 - z * (1.0 / 42 - z * (1.0 / 30 - z * (5.0 / 66 - z * (691.0 / 2730 - z * 7 / 6))))
    )
    value = shift + 1.0 / y + 0.5 * z + z / y * series
    sine = libdevice.sinpi(x - tl.floor(x))
    return tl.where(reflect, 9.869604401089358 / (sine * sine) - value, value)


@triton.jit
def r_sigmoid(x):
    return 1.0 / (1.0 + tl.exp(-x))


@triton.jit
def r_softplus(x):
    return tl.maximum(x, 0.0, propagate_nan=tl.PropagateNan.ALL) + libdevice.log1p(tl.exp(-tl.abs(x)))


@triton.jit
def r_floor(x):
    return tl.floor(x)


@triton.jit
def r_ceil(x):
    return tl.ceil(x)


@triton.jit
def r_trunc(x):
    return libdevice.trunc(x)


@triton.jit
def r_round(x):
    return libdevice.rint(x)


@triton.jit
def r_sign(x):
    return tl.where(x > 0, x * 0 + 1, tl.where(x < 0, x * 0 - 1, x * 0))


@triton.jit
def r_abs(x):
    return tl.abs(x)


@triton.jit
def r_max(x, y):
    return tl.maximum(x, y, propagate_nan=tl.PropagateNan.ALL)


@triton.jit
def r_min(x, y):
    return tl.minimum(x, y, propagate_nan=tl.PropagateNan.ALL)


@triton.jit
def r_fmax(x, y):
    return tl.maximum(x, y)


@triton.jit
def r_fmin(x, y):
    return tl.minimum(x, y)


@triton.jit
def r_pow(x, y):
    return libdevice.pow(x, y)


@triton.jit
def r_atan2(x, y):
    return libdevice.atan2(x, y)


@triton.jit
def r_fmod(x, y):
    return libdevice.fmod(x, y)


@triton.jit
def r_remainder(x, y):
    """With the sign of the divisor."""
    rest = libdevice.fmod(x, y)
    return tl.where((rest != 0.0) & ((rest < 0.0) != (y < 0.0)), rest + y, rest)


@triton.jit
def r_hypot(x, y):
    return libdevice.hypot(x, y)


@triton.jit
def r_copysign(x, y):
    return libdevice.copysign(x, y)


@triton.jit
def idiv_floor(x, y):
    """0 for division by 0."""
    safe = tl.where(y == 0, 1, y)
    quotient = x // safe
    quotient = tl.where((quotient * safe != x) & ((x < 0) != (safe < 0)), quotient - 1, quotient)
    return tl.where(y == 0, 0, quotient)


@triton.jit
def idiv_trunc(x, y):
    """0 for division by 0."""
    return tl.where(y == 0, 0, x // tl.where(y == 0, 1, y))


@triton.jit
def imod_floor(x, y):
    return x - idiv_floor(x, y) * y
