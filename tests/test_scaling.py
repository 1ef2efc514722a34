"""`python -m benchmarks.scaling`: sizes, steps, exponents, and a small run."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from benchmarks import scaling


def test_an_exponent_is_the_slope_of_the_upper_part() -> None:
    """A fixed cost a step does not count where the rest has outgrown it; noise averages out."""
    sizes = [10.0**k for k in range(8)]
    assert scaling.exponent(sizes, [3e-9 * n**1.25 for n in sizes]) == pytest.approx(1.25)
    assert scaling.exponent(sizes, [1e-4 + 1e-9 * n for n in sizes]) == pytest.approx(0.85, abs=0.02)
    flat_below = [1e-5 if n < 1e5 else 1e-10 * n for n in sizes]
    assert scaling.exponent(sizes, flat_below) == pytest.approx(1.0)
    assert scaling.exponent(sizes[:6], flat_below[:6]) == pytest.approx(0.0, abs=1e-9)
    uneven = [n * math.exp(0.1 * (-1) ** k) for k, n in enumerate(sizes)]
    assert scaling.exponent(sizes, uneven) == pytest.approx(1.0, abs=0.05)


def test_one_size_has_no_exponent() -> None:
    assert scaling.exponent([10.0], [1.0]) is None
    assert scaling.exponent([1.0, 10_000.0], [1.0, 2.0]) is None


def row(over: str, contender: str, n_chains: int, dimension: int, seconds: float) -> scaling.Row:
    return {
        "over": over,
        "contender": contender,
        "n_chains": n_chains,
        "dimension": dimension,
        "n_steps": 10,
        "median": seconds,
    }


def test_curves_are_of_a_step_in_chains_and_of_a_chain_step_in_the_dimension() -> None:
    rows = [
        row("chains", "fused", 100, 2, 5.0),
        row("chains", "fused", 10, 2, 4.0),
        row("dimension", "fused", 50, 20, 3.0),
        {key: value for key, value in row("", "jax", 7, 2, 1.0).items() if key != "over"},  # as benchmarks.gpu has them
    ]
    assert scaling.curves(rows, "chains") == {"fused": [(10, 0.4), (100, 0.5)], "jax": [(7, 0.1)]}
    assert scaling.curves(rows, "dimension") == {"fused": [(20, pytest.approx(3.0 / 500))]}
    found = {(e["over"], e["contender"]): e["exponent"] for e in scaling.exponents(rows)}
    assert found["chains", "fused"] == pytest.approx(math.log10(1.25)) and found["dimension", "fused"] is None


def test_sizes_span_seven_decades_of_chains_and_four_of_the_dimension() -> None:
    sizes = scaling.sizes()
    chains = [work.n_chains for over, work in sizes if over == "chains"]
    dimensions = [work.event_shape for over, work in sizes if over == "dimension"]
    assert chains[0] == 1 and chains[-1] == 10**7 and dimensions[0] == (1,) and dimensions[-1] == (10**4,)
    for over, work in sizes:
        elements = work.n_chains * math.prod(work.event_shape)
        assert elements == 10**6 if over == "dimension" else elements <= 2 * 10**7
        assert len(work.event_shape) == 1 and (over == "dimension" or work.event_shape == (2,))


@pytest.mark.parametrize("contender", scaling._COSTS)
def test_larger_sizes_get_fewer_steps(contender: str) -> None:
    found = [scaling.steps(contender, 2 * 10**k, 0.5) for k in range(8)]
    assert found == sorted(found, reverse=True) and found[0] > found[-1] >= 3 and found[0] <= 100_000
    assert all(float(f"{n:.0e}") == n for n in found)


def test_a_small_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "scaling.json"
    options = scaling.arguments(["--quick", "--rounds", "2", "--contenders", "eager,fused", "--json", str(path)])
    report = scaling.measure_all(options)
    assert json.loads(path.read_text()) == report and list(tmp_path.iterdir()) == [path]
    assert [r["n_chains"] for r in report["scaling"] if r["over"] == "chains"] == [1, 1, 30, 30, 1000, 1000]
    assert {r["dimension"] for r in report["scaling"] if r["over"] == "dimension"} == {1, 10, 100}
    assert all(len(r["seconds"]) == 2 and r["build_seconds"] > 0 for r in report["scaling"])
    assert {(e["over"], e["contender"]) for e in report["exponents"]} == {
        (over, contender) for over in ("chains", "dimension") for contender in ("eager", "fused")
    }
    scaling.show(report)
    assert "exponent" in capsys.readouterr().out


def test_what_costs_too_much_is_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scaling, "_MOST_ELEMENTS", {"eager": 10})
    work = scaling.sizes(quick=True)[1][1]
    found = scaling.measure_size("chains", work, ["eager", "fused"], 1, 1e-3, lambda text: None)
    assert [r["contender"] for r in found] == ["fused"]


def test_a_mistake_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        scaling.main(["--contenders", "nobody"])
    assert "unknown contender 'nobody'" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        scaling.main(["--rounds", "0"])
    assert "--rounds must be at least 1" in capsys.readouterr().err
