"""Langevin: one step by hand, TorchEBM's drift, the discretised law, and half precision."""

import functools
import math
from collections.abc import Callable
from typing import Any

import pytest
import scipy.special
import scipy.stats
import torch
from cases import BY_NAME, SEED, noise, traced_energy
from torch import Tensor

import compiled_ebm as ce
from compiled_ebm import schedules

DOUBLE = torch.float64
SIGMAS = 5.0


def quartic(x: Tensor) -> Tensor:
    return (0.25 * x.pow(4) - 0.5 * x.square()).sum((1, 2)) + x[:, 0].prod(-1)


def quartic_gradient(x: Tensor) -> Tensor:
    """By hand."""
    gradient = x.pow(3) - x
    gradient[:, 0] += x[:, 0].flip(-1)
    return gradient


EVENT = (3, 2)


def start(n: int = 20, scale: float = 1.0) -> Tensor:
    return scale * torch.randn(n, *EVENT, generator=torch.Generator().manual_seed(4), dtype=DOUBLE)


def by_hand(x: Tensor, steps: range, move: Callable[[int, Tensor, Tensor], Tensor]) -> Tensor:
    for step in steps:
        x = move(step, x, noise(SEED, step, torch.arange(len(x)), EVENT, DOUBLE))
    return x


def clipped(gradient: Tensor, longest: float) -> Tensor:
    norm = gradient.flatten(1).norm(dim=1).clamp_min(1e-300)
    return gradient * (longest / norm).clamp_max(1.0)[:, None, None]


Move = Callable[[int, Tensor, Tensor], Tensor]
STEPS: dict[str, tuple[ce.Langevin, Move]] = {
    "plain": (ce.Langevin(0.1), lambda t, x, z: x - 0.1 * quartic_gradient(x) + math.sqrt(0.2) * z),
    "noise_scale": (
        ce.Langevin(0.1, noise_scale=0.3),
        lambda t, x, z: x - 0.1 * quartic_gradient(x) + 0.3 * math.sqrt(0.2) * z,
    ),
    "noise_std": (ce.Langevin(0.5, noise_std=0.01), lambda t, x, z: x - 0.5 * quartic_gradient(x) + 0.01 * z),
    "no noise": (ce.Langevin(0.1, noise_scale=0.0), lambda t, x, z: x - 0.1 * quartic_gradient(x)),
    "clamp": (
        ce.Langevin(0.1, clamp=(-0.4, 0.7)),
        lambda t, x, z: (x - 0.1 * quartic_gradient(x) + math.sqrt(0.2) * z).clamp(-0.4, 0.7),
    ),
    "grad_clip": (
        ce.Langevin(0.1, grad_clip=0.8),
        lambda t, x, z: x - 0.1 * clipped(quartic_gradient(x), 0.8) + math.sqrt(0.2) * z,
    ),
    "clamp and grad_clip": (
        ce.Langevin(0.2, noise_std=0.5, clamp=(-1, 1), grad_clip=1.5),
        lambda t, x, z: (x - 0.2 * clipped(quartic_gradient(x), 1.5) + 0.5 * z).clamp(-1, 1),
    ),
    "schedules": (
        ce.Langevin(schedules.Linear(0.1, 0.02, 8), noise_scale=schedules.Exponential(1.0, 0.5)),
        lambda t, x, z: (
            x
            - (0.1 - 0.01 * t) * quartic_gradient(x)
            + math.exp(t * math.log(0.5)) * math.sqrt(2 * (0.1 - 0.01 * t)) * z
        ),
    ),
    "scheduled noise_std": (
        ce.Langevin(0.05, noise_std=lambda step: 0.1 / (1 + step)),
        lambda t, x, z: x - 0.05 * quartic_gradient(x) + 0.1 / (1 + t) * z,
    ),
}


@functools.cache
def exact(name: str) -> ce.Sampler:
    """A float64 sampler of the transition, shared by tests that only run it."""
    return ce.build_sampler(quartic, STEPS[name][0], EVENT, backend="eager", dtype=DOUBLE)


