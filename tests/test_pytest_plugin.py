"""The fixture ``sampler_benchmark``, in suites of others."""

from __future__ import annotations

import json
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from compiled_ebm.backends.fused import toolchain

pytest_plugins = "pytester"
needs_compiler = pytest.mark.skipif(toolchain.why_unavailable() is not None, reason="needs a C++ compiler")

HEAD = """
import time
from dataclasses import replace

import pytest
import torch
import compiled_ebm as ce
from compiled_ebm import builder


def energy(x):
    return (0.5 * x.square() + 0.3 * torch.cos(x)).sum(-1)


class Altered:
    def __init__(self, launch, before=lambda: None, shift=0):
        self._launch, self._before, self._shift = launch, before, shift

    def __getattr__(self, name):
        return getattr(self._launch, name)

    def __call__(self, chains, first_step, hyper, keep):
        self._before()
        self._launch(chains, first_step + self._shift, hyper, keep)


def plant(monkeypatch, **planted):
    real = builder.BACKENDS["fused"]
    altered = replace(real, compile=lambda p, e: Altered(real.compile(p, e), **planted))
    monkeypatch.setitem(builder.BACKENDS, "fused", altered)


OPTIONS = dict(n_chains=200, n_steps=20, event_shape=3, backend="fused", rounds=3)
"""


ROOT = Path(__file__).parent.parent
INSTALLED = any(found.name == "compiled_ebm" for found in entry_points(group="pytest11"))
PLUGIN = () if INSTALLED else ("-p", "compiled_ebm_pytest")
"""A bare checkout has no entry point."""


@pytest.fixture(autouse=True)
def found_from_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


def run(pytester: pytest.Pytester, body: str, *options: str) -> pytest.RunResult:
    pytester.makepyfile(HEAD + body)
    return pytester.runpytest_subprocess(*PLUGIN, "-p", "no:cacheprovider", *options)


@needs_compiler
def test_it_times_and_tells(pytester: pytest.Pytester, tmp_path: Path) -> None:
    body = """
def test_speed(sampler_benchmark):
    result = sampler_benchmark(energy, ce.HMC(0.1, n_leapfrog_steps=3), min_speedup_vs={"eager": 1.5}, **OPTIONS)
    assert result.state.x.shape == (200, 3) and result.state.step == 20
"""
    found = run(pytester, body, f"--benchmark-json={tmp_path / 'found.json'}")
    found.assert_outcomes(passed=1)
    [benchmark] = json.loads((tmp_path / "found.json").read_text())["benchmarks"]
    info, stats = benchmark["extra_info"], benchmark["stats"]
    assert stats["rounds"] == 3 and info["backend"] == "fused" and (info["n_chains"], info["n_steps"]) == (200, 20)
    assert info["chain_steps_per_second"] == pytest.approx(4000 / stats["median"])
    assert info["gradients_per_second"] == pytest.approx(3 * info["chain_steps_per_second"])
    assert info["build_seconds"] > 0.02 and info["speedup_vs_eager"] > 1.5 and info["drift_ulp"] < 1000


@pytest.mark.slow
@needs_compiler
def test_what_is_planted_fails_the_test(pytester: pytest.Pytester) -> None:
    body = """
def test_right(sampler_benchmark):
    sampler_benchmark(energy, ce.Langevin(0.01), min_speedup_vs="eager", **OPTIONS)


def test_a_sleep(sampler_benchmark, monkeypatch):
    plant(monkeypatch, before=lambda: time.sleep(0.2))
    sampler_benchmark(energy, ce.Langevin(0.01), min_speedup_vs="eager", **OPTIONS)


def test_noise_of_the_next_step(sampler_benchmark, monkeypatch):
    plant(monkeypatch, shift=1)
    sampler_benchmark(energy, ce.Langevin(0.01), **OPTIONS)


def test_too_high_a_floor(sampler_benchmark):
    sampler_benchmark(energy, ce.Langevin(0.01), min_speedup_vs={"plain": 1e6}, **OPTIONS)
"""
    found = run(pytester, body)
    found.assert_outcomes(passed=1, failed=3)
    found.stdout.re_match_lines(
        [
            r".*fused is 0\.\d+ times as fast as eager, expected at least 1 \(medians of 3 rounds.*",
            r".*fused leaves eager at step 1, chain \d+, by .* units in the last place.*",
            r".*times as fast as plain, expected at least 1e\+06.*",
        ]
    )


@pytest.mark.slow
def test_arguments_are_checked_before_work_starts(pytester: pytest.Pytester) -> None:
    body = """
@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"backend": "fast"}, "backend: expected one of fused"),
        ({"min_speedup_vs": "numpyro"}, "min_speedup_vs: expected of"),
        ({"min_speedup_vs": {"eager": 0}}, "min_speedup_vs: expected a finite number above 0"),
        ({"min_speedup_vs": 3}, "min_speedup_vs: expected a name"),
        ({"n_chains": 0}, "n_chains"),
        ({"rounds": 0}, "rounds"),
        ({"seed": 1.5}, "seed"),
        ({"min_speedup_vs": "jax", "backend": "slow"}, "backend"),
        ({"event_shape": None}, "event_shape"),
    ],
)
def test_bad(sampler_benchmark, changed, words):
    with pytest.raises((TypeError, ValueError), match=words):
        sampler_benchmark(energy, ce.Langevin(0.01), **(OPTIONS | changed))


def test_nothing_is_timed_where_that_is_asked_for(sampler_benchmark):
    result = sampler_benchmark(energy, ce.Langevin(0.01), **(OPTIONS | {"backend": "eager"}))
    assert result.state.step == 20
"""
    run(pytester, body, "--benchmark-disable").assert_outcomes(passed=10)


def test_suites_that_do_not_ask_for_it_do_not_wait_for_torch(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("import sys\n\ndef test_quick():\n    assert 'torch' not in sys.modules")
    found = pytester.runpytest_subprocess(*PLUGIN, "-p", "no:cacheprovider", "-W", "error")
    found.assert_outcomes(passed=1)


def test_without_pytest_benchmark_it_says_what_to_install(pytester: pytest.Pytester) -> None:
    body = """
def test_speed(sampler_benchmark):
    pass
"""
    found = run(pytester, body, "-p", "no:benchmark")
    found.assert_outcomes(errors=1)
    found.stdout.fnmatch_lines(["*sampler_benchmark needs pytest-benchmark: pip install pytest-benchmark*"])
