"""The graph launch with its noise from the Triton kernel, CUDA's calls and Triton's compiler both played on the CPU."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from pretend_cuda import FakeGraph, play_cuda, recorded
from torch import Tensor, nn

import compiled_ebm as ce
from compiled_ebm.backends import graph_bucket, noise_kernel, update_kernel
from compiled_ebm.backends.head import Head
from compiled_ebm.backends.update_kernel import fill_update


@pytest.fixture
def triton_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    play_cuda(monkeypatch)
    fill_noise, fill_update = noise_kernel.fill_noise, update_kernel.fill_update
    monkeypatch.setattr(graph_bucket, "_triton_can", lambda device: True)
    monkeypatch.setattr(noise_kernel, "fill_noise", lambda *a, **k: recorded(fill_noise(*a, **k)))
    monkeypatch.setattr(update_kernel, "fill_update", lambda *a, **k: recorded(fill_update(*a, **k)))


@pytest.mark.parametrize(
    "shape", [(2,), *(pytest.param(shape, marks=pytest.mark.slow) for shape in ((), (3, 5)))], ids=str
)
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


class Images(nn.Module):
    """Begins with a convolution, so that the update is done by the kernel that draws its noise."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.SiLU(), nn.Flatten(-3), nn.Linear(4 * 9, 1)).double()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.net(x)
        return out.squeeze(-1) + 0.5 * x.square().sum((-3, -2, -1))


@pytest.mark.slow
@pytest.mark.parametrize("clamp", [None, (-1.0, 0.75)])
def test_the_update_kernel_gives_eagers_chains(triton_draws: None, clamp: tuple[float, float] | None) -> None:
    transition = ce.Langevin(ce.schedules.Linear(0.02, 0.001, 200), clamp=clamp)
    results = []
    for backend in ("eager", "inductor"):
        sampler = ce.build_sampler(Images(), transition, (1, 5, 5), backend=backend, dtype=torch.float64)
        state = sampler.init(n_chains=21, seed=2**64 - 9, first_chain=2**40, first_step=3)
        results.append(sampler.run(state, 30, 7))
        assert ("in the Triton kernel of the update" in sampler.explain()) == (backend == "inductor")
    torch.testing.assert_close(results[0].state.x, results[1].state.x, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(results[0].draws, results[1].draws, rtol=1e-12, atol=1e-12)


def test_a_wrong_update_is_not_captured(triton_draws: None, monkeypatch: pytest.MonkeyPatch) -> None:
    right = update_kernel.update_constants
    monkeypatch.setattr(update_kernel, "update_constants", lambda *a, **k: {**right(*a, **k), "MINUS": False})
    sampler = ce.build_sampler(Images(), ce.Langevin(0.01), (1, 5, 5), backend="inductor", dtype=torch.float64)
    state = sampler.init(n_chains=21, seed=1)
    carried = (torch.zeros(21, dtype=torch.float64), torch.ones(21, 1, 5, 5, dtype=torch.float64))
    with pytest.raises(ce.UnsupportedEnergyError, match="other numbers"):
        sampler.run(replace(state, carried=carried, leaves=("energy", "grad")), 1)


def test_a_position_that_is_not_a_number_stays_so(triton_draws: None) -> None:
    """Through the clamp too: the quarantine must see it."""
    head = Head(0, 1, 0, 1, minus=True, bounds=(-1.0, 1.0))
    x = torch.tensor([[float("nan"), float("inf"), 0.5]], dtype=torch.float64)
    moved, table = torch.zeros_like(x), torch.zeros(1, 2, dtype=torch.float64)
    seed, zero, ids = torch.tensor(1), torch.tensor(0), torch.arange(1)
    fill_update(head, seed, zero, zero, table, ids, (x, torch.zeros_like(x)), moved, fast=False)()
    assert bool(moved[0, 0].isnan()) and moved[0, 1:].tolist() == [1.0, 0.5]