@pytest.mark.parametrize("n_steps", [1, 5])
@pytest.mark.parametrize("name", STEPS)
def test_steps_against_the_formula(name: str, n_steps: int) -> None:
    """float64, where five steps differ by the order of the additions alone."""
    sampler, move = exact(name), STEPS[name][1]
    x0 = start()
    state = sampler.run(sampler.init(x0, seed=SEED), n_steps).state
    want = by_hand(x0, range(n_steps), move)
    assert torch.allclose(state.x, want, rtol=1e-12, atol=1e-12)
    assert torch.allclose(state.energy, quartic(want), rtol=1e-11, atol=1e-11)
    assert state.step == n_steps
    if name != "plain" and n_steps > 1:  # the option does show
        assert not torch.allclose(by_hand(x0, range(n_steps), STEPS["plain"][1]), want, rtol=1e-3, atol=1e-3)


def test_schedules_and_noise_start_at_first_step() -> None:
    sampler, move = exact("schedules"), STEPS["schedules"][1]
    x0 = start()
    late = sampler.run(sampler.init(x0, seed=SEED, first_step=5), 3).state
    assert torch.allclose(late.x, by_hand(x0, range(5, 8), move), rtol=1e-12, atol=1e-12)
    assert late.step == 8


def test_the_last_steps_of_the_counter() -> None:
    """Step 2^32 - 1 is the last: beyond, noise would repeat."""
    sampler = exact("plain")
    x0 = start()
    state = sampler.init(x0, seed=SEED, first_step=2**32 - 2)
    last = sampler.run(state, 2).state
    want = by_hand(x0, range(2**32 - 2, 2**32), STEPS["plain"][1])
    assert torch.allclose(last.x, want, rtol=1e-12, atol=1e-12)
    with pytest.raises(ValueError, match="n_steps: expected an integer from 0 to 2, got 3"):
        sampler.run(state, 3)


@pytest.mark.parametrize("ids", [0, 2**31, 2**32 - 3, 2**40, 2**63 - 20], ids=hex)
@pytest.mark.parametrize("seed", [0, 2**32 - 1, 2**63, 2**64 - 1, -1], ids=hex)
def test_noise_is_that_of_seed_and_global_chain_ids(seed: int, ids: int) -> None:
    sampler = exact("noise_std")
    x0 = start()
    moved = sampler.run(sampler.init(x0, seed=seed, first_chain=ids), 1).state
    signed = seed - 2**64 if seed >= 2**63 else seed
    chains = torch.tensor(ids) + torch.arange(20)
    want = x0 - 0.5 * quartic_gradient(x0) + 0.01 * noise(signed, 0, chains, EVENT, DOUBLE)
    assert torch.allclose(moved.x, want, rtol=1e-12, atol=1e-12)


# -- TorchEBM --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["double-well", "rosenbrock", "mixture", "mlp", "lattice"])
def test_drift_agrees_with_torchebm(name: str) -> None:
    """Twenty noiseless steps in float32; relative to how far the chains have moved."""
    samplers = pytest.importorskip("torchebm.samplers")
    core = pytest.importorskip("torchebm.core")
    case = BY_NAME[name]
    energy = case.make()

    class TheirModel(core.BaseModel):
        def forward(self, x: Tensor) -> Tensor:
            return energy(x)

    x0 = case.x0(64)
    sampler = ce.build_sampler(energy, ce.Langevin(case.step_size, noise_scale=1e-12), case.event, backend="eager")
    ours = sampler.run(sampler.init(x0), 20).state.x
    theirs = samplers.LangevinDynamics(model=TheirModel(), step_size=case.step_size, noise_scale=1e-12)
    reached = theirs.sample(x=x0.clone(), n_steps=20).detach()
    moved = float((reached - x0).norm())
    assert moved > 0
    assert float((ours - reached).norm()) < 1e-5 * moved
    sampler.transition = ce.Langevin(0.999 * case.step_size, noise_scale=1e-12)  # the control
    assert float((sampler.run(sampler.init(x0), 20).state.x - reached).norm()) > 1e-5 * moved


