"""The float32 arithmetic of the device functions that stand in for library ones, against functions of full accuracy.

The functions of ``functions.py`` themselves are run, on numpy's float32 arrays: one rounding for each operation. Of the
device's own instructions the inaccurate ones are emulated by what their documentation allows them to be wrong, up and
down: exp2 by two units in the last place, reciprocals by one; both take and give 0 for numbers below the normal ones.
"""

from __future__ import annotations

from collections.abc import Callable
from types import FunctionType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

special = pytest.importorskip("scipy.special")
pytest.importorskip("triton")

Single = NDArray[np.float32]
Double = NDArray[np.float64]

F = np.float32
EPS, TINY = float(np.finfo(F).eps), np.finfo(F).tiny


def normal(x: Single) -> Single:
    """Without subnormal numbers."""
    return np.where(np.abs(x) < TINY, x * F(0), x)


def instruction(exact: Callable[[Double], Double], ulps: int, wrong: int) -> Callable[[Single], Single]:
    """Rounded to float32, and then wrong by so many units in the direction ``wrong``."""

    def call(x: Single) -> Single:
        found = exact(normal(x).astype(np.float64)).astype(F)
        inexact = np.isfinite(found) & (found != 0) & (np.frexp(found)[0] != 0.5)  # powers of two are exact
        for _ in range(ulps if wrong else 0):
            found = np.where(inexact, np.nextafter(found, F(wrong * np.inf)), found)
        return normal(found)

    return call


def device_function(name: str, wrong: int = 0) -> Callable[[Single], Single]:
    """The function of that name, as its Python text, with numpy in the place of Triton's language."""
    from compiled_ebm.backends.fused.triton import functions

    language = SimpleNamespace(
        **{name: getattr(np, name) for name in ("where", "floor", "abs", "float64", "zeros_like")},
        log=instruction(np.log, 1, wrong),
        minimum=lambda x, y, propagate_nan=None: np.minimum(x, y),
        static_range=range,
        PropagateNan=SimpleNamespace(ALL=None),
    )
    library = SimpleNamespace(
        tan=lambda x: np.tan(x.astype(np.float64)).astype(F),
        sinpi=lambda x: np.sin(np.pi * x.astype(np.float64)).astype(F),
        copysign=np.copysign,
        rint=np.rint,
    )
    world: dict[str, Any] = {"tl": language, "libdevice": library, "float": float, "LOG2E": F(functions.LOG2E.value)}
    for known, value in vars(functions).items():
        if known.startswith("r_"):
            world[known] = FunctionType(value.fn.__code__, world)
    world["_exp2"] = instruction(np.exp2, 2, wrong)
    world["_reciprocal"] = instruction(lambda x: 1 / x, 1, -wrong)

    def call(x: Single) -> Single:
        with np.errstate(all="ignore"):
            found: Single = world[name](x)
        assert found.dtype == F  # as everything in between: numpy would not come back from float64
        return found

    return call


def dense(low: float, high: float, least: float = 1e-37) -> Single:
    """Evenly, and towards 0 by powers of two."""
    ends = [end for end in (low, high) if abs(end) >= least]
    small = [end * np.exp2(-np.linspace(0, np.log2(abs(end) / least), 20_001)) for end in ends]
    return np.concatenate([np.linspace(low, high, 400_001), *small]).astype(F)


def polygamma_of_reflected(x: Double) -> Double:
    return np.pi**2 / np.sin(np.pi * x) ** 2 - special.polygamma(1, 1 - x)


# Of each: where, the exact function, and the error that it may have in units of float32.
RELATIVE: dict[str, tuple[Single, Callable[[Double], Double], Callable[[Double], Double]]] = {
    # half a unit of the product with log2(e) and what float32 lacks of that, which the exponent magnifies
    "r_exp": (dense(-87, 88.7), np.exp, lambda x: 3 + 0.7 * np.abs(x)),
    "r_exp2": (dense(-126, 127.9), np.exp2, lambda x: 3 + 0 * x),
    "r_expm1": (dense(-87, 88.7), np.expm1, lambda x: 10 + 0.7 * np.abs(x)),
    "r_tanh": (dense(-30, 30), np.tanh, lambda x: 9 + 0 * x),
    "r_sigmoid": (dense(-86, 86), special.expit, lambda x: 4 + 0.7 * np.abs(np.minimum(x, 0))),
    "r_trigamma": (dense(1e-18, 50, 1e-18), lambda x: special.polygamma(1, x), lambda x: 6 + 0 * x),
}
MIXED: dict[str, tuple[Single, Callable[[Double], Double], Callable[[Double], Double]]] = {
    "r_digamma": (dense(1e-30, 50, 1e-30), special.digamma, lambda x: 5 + 0 * x),
}


