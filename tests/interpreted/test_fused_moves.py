"""Every move in the fused CUDA kernel, against eager on the same noise."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from cases import fixed
from layouts import LAYOUTS, N, run, use, worst
from torch import Tensor

import compiled_ebm as ce

DIAGONAL = torch.tensor([0.5, 1.0, 2.0, 1.5, 0.7, 1.2])
MOVES: dict[str, Any] = {
    "mala": ce.MALA(0.05),
    "mala, preconditioned": ce.MALA(0.05, preconditioner=DIAGONAL, temperature=2.0),
    "hmc": ce.HMC(0.1, 4),
    "hmc, one leap": ce.HMC(0.2, 1, jitter=0.3),
    "hmc, mass": ce.HMC(0.1, 3, mass=DIAGONAL, jitter=0.2),
    "underdamped": ce.UnderdampedLangevin(0.1, mass=DIAGONAL),
    "preconditioned": ce.PreconditionedLangevin(0.05, preconditioner=DIAGONAL, temperature=0.5),
    "barker": ce.Barker(0.3),
    "random walk": ce.RandomWalk(0.3),
    "descent": ce.GradientDescent(0.05),
    "nesterov": ce.Nesterov(0.02),
    "exchange": ce.ReplicaExchange(ce.MALA(0.05), [1.0, 2.0, 4.0], swap_every=2),
}
QUICK = ("mala", "hmc, mass", "barker")
STEPS = 4


def ring(x: Tensor) -> Tensor:
    return (x.square() - 1).square().sum(-1) + 0.3 * (x * x.roll(1, -1)).sum(-1) + torch.logsumexp(x, -1)


WEIGHTS = fixed(6, 24, seed=3, scale=0.4)


def network(x: Tensor) -> Tensor:
    """Two products, whose operands have axes of several elements."""
    return torch.tanh(x @ WEIGHTS).square().sum(-1) + 0.5 * x.square().sum(-1)


ENERGIES = {"ring": ring, "network": network}


@pytest.fixture(
    params=["as planned, chains last", *(pytest.param(k, marks=pytest.mark.slow) for k in ("flat", "chains first"))]
)
def layout(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    use(monkeypatch, LAYOUTS[request.param])
    return request.param


@pytest.mark.parametrize("energy", ENERGIES)
@pytest.mark.parametrize("name", [pytest.param(n, marks=() if n in QUICK else pytest.mark.slow) for n in MOVES])
def test_moves_agree_with_eager(name: str, energy: str, layout: str) -> None:
    """Accept decisions included, of which no uniform here is near enough to its probability to be a tie."""
    start = fixed(N, 6, seed=5)
    after = []
    for backend in ("fused", "eager"):
        sampler = ce.build_sampler(ENERGIES[energy], MOVES[name], 6, backend=backend)
        after.append(run(sampler, start, STEPS, first_chain=2**40 - 1).state)  # a multiple of the ladder's three
    assert worst(*after, size=10.0) <= 1
    assert float((after[0].positions - start).abs().max()) > 0.01


@pytest.mark.parametrize("layout", ["flat"], indirect=True)
def test_running_means(layout: str) -> None:
    means = []
    for backend in ("fused", "eager"):
        sampler = ce.build_sampler(ring, ce.MALA(0.2), 6, backend=backend)
        means.append(run(sampler, fixed(N, 6, seed=5), STEPS, info=True).stats.info)
    for name, ours in means[0].items():
        torch.testing.assert_close(ours, means[1][name], rtol=1e-4, atol=1e-4)
    assert 0 < float(means[0]["accepted"].mean()) < 1
