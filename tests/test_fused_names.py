"""The generated source as it is shown: names of the user's, the same machine code, and one build for equal kernels."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import compiled_ebm as ce
from compiled_ebm.backends.fused import toolchain
from compiled_ebm.backends.fused.expressions import lanes_header

pytestmark = pytest.mark.skipif(toolchain.why_unavailable() is not None, reason="needs a C++ compiler")

HEADER = f"#define REAL_BITS 32\n{lanes_header()}\n"


def built(energy: Callable[..., Tensor], dim: int, **options: object) -> ce.Sampler:
    sampler = ce.build_sampler(energy, ce.Langevin(0.01), dim, backend="fused", **options)  # type: ignore[arg-type]
    sampler.build(16)
    return sampler


class Hostile(nn.Module):
    """Tensors whose names mean something else in C++, in the header, or in the generated code."""

    NAMES = ("signed", "x", "x_0", "x_0_next", "energy", "step", "r_exp", "at", "W", "c0", "w0", "e3", "Größe", "é")

    def __init__(self, width: int) -> None:
        super().__init__()
        for k, name in enumerate(self.NAMES):
            self.register_buffer(name, torch.linspace(0.1, 1.0 + k, width))
        self.grad_0 = nn.Linear(width, width)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        total = self.grad_0(x).exp().sum(-1) + (x * y).square().sum(-1)
        for name in self.NAMES:
            total = total + (getattr(self, name) * x).square().sum(-1)
        return total


@pytest.mark.parametrize("width", [2, 40], ids=["straight line", "loops"])
def test_what_is_shown_is_what_runs(width: int) -> None:
    """Under whatever names: the compiler makes the same machine code of it."""
    sampler = built(Hostile(width), width, model_kwargs={"y": torch.ones(16, width)})
    shown = sampler.source
    compiled = sampler._builds._last[1]._step.kernel.source  # type: ignore[attr-defined]
    assert shown != compiled
    files = [toolchain.build(HEADER + text).read_bytes() for text in (shown, compiled)]
    assert files[0] == files[1]


def test_names_come_from_the_module_and_the_transition() -> None:
    network = nn.Sequential(nn.Linear(3, 40), nn.Tanh(), nn.Linear(40, 20), nn.Tanh(), nn.Linear(20, 1))
    source = built(lambda x: network(x).squeeze(-1) + x.square().sum(-1), 3).source
    for name in ("network_0_bias", "network_2_weight(_t)?_packed", "x_0", "energy", "grad_2", "step_size", "noise_std"):
        assert re.search(rf"\b{name}\b", source), name
    assert not re.search(r"\b[sh]\d+_\d+\b|\bc\d+\[", source)


def test_lines_that_are_not_of_the_energy_say_whose_they_are() -> None:
    source = built(lambda x: x.square().sum(-1) + x.pow(4).sum(-1), 3).source
    assert "// the transition's own: x = state.x - hyper.step_size * grad" in source
    assert "// the sampler's own: how far the chain has gone" in source
    assert "// autograd's own: the sum of a gradient's parts" in source
    lines = [line for line in source.splitlines() if "// /" in line or ".py:" in line]
    assert lines and all("x.square()" in line for line in lines)


def on_one_line(x: Tensor) -> Tensor:
    return (x.cos() * 0.3271).sum(-1) + x.square().sum(-1)


# fmt: off
def on_two_lines(x: Tensor) -> Tensor:
    return (x.cos() * 0.3271).sum(-1) + \
        x.square().sum(-1)
# fmt: on


def test_equal_kernels_are_compiled_once_wherever_they_are_written(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("COMPILED_EBM_CACHE", str(tmp_path / "cache"))
    before = toolchain.n_compilations()
    first = built(on_one_line, 3)
    after = toolchain.n_compilations()
    second = built(on_two_lines, 3)
    assert after > before and toolchain.n_compilations() == after
    assert first.source != second.source and "in on_two_lines: return" in second.source
    assert "\\\n" not in second.source
    states = [s.run(s.init(n_chains=20), 5).state for s in (first, second)]
    assert torch.equal(states[0].x, states[1].x)
