"""The graphs handed to torch.compile, the check of what comes back, and the CUDA-graph launch's own logic on a CPU."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor, fx, nn

import compiled_ebm as ce
from compiled_ebm import rng
from compiled_ebm.backends import cudagraph, inductor
from compiled_ebm.backends.base import Chains
from compiled_ebm.backends.batched import batched_noise, batched_step, noise_buffers, step_inputs
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


class FakeGraph:
    """Records the calls made while it captures, and makes them again at each replay."""

    capturing: FakeGraph | None = None
    replays = 0

    def __init__(self) -> None:
        self.calls: list[Callable[[], None]] = []

    def pool(self) -> object:
        return "pool"

    def replay(self) -> None:
        FakeGraph.replays += 1
        for call in self.calls:
            call()


@pytest.fixture
def pretend_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    """CUDA's part in the graph launch, played on the CPU: what a captured call would do, a replay does."""

    @contextmanager
    def capture(graph: FakeGraph, **_: Any) -> Iterator[None]:
        FakeGraph.capturing = graph
        yield
        FakeGraph.capturing = None

    def compiled(graph: fx.GraphModule, example: Any) -> tuple[Callable[..., None], float]:
        def call(*inputs: Tensor) -> None:
            if FakeGraph.capturing is None:
                graph(*inputs)
            else:
                FakeGraph.capturing.calls.append(lambda: graph(*inputs))

        return call, 0.0

    stream = type("Stream", (), {"wait_stream": lambda self, other: None})
    for name, value in {
        "CUDAGraph": FakeGraph,
        "graph": capture,
        "Stream": lambda device: stream(),
        "current_stream": lambda device: stream(),
        "stream": lambda s: nullcontext(),
        "device": lambda d: nullcontext(),
        "synchronize": lambda d=None: None,
    }.items():
        monkeypatch.setattr(torch.cuda, name, value)
    monkeypatch.setattr(cudagraph, "compile_graph", compiled)
    monkeypatch.setattr(inductor, "CpuLaunch", cudagraph.CudaGraphLaunch)
    FakeGraph.replays = 0


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
