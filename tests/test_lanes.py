"""The fused kernels' vector header: every function against a more precise one, Philox bits, normals, equal widths."""

import ctypes
import os
import platform
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import mpmath
import numpy as np
import pytest
import scipy.special
import scipy.stats
import torch

import compiled_ebm
from compiled_ebm import rng
from compiled_ebm.backends.fused import fit

HEADERS = Path(compiled_ebm.__file__).parent / "backends" / "fused"
FLAGS = ["-std=c++17", "-O3", "-ffp-contract=fast", "-fPIC", "-shared"]
NATIVE = ["-march=native", "-mprefer-vector-width=512"]
WARNINGS = ["-Wall", "-Wextra", "-Werror"]
DTYPES = {32: np.float32, 64: np.float64}

# Largest error in units in the last place, float32 and float64; those of digamma are of max(|y|, 1), for its zero.
BOUNDS: dict[str, tuple[float, float]] = {
    "abs": (0, 0), "neg": (0, 0), "sign": (0, 0), "floor": (0, 0), "ceil": (0, 0), "trunc": (0, 0), "round": (0, 0),
    "sqrt": (0.5, 0.51), "rsqrt": (1.5, 1.5),
    "exp": (1.5, 1.5), "exp2": (1.5, 1.5), "expm1": (2, 2), "log": (1.5, 1.5), "log2": (2.5, 2.5), "log10": (2.5, 2.5),
    "log1p": (1.5, 1.5), "sin": (2.5, 2), "cos": (2.5, 2), "tan": (4, 4), "asin": (2.5, 2.5), "acos": (2.5, 2.5),
    "atan": (2.5, 2.5), "sinh": (3, 3), "cosh": (3, 3), "tanh": (3, 3), "asinh": (3.5, 3.5), "acosh": (3.5, 3.5),
    "atanh": (3.5, 3.5), "erf": (2, 2), "erfc": (4, 3), "sigmoid": (3, 3), "softplus": (3, 3), "log1p_unit": (2, 2),
    "lgamma": (8, 6), "digamma": (9, 5), "trigamma": (4, 3), "erfcx": (4.5, 4), "erfinv": (3, 4), "ndtri": (4, 4),
    "pow": (1.5, 1.5), "atan2": (3, 3), "hypot": (1.5, 1.5), "fmod": (0, 0), "remainder": (0.51, 0.51),
    "copysign": (0, 0), "min": (0, 0), "max": (0, 0), "fmin": (0, 0), "fmax": (0, 0),
}  # fmt: skip
BINARY = ("pow", "atan2", "hypot", "fmod", "remainder", "copysign", "min", "max", "fmin", "fmax")
UNARY = tuple(name for name in BOUNDS if name not in BINARY)
REAL_BINARY_SOURCE = """
extern "C" void r_{0}_(const real* a, const real* b, real* y, long n) {{
    for (long i = 0; i < n; i += W) rstore(y + i, r_{0}(rload(a + i), rload(b + i)));
}}"""
REAL_UNARY_SOURCE = """
extern "C" void r_{0}_(const real* a, real* y, long n) {{
    for (long i = 0; i < n; i += W) rstore(y + i, r_{0}(rload(a + i)));
}}"""
COMPARISON_SOURCE = """
extern "C" void {0}_(const {1}* a, const {1}* b, real* y, long n) {{
    for (long i = 0; i < n; i += W) rstore(y + i, m_to_r({0}({2}load(a + i), {2}load(b + i))));
}}"""
INTEGER_SOURCE = """
extern "C" void {0}_(const long long* a, const long long* b, long long* y, long n) {{
    for (long i = 0; i < n; i += W) istore(y + i, {0}({1}));
}}"""
OTHER_SOURCE = """
extern "C" int bytes_() { return VECTOR_BYTES; }
extern "C" int fma_() {
#ifdef LANES_FMA
    return 1;
#else
    return 0;
#endif
}
extern "C" void finite_(const real* a, real* y, long n) {
    for (long i = 0; i < n; i += W) {
        R x = rload(a + i);
        R tags = rset(4) * m_to_r(risfinite(x)) + rset(2) * m_to_r(risinf(x)) + m_to_r(risnan(x));
        rstore(y + i, many(risnan(x)) && mall(risnan(x)) ? rset(9) : tags);
    }
}
extern "C" void convert_(const real* a, long long* truncated, real* back, long long* flags, long n) {
    for (long i = 0; i < n; i += W) {
        R x = rload(a + i);
        I k = r_to_i(x);
        istore(truncated + i, k);
        rstore(back + i, i_to_r(k));
        M m = mor(mand(r_to_m(x), i_to_m(k)), mand(mnot(r_to_m(x)), mset(true)));
        istore(flags + i, isel(m, m_to_i(mxor(m, mset(false))), iset(7)));
    }
}
extern "C" void widen_(const long long* a, real* y, long n) {
    for (long i = 0; i < n; i += W) rstore(y + i, i_to_r(iload(a + i)));
}
extern "C" void words_(uint64_t seed, uint32_t c0, uint32_t step, const long long* ids, uint32_t* out, long n) {
    PhiloxKeys keys = philox_keys(seed);
    for (long i = 0; i < n; i += W) {
        UL w[4][HALVES];
        philox(keys, chain_words(ids + i), c0, step, w);
        for (int j = 0; j < 4; j++)
            for (int lane = 0; lane < W; lane++)
                out[(i + lane) * 4 + j] = (uint32_t)w[j][lane % HALVES][lane / HALVES];
    }
}
extern "C" void normals_(uint64_t seed, uint32_t tag, uint32_t step, const long long* ids, real* out, long n, long e) {
    PhiloxKeys keys = philox_keys(seed);
    for (long i = 0; i < n; i += W) {
        ChainWords chains = chain_words(ids + i);
        for (long b = 0; b < e; b += 4) {
            R z[4];
            if (e <= 2) normals2(keys, chains, tag | (uint32_t)(b / 4), step, z);
            else normals4(keys, chains, tag | (uint32_t)(b / 4), step, z);
            for (long j = b; j < b + 4 && j < e; j++)
                for (int lane = 0; lane < W; lane++) out[(i + lane) * e + j] = z[j - b][lane];
        }
    }
}
extern "C" void paired_(uint64_t seed, uint32_t c0, uint32_t step, const long long* ids, real* out) {
    PhiloxKeys keys = philox_keys(seed);
    ChainWords chains = chain_words(ids);
    R same[8], first[4], next[4];
    normals8(keys, chains, c0, step, same);
    normals4(keys, chains, c0, step, first);
    normals4(keys, chains, c0 + 1, step, next);
    for (int i = 0; i < 4; i++) {
        rstore(out + i * W, same[i] - first[i]);
        rstore(out + (4 + i) * W, same[4 + i] - next[i]);
    }
}
extern "C" void uniforms_(uint64_t seed, uint32_t tag, uint32_t step, const long long* ids, real* out, long n) {
    PhiloxKeys keys = philox_keys(seed);
    for (long i = 0; i < n; i += W) {
        R u[4];
        uniforms4(keys, chain_words(ids + i), tag, step, u);
        for (int j = 0; j < 4; j++)
            for (int lane = 0; lane < W; lane++) out[(i + lane) * 4 + j] = u[j][lane];
    }
}
"""
INTEGER_BINARY = ("iadd", "isub", "imul", "imin", "imax", "iand", "ior", "ixor", "ishl", "ishr",
                  "idiv_floor", "idiv_trunc", "imod_floor")  # fmt: skip
