"""The polynomials and split constants of ``lanes.h``, fitted.

Each polynomial is the least-squares fit at Chebyshev nodes, which is within a small factor of the best one.
Coefficients are rounded from the lowest up, and those left are fitted again to what the rounded ones leave over, so
that rounding them costs next to nothing.

`python -m compiled_ebm.backends.fused.fit` prints the tables; `--check` compares them with the header; `--write`
puts them into it.
"""

from __future__ import annotations

import argparse
import math
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mpmath import mp, mpf  # type: ignore[import-untyped]

__all__ = ["main", "tables"]

HEADER = Path(__file__).parent / "lanes.h"
BEGIN, END = "// fit.py: begin\n", "// fit.py: end\n"
DIGITS = 100  # the normal equations of degree 23 lose 40

Number = Any  # mpmath has no types


@dataclass(frozen=True)
class Fit:
    """One polynomial: the function, its interval, and its degree for each width of real."""

    function: Callable[[Number], Number]
    interval: Callable[[int], tuple[Number, Number]]
    degree: dict[int, int]
    meaning: str


def rounded(value: Number, bits: int, truncate: bool = False) -> float:
    """The nearest real of that width (toward zero if ``truncate``), as a Python float."""
    with mp.workprec(24 if bits == 32 else 53):
        nearest = float(+mpf(value))
    if bits == 32 and 0 < abs(nearest) < 2.0**-126:
        raise ValueError(f"{nearest}: below the normal numbers of float32")
    if truncate and abs(mpf(nearest)) > abs(value):
        step = math.ldexp(1.0, math.frexp(nearest)[1] - (24 if bits == 32 else 53))
        nearest -= math.copysign(step, nearest)
    return nearest


def literal(value: float, bits: int) -> str:
    """A C++ literal with exactly this value."""
    if bits == 32 and struct.unpack("f", struct.pack("f", value))[0] != value:
        raise ValueError(f"{value!r} is no float32")
    mantissa, exponent = value.hex().split("p")
    whole, _, fraction = mantissa.partition(".")
    fraction = fraction.rstrip("0")
    return f"{whole}{'.' + fraction if fraction else ''}p{exponent}" + ("f" if bits == 32 else "")


def polynomial(fit: Fit, bits: int) -> list[float]:
    """The rounded coefficients, lowest first: least squares at Chebyshev nodes, solved anew after each rounding."""
    low, high = fit.interval(bits)
    degree = fit.degree[bits]
    count = 2 * degree + 3
    nodes = [(low + high) / 2 + (high - low) / 2 * mp.cospi(mpf(2 * i + 1) / (2 * count)) for i in range(count)]
    values = [fit.function(x) for x in nodes]
    powers = [[x**k for x in nodes] for k in range(2 * degree + 1)]
    moments = [mp.fsum(row) for row in powers]
    right = [mp.fdot(row, values) for row in powers[: degree + 1]]
    done: list[float] = []
    for order in range(degree + 1):
        orders = range(order, degree + 1)
        matrix = mp.matrix([[moments[j + k] for k in orders] for j in orders])
        solution = mp.lu_solve(matrix, mp.matrix([right[j] for j in orders]))
        done.append(rounded(solution[0], bits))
        right = [value - done[-1] * moments[order + j] for j, value in enumerate(right)]
    return done


def around(function: Callable[[Number], Number], limit: Number) -> Callable[[Number], Number]:
    """The function with its limit at 0; the digits bear the cancellation beside it."""
    return lambda x: function(x) if abs(x) > mpf(10) ** -12 else limit


def fixed(low: Callable[[], Number], high: Callable[[], Number]) -> Callable[[int], tuple[Number, Number]]:
    return lambda bits: (low(), high())


ERFC_CENTRE = 4
ERFINV_END = {32: mpf(5), 64: mpf("6.25")}
INVERSE_ERFC_END = {32: mpf("10.3"), 64: mpf("27.4")}
ERFC_END = {32: mpf("10.5"), 64: mpf("27.5")}


