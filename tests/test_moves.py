"""Moves: steps by hand, leapfrog's geometry, what is rejected, what is told, live vectors, backends, ladders."""

from __future__ import annotations

import functools
import io
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
from cases import BY_NAME, SEED, builds, noise, same_bits, same_state
from loop_transitions import Leapfrog
from torch import Tensor, nn

import compiled_ebm as ce
from compiled_ebm import rng, runloop, schedules
from compiled_ebm.backends.fused import toolchain
from compiled_ebm.transitions.hmc import HMCState, leapfrog

DOUBLE = torch.float64
EVENT = (3, 2)
slow = pytest.mark.slow
needs_compiler = pytest.mark.skipif(toolchain.why_unavailable() is not None, reason="needs a C++ compiler")
BACKENDS = ["eager", pytest.param("fused", marks=needs_compiler)]
NAN, INF = float("nan"), float("inf")


# -- by hand ---------------------------------------------------------------------------------------------------------


class Hand(NamedTuple):
    """An energy of ``[n, *event]`` and its gradient, written by hand."""

    energy: Callable[[Tensor], Tensor]
    gradient: Callable[[Tensor], Tensor]


class Path(NamedTuple):
    """Where chains have been after each step, and how each step was decided; ``auxiliary`` is what else they carry."""

    draws: Tensor
    """``[n, n_steps, *event]``"""
    log_ratio: Tensor
    """``[n, n_steps]``; empty where nothing is decided."""
    accepted: Tensor
    auxiliary: Tensor

    @property
    def x(self) -> Tensor:
        return self.draws[:, -1]


Numbers = Callable[[int], float]
Run = Callable[[Tensor, range, Hand], Path]
Proposal = Callable[[int, Tensor, Tensor, Tensor, Hand], tuple[Tensor, Tensor]]
Update = Callable[[int, Tensor, Tensor, Tensor, Hand], tuple[Tensor, Tensor]]


def quartic(x: Tensor) -> Tensor:
    return (0.25 * x.pow(4) - 0.5 * x.square()).sum((1, 2)) + x[:, 0].prod(-1)


def quartic_gradient(x: Tensor) -> Tensor:
    gradient = x.pow(3) - x
    gradient[:, 0] += x[:, 0].flip(-1)
    return gradient


QUARTIC = Hand(quartic, quartic_gradient)


def start(n: int = 40) -> Tensor:
    return torch.randn(n, *EVENT, generator=torch.Generator().manual_seed(4), dtype=DOUBLE)


def drawn(x: Tensor, step: int, n_normals: int, n_uniforms: int) -> tuple[Tensor, Tensor]:
    """The numbers of one step of chains 0, 1, ..., float64: normals as a move sees them, and ``[n, n_uniforms]``."""
    ids, event = torch.arange(len(x)), tuple(x.shape[1:])
    z = noise(SEED, step, ids, event if n_normals == 1 else (n_normals, *event), DOUBLE)
    return z, rng.uniforms(torch.tensor(SEED), torch.tensor(step), ids, n_uniforms, dtype=DOUBLE)


def per_chain(values: Tensor, x: Tensor) -> Tensor:
    return values.reshape(len(x), *(1,) * (x.ndim - 1))


def metropolis(propose: Proposal, n_normals: int = 1) -> Run:
    """Accept where log u <= log r, which must be finite, and the proposal's energy too."""

    def run(x: Tensor, steps: range, hand: Hand) -> Path:
        draws: list[Tensor] = []
        ratios: list[Tensor] = []
        accepted: list[Tensor] = []
        for step in steps:
            z, u = drawn(x, step, n_normals, 2)
            new, log_ratio = propose(step, x, z, u, hand)
            log_ratio = torch.where(hand.energy(new).isfinite(), log_ratio, NAN)
            accept = log_ratio.isfinite() & (u[:, 0].log() <= log_ratio)
            x = torch.where(per_chain(accept, x), new, x)
            for seen, value in ((draws, x), (ratios, log_ratio), (accepted, accept)):
                seen.append(value)
        return Path(torch.stack(draws, 1), torch.stack(ratios, 1), torch.stack(accepted, 1), torch.empty(0))

    return run


def always(update: Update) -> Run:
    """Moves without a decision: ``update(step, x, auxiliary, z, hand)``, the auxiliary 0 at the start."""

    def run(x: Tensor, steps: range, hand: Hand, auxiliary: Tensor | None = None) -> Path:
        auxiliary = torch.zeros_like(x) if auxiliary is None else auxiliary
        draws = []
        for step in steps:
            x, auxiliary = update(step, x, auxiliary, drawn(x, step, 1, 1)[0], hand)
            draws.append(x)
        return Path(torch.stack(draws, 1), torch.empty(0), torch.empty(0), auxiliary)

    return run


def fixed_at(value: float) -> Numbers:
    return lambda step: value


ONE, UNIT = fixed_at(1.0), torch.ones((), dtype=DOUBLE)


