"""Loops inside a transition: by hand, traced, in the tile program, and as generated code on every backend."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
import torch
from cases import SEED, fixed, same_bits, same_state
from golden_source import check_golden
from loop_transitions import GradientState, Leapfrog, Nested, StepSize
from torch import Tensor, nn

import compiled_ebm as ce
from compiled_ebm.backends.fused import toolchain
from compiled_ebm.backends.fused.cost import count
from compiled_ebm.backends.fused.lower import lower_move
from compiled_ebm.backends.fused.program import Input, Role
from compiled_ebm.backends.fused.reference import interpret
from compiled_ebm.loopgraph import loops_in
from compiled_ebm.repetition import recorded_once, repeat

needs_compiler = pytest.mark.skipif(toolchain.why_unavailable() is not None, reason="needs a C++ compiler")
slow = pytest.mark.slow


def network(*sizes: int) -> Callable[[Tensor], Tensor]:
    layers: list[nn.Module] = []
    generator = torch.Generator().manual_seed(7)
    for a, b in zip(sizes, sizes[1:], strict=False):
        layer = nn.Linear(a, b)
        with torch.no_grad():
            for p in layer.parameters():
                p.copy_(torch.randn(p.shape, generator=generator) / a**0.5)
        layers += [layer, nn.Tanh()]
    net = nn.Sequential(*layers[:-1])
    return lambda x: net(x).squeeze(-1) + 0.5 * x.square().sum(-1)


def double_well(x: Tensor) -> Tensor:
    return (x.square() - 1).square().sum(-1)


def ring(x: Tensor) -> Tensor:
    return (x.roll(1, -1) - x).square().sum(-1) + 0.1 * x.pow(4).sum(-1)


ENERGIES: dict[str, tuple[Callable[[], Callable[[Tensor], Tensor]], int]] = {
    "straight-line": (lambda: double_well, 3),
    "loops": (lambda: ring, 60),
    "small-network": (lambda: network(2, 16, 1), 2),
    "products": (lambda: network(16, 256, 256, 1), 16),
    "wide-state": (lambda: network(40, 30, 1), 40),
}
TRANSITIONS: dict[str, Any] = {"leapfrog": Leapfrog(5), "nested": Nested(3, 2)}


def build(name: str, transition: Any, backend: str, dtype: torch.dtype = torch.float32) -> ce.Sampler:
    make, dim = ENERGIES[name]
    return ce.build_sampler(make(), transition, dim, backend=backend, dtype=dtype)


def close(a: ce.ChainState, b: ce.ChainState, dtype: torch.dtype) -> None:
    tolerance = 5000 * torch.finfo(dtype).eps
    for ours, theirs in zip((a.positions, *a.carried), (b.positions, *b.carried), strict=True):
        assert torch.allclose(ours, theirs, rtol=tolerance, atol=tolerance)
    assert a.n_failed == b.n_failed == 0


# -- the function itself ---------------------------------------------------------------------------------------------


def test_untraced_it_is_a_loop() -> None:
    a, b = torch.tensor(1.0), torch.tensor(0.0)
    assert repeat(0, lambda a, b: (b, a), (a, b)) == (a, b)
    doubled, total = repeat(4, lambda a, b: (2 * a, b + a), (a, b))
    assert (float(doubled), float(total)) == (16.0, 15.0)


def grown(x: Tensor) -> tuple[Tensor]:
    return (torch.cat([x, x]),)


@pytest.mark.parametrize("traced", [False, True], ids=["plain", "traced"])
@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((2.0, lambda x: (x,), (torch.ones(2),)), TypeError, "rounds: expected a Python int, got float"),
        ((True, lambda x: (x,), (torch.ones(2),)), TypeError, "rounds: expected a Python int, got bool"),
        ((-1, lambda x: (x,), (torch.ones(2),)), ValueError, "rounds: expected 0 or more, got -1"),
        ((2, lambda x: (x,), torch.ones(2)), TypeError, "carry: expected a tuple of one tensor or more, got Tensor"),
        ((2, lambda: (), ()), TypeError, r"carry: expected a tuple of one tensor or more, got a tuple of \(\)"),
        ((2, lambda x: x, (torch.ones(2),)), TypeError, "body: expected a tuple of 1 tensors.* got Tensor"),
        (
            (2, lambda x: (x, x), (torch.ones(2),)),
            TypeError,
            r"body: expected a tuple of 1 tensors.*\(Tensor, Tensor\)",
        ),
        ((2, grown, (torch.ones(2),)), ValueError, r"carry\[0\] back with shape \[2\].*got shape \[4\]"),
        ((2, lambda x: (x.double(),), (torch.ones(2),)), ValueError, r"torch\.float32.*got shape \[2\] and torch\.flo"),
    ],
)
def test_wrong_arguments_are_named(arguments: Any, error: type[Exception], message: str, traced: bool) -> None:
    with pytest.raises(error, match=message):
        if traced:
            with recorded_once():
                repeat(*arguments)
        else:
            repeat(*arguments)


def test_no_gradient_goes_through_a_traced_loop_in_silence() -> None:
    x = torch.ones(3, requires_grad=True)
    (plain,) = torch.autograd.grad(repeat(3, lambda y: (2 * y,), (x,))[0].sum(), x)
    assert torch.equal(plain, torch.full((3,), 8.0))
    with recorded_once():
        (y,) = repeat(3, lambda y: (2 * y,), (x,))
    with pytest.raises(RuntimeError, match="no gradient through its rounds"):
        y.sum().backward()


def test_a_thread_that_runs_chains_while_another_traces_does_every_round() -> None:
    with recorded_once(), ThreadPoolExecutor(1) as other:
        (there,) = other.submit(repeat, 3, lambda y: (2 * y,), (torch.ones(()),)).result()
        (here,) = repeat(3, lambda y: (2 * y,), (torch.ones(()),))
    assert (float(there), float(here)) == (8.0, 2.0)


# -- traced ----------------------------------------------------------------------------------------------------------


def test_the_body_is_traced_once_and_reads_what_does_not_change_from_outside() -> None:
    calls = 0

    def energy(x: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        return double_well(x)

    counts, programs = [], []
    for rounds in (5, 100):
        sampler = ce.build_sampler(energy, Leapfrog(rounds), 3, backend="eager")
        program, _ = sampler._builds.get({}, 1)
        calls = 0
        sampler._builds._trace(program.kwargs, {}, False)
        counts.append(calls)
        programs.append(program)
    assert counts[0] == counts[1]
    few, many = programs
    (loop,) = loops_in(few.step.body)
    assert loop.rounds == 5 and loop.n_carry == 4
    half = [node for node in loop.body.graph.nodes if node.args[1:] == (0.5,)]
    assert not half  # 0.5 * step_size is made before the loop
    assert few.step.body.code != many.step.body.code and few.digest != many.digest
    assert few.bytes_per_chain() == many.bytes_per_chain() > 4 * 3 * 4


class Leaking(Leapfrog):
    """Uses a tensor of one round after the loop."""

    def step(self, state: Any, noise: Any, hyper: Any, target: Any) -> Any:
        seen: list[Tensor] = []

        def body(x: Tensor) -> tuple[Tensor]:
            seen.append(2 * x)
            return (x + 1,)

        (x,) = repeat(3, body, (state.x,))
        return GradientState(x + seen[0], state.energy, state.grad), None


def test_only_the_carry_leaves_a_loop() -> None:
    with pytest.raises(ce.UnsupportedEnergyError, match="repeat: .*test_repetition.*is used after the loop.*carry"):
        ce.build_sampler(double_well, Leaking(), 3, backend="eager")


WEIGHTS = torch.tensor([1.0, 2.0, 3.0])


class Masked(Leapfrog):
    """Indexes with a mask that a loop makes of a captured tensor: one recorded round would give another mask."""

    def step(self, state: Any, noise: Any, hyper: Any, target: Any) -> Any:
        (grown,) = repeat(3, lambda w: (2 * w,), (WEIGHTS,))
        return GradientState(state.x[grown > 5].sum() + state.x, state.energy, state.grad), None


def test_a_mask_made_by_a_loop_is_refused() -> None:
    with pytest.raises(ce.UnsupportedEnergyError, match="the shape of aten.index.Tensor's result"):
        ce.build_sampler(double_well, Masked(), 3, backend="eager")


@pytest.mark.parametrize("transition", TRANSITIONS.values(), ids=TRANSITIONS)
def test_the_batched_graph_is_the_unrolled_one(transition: Any) -> None:
    outputs = []
    for unrolled in (False, True):
        sampler = build("small-network", replace(transition, unrolled=unrolled), "eager", torch.float64)
        program, _ = sampler._builds.get({}, 8)
        assert bool(loops_in(program.step.body)) is not unrolled
        outputs.append(program.step.batched()(*inputs(sampler, 8), *program.step.constants([])))
    for a, b in zip(*outputs, strict=True):
        assert torch.allclose(a, b, rtol=1e-13, atol=1e-13)


def inputs(sampler: ce.Sampler, n: int) -> list[Tensor]:
    """Of a step of n chains, in float64, the first of them far out."""
    program, _ = sampler._builds.get({}, n)
    generator = torch.Generator().manual_seed(3)
    dim = program.event_numel
    x = torch.randn(n, dim, generator=generator, dtype=torch.float64)
    state = sampler.run(sampler.init(x), 0).state
    noise = torch.randn(n, dim, generator=generator, dtype=torch.float64)
    uniforms = torch.rand(n, program.transition.noise.uniforms, generator=generator, dtype=torch.float64)
    step_size = torch.tensor(0.05, dtype=torch.float64)
    return [state.positions, *state.carried, state.failed_at, noise, uniforms, torch.tensor(0), step_size]


# -- the tile program ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("transition", TRANSITIONS.values(), ids=TRANSITIONS)
@pytest.mark.parametrize("name", ["straight-line", "loops", "small-network", "wide-state"])
def test_the_tile_program_computes_what_the_trace_does(name: str, transition: Any) -> None:
    sampler = build(name, transition, "eager", torch.float64)
    program, _ = sampler._builds.get({}, 8)
    constants, given = program.step.constants([]), inputs(sampler, 8)
    wanted = program.step.batched()(*given, *constants)
    tile = lower_move(program, True, constants)
    n_state = len(program.state_shapes)
    roles = [*((Role.STATE, k) for k in range(n_state)), (Role.FAILED, 0), (Role.NORMALS, 0), (Role.UNIFORMS, 0)]
    fed = {role: t.reshape(8, -1).T for role, t in zip(roles, given, strict=False)}
    fed |= {(Role.STEP, 0): given[-2].reshape(1), (Role.HYPER, 0): given[-1].reshape(1)}
    fed |= {(Role.SPREAD, 0): torch.zeros(1, dtype=torch.float64)}
    fed |= {(Role.CONSTANT, k): t.reshape(-1).double() for k, t in enumerate(constants)}
    fed = {key: fed[key] for key in ((n.role, n.position) for n in tile.nodes if isinstance(n, Input))}
    for got, want in zip(interpret(tile, fed)[:-1], wanted, strict=True):
        assert torch.allclose(got.T, want.reshape(8, -1).to(got.dtype), rtol=1e-12, atol=1e-12)


def test_cost_counts_every_round() -> None:
    costs = []
    for transition in (Leapfrog(6), replace(Leapfrog(6), unrolled=True), Leapfrog(12)):
        program, _ = build("products", transition, "eager")._builds.get({}, 1)
        costs.append(count(lower_move(program, True, program.step.constants([]))))
    looped, unrolled, twice = costs
    assert looped.functions == unrolled.functions == {"tanh": 6 * 512, "log": 1}
    assert unrolled.flops == pytest.approx(looped.flops, rel=0.01) and twice.flops > 1.95 * looped.flops
    assert looped.normals == 16


# -- on every backend ------------------------------------------------------------------------------------------------


@needs_compiler
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("transition", TRANSITIONS.values(), ids=TRANSITIONS)
@pytest.mark.parametrize("name", ENERGIES)
def test_fused_agrees_with_eager(name: str, transition: Any, dtype: torch.dtype) -> None:
    eager, fused = (build(name, transition, backend, dtype) for backend in ("eager", "fused"))
    states = [s.run(s.init(n_chains=40, seed=1), 6).state for s in (eager, fused)]
    close(*states, dtype)
    assert float((states[0].positions - eager.init(n_chains=40, seed=1).positions).abs().max()) > 0.05


@slow
@needs_compiler
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("transition", TRANSITIONS.values(), ids=TRANSITIONS)
@pytest.mark.parametrize("name", ["straight-line", "products"])
def test_inductor_agrees_with_eager(name: str, transition: Any, dtype: torch.dtype) -> None:
    states = []
    for backend in ("eager", "inductor"):
        sampler = build(name, transition, backend, dtype)
        states.append(sampler.run(sampler.init(n_chains=40, seed=1), 6).state)
    close(*states, dtype)


@needs_compiler
@pytest.mark.parametrize("transition", TRANSITIONS.values(), ids=TRANSITIONS)
@pytest.mark.parametrize("name", ["straight-line", "loops", "products"])
def test_bits_do_not_depend_on_batch_threads_or_launches(name: str, transition: Any) -> None:
    sampler = build(name, transition, "fused")
    whole = sampler.run(sampler.init(n_chains=200, seed=4), 7).state
    parts = sampler.run(sampler.run(sampler.init(n_chains=200, seed=4), 3).state, 4).state
    assert same_state(whole, parts)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(3 - min(threads, 2))
        assert same_state(whole, sampler.run(sampler.init(n_chains=200, seed=4), 7).state)
    finally:
        torch.set_num_threads(threads)
    x0 = sampler.init(n_chains=200, seed=4).x
    for first, stop in ((0, 1), (37, 90), (199, 200)):
        part = sampler.run(sampler.init(x0[first:stop], seed=4, first_chain=first), 7).state
        for a, b in zip((part.positions, *part.carried), (whole.positions, *whole.carried), strict=True):
            assert same_bits(a, b[first:stop])


@pytest.mark.parametrize("backend", ["eager", pytest.param("fused", marks=needs_compiler)])
def test_a_chain_that_overflows_inside_a_loop_fails_alone(backend: str) -> None:
    sampler = build("straight-line", Nested(3, 2), backend)
    x0 = torch.randn(20, 3, generator=torch.Generator().manual_seed(2)).clamp(-1, 1)
    healthy = sampler.run(sampler.init(x0, seed=1), 4).state
    x0[5] = 80.0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ce.NonFiniteChainWarning)
        state = sampler.run(sampler.init(x0, seed=1), 4).state
    assert (state.failed_at >= 0).nonzero().flatten().tolist() == [5]
    assert torch.equal(state.x[5], x0[5]) and healthy.n_failed == 0
    others = [i for i in range(20) if i != 5]
    assert same_bits(state.positions[others], healthy.positions[others])


@pytest.mark.parametrize("backend", ["eager", pytest.param("fused", marks=needs_compiler)])
def test_a_proposal_that_overflows_is_rejected(backend: str) -> None:
    sampler = build("straight-line", Leapfrog(5, step_size=3.0), backend)
    x0 = torch.full((20, 3), 2.0)
    state = sampler.run(sampler.init(x0, seed=1), 3).state
    assert torch.equal(state.x, x0) and state.n_failed == 0


@needs_compiler
@pytest.mark.parametrize("dim", [20, 100])
@pytest.mark.parametrize("rounds", [2, 3])
def test_what_a_loop_leaves_is_read_after_it(rounds: int, dim: int) -> None:
    """Values made after the loop must not take its place in memory before it has been read for the last time."""
    root = fixed(dim, dim, seed=3, scale=dim**-0.5)
    matrix = root @ root.T + torch.eye(dim)

    def energy(x: Tensor) -> Tensor:
        return 0.5 * ((x @ matrix) * x).sum(-1)

    after = []
    for backend in ("eager", "fused"):
        sampler = ce.build_sampler(energy, ce.HMC(0.05, rounds), dim, backend=backend)
        start = sampler.init(n_chains=20, seed=SEED)
        after.append(sampler.run(start, 5).state)
    for ours, theirs in zip((after[1].x, *after[1].carried), (after[0].x, *after[0].carried), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
    assert float((after[0].x - start.x).abs().min()) > 0  # every chain has accepted a proposal


def test_the_kernel_is_the_same_for_any_number_of_rounds() -> None:
    few, many = (build("small-network", Leapfrog(rounds), "fused") for rounds in (5, 100))
    few.build(16)
    before = toolchain.n_compilations()
    many.build(16)
    assert few.source == many.source and toolchain.n_compilations() == before
    eager = build("small-network", Leapfrog(100), "eager")
    close(*(s.run(s.init(n_chains=20, seed=1), 2).state for s in (eager, many)), torch.float32)


@needs_compiler
@pytest.mark.parametrize(("name", "transition"), [("straight-line", Leapfrog(5)), ("wide-state", Nested(3, 2))])
def test_golden_source(name: str, transition: Any) -> None:
    check_golden(build(name, transition, "fused"), f"{type(transition).__name__.lower()}-{name}")


# -- a loop that starts from what the trace knows --------------------------------------------------------------------


class Polynomial(Leapfrog):
    """A carry that starts from constants, one that is never read outside, and one that becomes a constant."""

    def step(self, state: GradientState, noise: Any, hyper: StepSize, target: Any) -> Any:
        weights = torch.linspace(-1.0, 1.0, state.x.shape[0], dtype=state.x.dtype)

        def body(power: Tensor, total: Tensor, unused: Tensor, flag: Tensor) -> tuple[Tensor, ...]:
            total = torch.where(flag, total + weights * power, total)
            return power * state.x, total, unused + power, torch.ones_like(flag)

        start = (torch.ones_like(state.x), torch.zeros_like(state.x), weights, torch.zeros((), dtype=torch.bool))
        _, total, _, _ = repeat(4, body, start)
        x = 0.5 * torch.tanh(total) + 0.1 * noise.normals
        return GradientState(x, *target.energy_and_grad(x)), None


@needs_compiler
@pytest.mark.parametrize("name", ["straight-line", "loops", "wide-state"])
def test_carries_that_begin_and_end_as_constants(name: str) -> None:
    eager, fused = (build(name, Polynomial(), backend, torch.float64) for backend in ("eager", "fused"))
    close(*(s.run(s.init(n_chains=20, seed=1), 3).state for s in (eager, fused)), torch.float64)