def _erfc_scaled(t: Number) -> Number:
    a = ERFC_CENTRE * (1 + t) / (1 - t)
    return mp.erfc(a) * mp.exp(a * a) * (1 + 2 * a)


def _erfc_interval(bits: int) -> tuple[Number, Number]:
    return mpf(-1), (ERFC_END[bits] - ERFC_CENTRE) / (ERFC_END[bits] + ERFC_CENTRE)


def _stirling(z: Number) -> Number:
    x = 1 / mp.sqrt(z)
    return x * (mp.loggamma(x) - (x - mpf(1) / 2) * mp.log(x) + x - mp.log(2 * mp.pi) / 2)


def _digamma(z: Number) -> Number:
    x = 1 / mp.sqrt(z)
    return (mp.digamma(x) - mp.log(x) + 1 / (2 * x)) / z


def _trigamma(z: Number) -> Number:
    x = 1 / mp.sqrt(z)
    return (mp.psi(1, x) - 1 / x - 1 / (2 * x**2)) * x**3


def _erfcx_scaled(t: Number) -> Number:
    a = ERFC_CENTRE * (1 + t) / (1 - t)
    if a < 200:
        return mp.erfc(a) * mp.exp(a * a) * (1 + 2 * a)
    term = total = mpf(1)
    for k in range(1, 40):  # asymptotic: the terms left out are below 10^-100
        term *= -(2 * k - 1) / (2 * a * a)
        total += term
    return total * (1 + 2 * a) / (a * mp.sqrt(mp.pi))


def inverse_erfc(s: Number) -> Number:
    """y with erfc y = exp(-s^2), by Newton's method on the logarithm."""
    y = s * mpf("0.9")
    for _ in range(40):
        step = (mp.log(mp.erfc(y)) + s * s) * mp.erfc(y) * mp.exp(y * y) * mp.sqrt(mp.pi) / 2
        y += step
        if abs(step) < mpf(10) ** -50:
            break
    return y


def _erfinv(w: Number) -> Number:
    x = mp.sqrt(-mp.expm1(-w))
    return mp.erfinv(x) / x if w < 1 else inverse_erfc(mp.sqrt(w + mp.log1p(x))) / x  # 1 - x = exp(-w) / (1 + x)


