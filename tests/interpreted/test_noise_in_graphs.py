"""The graph launch with its noise from the Triton kernel, CUDA's calls and Triton's compiler both played on the CPU."""

from __future__ import annotations

import pytest
import torch
from pretend_cuda import FakeGraph, play_cuda, recorded

import compiled_ebm as ce
from compiled_ebm.backends import graph_bucket, noise_kernel


@pytest.fixture
def triton_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    play_cuda(monkeypatch)
    fill_noise = noise_kernel.fill_noise
    monkeypatch.setattr(graph_bucket, "_triton_can", lambda device: True)
    monkeypatch.setattr(noise_kernel, "fill_noise", lambda *a, **k: recorded(fill_noise(*a, **k)))


@pytest.mark.parametrize("shape", [(2,), (), (3, 5)], ids=str)
def test_chains_are_eagers(triton_draws: None, shape: tuple[int, ...]) -> None:
    """In float64, whose logarithm and sine the interpreter has; with a schedule, draws, and a start at a late step."""

    def energy(x: torch.Tensor) -> torch.Tensor:
        return (x.square() - 1.0).square().reshape(len(x), -1).sum(-1)

    transition = ce.Langevin(ce.schedules.Linear(0.02, 0.001, 200))
    results = []
    for backend in ("eager", "inductor"):
        sampler = ce.build_sampler(energy, transition, shape, backend=backend, dtype=torch.float64)
        state = sampler.init(n_chains=21, seed=2**64 - 9, first_chain=2**40, first_step=3)
        results.append(sampler.run(state, 45, 7))
        assert ("one Triton kernel" in sampler.explain()) == (backend == "inductor")
    assert FakeGraph.replays > 0
    torch.testing.assert_close(results[0].state.x, results[1].state.x, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(results[0].draws, results[1].draws, rtol=1e-12, atol=1e-12)
