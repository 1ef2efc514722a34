"""The fused kernel on a CUDA device: agreement, bits, streams, failures, what auto chose. It skips without one."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
import torch
from cases import BY_NAME, SEED, Case, fixed, same_bits, same_state
from drawn_noise import DIM, Drawn, drawn_and_specified
from loop_transitions import Leapfrog, Nested
from test_backends import CUDA_CASES, PERILOUS, Perilous, failures_by_hand, on_cuda, perilous_start, run_perilous
from torch import Tensor

import compiled_ebm as ce
from benchmarks.workloads import TEN, Workload, initial
from compiled_ebm.backends.fused.reference import OPERATIONS
from compiled_ebm.energies.registry import BUILTIN_ENERGIES
from compiled_ebm.session import buffers

pytest.importorskip("triton")

pytestmark = pytest.mark.cuda
slow = pytest.mark.slow

N, N_STEPS = 100, 5
WHERE = {"seed": 2**63 + 11, "first_chain": 2**40 + 3, "first_step": 9}
CLOSE = 1e-4
"""Relative: normals by the device's own logarithm, sine and cosine, products in three parts of 10 bits."""


def wells(x: Tensor) -> Tensor:
    return (x.square() - 1).square().sum(-1) + 0.3 * (x * x.roll(1, -1)).sum(-1)


def fused(energy: Any, event: int | tuple[int, ...], transition: Any = None, **options: Any) -> ce.Sampler:
    options.setdefault("backend", "fused")
    return ce.build_sampler(energy, transition or ce.Langevin(0.01), event, device="cuda", **options)


def apart(ours: ce.ChainState, theirs: ce.ChainState) -> float:
    """Largest difference of any leaf, relative to its largest element or 1."""
    assert torch.equal(ours.failed_at.cpu(), theirs.failed_at.cpu())
    leaves = zip((ours.positions, *ours.carried), (theirs.positions, *theirs.carried), strict=True)
    return max(float((a - b.to(a)).abs().max()) / (1 + float(b.abs().max())) for a, b in leaves)


def run(sampler: ce.Sampler, x0: Tensor, n_steps: int = N_STEPS, **options: Any) -> ce.ChainState:
    where = {name: options.pop(name, value) for name, value in WHERE.items()}
    return sampler.run(sampler.init(x0.cuda(), **where), n_steps, **options).state


# -- agreement ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, pytest.param(torch.float64, marks=slow)], ids=str)
@pytest.mark.parametrize("case", CUDA_CASES, ids=lambda case: case.name)
def test_every_case_agrees_with_eager(case: Case, dtype: torch.dtype) -> None:
    x0 = case.x0(N).to(dtype)
    ours, theirs = (run(on_cuda(case, backend, dtype), x0) for backend in ("fused", "eager"))
    assert apart(ours, theirs) < (CLOSE if dtype == torch.float32 else 1e-10)


@pytest.mark.parametrize("name", BUILTIN_ENERGIES)
def test_every_builtin_energy_agrees_with_eager(name: str) -> None:
    made = BUILTIN_ENERGIES[name]
    energy, x0 = made.factory(device="cuda"), fixed(N, *made.event_shape, seed=4)
    states = [run(fused(energy, made.event_shape, ce.Langevin(1e-4), backend=b), x0) for b in ("fused", "eager")]
    assert apart(*states) < CLOSE


@pytest.mark.parametrize("workload", TEN, ids=lambda workload: workload.name)
def test_the_workloads_of_the_benchmarks_agree_with_eager(workload: Workload) -> None:
    energy, transition = workload.energy_factory().cuda(), ce.Langevin(workload.step_size)
    x0 = initial(replace(workload, n_chains=N))
    states = [run(fused(energy, workload.event_shape, transition, backend=b), x0) for b in ("fused", "eager")]
    assert apart(*states) < CLOSE
    wrong = run(fused(energy, workload.event_shape, transition), x0, seed=5)
    assert apart(wrong, states[1]) > CLOSE  # the control: other noise