def _fits() -> dict[str, Fit]:
    half_ln2 = fixed(lambda: -mp.log(2) / 2 * mpf("1.01"), lambda: mp.log(2) / 2 * mpf("1.01"))
    octave = fixed(lambda: mp.sqrt(mpf(1) / 2) - 1, lambda: mp.sqrt(2) - 1)
    eighth = fixed(lambda: mpf(0), lambda: (mp.pi / 4) ** 2 * mpf("1.01"))
    quarter = fixed(lambda: mpf(0), lambda: mpf(1) / 4)
    root = mp.sqrt
    return {
        "EXP": Fit(around(lambda r: (mp.exp(r) - 1 - r) / r**2, mpf(1) / 2), half_ln2, {32: 4, 64: 10},
                   "(exp r - 1 - r) / r^2"),
        "EXPM1": Fit(around(lambda r: (mp.exp(r) - 1 - r) / r**2, mpf(1) / 2), half_ln2, {32: 5, 64: 10},
                     "the same, for results near 0"),
        "EXP2": Fit(around(lambda r: (mpf(2) ** r - 1) / r, mp.log(2)),
                    fixed(lambda: mpf(-1) / 2, lambda: mpf(1) / 2), {32: 6, 64: 11}, "(2^r - 1) / r"),
        "LOG": Fit(around(lambda f: (mp.log1p(f) - f + f**2 / 2) / f**3, mpf(1) / 3), octave, {32: 7, 64: 18},
                   "(log(1 + f) - f + f^2 / 2) / f^3"),
        "LOG_TWICE": Fit(around(lambda f: -2 * (mp.log1p(f) - f) / f**2, mpf(1)), octave, {32: 7, 64: 18},
                         "-2 (log(1 + f) - f) / f^2"),
        "ATANH": Fit(around(lambda z: (2 * mp.atanh(root(z)) / root(z) - 2 - 2 * z / 3) / z**2, mpf(2) / 5),
                     fixed(lambda: mpf(0), lambda: mpf("0.0295")), {32: 2, 64: 8},
                     "(2 atanh s / s - 2 - 2 z / 3) / z^2, z = s^2"),
        "ATANH_THIRD": Fit(around(lambda z: (2 * mp.atanh(root(z)) / root(z) - 2) / z, mpf(2) / 3),
                           fixed(lambda: mpf(0), lambda: mpf(1) / 9), {32: 4, 64: 10},
                           "(2 atanh s / s - 2) / z, z = s^2"),
        "SIN": Fit(around(lambda z: (mp.sin(root(z)) / root(z) - 1) / z, mpf(-1) / 6), eighth, {32: 2, 64: 6},
                   "(sin x / x - 1) / z, z = x^2"),
        "COS": Fit(around(lambda z: (mp.cos(root(z)) - 1 + z / 2) / z**2, mpf(1) / 24), eighth, {32: 2, 64: 5},
                   "(cos x - 1 + z / 2) / z^2, z = x^2"),
        "SIN_QUARTER": Fit(around(lambda z: mp.sin(mp.pi / 2 * root(z)) / root(z), mp.pi / 2), quarter,
                           {32: 3, 64: 7}, "sin(pi x / 2) / x, z = x^2"),
        "COS_QUARTER": Fit(around(lambda z: (mp.cos(mp.pi / 2 * root(z)) - 1) / z, -(mp.pi**2) / 8), quarter,
                           {32: 3, 64: 7}, "(cos(pi x / 2) - 1) / z, z = x^2"),
        "ASIN": Fit(around(lambda z: (mp.asin(root(z)) / root(z) - 1) / z, mpf(1) / 6), quarter, {32: 5, 64: 12},
                    "(asin x / x - 1) / z, z = x^2"),
        "ATAN": Fit(around(lambda z: (mp.atan(root(z)) / root(z) - 1) / z, mpf(-1) / 3),
                    fixed(lambda: mpf(0), lambda: mp.tan(mp.pi / 8) ** 2 * mpf("1.01")), {32: 4, 64: 11},
                    "(atan x / x - 1) / z, z = x^2"),
        "ERF": Fit(around(lambda z: mp.erf(root(z)) / root(z) - 1, 2 / root(mp.pi) - 1),
                   fixed(lambda: mpf(0), lambda: mpf(1)), {32: 7, 64: 13}, "erf x / x - 1, z = x^2"),
        "ERF_TAIL": Fit(lambda a: mp.log(mp.erfc(a)), fixed(lambda: mpf(1), lambda: mpf(4)), {32: 9},
                        "log erfc a, 1 <= a <= 4"),
        "ERFC": Fit(_erfc_scaled, _erfc_interval, {32: 10, 64: 23},
                    "erfc(a) exp(a^2) (1 + 2 a), in t = (a - 4) / (a + 4)"),
        "LGAMMA": Fit(around(lambda f: mp.loggamma(2 + f) / f, 1 - mp.euler),
                      fixed(lambda: mpf(-1) / 2, lambda: mpf(1) / 2), {32: 9, 64: 19}, "lgamma(2 + f) / f"),
        "STIRLING": Fit(around(_stirling, mpf(1) / 12), fixed(lambda: mpf(0), lambda: mpf(1) / 64), {32: 2, 64: 7},
                        "x (lgamma x - (x - 1/2) log x + x - log(2 pi) / 2), z = 1 / x^2"),
        "DIGAMMA": Fit(around(_digamma, mpf(-1) / 12), fixed(lambda: mpf(0), lambda: mpf(1) / 64), {32: 2, 64: 7},
                       "(digamma x - log x + 1 / (2 x)) / z, z = 1 / x^2"),
        "TRIGAMMA": Fit(around(_trigamma, mpf(1) / 6), fixed(lambda: mpf(0), lambda: mpf(1) / 64), {32: 2, 64: 7},
                        "(trigamma x - 1 / x - 1 / (2 x^2)) x^3, z = 1 / x^2"),
        "ERFCX": Fit(_erfcx_scaled, fixed(lambda: mpf(-1), lambda: mpf(1) - mpf(10) ** -9), {32: 12, 64: 26},
                     "erfc(a) exp(a^2) (1 + 2 a), in t = (a - 4) / (a + 4), to the end"),
        "ERFINV": Fit(around(_erfinv, root(mp.pi) / 2), lambda bits: (mpf(0), ERFINV_END[bits]), {32: 9, 64: 22},
                      "erfinv(x) / x, w = -log(1 - x^2)"),
        "ERFINV_TAIL": Fit(inverse_erfc, lambda bits: (mpf(2), INVERSE_ERFC_END[bits]), {32: 6, 64: 6},
                           "y with erfc y = exp(-s^2), roughly"),
    }  # fmt: skip


