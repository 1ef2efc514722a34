"""How ``auto`` chooses between two backends that both can: estimate, trial, memory, and what explain() says of it."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import compiled_ebm as ce
from compiled_ebm.backends import inductor
from compiled_ebm.backends.fused import toolchain
from compiled_ebm.backends.fused.estimate import Estimate
from compiled_ebm.backends.fused.launch import FusedCpuLaunch

pytestmark = pytest.mark.skipif(toolchain.why_unavailable() is not None, reason="needs a C++ compiler")


def energy(x: Tensor) -> Tensor:
    return (x.square() - 1).square().sum(-1)


class Slowed(FusedCpuLaunch):
    """Stands for a backend of a certain speed."""

    seconds = 0.0
    refuses = False

    def prepare(self, chains: Any) -> float:
        if self.refuses:
            raise ce.UnsupportedEnergyError("energy: torch.compile cannot compile the step: it is only a test")
        return super().prepare(chains)

    def __call__(self, *args: Any) -> None:
        time.sleep(self.seconds)
        super().__call__(*args)


@pytest.fixture
def compare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., list[int]]:
    """Makes the estimate unsure, and gives both backends a speed; counts how often ``inductor`` is made."""

    def prepare(fused: float, other: float, refuses: bool = False) -> list[int]:
        made: list[int] = []

        class Other(Slowed):
            seconds = other

            def __init__(self, program: Any) -> None:
                super().__init__(program)
                self.refuses = refuses
                made.append(1)

        class Fused(Slowed):
            seconds = fused

        monkeypatch.setenv("COMPILED_EBM_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(FusedCpuLaunch, "estimate", lambda self: Estimate(fused=2.0, inductor=1.0))
        monkeypatch.setattr("compiled_ebm.backends.fused.launch.compile", Fused)
        monkeypatch.setattr(inductor, "compile", Other)
        return made

    return prepare


def sampler() -> ce.Sampler:
    return ce.build_sampler(energy, ce.Langevin(0.01), 3)


def test_a_small_energy_is_fused_without_a_trial(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(program: Any) -> None:
        raise AssertionError("inductor was built")

    monkeypatch.setattr(inductor, "compile", never)
    built = sampler()
    built.build(100)
    assert built.backend == "fused" and "no trial needed" in built.explain()


@pytest.mark.parametrize(("fused", "other", "winner"), [(0.0, 0.01, "fused"), (0.01, 0.0, "inductor")])
def test_the_faster_one_is_taken_and_remembered(
    compare: Callable[..., list[int]], fused: float, other: float, winner: str
) -> None:
    made = compare(fused, other)
    first = sampler()
    start = first.init(n_chains=100, seed=1)
    state = first.run(start, 4).state
    assert first.backend == winner and len(made) == 1 and "remembered" not in first.explain()
    assert "unsure; a trial of 112 chains" in first.explain()
    again = sampler()
    assert torch.equal(again.run(start, 4).state.x, state.x)
    assert again.backend == winner and "remembered" in again.explain()
    assert len(made) == (1 if winner == "fused" else 2)  # for the run, not for a trial
    named = ce.build_sampler(energy, ce.Langevin(0.01), 3, backend="fused")
    assert torch.allclose(named.run(state, 4).state.x, again.run(state, 4).state.x)


def test_another_number_of_chains_does_not_change_the_choice_of_a_sampler(compare: Callable[..., list[int]]) -> None:
    """Or chain i would not be the same in any batch."""
    compare(0.0, 0.01)
    built = sampler()
    built.build(100)
    made = compare(0.01, 0.0)
    built.build(5000)
    assert built.backend == "fused" and not made
    other = sampler()
    other.build(5000)
    assert other.backend == "inductor" and made


def test_a_backend_that_cannot_build_loses_the_trial(compare: Callable[..., list[int]]) -> None:
    compare(0.01, 0.0, refuses=True)
    built = sampler()
    built.build(100)
    assert built.backend == "fused" and "not inductor: energy: torch.compile cannot" in built.explain()


def test_a_remembered_backend_that_cannot_build_any_more_gives_way(compare: Callable[..., list[int]]) -> None:
    compare(0.01, 0.0)
    sampler().build(100)
    compare(0.01, 0.0, refuses=True)
    built = sampler()
    built.run(built.init(n_chains=100), 3)
    assert built.backend == "fused" and "not inductor: energy: torch.compile cannot" in built.explain()


@pytest.mark.slow
def test_a_trial_of_the_real_ones() -> None:
    """A network of width 512: the weights are beyond the second-level cache of most machines."""
    net = nn.Sequential(nn.Linear(8, 600), nn.SiLU(), nn.Linear(600, 600), nn.SiLU(), nn.Linear(600, 1))
    built = ce.build_sampler(lambda x: net(x).squeeze(-1) + x.square().sum(-1), ce.Langevin(0.01), 8)
    state = built.run(built.init(n_chains=300), 3).state
    eager = ce.build_sampler(lambda x: net(x).squeeze(-1) + x.square().sum(-1), ce.Langevin(0.01), 8, backend="eager")
    assert torch.allclose(state.x, eager.run(eager.init(n_chains=300), 3).state.x, atol=1e-4)
    assert "estimated" in built.explain() and built.backend in ("fused", "inductor")
