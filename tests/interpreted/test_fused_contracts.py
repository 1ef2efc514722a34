"""What a run of the fused CUDA kernel promises: noise by coordinates, bits, failures, options, no rebuilds."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import Any

import pytest
import torch
from cases import BY_NAME, fixed, same_bits, same_state
from drawn_noise import DIM, Drawn, drawn_and_specified
from layouts import LAYOUTS, N, launched, rows_are, run, use, worst
from loop_transitions import Leapfrog, Nested
from torch import Tensor

import compiled_ebm as ce
from compiled_ebm import runloop
from compiled_ebm.backends.fused.triton import loading
from compiled_ebm.backends.fused.triton.values import Form


@pytest.fixture(
    params=["as planned", *(pytest.param(k, marks=pytest.mark.slow) for k in ("chains first", "chains last"))]
)
def layout(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    use(monkeypatch, LAYOUTS[request.param])
    return request.param


def pair(energy: Any, event: int | tuple[int, ...], transition: Any, **options: Any) -> list[ce.Sampler]:
    return [ce.build_sampler(energy, transition, event, backend=name, **options) for name in ("fused", "eager")]


def ring(x: Tensor) -> Tensor:
    """Six sites with neighbours: straight-line as planned, an axis of eight places where it must be."""
    return (x.square() - 1).square().sum(-1) + 0.3 * (x * x.roll(1, -1)).sum(-1) + torch.logsumexp(x, -1)


def start(n: int = N) -> Tensor:
    return fixed(n, 6, seed=5)


# -- options of the transition -----------------------------------------------------------------------------------------

TRANSITIONS = {
    "noise_std": ce.Langevin(0.01, noise_std=0.3),
    "noise_scale": ce.Langevin(0.01, noise_scale=0.0),
    "clamp": ce.Langevin(0.05, clamp=(-0.7, 0.5)),
    "grad_clip": ce.Langevin(0.05, grad_clip=0.8),
    "schedules": ce.Langevin(ce.schedules.Linear(0.05, 0.01, 20), noise_scale=ce.schedules.Linear(1.0, 0.2, 20)),
}


@pytest.mark.parametrize("name", TRANSITIONS)
def test_options_of_langevin(name: str, layout: str) -> None:
    ours, theirs = (run(s, start()).state for s in pair(ring, 6, TRANSITIONS[name]))
    assert worst(ours, theirs) <= 1
    plain = ce.build_sampler(ring, ce.Langevin(TRANSITIONS[name].step_size), 6, backend="eager")
    assert float((run(plain, start()).state.positions - ours.positions).abs().max()) > 1e-3  # the option does something


@pytest.mark.parametrize("transition", [Leapfrog(3), Nested(3, 2)], ids=["leapfrog", "nested"])
def test_transitions_with_loops_inside(transition: Any, layout: str) -> None:
    """Uniforms, normals, carries of every kind, loops in loops; the same kernel for another number of rounds."""
    fused, eager = pair(ring, 6, transition)
    ours, theirs = (run(s, start(), 4).state for s in (fused, eager))
    assert worst(ours, theirs) <= 1
    assert float((ours.positions - start()).abs().max()) > 0.01
    more = replace(transition, **({"rounds": 7} if isinstance(transition, Leapfrog) else {"inner": 5}))
    other, eager = pair(ring, 6, more)
    assert worst(*(run(s, start(), 2).state for s in (other, eager))) <= 1
    assert launched(other).code() == launched(fused).code()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("first", [1, 2**32 - 10, 2**63 - N], ids=hex)
def test_the_noise_is_that_of_its_coordinates(first: int, dtype: torch.dtype, layout: str) -> None:
    """Uniforms in every bit, normals up to the rounding of numpy's logarithm, sine and cosine."""
    sampler = ce.build_sampler(ring, Drawn(), DIM, backend="fused", dtype=dtype)
    found = drawn_and_specified(sampler, N, seed=2**64 - 3, first_chain=first, first_step=2**32 - 3)
    (uniforms, normals), (want_uniforms, want_normals) = found
    assert same_bits(uniforms, want_uniforms)
    assert float((normals - want_normals).abs().max()) < 1e-6


