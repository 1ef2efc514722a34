"""The warm-up: what it finds, on every backend, and that failed chains count nowhere."""

import functools
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import pytest
import torch
from cases import SEED, fixed
from torch import Tensor

import compiled_ebm as ce
from compiled_ebm.adaptation.averages import mean_of_alive
from compiled_ebm.backends.fused import toolchain

DIM = 20
SCALES = torch.logspace(-1, 1, DIM)
FAST = "eager" if toolchain.why_unavailable() else "fused"
slow = pytest.mark.slow


def scaled(x: Tensor) -> Tensor:
    """Independent normals of 20 scales from 0.1 to 10."""
    return 0.5 * (x / SCALES).square().sum(-1)


def wells(x: Tensor) -> Tensor:
    return 2 * (x.square() - 1).square().sum(-1)


ROWS, LABELS = fixed(200, 8, seed=11), (fixed(200, seed=12) > 0).float()


def logistic(x: Tensor) -> Tensor:
    logits = x @ ROWS.T
    return (torch.nn.functional.softplus(logits) - LABELS * logits).sum(-1) + 0.5 * x.square().sum(-1)


TARGETS: dict[str, tuple[Any, int]] = {"scales": (scaled, DIM), "wells": (wells, 10), "logistic": (logistic, 8)}


@functools.cache
def warmed(name: str, move: type, **options: Any) -> tuple[ce.Sampler, ce.WarmupResult]:
    energy, dim = TARGETS[name]
    sampler = ce.build_sampler(energy, move(0.01), dim, backend=FAST)
    return sampler, sampler.warmup(sampler.init(n_chains=500, seed=SEED), 400, **options)


@pytest.mark.parametrize(
    ("name", "move"),
    [
        pytest.param(name, move, marks=() if name == "wells" or (name, move) == ("scales", ce.MALA) else slow)
        for name in TARGETS
        for move in (ce.MALA, ce.HMC, ce.RandomWalk, ce.Barker)
    ],
)
def test_the_acceptance_is_what_was_asked_for(name: str, move: type) -> None:
    """500 chains and 100 steps give the mean acceptance to 0.002; the control is the step size it began with."""
    sampler, found = warmed(name, move)
    assert sampler.transition is found.transition
    result = sampler.run(found.state, 100, info=True)
    acceptance = float(result.stats.info["acceptance"].mean())
    assert abs(acceptance - move.target_acceptance) < 0.03
    assert abs(found.acceptance - move.target_acceptance) < 0.05
    sampler.transition = replace(found.transition, step_size=0.01 * found.step_size)
    control = sampler.run(found.state, 20, info=True)
    assert abs(float(control.stats.info["acceptance"].mean()) - move.target_acceptance) > 0.1
    sampler.transition = found.transition


@pytest.mark.parametrize("name", [pytest.param(n, marks=() if n == "wells" else slow) for n in TARGETS])
def test_the_step_size_is_near_the_best_of_a_grid(name: str) -> None:
    """MALA's mean squared jump, in units of the variances: the best of 1.1^k times what was found is within 20%."""
    sampler, found = warmed(name, ce.MALA)
    variance = found.diagonal.float()
    jumps: dict[float, float] = {}
    for k in range(-7, 8):
        sampler.transition = replace(found.transition, step_size=found.step_size * 1.1**k)
        draws = sampler.run(found.state, 60, thin=1).draws
        x = torch.cat([found.state.x[:, None], draws], dim=1)
        jumps[1.1**k] = float(((x[:, 1:] - x[:, :-1]).square() / variance).sum(-1).mean())
    sampler.transition = found.transition
    best = max(jumps, key=lambda factor: jumps[factor])
    assert 1 / 1.22 < best < 1.22
    assert jumps[1.1**-7] < 0.9 * jumps[best]  # the grid does tell


