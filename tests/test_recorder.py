"""The recorder: what is recorded, what is refused, and what a fused build must not import."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, fx, nn
from torch.fx.experimental.proxy_tensor import make_fx

from compiled_ebm.recorder import HostReadError, Recording, core_decomposition, record

ROOT = Path(__file__).parents[1]
WEIGHT = torch.linspace(-1, 1, 12).reshape(4, 3)
NET = nn.Sequential(nn.Linear(3, 5), nn.SELU(), nn.LayerNorm(5), nn.Linear(5, 1))


def gradient(function: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    def run(x: Tensor) -> Tensor:
        with torch.enable_grad():
            own = x.detach().requires_grad_()
            return torch.autograd.grad(function(own).sum(), own)[0]

    return run


def in_place(x: Tensor) -> Tensor:
    y = torch.zeros_like(x)
    y[..., 1:].copy_(x[..., :-1])
    y.mul_(2).clamp_(max=0.5)
    return y + torch.tensor([1.0, 2.0, 3.0])


def inside_inference(x: Tensor) -> Tensor:
    with torch.inference_mode():
        return torch.nn.functional.linear(x, WEIGHT).log_softmax(-1)


FUNCTIONS: dict[str, Callable[[Tensor], Any]] = {
    "network": gradient(NET),
    "several results": lambda x: torch.sort(x @ WEIGHT.T, -1),
    "in place": in_place,
    "grad and vmap of torch.func": torch.func.vmap(torch.func.grad(lambda row: (WEIGHT @ row).sin().sum())),
    "jacobian": torch.func.jacrev(lambda x: (x @ WEIGHT.T).tanh()),
    "inference mode": inside_inference,
    "batch norm": gradient(nn.BatchNorm1d(3).eval()),
    "upsampled": gradient(lambda x: nn.functional.interpolate(x[None], 7) ** 2),
    "of half": gradient(lambda x: nn.functional.gelu(x.bfloat16()).float()),
}


def operations(graph: fx.Graph) -> list[str]:
    graph.eliminate_dead_code()
    return [str(node.target) for node in graph.nodes if node.op == "call_function"]


def call(recording: Recording, *inputs: Tensor) -> Any:
    return fx.GraphModule(recording.held, recording.graph)(*inputs)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_same_operations_as_torch_records(name: str) -> None:
    function, x, other = FUNCTIONS[name], torch.randn(2, 3), torch.randn(2, 3)
    recording = record(function, [x])
    for again in (recording.replay, lambda x: call(recording, x)):
        torch.testing.assert_close(list(again(other)), list(function(other)))
    pure = torch.func.functionalize(recording.replay, remove="mutations")
    with torch.no_grad():
        ours = record(pure, [x], core_decomposition)
        theirs: Any = make_fx(pure, decomposition_table=torch._decomp.core_aten_decompositions())(x)
    torch.testing.assert_close(list(call(ours, other)), list(function(other)))
    assert operations(ours.graph) == operations(theirs.graph)
    assert operations(recording.graph) == operations(make_fx(function)(x).graph)


def test_results_are_described_without_their_data() -> None:
    recording = record(lambda x: (x.t() * 2, x.to(torch.float16)), [torch.randn(2, 3)])
    values = {str(node.target): node.meta["val"] for node in recording.graph.nodes if node.op == "call_function"}
    assert all(value.is_meta for value in values.values())
    assert values["aten.t.default"].shape == (3, 2) and values["aten.t.default"].stride() == (1, 3)
    assert values["aten._to_copy.default"].dtype == torch.float16


def test_inputs_are_told_apart_though_they_are_one_tensor_that_is_held_too() -> None:
    x = torch.tensor(3.0)
    recording = record(lambda a, b: a - 2 * b + x, [x, x])
    a, b = torch.tensor(10.0), torch.tensor(1.0)
    assert recording.replay(a, b) == 10 - 2 + 3
    assert [t is x for t in recording.held.values()] == [True]


def test_what_is_written_into_a_constant_does_not_change_it() -> None:
    recording = record(lambda x: torch.tensor([1.0, 2.0]).add_(x), [torch.tensor(5.0)])
    for _ in range(2):
        assert recording.replay(torch.tensor(1.0)).tolist() == [2.0, 3.0]


class Labelled(Tensor):
    """Results of its operations are other objects than those that the operations gave."""


def test_a_subclass_is_refused_rather_than_its_results_taken_for_constants() -> None:
    held = torch.ones(3).as_subclass(Labelled)
    with pytest.raises(RuntimeError, match=r"expected plain tensors in aten\.mul.*got a Labelled; use .*as_subclass"):
        record(lambda x: (held * x).sum(), [torch.arange(3.0)])
    plain = record(lambda x: (held.as_subclass(Tensor) * x).sum(), [torch.arange(3.0)])
    assert plain.replay(torch.full((3,), 2.0)) == 6


def written_through_a_view(x: Tensor) -> Tensor:
    zeros = torch.zeros(3)
    zeros[1:].add_(x.sum())
    return x * zeros.sum().item()


READS: dict[str, Callable[[Tensor], Tensor]] = {
    "item": lambda x: x * x.sum().item(),
    "branch": lambda x: x if x.sum() > 0 else -x,
    "equal": lambda x: x if torch.equal(x, x + 1) else -x,
    "of what was made of a held tensor": lambda x: x * WEIGHT.sum().item(),
    "of a view of a held tensor": lambda x: x * WEIGHT[0, 0].item(),
    "through a view": written_through_a_view,
}


@pytest.mark.parametrize("name", READS)
def test_reading_what_may_change_is_refused(name: str) -> None:
    with pytest.raises(HostReadError, match="data-dependent"):
        record(READS[name], [torch.ones(3)])


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x * torch.tensor(2.0).item(),
        lambda x: x * torch.arange(3).sum().item(),
        lambda x: x if torch.tensor([1.0, 2.0]).max() > 1 else -x,
    ],
)
def test_constants_may_be_read(function: Callable[[Tensor], Tensor]) -> None:
    x = torch.ones(3)
    torch.testing.assert_close(record(function, [x]).replay(x), function(x))


SCRIPT = """
import sys
import torch
import compiled_ebm as ce
nn = torch.nn
net = nn.Sequential(nn.Linear(2, 8), nn.SELU(), nn.Linear(8, 8), nn.GELU(), nn.Linear(8, 1))
sampler = ce.build_sampler(
    lambda x: net(x).squeeze(-1) + torch.logsumexp(x, -1), ce.Langevin(0.1), (2,), backend="fused"
)
sampler.run(sampler.init(n_chains=10, seed=0), 5)
heavy = ("torch._dynamo", "torch._inductor", "sympy", "scipy", "numpy.ma", "numpy.testing", "triton")
print(*(name for name in heavy if name in sys.modules))
"""


def test_a_fused_build_imports_no_compiler_of_torch(tmp_path: Path) -> None:
    """TorchDynamo, Inductor and SymPy take ten times as long to import as a small kernel takes to build."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "COMPILED_EBM_CACHE": str(tmp_path / "cache")}
    command = [sys.executable, "-c", SCRIPT]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []
