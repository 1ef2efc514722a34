"""The graphs handed to torch.compile, the check of what comes back, and the CUDA-graph launch's own logic on a CPU."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from pretend_cuda import FakeClock, FakeGraph, FakeStream, play_cuda
from torch import Tensor, fx, nn

import compiled_ebm as ce
from compiled_ebm import rng
from compiled_ebm.backends import cudagraph, graph_bucket, graph_length, inductor
from compiled_ebm.backends.base import FEW_STEPS, Chains
from compiled_ebm.backends.batched import batched_noise, batched_step, copies, noise_buffers, step_inputs
from compiled_ebm.session import buffers
from compiled_ebm.trace import ChainProgram, KwargsSpec, trace
from compiled_ebm.transitions.base import NoiseDraw


def program_of(energy: Callable[[Tensor], Tensor], shape: tuple[int, ...], step_size: float = 0.01) -> ChainProgram:
    return trace(
        energy,
        ce.Langevin(step_size),
        shape,
        carry_dtype=torch.float32,
        compute_dtype=torch.float32,
        device=torch.device("cpu"),
        kwargs_spec=KwargsSpec(),
        kwargs_row={},
    )


def mlp() -> nn.Module:
    torch.manual_seed(0)
    return ce.MLPModel(2, seed=0, confinement=1.0)


def indexed(x: Tensor) -> Tensor:
    """Indexes with a repeat, so that its gradient adds two numbers into one place."""
    return x[:, [0, 2, 2, 3]].square().sum(-1) + x.square().sum(-1)


def test_noise_graph_gives_the_specified_numbers() -> None:
    program, ids, seed = program_of(mlp(), (2,)), torch.arange(40), torch.tensor(9)
    buffers = noise_buffers(program, 3, ids)
    batched_noise(program, (seed, torch.arange(5, 8), ids, *buffers))(seed, torch.arange(5, 8), ids, *buffers)
    for k in range(3):
        assert torch.equal(buffers.normals[k], rng.normals(seed, torch.tensor(5 + k), ids, 2))


def test_skinny_products_are_rewritten_and_equal() -> None:
    """A 2-64-1 network keeps no matrix product; a 16-64-16 one keeps those between wide layers."""
    narrow = example_graph(program_of(mlp(), (2,)))
    assert "aten.mm" not in narrow.code and "aten.addmm" not in narrow.code
    wide_net = nn.Sequential(nn.Linear(16, 64), nn.Tanh(), nn.Linear(64, 16))
    wide = example_graph(program_of(lambda x: wide_net(x).square().sum(-1), (16,)))
    assert "aten.mm" in wide.code


def example_graph(program: ChainProgram) -> fx.GraphModule:
    return batched_step(program, example_inputs(program), on_device_cursor=False).graph


def laid_out_inputs(program: ChainProgram) -> list[Tensor]:
    """As the graph takes them: the constants in the layout that it wants."""
    inputs, n = example_inputs(program), program.step.n_constants
    step = batched_step(program, inputs, on_device_cursor=False)
    return [*inputs[: len(inputs) - n], *step.layout(*inputs[len(inputs) - n :])]


def example_inputs(program: ChainProgram, rows: int = 32) -> list[Tensor]:
    sampler = ce.build_sampler(
        lambda x: x.square().flatten(1).sum(1), ce.Langevin(0.01), program.event_shape, backend="eager"
    )
    state = sampler.init(n_chains=rows, seed=1)
    zeros = [torch.zeros(rows, *shape) for shape in program.state_shapes[1:]]
    chains = Chains((state.positions, *zeros), state.failed_at.clone(), state.chain_ids, torch.tensor(0), (), ())
    buffers = noise_buffers(program, 1, chains.ids)
    noise = NoiseDraw(buffers.normals[0], buffers.uniforms[0])
    return step_inputs(chains, noise, torch.tensor(0), torch.tensor([0.01, 0.1]), None, program.step.constants(()))


def test_scatter_targets_have_memory_of_their_own() -> None:
    """The rewrite that keeps Inductor from adding all chains into one row, and its check with the rewrite left out."""
    program = program_of(indexed, (4,))
    graph = example_graph(program)
    puts = [node for node in graph.graph.nodes if "index_put" in str(node.target)]
    assert puts
    for node in puts:
        assert 0 not in node.args[0].meta["val"].stride()


def test_a_wrong_compilation_is_refused() -> None:
    """The graph itself passes the check; gradients half as large again do not."""
    program = program_of(mlp(), (2,))
    graph, example = example_graph(program), laid_out_inputs(program)
    inductor._check_compiled(graph, graph, example)

    def planted(*inputs: Tensor) -> None:
        graph(*inputs)
        inputs[2].mul_(1.5)

    with pytest.raises(ce.UnsupportedEnergyError, match="fault of the compiler"):
        inductor._check_compiled(planted, graph, example)


def test_a_result_that_a_rounding_changes_is_not_refused() -> None:
    """Chaos is no fault of a compiler, nor is a decision on the edge; the same error in all that is smooth is one."""

    def chaotic(x: Tensor, out: Tensor) -> None:
        out.copy_(torch.cat([torch.sin(1e8 * x), x]))

    example = [torch.linspace(0.3, 1.0, 2000), torch.zeros(4000)]
    graph = fx.symbolic_trace(chaotic)

    def elsewhere(x: Tensor, out: Tensor) -> None:
        chaotic(x.mul(1 + 3e-7), out)

    def on_the_edge(x: Tensor, out: Tensor) -> None:
        chaotic(x, out)
        out[3000] += 1

    def faulty(x: Tensor, out: Tensor) -> None:
        chaotic(x, out)
        out[2000:] *= 1.1

    for function in (elsewhere, on_the_edge):
        inductor._check_compiled(function, graph, example)
    with pytest.raises(ce.UnsupportedEnergyError, match="fault of the compiler"):
        inductor._check_compiled(faulty, graph, example)


def columns(x: Tensor) -> Tensor:
    """Reads the columns of a table: constants that are not dense."""
    return (x[..., BONDS[:, 0]] * x[..., BONDS[:, 1]] + WEIGHTS[:, 1]).square().sum(-1) + x.square().sum(-1)


BONDS, WEIGHTS = torch.tensor([[0, 1], [2, 3], [1, 3]]), torch.linspace(-1, 1, 6).reshape(3, 2)


def test_copies_keep_strides() -> None:
    base = torch.arange(24.0).reshape(4, 6)
    for tensor in (base, base[:, 1], base.t(), base[1:2].expand(3, 6), base[:0], base[2, 3], base[:, ::2]):
        (copied,) = copies([tensor])
        assert copied.stride() == tensor.stride() and torch.equal(copied, tensor)
        assert tensor.numel() == 0 or copied.data_ptr() != tensor.data_ptr()


@pytest.mark.slow
def test_the_step_is_compiled_once_as_it_will_be_called(monkeypatch: pytest.MonkeyPatch) -> None:
    """And checked by a step that goes somewhere: with noise, and with hyper-parameters that are not zero."""
    examples: list[list[Tensor]] = []
    compiling = inductor.compile_graph

    def recorded(graph: Any, example: list[Tensor]) -> Any:
        examples.append([t.clone() for t in example])
        return compiling(graph, example)

    monkeypatch.setattr(inductor, "compile_graph", recorded)
    x0 = torch.randn(20, 4, generator=torch.Generator().manual_seed(0))
    with torch._dynamo.config.patch(error_on_recompile=True):
        ours, theirs = (
            sampler.run(sampler.init(x0, seed=3), 5).state
            for sampler in (
                ce.build_sampler(columns, ce.HMC(0.3, 4, jitter=0.2), 4, backend=backend)
                for backend in ("inductor", "eager")
            )
        )
    assert ours.n_failed == theirs.n_failed == 0
    torch.testing.assert_close(ours.x, theirs.x)
    _, step = examples
    energy, gradient, _, normals, uniforms, _, row = step[1:8]
    assert all((t != 0).all() for t in (energy, gradient, normals, uniforms, row))


@pytest.fixture
def pretend_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    play_cuda(monkeypatch)


@pytest.mark.parametrize("energy", [mlp(), indexed], ids=["mlp", "indexed"])
@pytest.mark.parametrize(("n_steps", "thin"), [(150, None), (131, 7), (64, 64), (5, 1)])
def test_graph_launch_equals_eager(
    pretend_cuda: None, energy: Callable[[Tensor], Tensor], n_steps: int, thin: int | None
) -> None:
    shape = (2,) if isinstance(energy, nn.Module) else (4,)
    transition = ce.Langevin(ce.schedules.Linear(0.02, 0.001, 200))
    results = []
    for backend in ("eager", "inductor"):
        sampler = ce.build_sampler(energy, transition, shape, backend=backend)
        results.append(sampler.run(sampler.init(n_chains=37, seed=4, first_step=3), n_steps, thin))
    assert FakeGraph.replays > 0
    torch.testing.assert_close(results[0].state.x, results[1].state.x, rtol=1e-5, atol=1e-5)
    if thin is not None:
        torch.testing.assert_close(results[0].draws, results[1].draws, rtol=1e-5, atol=1e-5)


DIAGONAL = torch.tensor([0.5, 2.0])
MOVES: dict[str, Any] = {
    "exchange": ce.ReplicaExchange(ce.MALA(0.1), [1.0, 2.0], swap_every=7),
    "mala": ce.MALA(0.1),
    "hmc": ce.HMC(0.2, 3, mass=DIAGONAL),
    "underdamped": ce.UnderdampedLangevin(0.2, mass=DIAGONAL),
    "preconditioned": ce.PreconditionedLangevin(0.05, DIAGONAL),
    "barker": ce.Barker(0.3),
    "random walk": ce.RandomWalk(0.3),
    "descent": ce.GradientDescent(0.05),
    "nesterov": ce.Nesterov(0.05),
}


@pytest.mark.parametrize("name", [pytest.param(n, marks=() if n == "exchange" else pytest.mark.slow) for n in MOVES])
def test_moves_in_graphs_equal_eager(pretend_cuda: None, name: str) -> None:
    """With what is done to the chains between launches: sums taken and begun anew, temperatures swapped."""
    results = []
    for backend in ("eager", "inductor"):
        sampler = ce.build_sampler(mlp(), MOVES[name], (2,), backend=backend)
        results.append(sampler.run(sampler.init(n_chains=36, seed=4, first_step=3), 60, thin=5, info=True))
    assert FakeGraph.replays > 0
    torch.testing.assert_close(results[1].draws, results[0].draws, rtol=1e-3, atol=1e-3)
    for told, want in results[0].stats.info.items():
        torch.testing.assert_close(results[1].stats.info[told], want, rtol=1e-3, atol=1e-3)
    if name == "exchange":
        assert torch.equal(results[1].stats.temperatures, results[0].stats.temperatures)
        assert float(results[0].stats.swap_acceptance) > 0.1


def test_warm_up_in_graphs(pretend_cuda: None) -> None:
    sampler = ce.build_sampler(mlp(), ce.MALA(0.01), (2,), backend="inductor")
    found = sampler.warmup(sampler.init(n_chains=100, seed=1), 60)
    assert abs(found.acceptance - 0.574) < 0.1 and found.step_size > 0.1


def test_graph_launch_resumes_and_sees_new_weights(pretend_cuda: None) -> None:
    model = mlp()
    sampler = ce.build_sampler(model, ce.Langevin(0.01), (2,), backend="inductor")
    state = sampler.init(n_chains=20, seed=0)
    whole = sampler.run(state, 100).state
    parts = sampler.run(sampler.run(state, 33).state, 67).state
    assert torch.equal(whole.x, parts.x)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3.0)
    assert not torch.equal(sampler.run(state, 100).state.x, whole.x)
    assert sampler._builds.count == 1


def buckets_of(sampler: ce.Sampler, n_chains: int) -> Any:
    _, launch = sampler._builds.get({}, n_chains)
    return launch._buckets


@pytest.mark.slow
def test_length_of_the_graph_is_measured(pretend_cuda: None) -> None:
    """4 us a launch: under 2% of 32 steps of 10 us, and of 128 of 2 us; of eight of 10 ms."""
    for step_seconds, expected in ((10e-6, 32), (2e-6, 128), (10e-3, 8), (0.1e-6, 512)):
        FakeClock.step_seconds = step_seconds
        sampler = ce.build_sampler(mlp(), ce.Langevin(0.01), (2,), backend="inductor")
        sampler.build(20)
        bucket = buckets_of(sampler, 20).find(32)
        assert bucket.steps_per_graph == expected
        assert bucket.cost.step_seconds == pytest.approx(step_seconds, rel=1e-3)
        assert bucket.cost.launch_seconds == pytest.approx(4e-6, rel=1e-3)
        assert f"32 rows        {expected} steps a graph: {step_seconds * 1e6:.1f} us a step" in sampler.explain()


def test_length_of_the_graph_by_hand() -> None:
    cost = graph_length.StepCost(1e-6, 5e-6, 1e-4, 1000)
    assert graph_length.steps_per_graph(cost) == 256  # 5 / 250 is the 2%
    assert graph_length.steps_per_graph(cost._replace(capture_seconds=0.01)) == 64  # 1.28 s would be too long
    assert graph_length.steps_per_graph(cost._replace(capture_bytes=1 << 22)) == 32
    assert graph_length.steps_per_graph(cost._replace(step_seconds=1.0)) == graph_length.SHORTEST
    assert graph_length.steps_per_graph(cost._replace(step_seconds=1e-9)) == graph_length.LONGEST
    measured = graph_length.measured(14e-6, 84e-6, 0.8, 1 << 20)
    assert measured == pytest.approx((10e-6, 4e-6, 0.1, 1 << 17))
    disturbed = graph_length.measured(90e-6, 80e-6, 0.8, -5)  # other work while the single step was timed
    assert disturbed.step_seconds == pytest.approx(10e-6) and disturbed.capture_bytes == 0


def test_a_launch_is_few_replays(pretend_cuda: None) -> None:
    """Greedy over graphs of 512, 64, 8 and 1 steps."""
    FakeClock.step_seconds = 0.1e-6
    sampler = ce.build_sampler(mlp(), ce.Langevin(0.01), (2,), backend="inductor")
    sampler.build(20)
    bucket = buckets_of(sampler, 20).find(32)
    assert list(bucket.graphs) == [512, 64, 8, 1]
    before, step = FakeGraph.replays, int(bucket.step)
    bucket.replay(1000)
    assert FakeGraph.replays - before == 1 + 7 + 5
    assert int(bucket.step) == step + 1000


def test_first_launch_is_as_long_as_the_measured_step_says(pretend_cuda: None) -> None:
    FakeClock.step_seconds = 50e-6
    sampler = ce.build_sampler(mlp(), ce.Langevin(0.01), (2,), backend="inductor")
    _, launch = sampler._builds.get({}, 20)
    assert launch.first_steps(20) == FEW_STEPS
    sampler.build(20)
    assert launch.first_steps(20) == pytest.approx(1000, abs=1)


@pytest.mark.slow
def test_buckets_are_bounded_and_the_oldest_goes(pretend_cuda: None) -> None:
    sampler = ce.build_sampler(mlp(), ce.Langevin(0.01), (2,), backend="inductor")
    for n_chains in range(16, 16 * 9, 16):
        sampler.build(n_chains)
    buckets, alive = buckets_of(sampler, 16), FakeGraph.alive()
    assert buckets.rows() == list(range(16, 16 * 9, 16)) and len(buckets.rows()) == cudagraph.MAX_BUCKETS
    sampler.run(sampler.init(n_chains=16), 2)  # used again: 32 is the oldest now
    FakeStream.calls.clear()
    sampler.build(160)
    assert 32 not in buckets.rows() and {16, 160} <= set(buckets.rows())
    assert FakeGraph.alive() == alive and "wait for event" in FakeStream.calls


def test_dropping_the_sampler_drops_graphs_and_buffers(pretend_cuda: None) -> None:
    """By reference counts alone, the graphs before their pool."""
    sampler = ce.build_sampler(mlp(), ce.Langevin(0.01), (2,), backend="inductor")
    result = sampler.run(sampler.init(n_chains=20), 40)
    table = weakref.ref(buckets_of(sampler, 20).find(32).table)
    assert FakeGraph.alive() >= 2 and table() is not None
    gc.collect()
    gc.disable()
    try:
        FakeStream.calls.clear()
        del sampler
        assert FakeGraph.alive() == 0 and table() is None
        assert FakeStream.calls == ["wait for event", "pool goes after 0 graphs"]
    finally:
        gc.enable()
    assert result.state.n_chains == 20


def test_a_bucket_that_outlives_its_launch_keeps_the_pool(pretend_cuda: None) -> None:
    sampler = ce.build_sampler(mlp(), ce.Langevin(0.01), (2,), backend="inductor")
    sampler.build(20)
    bucket = buckets_of(sampler, 20).find(32)
    del sampler
    gc.collect()
    FakeStream.calls.clear()
    del bucket
    assert FakeStream.calls == ["pool goes after 0 graphs"]


def test_capture_leaves_the_users_settings(pretend_cuda: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Convolutions are captured deterministic; what the user set is there again afterwards."""
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)
    seen = []
    monkeypatch.setattr(
        torch.cuda, "mem_get_info", lambda d: (seen.append(torch.backends.cudnn.deterministic), (1, 2))[1]
    )
    ce.build_sampler(mlp(), ce.Langevin(0.01), (2,), backend="inductor").build(20)
    assert set(seen) == {True}
    assert torch.backends.cudnn.benchmark and not torch.backends.cudnn.deterministic


