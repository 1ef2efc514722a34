"""Tests of the test: equal laws pass, and each way to differ is found by its own statistic."""

from __future__ import annotations

import sys

import pytest
import torch
from torch import Tensor

from compiled_ebm.laboratory.law import compare_laws

pytest.importorskip("scipy")


def normals(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_p_values_of_equal_laws_are_those_of_chance() -> None:
    """Of 200 pairs, some below 0.2 and few below 0.01: Bonferroni's are at most uniform."""
    found = [compare_laws(normals(2 * k, 60, 2, 3), normals(2 * k + 1, 80, 2, 3)).p_value for k in range(200)]
    below = [sum(p < level for p in found) for level in (0.01, 0.2)]
    assert below[0] <= 8 and 5 <= below[1] <= 64


@pytest.mark.parametrize(
    ("change", "test"),
    [
        (lambda x: x + 0.15 * torch.eye(6)[4].reshape(2, 3), "mean"),
        (lambda x: x * (1 + 0.2 * torch.eye(6)[2].reshape(2, 3)), "variance"),
        (lambda x: torch.where(torch.arange(6).reshape(2, 3) == 5, (x.sign() + 0.02 * x) / 1.02, x), "distribution"),
    ],
    ids=["mean", "variance", "distribution"],
)
def test_what_differs_is_found_and_named(change: object, test: str) -> None:
    a, b = normals(1, 4000, 2, 3), normals(2, 4000, 2, 3)
    assert compare_laws(a, b).p_value > 0.01
    found = compare_laws(change(a), b)  # type: ignore[operator]
    assert found.p_value < 1e-6 and found.worst[1] == test
    assert found.worst[0] == {"mean": 4, "variance": 2, "distribution": 5}[test]
    assert (found.n, found.m, found.coordinates) == (4000, 4000, 6)


def test_a_sampler_that_gives_nan_differs() -> None:
    a, b = normals(1, 500, 3), normals(2, 500, 3)
    a[::20, 1] = float("nan")
    assert compare_laws(a, b).p_value < 1e-4


def test_constants_and_large_events() -> None:
    ones = torch.ones(20, 2)
    assert compare_laws(ones, ones).p_value == 1.0 and compare_laws(ones, 2 * ones).p_value == 0.0
    assert compare_laws(normals(1, 40, 1000), normals(2, 40, 1000)).coordinates == 64


def test_what_cannot_be_compared_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="expected at least 8 independent chains, got 3"):
        compare_laws(normals(1, 3, 2), normals(2, 30, 2))
    with pytest.raises(ValueError, match=r"expected \[n, \[3\]\], got \[30, 2\]"):
        compare_laws(normals(1, 30, 2), normals(2, 30, 3))
    monkeypatch.setitem(sys.modules, "scipy", None)
    with pytest.raises(ImportError, match="pip install scipy"):
        compare_laws(normals(1, 30, 2), normals(2, 30, 2))