# -- the stationary law ----------------------------------------------------------------------------------------------

N_CHAINS, DIM = 10_000, 4
N_SAMPLES = N_CHAINS * DIM
RELATIVE_ERROR = math.sqrt(2 / N_SAMPLES)
"""Standard error of the variance of this many independent normals, relative to it: 0.7%."""


@functools.cache
def harmonic(k: float) -> ce.Sampler:
    return ce.build_sampler(ce.HarmonicModel(k), ce.Langevin(0.5), (DIM,), backend="eager")


def stationary(k: float, eta: float, scale: float = 1.0, thin: int | None = None, n_steps: int = 60) -> ce.RunResult:
    """Chains of E = k x^2 / 2, which forget where they began by |1 - eta k|^n_steps: under 1e-5 for what is tested."""
    assert abs(1 - eta * k) ** 60 < 1e-5
    sampler = harmonic(k)
    sampler.transition = ce.Langevin(eta, noise_scale=scale)
    state = sampler.run(sampler.init(n_chains=N_CHAINS, seed=31), n_steps).state
    return sampler.run(state, 3 if thin else 0, thin)


@pytest.mark.parametrize(
    ("k", "eta", "scale"), [(1.0, 0.5, 1.0), (2.0, 0.2, 1.0), (4.0, 0.4, 1.0), (1.0, 1.0, 0.5), (0.5, 0.8, 2.0)]
)
def test_variance_is_that_of_the_discretised_law(k: float, eta: float, scale: float) -> None:
    """s^2 / (k (1 - eta k / 2)), and not the s^2 / k of the continuous law: that is the negative control."""
    x = stationary(k, eta, scale).state.x.double()
    variance = float(x.square().mean())
    exact = scale**2 / (k * (1 - eta * k / 2))
    assert abs(variance - exact) < SIGMAS * RELATIVE_ERROR * exact
    assert abs(variance - scale**2 / k) > SIGMAS * RELATIVE_ERROR * exact
    assert abs(float(x.mean())) < SIGMAS * math.sqrt(exact / N_SAMPLES)


def test_the_stationary_law_is_normal_and_mixes_at_the_right_rate() -> None:
    """Kolmogorov-Smirnov at p = 5.7e-7; the correlation of successive steps is 1 - eta k, to 5 (1 - r^2) / sqrt(N)."""
    k, eta = 1.0, 0.5
    draws = stationary(k, eta, thin=1).draws.double() * math.sqrt(k * (1 - eta * k / 2))
    z = draws[:, -1].flatten().sort().values
    ranks = torch.arange(N_SAMPLES + 1, dtype=DOUBLE) / N_SAMPLES
    critical = scipy.special.kolmogi(2 * scipy.stats.norm.sf(SIGMAS)) / math.sqrt(N_SAMPLES)

    def distance(z: Tensor) -> float:
        cdf = torch.special.ndtr(z)
        return max(float((cdf - ranks[:-1]).max()), float((ranks[1:] - cdf).max()))

    assert distance(z) < critical
    assert distance(1.06 * z) > critical  # the control
    for lag in (1, 2):
        rate = (1 - eta * k) ** lag
        correlation = float((draws[:, -1] * draws[:, -1 - lag]).mean())
        assert abs(correlation - rate) < SIGMAS * math.sqrt((1 + rate**2) / N_SAMPLES)


def test_neighbouring_chains_and_seeds_are_independent() -> None:
    sampler = harmonic(1.0)
    sampler.transition = ce.Langevin(0.5)
    one, two = (sampler.run(sampler.init(n_chains=N_CHAINS, seed=s), 40).state.x.double() for s in (5, 6))
    for a, b in ((one, two), (one, one.roll(1, 0)), (one, one.roll(1, 1))):
        correlation = float((a * b).mean() / a.square().mean())
        assert abs(correlation) < SIGMAS / math.sqrt(N_SAMPLES)