@pytest.mark.parametrize("transition", [Leapfrog(3), Nested(3, 2)], ids=["leapfrog", "nested"])
@pytest.mark.parametrize("dim", [6, 60])
def test_transitions_with_loops_inside(dim: int, transition: Any) -> None:
    states = [run(fused(wells, dim, transition, backend=b), fixed(N, dim, seed=5)) for b in ("fused", "eager")]
    assert apart(*states) < CLOSE


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("first", [1, 2**32 - 50, 2**63 - N], ids=hex)
def test_the_noise_is_that_of_its_coordinates(first: int, dtype: torch.dtype) -> None:
    """Uniforms in every bit; normals as far as the device's functions are."""
    sampler = fused(wells, DIM, Drawn(), dtype=dtype)
    found = drawn_and_specified(sampler, N, seed=2**64 - 3, first_chain=first, first_step=2**32 - 3)
    (uniforms, normals), (want_uniforms, want_normals) = found
    assert same_bits(uniforms, want_uniforms)
    error = (normals - want_normals).abs()
    assert float(error.max()) < (1e-4 if dtype == torch.float32 else 1e-12)


# -- functions ---------------------------------------------------------------------------------------------------------

NARROW = {
    **dict.fromkeys(("asin", "acos", "atanh", "erfinv"), (-0.99, 0.99)),
    **dict.fromkeys(("log", "log2", "log10", "sqrt", "rsqrt"), (1e-3, 50.0)),
    **dict.fromkeys(("digamma", "trigamma", "lgamma"), (0.02, 50.0)),
    **dict.fromkeys(("sin", "cos", "sinh", "cosh", "exp", "exp2", "expm1"), (-10.0, 10.0)),
    "tan": (-1.5, 1.5),
    "acosh": (1.0, 50.0),
    "log1p": (-0.9, 50.0),
    "log1p_unit": (0.0, 1.0),
    "ndtri": (1e-3, 0.999),
    "erfcx": (-2.0, 50.0),
}
UNARY = (
    *("exp", "exp2", "expm1", "log", "log2", "log10", "log1p", "log1p_unit", "sqrt", "rsqrt", "sin", "cos", "tan"),
    *("asin", "acos", "atan", "sinh", "cosh", "tanh", "asinh", "acosh", "atanh", "erf", "erfc", "erfcx", "erfinv"),
    *("ndtri", "sigmoid", "softplus", "floor", "ceil", "trunc", "round", "sign", "lgamma", "digamma", "trigamma"),
)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_functions_are_those_of_torch(dtype: torch.dtype) -> None:
    """All of one argument in one kernel; relative to 1 beside the value, against float64."""
    from compiled_ebm.backends.fused.triton import loading

    size = 1 << 12
    lines = ["@jit", "def chain_loop(reals, out, BLOCK: tl.constexpr):"]
    lines.append("    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)")
    rows = []
    for k, name in enumerate(UNARY):
        rows.append(torch.linspace(*NARROW.get(name, (-20.0, 20.0)), size, dtype=dtype))
        lines.append(f"    tl.store(out + {k * size} + at, r_{name}(tl.load(reals + {k * size} + at)))")
    x = torch.stack(rows).cuda()
    got = torch.empty_like(x)
    loading.load("\n".join(lines) + "\n", [])[(size // 128,)](x, got, BLOCK=128)
    off = {}
    for name, row, found in zip(UNARY, x.cpu().double(), got.cpu().double(), strict=True):
        want = OPERATIONS[name](row)
        off[name] = float(((found - want).abs() / (1 + want.abs())).max())
    allowed = 1e-5 if dtype == torch.float32 else 1e-8  # torch's own trigamma is good to 1e-9
    assert not {name: error for name, error in off.items() if not error <= allowed}


# -- bits --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["mlp", "mixture", "layer-norm", "attention"])
def test_bits_do_not_depend_on_the_batch(name: str) -> None:
    case = BY_NAME[name]
    sampler, x0 = on_cuda(case, "fused"), case.x0(1000)
    whole = run(sampler, x0, 70)
    for first, stop in ((0, 1), (777, 778), (0, 500), (500, 1000), (100, 203)):
        part = run(sampler, x0[first:stop], 70, first_chain=WHERE["first_chain"] + first)
        for a, b in zip((part.positions, *part.carried), (whole.positions, *whole.carried), strict=True):
            assert same_bits(a, b[first:stop])


@pytest.mark.parametrize("cuts", [(130,), (1, 129), (64, 64, 2), (63, 65, 1, 1)])
def test_bits_do_not_depend_on_launches(cuts: tuple[int, ...]) -> None:
    case = BY_NAME["mlp"]
    sampler = on_cuda(case, "fused")
    whole = run(sampler, case.x0(N), 130)
    state = run(sampler, case.x0(N), 0)
    for n_steps in cuts:
        state = sampler.run(state, n_steps).state
    assert same_state(state, whole)
    thinned = sampler.run(run(sampler, case.x0(N), 0), 130, thin=13)
    assert same_state(thinned.state, whole) and same_bits(thinned.draws[:, -1], whole.x)


@pytest.mark.parametrize("length", [1, 7, 64])
def test_draws_do_not_depend_on_the_length_of_launches(length: int, monkeypatch: pytest.MonkeyPatch) -> None:
    from compiled_ebm import runloop

    sampler = fused(wells, 6, ce.Langevin(ce.schedules.Linear(0.02, 0.001, 50)))
    begin = run(sampler, fixed(N, 6), 0)
    whole = sampler.run(begin, 40, thin=3)
    monkeypatch.setattr(runloop, "MAX_LAUNCH_STEPS", length)
    cut = sampler.run(begin, 40, thin=3)
    assert cut.stats.n_launches >= -(-40 // length)
    assert same_state(cut.state, whole.state) and same_bits(cut.draws, whole.draws)


# -- what a run does on the device -------------------------------------------------------------------------------------


def test_launches_neither_sync_nor_allocate() -> None:
    sampler = fused(ce.MLPModel(2, seed=0, confinement=1.0).cuda(), 2)
    state = run(sampler, fixed(N, 2), 50)
    program, launch = sampler._builds.get({}, N)
    chains = buffers(program, launch, state, {})
    launch.prepare(chains)
    launch.begin(chains)
    table = torch.full((200, 2), 0.01, device="cuda")
    launch(chains, state.step, table, None)
    torch.cuda.synchronize()
    before, mode = torch.cuda.memory_stats(), torch.cuda.get_sync_debug_mode()
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


def test_weights_are_live_without_another_kernel() -> None:
    model = ce.MLPModel(2, seed=0, confinement=1.0).cuda()
    sampler = fused(model, 2, ce.Langevin(0.01, noise_scale=0.0))
    state = run(sampler, fixed(N, 2), 3)
    source = sampler.source
    for _ in range(3):
        with torch.no_grad():
            for p in model.parameters():
                p.mul_(1.1)
        moved = sampler.run(sampler.run(state, 0).state, 1).state
        want = state.positions - 0.01 * model.gradient(state.positions)
        assert float((moved.positions - want).abs().max()) < 1e-5
    assert sampler.source == source and sampler._builds.count == 1


def test_two_samplers_on_two_streams() -> None:
    """Each in a thread of its own, at once, built there and run ten times."""
    starts = [fixed(N * k, 6, seed=k).cuda() for k in (1, 30)]
    torch.cuda.synchronize()
    want = [run(fused(wells, 6), x0, 500).x for x0 in starts]

    def runs(x0: Tensor) -> list[Tensor]:
        stream = torch.cuda.Stream()
        with torch.cuda.stream(stream):
            sampler = fused(wells, 6)
            found = [run(sampler, x0, 500).x for _ in range(10)]
        stream.synchronize()
        return found

    with ThreadPoolExecutor(2) as threads:
        for expected, found in zip(want, threads.map(runs, starts), strict=True):
            assert all(same_bits(x, expected) for x in found)


def test_failed_chains_are_those_of_the_cpu() -> None:
    x0 = perilous_start()
    sampler = fused(Perilous(), 4, PERILOUS)
    result = run_perilous(sampler, sampler.init(x0.cuda(), seed=SEED), 20)
    assert result.state.failed_at.tolist() == failures_by_hand(x0, 20)[0]
    assert bool(torch.isfinite(result.state.positions).all())


def test_the_device_is_asked_about_the_layouts_and_auto_says_what_it_chose() -> None:
    """Both figures are there: what the instructions promise, and what a launch took."""
    sampler = fused(wells, 6, backend="auto")
    sampler.run(sampler.init(n_chains=10_000, seed=1), 2000)
    text = sampler.explain()
    assert sampler.backend == "fused" and "one Triton kernel for the whole chain loop" in text
    for word in ("auto", "tile", "registers", "trials", "measured", "expected"):
        assert word in text, word


def test_keyword_arguments_of_each_chain() -> None:
    table = fixed(5, 4, seed=52).cuda()

    def energy(x: Tensor, label: Tensor, pull: Tensor) -> Tensor:
        return pull * (x - table[label]).square().sum(-1)

    kwargs = {"label": torch.arange(N).cuda() % 5, "pull": (0.5 + torch.arange(N) / N).cuda()}
    states = []
    for backend in ("fused", "eager"):
        sampler = fused(energy, 4, backend=backend, model_kwargs=kwargs)
        states.append(run(sampler, fixed(N, 4, seed=9)))
    assert apart(*states) < CLOSE
