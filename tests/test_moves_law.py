"""Moves: what they leave invariant, the laws of those that are biased, and where long runs arrive."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
import scipy.special  # type: ignore[import-untyped]
import scipy.stats  # type: ignore[import-untyped]
import torch
from cases import BY_NAME, same_bits
from torch import Tensor

import compiled_ebm as ce
from compiled_ebm.backends.fused import toolchain
from compiled_ebm.transitions import barker, hmc, mala, random_walk

DOUBLE = torch.float64
SIGMAS = 5.0
slow = pytest.mark.slow
BACKEND = "fused" if toolchain.why_unavailable() is None else "eager"
Draw = Callable[[int, int], Tensor]
Energy = Callable[[Tensor], Tensor]


# -- targets ---------------------------------------------------------------------------------------------------------


class Target(NamedTuple):
    """An energy with exact draws ``[n, dim]`` of exp(-E / T): ``draw(n, seed, T)``, at T = 1 at least."""

    make: Callable[[], Energy]
    dim: int
    draw: Callable[[int, int, float], Tensor]
    tempered: bool = False


def uniform(n: int, dim: int, seed: int) -> Tensor:
    return torch.rand(n, dim, generator=torch.Generator().manual_seed(seed), dtype=DOUBLE)


def gaussian() -> ce.GaussianModel:
    return ce.GaussianModel([1.0, -0.5, 0.0], [[1.0, 0.7, -0.2], [0.7, 1.5, 0.3], [-0.2, 0.3, 0.6]])


def gaussian_draws(n: int, seed: int, temperature: float) -> Tensor:
    mean = gaussian().exact_mean()
    return mean + math.sqrt(temperature) * (gaussian().exact_sample(n, seed).double() - mean)


def laplace(x: Tensor) -> Tensor:
    return 1.5 * x.abs().sum(-1)


def laplace_draws(n: int, seed: int, temperature: float) -> Tensor:
    u = uniform(n, 2, seed) - 0.5
    return -temperature / 1.5 * u.sign() * (1 - 2 * u.abs()).log()


NU = 6.0


def student(x: Tensor) -> Tensor:
    return 0.5 * (NU + 1) * (1 + x.square() / NU).log().sum(-1)


def student_draws(n: int, seed: int, temperature: float) -> Tensor:
    """exp(-E / T) is Student's again, with other degrees of freedom and another scale."""
    nu = (NU + 1) / temperature - 1
    found = scipy.stats.t.ppf(uniform(n, 2, seed).numpy(), nu)
    return math.sqrt(NU / nu) * torch.from_numpy(found)


def funnel() -> ce.FunnelModel:
    return ce.FunnelModel(dim=3, scale=1.0)


TARGETS = {
    "gaussian": Target(gaussian, 3, gaussian_draws, tempered=True),
    "mixture": Target(BY_NAME["mixture"].make, 2, lambda n, s, _: BY_NAME["mixture"].make().exact_sample(n, s)),  # type: ignore[attr-defined]
    "funnel": Target(funnel, 3, lambda n, s, _: funnel().exact_sample(n, s)),
    "laplace": Target(lambda: laplace, 2, laplace_draws, tempered=True),
    "student": Target(lambda: student, 2, student_draws, tempered=True),
}


# -- invariance ------------------------------------------------------------------------------------------------------

MANY = 100_000


def spread(dim: int) -> Tensor:
    return torch.linspace(0.6, 1.6, dim)


MOVES: dict[str, Callable[[int, float], Any]] = {
    "MALA": lambda dim, t: ce.MALA(0.4, temperature=t),
    "MALA diagonal": lambda dim, t: ce.MALA(0.4, spread(dim), temperature=t),
    "HMC": lambda dim, t: ce.HMC(0.4, 4, temperature=t),
    "HMC diagonal": lambda dim, t: ce.HMC(0.4, 4, spread(dim), t, jitter=0.3),
    "RandomWalk": lambda dim, t: ce.RandomWalk(1.0, t),
    "Barker": lambda dim, t: ce.Barker(1.0, t),
}
QUICK = [("gaussian", name) for name in MOVES if name != "MALA diagonal"]
QUICK += [("mixture", "HMC"), ("funnel", "MALA"), ("laplace", "Barker"), ("student", "RandomWalk")]


@functools.cache
def sampler_of(target: str, move: str) -> ce.Sampler:
    which = TARGETS[target]
    return ce.build_sampler(which.make(), MOVES[move](which.dim, 1.0), which.dim, backend=BACKEND)