# -- half precision --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_diffuses_at_the_right_rate(dtype: torch.dtype) -> None:
    """One step of sqrt(2e-5) = 0.0045 at x = 1 is half a unit of bfloat16: rounded to it at every step, it is lost.

    After n steps the variance is 2 eta n; 16,384 independent samples give it to 1.1%.
    """
    eta, n_steps, n = 1e-5, 400, 4096
    sampler = ce.build_sampler(
        lambda x: 1e-3 * x.square().sum(-1), ce.Langevin(eta), (DIM,), backend="eager", dtype=dtype
    )
    state = sampler.run(sampler.init(torch.ones(n, DIM, dtype=dtype), seed=2), n_steps).state
    assert state.x.dtype == dtype and state.positions.dtype == torch.float32
    error = SIGMAS * math.sqrt(2 / (n * DIM))
    expected = 2 * eta * n_steps
    assert abs(float((state.positions - 1).square().mean()) / expected - 1) < error
    # handing out in half precision adds its own rounding, a uniform of width eps or eps / 2, and no more
    assert float((state.x.float() - state.positions).abs().max()) <= torch.finfo(dtype).eps
    if dtype == torch.bfloat16:  # the control: positions carried in bfloat16
        x = torch.ones(n, DIM, dtype=dtype)
        for step in range(n_steps):
            x = (x.float() + math.sqrt(2 * eta) * noise(2, step, torch.arange(n), (DIM,), torch.float32)).to(dtype)
        assert abs(float((x.float() - 1).square().mean()) / expected - 1) > error


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_small_drifts_are_not_rounded_away(dtype: torch.dtype) -> None:
    """E = 3 sum x moves x by exactly -3 eta a step; at x = 1 that is 250 times below bfloat16's resolution."""
    sampler = ce.build_sampler(
        lambda x: 3 * x.sum(-1), ce.Langevin(1e-5, noise_scale=0.0), (DIM,), backend="eager", dtype=dtype
    )
    state = sampler.init(torch.ones(4, DIM, dtype=dtype))
    for _ in range(4):
        state = sampler.run(state, 50).state
    assert torch.allclose(
        1 - state.positions, torch.tensor(3e-5 * 200), rtol=200 * torch.finfo(torch.float32).eps / 6e-3
    )


# -- arguments -------------------------------------------------------------------------------------------------------

NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("arguments", "error", "name"),
    [
        ({"step_size": 0.0}, ValueError, "step_size"),
        ({"step_size": -0.1}, ValueError, "step_size"),
        ({"step_size": NAN}, ValueError, "step_size"),
        ({"step_size": INF}, ValueError, "step_size"),
        ({"step_size": "0.1"}, TypeError, "step_size"),
        ({"step_size": None}, TypeError, "step_size"),
        ({"step_size": lambda step: -1.0}, ValueError, "step_size"),
        ({"step_size": lambda step: NAN}, ValueError, "step_size"),
        ({"noise_scale": -1.0}, ValueError, "noise_scale"),
        ({"noise_scale": NAN}, ValueError, "noise_scale"),
        ({"noise_scale": "1"}, TypeError, "noise_scale"),
        ({"noise_std": -1e-3}, ValueError, "noise_std"),
        ({"noise_std": INF}, ValueError, "noise_std"),
        ({"noise_scale": 1.0, "noise_std": 0.01}, ValueError, "noise_scale, noise_std"),
        ({"clamp": (1.0, -1.0)}, ValueError, "clamp"),
        ({"clamp": (1.0, 1.0)}, ValueError, "clamp"),
        ({"clamp": (0.0, NAN)}, ValueError, "clamp"),
        ({"clamp": 1.0}, TypeError, "clamp"),
        ({"clamp": (0.0, 0.5, 1.0)}, TypeError, "clamp"),
        ({"clamp": ("a", "b")}, TypeError, "clamp"),
        ({"grad_clip": 0.0}, ValueError, "grad_clip"),
        ({"grad_clip": -1.0}, ValueError, "grad_clip"),
        ({"grad_clip": NAN}, ValueError, "grad_clip"),
        ({"grad_clip": INF}, ValueError, "grad_clip"),
        ({"grad_clip": "1"}, TypeError, "grad_clip"),
        ({"grad_clip": True}, TypeError, "grad_clip"),
    ],
)
def test_wrong_arguments_are_named(arguments: dict[str, Any], error: type[Exception], name: str) -> None:
    with pytest.raises(error, match=rf"^{name}: ") as caught:
        ce.Langevin(**arguments)
    assert "got" in str(caught.value)


