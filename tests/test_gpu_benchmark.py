"""`python -m benchmarks.gpu` without a GPU: what it measures, leaves out, reports and writes."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import compiled_ebm as ce
from benchmarks import contenders, gpu, table
from benchmarks.figures import Figure, Session, summary
from benchmarks.workloads import WORKLOADS, Workload
from compiled_ebm.laboratory.machine import environment
from compiled_ebm.laboratory.timing import Contender, wall_seconds

WORK = replace(WORKLOADS["double-well"], n_chains=16, n_steps=5)


class Clock:
    """Seconds that pass only where a contender says so."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Fake:
    """Takes the seconds that it is told to, or raises."""

    def __init__(
        self, name: str, clock: Clock, build: float, run: float, error: Exception | None = None, after: int = 0
    ) -> None:
        self.name, self.clock, self.times, self.error, self.after = name, clock, (build, run), error, after
        self.runs = 0

    def build(self) -> float:
        self.clock.now += self.times[0]
        if self.error is not None and self.after == 0:
            raise self.error
        return self.times[0]

    def run(self) -> Tensor:
        self.runs += 1
        if self.error is not None and self.runs > self.after:
            raise self.error
        self.clock.now += self.times[1]
        return torch.zeros(2)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    monkeypatch.setattr("compiled_ebm.laboratory.timing.time.sleep", lambda seconds: None)
    return Clock()


def session(
    path: Path, clock: Clock, known: dict[str, Callable[[Workload], Fake]], seconds: float = 1000.0, **options: Any
) -> Session:
    def timed(contender: Contender) -> float:
        begin = clock()
        contender.run()
        return clock() - begin

    settings: dict[str, Any] = {
        "rounds": 20,
        "make": lambda name, workload: known[name](workload),
        "missing": lambda name, workload: None if name in known else f"{name} is not installed",
        "timed": timed,
        "clock": clock,
        **options,
    }
    return Session({**environment(), "rounds": 20}, path / "report.json", seconds, **settings)