def features(energy: Energy, x: Tensor) -> list[Tensor]:
    """Each coordinate, and the energy, sorted."""
    x = x.double()
    return [column.sort().values for column in (*x.T, energy(x).detach())]


def p_value(a: Tensor, b: Tensor) -> float:
    """Kolmogorov and Smirnov's, for two samples in ascending order, from the law of many."""
    ranks = torch.arange(len(a) + 1, dtype=DOUBLE) / len(a)
    upto, below = (torch.searchsorted(b, a, right=right) / len(b) for right in (True, False))
    distance = max(float((ranks[1:] - upto).max()), float((below - ranks[:-1]).max()))
    return float(scipy.special.kolmogorov(distance * math.sqrt(len(a) * len(b) / (len(a) + len(b)))))


def p_values(energy: Energy, x: Tensor, fresh: list[Tensor]) -> list[float]:
    """Of each feature, against those of other positions."""
    return [p_value(a, b) for a, b in zip(features(energy, x), fresh, strict=True)]


def in_double(make: Callable[[], Energy]) -> Energy:
    energy = make()
    return energy.double() if isinstance(energy, torch.nn.Module) else energy


@pytest.mark.parametrize(
    ("target", "move"),
    [pytest.param(target, move, marks=() if (target, move) in QUICK else slow) for target in TARGETS for move in MOVES],
)
def test_a_step_leaves_the_target_invariant(target: str, move: str) -> None:
    """From exact draws, one step later: no different from other exact draws, though most chains have moved.

    Seeds are fixed, so that p > 0.001 holds always or never.
    """
    which, sampler = TARGETS[target], sampler_of(target, move)
    energy = in_double(which.make)
    for temperature in (1.0, 2.0) if which.tempered else (1.0,):
        sampler.transition = MOVES[move](which.dim, temperature)
        x0, other = which.draw(MANY, 11, temperature), which.draw(MANY, 12, temperature)
        fresh = features(energy, other)
        result = sampler.run(sampler.init(x0.float(), seed=5), 1, info=True)
        x = result.state.x
        assert result.state.n_failed == 0
        found = p_values(energy, x, fresh)
        assert min(found) > 1e-3, found
        centre = other.double().mean(0)
        assert max(p_values(energy, centre + 1.1 * (x - centre), fresh)[:-1]) < 1e-4  # the control
        assert result.stats.info is not None
        accepted = float(result.stats.info["accepted"].mean())
        far = float((x - x0).abs().mean() / x0.std(0).mean())
        assert 0.3 < accepted < 0.999 and 0.15 < far < 2, (accepted, far)
        moved = float((x != x0.float()).any(-1).double().mean())
        assert abs(moved - accepted) < 1e-3


