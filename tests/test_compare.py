"""``ce.compare``: what it tells of contenders that are right, and of those that are not."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import compiled_ebm as ce
from compiled_ebm import builder
from compiled_ebm.backends.fused import toolchain
from compiled_ebm.laboratory.builds import build_times, empty_caches
from compiled_ebm.laboratory.contenders import PEERS, Problem, contender
from compiled_ebm.laboratory.law import compare_laws
from compiled_ebm.laboratory.peaks import machine_peak, peak_bytes
from compiled_ebm.laboratory.shapes import event_shape_of
from compiled_ebm.laboratory.work import gradients_of, step_work

CPU = torch.device("cpu")
needs_compiler = pytest.mark.skipif(toolchain.why_unavailable() is not None, reason="needs a C++ compiler")


def rippled(x: Tensor) -> Tensor:
    return (0.5 * x.square() + 0.5 * torch.cos(3 * x)).sum(-1) + 0.1 * (x[:, 0] - x[:, 1]).square()


LANGEVIN = ce.Langevin(0.02)


def compared(move: ce.Transition = LANGEVIN, **options: Any) -> ce.Comparison:
    given: dict[str, Any] = {"n_chains": 200, "n_steps": 20, "rounds": 2, "event_shape": 2, "against": ()}
    return ce.compare(rippled, move, **(given | {"backends": ("fused",)} | options))


class Altered:
    """A backend's launch with something planted at each call."""

    def __init__(self, launch: Any, before: Callable[[], None] = lambda: None, shift: int = 0) -> None:
        self._launch, self._before, self._shift = launch, before, shift

    def __getattr__(self, name: str) -> Any:
        return getattr(self._launch, name)

    def __call__(self, chains: Any, first_step: int, hyper: Tensor, keep: Any) -> None:
        self._before()
        self._launch(chains, first_step + self._shift, hyper, keep)


def plant(monkeypatch: pytest.MonkeyPatch, backend: str, **planted: Any) -> None:
    real = builder.BACKENDS[backend]
    altered = replace(real, compile=lambda p, e: Altered(real.compile(p, e), **planted))
    monkeypatch.setitem(builder.BACKENDS, backend, altered)


@pytest.mark.slow
@needs_compiler
def test_right_backends_agree() -> None:
    report = compared(ce.MALA(0.1), against=("plain", "torchebm", "jax"))
    assert [entry.name for entry in report.entries][:2] == ["eager", "fused"]
    assert report["eager"].agreement is None and report["eager"].law is None
    fused = report["fused"]
    assert fused.agreement is not None and fused.agreement.agrees and fused.law is not None
    assert fused.law.p_value > 1e-6 and report.problems() == []
    assert "not for MALA" in report.left_out["plain"] and "like MALA" in report.left_out["torchebm"]
    assert "torchebm is left out" in str(report)


@needs_compiler
def test_figures_follow_from_the_median_and_the_counts() -> None:
    report = compared(ce.HMC(0.1, n_leapfrog_steps=3), rounds=3)
    figures, entry = report.figures("fused"), report["fused"]
    assert len(entry.seconds) == 3 and entry.median == sorted(entry.seconds)[1]
    assert figures["seconds_per_step"] == entry.median / 20
    assert figures["gradients_per_second"] == pytest.approx(3 * figures["chain_steps_per_second"])
    assert figures["flops_fraction"] == pytest.approx(
        figures["chain_steps_per_second"] * report.work.flops / report.peak.flops
    )
    assert figures["launches_per_step"] < 1 < report.figures("eager")["launches_per_step"]
    assert report.speedup("fused") == report["eager"].median / entry.median
    assert entry.cold_build_seconds > entry.build_seconds > 0
    assert 0 < report.timer_seconds < 1e-4
    with pytest.raises(KeyError, match="not asked for"):
        report["jax"]


@pytest.mark.slow
@needs_compiler
def test_a_planted_sleep_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    right = compared()
    assert right.problems() == [] and right.speedup("fused") > 1
    plant(monkeypatch, "fused", before=lambda: time.sleep(0.15))
    slow = compared()
    [problem] = slow.problems()
    assert problem.startswith("fused is 0.") and "times as fast as eager" in problem
    assert "PROBLEM: fused is" in str(slow)
    assert compared(min_speedup=1e6).problems() != []


