"""Whether two samplers draw from the same law: moments and Kolmogorov-Smirnov, coordinate by coordinate."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

__all__ = ["LawComparison", "compare_laws", "require_scipy"]

_GRID = 1e-4
_MOST_COORDINATES = 64
"""Coordinates that are tested, evenly spread: more would cost power, not add any."""


@dataclass(frozen=True)
class LawComparison:
    """Tests of two samples of independent chains; each p-value is corrected for the number of coordinates.

    Args:
        n, m: Chains of either.
        coordinates: How many were tested.
        mean: p-value that all means are equal (Welch's t test).
        variance: p-value that all variances are (the same, of squares about the common mean).
        distribution: p-value that all marginals are (two-sample Kolmogorov-Smirnov).
        worst: Place of the coordinate, in the flattened event, and name of the test of the smallest p-value.
    """

    n: int
    m: int
    coordinates: int
    mean: float
    variance: float
    distribution: float
    worst: tuple[int, str]

    @property
    def p_value(self) -> float:
        """That of all three tests together, by Bonferroni."""
        return min(1.0, 3 * min(self.mean, self.variance, self.distribution))


def compare_laws(draws: Tensor, reference: Tensor) -> LawComparison:
    r"""Test whether independent draws are of one law.

    .. math:: t = \frac{\bar a - \bar b}{\sqrt{s_a^2 / n + s_b^2 / m}}, \qquad D = \sup_x |F_a(x) - F_b(x)|

    Args:
        draws: ``[n, *event]``, one of each chain; what is not finite counts as the largest number of all.
        reference: ``[m, *event]``, of chains with noise of their own.

    Raises:
        ImportError: Without scipy.
        ValueError: If the events differ, or one has fewer than eight chains.

    Source: Welch, "The generalization of Student's problem", 1947; Hodges, "The significance probability of the
    Smirnov two-sample test", 1958.

    Example:
        >>> import torch
        >>> generator = torch.Generator().manual_seed(0)
        >>> a, b = torch.randn(2, 500, 3, generator=generator)
        >>> compare_laws(a, b).p_value > 0.01, compare_laws(a, 1.5 * b).p_value < 1e-9
        (True, True)
    """
    stats = require_scipy()
    if draws.shape[1:] != reference.shape[1:]:
        raise ValueError(f"draws: expected [n, {list(reference.shape[1:])}], got {list(draws.shape)}")
    for name, given in (("draws", draws), ("reference", reference)):
        if given.shape[0] < 8:
            raise ValueError(f"{name}: expected at least 8 independent chains, got {given.shape[0]}")
    a, b = _columns(draws), _columns(reference)
    count = a.shape[1]
    places = np.unique(np.linspace(0, count - 1, min(count, _MOST_COORDINATES)).round().astype(int))
    found: dict[str, list[float]] = {"mean": [], "variance": [], "distribution": []}
    for place in places:
        one, other = a[:, place], b[:, place]
        centre = np.concatenate([one, other]).mean()
        found["mean"].append(_welch(stats, one, other))
        found["variance"].append(_welch(stats, (one - centre) ** 2, (other - centre) ** 2))
        found["distribution"].append(float(stats.ks_2samp(*_binned(one, other)).pvalue))
    corrected = {name: min(1.0, len(places) * min(values)) for name, values in found.items()}
    name = min(corrected, key=lambda name: min(found[name]))
    worst = int(places[int(np.argmin(found[name]))]), name
    return LawComparison(len(a), len(b), len(places), **corrected, worst=worst)


def _columns(draws: Tensor) -> Any:
    """``[n, d]`` float64; infinities and NaN as numbers, so that a sampler that gives them differs from one that does
    not."""
    flat = draws.detach().reshape(draws.shape[0], -1).to("cpu", torch.float64)
    largest = 1e3 * float(flat[flat.isfinite()].abs().max()) if bool(flat.isfinite().any()) else 1.0
    return flat.nan_to_num(nan=largest, posinf=largest, neginf=-largest).numpy()


def _binned(one: Any, other: Any) -> tuple[Any, Any]:
    """On a grid far finer than the spread: what is one value but for rounding, such as a bound, stays one value."""
    both = np.concatenate([one, other])
    step = _GRID * max(both.std(), _GRID * np.abs(both).max())
    return (one, other) if step == 0 else (np.floor(one / step + 0.37), np.floor(other / step + 0.37))


def _welch(stats: Any, one: Any, other: Any) -> float:
    size = max(np.abs(one).max(), np.abs(other).max())
    if max(one.std(), other.std()) <= _GRID * size:  # all the same but for rounding
        return float(abs(one.mean() - other.mean()) <= _GRID * size)
    return float(stats.ttest_ind(one, other, equal_var=False).pvalue)


def require_scipy() -> Any:
    """Its statistics; an ImportError that says what to install where it is not there."""
    try:
        from scipy import stats
    except ImportError as error:
        raise ImportError("comparing laws needs scipy: pip install scipy") from error
    return stats