def test_negative_control_right_arguments_are_taken() -> None:
    for arguments in (
        {"step_size": 1e-9, "noise_scale": 0},
        {"noise_std": 0.0, "clamp": [-1, 1], "grad_clip": 3},
        {"step_size": schedules.Constant(0.1), "clamp": (-INF, 0.0)},
    ):
        assert ce.Langevin(**arguments).hyper_table(0, 3).step_size.shape == (3,)


def test_a_schedule_that_goes_wrong_later_is_refused_before_any_step() -> None:
    calls = []

    def energy(x: Tensor) -> Tensor:
        calls.append(len(x))
        return x.square().sum(-1)

    sampler = ce.build_sampler(energy, ce.Langevin(lambda step: 0.1 if step < 7 else -0.1), (2,), backend="eager")
    state = sampler.run(sampler.init(n_chains=2), 7).state
    before = len(calls)
    with pytest.raises(ValueError, match=r"step_size.*step 7"):
        sampler.run(state, 1)
    assert len(calls) == before


def test_schedules_never_rebuild() -> None:
    case = BY_NAME["double-well"]
    sampler = ce.build_sampler(case.make(), ce.Langevin(0.01), case.event, backend="eager")
    x0 = case.x0(16)
    for transition in (
        ce.Langevin(schedules.Cosine(0.02, 0.0001, 10)),
        ce.Langevin(lambda step: 0.01 / (1 + step), noise_scale=0.5),
        ce.Langevin(0.003, noise_std=schedules.Geometric(1.0, 0.1, 5)),
    ):
        sampler.transition = transition
        fresh = ce.build_sampler(case.make(), transition, case.event, backend="eager")
        got, want = (s.run(s.init(x0, seed=1), 12).state for s in (sampler, fresh))
        assert torch.equal(got.positions, want.positions)
    assert sampler._builds.count == 1
    assert torch.allclose(traced_energy(sampler, x0), case.make()(x0), rtol=1e-6)


@pytest.mark.parametrize(
    ("transition", "text"),
    [
        (ce.Langevin(0.1), "Langevin(step_size=0.1, noise_scale=1.0)"),
        (ce.Langevin(0.1, noise_scale=0.0), "Langevin(step_size=0.1, noise_scale=0.0)"),
        (ce.Langevin(1.0, noise_std=0.01, clamp=(0, 1)), "Langevin(step_size=1.0, noise_std=0.01, clamp=(0.0, 1.0))"),
        (
            ce.Langevin(schedules.Linear(0.1, 0.01, 5), grad_clip=3.0),
            "Langevin(step_size=Linear(start=0.1, end=0.01, n_steps=5), noise_scale=1.0, grad_clip=3.0)",
        ),
    ],
)
def test_text_shows_what_is_set(transition: ce.Langevin, text: str) -> None:
    assert str(transition) == text
    sampler = ce.build_sampler(ce.HarmonicModel(), transition, (2,), backend="eager")
    assert text in sampler.explain() and text in repr(sampler)
    assert "grad_clip=" in repr(transition) and "noise_std=" in repr(transition)  # all fields: it can be evaluated