@pytest.mark.parametrize("move", ["MALA", "HMC", "RandomWalk", "Barker"])
def test_negative_control_proposals_alone_do_not_leave_it(move: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same step with every proposal accepted: the test above sees that, and a target that is 21% warmer."""

    def accepting(old: Any, proposed: Any, log_ratio: Tensor, uniform: Tensor) -> Any:
        from compiled_ebm.transitions.metropolis import MetropolisInfo

        one = torch.ones_like(log_ratio)
        return proposed, MetropolisInfo(proposed[1], one, one, 0 * one)

    energy, x0 = in_double(gaussian), gaussian_draws(MANY, 11, 1.0)
    fresh = features(energy, gaussian_draws(MANY, 12, 1.0))
    sampler = sampler_of("gaussian", move)
    sampler.transition = MOVES[move](3, 1.21)
    warmer = sampler.run(sampler.init(x0.float(), seed=5), 30).state.x
    assert min(p_values(energy, warmer, fresh)) < 1e-4
    for module in (mala, hmc, random_walk, barker):
        monkeypatch.setattr(module, "decide", accepting)
    always = ce.build_sampler(gaussian(), MOVES[move](3, 1.0), 3, backend="eager")
    x = always.run(always.init(x0.float(), seed=5), 1).state.x
    assert min(p_values(energy, x, fresh)) < 1e-4


# -- biased moves ----------------------------------------------------------------------------------------------------

K = torch.tensor([0.25, 1.0, 4.0])


def springs(x: Tensor) -> Tensor:
    return 0.5 * (K * x.square()).sum(-1)


@functools.cache
def underdamped(massive: bool) -> ce.Sampler:
    move = ce.UnderdampedLangevin(0.1, mass=1.0 if massive else None)
    return ce.build_sampler(springs, move, 3, backend=BACKEND)


@pytest.mark.parametrize(
    ("h", "friction", "temperature", "mass"),
    [
        (0.3, 1.0, 1.0, None),
        (0.75, 1.0, 1.0, None),
        (0.75, 3.0, 2.0, None),
        (0.6, 0.7, 0.5, torch.tensor([0.5, 1.0, 2.0])),
        (1.5, 1.0, 1.0, K),
    ],
)
def test_baoab_has_the_variance_of_a_harmonic_target(
    h: float, friction: float, temperature: float, mass: Tensor | None
) -> None:
    """T / k at any stable step, up to 1.5 / sqrt(k); other splittings have T / (k (1 - h^2 k / 4 m)), the control."""
    sampler, n = underdamped(mass is not None), MANY
    sampler.transition = ce.UnderdampedLangevin(h, friction, mass, temperature)
    n_steps = math.ceil(80 / (h * min(friction, 1.0)))
    x = sampler.run(sampler.init(n_chains=n, seed=8), n_steps).state.x.double()
    weight = torch.ones(3) if mass is None else mass
    exact = temperature / K.double()
    error = SIGMAS * math.sqrt(2 / n) * exact
    found = x.square().mean(0)
    assert ((found - exact).abs() < error).all(), found / exact
    assert (x.mean(0).abs() < SIGMAS * (exact / n).sqrt()).all()
    other = exact / (1 - h**2 * K / weight / 4)
    assert ((found - other).abs() > error)[(other - exact) > 2 * error].all()
    assert bool(((other - exact) > 2 * error).any())


@functools.cache
def preconditioned() -> ce.Sampler:
    return ce.build_sampler(springs, ce.PreconditionedLangevin(0.1, 1.0), 3, backend=BACKEND)


@pytest.mark.parametrize(
    ("eta", "temperature", "diagonal"),
    [(0.4, 1.0, 1 / K), (0.2, 2.0, torch.tensor([2.0, 1.0, 0.5])), (0.3, 0.5, 1.0), (1.0, 1.0, 1 / K)],
)
def test_preconditioned_langevin_has_its_discretised_law(
    eta: float, temperature: float, diagonal: float | Tensor
) -> None:
    """T / (k (1 - eta P k / 2)) in each direction, and not T / k, the control."""
    sampler, n = preconditioned(), MANY
    sampler.transition = ce.PreconditionedLangevin(eta, diagonal, temperature)
    rate = eta * torch.as_tensor(diagonal) * K
    n_steps = math.ceil(12 / float(-(1 - rate).abs().clamp_min(1e-9).log().max()))
    x = sampler.run(sampler.init(n_chains=n, seed=9), n_steps).state.x.double()
    exact = temperature / (K * (1 - 0.5 * rate)).double()
    error = SIGMAS * math.sqrt(2 / n) * exact
    found = x.square().mean(0)
    assert ((found - exact).abs() < error).all(), found / exact
    assert ((found - temperature / K).abs() > error).all()


def rippled(x: Tensor) -> Tensor:
    """Anharmonic, its curvature from -3 to 5."""
    return (0.5 * x.square() + (2 * x).cos()).sum(-1)


@functools.cache
def ripples() -> float:
    """The mean of cos 2x in one coordinate, by quadrature."""
    x = torch.linspace(-20, 20, 200_001, dtype=DOUBLE)
    p = (-rippled(x.unsqueeze(-1))).exp()
    return float(((2 * x).cos() * p).sum() / p.sum())


def slope(make: Callable[[float], Any], sizes: list[float], time: float, n_chains: int) -> tuple[float, float]:
    """Of log bias of that mean over log step size, and its standard error; chains run for this time from N(0, 1)."""
    sampler = ce.build_sampler(rippled, make(sizes[0]), 8, backend=BACKEND)
    biases, errors = [], []
    for size in sizes:
        sampler.transition = make(size)
        x = sampler.run(sampler.init(n_chains=n_chains, seed=4), math.ceil(time / size)).state.x
        seen = (2 * x).cos().double()
        biases.append(float(seen.mean()) - ripples())
        errors.append(float(seen.std()) / math.sqrt(seen.numel()))
    assert all(abs(bias) > SIGMAS * error for bias, error in zip(biases, errors, strict=True)), (biases, errors)
    length = math.log(sizes[0] / sizes[1])
    relative = [error / bias for bias, error in zip(biases, errors, strict=True)]
    return math.log(biases[0] / biases[1]) / length, math.hypot(*relative) / length


def test_bias_of_langevin_is_of_first_order() -> None:
    found, error = slope(ce.PreconditionedLangevin, [0.2, 0.1], 8.0, 100_000)
    assert abs(found - 1) < 0.1 and error < 0.02, (found, error)


@slow
def test_bias_of_baoab_is_of_second_order() -> None:
    found, error = slope(lambda h: ce.UnderdampedLangevin(h, friction=0.2), [0.4, 0.2], 40.0, 1_600_000)
    assert abs(found - 2) < 0.25 and error < 0.1, (found, error)


# -- long runs -------------------------------------------------------------------------------------------------------


def double_well() -> ce.DoubleWellModel:
    return ce.DoubleWellModel(barrier_height=1.0)


def double_well_draws(n: int, seed: int, _: float) -> Tensor:
    """By the inverse of the distribution function on a fine grid."""
    x = torch.linspace(-4, 4, 100_001, dtype=DOUBLE)
    mass = (-double_well()(x.unsqueeze(-1))).exp().cumsum(0)
    return torch.from_numpy(np.interp(uniform(n, 2, seed).numpy(), (mass / mass[-1]).numpy(), x.numpy()))


def banana() -> ce.BananaModel:
    return ce.BananaModel(scale=2.0, curvature=0.3)


def rosenbrock() -> ce.RosenbrockModel:
    return ce.RosenbrockModel(b=5.0)


LONG = {
    **TARGETS,
    "double-well": Target(double_well, 2, double_well_draws),
    "banana": Target(banana, 2, lambda n, s, _: banana().exact_sample(n, s)),
    "rosenbrock": Target(rosenbrock, 2, lambda n, s, _: rosenbrock().exact_sample(n, s)),
    "booth": Target(ce.BoothModel, 2, lambda n, s, _: ce.BoothModel().exact_sample(n, s)),
}
LONG_RUNS: dict[str, tuple[Any, int]] = {
    "gaussian MALA": (ce.MALA(0.4), 200),
    "gaussian HMC": (ce.HMC(0.5, 5, jitter=0.3), 60),
    "mixture MALA": (ce.MALA(0.5), 500),
    "mixture HMC": (ce.HMC(0.6, 5, jitter=0.3), 100),
    "funnel MALA": (ce.MALA(0.15), 1500),
    "funnel HMC": (ce.HMC(0.4, 5, jitter=0.3), 200),
    "laplace MALA": (ce.MALA(0.5), 300),
    "laplace HMC": (ce.HMC(0.5, 5, jitter=0.3), 100),
    "student MALA": (ce.MALA(0.5, torch.tensor([1.0, 1.5])), 400),
    "student HMC": (ce.HMC(0.7, 5, torch.tensor([0.7, 1.0]), jitter=0.3), 100),
    "double-well MALA": (ce.MALA(0.05), 2000),
    "double-well HMC": (ce.HMC(0.25, 5, jitter=0.3), 100),
    "banana MALA": (ce.MALA(0.15), 1500),
    "banana HMC": (ce.HMC(0.5, 5, jitter=0.3), 100),
    "rosenbrock MALA": (ce.MALA(0.003), 15_000),
    "rosenbrock HMC": (ce.HMC(0.07, 10, jitter=0.3), 300),
    "booth MALA": (ce.MALA(0.04), 1500),
    "booth HMC": (ce.HMC(0.2, 5, jitter=0.3), 200),
}
QUICK_LONG = ("gaussian MALA", "student HMC", "banana HMC", "funnel MALA", "double-well HMC")


def moments(name: str) -> tuple[Tensor, Tensor]:
    """Exact mean and covariance."""
    which = LONG[name]
    if name in ("laplace", "student"):
        variance = {"laplace": 2 / 1.5**2, "student": NU / (NU - 2)}[name]
        return torch.zeros(which.dim, dtype=DOUBLE), variance * torch.eye(which.dim, dtype=DOUBLE)
    model: Any = which.make()
    return model.exact_mean(which.dim), model.exact_cov(which.dim)


def deviations(name: str, x: Tensor) -> dict[str, float]:
    """How many standard errors means, covariances and tails of independent positions are off."""
    (mean, cov), n, x = moments(name), len(x), x.double()
    products = (x - mean).unsqueeze(1) * (x - mean).unsqueeze(2)
    fresh = LONG[name].draw(4 * n, 21, 1.0).double()
    found = {
        "mean": (x.mean(0) - mean).abs() / (cov.diagonal() / n).sqrt(),
        "covariance": (products.mean(0) - cov).abs() / (products.std(0) / math.sqrt(n)),
    }
    for q in (0.01, 0.1, 0.9, 0.99):
        edges = torch.from_numpy(np.quantile(fresh.numpy(), q, axis=0))
        below = (x < edges).double().mean(0)
        found[f"quantile {q}"] = (below - q).abs() / math.sqrt(q * (1 - q) * 1.25 / n)
    return {key: float(values.max()) for key, values in found.items()}


@pytest.mark.parametrize("run", [pytest.param(run, marks=() if run in QUICK_LONG else slow) for run in LONG_RUNS])
def test_long_runs_arrive_at_the_target(run: str) -> None:
    """The last positions of independent chains from N(0, 1): errors are those of as many independent draws."""
    name, (move, n_steps) = run.split()[0], LONG_RUNS[run]
    which = LONG[name]
    sampler = ce.build_sampler(which.make(), move, which.dim, backend=BACKEND)
    result = sampler.run(sampler.init(n_chains=40_000, seed=6), n_steps)
    found = deviations(name, result.state.x)
    assert result.state.n_failed == 0 and max(found.values()) < SIGMAS, found
    mean, _ = moments(name)
    wrong = deviations(name, mean + 1.06 * (result.state.x - mean))  # the control
    assert max(wrong.values()) > SIGMAS


# -- one chain that fails --------------------------------------------------------------------------------------------


def cliff(x: Tensor) -> Tensor:
    """NaN far out, and a slope that leads there from 10 on."""
    energy = springs(x) - 1e4 * (x[:, 0] - 10).clamp_min(0)
    return torch.where(x[:, 0] > 50, float("nan"), energy)


ALL_MOVES: dict[str, tuple[Any, int]] = {
    "MALA": (ce.MALA(0.2, spread(3)), 1),
    "HMC": (ce.HMC(0.3, 3, spread(3), jitter=0.2), 1),
    "RandomWalk": (ce.RandomWalk(0.5), 1),
    "Barker": (ce.Barker(0.5), 1),
    "ReplicaExchange": (ce.ReplicaExchange(ce.MALA(0.2), [1.0, 2.0, 4.0], swap_every=3), 1),
    "UnderdampedLangevin": (ce.UnderdampedLangevin(0.2), 2),
    "PreconditionedLangevin": (ce.PreconditionedLangevin(0.1, spread(3)), 2),
    "GradientDescent": (ce.GradientDescent(0.1), 2),
    "Nesterov": (ce.Nesterov(0.1), 2),
}
QUICK_FUSED = ("MALA", "HMC", "ReplicaExchange", "UnderdampedLangevin")


@pytest.mark.parametrize(
    ("move", "backend"),
    [
        pytest.param(move, backend, marks=slow if backend == "fused" and move not in QUICK_FUSED else ())
        for move in ALL_MOVES
        for backend in dict.fromkeys(("eager", BACKEND))
    ],
)
def test_chains_that_fail_touch_no_other(move: str, backend: str) -> None:
    """One that is at NaN from the start, and one that goes there: all others bit for bit as without them.

    Chains of their ladders, which would have swapped with them, are left out.
    """
    transition, n_failed = ALL_MOVES[move]
    sampler = ce.build_sampler(cliff, transition, 3, backend=backend)
    healthy = torch.randn(999, 3, generator=torch.Generator().manual_seed(2))
    ill = healthy.clone()
    ill[500, 0], ill[501, 0] = 100.0, 40.0
    want = sampler.run(sampler.init(healthy, seed=3), 20, thin=5)
    with pytest.warns(ce.NonFiniteChainWarning):
        found = sampler.run(sampler.init(ill, seed=3), 20, thin=5)
    assert want.state.n_failed == 0 and found.state.n_failed == n_failed
    assert found.state.failed_at[500] == 0 and bool(found.state.failed_at[501] >= 0) == (n_failed == 2)
    assert same_bits(found.state.x[500], ill[500]) and found.state.x.isfinite().all()
    others = torch.ones(999, dtype=torch.bool)
    others[slice(498, 504) if move == "ReplicaExchange" else slice(500, 502)] = False
    assert found.draws is not None and want.draws is not None
    assert found.state.carried is not None and want.state.carried is not None
    pairs = [(found.draws, want.draws), (found.state.positions, want.state.positions)]
    for ours, theirs in (*pairs, *zip(found.state.carried, want.state.carried, strict=True)):
        assert same_bits(ours[others], theirs[others])
    assert not same_bits(want.state.x[500], healthy[500])
