"""``compiled-ebm compare``, ``tune``, ``bench``, and what every command writes as JSON."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from compiled_ebm.backends.fused import toolchain
from compiled_ebm.cli import app

needs_compiler = pytest.mark.skipif(toolchain.why_unavailable() is not None, reason="needs a C++ compiler")
EAGER = ["--energy", "harmonic", "--device", "cpu", "--chains", "40", "--steps", "6"]


def run(*options: str) -> Result:
    return CliRunner().invoke(app, list(options))


@needs_compiler
def test_compare(tmp_path: Path) -> None:
    found = run(
        "compare", *EAGER, "--backends", "fused", "--against", "plain", "--rounds", "2", "--json", str(tmp_path / "a")
    )
    assert found.exit_code == 0, found.output
    assert "HarmonicModel (2)" in found.stdout and "│ fused" in found.stdout and "problem" not in found.stderr
    report = json.loads((tmp_path / "a").read_text())
    assert [entry["name"] for entry in report["entries"]] == ["eager", "fused", "plain"]
    assert report["n_chains"] == 40 and report["rounds"] == 2 and report["problems"] == []


def test_a_speed_that_is_not_reached_is_exit_code_1() -> None:
    pytest.importorskip("scipy")
    found = run("compare", *EAGER, "--backends", "auto", "--against", "none", "--min-speedup", "1e9", "--json", "-")
    assert found.exit_code == 1 and "expected at least 1e+09" in found.stderr
    assert [entry["name"] for entry in json.loads(found.stdout)["entries"]] == ["eager", "auto"]


def test_tune(tmp_path: Path) -> None:
    found = run(
        *("tune", "--energy", "harmonic", "--backend", "eager", "--device", "cpu", "--chains", "8,1e2"),
        *("--steps", "2,4", "--dtype", "float32", "--rounds", "1", "--json", str(tmp_path / "t.json")),
    )
    assert found.exit_code == 0, found.output
    assert "float32: take" in found.stdout
    points = json.loads((tmp_path / "t.json").read_text())["points"]
    assert [(p["n_chains"], p["n_steps"]) for p in points] == [(8, 2), (100, 2), (8, 4), (100, 4)]


def test_bench() -> None:
    found = run(
        "bench", "--energy", "harmonic,funnel", *EAGER[2:], "--backend", "eager", "--rounds", "2", "--json", "-"
    )
    assert found.exit_code == 0, found.output
    rows = json.loads(found.stdout)["rows"]
    assert [(row["energy"], row["event_shape"]) for row in rows] == [("harmonic", [2]), ("funnel", [10])]
    assert all(len(row["seconds"]) == 2 and row["chain_steps_per_second"] > 0 for row in rows)


def test_sample_and_explain_as_json(tmp_path: Path) -> None:
    found = run("sample", *EAGER, "--backend", "eager", "--no-save", "--json", "-")
    assert found.exit_code == 0, found.output
    report = json.loads(found.stdout)
    assert (
        (report["n_chains"], report["n_steps"]) == (40, 6)
        and report["n_failed"] == 0
        and len(report["dimensions"]) == 2
    )
    found = run("explain", "--energy", "harmonic", "--backend", "eager", "--json", str(tmp_path / "e.json"))
    assert found.exit_code == 0 and "backend        eager" in found.stdout
    facts = json.loads((tmp_path / "e.json").read_text())
    assert facts["backend"].startswith("eager") and "def forward" in facts["source"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("compare", "--backends", "quick"), "--backends: expected one of"),
        (("compare", "--against", "plain,numpy"), "--against: expected one of plain"),
        (("compare", "--dtype", "float16"), "--dtype: expected one of float32, float64"),
        (("compare", "--chains", "2"), "--chains: expected an integer from 8"),
        (("compare", "--json", "nowhere/at/all.json"), "--json: nowhere/at/all.json: expected an existing directory"),
        (("compare", "--energy", "nothing"), "--energy: expected a built-in energy"),
        (("tune", "--chains", "10,many"), "--chains: expected an integer of at least 1, got 'many'"),
        (("tune", "--steps", "0"), "--steps: expected an integer of at least 1"),
        (("tune", "--dtype", "int8"), "--dtype: expected one of"),
        (("tune", "--plot", "curve.txt"), "--plot: curve.txt: expected a file name that ends in"),
        (("tune", "--seconds", "-1"), "--seconds: expected a finite number above 0"),
        (("bench", "--backend", "quick"), "--backend: expected one of"),
        (("bench", "--rounds", "0"), "--rounds"),
        (("sample", "--json", "nowhere/at/all.json"), "--json: nowhere/at/all.json"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_mistakes_are_one_line_and_exit_code_2(options: tuple[str, ...], words: str) -> None:
    if "--plot" in options:
        pytest.importorskip("matplotlib")
    found = CliRunner(env={"COLUMNS": "200"}).invoke(app, list(options))
    assert found.exit_code == 2 and words in " ".join(found.stderr.split())
    assert found.stdout == ""
