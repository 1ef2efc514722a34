"""The fused kernel beyond agreement with eager: its source, its builds, transitions of the user, refusals, its law."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar, NamedTuple

import pytest
import torch
from golden_source import check_golden
from torch import Tensor, nn

import compiled_ebm as ce
from compiled_ebm import builder
from compiled_ebm.backends.fused import kernel, lower, toolchain
from compiled_ebm.backends.fused.elements import Elements
from compiled_ebm.backends.fused.expressions import lanes_header
from compiled_ebm.transitions.base import NoiseDraw, Target

pytestmark = pytest.mark.skipif(toolchain.why_unavailable() is not None, reason="needs a C++ compiler")


def linear(*sizes: int) -> nn.Sequential:
    """A tanh network with weights that are the same everywhere."""
    layers: list[nn.Module] = []
    for a, b in zip(sizes, sizes[1:], strict=False):
        layer = nn.Linear(a, b)
        with torch.no_grad():
            layer.weight.copy_(torch.linspace(-1, 1, a * b).reshape(b, a))
            layer.bias.copy_(torch.linspace(-0.5, 0.5, b))
        layers += [layer, nn.Tanh()]
    return nn.Sequential(*layers[:-1])


SMALL, WIDE = linear(2, 32, 1), linear(12, 40, 40, 1)


def small_network(x: Tensor) -> Tensor:
    return SMALL(x).squeeze(-1) + x.square().sum(-1)


def wide_network(x: Tensor) -> Tensor:
    return WIDE(x).squeeze(-1) + x.square().sum(-1)


def valley(x: Tensor) -> Tensor:
    return (100.0 * (x[:, 1:] - x[:, :-1].square()).square() + (1 - x[:, :-1]).square()).sum(-1)


def double_well(x: Tensor) -> Tensor:
    return (x.square() - 1).square().sum(-1)


def ring_of_sites(x: Tensor) -> Tensor:
    return (x.roll(1, -1) - x).square().sum(-1) + x.pow(4).sum(-1)


ENERGIES: dict[str, tuple[Callable[[Tensor], Tensor], int]] = {
    "small-network": (small_network, 2),
    "wide-network": (wide_network, 12),
    "valley": (valley, 4),
    "double-well": (double_well, 128),
    "ring-of-sites": (ring_of_sites, 48),
}


def build(energy: Any, event: int | tuple[int, ...], transition: Any = None, **options: Any) -> ce.Sampler:
    options.setdefault("backend", "fused")
    return ce.build_sampler(energy, transition or ce.Langevin(0.01), event, **options)


@pytest.mark.parametrize("name", ENERGIES)
def test_golden_source(name: str) -> None:
    energy, dim = ENERGIES[name]
    check_golden(build(energy, dim), name)


def test_the_source_names_the_lines_of_the_energy() -> None:
    sampler = build(valley, 4)
    sampler.build(16)
    assert re.search(r"// .*test_fused\.py:\d+, in valley: return \(100\.0", sampler.source)


def test_one_build_for_new_weights_schedules_and_batch_sizes() -> None:
    network = linear(3, 20, 1)
    sampler = build(lambda x: network(x).squeeze(-1) + x.square().sum(-1), 3)
    sampler.build(16)
    before = toolchain.n_compilations()
    for n_chains in (1, 16, 17, 100, 5000):
        sampler.run(sampler.init(n_chains=n_chains), 3)
    sampler.transition = ce.Langevin(ce.schedules.Linear(0.02, 0.01, 10), noise_scale=0.3)
    state = sampler.run(sampler.init(n_chains=50), 5, thin=2).state
    with torch.no_grad():
        for p in network.parameters():
            p.mul_(1.5)
    changed = sampler.run(state, 0).state
    assert torch.allclose(changed.energy, network(state.x).detach().squeeze(-1) + state.x.square().sum(-1), rtol=1e-5)
    assert toolchain.n_compilations() == before and "builds         1," in sampler.explain()


QUADRATICS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "half": lambda x, m: 0.5 * (x * (x @ m)).sum(-1),
    "whole": lambda x, m: ((x @ m) * x).sum(-1),
    "einsum": lambda x, m: 0.5 * torch.einsum("bi,ij,bj->b", x - m[0], m, x - m[0]),
    "beside others": lambda x, m: x.pow(4).sum(-1) + 0.5 * ((x @ m) * x).sum(-1) + x.cos().sum(-1),
    "bmm": lambda x, m: 0.5 * torch.bmm(x.unsqueeze(1) @ m, x.unsqueeze(2)).reshape(-1),
}


def chain_loop(sampler: ce.Sampler) -> str:
    """The source without the functions that the chain loop calls."""
    return sampler.source.split("void chain_loop(")[1]


@pytest.mark.parametrize("kind", ["symmetric", "nearly", "general"])
@pytest.mark.parametrize("name", QUADRATICS)
def test_a_quadratic_form_and_its_gradient_are_one_product(name: str, kind: str) -> None:
    root = torch.randn(40, 40, generator=torch.Generator().manual_seed(3)) / 40
    matrix = {"symmetric": root + root.T, "nearly": torch.linalg.inv(root @ root.T + torch.eye(40)), "general": root}[
        kind
    ]
    sampler, eager = (build(lambda x: QUADRATICS[name](x, matrix), 40, backend=b) for b in ("fused", "eager"))
    for changed in (False, True):  # as it is, then no longer symmetric
        got, want = (s.run(s.init(n_chains=40), 5).state for s in (sampler, eager))
        for a, b in zip((got.positions, *got.carried), (want.positions, *want.carried), strict=True):
            assert torch.allclose(a, b, rtol=1e-4, atol=2e-5), changed
        assert chain_loop(sampler).count("long k = 0; k < 40") == 1
        matrix[0, 5] += 0.5


def test_a_product_that_is_used_otherwise_stays_as_it_is() -> None:
    """Neither half of the pair may be replaced where something else reads it."""
    matrix = torch.randn(40, 40, generator=torch.Generator().manual_seed(3)) / 20

    def energy(x: Tensor) -> Tensor:
        y = x @ matrix
        return 0.5 * (x * y).sum(-1) + y[:, :3].sin().sum(-1)

    sampler, eager = (build(energy, 40, backend=b) for b in ("fused", "eager"))
    got, want = (s.run(s.init(n_chains=40), 5).state for s in (sampler, eager))
    for a, b in zip((got.positions, *got.carried), (want.positions, *want.carried), strict=True):
        assert torch.allclose(a, b, rtol=1e-4, atol=2e-5)


def test_a_mixture_needs_each_exponential_once() -> None:
    """The gradient of logsumexp divides those that its value has; values and gradients stay what they were."""
    means = torch.randn(5, 3, generator=torch.Generator().manual_seed(1))

    def energy(x: Tensor) -> Tensor:
        return -torch.logsumexp(-0.5 * (x.unsqueeze(-2) - means).square().sum(-1), -1)

    sampler, eager = build(energy, 3), build(energy, 3, backend="eager")
    got, want = (s.run(s.init(n_chains=40), 5).state for s in (sampler, eager))
    assert chain_loop(sampler).count("r_exp(") == 5
    for a, b in zip((got.positions, *got.carried), (want.positions, *want.carried), strict=True):
        assert torch.allclose(a, b, rtol=1e-4, atol=1e-5)


def equal_bits(a: ce.ChainState, b: ce.ChainState) -> bool:
    return all(map(torch.equal, (a.positions, *a.carried), (b.positions, *b.carried)))


def vectors() -> list[tuple[toolchain.Vector, int]]:
    """Instruction sets of this machine that have a fused multiply-add, and the bytes of a vector."""
    found = set(toolchain.cpu_identity().split())
    wide: list[tuple[toolchain.Vector, int]] = [("avx512", 64)] if {"avx512f", "avx512dq"} <= found else []
    return [*wide, *([("avx2", 32), ("avx2", 16)] if {"avx2", "fma"} <= found else [])]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize(
    "name", ["small-network", *(pytest.param(n, marks=pytest.mark.slow) for n in ("wide-network", "ring-of-sites"))]
)
def test_bits_do_not_depend_on_the_width_of_vectors(
    name: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four chains a vector, eight or sixteen: what AVX2 computes, AVX-512 computes."""
    if len(vectors()) < 2:
        pytest.skip("needs AVX2 or AVX-512, of which vectors have several widths")
    energy, dim = ENERGIES[name]
    states = []
    for vector, width in vectors():
        monkeypatch.setattr(kernel, "VECTOR", vector)
        header = f"#define VECTOR_BYTES {width}\n{lanes_header()}"
        monkeypatch.setattr(kernel, "lanes_header", functools.partial(str, header))
        sampler = build(energy, dim, dtype=dtype)
        states.append(sampler.run(sampler.init(n_chains=70, seed=5), 8).state)
        assert f"tile           {width // dtype.itemsize} chains" in sampler.explain()
    assert all(equal_bits(state, states[0]) for state in states[1:])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("name", ["small-network", pytest.param("ring-of-sites", marks=pytest.mark.slow)])
