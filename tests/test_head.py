"""The update taken out of a step's graph: where it is, where it is not, and that nothing changes but who does it."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, fx, nn

import compiled_ebm as ce
from compiled_ebm.backends.base import Chains
from compiled_ebm.backends.batched import batched_step, noise_buffers, step_inputs
from compiled_ebm.backends.head import Head, take_head
from compiled_ebm.trace import ChainProgram, KwargsSpec, trace
from compiled_ebm.transitions.base import NoiseDraw

ROWS = 32


class Images(nn.Module):
    """Begins with a convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.SiLU(), nn.Flatten(-3), nn.Linear(4 * 36, 1))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.net(x)
        return out.squeeze(-1) + 0.5 * x.square().sum((-3, -2, -1))


def step_of(energy: Callable[[Tensor], Tensor], shape: tuple[int, ...], **options: Any) -> tuple[ChainProgram, Any]:
    program = trace(
        energy,
        ce.Langevin(0.01, **options),
        shape,
        carry_dtype=torch.float32,
        compute_dtype=torch.float32,
        device=torch.device("cpu"),
        kwargs_spec=KwargsSpec(),
        kwargs_row={},
    )
    return program, batched_step(program, inputs_of(program), on_device_cursor=True)


def inputs_of(program: ChainProgram) -> list[Tensor]:
    """A state, noise, and a table whose row 1 is under the cursor."""
    torch.manual_seed(1)
    state = tuple(torch.randn(ROWS, *shape) for shape in program.state_shapes)
    ids = torch.arange(ROWS)
    chains = Chains(state, torch.full((ROWS,), -1), ids, torch.tensor(0), (), ())
    buffers = noise_buffers(program, 1, ids)
    noise = NoiseDraw(buffers.normals[0].normal_(), buffers.uniforms[0])
    table = torch.tensor([[9.0, 9.0], [0.125, 0.25], [9.0, 9.0]])
    constants = program.step.constants(())
    return step_inputs(chains, noise, torch.tensor(5), table, torch.tensor(1), constants)


def taken(graph: fx.GraphModule) -> Head | None:
    return take_head(graph, 3, 4, 7)


@pytest.mark.parametrize("clamp", [None, (-0.5, 1.0)])
def test_the_rest_of_the_step_is_unchanged(clamp: tuple[float, float] | None) -> None:
    """With x' by hand where the normals were, the rest gives what the whole step gave."""
    program, whole = step_of(Images(), (1, 8, 8), clamp=clamp)
    _, rest = step_of(Images(), (1, 8, 8), clamp=clamp)
    head = taken(rest.graph)
    bounds = clamp or (float("-inf"), float("inf"))
    assert head == Head(first=0, second=2, second_column=0, noise_column=1, minus=True, bounds=bounds)
    expected, got = inputs_of(program), inputs_of(program)
    got[4].copy_((got[0] - 0.125 * got[2] + 0.25 * got[4]).clamp(*bounds))
    n_constants = program.step.n_constants
    for step, inputs in ((whole, expected), (rest, got)):
        split = len(inputs) - n_constants
        step.graph(*inputs[:split], *whole.layout(*inputs[split:]))
    for i, (a, b) in enumerate(zip(expected, got, strict=True)):
        assert i == 4 or torch.equal(a, b), i
    assert str(head) == (
        "input_0 - hyper[0] input_2 + hyper[1] xi"
        if clamp is None
        else "clamp(input_0 - hyper[0] input_2 + hyper[1] xi, -0.5, 1)"
    )


def matrix(x: Tensor) -> Tensor:
    weight = torch.ones(24, 24) / 24
    return (x @ weight).tanh().sum(-1)


@pytest.mark.parametrize(
    ("energy", "shape", "options"),
    [
        pytest.param(lambda x: (x.square() - 1).square().sum(-1), (4,), {}, id="pointwise"),
        pytest.param(ce.MLPModel(2, seed=0), (2,), {}, id="skinny product"),
        pytest.param(Images(), (1, 8, 8), {"grad_clip": 1.0}, id="clipped gradient"),
        pytest.param(lambda x: matrix(2.0 * x), (24,), {}, id="scaled first"),
    ],
)
def test_other_steps_are_left_alone(
    energy: Callable[[Tensor], Tensor], shape: tuple[int, ...], options: dict[str, Any]
) -> None:
    _, step = step_of(energy, shape, **options)
    before = step.graph.code
    assert taken(step.graph) is None and step.graph.code == before


def test_a_product_of_wide_layers_takes_it_too() -> None:
    assert taken(step_of(matrix, (24,))[1].graph) is not None


def hand_made(build: Callable[..., fx.Node]) -> fx.GraphModule:
    """x, energy, gradient, failed_at, normals, uniforms, step, table, cursor; ``build`` makes x' from them."""
    aten: Any = torch.ops.aten
    graph = fx.Graph()
    inputs = [graph.placeholder(f"input_{i}") for i in range(9)]
    for node in inputs:
        node.meta["val"] = torch.empty(8, 24, device="meta")
    row = graph.call_function(aten.index_select.default, (inputs[7], 0, inputs[8]))
    row = graph.call_function(aten.squeeze.dim, (row, 0))
    row = graph.call_function(aten.unbind.int, (row,))
    k, noise = (graph.call_function(operator.getitem, (row, i)) for i in range(2))
    moved = build(graph, aten, inputs[0], inputs[2], inputs[4], k, noise)
    moved.meta["val"] = torch.empty(8, 24, device="meta")
    graph.output(graph.call_function(aten.mm.default, (moved, inputs[1])))
    return fx.GraphModule({}, graph)


def test_other_orders_of_the_same_sum() -> None:
    def swapped(graph: fx.Graph, aten: Any, x: Any, g: Any, z: Any, k: Any, s: Any) -> fx.Node:
        drift = graph.call_function(aten.add.Tensor, (graph.call_function(aten.mul.Tensor, (g, k)), x))
        return graph.call_function(aten.add.Tensor, (graph.call_function(aten.mul.Tensor, (z, s)), drift))

    assert taken(hand_made(swapped)) == Head(0, 2, 0, 1, minus=False)


@pytest.mark.parametrize("what", ["noise twice", "alpha", "minus noise", "other factor", "gradient of no input"])
def test_what_only_looks_like_it_is_left_alone(what: str) -> None:
    def build(graph: fx.Graph, aten: Any, x: Any, g: Any, z: Any, k: Any, s: Any) -> fx.Node:
        call = graph.call_function
        if what == "gradient of no input":
            g = call(aten.tanh.default, (g,))
        drift = call(aten.sub.Tensor, (x, call(aten.mul.Tensor, (k, g))))
        noise = call(aten.mul.Tensor, (call(aten.exp.default, (s,)) if what == "other factor" else s, z))
        if what == "noise twice":
            drift = call(aten.add.Tensor, (drift, z))
        if what == "minus noise":
            return call(aten.sub.Tensor, (drift, noise))
        return call(aten.add.Tensor, (drift, noise), {"alpha": 2} if what == "alpha" else {})

    assert taken(hand_made(build)) is None