def written(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((path / "report.json").read_text())
    return found


def test_rows_ratios_and_what_is_missing(tmp_path: Path, clock: Clock) -> None:
    known = {
        "torchebm": lambda work: Fake("torchebm", clock, 1.0, 0.4),
        "fused": lambda work: Fake("fused", clock, 2.0, 0.1),
    }
    session(tmp_path, clock, known).run([Figure(WORK, ("torchebm", "jax", "fused"))])
    report = written(tmp_path)
    assert [(row["contender"], row["rounds"]) for row in report["rows"]] == [("torchebm", 20), ("fused", 20)]
    assert report["rows"][1]["ratio"] == pytest.approx(4.0)
    assert report["rows"][1]["build_seconds"] == 2.0
    assert report["rows"][1]["nanoseconds_per_chain_step"] == pytest.approx(0.1e9 / 80)
    assert report["left_out"] == ["jax on double-well: jax is not installed"] and report["errors"] == []
    assert "fused: 4.0 x TorchEBM's speed" in summary(report)


def test_refusals_are_left_out_and_exceptions_do_not_end_it(tmp_path: Path, clock: Clock) -> None:
    unavailable = ce.BackendUnavailableError("backend='fused': not on CUDA yet")
    unsupported = ce.UnsupportedEnergyError("energy: no")
    known = {
        "plain": lambda work: Fake("plain", clock, 1.0, 0.4),
        "fused": lambda work: Fake("fused", clock, 1.0, 0.1, unavailable),
        "inductor": lambda work: Fake("inductor", clock, 1.0, 0.1, unsupported),
        "jax": lambda work: Fake("jax", clock, 1.0, 0.1, ValueError("jax broke")),
    }
    session(tmp_path, clock, known).run([Figure(WORK, ("plain", "fused", "inductor", "jax"))])
    report = written(tmp_path)
    assert [row["contender"] for row in report["rows"]] == ["plain"]
    assert report["left_out"] == [
        "fused on double-well: backend='fused': not on CUDA yet",
        "inductor on double-well: energy: no",
    ]
    assert len(report["errors"]) == 1 and "ValueError: jax broke" in report["errors"][0]
    assert not gpu.succeeded(report)


def test_what_was_measured_is_written_though_something_fails_later(tmp_path: Path, clock: Clock) -> None:
    def fails_at_third_run(work: Workload) -> Fake:
        return Fake("plain", clock, 1.0, 0.4, RuntimeError("device lost"), after=2 if work is not WORK else 10**6)

    running = session(tmp_path, clock, {"plain": fails_at_third_run})
    running.run([Figure(WORK, ("plain",)), Figure(replace(WORK, name="other"), ("plain",)), Figure(WORK, ("plain",))])
    report = written(tmp_path)
    assert len(report["rows"]) == 2 and "device lost" in report["errors"][0]
    assert not list(tmp_path.glob(".*.tmp"))


def test_a_launch_that_fails_keeps_the_row(tmp_path: Path, clock: Clock) -> None:
    def launch(contender: Contender, rounds: int) -> None:
        raise RuntimeError("no launch")

    known = {"plain": lambda work: Fake("plain", clock, 1.0, 0.4)}
    session(tmp_path, clock, known, launch=launch).run([Figure(WORK, ("plain",))])
    report = written(tmp_path)
    assert len(report["rows"]) == 1 and "no launch" in report["errors"][0]
    session(tmp_path, clock, known, launch=lambda contender, rounds: {"median": 1e-3}).run([Figure(WORK, ("plain",))])
    assert written(tmp_path)["rows"][0]["launch"]["nanoseconds_per_chain_step"] == pytest.approx(1e6 / 80)


def test_time_is_shared_and_what_has_none_is_left_out(tmp_path: Path, clock: Clock) -> None:
    known = {
        "plain": lambda work: Fake("plain", clock, 0.0, 1.0),
        "inductor": lambda work: Fake("inductor", clock, 30.0, 1e-6),
    }
    figures = [
        Figure(replace(WORK, name="wanted"), ("plain", "inductor"), wanted=True),
        *(Figure(replace(WORK, name=f"other-{i}"), ("plain", "inductor")) for i in range(4)),
    ]
    session(tmp_path, clock, known, seconds=100.0).run(figures)
    report = written(tmp_path)
    found = {(row["workload"], row["contender"]): row["rounds"] for row in report["rows"]}
    assert found["wanted", "plain"] == found["wanted", "inductor"] == 14  # 15% of the time
    assert found["other-0", "plain"] == 6 and ("other-0", "inductor") not in found
    assert any(line.startswith("inductor on other-0: out of time") for line in report["left_out"])
    assert clock.now <= 100.0
    late = session(tmp_path, clock, known, seconds=clock.now)
    late.run(figures[:1])
    assert written(tmp_path)["left_out"] == ["wanted: out of time"] and written(tmp_path)["rows"] == []


def test_positions_that_are_not_finite_are_an_error(tmp_path: Path, clock: Clock) -> None:
    class Diverged(Fake):
        def run(self) -> Tensor:
            return torch.tensor([float("nan")])

    session(tmp_path, clock, {"plain": lambda work: Diverged("plain", clock, 0.0, 1.0)}).run([Figure(WORK, ("plain",))])
    assert "not finite" in written(tmp_path)["errors"][0]


def test_the_list_of_figures() -> None:
    figures = gpu.figures()
    assert [f.workload.name for f in figures[:3]] == ["double-well", "mlp-2-64-1", "conv"]
    assert (figures[0].workload.n_chains, figures[0].workload.n_steps) == (1024, 200)
    assert (figures[2].workload.n_chains, figures[2].workload.n_steps) == (128, 60)
    assert [f.workload.n_chains for f in figures if f.section == "scaling"] == [10**4, 10**6, 10**7]
    assert {f.workload.name for f in figures} == set(WORKLOADS)
    for figure in figures:
        for name in figure.contenders:
            assert name in contenders.NAMES


def test_real_contenders_on_the_cpu_make_a_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same session with this machine's own contenders; the README's table takes its JSON."""
    running = Session(
        {**environment(), "rounds": 3},
        tmp_path / "report.json",
        1e9,
        3,
        make=contenders.contender,
        missing=contenders.missing,
        timed=wall_seconds,
        launch=launch_by_wall,
    )
    running.run([Figure(WORK, ("plain", "eager")), Figure(WORK, ("eager",), "scaling")])
    report = written(tmp_path)
    assert report["errors"] == [] and report["left_out"] == []
    assert report["rows"][1]["launch"]["median"] > 0 and "launch" not in report["rows"][0]
    assert len(report["scaling"]) == 1 and "double-well, 16 x 5, eager" in summary(report)
    monkeypatch.setattr(table, "RESULTS", tmp_path)
    ((name, newest),) = table.newest()
    assert "| double-well | 16 × 5 |" in table.markdown(name, newest)


def launch_by_wall(contender: Contender, rounds: int) -> dict[str, Any] | None:
    if not isinstance(contender, contenders.CompiledLangevin):
        return None
    contender.launch()()
    return {"median": 1e-3}


@pytest.mark.slow
def test_quick_and_slow_tests_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = {Path(path).name for path in gpu.cuda_test_files()}
    assert {"test_backends.py", "test_cuda_graphs.py"} <= names and "test_rng.py" not in names
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests/test_a.py").write_text(
        "import time, pytest\n@pytest.mark.cuda\ndef test_good(): pass\n"
        "@pytest.mark.cuda\n@pytest.mark.slow\ndef test_endless(): time.sleep(60)\n"
    )
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = cuda\n slow\n")
    monkeypatch.setattr(gpu, "TESTS", tmp_path / "tests")
    quick = gpu.run_tests("cuda and not slow", 60.0)
    assert quick["exit"] == 0 and quick["counts"] == {"passed": 1, "failed": 0, "skipped": 0}
    slow = gpu.run_tests("cuda and slow", 4.0)
    assert slow["exit"] is None and "out of time" in slow["output"]
    assert gpu.succeeded({"errors": [], "tests": [quick, slow]})
    assert not gpu.succeeded({"errors": [], "tests": [{"exit": 1}]})


def test_without_a_gpu_it_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is one")
    assert gpu.main(["--no-tests"]) == 2
    assert "expected a CUDA device, found none" in capsys.readouterr().out


def test_a_gpu_machine_needs_nothing_that_reports_are_printed_with() -> None:
    """A bare checkout there has torch, Triton, pytest, pytest-benchmark and JAX."""
    modules = "gpu, contenders, device, figures, table, timing"
    blocked = ("rich", "typer", "scipy", "matplotlib", "hypothesis", "zarr", "arviz", "safetensors")
    code = f"import sys; sys.modules |= dict.fromkeys({blocked}); from benchmarks import {modules}; gpu.figures()"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=Path(__file__).parent.parent, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