@pytest.mark.parametrize("wrong", [-1, 0, 1])
@pytest.mark.parametrize("name", [*RELATIVE, *MIXED])
def test_on_dense_grids(name: str, wrong: int) -> None:
    """The error relative to the value, or to 1 beside it where the function has a zero of its own."""
    x, exact, units = (RELATIVE | MIXED)[name]
    wide = x.astype(np.float64)
    want = exact(wide)
    got = device_function(name, wrong)(x).astype(np.float64)
    size = np.abs(want) + (name in MIXED)
    excess = np.abs(got - want) / (EPS * size * units(wide))
    worst = int(excess.argmax())
    assert excess[worst] <= 1, (x[worst], got[worst], want[worst])
    assert excess[worst] > 0.1  # the bound is near


@pytest.mark.parametrize("name", ["r_digamma", "r_trigamma"])
def test_below_zero_between_the_poles(name: str) -> None:
    """By reflection; towards a pole the error of the position counts, which is none but for the product with pi."""
    x = np.concatenate([np.linspace(-30.3, 0, 100_001), -np.exp2(-np.linspace(1, 50, 5001))]).astype(F)
    wide = x.astype(np.float64)
    x = x[np.abs(wide - np.rint(wide)) > 1e-15]
    wide = x.astype(np.float64)
    want = special.digamma(wide) if name == "r_digamma" else polygamma_of_reflected(wide)
    got = device_function(name)(x).astype(np.float64)
    error = np.abs(got - want) / (EPS * (1 + np.abs(want)))
    worst = int(error.argmax())
    assert error[worst] <= 6, (x[worst], got[worst], want[worst])


INF, NAN = np.inf, np.nan
EDGES: dict[str, tuple[tuple[float, float], ...]] = {
    "r_exp": ((INF, INF), (-INF, 0), (0, 1), (-0.0, 1), (1e30, INF), (-1e30, 0), (1e-45, 1), (89, INF), (-104, 0)),
    "r_exp2": ((INF, INF), (-INF, 0), (0, 1), (3, 8), (-2, 0.25), (128, INF), (-150, 0)),
    "r_expm1": ((INF, INF), (-INF, -1), (0, 0), (-0.0, 0), (1e30, INF), (-1e30, -1), (1e-30, 1e-30), (1e-20, 1e-20)),
    "r_tanh": ((INF, 1), (-INF, -1), (0, 0), (-0.0, 0), (1e30, 1), (-1e30, -1), (1e-20, 1e-20), (-1e-20, -1e-20)),
    "r_sigmoid": ((INF, 1), (-INF, 0), (0, 0.5), (1e30, 1), (-1e30, 0), (1e-45, 0.5), (100, 1), (-104, 0)),
    "r_digamma": (
        (INF, INF),
        (-INF, NAN),
        (0, -INF),
        (-0.0, INF),
        (-1, NAN),
        (-2, NAN),
        (1e-10, -1e10),
        (-1e-10, 1e10),
    ),
    "r_trigamma": ((INF, 0), (0, INF), (-1, INF), (1e-10, 1e20), (-1e-10, 1e20), (1e-30, INF)),
}


@pytest.mark.parametrize("name", EDGES)
def test_edges(name: str) -> None:
    """Zeros, infinities and large numbers; what is not a number stays so."""
    function = device_function(name)
    for x, want in (*EDGES[name], (NAN, NAN)):
        (got,) = function(np.array([x], dtype=F))
        np.testing.assert_allclose(got, want, rtol=1e-6, err_msg=f"{name}({x})")


def test_negative_control_a_coefficient_that_is_wrong_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    from compiled_ebm.backends.fused.triton import functions

    monkeypatch.setattr(functions.LOG2E, "value", functions.LOG2E.value * (1 + 3e-7))
    with pytest.raises(AssertionError):
        test_on_dense_grids("r_exp", 0)