def log_normal(x: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
    """But for what does not depend on x and mean."""
    return -0.5 * ((x - mean).square() / variance).flatten(1).sum(1)


def mala(eta: Numbers, diagonal: Tensor = UNIT, temperature: Numbers = ONE) -> Proposal:
    """By the densities of the proposal there and back."""

    def propose(t: int, x: Tensor, z: Tensor, u: Tensor, hand: Hand) -> tuple[Tensor, Tensor]:
        beta, variance = 1 / temperature(t), 2 * eta(t) * diagonal

        def mean(x: Tensor) -> Tensor:
            return x - eta(t) * beta * diagonal * hand.gradient(x)

        new = mean(x) + variance.sqrt() * z
        ways = log_normal(x, mean(new), variance) - log_normal(new, mean(x), variance)
        return new, beta * (hand.energy(x) - hand.energy(new)) + ways

    return propose


def hmc(
    epsilon: Numbers, rounds: int, mass: Tensor = UNIT, temperature: Numbers = ONE, jitter: float = 0.0
) -> Proposal:
    """Both half kicks in every round."""

    def propose(t: int, x: Tensor, z: Tensor, u: Tensor, hand: Hand) -> tuple[Tensor, Tensor]:
        h = per_chain(epsilon(t) * (1 + jitter * (2 * u[:, 1] - 1)), x)
        new, p, beta = x, mass.sqrt() * z, 1 / temperature(t)

        def hamiltonian(x: Tensor, p: Tensor) -> Tensor:
            return beta * hand.energy(x) + 0.5 * (p.square() / mass).flatten(1).sum(1)

        before = hamiltonian(new, p)
        for _ in range(rounds):
            p = p - 0.5 * h * beta * hand.gradient(new)
            new = new + h * p / mass
            p = p - 0.5 * h * beta * hand.gradient(new)
        return new, before - hamiltonian(new, p)

    return propose


def walk(epsilon: Numbers, temperature: Numbers = ONE) -> Proposal:
    def propose(t: int, x: Tensor, z: Tensor, u: Tensor, hand: Hand) -> tuple[Tensor, Tensor]:
        new = x + epsilon(t) * z
        return new, (hand.energy(x) - hand.energy(new)) / temperature(t)

    return propose


def barker(epsilon: Numbers, temperature: Numbers = ONE) -> Proposal:
    """The density of a step d is that of a normal times 2 / (1 + exp(d g)), for each coordinate."""

    def propose(t: int, x: Tensor, z: Tensor, u: Tensor, hand: Hand) -> tuple[Tensor, Tensor]:
        beta, size = 1 / temperature(t), epsilon(t) * z[:, 0]

        def towards(x: Tensor, d: Tensor) -> Tensor:
            return 1 / (1 + (beta * d * hand.gradient(x)).exp())

        d = torch.where(torch.special.ndtr(-z[:, 1]) < towards(x, size), size, -size)
        ways = (towards(x + d, -d).log() - towards(x, d).log()).flatten(1).sum(1)
        return x + d, beta * (hand.energy(x) - hand.energy(x + d)) + ways

    return propose


def baoab(h: Numbers, friction: Numbers, mass: Tensor = UNIT, temperature: Numbers = ONE) -> Update:
    def update(t: int, x: Tensor, p: Tensor, z: Tensor, hand: Hand) -> tuple[Tensor, Tensor]:
        damping = math.exp(-friction(t) * h(t))
        p = p - 0.5 * h(t) * hand.gradient(x)
        x = x + 0.5 * h(t) * p / mass
        p = damping * p + (temperature(t) * (1 - damping**2) * mass).sqrt() * z
        x = x + 0.5 * h(t) * p / mass
        return x, p - 0.5 * h(t) * hand.gradient(x)

    return update


def preconditioned(eta: Numbers, diagonal: Tensor = UNIT, temperature: Numbers = ONE) -> Update:
    def update(t: int, x: Tensor, unused: Tensor, z: Tensor, hand: Hand) -> tuple[Tensor, Tensor]:
        kick = (2 * eta(t) * temperature(t) * diagonal).sqrt() * z
        return x - eta(t) * diagonal * hand.gradient(x) + kick, unused

    return update


def descent(eta: Numbers, momentum: float = 0.0) -> Update:
    def update(t: int, x: Tensor, v: Tensor, z: Tensor, hand: Hand) -> tuple[Tensor, Tensor]:
        v = momentum * v - eta(t) * hand.gradient(x + momentum * v)
        return x + v, v

    return update


DIAGONAL = torch.tensor([[0.5, 1.0], [2.0, 0.7], [1.3, 1.6]], dtype=DOUBLE)
SCALAR = torch.tensor(1.7, dtype=DOUBLE)
FALLING = schedules.Linear(0.4, 0.08, 8)


def falling(t: int) -> float:
    return 0.4 - 0.04 * t


def cooling(t: int) -> float:
    return 3.0 / (1 + t)


at = fixed_at
STEPS: dict[str, tuple[Any, Run]] = {
    "MALA": (ce.MALA(0.3), metropolis(mala(at(0.3)))),
    "MALA diagonal": (ce.MALA(0.3, DIAGONAL), metropolis(mala(at(0.3), DIAGONAL))),
    "MALA scalar": (ce.MALA(0.3, preconditioner=1.7), metropolis(mala(at(0.3), SCALAR))),
    "MALA temperature": (ce.MALA(0.3, temperature=2.5), metropolis(mala(at(0.3), temperature=at(2.5)))),
    "MALA all": (ce.MALA(FALLING, DIAGONAL, cooling), metropolis(mala(falling, DIAGONAL, cooling))),
    "HMC": (ce.HMC(0.5, 4), metropolis(hmc(at(0.5), 4))),
    "HMC 1": (ce.HMC(0.7, 1), metropolis(hmc(at(0.7), 1))),
    "HMC diagonal": (ce.HMC(0.5, 4, DIAGONAL), metropolis(hmc(at(0.5), 4, DIAGONAL))),
    "HMC scalar": (ce.HMC(0.5, 4, mass=1.7), metropolis(hmc(at(0.5), 4, SCALAR))),
    "HMC temperature": (ce.HMC(0.6, 4, temperature=2.5), metropolis(hmc(at(0.6), 4, temperature=at(2.5)))),
    "HMC jitter": (ce.HMC(0.5, 4, jitter=0.6), metropolis(hmc(at(0.5), 4, jitter=0.6))),
    "HMC all": (
        ce.HMC(schedules.Linear(0.8, 0.16, 8), 5, DIAGONAL, cooling, 0.3),
        metropolis(hmc(lambda t: 0.8 - 0.08 * t, 5, DIAGONAL, cooling, 0.3)),
    ),
    "RandomWalk": (ce.RandomWalk(0.5), metropolis(walk(at(0.5)))),
    "RandomWalk temperature": (ce.RandomWalk(0.5, 2.5), metropolis(walk(at(0.5), at(2.5)))),
    "RandomWalk all": (ce.RandomWalk(FALLING, cooling), metropolis(walk(falling, cooling))),
    "Barker": (ce.Barker(0.7), metropolis(barker(at(0.7)), 2)),
    "Barker temperature": (ce.Barker(0.7, 2.5), metropolis(barker(at(0.7), at(2.5)), 2)),
    "Barker all": (ce.Barker(FALLING, cooling), metropolis(barker(falling, cooling), 2)),
    "UnderdampedLangevin": (ce.UnderdampedLangevin(0.3, 1.5), always(baoab(at(0.3), at(1.5)))),
    "UnderdampedLangevin diagonal": (
        ce.UnderdampedLangevin(0.3, 1.5, DIAGONAL),
        always(baoab(at(0.3), at(1.5), DIAGONAL)),
    ),
    "UnderdampedLangevin scalar": (ce.UnderdampedLangevin(0.3, 1.5, 1.7), always(baoab(at(0.3), at(1.5), SCALAR))),
    "UnderdampedLangevin without friction": (ce.UnderdampedLangevin(0.3, 0.0), always(baoab(at(0.3), at(0.0)))),
    "UnderdampedLangevin all": (
        ce.UnderdampedLangevin(FALLING, lambda t: 0.5 + t, DIAGONAL, cooling),
        always(baoab(falling, lambda t: 0.5 + t, DIAGONAL, cooling)),
    ),
    "PreconditionedLangevin": (ce.PreconditionedLangevin(0.1), always(preconditioned(at(0.1)))),
    "PreconditionedLangevin diagonal": (
        ce.PreconditionedLangevin(0.1, DIAGONAL),
        always(preconditioned(at(0.1), DIAGONAL)),
    ),
    "PreconditionedLangevin scalar": (ce.PreconditionedLangevin(0.1, 1.7), always(preconditioned(at(0.1), SCALAR))),
    "PreconditionedLangevin all": (
        ce.PreconditionedLangevin(schedules.Linear(0.1, 0.02, 8), DIAGONAL, cooling),
        always(preconditioned(lambda t: 0.1 - 0.01 * t, DIAGONAL, cooling)),
    ),
    "GradientDescent": (ce.GradientDescent(0.1), always(descent(at(0.1)))),
    "GradientDescent schedule": (ce.GradientDescent(FALLING), always(descent(falling))),
    "Nesterov": (ce.Nesterov(0.1), always(descent(at(0.1), 0.9))),
    "Nesterov momentum": (ce.Nesterov(0.1, momentum=0.5), always(descent(at(0.1), 0.5))),
    "Nesterov schedule": (ce.Nesterov(FALLING, 0.5), always(descent(falling, 0.5))),
}
DECIDED = [name for name in STEPS if name.split()[0] in ("MALA", "HMC", "RandomWalk", "Barker")]


@functools.cache
def exact(name: str) -> ce.Sampler:
    """A float64 sampler of the move on the quartic energy, shared by tests that only run it."""
    return ce.build_sampler(quartic, STEPS[name][0], EVENT, backend="eager", dtype=DOUBLE)


def carried(state: ce.ChainState) -> tuple[Tensor, ...]:
    assert state.carried is not None
    return state.carried


def kept(result: ce.RunResult) -> Tensor:
    assert result.draws is not None
    return result.draws


def told(result: ce.RunResult) -> dict[str, Tensor]:
    assert result.stats.info is not None
    return result.stats.info


def told_of_draws(result: ce.RunResult) -> dict[str, Tensor]:
    assert result.stats.info_draws is not None
    return result.stats.info_draws


def close(a: Tensor, b: Tensor, tolerance: float = 1e-12) -> bool:
    return torch.allclose(a, b, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("n_steps", [1, 3])
@pytest.mark.parametrize("name", STEPS)
def test_steps_against_the_formula(name: str, n_steps: int) -> None:
    """float64, where a few steps differ by the order of the additions alone."""
    sampler, run = exact(name), STEPS[name][1]
    x0 = start()
    state = sampler.run(sampler.init(x0, seed=SEED), n_steps).state
    want = run(x0, range(n_steps), QUARTIC)
    assert close(state.x, want.x)
    assert close(carried(state)[0], quartic(want.x), 1e-11)
    assert state.step == n_steps and state.n_failed == 0
    if name in DECIDED:
        assert 0 < int(want.accepted.sum()) < want.accepted.numel()
    if want.auxiliary.numel() and name.startswith(("Underdamped", "Nesterov")):
        assert close(carried(state)[-1], want.auxiliary)
    plain = name.split()[0]
    if name != plain and n_steps > 1:  # the option does show
        assert not torch.allclose(STEPS[plain][1](x0, range(n_steps), QUARTIC).x, want.x, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", DECIDED)
def test_decisions_are_told_as_they_were_made(name: str) -> None:
    sampler, run = exact(name), STEPS[name][1]
    x0, n_steps = start(), 3
    result = sampler.run(sampler.init(x0, seed=SEED), n_steps, thin=1, info=True)
    want = run(x0, range(n_steps), QUARTIC)
    info = told_of_draws(result)
    assert close(kept(result), want.draws)
    assert torch.equal(info["accepted"], want.accepted.double())
    assert close(info["acceptance"], want.log_ratio.clamp(max=0).exp(), 1e-10)
    assert torch.equal(info["divergent"], (want.log_ratio < -1000).double())
    assert close(info["energy"], torch.stack([quartic(x) for x in want.draws.unbind(1)], 1), 1e-11)


@pytest.mark.parametrize("name", ["HMC all", "Barker all", "UnderdampedLangevin all"])
def test_schedules_and_noise_start_at_first_step_and_chain(name: str) -> None:
    sampler, run = exact(name), STEPS[name][1]
    x0 = start()
    late = sampler.run(sampler.init(x0[10:], seed=SEED, first_step=5, first_chain=10), 2).state
    assert close(late.x, run(x0, range(5, 7), QUARTIC).x[10:])
    assert late.step == 7


def test_a_schedule_of_the_temperature_never_rebuilds() -> None:
    sampler = ce.build_sampler(quartic, ce.HMC(0.5, 4), EVENT, backend="eager", dtype=DOUBLE)
    for name in ("HMC", "HMC temperature"):
        sampler.transition = STEPS[name][0]
        state = sampler.run(sampler.init(start(), seed=SEED), 2).state
        assert close(state.x, STEPS[name][1](start(), range(2), QUARTIC).x)
    sampler.transition = ce.HMC(FALLING, 4, temperature=cooling)
    state = sampler.run(sampler.init(start(), seed=SEED), 2).state
    assert close(state.x, metropolis(hmc(falling, 4, temperature=cooling))(start(), range(2), QUARTIC).x)
    assert builds(sampler) == 1


# -- leapfrog --------------------------------------------------------------------------------------------------------


class OneChain:
    """The quartic energy of one chain, differentiable by ``torch.func``."""

    def energy(self, x: Tensor) -> Tensor:
        return quartic(x.unsqueeze(0)).squeeze(0)

    def energy_and_grad(self, x: Tensor) -> tuple[Tensor, Tensor]:
        pairs = x[0].flip(-1)
        return self.energy(x), x.pow(3) - x + torch.cat([pairs.unsqueeze(0), torch.zeros_like(x[1:])])


TRAJECTORIES: dict[str, tuple[Tensor | None, float]] = {
    "plain": (None, 1.0),
    "mass": (DIAGONAL, 1.0),
    "mass and temperature": (DIAGONAL, 1 / 2.5),
}


def flown(x: Tensor, p: Tensor, h: float, rounds: int, name: str) -> tuple[Tensor, Tensor]:
    mass, force = TRAJECTORIES[name]
    target = OneChain()
    begin = HMCState(x, *target.energy_and_grad(x))
    end, p = leapfrog(begin, p, torch.tensor(h, dtype=DOUBLE), torch.tensor(force, dtype=DOUBLE), mass, rounds, target)
    return end.x, p


def hamiltonian(x: Tensor, p: Tensor, name: str) -> Tensor:
    mass, force = TRAJECTORIES[name]
    return force * OneChain().energy(x) + 0.5 * (p.square() / (1.0 if mass is None else mass)).sum()


@pytest.mark.parametrize("name", TRAJECTORIES)
def test_leapfrog_goes_back_where_it_came_from(name: str) -> None:
    for x, p in zip(start(6), start(12)[6:], strict=True):
        there, q = flown(x, p, 0.1, 20, name)
        assert float((there - x).abs().max()) > 0.1
        back, r = flown(there, q, -0.1, 20, name)
        assert close(back, x, 1e-10) and close(r, p, 1e-10)
        turned, r = flown(there, -q, 0.1, 20, name)
        assert close(turned, x, 1e-10) and close(r, -p, 1e-10)
        astray, _ = flown(there, q, 0.1, 20, name)  # the control
        assert not close(astray, x, 1e-2)


@pytest.mark.parametrize("name", TRAJECTORIES)
def test_leapfrog_conserves_energy_to_second_order(name: str) -> None:
    sizes = [0.1, 0.05, 0.025]
    pairs = list(zip(start(12), start(24)[12:], strict=True))
    errors = []
    for h in sizes:
        ends = [(hamiltonian(x, p, name), hamiltonian(*flown(x, p, h, round(1 / h), name), name)) for x, p in pairs]
        errors.append(math.sqrt(sum(float(b - a) ** 2 for a, b in ends) / len(ends)))
    slopes = [math.log2(a / b) for a, b in zip(errors, errors[1:], strict=False)]
    assert all(abs(slope - 2) < 0.2 for slope in slopes), (errors, slopes)


@pytest.mark.parametrize("name", TRAJECTORIES)
def test_leapfrog_preserves_volume(name: str) -> None:
    x, p = start(2)
    numel = x.numel()

    def moved(flat: Tensor) -> Tensor:
        ends = flown(flat[:numel].reshape(EVENT), flat[numel:].reshape(EVENT), 0.2, 7, name)
        return torch.cat([end.flatten() for end in ends])

    def euler(flat: Tensor) -> Tensor:
        q, r = flat[:numel].reshape(EVENT), flat[numel:]
        return torch.cat([flat[:numel] + 0.2 * r, r - 0.2 * OneChain().energy_and_grad(q)[1].flatten()])

    flat = torch.cat([x.flatten(), p.flatten()])
    assert abs(float(torch.linalg.det(torch.func.jacrev(moved)(flat))) - 1) < 1e-9
    assert abs(float(torch.linalg.det(torch.func.jacrev(euler)(flat))) - 1) > 1e-3  # the control


@needs_compiler
def test_long_trajectories_are_no_more_source_than_short_ones() -> None:
    sources, ends = [], []
    for rounds in (5, 100):
        fused, eager = (
            ce.build_sampler(quartic, ce.HMC(0.01, rounds, jitter=0.1), EVENT, backend=backend, dtype=DOUBLE)
            for backend in ("fused", "eager")
        )
        ends.append(fused.run(fused.init(start(), seed=SEED), 2).state.x)
        assert close(ends[-1], eager.run(eager.init(start(), seed=SEED), 2).state.x, 1e-11)
        sources.append(fused.source)
    assert len(sources[0]) > 1000 and abs(len(sources[1]) - len(sources[0])) < 50
    assert not close(ends[0], ends[1], 0.1)


# -- what is not finite ----------------------------------------------------------------------------------------------


def walled(x: Tensor) -> Tensor:
    """A normal density with NaN to the right, inf to the left, -inf above and a finite cliff below."""
    energy = 0.5 * x.square().sum(-1)
    energy = torch.where(x[:, 0] > 1.5, NAN, energy)
    energy = torch.where(x[:, 0] < -1.5, INF, energy)
    energy = torch.where(x[:, 1] > 1.5, -INF, energy)
    return torch.where(x[:, 1] < -1.5, 1e5, energy)


def walled_gradient(x: Tensor) -> Tensor:
    """0 where the energy is one of the constants."""
    return torch.where((x[:, :2].abs() <= 1.5).all(1, keepdim=True), x, 0.0)


def rooted(x: Tensor) -> Tensor:
    """NaN beyond 1.5, the gradient too."""
    return 0.5 * x.square().sum(-1) + (1.5 - x[:, 0]).sqrt()


def rooted_gradient(x: Tensor) -> Tensor:
    gradient = x.clone()
    gradient[:, 0] -= 0.5 / (1.5 - x[:, 0]).sqrt()
    return gradient


REGIONS = {"walls": Hand(walled, walled_gradient), "root": Hand(rooted, rooted_gradient)}
LEAPING: dict[str, tuple[Any, Run]] = {
    "MALA": (ce.MALA(0.4), metropolis(mala(at(0.4)))),
    "HMC": (ce.HMC(0.6, 3), metropolis(hmc(at(0.6), 3))),
    "RandomWalk": (ce.RandomWalk(0.8), metropolis(walk(at(0.8)))),
    "Barker": (ce.Barker(0.8), metropolis(barker(at(0.8)), 2)),
}


def within(n: int, dim: int = 3) -> Tensor:
    """Positions that all regions have finite energies at."""
    return 0.5 * torch.randn(n, dim, generator=torch.Generator().manual_seed(5), dtype=DOUBLE).clamp(-2, 2)


@functools.cache
def leaping(name: str, region: str, backend: str) -> ce.Sampler:
    return ce.build_sampler(REGIONS[region].energy, LEAPING[name][0], 3, backend=backend, dtype=DOUBLE)


@pytest.mark.parametrize(
    ("name", "backend", "region"),
    [
        pytest.param(
            name,
            backend,
            region,
            marks=[
                *([needs_compiler] if backend == "fused" else []),
                *([slow] if backend == "fused" and (region == "root") != (name == "HMC") else []),
            ],
        )
        for name in LEAPING
        for backend in ("eager", "fused")
        for region in REGIONS
    ],
)
def test_what_is_not_finite_is_rejected_and_counted(name: str, backend: str, region: str) -> None:
    """Against the decisions by hand: the chain stays bit for bit, none has failed, and nothing in it is not finite."""
    hand, sampler = REGIONS[region], leaping(name, region, backend)
    x0, n_steps = within(60), 25
    result = sampler.run(sampler.init(x0, seed=SEED), n_steps, thin=1, info=True)
    want = LEAPING[name][1](x0, range(n_steps), hand)
    info, draws = told_of_draws(result), kept(result)
    divergent = ~want.log_ratio.isfinite() | (want.log_ratio < -1000)
    assert 10 < int(divergent.sum()) < divergent.numel() / 2
    assert torch.equal(info["divergent"], divergent.double())
    assert torch.equal(info["accepted"], want.accepted.double())
    assert close(draws, want.draws, 1e-9)
    stayed = info["accepted"] == 0
    before = torch.cat([x0.unsqueeze(1), draws[:, :-1]], 1)
    assert same_bits(draws[stayed], before[stayed]) and not (draws[~stayed] == before[~stayed]).all(-1).any()
    assert result.state.n_failed == 0
    assert all(leaf.isfinite().all() for leaf in carried(result.state))
    assert (info["acceptance"][divergent] == 0).all()
    assert torch.allclose(told(result)["divergent"], divergent.double().mean(1), atol=1e-12)


@pytest.mark.parametrize("backend", BACKENDS)
def test_negative_control_nothing_diverges_without_walls_and_unadjusted_chains_fail_at_them(backend: str) -> None:
    free = ce.build_sampler(ce.HarmonicModel(), ce.MALA(0.4), 3, backend=backend, dtype=DOUBLE)
    result = free.run(free.init(within(60), seed=SEED), 25, info=True)
    assert float(told(result)["divergent"].sum()) == 0
    unadjusted = ce.build_sampler(walled, ce.PreconditionedLangevin(0.4), 3, backend=backend, dtype=DOUBLE)
    with pytest.warns(ce.NonFiniteChainWarning):
        failed = unadjusted.run(unadjusted.init(within(60), seed=SEED), 25).state
    assert 0 < failed.n_failed < 60


def test_a_ladder_rejects_at_walls_too() -> None:
    move: Any = ce.ReplicaExchange(ce.MALA(0.2), [1.0, 3.0, 9.0], swap_every=2)
    sampler = ce.build_sampler(walled, move, 3, backend="eager", dtype=DOUBLE)
    result = sampler.run(sampler.init(within(60), seed=SEED), 25, thin=1, info=True)
    assert result.state.n_failed == 0 and float(told(result)["divergent"].sum()) > 0
    assert walled(kept(result).flatten(0, 1)).isfinite().all()


# -- what is told ----------------------------------------------------------------------------------------------------


@functools.cache
def telling(backend: str) -> ce.Sampler:
    return ce.build_sampler(quartic, ce.MALA(0.3), EVENT, backend=backend, dtype=DOUBLE)


@pytest.mark.parametrize("backend", BACKENDS)
def test_means_are_those_of_the_steps(backend: str) -> None:
    sampler, n_steps = telling(backend), 12
    begin = sampler.init(start(), seed=SEED)
    every = sampler.run(begin, n_steps, thin=1, info=True)
    draws, info = kept(every), told_of_draws(every)
    assert set(info) == {"energy", "acceptance", "accepted", "divergent"}
    moved = (draws != torch.cat([start().unsqueeze(1), draws[:, :-1]], 1)).flatten(2).any(-1)
    assert torch.equal(info["accepted"], moved.double())
    assert close(info["energy"], torch.stack([quartic(x) for x in draws.unbind(1)], 1))
    for name, values in told(every).items():
        assert values.dtype == DOUBLE and close(values, info[name].mean(1))
    plain = sampler.run(begin, n_steps, info=True)
    for name, values in told(plain).items():
        assert close(values, info[name].mean(1), 1e-10)
    for thin in (4, 5):
        thinned = sampler.run(begin, n_steps, thin=thin, info=True)
        for name, values in told_of_draws(thinned).items():
            n_kept = n_steps // thin
            assert values.shape == (40, n_kept)
            assert close(values, info[name][:, : n_kept * thin].reshape(40, n_kept, thin).mean(-1), 1e-10)
            assert close(told(thinned)[name], info[name].mean(1), 1e-10)


@pytest.mark.parametrize("backend", BACKENDS)
def test_means_do_not_depend_on_launches_or_on_how_a_run_is_cut(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    sampler = telling(backend)
    begin = sampler.init(start(), seed=SEED)
    whole = sampler.run(begin, 12, thin=4, info=True)
    first = sampler.run(begin, 5, info=True)
    rest = sampler.run(first.state, 7, info=True)
    assert same_state(rest.state, whole.state)
    for name, values in told(whole).items():
        assert close(values, (5 * told(first)[name] + 7 * told(rest)[name]) / 12)
    monkeypatch.setattr(runloop, "MAX_LAUNCH_STEPS", 3)
    cut = sampler.run(begin, 12, thin=4, info=True)
    assert cut.stats.n_launches > whole.stats.n_launches
    assert same_state(cut.state, whole.state) and same_bits(kept(cut), kept(whole))
    for name in told(whole):
        assert close(told(cut)[name], told(whole)[name])
        assert close(told_of_draws(cut)[name], told_of_draws(whole)[name])


@pytest.mark.parametrize("name", ["MALA", "HMC jitter", "Barker", "UnderdampedLangevin diagonal", "Nesterov"])
def test_telling_changes_no_position(name: str) -> None:
    """Eagerly, where a tallied step is the same code; and a state goes on from one to the other."""
    sampler = exact(name)
    begin = sampler.init(start(), seed=SEED)
    silent = sampler.run(begin, 9, thin=1)
    tallied = sampler.run(begin, 9, thin=1, info=True)
    assert silent.stats.info is None and silent.stats.info_draws is None
    assert same_bits(kept(silent), kept(tallied))
    alternating = sampler.run(sampler.run(begin, 4).state, 5, info=True).state
    for a, b in zip(carried(alternating), carried(silent.state), strict=True):
        assert same_bits(a, b)
    assert same_bits(alternating.positions, silent.state.positions)


@pytest.mark.parametrize("backend", BACKENDS)
def test_means_of_chains_that_fail_are_over_their_life(backend: str) -> None:
    move = ce.PreconditionedLangevin(0.3)
    sampler = ce.build_sampler(walled, move, 3, backend=backend, dtype=DOUBLE)
    x0 = within(60)
    x0[7, 0] = 1.6
    begin = sampler.init(x0, seed=SEED)
    with pytest.warns(ce.NonFiniteChainWarning):
        result = sampler.run(begin, 20, thin=1, info=True)
    failed_at, draws = result.state.failed_at, kept(result)
    assert int(failed_at[7]) == 0 and 3 < result.state.n_failed < 60
    told_energy, told_energies = told(result)["energy"], told_of_draws(result)["energy"]
    for chain in range(60):
        life = int(failed_at[chain]) if failed_at[chain] >= 0 else 20
        energies = walled(draws[chain])
        assert close(told_energies[chain, :life], energies[:life])
        assert not told_energies[chain, life:].any()
        if life:
            assert close(told_energy[chain], energies[:life].mean())
        else:
            assert told_energy[chain].isnan()


def test_nothing_is_told_of_no_steps() -> None:
    sampler = exact("MALA")
    result = sampler.run(sampler.init(start(), seed=SEED), 0, thin=1, info=True)
    assert all(values.isnan().all() for values in told(result).values())
    assert all(values.shape == (40, 0) for values in told_of_draws(result).values())


def test_a_move_that_tells_nothing_is_named() -> None:
    sampler = ce.build_sampler(quartic, Leapfrog(2), EVENT, backend="eager")
    state = sampler.init(n_chains=4)
    with pytest.raises(ValueError, match=r"^info: .*Leapfrog.*info_type"):
        sampler.run(state, 1, info=True)
    assert sampler.run(state, 1).stats.info is None


# -- live vectors ----------------------------------------------------------------------------------------------------


OTHER = torch.tensor([[2.0, 0.4], [0.9, 1.5], [0.6, 1.1]], dtype=DOUBLE)
Vector = float | Tensor | None
LIVE: dict[str, tuple[str, Callable[[Vector], Any]]] = {
    "HMC": ("mass", lambda v: ce.HMC(0.3, 3, mass=v)),
    "MALA": ("preconditioner", lambda v: ce.MALA(0.1, preconditioner=v)),
    "UnderdampedLangevin": ("mass", lambda v: ce.UnderdampedLangevin(0.2, mass=v)),
    "PreconditionedLangevin": ("preconditioner", lambda v: ce.PreconditionedLangevin(0.05, preconditioner=v)),
    "ReplicaExchange": ("mass", lambda v: ce.ReplicaExchange(ce.HMC(0.3, 3, mass=v), [1.0, 2.0], swap_every=2)),
}


@pytest.mark.parametrize(
    ("name", "backend", "dtype"),
    [
        pytest.param(
            name,
            backend,
            dtype,
            id=f"{name}-{backend}-{dtype}",
            marks=[
                *([needs_compiler] if backend == "fused" else []),
                *([slow] if backend == "fused" and (name != "ReplicaExchange" or dtype == DOUBLE) else []),
            ],
        )
        for name in LIVE
        for backend in ("eager", "fused")
        for dtype in (torch.float32, DOUBLE)
    ],
)
def test_a_vector_is_live(name: str, backend: str, dtype: torch.dtype) -> None:
    """Another one changes the result to that of a sampler built with it, and nothing is built anew."""
    make = LIVE[name][1]

    def built(vector: Vector) -> ce.Sampler:
        return ce.build_sampler(quartic, make(vector), EVENT, backend=backend, dtype=dtype)

    def after(sampler: ce.Sampler) -> Tensor:
        return sampler.run(sampler.init(start().to(dtype), seed=SEED), 4).state.x

    sampler = built(DIAGONAL)
    before = after(sampler)
    sampler.transition = make(OTHER)
    changed, fresh = after(sampler), after(built(OTHER))
    assert same_bits(changed, fresh)
    assert not torch.allclose(changed, before, atol=1e-3)
    sampler.transition = make(1.7)
    assert same_bits(after(sampler), after(built(torch.full(EVENT, 1.7, dtype=DOUBLE))))
    sampler.transition = make(DIAGONAL)
    assert same_bits(after(sampler), before)
    assert builds(sampler) == 1


@pytest.mark.parametrize("name", LIVE)
def test_a_vector_of_another_shape_is_refused(name: str) -> None:
    field, make = LIVE[name]
    sampler = ce.build_sampler(quartic, make(DIAGONAL), EVENT, backend="eager", dtype=DOUBLE)
    state = sampler.init(start(), seed=SEED)
    before = sampler.run(state, 2).state
    for wrong in (torch.ones(3), torch.ones(2, 3), torch.ones(1, 3, 2)):
        with pytest.raises(ValueError, match=rf"^{field}: .*\[3, 2\].*got \[{wrong.shape[0]}"):
            sampler.transition = make(wrong)
        with pytest.raises(ValueError, match=rf"^{field}: "):
            ce.build_sampler(quartic, make(wrong), EVENT, backend="eager")
    assert same_state(sampler.run(state, 2).state, before)
    with pytest.raises(ValueError, match=r"^transition: .*differs from"):
        sampler.transition = make(None)
    plain = ce.build_sampler(quartic, make(None), EVENT, backend="eager", dtype=DOUBLE)
    with pytest.raises(ValueError, match=r"^transition: .*differs from"):
        plain.transition = make(DIAGONAL)


def test_a_move_keeps_its_own_copy_of_a_vector() -> None:
    given = DIAGONAL.clone()
    sampler = ce.build_sampler(quartic, ce.HMC(0.3, 3, mass=given), EVENT, backend="eager", dtype=DOUBLE)
    begin = sampler.init(start(), seed=SEED)
    before = sampler.run(begin, 2).state
    given.mul_(3)
    assert same_state(sampler.run(begin, 2).state, before)


@pytest.mark.parametrize(
    ("name", "other"), [("HMC", ce.HMC(0.5, 5)), ("HMC", ce.HMC(0.5, 4, jitter=0.1)), ("HMC", ce.MALA(0.1))]
)
def test_another_structure_is_refused(name: str, other: Any) -> None:
    with pytest.raises(ValueError, match=r"^transition: .*differs from"):
        exact(name).transition = other


# -- new weights -----------------------------------------------------------------------------------------------------


class Scaled(nn.Module):
    """The quartic energy times a weight."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones((), dtype=DOUBLE))

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * quartic(x)


DOUBLED = Hand(lambda x: 2 * quartic(x), lambda x: 2 * quartic_gradient(x))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", ["UnderdampedLangevin diagonal", "Nesterov"])
def test_what_is_no_function_of_x_survives_new_weights(name: str, backend: str) -> None:
    """Momentum and velocity go on as they were; energy and gradient are those of the new weights."""
    energy, (move, run) = Scaled(), STEPS[name]
    sampler = ce.build_sampler(energy, move, EVENT, backend=backend, dtype=DOUBLE)
    before = sampler.run(sampler.init(start(), seed=SEED), 3).state
    with torch.no_grad():
        energy.weight.mul_(2)
    same = sampler.run(before, 0).state
    assert same_bits(same.positions, before.positions)
    assert same_bits(carried(same)[-1], carried(before)[-1]) and carried(before)[-1].abs().min() > 0
    assert close(carried(same)[0], 2 * quartic(before.x))
    if len(carried(same)) == 3:
        assert close(carried(same)[1], 2 * quartic_gradient(before.x))
    after = sampler.run(before, 2).state
    path = run(start(), range(3), QUARTIC)
    update: Any = run
    want = update(path.x, range(3, 5), DOUBLED, path.auxiliary)
    assert close(after.x, want.x, 1e-11) and close(carried(after)[-1], want.auxiliary, 1e-11)
    at_rest = update(path.x, range(3, 5), DOUBLED, None)
    assert not close(after.x, at_rest.x, 1e-3)  # the control
    assert builds(sampler) == 1


def test_a_ladder_survives_new_weights() -> None:
    energy = Scaled()
    move: Any = ce.ReplicaExchange(ce.MALA(0.1), [1.0, 2.0], swap_every=1, step_sizes=[1.0, 1.5])
    sampler = ce.build_sampler(energy, move, EVENT, backend="eager", dtype=DOUBLE)
    before = sampler.run(sampler.init(start(), seed=SEED), 8).state
    assert not torch.equal(carried(before)[2], torch.tensor([1.0, 2.0], dtype=DOUBLE).repeat(20))
    with torch.no_grad():
        energy.weight.mul_(2)
    same = sampler.run(before, 0).state
    assert close(carried(same)[0], 2 * quartic(before.x)) and close(carried(same)[1], 2 * quartic_gradient(before.x))
    for a, b in zip(carried(same)[2:], carried(before)[2:], strict=True):
        assert same_bits(a, b)


def test_a_state_of_another_move_begins_at_rest() -> None:
    """MALA's gradient has the shape of Nesterov's velocity, and is none."""
    sampled = exact("MALA").run(exact("MALA").init(start(), seed=SEED), 3).state
    polished = exact("Nesterov").run(sampled, 4).state
    want = STEPS["Nesterov"][1](sampled.x, range(3, 7), QUARTIC)
    assert close(polished.x, want.x)


def test_a_state_of_another_ladder_begins_on_its_rungs() -> None:
    """Temperatures that the ladder in use does not have would sample no rung of it."""

    def ladder(hottest: float) -> ce.Sampler:
        move: Any = ce.ReplicaExchange(ce.MALA(0.1), [1.0, hottest], swap_every=2)
        return ce.build_sampler(quartic, move, EVENT, backend="eager", dtype=DOUBLE)

    state = ladder(2.0).run(ladder(2.0).init(start(), seed=SEED), 3).state
    result = ladder(4.0).run(state, 6, thin=1)
    assert result.stats.temperatures is not None
    assert set(result.stats.temperatures.flatten().tolist()) == {1.0, 4.0}
    assert result.at_temperature(4.0).shape == (20, 6, *EVENT)


# -- backends --------------------------------------------------------------------------------------------------------

N, N_STEPS = 48, 20
SIZES = {"mixture": 0.3, "mlp": 2.0, "lattice": 0.08, "scalar-chain": 0.02}
"""Steps at which some proposals of every move are rejected, and rounding is not amplified."""
MOVES: dict[str, Callable[[float, Tensor], Any]] = {
    "MALA": lambda h, vector: ce.MALA(2 * h, vector, 1.2),
    "HMC": lambda h, vector: ce.HMC(1.2 * math.sqrt(h), 4, vector, 1.2, jitter=0.2),
    "UnderdampedLangevin": lambda h, vector: ce.UnderdampedLangevin(math.sqrt(h / 2), 1.5, vector, 1.2),
    "PreconditionedLangevin": lambda h, vector: ce.PreconditionedLangevin(h / 4, vector, 1.2),
    "GradientDescent": lambda h, vector: ce.GradientDescent(h / 4),
    "Nesterov": lambda h, vector: ce.Nesterov(h / 8, 0.7),
    "RandomWalk": lambda h, vector: ce.RandomWalk(2 * math.sqrt(h), 1.2),
    "Barker": lambda h, vector: ce.Barker(2 * math.sqrt(h), 1.2),
    "ReplicaExchange": lambda h, vector: ce.ReplicaExchange(
        ce.MALA(h), [1.0, 2.0, 4.0], swap_every=3, step_sizes=[1.0, 1.5, 2.0]
    ),
}


@functools.cache
def moving(move: str, name: str, backend: str, dtype: torch.dtype) -> ce.Sampler:
    case = BY_NAME[name]
    vector = torch.linspace(0.6, 1.5, math.prod(case.event), dtype=DOUBLE).reshape(case.event)
    return ce.build_sampler(case.make(), MOVES[move](SIZES[name], vector), case.event, backend=backend, dtype=dtype)


@functools.cache
def moved(move: str, name: str, backend: str, dtype: torch.dtype) -> ce.RunResult:
    sampler, info = moving(move, name, backend, dtype), backend == "eager"
    return sampler.run(sampler.init(BY_NAME[name].x0(N), seed=SEED), N_STEPS, thin=1, info=info)


def decisions(result: ce.RunResult, x0: Tensor) -> Tensor:
    """``[n, n_steps]``: whether a chain went anywhere."""
    draws = kept(result)
    moved = draws != torch.cat([x0.to(draws.dtype).unsqueeze(1), draws[:, :-1]], 1)
    return moved.reshape(*draws.shape[:2], -1).any(-1)


QUICK = {(move, "mixture", torch.float32) for move in MOVES}
QUICK |= {("MALA", "lattice", torch.float32), ("HMC", "mlp", torch.float32)}
QUICK |= {("HMC", "mixture", DOUBLE), ("Nesterov", "mixture", DOUBLE)}


def agreement_params() -> list[Any]:
    found = []
    for move in MOVES:
        for name in SIZES:
            for backend in ("fused", "inductor") if name != "scalar-chain" else ("fused",):
                for dtype in (torch.float32, DOUBLE):
                    quick = backend == "fused" and (move, name, dtype) in QUICK
                    marks = [needs_compiler, *(() if quick else (slow,))]
                    found.append(
                        pytest.param(move, name, backend, dtype, marks=marks, id=f"{move}-{name}-{backend}-{dtype}")
                    )
    return found


@pytest.mark.parametrize(("move", "name", "backend", "dtype"), agreement_params())
def test_backends_agree_on_the_same_noise(move: str, name: str, backend: str, dtype: torch.dtype) -> None:
    """Positions, decisions and swaps of twenty steps.

    A decision may go another way only where u is within rounding of the acceptance, and a coordinate of Barker's
    proposal where another u is within rounding of its probability; no chain does in what runs here.
    """
    x0, eps = BY_NAME[name].x0(N), torch.finfo(dtype).eps
    ours, theirs = (moved(move, name, b, dtype) for b in (backend, "eager"))
    assert ours.state.n_failed == theirs.state.n_failed == 0
    sure = torch.ones(N, dtype=torch.bool)
    info = told_of_draws(theirs)
    if "acceptance" in info:
        steps = range(N_STEPS)
        u = [rng.uniforms(torch.tensor(SEED), torch.tensor(t), torch.arange(N), 1, dtype=dtype)[:, 0] for t in steps]
        margin = (torch.stack(u, 1) - info["acceptance"]).abs()
        sure = (margin > 2000 * eps).all(1)
        assert torch.equal(decisions(theirs, x0).double(), info["accepted"])
        assert 0.1 < float(info["accepted"].mean()) < 1.0
    assert int(sure.sum()) >= 0.9 * N
    units = 4000 if move == "HMC" else 300  # a trajectory passes on what it begins with forty times as large
    same = (decisions(ours, x0) == decisions(theirs, x0)).all(1)
    off = ((kept(ours) - kept(theirs)).abs() / (1 + kept(theirs).abs())).flatten(1).amax(1)
    spared = 1 if move == "Barker" else 0
    assert int((sure & ~(same & (off < units * eps))).sum()) <= spared, float(off[sure].max() / eps)
    for a, b in zip(carried(ours.state), carried(theirs.state), strict=True):
        difference = ((a - b).abs() / (1 + b.abs())).reshape(N, -1).amax(1)
        assert int((sure & (difference > 8 * units * eps)).sum()) <= spared
    if move == "ReplicaExchange":
        assert ours.stats.temperatures is not None and theirs.stats.temperatures is not None
        assert torch.equal(ours.stats.temperatures, theirs.stats.temperatures)
        assert len(set(ours.stats.temperatures[0].tolist())) > 1


@slow
@needs_compiler
@pytest.mark.parametrize("backend", ["fused", "inductor"])
@pytest.mark.parametrize("move", [move for move in MOVES if move not in ("GradientDescent", "Nesterov")])
def test_backends_tell_the_same(move: str, backend: str) -> None:
    name, x0 = "mixture", BY_NAME["mixture"].x0(N)
    found = []
    for b in (backend, "eager"):
        sampler = moving(move, name, b, DOUBLE)
        found.append(sampler.run(sampler.init(x0, seed=SEED), N_STEPS, thin=5, info=True))
    for key in told(found[1]):
        assert close(told(found[0])[key], told(found[1])[key], 1e-9)
        assert close(told_of_draws(found[0])[key], told_of_draws(found[1])[key], 1e-9)


# -- bits ------------------------------------------------------------------------------------------------------------


@needs_compiler
@pytest.mark.parametrize("move", ["MALA", "HMC", "UnderdampedLangevin", "ReplicaExchange"])
def test_bits_do_not_depend_on_batch_or_on_how_a_run_is_cut(move: str) -> None:
    """The first chains, the last and some in between, whole ladders where there are ladders; and several runs."""
    sampler, many = moving(move, "mixture", "fused", torch.float32), 600
    x0 = BY_NAME["mixture"].x0(many)

    def begun(first: int = 0, stop: int = many) -> ce.ChainState:
        return sampler.init(x0[first:stop], seed=SEED, first_chain=first)

    whole = sampler.run(begun(), N_STEPS).state
    for first, stop in ((0, 3), (many - 3, many), (15, 33), (99, 204), (300, many)):
        part = sampler.run(begun(first, stop), N_STEPS).state
        for a, b in zip((part.positions, *carried(part)), (whole.positions, *carried(whole)), strict=True):
            assert same_bits(a, b[first:stop]), (first, stop)
    for cuts in ((7, 13), (1, 19), (6, 6, 8), (20, 0)):
        state = begun()
        for n_steps in cuts:
            state = sampler.run(state, n_steps).state
        assert same_state(state, whole), cuts
    assert same_state(sampler.run(begun(), N_STEPS, thin=3).state, whole)
    other = sampler.run(sampler.init(x0, seed=SEED + 1), N_STEPS).state
    assert not same_bits(other.positions, whole.positions)  # the control


@needs_compiler
@pytest.mark.parametrize("move", ["HMC", "ReplicaExchange"])
def test_bits_do_not_depend_on_the_length_of_launches(move: str, monkeypatch: pytest.MonkeyPatch) -> None:
    sampler = moving(move, "mixture", "fused", torch.float32)
    begin = sampler.init(BY_NAME["mixture"].x0(N), seed=SEED)
    whole = sampler.run(begin, N_STEPS, thin=4)
    monkeypatch.setattr(runloop, "MAX_LAUNCH_STEPS", 5)
    cut = sampler.run(begin, N_STEPS, thin=4)
    assert same_state(cut.state, whole.state) and same_bits(kept(cut), kept(whole))
    if whole.stats.temperatures is not None:
        assert cut.stats.temperatures is not None
        assert torch.equal(cut.stats.temperatures, whole.stats.temperatures)


@pytest.mark.parametrize("move", ["HMC", "UnderdampedLangevin", "Nesterov", "ReplicaExchange"])
def test_a_saved_state_goes_on(move: str) -> None:
    """With its momentum, or its rungs."""
    sampler, file = moving(move, "mixture", "eager", DOUBLE), io.BytesIO()
    begin = sampler.init(BY_NAME["mixture"].x0(N), seed=SEED)
    torch.save(sampler.run(begin, 7).state, file)
    file.seek(0)
    assert same_state(sampler.run(torch.load(file), 6).state, sampler.run(begin, 13).state)


# -- arguments -------------------------------------------------------------------------------------------------------

STEPPED = (ce.MALA, ce.HMC, ce.UnderdampedLangevin, ce.PreconditionedLangevin, ce.RandomWalk, ce.Barker)


def ladder_of(**changed: Any) -> Any:
    """Two rungs, with what is to be changed."""
    return ce.ReplicaExchange(**{"transition": ce.MALA(0.1), "temperatures": [1.0, 2.0], **changed})


NUMBERS: tuple[Any, ...] = (0.0, -1.0, NAN, INF)
WRONG: list[tuple[tuple[Any, ...], str, type[Exception], tuple[Any, ...]]] = [
    ((*STEPPED, ce.GradientDescent, ce.Nesterov), "step_size", ValueError, (*NUMBERS, lambda step: -1.0)),
    ((*STEPPED, ce.GradientDescent, ce.Nesterov), "step_size", TypeError, ("0.1", None, True)),
    (STEPPED, "temperature", ValueError, (*NUMBERS, lambda step: 0.0, lambda step: NAN)),
    (STEPPED, "temperature", TypeError, ("1", None)),
    ((ce.HMC,), "n_leapfrog_steps", ValueError, (0, -1)),
    ((ce.HMC,), "n_leapfrog_steps", TypeError, (1.5, "3", None, True)),
    ((ce.HMC,), "jitter", ValueError, (-0.1, 1.0, 2, NAN, INF)),
    ((ce.HMC,), "jitter", TypeError, ("0.1", None, True)),
    ((ce.Nesterov,), "momentum", ValueError, (-0.1, 1.0, 2, NAN, INF)),
    ((ce.Nesterov,), "momentum", TypeError, ("0.1", None, True)),
    ((ce.UnderdampedLangevin,), "friction", ValueError, (-1.0, NAN, INF, lambda step: -1.0)),
    ((ce.UnderdampedLangevin,), "friction", TypeError, ("1", None)),
    (
        (ladder_of,),
        "transition",
        ValueError,
        (ce.Langevin(0.1), ce.GradientDescent(0.1), ce.Nesterov(0.1), ladder_of()),
    ),
    ((ladder_of,), "transition", TypeError, (ce.MALA, None, "MALA", 0.1)),
    (
        (ladder_of,),
        "temperatures",
        ValueError,
        ([1.0], [], [1.0, 1.0], [1.0, 0.0], [1.0, -2.0], [1.0, NAN], [1.0, INF], torch.tensor([1.0])),
    ),
    (
        (ladder_of,),
        "temperatures",
        TypeError,
        (2.0, None, "12", [1.0, "2"], [1.0, True], [1.0, None], torch.tensor(1.0)),
    ),
    ((ladder_of,), "swap_every", ValueError, (0, -1)),
    ((ladder_of,), "swap_every", TypeError, (1.5, None, True)),
    ((ladder_of,), "step_sizes", ValueError, ([1.0], [1.0, 1.0, 1.0], [1.0, 0.0], [1.0, NAN])),
    ((ladder_of,), "step_sizes", TypeError, (1.0, [1.0, "1"])),
]
for vector_moves, vector_name in (
    ((ce.MALA, ce.PreconditionedLangevin), "preconditioner"),
    ((ce.HMC, ce.UnderdampedLangevin), "mass"),
):
    wrong_tensors = (torch.tensor([1.0, 0.0]), torch.tensor([1.0, NAN]), torch.tensor(-1.0))
    WRONG += [
        (vector_moves, vector_name, ValueError, (*NUMBERS, *wrong_tensors)),
        (vector_moves, vector_name, TypeError, ("1", True, [1.0, 2.0], (1.0,))),
    ]


@pytest.mark.parametrize(
    ("make", "name", "error", "value"),
    [
        pytest.param(make, name, error, value, id=f"{make.__name__}-{name}-{error.__name__}-{k}")
        for makes, name, error, values in WRONG
        for make in makes
        for k, value in enumerate(values)
    ],
)
def test_wrong_arguments_are_named(make: Any, name: str, error: type[Exception], value: Any) -> None:
    with pytest.raises(error, match=rf"^{name}( at step \d+)?: ") as caught:
        make(**{name: value})
    assert "got" in str(caught.value)


def test_negative_control_right_arguments_are_taken() -> None:
    for move in (
        ce.MALA(1e-9, torch.ones(2), 3),
        ce.HMC(schedules.Constant(0.1), 1, 2, lambda step: 1.0, 0),
        ce.UnderdampedLangevin(0.1, 0.0, torch.tensor(2.0, dtype=torch.float16)),
        ce.PreconditionedLangevin(0.1, torch.tensor([1, 2])),
        ce.GradientDescent(1),
        ce.Nesterov(0.1, 0),
        ce.RandomWalk([0.1, 0.2, 0.3]),
        ce.Barker(torch.tensor([0.1, 0.2, 0.3])),
        ladder_of(temperatures=torch.tensor([4.0, 1.0, 2.0]), swap_every=1, step_sizes=(1, 2, 3)),
    ):
        assert all(column.shape == (3,) for column in move.hyper_table(0, 3))


def test_schedules_that_go_wrong_later_are_refused_before_any_step() -> None:
    for move, name in (
        (ce.HMC(lambda step: 0.1 if step < 7 else 0.0), "step_size"),
        (ce.MALA(0.1, temperature=lambda step: 1.0 if step < 7 else -1.0), "temperature"),
        (ce.UnderdampedLangevin(0.1, lambda step: 1.0 if step < 7 else -1.0), "friction"),
    ):
        sampler = ce.build_sampler(quartic, move, EVENT, backend="eager")
        state = sampler.run(sampler.init(n_chains=2), 7).state
        with pytest.raises(ValueError, match=rf"^{name}.*step 7"):
            sampler.run(state, 1)


@pytest.mark.parametrize(
    ("move", "text"),
    [
        (ce.MALA(0.1), "MALA(step_size=0.1, temperature=1.0)"),
        (ce.MALA(0.1, 2), "MALA(step_size=0.1, preconditioner=2, temperature=1.0)"),
        (
            ce.HMC(0.1, 3, torch.ones(2)),
            "HMC(step_size=0.1, n_leapfrog_steps=3, mass=tensor(2,), temperature=1.0, jitter=0.0)",
        ),
        (ce.Nesterov(schedules.Constant(0.1)), "Nesterov(step_size=Constant(value=0.1), momentum=0.9)"),
        (
            ce.ReplicaExchange(ce.Barker(0.1), [1, 2.5], 4),
            "ReplicaExchange(Barker(step_size=0.1, temperature=1.0), temperatures=[1.0, 2.5], swap_every=4)",
        ),
    ],
)
def test_text_shows_what_is_set(move: Any, text: str) -> None:
    assert str(move) == text
    sampler = ce.build_sampler(ce.HarmonicModel(), move, (2,), backend="eager")
    assert text in sampler.explain() and text in repr(sampler)


def test_explain_shows_the_move_that_is_set() -> None:
    sampler = ce.build_sampler(ce.HarmonicModel(), ce.MALA(0.1), (2,), backend="eager")
    sampler.transition = ce.MALA(0.2)
    assert "MALA(step_size=0.2" in sampler.explain() and "step_size=0.1" not in sampler.explain()


# -- ladders ---------------------------------------------------------------------------------------------------------

LADDER = (1.0, 3.0, 1.7, 5.0)
"""Not in order: rungs are neighbours by temperature."""
FACTORS = (1.0, 1.4, 1.2, 2.0)
R = len(LADDER)


class Swaps(NamedTuple):
    """By hand: ``[n, n_steps]`` temperatures during each step, those at the end, and tried and accepted pairs."""

    during: Tensor
    end: Tensor
    tried: list[int]
    accepted: list[int]


def swaps(draws: Tensor, every: int, own: Numbers, first_step: int = 0) -> Swaps:
    """One pair of chains at a time, from the positions after each step."""
    n, n_steps = draws.shape[:2]
    temperature = [LADDER[i % R] for i in range(n)]
    tried, accepted, during = [0] * (R - 1), [0] * (R - 1), []
    for step in range(first_step, first_step + n_steps):
        during.append(list(temperature))
        if (step + 1) % every:
            continue
        energy = quartic(draws[:, step - first_step]).tolist()
        parity = (step + 1) // every % 2
        for first in range(0, n, R):
            seed, index, ladder = torch.tensor(SEED), torch.tensor(step + 1), torch.tensor(first)
            u = rng.uniforms(seed, index, ladder, R, rng.Stream.EXCHANGE, DOUBLE).tolist()
            at_rung = sorted(range(first, first + R), key=lambda i: temperature[i])
            for rung in range(parity, R - 1, 2):
                a, b = at_rung[rung], at_rung[rung + 1]
                ratio = (1 / temperature[a] - 1 / temperature[b]) * (energy[a] - energy[b]) / own(step)
                tried[rung] += 1
                if math.log(u[rung]) <= min(0.0, ratio):
                    temperature[a], temperature[b] = temperature[b], temperature[a]
                    accepted[rung] += 1
    return Swaps(torch.tensor(during, dtype=DOUBLE).T, torch.tensor(temperature, dtype=DOUBLE), tried, accepted)


@functools.cache
def ladder(every: int, own: str = "1", backend: str = "eager") -> ce.Sampler:
    move = ce.MALA(0.1, temperature=cooling if own == "cooling" else 1.0)
    exchange: Any = ce.ReplicaExchange(move, LADDER, swap_every=every, step_sizes=FACTORS)
    return ce.build_sampler(quartic, exchange, EVENT, backend=backend, dtype=DOUBLE)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("every", "n_steps"), [(1, 1), (1, 2), (3, 14)])
def test_swaps_by_hand(every: int, n_steps: int, backend: str) -> None:
    sampler = ladder(every, backend=backend)
    result = sampler.run(sampler.init(start(), seed=SEED), n_steps, thin=1)
    want = swaps(kept(result), every, ONE)
    assert result.stats.temperatures is not None and result.stats.swap_acceptance is not None
    assert torch.equal(result.stats.temperatures, want.during)
    *_, temperature, factor = carried(result.state)
    assert torch.equal(temperature, want.end)
    assert factor.tolist() == [FACTORS[LADDER.index(t)] for t in want.end.tolist()]
    for rung, acceptance in enumerate(result.stats.swap_acceptance.tolist()):
        if want.tried[rung]:
            assert acceptance == want.accepted[rung] / want.tried[rung]
        else:
            assert math.isnan(acceptance)
    assert 0 < sum(want.accepted) < sum(want.tried)
    assert not torch.equal(want.end, torch.tensor(LADDER, dtype=DOUBLE).repeat(10))


def test_steps_of_a_ladder_by_hand() -> None:
    """Each chain moves at its own temperature and step size, which go with the swaps."""
    sampler, x0, n_steps = ladder(2, "cooling"), start(), 5
    result = sampler.run(sampler.init(x0, seed=SEED), n_steps, thin=1)
    want = swaps(kept(result), 2, cooling)
    assert result.stats.temperatures is not None
    assert torch.equal(result.stats.temperatures, want.during)
    x = x0
    for step in range(n_steps):
        temperature = want.during[:, step]
        factor = torch.tensor([FACTORS[LADDER.index(t)] for t in temperature.tolist()], dtype=DOUBLE)
        beta, eta = 1 / (cooling(step) * temperature), per_chain(0.1 * factor, x)
        z, u = drawn(x, step, 1, 1)
        drift = x - eta * per_chain(beta, x) * quartic_gradient(x)
        new = drift + (2 * eta).sqrt() * z
        back = new - eta * per_chain(beta, x) * quartic_gradient(new)
        ways = log_normal(x, back, 2 * eta) - log_normal(new, drift, 2 * eta)
        accept = u[:, 0].log() <= beta * (quartic(x) - quartic(new)) + ways
        x = torch.where(per_chain(accept, x), new, x)
        assert close(kept(result)[:, step], x)


@pytest.mark.parametrize("backend", BACKENDS)
def test_swaps_where_no_step_reads_an_energy(backend: str) -> None:
    """Unadjusted moves need gradients alone, and a generated kernel may leave energies out: swaps need them."""
    exchange: Any = ce.ReplicaExchange(ce.UnderdampedLangevin(0.2), LADDER, swap_every=3, step_sizes=FACTORS)
    sampler = ce.build_sampler(quartic, exchange, EVENT, backend=backend, dtype=DOUBLE)
    begin = sampler.init(start(), seed=SEED)
    every, rare, last = (sampler.run(begin, 14, thin=thin) for thin in (1, 7, None))
    want = swaps(kept(every), 3, ONE)
    assert every.stats.temperatures is not None and torch.equal(every.stats.temperatures, want.during)
    assert 0 < sum(want.accepted) < sum(want.tried)
    for result in (rare, last):
        assert same_state(result.state, every.state)


def test_swaps_count_from_the_first_step_of_all() -> None:
    """A run that begins at step 2 swaps after steps 3, 6, ... with the numbers of those steps."""
    sampler = ladder(3)
    result = sampler.run(sampler.init(start(), seed=SEED, first_step=2), 8, thin=1)
    want = swaps(kept(result), 3, ONE, first_step=2)
    assert result.stats.temperatures is not None and torch.equal(result.stats.temperatures, want.during)
    assert torch.equal(carried(result.state)[-2], want.end)


def test_draws_at_one_temperature() -> None:
    sampler = ladder(3)
    result = sampler.run(sampler.init(start(), seed=SEED), 14, thin=2)
    held, draws = result.stats.temperatures, kept(result)
    assert held is not None and held.shape == (40, 7)
    every = sampler.run(sampler.init(start(), seed=SEED), 14, thin=1)
    assert every.stats.temperatures is not None and torch.equal(held, every.stats.temperatures[:, 1::2])
    for temperature in LADDER:
        chosen = result.at_temperature(temperature)
        assert chosen.shape == (10, 7, *EVENT)
        for j in range(10):
            for k in range(7):
                (chain,) = [i for i in range(j * R, (j + 1) * R) if held[i, k] == temperature]
                assert torch.equal(chosen[j, k], draws[chain, k])
    for wrong in (2.0, 0.0, -1.0, NAN, 1.7001):
        with pytest.raises(ValueError, match=r"^temperature: expected one of \[1.0, 1.7, 3.0, 5.0\]"):
            result.at_temperature(wrong)
    plain = exact("MALA").run(exact("MALA").init(start()), 2, thin=1)
    for without in (plain, sampler.run(sampler.init(start()), 2)):
        with pytest.raises(ValueError, match="^at_temperature: "):
            without.at_temperature(1.0)


def test_draws_at_a_temperature_that_float32_does_not_have() -> None:
    move: Any = ce.ReplicaExchange(ce.MALA(0.1), [0.1, 0.7], swap_every=2)
    sampler = ce.build_sampler(quartic, move, EVENT, backend="eager")
    result = sampler.run(sampler.init(n_chains=6), 4, thin=1)
    assert result.at_temperature(0.7).shape == (3, 4, *EVENT)


@pytest.mark.parametrize(("n_chains", "first_chain"), [(3, 0), (5, 0), (1, 0), (4, 2), (8, 3)])
def test_ladders_are_whole(n_chains: int, first_chain: int) -> None:
    sampler = ladder(3)
    with pytest.raises(ValueError, match=rf"^state: expected whole ladders of 4 chains.*got {n_chains} chains"):
        sampler.run(sampler.init(n_chains=n_chains, first_chain=first_chain), 1)
    assert sampler.run(sampler.init(n_chains=8, first_chain=4), 1).state.n_chains == 8


def test_another_ladder_is_another_structure() -> None:
    sampler = ladder(3)
    inner = ce.MALA(0.1)
    others: tuple[Any, ...] = (
        ce.ReplicaExchange(inner, LADDER, swap_every=2, step_sizes=FACTORS),
        ce.ReplicaExchange(inner, (1.0, 3.0, 1.7, 6.0), swap_every=3, step_sizes=FACTORS),
        ce.ReplicaExchange(inner, LADDER, swap_every=3),
        inner,
    )
    for other in others:
        with pytest.raises(ValueError, match="^transition: "):
            sampler.transition = other


@pytest.mark.parametrize("n_steps", [2, 4])
def test_momenta_are_rescaled_where_temperatures_swap(n_steps: int) -> None:
    """By sqrt(T' / T), against a ladder that does not swap in the same steps."""

    def after(every: int) -> tuple[Tensor, ...]:
        move: Any = ce.ReplicaExchange(ce.UnderdampedLangevin(0.2, mass=1.0), LADDER, swap_every=every)
        sampler = ce.build_sampler(quartic, move, EVENT, backend="eager", dtype=DOUBLE)
        result = sampler.run(sampler.init(start(), seed=SEED), n_steps)
        return (result.state.positions, *carried(result.state))

    swapped, still = after(n_steps), after(100)
    ratio = swapped[4] / still[4]
    assert not (ratio == 1).all() and (ratio == 1).any()
    assert close(swapped[3], per_chain(ratio.sqrt(), still[3]) * still[3])
    for k in (0, 1, 2):
        assert same_bits(swapped[k], still[k])


def test_dead_chains_swap_with_none() -> None:
    move = ladder_of(temperatures=[1.0, 2.0, 3.0], swap_every=1)
    sampler = ce.build_sampler(walled, move, 3, backend="eager", dtype=DOUBLE)
    x0 = within(30)
    x0[4, 0] = 1.6
    with pytest.warns(ce.NonFiniteChainWarning):
        result = sampler.run(sampler.init(x0, seed=SEED), 20, thin=1)
    held = result.stats.temperatures
    assert held is not None and result.state.n_failed == 1
    assert (held[4] == 2).all() and (held[3] == 1).all() and (held[5] == 3).all()
    assert len(set(held[0].tolist())) > 1
    assert same_bits(kept(result)[4, -1], x0[4])


FAR = ce.GaussianMixtureModel([[-5.0, 0.0], [5.0, 0.0]], scales=[1.0, 0.7], weights=[0.3, 0.7])


@needs_compiler
def test_ladders_reach_what_cold_chains_do_not() -> None:
    """Weights of modes 10 apart, by the last draws of independent ladders that all began in the left one."""
    temperatures, n_ladders, n_steps = [1.0, 2.2, 5.0, 11.0, 25.0], 2000, 1500
    move: Any = ce.ReplicaExchange(
        ce.MALA(0.4), temperatures, swap_every=5, step_sizes=[0.7 * math.sqrt(t) for t in temperatures]
    )
    sampler = ce.build_sampler(FAR, move, 2, backend="fused")
    rungs = len(temperatures)
    x0 = torch.tensor([-5.0, 0.0]) + torch.randn(rungs * n_ladders, 2, generator=torch.Generator().manual_seed(3))
    result = sampler.run(sampler.init(x0, seed=SEED), n_steps, thin=n_steps)
    cold = result.at_temperature(1.0)[:, -1].double()
    right = float((cold[:, 0] > 0).double().mean())
    assert abs(right - 0.7) < 5 * math.sqrt(0.21 / n_ladders)
    means, variances = FAR.exact_mean(), FAR.exact_cov().diagonal()
    assert ((cold.mean(0) - means).abs() < 5 * (variances / n_ladders).sqrt()).all()
    assert result.stats.swap_acceptance is not None and (result.stats.swap_acceptance > 0.1).all()
    alone = ce.build_sampler(FAR, ce.MALA(0.28), 2, backend="fused")
    stuck = alone.run(alone.init(x0[:n_ladders], seed=SEED), n_steps).state.x
    assert float((stuck[:, 0] > 0).double().mean()) < 0.05  # the control