@pytest.mark.slow
def test_the_diagonal_is_that_of_the_target() -> None:
    """Of 500 chains at 100 steps each; MALA's holds variances, HMC's mass their inverses."""
    for move, power in ((ce.MALA, 1), (ce.HMC, -1)):
        _, found = warmed("scales", move)
        assert torch.allclose(found.diagonal, SCALES.double() ** (2 * power), rtol=0.15)
        assert not torch.allclose(found.diagonal, torch.ones(DIM, dtype=torch.float64), rtol=0.5)


@pytest.mark.slow
def test_the_trajectory_goes_a_quarter_around() -> None:
    """Of a normal target, where squares are decorrelated the most for the gradients spent."""
    sampler = ce.build_sampler(ce.HarmonicModel(), ce.HMC(0.01, 1), 50, backend=FAST)
    found = sampler.warmup(sampler.init(n_chains=500, seed=SEED), 400, target_acceptance=0.95)
    assert 0.6 < found.n_leapfrog_steps * found.step_size < 2.2
    assert found.n_leapfrog_steps > 1
    fixed_length = ce.build_sampler(ce.HarmonicModel(), ce.HMC(0.01, 3), 50, backend=FAST)
    kept = fixed_length.warmup(fixed_length.init(n_chains=100), 60, adapt_trajectory=False)
    assert kept.n_leapfrog_steps == 3


def cliff(x: Tensor) -> Tensor:
    """NaN where a chain starts beyond 50."""
    return torch.where(x[:, 0] > 50, torch.nan, scaled(x))


@pytest.mark.parametrize("move", [ce.MALA, pytest.param(ce.HMC, marks=slow)])
def test_one_failed_chain_changes_nothing_else(move: type) -> None:
    """Beside 1,000 that live: everything is as without it, to the rounding of sums with one term more, which is 0."""
    results = []
    for broken in (False, True):
        sampler = ce.build_sampler(cliff, move(0.01), DIM, backend=FAST)
        x0 = sampler.init(n_chains=1000, seed=SEED).x
        ids = torch.arange(1000)
        if broken:
            failing = torch.zeros(1, DIM).index_fill(1, torch.tensor([0]), 60.0)
            x0, ids = torch.cat([x0[:500], failing, x0[500:]]), torch.cat([ids[:500], torch.tensor([5000]), ids[500:]])
        state = replace(sampler.init(x0, seed=SEED), chain_ids=ids)
        with pytest.warns(ce.NonFiniteChainWarning, match="1 of 1001") if broken else nullcontext():
            results.append(sampler.warmup(state, 100))
    alone, beside = results
    assert beside.state.n_failed == 1 and bool(beside.state.failed_at[500] >= 0)
    assert beside.n_leapfrog_steps == alone.n_leapfrog_steps
    assert beside.step_size == pytest.approx(alone.step_size, rel=1e-5)
    assert torch.allclose(beside.diagonal, alone.diagonal, rtol=1e-5)
    moved = torch.cat([beside.state.x[:500], beside.state.x[501:]])
    assert float((moved - alone.state.x).abs().median()) < 1e-3


def test_averages_leave_failed_chains_out() -> None:
    leaf, failed = torch.tensor([1.0, torch.nan, 3.0, 99.0]), torch.tensor([-1, 4, -1, -1])
    assert float(mean_of_alive(leaf, failed, 3)) == 2.0
    rows = torch.stack([leaf, 2 * leaf], dim=1)
    assert mean_of_alive(rows, failed, 3).tolist() == [2.0, 4.0]


@pytest.mark.parametrize("backend", [FAST, pytest.param("inductor", marks=slow)])
def test_backends_find_the_same(backend: str) -> None:
    found = []
    for name in ("eager", backend):
        sampler = ce.build_sampler(wells, ce.MALA(0.02), 4, backend=name)
        found.append(sampler.warmup(sampler.init(n_chains=200, seed=3), 40))
    assert found[0].step_size == pytest.approx(found[1].step_size, rel=0.05)
    assert torch.allclose(found[0].diagonal, found[1].diagonal, rtol=0.05)