def _splits() -> dict[str, tuple[Number, int]]:
    """Constants as sums of reals. Each part is cut toward zero, so that all parts of one constant have its sign."""
    return {
        "LN2": (mp.log(2), 2),
        "LN2_NEAREST": (mp.log(2), 1),
        "LOG2E": (1 / mp.log(2), 1),
        "LOG2E_LESS_1": (1 / mp.log(2) - 1, 1),
        "LOG10E": (1 / mp.log(10), 1),
        "LOG10_2": (mp.log10(2), 2),
        "PI": (mp.pi, 2),
        "HALF_PI": (mp.pi / 2, 3),
        "QUARTER_PI": (mp.pi / 4, 2),
        "TWO_OVER_PI": (2 / mp.pi, 1),
        "TWO_THIRDS": (mpf(2) / 3, 2),
        "TAN_EIGHTH": (mp.tan(mp.pi / 8), 1),
        "SQRT_HALF": (mp.sqrt(mpf(1) / 2), 1),
        "HALF_LOG_2PI": (mp.log(2 * mp.pi) / 2, 1),
        "LOG_PI": (mp.log(mp.pi), 1),
        "HALF_SQRT_PI": (mp.sqrt(mp.pi) / 2, 1),
        "SQRT_2": (mp.sqrt(2), 1),
    }


def table(bits: int) -> str:
    """C++ definitions of every constant for one width of real."""
    lines = []
    for name, (value, parts) in _splits().items():
        left = value
        for part in range(parts):
            last = part == parts - 1
            real = rounded(left, bits, truncate=not last)
            suffix = f"_{part + 1}" if parts > 1 else ""
            lines.append(f"constexpr real {name}{suffix} = {literal(real, bits)};")
            left -= mpf(real)
    # ln 2 cut short enough that its products with any exponent are exact, and the rest
    spare = 2 ** (15 if bits == 32 else 41)
    short = mp.floor(mp.log(2) * spare) / spare
    lines.append(f"constexpr real LN2_SHORT = {literal(rounded(short, bits), bits)};")
    lines.append(f"constexpr real LN2_REST = {literal(rounded(mp.log(2) - short, bits), bits)};")
    for name, fit in _fits().items():
        if bits in fit.degree:
            lines.append(f"// {fit.meaning}")
            body = ", ".join(literal(c, bits) for c in polynomial(fit, bits))
            lines.append(f"constexpr real {name}[] = {{{body}}};")
    return "\n".join(lines) + "\n"


def tables() -> str:
    """What stands between the marks in the header."""
    with mp.workdps(DIGITS):
        return f"#if REAL_BITS == 32\n{table(32)}#else\n{table(64)}#endif\n"


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m compiled_ebm.backends.fused.fit")
    parser.add_argument("--check", action="store_true", help="fail if the header holds other constants")
    parser.add_argument("--write", action="store_true", help="put the constants into the header")
    options = parser.parse_args(argv)
    fresh = tables()
    if not (options.check or options.write):
        print(fresh, end="")
        return 0
    text = HEADER.read_text()
    before, rest = text.split(BEGIN)
    held, after = rest.split(END)
    if options.write:
        HEADER.write_text(before + BEGIN + fresh + END + after)
    elif held != fresh:
        print(f"{HEADER}: the constants are not those that this script fits; run it with --write")
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