def test_a_moved_buffer_is_seen_and_captured_anew(pretend_cuda: None) -> None:
    sampler = ce.build_sampler(mlp(), ce.Langevin(0.01), (2,), backend="inductor")
    state = sampler.init(n_chains=20, seed=3)
    want = sampler.run(state, 10).state
    program, launch = sampler._builds.get({}, 20)
    chains = buffers(program, launch, want, {})
    bucket = launch._buckets.find(32)
    bucket.constants[0].set_(bucket.constants[0].clone())
    with pytest.raises(RuntimeError, match="static buffers where they were.*run the sampler again"):
        launch(chains, 10, torch.full((1, 2), 0.01), None)
    assert torch.equal(sampler.run(state, 10).state.x, want.x)
    assert launch._buckets.find(32) is not bucket


def test_every_launch_is_ordered_and_waits_for_its_own_stream_alone(pretend_cuda: None) -> None:
    sampler = ce.build_sampler(mlp(), ce.Langevin(0.01), (2,), backend="inductor")
    state = sampler.run(sampler.init(n_chains=20), 8).state
    FakeStream.calls.clear()
    sampler.run(state, 8)
    assert FakeStream.calls == ["order", "order", "synchronize"]  # begin, the launch, the end of the launch


def test_threads_capture_one_at_a_time(pretend_cuda: None) -> None:
    """The fake capture fails if it is entered twice; each thread's chains are those of one thread."""

    def sampler() -> ce.Sampler:
        return ce.build_sampler(mlp(), ce.Langevin(0.01), (2,), backend="inductor")

    ours = [sampler() for _ in range(4)]
    want = sampler().sample(20, n_chains=20, seed=1)
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(lambda s: s.sample(20, n_chains=20, seed=1), ours))
    assert all(torch.equal(x, want) for x in found)


def test_wrong_noise_is_not_captured() -> None:
    """What the device draws is compared with the specification first; other numbers and NaN are refused."""
    program, ids = program_of(mlp(), (2,)), torch.arange(2**40, 2**40 + 300)
    seed, step = torch.tensor(-3), torch.tensor(7)
    chains = Chains((torch.zeros(300, 2),), ids, ids, seed, (), ())
    bucket = SimpleNamespace(_program=program, chains=chains, step=step)
    noise = NoiseDraw(torch.zeros(300, 2), torch.zeros(300, 0))

    def check(change: Callable[[Tensor], Tensor]) -> None:
        def draw() -> None:
            noise.normals.copy_(change(rng.normals(seed, step, ids, 2)))

        expected = graph_bucket.Bucket._specified(bucket)
        graph_bucket.Bucket._check(bucket, draw, noise, expected)

    check(lambda z: z + 1e-5)
    for change in (lambda z: z.flip(1), lambda z: z + 0.01, lambda z: z / 0.0, lambda z: z * float("nan")):
        with pytest.raises(ce.UnsupportedEnergyError, match="the noise gives other numbers"):
            check(change)