def test_sampling_afterwards_is_a_function_of_the_seed() -> None:
    """The hyper-parameters are plain numbers: a new sampler with them does the same, bit for bit."""
    sampler, found = warmed("wells", ce.HMC)
    sampler.transition = found.transition
    state = sampler.init(n_chains=40, seed=9)
    again = ce.build_sampler(wells, found.transition, 10, backend=FAST)
    assert isinstance(found.transition.step_size, float)
    assert torch.equal(sampler.run(state, 20).state.x, again.run(state, 20).state.x)
    repeated, second = ce.build_sampler(wells, ce.HMC(0.01), 10, backend=FAST), None
    second = repeated.warmup(repeated.init(n_chains=500, seed=SEED), 400)
    assert second.step_size == found.step_size and torch.equal(second.diagonal, found.diagonal)
    assert torch.equal(second.state.positions, found.state.positions)


def test_few_chains_adapt_over_time() -> None:
    sampler = ce.build_sampler(scaled, ce.MALA(0.01), DIM, backend=FAST)
    found = sampler.warmup(sampler.init(n_chains=1, seed=2), 3000)
    acceptance = sampler.run(found.state, 2000, info=True).stats.info["acceptance"].mean()
    assert abs(float(acceptance) - 0.574) < 0.15


def test_history_has_a_row_for_every_update() -> None:
    _, found = warmed("wells", ce.MALA)
    assert found.history["step_size"].shape == found.history["acceptance"].shape == (400,)
    assert bool(torch.isfinite(found.history["step_size"]).all())
    assert "MALA" in repr(found)


def test_wrong_arguments_are_named_and_leave_the_sampler_as_it_was() -> None:
    sampler = ce.build_sampler(wells, ce.MALA(0.02), 4, backend="eager")
    state, before = sampler.init(n_chains=10), sampler.transition
    for options, error, message in (
        ({"n_steps": 5}, ValueError, r"^n_steps: expected at least 20"),
        ({"n_steps": 40, "target_acceptance": 1.0}, ValueError, r"^target_acceptance: "),
        ({"n_steps": 40, "target_acceptance": "high"}, TypeError, r"^target_acceptance: "),
    ):
        with pytest.raises(error, match=message):
            sampler.warmup(state, **options)  # type: ignore[arg-type]
    langevin = ce.build_sampler(wells, ce.Langevin(0.02), 4, backend="eager")
    with pytest.raises(ValueError, match=r"^transition: expected one with an acceptance"):
        langevin.warmup(langevin.init(n_chains=10), 40)
    nowhere = ce.build_sampler(lambda x: torch.where(x.sum(-1) < 1e9, torch.nan, wells(x)), ce.MALA(0.02), 4,
                               backend="eager")  # fmt: skip
    before = nowhere.transition
    with pytest.raises(ValueError, match=r"^state: expected chains that live, got all 10 failed"):
        nowhere.warmup(nowhere.init(n_chains=10), 40)
    assert nowhere.transition is before


def test_a_warm_up_that_has_not_found_its_way_says_so() -> None:
    sampler = ce.build_sampler(wells, ce.RandomWalk(1e30), 4, backend="eager")
    with pytest.warns(UserWarning, match=r"^warmup: expected a mean acceptance of 0.234, got 0 "):
        sampler.warmup(sampler.init(n_chains=10), 40)


def test_chains_that_fail_at_once_are_not_warmed_up() -> None:
    calls = []

    def nowhere(x: Tensor) -> Tensor:
        calls.append(len(x))
        return torch.where(x.sum(-1) < 1e9, torch.nan, wells(x))

    sampler = ce.build_sampler(nowhere, ce.RandomWalk(0.1), 4, backend="eager")
    calls.clear()
    with pytest.raises(ValueError, match=r"^state: expected chains that live"):
        sampler.warmup(sampler.init(n_chains=10), 2000)
    assert len(calls) < 100
