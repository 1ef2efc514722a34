"""``ce.tune``: where more chains, or more steps a run, bring nothing more."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import compiled_ebm as ce
from compiled_ebm.laboratory.tune import Point, Tuning


def made(points: list[tuple[int, int, float]], dtype: str = "float32") -> Tuning:
    """From (chains, steps, throughput)."""
    found = tuple(Point(dtype, n, k, n * k / rate, 1000 * n) for n, k, rate in points)
    return Tuning("made up", "Langevin", (2,), "fused", {"device": "cpu", "cpu": "one", "threads": 2}, found, ())


SATURATING = made(
    [(n, k, 1e6 * n / (n + 100) * k / (k + 3)) for k in (1, 10, 100) for n in (10, 100, 1000, 10_000, 100_000)]
)


def test_the_knee_is_where_nine_tenths_are_reached() -> None:
    """n / (n + 100) is 0.91 at 1,000 chains, 0.5 at 100."""
    assert [SATURATING.knee("float32", k).n_chains for k in (1, 10, 100)] == [1000, 1000, 1000]
    growing = made([(n, 1, float(n)) for n in (1, 10, 100)])
    assert growing.knee("float32", 1).n_chains == 100
    assert made([(n, 1, 5.0) for n in (1, 10, 100)]).knee("float32", 1).n_chains == 1


def test_the_suggestion_is_the_knee_over_chains_then_over_steps() -> None:
    """100 of 103 steps are the best; 10 of 13 are not nine tenths of it."""
    chosen = SATURATING.suggestion()
    assert (chosen.n_chains, chosen.n_steps) == (1000, 100)
    quick = made([(n, k, 1e6 * n / (n + 100)) for k in (1, 10) for n in (10, 1000)])
    assert (quick.suggestion().n_chains, quick.suggestion().n_steps) == (1000, 1)
    double = made([(10, 1, 1.0)], "float64")
    both = replace(quick, points=quick.points + double.points)
    assert both.suggestion().dtype == "float32" and both.suggestion("float64").n_chains == 10


def test_it_measures_what_it_is_asked_to(tmp_path: Path) -> None:
    told: list[str] = []
    found = ce.tune(
        ce.DoubleWellModel(),
        ce.MALA(0.1),
        event_shape=3,
        backend="eager",
        n_chains=(64, 16),
        n_steps=(2, 5),
        dtypes=(torch.float32, torch.float64),
        rounds=2,
        progress=told.append,
    )
    settings = [(p.dtype, p.n_chains, p.n_steps) for p in found.points]
    assert settings == [(d, n, k) for d in ("float32", "float64") for k in (2, 5) for n in (16, 64)]
    assert all(point.seconds > 0 for point in found.points) and found.left_out == ()
    assert found.backend == "eager" and any("round 2 of 2" in text for text in told)
    report = json.loads(found.to_json(tmp_path / "tuning.json"))
    assert report == json.loads((tmp_path / "tuning.json").read_text())
    assert report["points"][0]["chain_steps_per_second"] == found.points[0].chain_steps_per_second
    assert report["suggestion"]["n_chains"] == found.suggestion().n_chains
    text = str(found)
    assert "float64: take" in text and text.count("*") >= 4
    pytest.importorskip("matplotlib")
    found.plot(tmp_path / "tuning.svg")
    drawn = (tmp_path / "tuning.svg").read_text()
    assert all(f'id="{dtype}, {k} steps"' in drawn for dtype in ("float32", "float64") for k in (2, 5))


def test_what_would_take_too_long_is_left_out() -> None:
    def slow(x: Tensor) -> Tensor:
        for _ in range(50):
            x = torch.sin(x)
        return x.square().sum(-1)

    options: dict[str, Any] = {"event_shape": 2, "backend": "eager", "n_steps": (50,), "dtypes": (torch.float32,)}
    found = ce.tune(slow, ce.Langevin(0.01), n_chains=(8, 100_000), rounds=1, seconds=1.0, **options)
    assert [point.n_chains for point in found.points] == [8]
    [reason] = found.left_out
    assert "100,000 chains or more" in reason and reason in str(found)


def test_bad_arguments_are_named() -> None:
    good: dict[str, Any] = {"event_shape": 2, "backend": "eager", "n_chains": (8,), "n_steps": (1,)}
    for changed, error, words in [
        ({"n_chains": 8}, TypeError, r"n_chains: expected a sequence .* write \(8,\)"),
        ({"n_chains": (0,)}, ValueError, "n_chains"),
        ({"n_steps": ()}, TypeError, "n_steps"),
        ({"dtypes": torch.float32}, TypeError, "dtypes: expected a sequence"),
        ({"seconds": 0}, ValueError, "seconds: expected a finite number above 0"),
        ({"rounds": 0}, ValueError, "rounds"),
        ({"backend": "fast"}, ValueError, "backend"),
        ({"event_shape": None}, ValueError, "event_shape: expected the shape"),
    ]:
        with pytest.raises(error, match=words):
            ce.tune(lambda x: x.square().sum(-1), ce.Langevin(0.1), **(good | changed))
