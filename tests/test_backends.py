"""Backends against each other and against themselves: agreement, bits, failures, interruption, memory, CUDA graphs."""

import copy
import functools
import io
import re
import signal
import threading
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from cases import (
    BY_NAME,
    CASES,
    DTYPES,
    EVERYDAY,
    SEED,
    Case,
    Reference,
    builds,
    carry_of,
    case_params,
    no_batching_rule,
    same_bits,
    same_state,
    sampler_of,
    shared_sampler,
)
from torch import Tensor, nn

import compiled_ebm as ce
from compiled_ebm import builder, memory, runloop, schedules
from compiled_ebm.draws.memory import StepDiagnostics, Tee
from compiled_ebm.session import buffers

BACKENDS = ("eager", "inductor", "fused")
N, N_STEPS = 48, 10

slow = pytest.mark.slow


QUICK = ("mlp", "double-well")


NETWORKS = ("mlp-silu", "conv", "layer-norm", "attention")


def case_and_dtype_params() -> list[Any]:
    """All cases in float64, some in every dtype, networks in bfloat16 too: float32 is checked with inductor's."""
    others = {
        **dict.fromkeys(("mlp", "mixture", "lattice"), DTYPES),
        **dict.fromkeys(NETWORKS, (torch.float64, torch.bfloat16)),
    }
    found = []
    for case in CASES:
        for dtype in others.get(case.name, (torch.float64,)):
            quick = case.name == "mlp" or (case.name in EVERYDAY and dtype == torch.float64)
            found.append(pytest.param(case, dtype, id=f"{case.name}-{dtype}", marks=() if quick else slow))
    return found


@functools.cache
def run_of(name: str, backend: str, dtype: torch.dtype) -> ce.ChainState:
    sampler = shared_sampler(name, backend, dtype)
    return sampler.run(sampler.init(BY_NAME[name].x0(N), seed=SEED), N_STEPS).state


@functools.cache
def reference_of(name: str, dtype: torch.dtype) -> Reference:
    reference = Reference(BY_NAME[name], noise_dtype=carry_of(dtype))
    reference.run(BY_NAME[name].x0(N), N_STEPS)
    return reference


# -- agreement -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("case", "dtype"), case_and_dtype_params())
def test_eager_agrees_with_the_update_written_by_hand(case: Case, dtype: torch.dtype) -> None:
    """Ten steps in every dtype against float64, within the rounding of that dtype."""
    reference, state = reference_of(case.name, dtype), run_of(case.name, "eager", dtype)
    tolerance = reference.tolerance(dtype, N_STEPS)
    assert state.x.dtype == dtype and state.positions.dtype == carry_of(dtype)
    assert float((state.positions - reference.x).abs().max()) <= tolerance
    wrong = Reference(case, noise_dtype=carry_of(dtype))
    wrong.gradient_factor = 1.25  # the control: a gradient that is a quarter too long
    assert float((wrong.run(case.x0(N), N_STEPS) - reference.x).abs().max()) > tolerance


@pytest.mark.parametrize("case", case_params(QUICK))
def test_inductor_agrees_with_eager(case: Case) -> None:
    """On the same noise, after ten steps; each may be off by the rounding of its own order of operations."""
    check_agreement(case, "inductor", torch.float32)


@pytest.mark.parametrize("dtype", [torch.float32, pytest.param(torch.float64, marks=slow)], ids=str)
@pytest.mark.parametrize("case", case_params())
def test_fused_agrees_with_eager(case: Case, dtype: torch.dtype) -> None:
    check_agreement(case, "fused", dtype)


@slow
@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        ("mlp", torch.float64),
        ("mlp", torch.float16),
        ("mlp", torch.bfloat16),
        ("mixture", torch.bfloat16),
    ],
    ids=str,
)
def test_inductor_agrees_with_eager_in_other_dtypes(name: str, dtype: torch.dtype) -> None:
    check_agreement(BY_NAME[name], "inductor", dtype)


def check_agreement(case: Case, backend: str, dtype: torch.dtype) -> None:
    a, b = run_of(case.name, "eager", dtype), run_of(case.name, backend, dtype)
    reference = reference_of(case.name, dtype)
    tolerance = 2 * reference.tolerance(dtype, N_STEPS)
    for state in (a, b):
        assert float((state.positions - reference.x).abs().max()) <= tolerance / 2
    assert float((a.positions - b.positions).abs().max()) <= tolerance
    assert a.x.dtype == b.x.dtype == dtype
    assert torch.equal(a.failed_at, b.failed_at) and a.n_failed == 0
    eps = torch.finfo(dtype).eps
    for name, ours, theirs in zip(("energy", "gradient"), a.carried, b.carried, strict=True):
        # positions differ by the tolerance, which the gradient passes on by the curvature: at most 1 / (10 step size)
        scale = float(ours.abs().max())
        bound = 16 * eps * scale + tolerance * max(scale, 0.1 / case.step_size)
        assert float((ours - theirs).abs().max()) <= bound, name


# -- bits ------------------------------------------------------------------------------------------------------------


MANY = 1000


def rows_of(sampler: ce.Sampler, case: Case, first: int, stop: int, n_steps: int = 5, **options: Any) -> ce.ChainState:
    state = sampler.init(case.x0(MANY)[first:stop], seed=SEED, first_chain=first)
    return sampler.run(state, n_steps, **options).state


def assert_rows(part: ce.ChainState, whole: ce.ChainState, first: int, stop: int) -> None:
    assert torch.equal(part.chain_ids, torch.arange(first, stop))
    for name, a, b in zip(
        ("x", "energy", "gradient"), (part.positions, *part.carried), (whole.positions, *whole.carried), strict=True
    ):
        assert same_bits(a, b[first:stop]), (name, float((a - b[first:stop]).abs().max()))


BIT_CASES = [
    *(("eager", name, ()) for name in ("mlp", "mixture", "conv", "layer-norm", "attention", "scalar-chain")),
    *(("eager", name, slow) for name in ("mlp-silu", "funnel", "lattice", "squared-score")),
    *(("fused", name, ()) for name in ("mlp", "mixture", "lattice", "layer-norm", "squared-score")),
    ("inductor", "mlp", slow),
    ("inductor", "mixture", slow),
    ("inductor", "conv", slow),
]