INTEGER_UNARY = ("ineg", "iabs", "inot")
COMPARISONS = ("eq", "ne", "lt", "le", "gt", "ge")


def source() -> str:
    """A C function over arrays for every function of the header."""
    load = "iload({} + i)".format
    parts = ['#include "lanes.h"']
    parts += [REAL_UNARY_SOURCE.format(name) for name in UNARY]
    parts += [REAL_BINARY_SOURCE.format(name) for name in BINARY]
    parts += [COMPARISON_SOURCE.format("r" + name, "real", "r") for name in COMPARISONS]
    parts += [COMPARISON_SOURCE.format("i" + name, "long long", "i") for name in COMPARISONS]
    parts += [INTEGER_SOURCE.format(name, f"{load('a')}, {load('b')}") for name in INTEGER_BINARY]
    parts += [INTEGER_SOURCE.format(name, f"((void)b, {load('a')})") for name in INTEGER_UNARY]
    return "\n".join(parts) + OTHER_SOURCE


def vector_widths() -> list[int]:
    """The widths that this machine can run, widest first."""
    try:
        flags = set(Path("/proc/cpuinfo").read_text().split())
    except OSError:
        flags = set()
    widest = [64] if {"avx512f", "avx512dq"} <= flags else []
    return [*widest, *([32] if {"avx2", "fma"} <= flags else []), 16]


WIDTHS = vector_widths()
PORTABLE = 0
"""Stands among the widths for what every machine of this kind runs: 16 bytes, on x86 with neither FMA nor AVX."""
CASES = [(bits, width) for bits in (32, 64) for width in (*WIDTHS, PORTABLE)]


