"""Device functions that generated Triton kernels call: what Triton's own language lacks or names otherwise."""

from __future__ import annotations

import triton
import triton.language as tl
from triton.language.extra import libdevice

LOG2E = tl.constexpr(1.4426950408889634)


@triton.jit
def _exp2(x):
    """2^x by the device's instruction, within 2 ulp; results below 1e-38 are 0."""
    return tl.inline_asm_elementwise("ex2.approx.ftz.f32 $0, $1;", "=f,f", [x], dtype=tl.float32, is_pure=True, pack=1)


@triton.jit
def _reciprocal(x):
    """1 / x by the device's instruction, within 1 ulp."""
    return tl.inline_asm_elementwise("rcp.approx.ftz.f32 $0, $1;", "=f,f", [x], dtype=tl.float32, is_pure=True, pack=1)


@triton.jit
def to_bf16(x):
    return x.to(tl.bfloat16)


@triton.jit
def to_fp16(x):
    return x.to(tl.float16)


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
        joined = tl.permute(joined, (0, 2, 3, 1))
        return tl.reshape(joined, (4 * a.shape[0], a.shape[1]))
    else:
        return tl.reshape(joined, (a.shape[0], 4 * a.shape[1]))


@triton.jit
def r_exp(x):
    if x.dtype == tl.float64:
        return tl.exp(x)
    else:
        return _exp2(x * LOG2E)


@triton.jit
def r_exp2(x):
    if x.dtype == tl.float64:
        return tl.exp2(x)
    else:
        return _exp2(x)


@triton.jit
def r_expm1(x):
    if x.dtype == tl.float64:
        return libdevice.expm1(x)
    else:
        # Near 0 the series, 5e-8 of expm1; elsewhere exp loses two bits at most, and is there already where the
        # gradient has it.
        p = x * (1.0 / 720) + (1.0 / 120)
        p = p * x + (1.0 / 24)
        p = p * x + (1.0 / 6)
        p = p * x + 0.5
        near = p * (x * x) + x
        return tl.where(tl.abs(x) < 0.25, near, _exp2(x * LOG2E) - 1.0)


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
    """log(1 + x) for 0 <= x <= 1: 2 atanh s, s <= 1/3."""
    if x.dtype == tl.float64:
        return libdevice.log1p(x)
    else:
        s = x * _reciprocal(x + 2.0)
        z = s * s
        p = z * 0.23481141030788422 + 0.21642711758613586
        p = p * z + 0.28597643971443176
        p = p * z + 0.39999544620513916
        p = p * z + 0.6666666865348816
        return s * z * p + (s + s)


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
    if x.dtype == tl.float64:
        return libdevice.tanh(x)
    else:
        e = r_expm1(tl.minimum(x + x, 40.0, propagate_nan=tl.PropagateNan.ALL))
        return e * _reciprocal(e + 2.0)


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
    shift = tl.zeros_like(y)
    for _ in tl.static_range(6):
        small = y < 6.0
        shift += tl.where(small, 1.0 / y, 0.0)
        y = tl.where(small, y + 1.0, y)
    z = 1.0 / (y * y)
    series = z * (
        1.0 / 12 - z * (1.0 / 120 - z * (1.0 / 252 - z * (1.0 / 240 - z * (1.0 / 132 - z * (691.0 / 32760 - z / 12)))))
    )
    value = tl.log(y) - 0.5 / y - series - shift
    turned = value - 3.141592653589793 / libdevice.tan(3.141592653589793 * (x - libdevice.rint(x)))
    pole = (x == tl.floor(x)) & (x < 0.0)
    result = tl.where(reflect, tl.where(pole, float("nan"), turned), value)
    return tl.where(x == 0.0, libdevice.copysign(x * 0.0 + float("inf"), -x), result)


@triton.jit
def r_trigamma(x):
    """By the recurrence up to x > 6 and the asymptotic series; by reflection below 1/2."""
    reflect = x < 0.5
    y = tl.where(reflect, 1.0 - x, x)
    shift = tl.zeros_like(y)
    for _ in tl.static_range(6):
        small = y < 6.0
        shift += tl.where(small, 1.0 / (y * y), 0.0)
        y = tl.where(small, y + 1.0, y)
    z = 1.0 / (y * y)
    series = 1.0 / 6 - z * (
        1.0 / 30 - z * (1.0 / 42 - z * (1.0 / 30 - z * (5.0 / 66 - z * (691.0 / 2730 - z * 7 / 6))))
    )
    value = shift + 1.0 / y + 0.5 * z + z / y * series
    sine = libdevice.sinpi(x - libdevice.rint(x))
    return tl.where(reflect, 9.869604401089358 / (sine * sine) - value, value)


@triton.jit
def r_sigmoid(x):
    if x.dtype == tl.float64:
        return 1.0 / (1.0 + tl.exp(-x))
    else:
        return _reciprocal(1.0 + _exp2(x * -LOG2E))


@triton.jit
def r_softplus(x):
    """log(1 + exp(x)) with no threshold."""
    return tl.maximum(x, 0.0, propagate_nan=tl.PropagateNan.ALL) + r_log1p_unit(r_exp(-tl.abs(x)))


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