@needs_compiler
def test_noise_of_the_next_step_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch, "fused", shift=1)
    report = compared()
    assert report["fused"].agreement is not None and not report["fused"].agreement.agrees
    assert any("fused leaves eager at step 1" in problem for problem in report.problems())
    law = report["fused"].law  # noise of another step is of the same law: this is what agreement is for
    assert law is not None and law.p_value > 1e-6


def test_another_law_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    from compiled_ebm.laboratory import loops

    real = loops.plain_loop
    hotter = ce.Langevin(0.02, noise_scale=1.5)
    monkeypatch.setattr(
        "compiled_ebm.laboratory.contenders._LOOPS",
        {"plain": (loops.why_no_loop, lambda energy, move, *rest: real(energy, hotter, *rest))},
    )
    report = compared(backends=(), against=("plain",), n_chains=2000)
    assert any(problem.startswith("plain draws from another law") for problem in report.problems())


def test_json_markdown_and_picture(tmp_path: Path) -> None:
    report = compared(backends=(), against=("plain",))
    text = report.to_json(tmp_path / "report.json")
    assert (tmp_path / "report.json").read_text() == text + "\n"
    found = json.loads(text)
    assert [entry["name"] for entry in found["entries"]] == ["eager", "plain"]
    assert found["entries"][1]["speedup"] == report.speedup("plain") and found["problems"] == []
    markdown = report.to_markdown()
    assert markdown.count("| plain |") == 2 and "units" not in markdown
    pytest.importorskip("matplotlib")
    report.plot(tmp_path / "report.png")
    assert (tmp_path / "report.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(ValueError, match="ends in"):
        report.plot(tmp_path / "report.txt")


LOOPED = [name for name in PEERS if name != "torch.compile"]


@pytest.mark.parametrize("name", [*LOOPED, pytest.param("torch.compile", marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "move", [ce.Langevin(0.05), ce.Langevin(0.05, clamp=(-1.0, 0.5)), ce.HMC(0.2, n_leapfrog_steps=4)], ids=str
)
def test_every_contender_draws_from_the_same_law(name: str, move: ce.Transition) -> None:
    """No one wins by doing less work; half the noise is seen."""
    if name == "jax":
        pytest.importorskip("jax")
    problem = Problem(rippled, move, (2,), 4000, 60, CPU)
    try:
        one = contender(name, problem, seed=5)
    except ce.UnsupportedEnergyError as error:
        assert "not for HMC" in str(error)
        return
    one.build()
    sampler = problem.sampler("eager")
    wanted = sampler.run(sampler.init(n_chains=4000, seed=6), 60).state.x
    assert compare_laws(one.run(), wanted).p_value > 1e-4
    less = ce.build_sampler(rippled, ce.Langevin(0.05, noise_scale=0.8), 2, backend="eager")
    assert compare_laws(one.run(), less.run(less.init(n_chains=4000, seed=7), 60).state.x).p_value < 1e-6


def test_a_gradient_of_ones_own_is_everyones() -> None:
    class Leaning(ce.BaseModel):
        """Its gradient leads elsewhere than its energy."""

        def forward(self, x: Tensor) -> Tensor:
            return 0.5 * x.square().sum(-1)

        def gradient(self, x: Tensor) -> Tensor:
            return x - 3.0

    for name in ("plain", "torchebm"):
        one = contender(name, Problem(Leaning(), ce.Langevin(0.5), (2,), 500, 30, CPU), seed=1)
        one.build()
        assert abs(float(one.run().mean()) - 3.0) < 0.5


@pytest.mark.parametrize("name", ["plain", "torchebm", "jax"])
def test_noise_is_not_the_start_again(name: str) -> None:
    if name == "jax":
        pytest.importorskip("jax")
    flat = Problem(lambda x: 0.0 * x.sum(-1), ce.Langevin(0.5), (3,), 2000, 1, CPU)
    one = contender(name, flat, seed=3)
    one.build()
    x0 = flat.start(3)
    noise = one.run() - x0
    assert abs(float(torch.corrcoef(torch.stack([noise.flatten(), x0.flatten()]))[0, 1])) < 5 / 6000**0.5
    assert abs(float(noise.std()) - 1.0) < 0.05


def test_chains_that_diverge_in_eager_and_in_a_peer_are_no_problem() -> None:
    def steep(x: Tensor) -> Tensor:
        return (x**4).sum(-1)

    with pytest.warns(ce.NonFiniteChainWarning):
        report = ce.compare(steep, ce.Langevin(0.1), 1000, 10, event_shape=2, backends=(), against=("plain",), rounds=1)
    assert report["eager"].not_finite > 0 and report["plain"].not_finite > 0
    assert report.problems() == [] and "Laws are of the others" in str(report)


def test_a_run_without_noise_is_of_one_law() -> None:
    """All chains from one point: one value, but for rounding."""
    x0 = torch.tensor([[0.1, 0.7]]).expand(64, 2)
    report = compared(ce.Langevin(0.02, noise_scale=0.0), n_chains=64, backends=(), against=("plain",), x0=x0)
    law = report["plain"].law
    assert law is not None and law.p_value == 1.0 and report.problems() == []


def test_where_jax_differentiates_otherwise_it_is_given_torchs_gradient() -> None:
    pytest.importorskip("jax")

    def bounded(x: Tensor) -> Tensor:
        return (5 * torch.nn.functional.hardtanh(x, -1.0, 1.0) + 0.5 * x.square()).sum(-1)

    move = ce.Langevin(0.05, clamp=(-1.0, 1.0))
    report = ce.compare(bounded, move, 2000, 20, event_shape=2, backends=(), against=("jax",), rounds=1)
    assert report.problems() == []


@pytest.mark.slow
def test_two_threads_compare_at_once() -> None:
    import os
    from concurrent.futures import ThreadPoolExecutor

    before = os.environ.get("COMPILED_EBM_CACHE")
    with ThreadPoolExecutor(2) as threads:
        found = list(threads.map(lambda _: compared(backends=(), against=("plain",)), range(2)))
    assert all([entry.name for entry in report.entries] == ["eager", "plain"] for report in found)
    assert os.environ.get("COMPILED_EBM_CACHE") == before


def test_ladders_are_whole() -> None:
    move = ce.ReplicaExchange(ce.MALA(0.05), temperatures=[1.0, 2.0, 4.0], swap_every=5)
    report = compared(move, n_chains=300, backends=(), against=("plain", "jax"))
    assert [entry.name for entry in report.entries] == ["eager"]
    with pytest.raises(ValueError, match="n_chains: expected a multiple of 3"):
        compared(move, n_chains=301)


def test_a_path_that_is_no_file_is_refused_before_it_is_replaced(tmp_path: Path) -> None:
    report = compared(backends=())
    with pytest.raises(ValueError, match="expected a file name, got a directory"):
        report.to_json(tmp_path)
    with pytest.raises(ValueError, match="expected an existing directory"):
        report.to_json(tmp_path / "nowhere" / "report.json")
    with pytest.raises(ValueError, match="got a device or a pipe"):
        report.to_json("/dev/null")


def test_bad_arguments_are_named() -> None:
    good: dict[str, Any] = {"n_chains": 100, "n_steps": 5, "event_shape": 2}
    for changed, error, words in [
        ({"backends": ("fast",)}, ValueError, "backends: expected of fused"),
        ({"against": ("numpyro",)}, ValueError, "against: expected of plain"),
        ({"against": 5}, TypeError, "against: expected a sequence of names, got int"),
        ({"backends": None}, TypeError, "backends: expected a sequence of names, got NoneType"),
        ({"against": "jax"}, TypeError, r"against: expected a sequence of names, got the text 'jax'; write \('jax',\)"),
        ({"n_chains": 3}, ValueError, "n_chains: expected an integer from 8"),
        ({"n_steps": 0}, ValueError, "n_steps"),
        ({"rounds": 0}, ValueError, "rounds"),
        ({"min_speedup": float("nan")}, ValueError, "min_speedup: expected a finite number above 0"),
        ({"seed": -1}, ValueError, "seed"),
        ({"dtype": torch.float16}, ValueError, "dtype: expected torch.float32 or torch.float64"),
        ({"x0": torch.zeros(7, 2)}, ValueError, "x0: expected 100 rows"),
        ({"event_shape": None}, ValueError, "event_shape: expected the shape of one position"),
    ]:
        with pytest.raises(error, match=words):
            ce.compare(rippled, ce.Langevin(0.1), **(good | changed))
    with pytest.raises(TypeError, match="transition"):
        ce.compare(rippled, 0.1, **good)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="energy"):
        ce.compare("rippled", ce.Langevin(0.1), **good)  # type: ignore[arg-type]


def test_the_shape_that_an_energy_tells() -> None:
    net = torch.nn.Sequential(torch.nn.Linear(5, 3), torch.nn.Tanh(), torch.nn.Linear(3, 1))
    assert event_shape_of(lambda x: net(x).squeeze(-1)) == (5,)
    assert event_shape_of(ce.FunnelModel()) == (10,)
    shaped = ce.DoubleWellModel()
    shaped.event_shape = (3, 4)
    assert event_shape_of(shaped) == (3, 4)
    with pytest.raises(ValueError, match="no attribute event_shape"):
        event_shape_of(lambda x: rippled(x))


MOVES = {
    "Langevin": (ce.Langevin(0.1), 1),
    "HMC": (ce.HMC(0.1, n_leapfrog_steps=7), 7),
    "RandomWalk": (ce.RandomWalk(0.1), 0),
    "MALA": (ce.MALA(0.1), 1),
    "UnderdampedLangevin": (ce.UnderdampedLangevin(0.1, 1.0), 1),
    "HMC with a mass": (ce.HMC(0.1, n_leapfrog_steps=3, mass=torch.tensor([1.0, 2.0, 3.0]).double()), 3),
}


@pytest.mark.parametrize("name", MOVES)
def test_gradients_of_a_step(name: str) -> None:
    assert gradients_of(MOVES[name][0], (3,)) == MOVES[name][1]


def test_work_of_a_gaussian() -> None:
    """d² multiply-adds for the gradient, and what a step adds to each of d coordinates."""
    energy = ce.GaussianModel(torch.zeros(50), torch.eye(50) + 0.1)
    work = step_work(ce.build_sampler(energy, ce.Langevin(0.1), 50, backend="eager").built({}, 8)[0])
    assert 2 * 50**2 <= work.flops <= 1.3 * 2 * 50**2
    assert work.normals == 50 and work.bytes == 2 * 4 * (50 + 1 + 50)


def test_work_that_no_kernel_takes() -> None:
    energy = lambda x: torch.fft.rfft(x @ torch.eye(8)).abs().square().sum(-1)  # noqa: E731
    work = step_work(ce.build_sampler(energy, ce.Langevin(0.01), 8, backend="eager").built({}, 8)[0])
    assert work.functions == {} and work.flops > 2 * 2 * 8 * 8


def test_the_machine_and_its_memory() -> None:
    peak = machine_peak(CPU, torch.float32)
    assert 1e8 < peak.flops < 1e15 and 1e8 < peak.bytes < 1e14
    found = peak_bytes(lambda: torch.zeros(20_000_000).add_(1), CPU)
    assert found is None or 70e6 < found < 170e6


@needs_compiler
def test_nothing_is_left_of_empty_caches(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import os

    monkeypatch.setenv("COMPILED_EBM_CACHE", str(tmp_path))
    before = {name: os.environ.get(name) for name in ("TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR")}
    with pytest.raises(ZeroDivisionError), empty_caches():
        folder = Path(os.environ["COMPILED_EBM_CACHE"])
        assert folder != tmp_path
        problem = Problem(rippled, ce.Langevin(0.1), (2,), 16, 2, CPU)
        _, (cold, warm) = build_times(lambda: contender("fused", problem, 0))
        raise ZeroDivisionError
    assert os.environ["COMPILED_EBM_CACHE"] == str(tmp_path) and not folder.exists()
    assert {name: os.environ.get(name) for name in before} == before
    assert cold > warm > 0 and not list(tmp_path.iterdir())