# -- negative controls -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["nothing", "weight", "step size", "seed", "first step", "chain ids", "high words"])
def test_a_hundredth_of_one_weight_is_seen(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """And so is everything else that a chain depends on."""
    case = BY_NAME["mlp"]
    use(monkeypatch, LAYOUTS["as planned"])
    network = case.make()
    x0 = case.x0(N)
    eager = ce.build_sampler(network, ce.Langevin(case.step_size), 2, backend="eager")
    theirs = run(eager, x0).state
    where: dict[str, Any] = {}
    eta = case.step_size
    if what == "weight":
        with torch.no_grad():
            network.net[0].weight[3, 1].mul_(1.01)
    elif what == "step size":
        eta = 1.01 * eta
    elif what != "nothing":
        where = {
            "seed": {"seed": 2**63 + 12},
            "first step": {"first_step": 10},
            "chain ids": {"first_chain": 2**40 + 4},
            "high words": {"first_chain": 2**41 + 3},
        }[what]
    fused = ce.build_sampler(network, ce.Langevin(eta), 2, backend="fused")
    ours = run(fused, x0, **where).state
    ours = replace(ours, step=theirs.step)
    assert (worst(ours, theirs) <= 1) == (what == "nothing")


# -- bits --------------------------------------------------------------------------------------------------------------


def test_bits_do_not_depend_on_how_a_run_is_cut(layout: str) -> None:
    """Into launches, thinned or not; draws are where thinning puts them, across the cuts."""
    sampler = ce.build_sampler(ring, ce.Langevin(ce.schedules.Linear(0.05, 0.01, 20)), 6, backend="fused")
    whole = run(sampler, start(), 6, thin=3)
    begin = run(sampler, start(), 0).state
    first = sampler.run(begin, 2, thin=2)
    second = sampler.run(first.state, 4, thin=4)
    assert same_state(second.state, whole.state)
    assert whole.draws.shape == (N, 2, 6) and same_bits(whole.draws[:, -1].contiguous(), whole.state.x)
    assert same_bits(second.draws[:, 0].contiguous(), whole.state.x)
    for k, draw in enumerate(whole.draws.unbind(1)):
        assert same_bits(draw.contiguous(), sampler.run(begin, 3 * (k + 1)).state.x)


def test_draws_do_not_depend_on_the_length_of_launches(layout: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A thinning interval that lies across two launches."""
    sampler = ce.build_sampler(ring, ce.Langevin(0.02), 6, backend="fused")
    whole = run(sampler, start(), 7, thin=4)
    monkeypatch.setattr(runloop, "MAX_LAUNCH_STEPS", 3)
    cut = run(sampler, start(), 7, thin=4)
    assert same_bits(cut.draws, whole.draws) and same_state(cut.state, whole.state)
    assert cut.stats.n_launches > whole.stats.n_launches


def test_bits_do_not_depend_on_the_batch(layout: str) -> None:
    sampler = ce.build_sampler(ring, ce.Langevin(0.02), 6, backend="fused")
    whole = run(sampler, start(50)).state
    for first, stop in ((0, 1), (15, 17), (16, 50)):
        part = run(sampler, start(50)[first:stop], first_chain=2**40 + 3 + first).state
        assert rows_are(part, whole, range(first, stop))
    other = run(sampler, start(50)[:1], first_chain=2**40 + 4).state
    assert not rows_are(other, whole, [0])  # the control: another chain's noise


@pytest.mark.parametrize("chains_last", [False, True])
def test_bits_do_not_depend_on_the_block(chains_last: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    states = []
    for block, warps in ((8, 4), (16, 1), (64, 2)):  # numpy itself sums up a lone chain in another order
        name = "chains last" if chains_last else "chains first"
        use(monkeypatch, LAYOUTS[name]._replace(form=Form(block, warps, chains_last)))
        sampler = ce.build_sampler(ring, ce.Langevin(0.02), 6, backend="fused")
        states.append(run(sampler, start()).state)
    assert same_state(states[0], states[1]) and same_state(states[0], states[2])


# -- arguments of the energy, and weights ------------------------------------------------------------------------------


def test_keyword_arguments(layout: str) -> None:
    """Labels that choose rows of a table, numbers of each chain, a shared matrix and shared integers; then changed."""
    table = fixed(5, 4, seed=52)

    def energy(x: Tensor, label: Tensor, pull: Tensor, matrix: Tensor, order: Tensor) -> Tensor:
        chosen = table[label] + (label.unsqueeze(-1) == torch.arange(4)) * 0.5
        bent = torch.where(label > 2, x.sin().sum(-1), 0.0)
        return pull * (x @ matrix - chosen[:, order]).square().sum(-1) + bent

    kwargs = {
        "label": torch.arange(N) % 5,
        "pull": 0.5 + torch.arange(N) / N,
        "matrix": fixed(4, 4, seed=53),
        "order": torch.tensor([2, 0, 3, 1]),
    }
    fused, eager = pair(energy, 4, ce.Langevin(0.01), model_kwargs=kwargs)
    x0, found = fixed(N, 4, seed=9), []
    for change in range(3):
        found.append(run(fused, x0).state)
        assert worst(found[-1], run(eager, x0).state) <= 1
        if change == 0:
            kwargs["label"].copy_((torch.arange(N) + 2) % 5)
            kwargs["matrix"].mul_(1.5)
        else:
            kwargs["order"].copy_(torch.tensor([0, 1, 3, 2]))
    assert all(float((a.positions - b.positions).abs().max()) > 1e-3 for a, b in zip(found, found[1:], strict=False))


def test_weights_schedules_and_batches_need_no_other_kernel(layout: str, monkeypatch: pytest.MonkeyPatch) -> None:
    case = BY_NAME["mlp"]
    network = case.make()
    fused, eager = pair(network, case.event, ce.Langevin(case.step_size))
    before = run(fused, case.x0(N)).state
    code, loads = launched(fused).code(), []
    monkeypatch.setattr(loading, "load", lambda *a: loads.append(a))
    with torch.no_grad():
        for p in network.parameters():
            p.mul_(1.3)
    ours = run(fused, case.x0(N)).state
    assert worst(ours, run(eager, case.x0(N)).state) <= 1 and not same_bits(ours.positions, before.positions)
    for sampler in (fused, eager):
        sampler.transition = ce.Langevin(ce.schedules.Linear(0.02, 0.01, 10), noise_scale=0.3)
    for n in (1, 16, 50):
        assert worst(*(run(s, case.x0(n), 3).state for s in (fused, eager))) <= 1
    assert launched(fused).code() == code and not loads and fused._builds.count == 1
    monkeypatch.undo()


def test_other_weights_give_the_same_text(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of another module of the same make."""
    use(monkeypatch, LAYOUTS["as planned"])
    texts = set()
    for seed, eta in ((1, 0.01), (2, 0.02)):
        model = ce.MLPModel(2, (16,), seed=seed)
        sampler = ce.build_sampler(model, ce.Langevin(eta), 2, backend="fused")
        sampler.build(16 * seed)
        texts.add(launched(sampler).code())
    assert len(texts) == 1 and "def chain_loop(" in texts.pop()


# -- failing chains ----------------------------------------------------------------------------------------------------


def quartic(x: Tensor) -> Tensor:
    """A chain far out overflows within a few steps."""
    return 0.25 * x.pow(4).sum(-1)


@pytest.mark.parametrize("dtype", [torch.float32, pytest.param(torch.float64, marks=pytest.mark.slow)], ids=str)
def test_a_chain_that_overflows_stays_and_touches_no_neighbour(dtype: torch.dtype, layout: str) -> None:
    fused, eager = pair(quartic, 6, ce.Langevin(0.01), dtype=dtype)
    x0 = start().to(dtype)
    healthy = run(fused, x0).state
    assert healthy.n_failed == 0
    x0[4], x0[17, 2] = 60.0, 1e3
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ce.NonFiniteChainWarning)
        ours, theirs = (run(s, x0, 8) for s in (fused, eager))
        part = run(fused, x0, 3).state
        again = fused.run(part, 5).state
    assert torch.equal(ours.state.failed_at, theirs.state.failed_at) and same_state(again, ours.state)
    assert (ours.state.failed_at >= 0).nonzero().flatten().tolist() == [4, 17]
    assert ours.stats.first_failed_step == theirs.stats.first_failed_step > 9  # some step was survived
    assert bool(torch.isfinite(ours.state.positions).all()) and worst(ours.state, theirs.state, 1e3) <= 1
    rows = [i for i in range(N) if i not in (4, 17)]
    on = fused.run(healthy, 3).state
    assert same_bits(ours.state.positions[rows], on.positions[rows])


def test_a_start_that_is_not_finite_in_energy_fails_at_once(layout: str) -> None:
    def energy(x: Tensor) -> Tensor:
        return -(4.0 - x[:, 0].square()).log() + x.square().sum(-1)

    fused, eager = pair(energy, 6, ce.Langevin(1e-3))
    x0 = start().clamp(-1, 1)
    x0[7, 0] = 3.0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ce.NonFiniteChainWarning)
        ours, theirs = (run(s, x0).state for s in (fused, eager))
    assert ours.failed_at.tolist() == theirs.failed_at.tolist() and int(ours.failed_at[7]) == 9
    assert same_bits(ours.positions[7], x0[7])


# -- the law -----------------------------------------------------------------------------------------------------------


def test_the_law_of_the_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    """Variance 1 / (k (1 - eta k / 2)) = 4/3 within five standard errors, and not 1 / k."""
    use(monkeypatch, LAYOUTS["chains last"]._replace(form=Form(4096, 4, chains_last=True)))
    sampler = ce.build_sampler(ce.HarmonicModel(1.0), ce.Langevin(0.5), 8, backend="fused")
    x = sampler.run(sampler.init(n_chains=20_000, seed=3), 12).state.x.double()
    error = 5 * (2 / x.numel()) ** 0.5
    assert abs(float(x.square().mean()) * 0.75 - 1) < error < abs(float(x.square().mean()) - 1)