@pytest.mark.parametrize(
    ("backend", "name"), [pytest.param(b, n, marks=marks, id=f"{b}-{n}") for b, n, marks in BIT_CASES]
)
def test_bits_do_not_depend_on_the_batch(backend: str, name: str) -> None:
    """One chain alone, sixteen, or a thousand together; the first, the last and some in the middle."""
    case, sampler = BY_NAME[name], shared_sampler(name, backend)
    many = N if backend == "inductor" else MANY  # a tile that is compiled anyway
    whole = rows_of(sampler, case, 0, many)
    splits = [(0, 1), (many - 10, many - 9), (many - 16, many), (16, 30)]
    if backend != "inductor":
        splits += [(3, 20), (100, 203), (0, 500), (500, many)]
    for first, stop in splits:
        assert_rows(rows_of(sampler, case, first, stop), whole, first, stop)
    other = sampler.run(sampler.init(case.x0(many), seed=SEED + 1), 5).state
    assert not same_bits(other.positions, whole.positions)  # the control: another seed


WIDTHS = [(3, 3), (5, 5), (6, 16), (7, 13), (17, 2), (30, 64), (64, 64)]


@pytest.mark.parametrize(
    ("backend", "widths"),
    [
        *(pytest.param("eager", w, id=f"eager-{w}") for w in WIDTHS),
        *(pytest.param("fused", w, id=f"fused-{w}") for w in WIDTHS),
        pytest.param("inductor", (4, 13), id="inductor-(4, 13)", marks=slow),
        pytest.param("inductor", (17, 13), id="inductor-(17, 13)", marks=slow),
    ],
)
def test_bits_of_matrix_products_do_not_depend_on_the_batch(backend: str, widths: tuple[int, int]) -> None:
    """BLAS chooses its loops by the number of rows, for some widths of the matrix and not for others."""
    matrix = torch.randn(*widths, generator=torch.Generator().manual_seed(1)) / widths[0] ** 0.5

    def energy(x: Tensor) -> Tensor:
        return torch.tanh(x @ matrix).square().sum(-1) + 0.5 * x.square().sum(-1)

    sampler = ce.build_sampler(energy, ce.Langevin(0.01), widths[:1], backend=backend)
    x0 = torch.randn(MANY, widths[0], generator=torch.Generator().manual_seed(2))

    def rows(first: int, stop: int) -> ce.ChainState:
        return sampler.run(sampler.init(x0[first:stop], seed=SEED, first_chain=first), 5).state

    many = N if backend == "inductor" else MANY
    whole = rows(0, many)
    splits = ((0, 1), (3, 19)) if backend == "inductor" else ((0, 1), (3, 20), (0, 48), (100, 203), (0, 500))
    for first, stop in splits:
        assert_rows(rows(first, stop), whole, first, stop)
    if backend != "inductor":  # whose code keeps the number of threads it was compiled for
        threads = torch.get_num_threads()
        try:
            for n in (1, 2, 3, 4):
                torch.set_num_threads(n)
                assert_rows(rows(0, many), whole, 0, many)
        finally:
            torch.set_num_threads(threads)


@pytest.mark.parametrize("backend", ["eager", "fused", pytest.param("inductor", marks=slow)])
def test_bits_do_not_depend_on_the_tile(backend: str) -> None:
    """16 chains, 2,000, and 40,000 in several tiles."""
    sampler = shared_sampler("mlp", backend)
    states = [sampler.run(sampler.init(n_chains=n, seed=SEED), 4).state for n in (16, 2000, 40_000)]
    for small, large in ((states[0], states[1]), (states[1], states[2])):
        assert_rows(small, large, 0, small.n_chains)


@pytest.mark.parametrize(
    ("backend", "name"),
    [
        *(("eager", name) for name in ("mlp", "mixture", "conv")),
        *(("fused", name) for name in ("mlp", "mixture")),
        pytest.param("inductor", "mlp", marks=slow),
    ],
)
def test_bits_do_not_depend_on_the_number_of_threads(backend: str, name: str) -> None:
    threads = torch.get_num_threads()
    try:
        states = []
        for n in (1, 2):
            torch.set_num_threads(n)
            states.append(rows_of(sampler_of(BY_NAME[name], backend), BY_NAME[name], 0, N))
    finally:
        torch.set_num_threads(threads)
    assert same_state(*states)


@pytest.fixture(params=BACKENDS)
def mlp(request: pytest.FixtureRequest) -> ce.Sampler:
    """A sampler that has compiled a tile for 48 chains, if it compiles at all."""
    sampler = shared_sampler("mlp", request.param)
    rows_of(sampler, BY_NAME["mlp"], 0, N, 0)
    return sampler


def from_start(sampler: ce.Sampler, seed: int = SEED) -> ce.ChainState:
    return sampler.init(BY_NAME["mlp"].x0(N), seed=seed)


def test_bits_do_not_depend_on_how_a_run_is_cut(mlp: ce.Sampler) -> None:
    whole = mlp.run(from_start(mlp), 20).state
    for cuts in ((7, 13), (1, 19), (5, 5, 5, 5), (20, 0), (0, 20)):
        state = from_start(mlp)
        for n_steps in cuts:
            state = mlp.run(state, n_steps).state
        assert same_state(state, whole), cuts
    assert not same_bits(mlp.run(from_start(mlp), 19).state.positions, whole.positions)


@pytest.mark.parametrize("length", [1, 3, 7, 64])
def test_bits_do_not_depend_on_the_length_of_launches(
    mlp: ce.Sampler, length: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = mlp.run(from_start(mlp), 20, thin=3)
    monkeypatch.setattr(runloop, "MAX_LAUNCH_STEPS", length)
    cut = mlp.run(from_start(mlp), 20, thin=3)
    assert cut.stats.n_launches >= -(-20 // length)
    assert same_state(cut.state, whole.state) and same_bits(cut.draws, whole.draws)


def test_thinning_changes_no_sample(mlp: ce.Sampler) -> None:
    plain = mlp.run(from_start(mlp), 20)
    assert plain.draws is None
    every = mlp.run(from_start(mlp), 20, thin=1)
    assert every.draws.shape == (N, 20, 2) and every.draws.dtype == torch.float32
    assert same_state(every.state, plain.state)
    assert same_bits(every.draws[:, -1], plain.state.x)
    for step in (1, 6, 13):
        assert same_bits(every.draws[:, step - 1], mlp.run(from_start(mlp), step).state.x)
    for thin in (2, 3, 7, 20):
        thinned = mlp.run(from_start(mlp), 20, thin=thin)
        assert same_bits(thinned.draws, every.draws[:, thin - 1 :: thin][:, : 20 // thin])
        assert same_state(thinned.state, plain.state)


def test_the_progress_bar_changes_no_sample(
    mlp: ce.Sampler, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = mlp.run(from_start(mlp), 20, thin=4)
    monkeypatch.setenv("FORCE_COLOR", "1")  # what rich takes for a terminal
    shown = mlp.run(from_start(mlp), 20, thin=4, progress=True)
    captured = capsys.readouterr()
    assert "20/20" in captured.err and captured.out == ""
    monkeypatch.delenv("FORCE_COLOR")
    in_a_file = mlp.run(from_start(mlp), 20, thin=4, progress=True)
    captured = capsys.readouterr()
    assert "\x1b" not in captured.err and captured.out == ""
    for other in (shown, in_a_file):
        assert same_state(plain.state, other.state) and same_bits(plain.draws, other.draws)


def test_a_run_leaves_the_state_it_began_from(mlp: ce.Sampler) -> None:
    first = mlp.run(from_start(mlp), 3).state
    before = copy.deepcopy(first)
    mlp.run(first, 5)
    assert same_state(first, before)


def test_resuming_from_a_saved_state(mlp: ce.Sampler) -> None:
    whole = mlp.run(from_start(mlp), 20).state
    file = io.BytesIO()
    torch.save(mlp.run(from_start(mlp), 9).state, file)
    file.seek(0)
    loaded = torch.load(file)
    assert same_state(mlp.run(loaded, 11).state, whole)
    file.seek(0)
    fresh = sampler_of(BY_NAME["mlp"], "eager")
    assert torch.allclose(fresh.run(torch.load(file), 11).state.x, whole.x, atol=1e-5)


def test_schedules_go_on_where_a_run_was_cut(mlp: ce.Sampler) -> None:
    constant = mlp.transition
    try:
        mlp.transition = ce.Langevin(schedules.Linear(0.02, 0.001, 20), noise_scale=schedules.Cosine(1.0, 0.1, 20))
        whole = mlp.run(from_start(mlp), 20).state
        assert same_state(mlp.run(mlp.run(from_start(mlp), 8).state, 12).state, whole)
    finally:
        mlp.transition = constant
    assert not same_bits(mlp.run(from_start(mlp), 20).state.positions, whole.positions)


def test_long_runs_that_evaluate_schedules_as_they_go_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    sampler = shared_sampler("mlp", "eager")
    constant = sampler.transition
    try:
        sampler.transition = ce.Langevin(schedules.Linear(0.02, 0.001, 20), noise_scale=schedules.Cosine(1.0, 0.1, 20))
        whole = sampler.run(from_start(sampler), 20, thin=3)
        monkeypatch.setattr("compiled_ebm.hypertable._TABLE_STEPS", 4)
        piecewise = sampler.run(from_start(sampler), 20, thin=3)
    finally:
        sampler.transition = constant
    assert same_state(piecewise.state, whole.state) and same_bits(piecewise.draws, whole.draws)


def test_runs_in_another_thread_alike(mlp: ce.Sampler) -> None:
    found: list[ce.ChainState] = []
    worker = threading.Thread(target=lambda: found.append(mlp.run(from_start(mlp), 8).state))
    worker.start()
    worker.join()
    assert same_state(found[0], mlp.run(from_start(mlp), 8).state)


def test_runs_in_two_threads_at_once_do_not_mix(mlp: ce.Sampler) -> None:
    """Two seeds on one sampler, many short runs: buffers that it keeps must not be shared between runs."""
    want = {seed: mlp.run(from_start(mlp, seed), 30).state for seed in (1, 2)}
    wrong: list[int] = []

    def work(seed: int) -> None:
        wrong.extend(seed for _ in range(10) if not same_state(mlp.run(from_start(mlp, seed), 30).state, want[seed]))

    workers = [threading.Thread(target=work, args=(seed,)) for seed in want]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert wrong == []


@pytest.mark.parametrize("first", [0, 2**31 - 8, 2**32 - 24, 2**62], ids=hex)
@pytest.mark.parametrize("seed", [2**31, 2**32 - 1, 2**63 + 5, 2**64 - 1], ids=hex)
def test_all_backends_see_the_same_noise(seed: int, first: int) -> None:
    """At the edges of every word of the counter and the key, where integer arithmetic can go wrong."""
    x0 = BY_NAME["mlp"].x0(N)
    states = []
    for backend in BACKENDS:
        sampler = shared_sampler("mlp", backend)
        states.append(sampler.run(sampler.init(x0, seed=seed, first_chain=first, first_step=2**32 - 3), 2).state)
    for state in states[1:]:
        assert float((states[0].positions - state.positions).abs().max()) < 1e-5


def test_compiled_code_is_reused_not_recompiled() -> None:
    """New weights, schedules, seeds, and fewer chains than a tile: with torch.compile forbidden."""
    energy = BY_NAME["mlp"].make()
    sampler = ce.build_sampler(energy, ce.Langevin(0.01), (2,), backend="inductor")
    x0 = BY_NAME["mlp"].x0(N)
    first = sampler.run(sampler.init(x0, seed=SEED), 3)
    assert first.stats.build_seconds > 0
    with torch.compiler.set_stance("fail_on_recompile"):
        again = sampler.run(sampler.init(x0, seed=SEED), 3)
        assert again.stats.build_seconds < 0.05 and same_state(again.state, first.state)
        sampler.transition = ce.Langevin(schedules.Linear(0.02, 0.01, 5), noise_scale=0.5)
        sampler.run(sampler.init(x0[:40], seed=9), 4, thin=2)
        with torch.no_grad():
            for p in energy.parameters():
                p.mul_(1.5)
        sampler.transition = ce.Langevin(0.01)
        changed = sampler.run(sampler.init(x0, seed=SEED), 3).state
        with torch.enable_grad():
            assert same_state(sampler.run(sampler.init(x0, seed=SEED), 3).state, changed)
    assert builds(sampler) == 1
    eager = ce.build_sampler(energy, ce.Langevin(0.01), (2,), backend="eager")
    want = eager.run(eager.init(x0, seed=SEED), 3).state
    assert torch.allclose(changed.positions, want.positions, atol=1e-5)  # compiled code saw the new weights
    assert not torch.allclose(first.state.positions, want.positions, atol=1e-4)


def test_weights_change_between_two_runs_of_one_state() -> None:
    """The gradient that the state carries is of the old weights: the next step must not use it."""
    energy = BY_NAME["mlp"].make()
    for backend in BACKENDS:
        sampler = ce.build_sampler(energy, ce.Langevin(0.01, noise_scale=0.0), (2,), backend=backend)
        state = sampler.run(sampler.init(BY_NAME["mlp"].x0(N)), 3).state
        with torch.no_grad():
            for p in energy.parameters():
                p.mul_(1.1)
        moved = sampler.run(state, 1).state
        want = state.positions - 0.01 * energy.gradient(state.positions)
        assert torch.allclose(moved.positions, want, atol=1e-6)
        assert torch.allclose(sampler.run(state, 0).state.energy, energy(state.positions).detach(), rtol=1e-5)


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_sign_of_a_zero_among_the_weights_is_live(backend: str) -> None:
    """Weights are compared by their bits: 0 and -0 are equal, and 1 / w is inf for the one and -inf for the other."""
    w = torch.tensor([0.0, 1.0])
    sampler = ce.build_sampler(
        lambda x: ((x - 1 / (1 / w).clamp(-2, 2)) ** 2).sum(-1), ce.Langevin(0.1, 0.0), (2,), backend=backend
    )
    state = sampler.init(torch.zeros(N, 2))
    before = sampler.run(state, 1).state.x
    w[0] = -0.0
    after = sampler.run(state, 1).state.x
    torch.testing.assert_close(before, torch.tensor([0.1, 0.2]).expand(N, 2))
    torch.testing.assert_close(after, torch.tensor([-0.1, 0.2]).expand(N, 2))


@slow
def test_inductor_samples_the_discretised_law() -> None:
    """Variance 1 / (k (1 - eta k / 2)) = 4/3 of 20,000 samples: to 1% a standard error, five of them; not 1 / k."""
    sampler = ce.build_sampler(ce.HarmonicModel(1.0), ce.Langevin(0.5), (2,), backend="inductor")
    x = torch.cat([sampler.run(sampler.init(n_chains=MANY, seed=seed), 60).state.x.double() for seed in range(10)])
    error = 5 * (2 / x.numel()) ** 0.5
    assert abs(float(x.square().mean()) * 0.75 - 1) < error < abs(float(x.square().mean()) - 1)


# -- failing chains --------------------------------------------------------------------------------------------------


class Perilous(nn.Module):
    """x_0 is drawn to walls at -1 and 1, beyond which E is NaN; |x_1| has a NaN gradient at 0; x_2 can run away."""

    def forward(self, x: Tensor) -> Tensor:
        wall = torch.log(1 - x[:, 0].square())
        return wall + x[:, 1].square().sqrt() - 0.25 * x[:, 2].pow(4) + x[:, 3].square()


WALL, CUSP, RUNAWAY, BEYOND = 5, 11, 17, 23
"""The chains that fail, and BEYOND, which is already where E is NaN."""


def perilous_start(n: int = N) -> Tensor:
    ranges = ((-0.01, 0.01), (3.0, 4.0), (-0.2, 0.2), (-1.0, 1.0))
    x0 = torch.stack([torch.linspace(*ends, n) for ends in ranges], dim=1)
    x0[WALL, 0], x0[CUSP, 1], x0[RUNAWAY, 2], x0[BEYOND, 0] = 0.6, 0.0, 4.0, 1.5
    return x0


PERILOUS = ce.Langevin(step_size=0.04, noise_std=0.005)


@functools.cache
def perilous(backend: str) -> ce.Sampler:
    return ce.build_sampler(Perilous(), PERILOUS, (4,), backend=backend)


def run_perilous(sampler: ce.Sampler, state: ce.ChainState, n_steps: int) -> ce.RunResult:
    with pytest.warns(ce.NonFiniteChainWarning) as caught:
        result = sampler.run(state, n_steps)
    assert sum(issubclass(w.category, ce.NonFiniteChainWarning) for w in caught) == 1
    return result


def failures_by_hand(x0: Tensor, n_steps: int, first_step: int = 0) -> tuple[list[int], Tensor]:
    """Step of failure (or -1) and last finite position of every chain, in float32 by plain code."""
    from cases import noise

    energy, x, failed = Perilous(), x0.clone(), torch.full((len(x0),), -1)
    failed[~torch.isfinite(energy(x))] = first_step
    for step in range(first_step, first_step + n_steps):
        at = x.clone().requires_grad_()
        (grad,) = torch.autograd.grad(energy(at).sum(), at)
        new = x - 0.04 * grad + 0.005 * noise(SEED, step, torch.arange(len(x)), (4,), torch.float32)
        finite = torch.isfinite(new).all(1) & torch.isfinite(energy(new))
        x = torch.where(((failed == -1) & finite)[:, None], new, x)
        failed = torch.where((failed == -1) & ~finite, torch.tensor(step), failed)
    return failed.tolist(), x


@pytest.mark.parametrize("first_step", [0, 100])
@pytest.mark.parametrize("backend", BACKENDS)
def test_failed_chains_stay_and_are_marked(backend: str, first_step: int) -> None:
    sampler = perilous(backend)
    x0 = perilous_start()
    result = run_perilous(sampler, sampler.init(x0, seed=SEED, first_step=first_step), 20)
    steps, last = failures_by_hand(x0, 20, first_step)
    assert result.state.failed_at.tolist() == steps
    failed = [i for i, step in enumerate(steps) if step >= 0]
    assert {WALL, CUSP, RUNAWAY, BEYOND} <= set(failed) and len(failed) < 10
    assert steps[CUSP] == steps[BEYOND] == first_step < min(steps[RUNAWAY], steps[WALL])  # these got somewhere first
    assert bool(torch.isfinite(result.state.positions).all())
    assert torch.allclose(result.state.positions, last, rtol=1e-3, atol=1e-4)
    assert same_bits(result.state.positions[[CUSP, BEYOND]], x0[[CUSP, BEYOND]])
    stats = result.stats
    assert (stats.n_failed, stats.first_failed_step) == (len(failed), first_step)
    assert result.state.n_failed == len(failed)


@pytest.mark.parametrize("backend", BACKENDS)
def test_failed_chains_touch_no_neighbour(backend: str) -> None:
    sampler = perilous(backend)
    x0 = perilous_start()
    tame = x0.clone()
    tame[[WALL, CUSP, RUNAWAY, BEYOND]] = torch.tensor([0.0, 3.5, 0.1, 0.0])
    with_failures = run_perilous(sampler, sampler.init(x0, seed=SEED), 20).state
    steps = with_failures.failed_at
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ce.NonFiniteChainWarning)
        without = sampler.run(sampler.init(tame, seed=SEED), 20).state
    others = torch.tensor([i not in (WALL, CUSP, RUNAWAY, BEYOND) for i in range(N)])
    assert int((steps[others] == -1).sum()) > 30
    pairs = zip((with_failures.positions, *with_failures.carried), (without.positions, *without.carried), strict=True)
    assert all(same_bits(a[others], b[others]) for a, b in pairs)


@pytest.mark.parametrize("backend", BACKENDS)
def test_failed_chains_stay_failed_in_later_runs(backend: str) -> None:
    sampler = perilous(backend)
    whole = run_perilous(sampler, sampler.init(perilous_start(), seed=SEED), 20)
    half = run_perilous(sampler, sampler.init(perilous_start(), seed=SEED), 8)
    on = run_perilous(sampler, half.state, 12)
    assert same_state(on.state, whole.state)
    was = half.state.failed_at >= 0
    assert same_bits(half.state.positions[was], on.state.positions[was])
    assert torch.equal(half.state.failed_at[was], on.state.failed_at[was])


@pytest.mark.parametrize("backend", BACKENDS)
def test_kept_draws_of_failed_chains_are_finite(backend: str) -> None:
    sampler = perilous(backend)
    with pytest.warns(
        ce.NonFiniteChainWarning, match=r"chains reached a position or energy that is not finite.*step 0"
    ):
        draws = sampler.run(sampler.init(perilous_start(), seed=SEED), 12, thin=3).draws
    assert bool(torch.isfinite(draws).all())
    assert same_bits(draws[CUSP, 0], draws[CUSP, 3])


def test_negative_control_no_failure_no_warning() -> None:
    sampler = perilous("eager")
    x0 = torch.tensor([[0.0, 3.5, 0.1, 0.0]]).expand(8, 4)
    result = sampler.run(sampler.init(x0, seed=SEED), 5)  # warnings are errors here
    assert (result.stats.n_failed, result.stats.first_failed_step, result.state.n_failed) == (0, None, 0)


@pytest.mark.parametrize("backend", ["eager", pytest.param("inductor", marks=slow)])
def test_a_clamp_does_not_hide_a_failure(backend: str) -> None:
    """NaN is no number to be clamped: the chain is marked, in every backend."""
    transition = ce.Langevin(0.04, noise_std=0.005, clamp=(-5.0, 5.0))
    sampler = ce.build_sampler(Perilous(), transition, (4,), backend=backend)
    state = run_perilous(sampler, sampler.init(perilous_start(), seed=SEED), 5).state
    assert state.failed_at[[CUSP, BEYOND]].tolist() == [0, 0]
    assert bool(torch.isfinite(state.positions).all())
    assert float(state.positions[:, 2].abs().max()) <= 5.0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_overflow_of_the_compute_dtype_fails_the_chain(dtype: torch.dtype) -> None:
    """300^2 is infinite in float16 and fine in bfloat16; the position itself is finite in both."""
    sampler = ce.build_sampler(
        lambda x: x.square().sum(-1), ce.Langevin(1e-3, noise_scale=0.0), (1,), backend="eager", dtype=dtype
    )
    state = sampler.init(torch.tensor([[1.0], [300.0]]))
    if dtype == torch.bfloat16:
        assert sampler.run(state, 3).stats.n_failed == 0
    else:
        result = run_perilous(sampler, state, 3)
        assert result.state.failed_at.tolist() == [-1, 0] and float(result.state.x[1]) == 300.0


# -- the run loop ----------------------------------------------------------------------------------------------------


def fresh_harmonic(backend: str = "eager", **options: Any) -> ce.Sampler:
    return ce.build_sampler(ce.HarmonicModel(), ce.Langevin(0.1), (2,), backend=backend, **options)


harmonic = functools.cache(fresh_harmonic)


class InterruptsItself:
    """A collector that stands for a user who presses Ctrl-C while the given launch is handed on."""

    def __init__(self, at: int) -> None:
        self.at, self.kept, self.writes = at, 0, 0

    def write(self, x: Tensor, energy: Tensor) -> None:
        self.writes += 1
        self.kept += x.shape[0]
        if self.writes == self.at:
            signal.raise_signal(signal.SIGINT)


@pytest.mark.parametrize("backend", BACKENDS)
def test_ctrl_c_ends_after_the_launch_and_returns(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runloop, "MAX_LAUNCH_STEPS", 2)
    sampler = shared_sampler("mlp", backend)
    sampler.run(from_start(sampler), 8)  # a first launch that is slow would make the next ones shorter
    handler = signal.getsignal(signal.SIGINT)
    collector = InterruptsItself(at=3)
    result = sampler.run(from_start(sampler), 100, thin=1, collector=collector)
    assert signal.getsignal(signal.SIGINT) is handler
    assert result.stats.interrupted and result.stats.n_steps == result.state.step == collector.kept == 6
    assert same_state(result.state, sampler.run(from_start(sampler), 6).state)
    on = sampler.run(result.state, 4)
    assert not on.stats.interrupted
    assert same_state(on.state, sampler.run(from_start(sampler), 10).state)


def interrupting() -> tuple[Callable[[Tensor], Tensor], bytearray]:
    """An energy during whose n-th call from now Ctrl-C is pressed, for each n in the second result; once each."""
    presses = bytearray()  # plain data, which the sampler does not watch: it would count a changed number as a change

    def energy(x: Tensor) -> Tensor:
        for i, calls_left in enumerate(presses):
            if calls_left:
                presses[i] = calls_left - 1
                if calls_left == 1:
                    signal.raise_signal(signal.SIGINT)
        return x.square().sum(-1)

    return energy, presses


def test_ctrl_c_keeps_the_draws_so_far(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runloop, "MAX_LAUNCH_STEPS", 4)
    energy, presses = interrupting()
    sampler = ce.build_sampler(energy, ce.Langevin(0.1), (2,), backend="eager")
    state = sampler.run(sampler.init(n_chains=5, seed=1), 0).state
    whole = sampler.run(state, 8, thin=3)
    presses.append(6)
    cut = sampler.run(state, 1000, thin=3)
    assert cut.stats.interrupted and cut.stats.n_steps == cut.state.step == 8
    assert cut.draws.shape == (5, 2, 2) and same_bits(cut.draws, whole.draws)


def test_an_ignored_ctrl_c_stays_ignored() -> None:
    """As under nohup."""
    energy, presses = interrupting()
    sampler = ce.build_sampler(energy, ce.Langevin(0.1), (2,), backend="eager")
    presses.append(5)
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        result = sampler.run(sampler.init(n_chains=5), 20)
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, handler)
    assert presses == bytearray(1) and not result.stats.interrupted and result.state.step == 20


def test_a_second_ctrl_c_is_not_held_back() -> None:
    energy, presses = interrupting()
    sampler = ce.build_sampler(energy, ce.Langevin(0.1), (2,), backend="eager")
    state = sampler.run(sampler.init(n_chains=5), 0).state
    handler = signal.getsignal(signal.SIGINT)
    presses.extend([2, 4])
    with pytest.raises(KeyboardInterrupt):
        sampler.run(state, 1000)
    assert signal.getsignal(signal.SIGINT) is handler
    assert sampler.run(state, 3).state.step == 3  # the sampler is still good


def test_stats_say_what_was_done() -> None:
    sampler = harmonic()
    result = sampler.run(sampler.init(n_chains=7), 25, thin=4)
    stats = result.stats
    assert (stats.n_chains, stats.n_steps, stats.interrupted) == (7, 25, False)
    assert result.draws.shape == (7, 6, 2)
    assert stats.n_launches >= 1 and stats.run_seconds > 0 and stats.build_seconds >= 0
    assert stats.chain_steps_per_second == pytest.approx(7 * 25 / stats.run_seconds)
    nothing = sampler.run(result.state, 0)
    assert (nothing.stats.n_steps, nothing.stats.n_launches) == (0, 0)
    assert same_state(nothing.state, result.state)


def test_collectors_see_every_kept_step_in_order() -> None:
    class Keeps:
        def __init__(self) -> None:
            self.x: list[Tensor] = []
            self.energy: list[Tensor] = []

        def write(self, x: Tensor, energy: Tensor) -> None:
            self.x.append(x.clone())
            self.energy.append(energy.clone())

    sampler = shared_sampler("mlp", "eager")
    keeps, diagnostics = Keeps(), StepDiagnostics(torch.float32)
    result = sampler.run(from_start(sampler), 20, thin=3, collector=Tee(keeps, diagnostics))
    assert result.draws is None
    x, energy = torch.cat(keeps.x), torch.cat(keeps.energy)
    draws = sampler.run(from_start(sampler), 20, thin=3).draws
    assert same_bits(x.movedim(0, 1), draws)
    assert torch.allclose(energy.T, BY_NAME["mlp"].make()(draws.flatten(0, 1)).reshape(N, 6), rtol=1e-5)
    found = diagnostics.result((2,), torch.device("cpu"))
    assert torch.allclose(found["mean"], draws.mean(0), atol=1e-6)
    assert torch.allclose(found["var"], draws.var(0, unbiased=False), rtol=1e-4)
    assert torch.allclose(found["energy"], energy.mean(1), rtol=1e-5)


def test_scalar_chains_run_from_given_positions() -> None:
    case = BY_NAME["scalar-chain"]
    sampler = sampler_of(case, "eager")
    result = sampler.run(sampler.init(case.x0(9), seed=SEED), 6, thin=2)
    assert result.state.x.shape == (9,) and result.draws.shape == (9, 3)


# -- arguments -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("backend", BACKENDS)
def test_positions_that_are_not_finite_are_refused(backend: str, value: float) -> None:
    x0 = torch.zeros(6, 2)
    x0[4, 1] = x0[5, 0] = value
    with pytest.raises(ValueError, match=r"x0: expected finite positions.*2 of 6 chains, the first chain 4"):
        harmonic(backend).init(x0)


@pytest.mark.parametrize(
    ("x0", "options", "error", "message"),
    [
        (torch.zeros(4, 3), {}, ValueError, r"x0: expected shape \[n_chains >= 1, \*\[2\]\], got \[4, 3\].*\(2,\)"),
        (torch.zeros(2), {}, ValueError, "x0: expected shape"),
        (torch.zeros(4, 1, 2), {}, ValueError, "x0: expected shape"),
        (torch.zeros(0, 2), {}, ValueError, "x0: expected shape"),
        ([[0.0, 0.0]], {}, TypeError, "x0: expected a tensor"),
        (torch.zeros(4, 2, dtype=torch.int32), {}, TypeError, "x0: expected a floating-point dtype"),
        (torch.zeros(4, 2, dtype=torch.complex64), {}, TypeError, "x0: expected a floating-point dtype"),
        (torch.zeros(4, 2), {"n_chains": 5}, ValueError, "n_chains: expected 4 as x0 has, got 5"),
        (None, {}, ValueError, "x0, n_chains: expected one of them"),
        (None, {"n_chains": 0}, ValueError, "n_chains: expected an integer from 1"),
        (None, {"n_chains": -3}, ValueError, "n_chains: expected an integer from 1"),
        (None, {"n_chains": 2.0}, TypeError, "n_chains: expected an integer"),
        (None, {"n_chains": True}, TypeError, "n_chains: expected an integer"),
        (None, {"n_chains": 2, "seed": 2**64}, ValueError, "seed: expected an integer"),
        (None, {"n_chains": 2, "seed": -(2**63) - 1}, ValueError, "seed: expected an integer"),
        (None, {"n_chains": 2, "seed": 1.5}, TypeError, "seed: expected an integer"),
        (None, {"n_chains": 2, "first_chain": -1}, ValueError, "first_chain: expected an integer"),
        (None, {"n_chains": 2, "first_chain": 2**63 - 1}, ValueError, "n_chains: expected an integer from 1 to 1"),
        (None, {"n_chains": 2, "first_step": 2**32}, ValueError, "first_step: expected an integer"),
    ],
)
def test_arguments_of_init(x0: Any, options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        harmonic().init(x0, **options)


def test_integers_of_other_kinds_are_taken() -> None:
    import numpy as np

    a = harmonic().init(n_chains=np.int64(3), seed=np.uint32(7), first_chain=torch.tensor(5))
    assert same_bits(a.positions, harmonic().init(n_chains=3, seed=7, first_chain=5).positions)


@pytest.mark.parametrize(
    ("n_steps", "options", "error", "message"),
    [
        (-1, {}, ValueError, "n_steps: expected an integer from 0"),
        (2.5, {}, TypeError, "n_steps: expected an integer"),
        (10, {"thin": 0}, ValueError, "thin: expected an integer from 1 to 10, got 0"),
        (10, {"thin": 11}, ValueError, "thin: expected an integer from 1 to 10, got 11"),
        (10, {"thin": -1}, ValueError, "thin: expected an integer"),
        (10, {"thin": 1.0}, TypeError, "thin: expected an integer"),
        (10, {"collector": StepDiagnostics(torch.float32)}, ValueError, "thin: expected a number of steps"),
        (2**32 + 1, {}, ValueError, "n_steps: expected an integer from 0 to 4294967296"),
    ],
)
def test_arguments_of_run(n_steps: Any, options: dict[str, Any], error: type[Exception], message: str) -> None:
    sampler = harmonic()
    with pytest.raises(error, match=message):
        sampler.run(sampler.init(n_chains=3), n_steps, **options)


def test_states_of_another_shape_or_dtype_are_refused() -> None:
    sampler = harmonic()
    with pytest.raises(TypeError, match="state: expected a ChainState"):
        sampler.run(torch.zeros(3, 2), 1)
    wide = ce.build_sampler(ce.HarmonicModel(), ce.Langevin(0.1), (3,), backend="eager")
    with pytest.raises(ValueError, match=r"state: expected positions \[n, \*\[2\]\]"):
        sampler.run(wide.init(n_chains=3), 1)
    with pytest.raises(ValueError, match="carried in torch.float32"):
        sampler.run(harmonic(dtype=torch.float64).init(n_chains=3), 1)


def test_positions_of_any_layout_and_precision_are_taken() -> None:
    sampler = harmonic()
    x0 = torch.randn(2, 5, generator=torch.Generator().manual_seed(0)).t()
    assert not x0.is_contiguous()
    want = sampler.run(sampler.init(x0.contiguous()), 3).state
    assert same_state(sampler.run(sampler.init(x0), 3).state, want)
    assert same_state(sampler.run(sampler.init(x0.double()), 3).state, want)
    assert not torch.equal(sampler.init(x0.bfloat16()).positions, want.positions)
    expanded = sampler.init(torch.zeros(1, 2).expand(4, 2))
    assert sampler.run(expanded, 1).state.x.unique(dim=0).shape[0] == 4


# -- choice of the backend -------------------------------------------------------------------------------------------


def test_auto_says_what_it_chose_and_why() -> None:
    sampler = harmonic("auto")
    assert sampler.backend == "fused" and re.search(r"backend +fused \(auto", sampler.explain())
    assert re.search(r"backend +eager \(asked for\)", harmonic("eager").explain())


def test_without_a_compiler_auto_is_eager_and_a_named_backend_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = replace(builder.BACKENDS["inductor"], why_unavailable=lambda device: "no C++ compiler was found")
    monkeypatch.setitem(builder.BACKENDS, "inductor", broken)
    monkeypatch.setitem(builder.BACKENDS, "fused", broken)
    text = fresh_harmonic("auto").explain()
    assert re.search(r"backend +eager \(auto", text) and "not inductor: no C++ compiler was found" in text
    with pytest.raises(ce.BackendUnavailableError, match="backend='inductor': no C"):
        fresh_harmonic("inductor")


def test_auto_falls_back_where_an_operation_cannot_be_mapped_and_says_so() -> None:
    sampler = ce.build_sampler(no_batching_rule, ce.Langevin(0.01), (2,), backend="auto")
    result = sampler.run(sampler.init(n_chains=16), 2)
    assert torch.allclose(result.state.energy, result.state.x.square().sum(-1), rtol=1e-6)
    assert sampler.backend == "eager" and re.search(
        r"backend +eager \(auto; not fused: .*histc.*not inductor: .*histc", sampler.explain()
    )
    by_name = ce.build_sampler(no_batching_rule, ce.Langevin(0.01), (2,), backend="inductor")
    with pytest.raises(ce.UnsupportedEnergyError, match=r"histc.*backend='eager'"):
        by_name.run(by_name.init(n_chains=16), 2)


def test_build_ahead_of_the_first_run() -> None:
    sampler = sampler_of(BY_NAME["mlp"], "inductor")
    assert sampler.build(N) >= 0
    state = from_start(sampler)
    with torch.compiler.set_stance("fail_on_recompile"):
        result = sampler.run(state, 2)
    assert result.stats.build_seconds < 0.05
    assert sampler.build(N) < 0.05
    assert "def forward" in sampler.source


# -- memory ----------------------------------------------------------------------------------------------------------

FREE = 40 << 20


@pytest.fixture
def little_memory(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(memory, "available_bytes", lambda device: FREE)
    yield


def fitting(error: pytest.ExceptionInfo[MemoryError]) -> int:
    message = str(error.value)
    assert "40.0 MiB is free on cpu" in message and "first_chain" in message
    found = re.search(r"about (\d+) chains fit", message)
    assert found is not None, message
    return int(found[1])


@pytest.mark.parametrize("backend", BACKENDS)
def test_too_many_chains_are_refused_with_how_many_fit(backend: str, little_memory: None) -> None:
    sampler = ce.build_sampler(ce.HarmonicModel(), ce.Langevin(0.1), (1000,), backend=backend)
    with pytest.raises(MemoryError, match="n_chains: 1000000000 chains need") as caught:
        sampler.init(n_chains=10**9)
    fits = fitting(caught)
    assert 0.5 * FREE < fits * 4 * 4 * 1000 < FREE
    assert sampler.init(n_chains=fits).n_chains == fits
    with pytest.raises(MemoryError):
        sampler.init(n_chains=fits + fits // 20)


def test_too_many_draws_are_refused_with_how_many_chains_fit(little_memory: None) -> None:
    sampler = ce.build_sampler(ce.HarmonicModel(), ce.Langevin(0.1), (1000,), backend="eager")
    state = sampler.init(n_chains=400)
    with pytest.raises(MemoryError, match="state and draws") as caught:
        sampler.run(state, 100, thin=1)
    fits = fitting(caught) // 16 * 16
    assert fits * 100 * 1000 * 4 < FREE < (fits * 1.5) * 100 * 1000 * 4
    with pytest.raises(MemoryError):
        sampler.run(sampler.init(n_chains=fits + 16), 100, thin=1)
    assert sampler.run(sampler.init(n_chains=fits), 100, thin=1).draws.shape == (fits, 100, 1000)
    assert sampler.run(state, 100, thin=50).draws.shape == (400, 2, 1000)  # with fewer draws it fits


def test_negative_control_unknown_memory_refuses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "available_bytes", lambda device: None)
    assert harmonic().init(n_chains=1000).n_chains == 1000


def test_the_free_memory_is_a_plausible_number() -> None:
    free = memory.available_bytes(torch.device("cpu"))
    assert free is None or 1 << 20 < free < 1 << 50


# -- CUDA ------------------------------------------------------------------------------------------------------------

cuda = pytest.mark.cuda


def on_cuda(case: Case, backend: str = "inductor", dtype: torch.dtype = torch.float32) -> ce.Sampler:
    energy = case.make()
    if isinstance(energy, nn.Module):
        energy.cuda()
    return ce.build_sampler(
        energy, ce.Langevin(case.step_size), case.event, backend=backend, device="cuda", dtype=dtype
    )


CUDA_CASES = [c for c in CASES if c.name not in ("closure", "lattice")]
"""Without those whose plain functions hold CPU tensors."""


@cuda
@pytest.mark.parametrize(
    "case", [pytest.param(c, id=c.name, marks=() if c.name == "mlp" else slow) for c in CUDA_CASES]
)
def test_cuda_graphs_agree_with_eager_on_the_device(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """150 steps: two long graphs and a tail of single steps; the first ten within rounding of the reference."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)  # on by default for convolutions: 10 bits
    reference = reference_of(case.name, torch.float32)
    # the device's own logarithm, sine and cosine: normals within 1e-5 of the specification's
    noise = N_STEPS * 1e-5 * (2 * case.step_size) ** 0.5
    tolerance = 2 * reference.tolerance(torch.float32, N_STEPS) + noise
    states = []
    for backend in BACKENDS:
        sampler = on_cuda(case, backend)
        x0 = case.x0(N).cuda()
        states.append(sampler.run(sampler.init(x0, seed=SEED), N_STEPS).state)
        far = sampler.run(sampler.init(x0, seed=SEED), 150).state
        assert far.step == 150 and far.n_failed == 0
        assert bool(torch.isfinite(far.x).all())
    assert float((states[0].positions - states[1].positions).abs().max()) <= tolerance
    assert float((states[1].positions.cpu() - reference.x).abs().max()) <= tolerance


@cuda
def test_cuda_noise_is_the_cpus() -> None:
    """Words are equal bit for bit; normals up to the rounding of log, sin and cos."""
    from compiled_ebm import rng

    seed, step, ids = torch.tensor(-5), torch.tensor(2**32 - 1), torch.arange(1000) + 2**33 - 500
    there = seed.cuda(), step.cuda(), ids.cuda()
    for a, b in zip(rng.words(seed, step, ids, 3, 2), rng.words(*there, 3, 2), strict=True):
        assert torch.equal(a, b.cpu())
    assert torch.equal(rng.uniforms(seed, step, ids, 7), rng.uniforms(*there, 7).cpu())
    assert torch.allclose(rng.normals(seed, step, ids, 7), rng.normals(*there, 7).cpu(), atol=5e-4, rtol=1e-5)


@cuda
@pytest.mark.parametrize("cuts", [(64, 64, 2), (1, 129), (130,), (63, 65, 1, 1), (30, 100)])
def test_cuda_bits_do_not_depend_on_launches(cuts: tuple[int, ...]) -> None:
    """Long graphs and tail steps mix in every way."""
    case = BY_NAME["mlp"]
    sampler = on_cuda(case)
    x0 = case.x0(N).cuda()
    whole = sampler.run(sampler.init(x0, seed=SEED), 130).state
    state = sampler.init(x0, seed=SEED)
    for n_steps in cuts:
        state = sampler.run(state, n_steps).state
    assert same_state(state, whole)
    thinned = sampler.run(sampler.init(x0, seed=SEED), 130, thin=13)
    assert same_state(thinned.state, whole) and same_bits(thinned.draws[:, -1], whole.x)


@cuda
@pytest.mark.parametrize("name", ["mlp", "mixture", "conv"])
def test_cuda_bits_do_not_depend_on_the_batch(name: str) -> None:
    case = BY_NAME[name]
    sampler = on_cuda(case)
    x0 = case.x0(MANY).cuda()
    whole = sampler.run(sampler.init(x0, seed=SEED), 70).state
    for first, stop in ((0, 1), (777, 778), (0, 500), (500, MANY), (100, 203)):
        part = sampler.run(sampler.init(x0[first:stop], seed=SEED, first_chain=first), 70).state
        for a, b in zip((part.positions, *part.carried), (whole.positions, *whole.carried), strict=True):
            assert same_bits(a, b[first:stop])


@cuda
def test_cuda_weights_are_live() -> None:
    case = BY_NAME["mlp"]
    energy = case.make().cuda()
    sampler = ce.build_sampler(energy, ce.Langevin(0.01, noise_scale=0.0), (2,), backend="inductor")
    assert sampler.device.type == "cuda"  # where the energy is
    state = sampler.run(sampler.init(case.x0(N).cuda()), 70).state
    with torch.no_grad():
        for p in energy.parameters():
            p.mul_(1.2)
    moved = sampler.run(state, 1).state
    assert torch.allclose(moved.positions, state.positions - 0.01 * energy.gradient(state.positions), atol=1e-6)
    energy.net[0].weight = nn.Parameter(energy.net[0].weight.detach() * 0.5)
    again = sampler.run(moved, 1).state
    assert torch.allclose(again.positions, moved.positions - 0.01 * energy.gradient(moved.positions), atol=1e-6)
    assert builds(sampler) == 2


@cuda
def test_cuda_steady_state_neither_syncs_nor_allocates() -> None:
    case = BY_NAME["mlp"]
    sampler = on_cuda(case)
    state = sampler.run(sampler.init(case.x0(N).cuda(), seed=SEED), 200).state
    program, launch = sampler._builds.get({}, N)
    chains = buffers(program, launch, state, {})
    launch.prepare(chains)
    launch.begin(chains)
    table = torch.stack(list(sampler.transition.hyper_table(state.step, 200)), dim=1)
    table = table.to(device=sampler.device, dtype=torch.float32)
    launch(chains, state.step, table, None)
    torch.cuda.synchronize()
    before = torch.cuda.memory_stats()
    mode = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        for i in range(1, 4):
            launch(chains, state.step + 200 * i, table, None)
    finally:
        torch.cuda.set_sync_debug_mode(mode)
    torch.cuda.synchronize()
    after = torch.cuda.memory_stats()
    for counter in ("allocation.all.allocated", "segment.all.allocated", "num_alloc_retries"):
        assert after[counter] == before[counter], counter
    want = sampler.run(state, 800).state
    assert same_bits(chains.state[0][:N].contiguous(), want.positions)


@cuda
def test_cuda_positions_on_the_host_are_moved_once_with_a_warning() -> None:
    sampler = on_cuda(BY_NAME["mlp"])
    x0 = BY_NAME["mlp"].x0(N)
    with pytest.warns(UserWarning, match="copied once") as caught:
        state = sampler.init(x0, seed=SEED)
    assert len(caught) == 1 and state.positions.is_cuda
    assert same_state(sampler.run(state, 5).state, sampler.run(sampler.init(x0.cuda(), seed=SEED), 5).state)


@cuda
def test_cuda_failed_chains_are_those_of_the_cpu() -> None:
    x0 = perilous_start()
    sampler = ce.build_sampler(Perilous(), PERILOUS, (4,), backend="inductor", device="cuda")
    result = run_perilous(sampler, sampler.init(x0.cuda(), seed=SEED), 20)
    assert result.state.failed_at.tolist() == failures_by_hand(x0, 20)[0]
    assert bool(torch.isfinite(result.state.positions).all())


@cuda
@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16], ids=str)
def test_cuda_other_dtypes(dtype: torch.dtype) -> None:
    case, reference = BY_NAME["mlp"], reference_of("mlp", dtype)
    sampler = on_cuda(case, dtype=dtype)
    state = sampler.run(sampler.init(case.x0(N).cuda(), seed=SEED), N_STEPS).state
    noise = 0.0 if dtype == torch.float64 else N_STEPS * 1e-5 * (2 * case.step_size) ** 0.5
    tolerance = 2 * reference.tolerance(dtype, N_STEPS) + noise
    assert float((state.positions.cpu() - reference.x).abs().max()) <= tolerance