def test_the_portable_kernel(name: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    """What every machine of a kind runs, on x86 without FMA and AVX: near eager, its bits independent of the batch."""
    energy, dim = ENERGIES[name]
    samplers = {"eager": build(energy, dim, dtype=dtype, backend="eager")}
    for vector in ("native", "portable"):
        with monkeypatch.context() as patch:
            patch.setattr(kernel, "VECTOR", vector)
            samplers[vector] = build(energy, dim, dtype=dtype)
            samplers[vector].build(16)
    portable = samplers["portable"]
    assert f"tile           {16 // dtype.itemsize} chains" in portable.explain()
    eager, native, whole = (s.run(s.init(n_chains=70, seed=5), 8).state for s in samplers.values())
    tolerance = 200 * torch.finfo(dtype).eps
    for a, b in zip((whole.positions, *whole.carried), (eager.positions, *eager.carried), strict=True):
        assert torch.allclose(a, b, rtol=tolerance, atol=tolerance)
    if vectors():  # without a fused multiply-add some sums round otherwise: another kernel was run
        assert not equal_bits(whole, native)
    x0 = portable.init(n_chains=70, seed=5).positions
    part = portable.run(portable.run(portable.init(x0[9:20], seed=5, first_chain=9), 3).state, 5).state
    assert all(
        torch.equal(a, b[9:20])
        for a, b in zip((part.positions, *part.carried), (whole.positions, *whole.carried), strict=True)
    )


class MomentumState(NamedTuple):
    x: Tensor
    energy: Tensor
    grad: Tensor
    before: Tensor


class MomentumHyper(NamedTuple):
    step_size: Tensor


@dataclass(frozen=True)
class Momentum:
    """A transition that the emitter has never heard of: two normals an element, uniforms, the reversed last x."""

    noise: ClassVar[ce.Noise] = ce.Noise(normals=2, uniforms=5)
    hyper_type: ClassVar[type] = MomentumHyper

    def init(self, x: Tensor, target: Target) -> MomentumState:
        energy, grad = target.energy_and_grad(x)
        return MomentumState(x, energy, grad, x.flip(0))

    def step(
        self, state: MomentumState, noise: NoiseDraw, hyper: MomentumHyper, target: Target
    ) -> tuple[MomentumState, None]:
        x = state.x - hyper.step_size * state.grad + 0.1 * (state.x - state.before.flip(0))
        x = x + 0.01 * noise.normals[0] * noise.uniforms[1] + 0.02 * noise.normals[1] * noise.uniforms[4]
        x = torch.where(noise.uniforms[0] < 0.7, x, state.x)
        energy, grad = target.energy_and_grad(x)
        return MomentumState(x, energy, grad, state.x.flip(0)), None

    def hyper_table(self, first_step: int, n_steps: int) -> MomentumHyper:
        return MomentumHyper(torch.full((n_steps,), 0.01, dtype=torch.float64))

    def structure(self) -> tuple[object, ...]:
        return (Momentum,)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("dim", [1, 3, 8, 33, 100])
def test_a_transition_of_the_user(dim: int, dtype: torch.dtype) -> None:
    states = []
    for backend in ("eager", "fused"):
        sampler = build(double_well, dim, Momentum(), backend=backend, dtype=dtype)
        states.append(sampler.run(sampler.init(n_chains=40, seed=1), 12).state)
    tolerance = 2000 * torch.finfo(dtype).eps
    for a, b in zip(*((s.positions, *s.carried) for s in states), strict=True):
        assert torch.allclose(a, b, rtol=tolerance, atol=tolerance)


def test_literals_differ_by_their_bits() -> None:
    tiny = torch.finfo(torch.float64).smallest_normal * torch.finfo(torch.float64).eps
    given = torch.tensor([0.0, -0.0, torch.nan, -torch.nan, tiny, -tiny, 0.0], dtype=torch.float64)
    elements = Elements()
    ids = elements.literal(given).ids
    assert (ids[:, None] == ids).sum(1).tolist() == [2, 1, 2, 2, 1, 1, 2]
    numbers = elements.literal_values(ids)
    assert numbers is not None and numbers.tobytes()[:16] == given.numpy().tobytes()[:16]


def test_signed_zeros_in_one_tensor() -> None:
    """From either side of the negative axis the angle is pi or -pi."""

    def energy(x: Tensor) -> Tensor:
        zero = torch.zeros(len(x), 1)
        heights = torch.slice_scatter(torch.cat([zero, -zero, zero], 1), x, 1, 2, 3)
        return (torch.atan2(heights, -1 - x.square()) * x).sum(-1)

    x0 = torch.tensor([[-0.5], [0.25]])
    fused, eager = (ce.build_sampler(energy, ce.Langevin(0.01), (1,), backend=name) for name in ("fused", "eager"))
    starts = fused.init(x0, seed=1)
    torch.testing.assert_close(fused.run(starts, 3).state.x, eager.run(starts, 3).state.x)


@pytest.mark.filterwarnings("ignore::compiled_ebm.NonFiniteChainWarning")
def test_a_product_that_overflows_on_the_way_still_does() -> None:
    x0 = torch.tensor([[1e9], [1.0]])
    for big, failed in ((2.0**100, [0, -1]), (2.0**10, [-1, -1])):
        sampler = build(lambda x, big=big: (x * big / big * 0.5).square().sum(-1), 1)
        assert sampler.run(sampler.init(x0), 2).state.failed_at.tolist() == failed


def test_an_index_beyond_its_tensor_fails_the_chain() -> None:
    table = torch.linspace(1, 2, 120)  # enough for the positions that the energy is probed at

    def energy(x: Tensor) -> Tensor:
        return table[x[:, 0].detach().abs().long()] * x.square().sum(-1)

    sampler = build(energy, 2, ce.Langevin(1e-4))
    x0 = torch.tensor([[0.5, 1.0], [2.5, 1.0], [130.5, 1.0]])
    with pytest.warns(ce.NonFiniteChainWarning):
        state = sampler.run(sampler.init(x0), 2).state
    assert (state.failed_at >= 0).tolist() == [False, False, True]
    assert torch.allclose(state.energy[:2], energy(state.x[:2]), rtol=1e-5)


def unknown_operation(x: Tensor) -> Tensor:
    return torch.linalg.eigvalsh(x.unsqueeze(-1) * x.unsqueeze(-2) + torch.eye(3)).sum(-1)


@pytest.mark.slow
def test_an_operation_without_a_row_is_named_and_auto_goes_on() -> None:
    sampler = build(unknown_operation, 3)
    with pytest.raises(
        ce.UnsupportedEnergyError, match=r"no code for aten\._linalg_eigh.*test_fused\.py:\d+.*inductor"
    ):
        sampler.build(16)
    sampler = build(unknown_operation, 3, backend="auto")
    result = sampler.run(sampler.init(n_chains=20), 2)
    assert sampler.backend in ("inductor", "eager") and "not fused" in sampler.explain()
    assert torch.allclose(result.state.energy, unknown_operation(result.state.x), rtol=1e-4)


@pytest.mark.slow
def test_a_wider_energy_than_state_is_refused_and_auto_goes_on() -> None:
    sampler = build(double_well, 3, compute_dtype=torch.float64)
    with pytest.raises(ce.UnsupportedEnergyError, match=r"compute_dtype.*dtype=torch\.float64"):
        sampler.build(16)
    assert build(double_well, 3, compute_dtype=torch.float64, backend="auto").build(16) >= 0


def repeated(x: Tensor) -> Tensor:
    for _ in range(250):
        x = torch.sin(x) + 0.1 * x.roll(1, -1)
    return x.square().sum(-1)


@pytest.mark.slow
def test_a_program_of_too_many_statements_is_refused_before_it_is_compiled() -> None:
    before = toolchain.n_compilations()
    with pytest.raises(ce.UnsupportedEnergyError, match=r"at most 12,000 statements.*got \d\d,\d+.*whole tensors"):
        build(repeated, 4).build(16)
    assert toolchain.n_compilations() == before


@pytest.mark.parametrize("limit", ["statements", "seconds"])
def test_auto_goes_on_where_compiling_would_take_too_long(limit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    name, value = {"statements": ("MOST_STATEMENTS", 5), "seconds": ("_COMPILE_SECONDS", 0.0)}[limit]
    monkeypatch.setattr(kernel, name, value)
    missing = replace(builder.BACKENDS["inductor"], why_unavailable=lambda device: "only a test")
    monkeypatch.setitem(builder.BACKENDS, "inductor", missing)
    sampler = build(lambda x: (x * 1.0625).square().sum(-1), 3, backend="auto")  # a kernel that nobody has compiled
    sampler.build(16)
    assert sampler.backend == "eager" and re.search("not fused: energy: .*(statements|took more)", sampler.explain())


def test_a_state_that_no_tile_holds_is_refused_with_its_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lower, "_MOST_ELEMENTS", 50_000)
    sampler = build(double_well, 20_000)
    with pytest.raises(ce.UnsupportedEnergyError, match=r"got 60,00\d in state.*4 MiB for one tile.*'inductor'"):
        sampler.build(1)


def test_explain_tells_cost_floor_and_measurement() -> None:
    sampler = build(small_network, 2)
    sampler.run(sampler.init(n_chains=2000), 50)
    text = sampler.explain()
    assert re.search(r"chain-step +\d+ FLOPs, 64 tanh, 2 normals|chain-step +\d+ FLOPs, 32 tanh, 2 normals", text)
    assert re.search(r"floor +[\d.]+ ns a chain-step", text) and re.search(r"measured +[\d.]+ [nu]s with", text)


def test_without_a_compiler_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(toolchain, "why_unavailable", lambda: "install g++ or clang")
    with pytest.raises(ce.BackendUnavailableError, match="install g"):
        build(double_well, 2)
    assert build(double_well, 2, backend="auto").backend != "fused"


def test_the_law_of_the_samples() -> None:
    """Variance 1 / (k (1 - eta k / 2)) = 4/3 within five standard errors, and not 1 / k."""
    sampler = build(ce.HarmonicModel(1.0), 8, ce.Langevin(0.5))
    x = sampler.run(sampler.init(n_chains=50_000, seed=3), 60).state.x.double()
    error = 5 * (2 / x.numel()) ** 0.5
    assert abs(float(x.square().mean()) * 0.75 - 1) < error < abs(float(x.square().mean()) - 1)