class Library:
    """The harness of one width, called with numpy arrays of any length."""

    def __init__(self, path: Path, bits: int) -> None:
        self.functions = ctypes.CDLL(str(path))
        self.real = DTYPES[bits]

    def __call__(self, name: str, *arrays: np.ndarray, out: type | None = None) -> np.ndarray:
        n = arrays[0].size
        padded = -(-n // 16) * 16
        held = [aligned(a, padded) for a in arrays]
        result = aligned(np.zeros(0, out or self.real), padded)
        getattr(self.functions, name + "_")(*(pointer(a) for a in (*held, result)), ctypes.c_long(padded))
        return result[:n]


def aligned(values: np.ndarray, n: int) -> np.ndarray:
    """A copy, filled up with ones, that starts at a multiple of 64 bytes."""
    raw = np.empty(n * values.itemsize + 64, np.uint8)
    start = -raw.ctypes.data % 64
    copy = raw[start : start + n * values.itemsize].view(values.dtype)
    copy[: values.size], copy[values.size :] = values, 1
    return copy


def pointer(array: np.ndarray) -> ctypes.c_void_p:
    return ctypes.c_void_p(array.ctypes.data)


@pytest.fixture(scope="module")
def libraries(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[int, int], Library]:
    compiler = os.environ.get("CXX") or shutil.which("g++")
    if not compiler:
        pytest.skip("no C++ compiler: set CXX or install g++")
    folder = tmp_path_factory.mktemp("lanes")
    (folder / "harness.cpp").write_text(source())

    def build(case: tuple[int, int]) -> Library:
        bits, width = case
        path = folder / f"lanes_{bits}_{width}.so"
        target = [*NATIVE, f"-DVECTOR_BYTES={width}"] if width else []
        given = [f"-DREAL_BITS={bits}", f"-I{HEADERS}", str(folder / "harness.cpp"), "-o", str(path)]
        command = [*compiler.split(), *FLAGS, *WARNINGS, *target, *given]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[:4000]
        return Library(path, bits)

    with ThreadPoolExecutor(2) as pool:
        return dict(zip(CASES, pool.map(build, CASES), strict=True))


SPECIAL = [0.0, 1.0, 2.0, 0.5, 1.5, 2.5, 3.0, 4.0, 8.0, 88.8, 89.5, 103.9, 709.8, 745.2, 1e5, np.inf, np.nan]


@np.errstate(all="ignore")
def specials(real: type) -> np.ndarray:
    info = np.finfo(real)
    both = np.array([*SPECIAL, info.tiny, info.smallest_subnormal, info.max, 2.0 ** (info.nmant), info.eps], real)
    near = np.concatenate([both, np.nextafter(both, real(np.inf)), np.nextafter(both, real(0))])
    return np.concatenate([near, -near])


SPANS = {
    "sin": (1e6, 1e9), "cos": (1e6, 1e9), "tan": (1e6, 1e9), "exp": (110, 760), "exp2": (160, 1100),
    "expm1": (110, 760), "sinh": (95, 720), "cosh": (95, 720), "sigmoid": (110, 760), "softplus": (110, 760),
    "erfc": (11, 28), "erf": (5, 7), "tanh": (12, 24), "asin": (1, 1), "acos": (1, 1), "atanh": (1, 1),
    "log": (4, 4), "log2": (4, 4), "log10": (4, 4), "log1p": (4, 4), "acosh": (4, 4), "lgamma": (30, 30),
    "digamma": (30, 30), "trigamma": (30, 30), "erfcx": (11, 28), "erfinv": (1, 1), "ndtri": (1, 1),
    "log1p_unit": (1, 1),
}  # fmt: skip


@np.errstate(all="ignore")
def inputs(name: str, bits: int, n: int, seed: int = 0) -> np.ndarray:
    """Evenly spaced, spread over all exponents, and the edges."""
    real, rng_ = DTYPES[bits], np.random.default_rng(seed)
    span = SPANS.get(name, (1e3, 1e3))[bits == 64]
    spread = rng_.integers(0, 1 << bits, n, dtype=np.uint64).astype(f"u{bits // 8}").view(real)
    if name in ("sin", "cos", "tan"):
        spread = spread[~(np.abs(spread) > span)]
    x = np.concatenate([np.linspace(-span, span, n), np.linspace(-2, 2, n // 4), spread]).astype(real)
    edges = specials(real)
    x = np.concatenate([x, edges[~(np.abs(edges) > span) | np.isinf(edges)] if name in SPANS else edges])
    return np.abs(x[~(np.abs(x) > 1)]) if name == "log1p_unit" else x


@np.errstate(all="ignore")
def two_inputs(name: str, bits: int, n: int) -> tuple[np.ndarray, np.ndarray]:
    real, rng_ = DTYPES[bits], np.random.default_rng(1)
    edges = specials(real)
    grid = [a.ravel() for a in np.meshgrid(edges, edges)]
    spread = [rng_.integers(0, 1 << bits, n, dtype=np.uint64).astype(f"u{bits // 8}").view(real) for _ in range(2)]
    plain = [rng_.normal(size=n) * scale for scale in (3, 10)]
    if name == "pow":  # results over the whole range, many bases beside 1
        plain[0] = np.exp(plain[0] * rng_.choice([1e-3, 1, 10], n))
        plain[1] = rng_.uniform(-1, 1, n) * (105 if bits == 32 else 746) / np.maximum(np.abs(np.log(plain[0])), 1e-9)
        whole = [-np.abs(rng_.normal(size=n)), np.rint(rng_.normal(size=n) * 20)]
        plain = [np.concatenate(pair) for pair in zip(plain, whole, strict=True)]
    parts = [np.concatenate([g, s, p.astype(real)]) for g, s, p in zip(grid, spread, plain, strict=True)]
    return parts[0], parts[1]


def exact_numbers(function: object, x: np.ndarray) -> np.ndarray:
    """A function of mpmath at 30 digits, as long doubles."""
    with mpmath.workdps(30):
        values = [function(mpmath.mpf(float(v))) if np.isfinite(v) else mpmath.nan for v in x]  # type: ignore[operator]
        return np.array([np.longdouble(mpmath.nstr(v, 25)) for v in values])


def softplus(x: np.ndarray) -> np.ndarray:
    return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))


def sigmoid(x: np.ndarray) -> np.ndarray:
    e = np.exp(-np.abs(x))
    return np.where(x < 0, e, 1) / (1 + e)


def remainder(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    m = np.fmod(x, y)
    return np.where((m != 0) & ((y < 0) != (m < 0)), m + y, m)


def exact_quantile(p: mpmath.mpf) -> mpmath.mpf:
    """ndtri(p), from the tail's own probability: 2 p - 1 would need 300 digits."""
    c = 2 * min(p, 1 - p)
    if not 0 < c <= 1:
        return mpmath.nan if c else mpmath.sign(p - 0.5) * mpmath.inf
    near = mpmath.erfinv(1 - c) if c > 1e-3 else fit.inverse_erfc(mpmath.sqrt(-mpmath.log(c)))
    return mpmath.sign(p - 0.5) * mpmath.sqrt(2) * near


REFERENCES = {
    "neg": np.negative, "round": np.rint, "sign": lambda x: np.where(np.isnan(x), 0, np.sign(x)) + 0.0,
    "rsqrt": lambda x: 1 / np.sqrt(x), "sigmoid": sigmoid, "softplus": softplus,
    "log1p_unit": np.log1p,
    "asin": np.arcsin, "acos": np.arccos, "atan": np.arctan, "asinh": np.arcsinh, "acosh": np.arccosh,
    "atanh": np.arctanh, "erf": scipy.special.erf, "erfc": scipy.special.erfc,
    "pow": np.power, "atan2": np.arctan2, "remainder": remainder, "min": np.minimum, "max": np.maximum,
    "lgamma": scipy.special.gammaln, "digamma": scipy.special.digamma, "ndtri": scipy.special.ndtri,
    "trigamma": lambda x: scipy.special.polygamma(1, x), "erfcx": scipy.special.erfcx,
    "erfinv": lambda x: np.copysign(scipy.special.erfinv(x), x),
}  # fmt: skip
EXACT = {"erf": mpmath.erf, "erfc": mpmath.erfc, "lgamma": lambda x: mpmath.re(mpmath.loggamma(x)),
         "digamma": mpmath.digamma, "trigamma": lambda x: mpmath.psi(1, x), "erfinv": mpmath.erfinv,
         "erfcx": lambda x: mpmath.erfc(x) * mpmath.exp(x * x), "ndtri": exact_quantile}  # fmt: skip
UNIT_FLOOR = {"digamma": 1.0}


def ulps(got: np.ndarray, want: np.ndarray, floor: float = 0.0) -> np.ndarray:
    """Errors in units in the last place of the wanted value; inf where only one is NaN or zeros differ in sign."""
    info, real = np.finfo(got.dtype), got.dtype.type
    with np.errstate(all="ignore"):
        rounded = want.astype(real)
        largest = want.dtype.type(info.max)
        past = largest + largest * want.dtype.type(info.epsneg)
        g = np.where(np.isinf(got) & np.isfinite(want), np.copysign(past, got), got.astype(want.dtype))
        w = np.where(np.isinf(rounded) & np.isfinite(want) & np.isinf(got), g, want)
        unit = np.spacing(np.maximum(np.minimum(np.abs(rounded), info.max), real(floor))).astype(want.dtype)
        error = np.abs(g - w) / unit
    error = np.where((got == rounded) & np.isinf(rounded) | np.isnan(got) & np.isnan(want), 0, error)
    error = np.where(np.isnan(error), np.inf, error)
    flipped = (got == 0) & (want == 0) & (np.signbit(got) != np.signbit(want))
    return np.where(flipped, np.inf, error).astype(np.float64)


@np.errstate(all="ignore")
def worst(name: str, bits: int, library: Library, n: int) -> tuple[float, list[float]]:
    """The largest error of a function and where it is."""
    wide = np.float64 if bits == 32 else np.longdouble
    exact = bits == 64 and name in EXACT
    if name in BINARY:
        x: tuple[np.ndarray, ...] = two_inputs(name, bits, n // 4)
    else:
        x = (inputs(name, bits, 1200 if exact else n),)
    if name in ("lgamma", "digamma", "trigamma"):  # below 0: their own test
        x = (x[0][~(x[0] <= 0)],)
    if name in ("min", "max", "fmin", "fmax"):  # which zero is the smaller, IEEE leaves open
        keep = (x[0] != 0) | (x[1] != 0)
        x = (x[0][keep], x[1][keep])
    got = library("r_" + name, *x)
    reference = REFERENCES.get(name) or getattr(np, name)
    want = reference(*(a.astype(np.float64 if exact else wide) for a in x)).astype(wide)
    if exact:
        finite = np.isfinite(x[0]) & (x[0] != 0)
        if name in ("erfinv", "ndtri", "erfcx"):  # infinite, and NaN
            finite &= np.isfinite(want)
        if name in ("erf", "erfc", "erfcx"):  # beyond, the limits, for which mpmath has no digits
            finite &= np.abs(x[0]) < 1e3
        want[finite] = exact_numbers(EXACT[name], x[0][finite])
    error = ulps(got, want, UNIT_FLOOR.get(name, 0.0))
    at = int(np.argmax(error))
    return float(error[at]), [float(a[at]) for a in x] + [float(got[at]), float(want[at])]


@pytest.mark.parametrize("width", [WIDTHS[0], PORTABLE])
@pytest.mark.parametrize("bits", [32, 64])
@pytest.mark.parametrize("name", BOUNDS)
def test_within_the_bound(name: str, bits: int, width: int, libraries: dict[tuple[int, int], Library]) -> None:
    error, where = worst(name, bits, libraries[bits, width], 100_000 if bits == 32 else 40_000)
    assert error <= BOUNDS[name][bits == 64], (error, where)


@pytest.mark.parametrize("width", [WIDTHS[0], PORTABLE])
@pytest.mark.parametrize("bits", [32, 64])
@pytest.mark.parametrize("name", ["lgamma", "digamma", "trigamma"])
def test_gamma_functions_below_zero(
    name: str, bits: int, width: int, libraries: dict[tuple[int, int], Library]
) -> None:
    """Between poles they are differences of larger numbers: the error is measured in their units."""
    x = np.concatenate([np.linspace(-30, 0, 1200)[:-1], [-1e-30, -1e-5, -1e4 - 0.25]]).astype(DTYPES[bits])
    x = x[(np.rint(x) != x) & ((np.abs(x) > 1e-15) | (name != "trigamma"))]  # whose square overflows float32
    got = libraries[bits, width]("r_" + name, x)
    want = exact_numbers(EXACT[name], x)
    scale = np.maximum(np.abs(want), 4 + np.log1p(np.abs(x)) * (np.abs(x) if name == "lgamma" else 4))
    assert np.max(np.abs(got - want) / scale) < 8 * np.finfo(DTYPES[bits]).eps
    poles = libraries[bits, width]("r_" + name, np.array([0.0, -0.0, -1.0, -7.0, -np.inf, np.nan], DTYPES[bits]))
    if name == "trigamma":  # torch's sines of integers are not 0
        np.testing.assert_array_equal(poles, [np.inf, np.inf, np.inf, np.inf, np.nan, np.nan])
        return
    expected = getattr(torch, name)(torch.tensor([0.0, -0.0, -1.0, -7.0, -np.inf, np.nan])).numpy()
    if name == "digamma":
        expected[1] = np.inf  # C; torch differs between its own paths
        expected[4] = np.nan
    np.testing.assert_array_equal(poles, expected)


@pytest.mark.skipif(platform.machine().lower() not in ("x86_64", "amd64"), reason="elsewhere every machine has FMA")
@pytest.mark.parametrize("bits", [32, 64])
def test_the_portable_code_is_another(bits: int, libraries: dict[tuple[int, int], Library]) -> None:
    """It has no FMA, without which some results round otherwise: that it is tested at all shows here."""
    functions = libraries[bits, PORTABLE].functions
    assert functions.fma_() == 0 and functions.bytes_() == 16
    if 32 in WIDTHS:
        x = np.linspace(-5, 5, 4096).astype(DTYPES[bits])
        assert (libraries[bits, 32]("r_exp", x) != libraries[bits, PORTABLE]("r_exp", x)).any()


@pytest.mark.parametrize(("bits", "width"), CASES)
def test_sines_far_out_stay_sines(bits: int, width: int, libraries: dict[tuple[int, int], Library]) -> None:
    x = inputs("abs", bits, 10_000)
    for name in ("r_sin", "r_cos"):
        y = libraries[bits, width](name, x)
        assert np.all((np.abs(y) <= 1.0000001) | ~np.isfinite(x))
        assert np.all(np.isnan(y) == ~np.isfinite(x))


@pytest.mark.parametrize("bits", [32, 64])
@pytest.mark.parametrize("width", WIDTHS[1:])
def test_all_widths_give_the_same_bits(bits: int, width: int, libraries: dict[tuple[int, int], Library]) -> None:
    widest, other = libraries[bits, WIDTHS[0]], libraries[bits, width]
    for name in BOUNDS:
        x = two_inputs(name, bits, 3000) if name in BINARY else (inputs(name, bits, 6000),)
        a, b = widest("r_" + name, *x), other("r_" + name, *x)
        same = (a.view(f"u{bits // 8}") == b.view(f"u{bits // 8}")) | (np.isnan(a) & np.isnan(b))
        assert same.all(), (name, [v[~same][:3] for v in (*x, a, b)])


@pytest.mark.parametrize("width", [WIDTHS[0], PORTABLE])
@pytest.mark.parametrize("bits", [32, 64])
@pytest.mark.parametrize("name", ["sign", "minimum", "maximum", "fmin", "fmax", "pow", "fmod", "remainder", "hypot"])
def test_edges_are_those_of_torch(name: str, bits: int, width: int, libraries: dict[tuple[int, int], Library]) -> None:
    values = np.array([0.0, -0.0, 1, -1, 2, -2, 0.5, -3, 3, np.inf, -np.inf, np.nan], DTYPES[bits])
    x, y = (a.ravel() for a in np.meshgrid(values, values))
    pair = (x,) if name == "sign" else (x, y)
    got = libraries[bits, width]("r_" + {"minimum": "min", "maximum": "max"}.get(name, name), *pair)
    want = getattr(torch, name)(*map(torch.from_numpy, pair)).numpy()
    np.testing.assert_allclose(got, want, rtol=4 * np.finfo(DTYPES[bits]).eps, atol=0)


def test_of_nan_is_nan(libraries: dict[tuple[int, int], Library]) -> None:
    """A clamp that turned NaN into its limit would hide a divergence."""
    for library in libraries.values():
        x = np.full(16, np.nan, library.real)
        for name in UNARY:
            assert np.isnan(library("r_" + name, x)).all() != (name == "sign"), name


@pytest.mark.parametrize(("bits", "width"), CASES)
def test_comparisons_and_classes(bits: int, width: int, libraries: dict[tuple[int, int], Library]) -> None:
    library, edges = libraries[bits, width], specials(DTYPES[bits])
    x, y = (a.ravel() for a in np.meshgrid(edges, edges))
    operations = dict(
        zip(COMPARISONS, (np.equal, np.not_equal, np.less, np.less_equal, np.greater, np.greater_equal), strict=True)
    )
    integers = np.random.default_rng(0).integers(-3, 3, (2, 1000)) * np.array([1, 1 << 40] * 500)
    for name, operation in operations.items():
        np.testing.assert_array_equal(library("r" + name, x, y), operation(x, y))
        np.testing.assert_array_equal(library("i" + name, *integers), operation(*integers))
    tags = 4.0 * np.isfinite(edges) + 2 * np.isinf(edges) + np.isnan(edges)
    np.testing.assert_array_equal(library("finite", edges), tags)
    np.testing.assert_array_equal(library("finite", np.full(16, np.nan, library.real)), np.full(16, 9))


@pytest.mark.parametrize(("bits", "width"), CASES)
def test_integers(bits: int, width: int, libraries: dict[tuple[int, int], Library]) -> None:
    library, generator = libraries[bits, width], np.random.default_rng(0)
    wide = generator.integers(-(2**63), 2**63 - 1, 2000, dtype=np.int64)
    small = generator.integers(-9, 9, 2000)
    edges = np.array([0, 1, -1, 63, 64, -64, 2**63 - 1, -(2**63)])
    x, y = (a.ravel() for a in np.meshgrid(edges, edges))
    x, y = np.concatenate([wide, small, wide, x]), np.concatenate([generator.permutation(wide), small, small, y])
    a, b = torch.from_numpy(x), torch.from_numpy(y)
    out_of_range = (y < 0) | (y > 63)
    whole = np.where((y == 0) | (y == -1), 1, y)  # both have their own line below
    want = {
        "iadd": a + b, "isub": a - b, "imul": a * b, "imin": torch.minimum(a, b), "imax": torch.maximum(a, b),
        "iand": a & b, "ior": a | b, "ixor": a ^ b, "ineg": -a, "iabs": a.abs(), "inot": ~a,
        "ishl": np.where(out_of_range, 0, x << np.where(out_of_range, 0, y)),
        "ishr": x >> np.where(out_of_range, 63, y),
    }  # fmt: skip
    with np.errstate(over="ignore"):
        negated = 0 - x
    divided = {"idiv_floor": x // whole, "imod_floor": x % whole,
               "idiv_trunc": torch.div(a, torch.from_numpy(whole), rounding_mode="trunc").numpy()}  # fmt: skip
    for name, value in divided.items():
        by_minus_one = np.zeros_like(x) if name == "imod_floor" else negated
        want[name] = np.where(y == 0, 0, np.where(y == -1, by_minus_one, value))
    for name, value in want.items():
        np.testing.assert_array_equal(library(name, x, y, out=np.int64), np.asarray(value), err_msg=name)


@pytest.mark.parametrize(("bits", "width"), CASES)
def test_conversions(bits: int, width: int, libraries: dict[tuple[int, int], Library]) -> None:
    library, generator = libraries[bits, width], np.random.default_rng(0)
    x = aligned(np.r_[generator.normal(size=40) * 10.0 ** generator.integers(-2, 18, 40), 0, -0.0, 0.4, -0.4, 1, -7.9,
                      2.5, -2.5].astype(library.real), 48)  # fmt: skip
    truncated, back, flags = (aligned(np.zeros(48, kind), 48) for kind in (np.int64, library.real, np.int64))
    library.functions.convert_(*map(pointer, (x, truncated, back, flags)), ctypes.c_long(48))
    np.testing.assert_array_equal(truncated, x.astype(np.int64))
    np.testing.assert_array_equal(back, truncated.astype(library.real))
    np.testing.assert_array_equal(flags, np.where((x == 0) | (truncated != 0), 1, 7))
    whole = generator.integers(-(2**63), 2**63 - 1, 1000, dtype=np.int64)
    np.testing.assert_array_equal(library("widen", whole), whole.astype(library.real))


def chains(n: int) -> np.ndarray:
    """Ids of which many need more than 32 bits."""
    ids = np.random.default_rng(3).integers(0, 2**63 - 1, n, dtype=np.int64)
    ids[: n // 2] = np.arange(n // 2)
    ids[n // 2 : n // 2 + 4] = [2**32 - 1, 2**32, 2**31, 2**63 - 1]
    return ids


@pytest.mark.parametrize(("bits", "width"), CASES)
def test_words_are_those_of_the_specification(bits: int, width: int, libraries: dict[tuple[int, int], Library]) -> None:
    ids, generator = chains(64), np.random.default_rng(4)
    for case in range(40):
        seed = int(generator.integers(-(2**63), 2**63 - 1)) if case else -1
        step = int(generator.integers(0, 2**32)) if case else 2**32 - 1
        block, stream = int(generator.integers(0, 9)), int(generator.integers(0, 128))
        out = np.zeros((64, 4), np.uint32)
        libraries[bits, width].functions.words_(
            ctypes.c_uint64(seed % 2**64), ctypes.c_uint32(block | stream << 24), ctypes.c_uint32(step),
            pointer(ids), pointer(out), ctypes.c_long(64),
        )  # fmt: skip
        want = rng.words(torch.tensor(seed), torch.tensor(step), torch.from_numpy(ids), block + 1, stream)
        np.testing.assert_array_equal(out, torch.stack(want, -1)[:, block].numpy())


def draw(library: Library, seed: int, step: int, ids: np.ndarray, event: int, stream: int = 0) -> np.ndarray:
    out = np.zeros((ids.size, event), library.real)
    library.functions.normals_(
        ctypes.c_uint64(seed % 2**64), ctypes.c_uint32(stream << 24), ctypes.c_uint32(step % 2**32), pointer(ids),
        pointer(out), ctypes.c_long(ids.size), ctypes.c_long(event),
    )  # fmt: skip
    return out


NORMAL_ERROR, NORMAL_DIFFERENCE = 2.0, 4.0
"""Of a pair's radius, in units of eps: to the exact pair of the same uniform, and to rng.py, whose angle is rounded.
An error of 5e-5 in one constant passes every test of moments, but not this."""


@pytest.mark.parametrize("event", [1, 2, 3, 4, 7, 128])
@pytest.mark.parametrize(("bits", "width"), CASES)
def test_normals_pointwise(bits: int, width: int, event: int, libraries: dict[tuple[int, int], Library]) -> None:
    ids, library = chains(1 << (12 if event < 128 else 9)), libraries[bits, width]
    got = draw(library, -7, 2**32 - 2, ids, event, stream=2)
    where = (torch.tensor(-7), torch.tensor(2**32 - 2), torch.from_numpy(ids), event, 2)
    dtype = torch.float32 if bits == 32 else torch.float64
    want = rng.normals(*where, dtype=dtype).numpy()
    words = [w.numpy() for w in rng.words(*where[:3], -(-event // 4), 2)]
    exact, radii = [], []
    for radial, angular in ((0, 1), (2, 3)):
        u = rng._unit(torch.from_numpy(words[radial]), dtype).double().numpy().astype(np.longdouble)
        radius = np.sqrt(-2 * np.log(u))
        angle = 2 * np.longdouble("3.14159265358979323846") * ((words[angular] + np.longdouble(0.5)) / 2**32)
        exact += [radius * np.cos(angle), radius * np.sin(angle)]
        radii += [radius, radius]
    exact_z, radius_z = (np.stack(parts, -1).reshape(ids.size, -1)[:, :event] for parts in (exact, radii))
    unit = radius_z * np.finfo(got.dtype).eps
    assert got.dtype == want.dtype
    assert np.all(np.abs(got - exact_z) <= NORMAL_ERROR * unit)
    assert np.all(np.abs(got - want) <= NORMAL_DIFFERENCE * unit)


@pytest.mark.parametrize("bits", [32, 64])
@pytest.mark.parametrize("width", WIDTHS[1:])
def test_normals_have_the_same_bits_at_all_widths(
    bits: int, width: int, libraries: dict[tuple[int, int], Library]
) -> None:
    ids = chains(1 << 12)
    for event in (2, 64):
        wide, narrow = (draw(libraries[bits, w], 11, 5, ids, event) for w in (WIDTHS[0], width))
        assert wide.tobytes() == narrow.tobytes()


@pytest.mark.parametrize(("bits", "width"), CASES)
def test_paired_draws_are_those_of_one(bits: int, width: int, libraries: dict[tuple[int, int], Library]) -> None:
    library = libraries[bits, width]
    out = aligned(np.ones(8 * 16, library.real), 8 * 16)
    library.functions.paired_(
        ctypes.c_uint64(5), ctypes.c_uint32(6), ctypes.c_uint32(7), pointer(chains(64)[16:].copy()), pointer(out)
    )
    assert not out[: 8 * library.functions.bytes_() * 8 // bits].any()


@pytest.mark.parametrize(("bits", "width"), CASES)
def test_uniforms_are_those_of_the_specification(
    bits: int, width: int, libraries: dict[tuple[int, int], Library]
) -> None:
    ids, library = chains(1 << 12), libraries[bits, width]
    out = np.zeros((ids.size, 4), library.real)
    library.functions.uniforms_(
        ctypes.c_uint64(3), ctypes.c_uint32(1 << 24), ctypes.c_uint32(9), pointer(ids), pointer(out),
        ctypes.c_long(ids.size),
    )  # fmt: skip
    dtype = torch.float32 if bits == 32 else torch.float64
    want = rng.uniforms(torch.tensor(3), torch.tensor(9), torch.from_numpy(ids), 4, dtype=dtype)
    np.testing.assert_array_equal(out, want.numpy())


SIGMAS = 5.0


def check_law(batches: int, library: Library) -> None:
    """Moments, tail counts and Kolmogorov-Smirnov of `batches` times 2^20 normals, within five standard errors."""
    limits = np.array([1.0, 2.0, 3.0, 4.0, 5.0])
    sums, tails, n = np.zeros(4), np.zeros((2, 5)), 0
    edges = scipy.stats.norm.ppf(np.arange(1, 4096) / 4096)
    counts = np.zeros(4096)
    for batch in range(batches):
        z = draw(library, 2026, batch, np.arange(1 << 16), 16).ravel().astype(np.float64)
        sums += [np.sum(z**k) for k in range(1, 5)]
        tails += [np.sum(z[:, None] > limits, 0), np.sum(z[:, None] < -limits, 0)]
        counts += np.bincount(np.searchsorted(edges, z), minlength=4096)
        n += z.size
    errors = np.sqrt(np.array([1, 2, 15, 96]) / n)
    assert np.all(np.abs(sums / n - [0, 1, 0, 3]) < SIGMAS * errors)
    p = scipy.stats.norm.sf(limits)
    assert np.all(np.abs(tails - n * p) < SIGMAS * np.sqrt(n * p) + 1)
    distance = np.max(np.abs(np.cumsum(counts) / n - np.arange(1, 4097) / 4096))
    assert distance * np.sqrt(n) < 2.7  # kolmogorov.sf(2.7) = 9e-7
    assert scipy.stats.chi2.sf(np.sum((counts - n / 4096) ** 2) / (n / 4096), 4095) > 1e-6


def test_normals_have_their_law(libraries: dict[tuple[int, int], Library]) -> None:
    check_law(4, libraries[32, WIDTHS[0]])


@pytest.mark.slow
def test_many_normals_have_their_law(libraries: dict[tuple[int, int], Library]) -> None:
    check_law(100, libraries[32, WIDTHS[0]])


def test_the_header_holds_the_fitted_constants() -> None:
    assert fit.main(["--check"]) == 0
