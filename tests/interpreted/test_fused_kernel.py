"""The fused CUDA kernel's chains against eager's on the same noise: every energy, every operation, every layout."""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import Any

import pytest
import torch
from agreement import check_group, fused_like, groups, operations_of, samplers_of, starts
from cases import BY_NAME, CASES, EVERYDAY, sampler_of
from layouts import LAYOUTS, THREE, N, run, use, worst
from operation_cases import energy_of
from torch import Tensor

import compiled_ebm as ce
from benchmarks.workloads import TEN, Workload, initial
from compiled_ebm.energies.registry import BUILTIN_ENERGIES

slow = pytest.mark.slow
LARGE = ("mlp", "mlp-silu", "conv", "attention", "layer-norm")
"""Cases of a thousand lines and more without an axis."""
IN_DOUBLE = ("mixture", "lattice")
"""Cases that are run in float64 too in the quick tests."""


@functools.cache
def eager_case(name: str, dtype: torch.dtype) -> tuple[ce.Sampler, ce.ChainState]:
    case = BY_NAME[name]
    sampler = sampler_of(case, "eager", dtype)
    return sampler, run(sampler, case.x0(N).to(dtype)).state


def case_params() -> list[Any]:
    found = []
    for layout in THREE:
        for dtype in (torch.float32, torch.float64):
            for case in CASES:
                large = layout == "flat" and case.name in LARGE
                in_single = dtype == torch.float32 and (layout == "flat" and case.name in EVERYDAY)
                quick = not large and (in_single or (layout == "chains last" and case.name in IN_DOUBLE))
                marks = () if quick else slow
                found.append(pytest.param(case.name, dtype, layout, id=f"{case.name}-{dtype}-{layout}", marks=marks))
    return found


@pytest.mark.parametrize(("name", "dtype", "layout"), case_params())
def test_every_case_agrees_with_eager(
    name: str, dtype: torch.dtype, layout: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Five steps from an odd one, chains that fill no block, a seed and chain ids of more than 32 bits."""
    eager, theirs = eager_case(name, dtype)
    use(monkeypatch, LAYOUTS[layout])
    case = BY_NAME[name]
    energy = eager._builds._energy
    ours = run(fused_like(eager, energy, case.step_size, dtype=dtype), case.x0(N).to(dtype)).state
    assert ours.n_failed == 0 and worst(ours, theirs) <= 1


@functools.cache
def eager_builtin(name: str) -> tuple[ce.Sampler, ce.ChainState]:
    made = BUILTIN_ENERGIES[name]
    sampler = ce.build_sampler(made.factory(), ce.Langevin(1e-4), made.event_shape, backend="eager")
    return sampler, run(sampler, start_of(made.event_shape)).state


def start_of(event: tuple[int, ...]) -> Tensor:
    numel = torch.Size(event).numel()
    return starts(numel, torch.float32).reshape(-1, *event)


@pytest.mark.parametrize("layout", ["flat", *(pytest.param(name, marks=slow) for name in THREE[1:])])
@pytest.mark.parametrize("name", BUILTIN_ENERGIES)
def test_every_builtin_energy_agrees_with_eager(name: str, layout: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if name == "mlp" and layout == "flat":
        layout = "as planned"
    eager, theirs = eager_builtin(name)
    use(monkeypatch, LAYOUTS[layout])
    made = BUILTIN_ENERGIES[name]
    fused = fused_like(eager, made.factory(), 1e-4)
    assert worst(run(fused, start_of(made.event_shape)).state, theirs) <= 1


def workload_params() -> list[Any]:
    slow_ones = ("mlp-16-256-256-1", "lennard-jones", "mlp-2-64-64-1", "mixture", "rosenbrock")
    return [pytest.param(w, id=w.name, marks=slow if w.name in slow_ones else ()) for w in TEN]


@pytest.mark.parametrize("layout", ["as planned", pytest.param("as planned, chains last", marks=slow)])
@pytest.mark.parametrize("workload", workload_params())
def test_the_workloads_of_the_benchmarks_agree_with_eager(
    workload: Workload, layout: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At their sizes, in the layouts that the planner gives them; one of them sums up 1,000 terms."""
    eager, x0, theirs = eager_workload(workload.name)
    use(monkeypatch, LAYOUTS[layout])
    fused = fused_like(eager, eager._builds._energy, workload.step_size)
    assert worst(run(fused, x0).state, theirs, size=10.0) <= 1


@functools.cache
def eager_workload(name: str) -> tuple[ce.Sampler, Tensor, ce.ChainState]:
    workload = next(w for w in TEN if w.name == name)
    energy, transition = workload.energy_factory(), ce.Langevin(workload.step_size)
    sampler = ce.build_sampler(energy, transition, workload.event_shape, backend="eager")
    x0 = initial(replace(workload, n_chains=N))
    return sampler, x0, run(sampler, x0).state


def group_params(quick: tuple[str, ...] = ()) -> list[Any]:
    """Groups and layouts, in the quick tests one of these; the largest groups in two."""
    return [
        pytest.param(
            p.values[0], layout, id=f"{p.values[0]}-{layout}", marks=p.marks if layout == "chains last" else slow
        )
        for p in groups(quick)
        for layout in THREE
        if layout != "chains first" or p.values[0] not in ("products", "factorisations", "sorts", "movements")
    ]


@pytest.mark.parametrize(("group", "layout"), group_params(("logic",)))
def test_every_operation_agrees_with_eager(group: str, layout: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In value and gradient, each operation on elements of its own."""
    check_operations(group, torch.float32, layout, monkeypatch)


@slow
@pytest.mark.parametrize("layout", ["chains last"])
@pytest.mark.parametrize("group", ["exponentials", "circular", "special", "rounding", "choices", "reductions"])
def test_every_operation_agrees_with_eager_in_double(group: str, layout: str, monkeypatch: pytest.MonkeyPatch) -> None:
    check_operations(group, torch.float64, layout, monkeypatch)


def check_operations(group: str, dtype: torch.dtype, layout: str, patch: pytest.MonkeyPatch) -> None:
    chosen = LAYOUTS[layout]
    use(patch, chosen._replace(form=replace(chosen.form, block=32)))  # all chains in one
    eager = samplers_of(group, dtype)[0]
    fused = fused_like(eager, energy_of(operations_of(group, dtype)), dtype=dtype)
    check_group(group, dtype, fused, lengths=(1,))


@slow
@pytest.mark.parametrize("layout", ["flat", "chains last"])
def test_reductions_of_more_terms_than_python_nests(layout: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A maximum, a product, a sum and a matrix product over 110 data, element by element and along an axis."""
    data = 0.1 * torch.linspace(-1, 1, 110)

    def energy(x: Tensor) -> Tensor:
        terms = x.sum(-1, keepdim=True) * data
        return terms.amax(-1) + (1 + 0.01 * terms).prod(-1) + 0.1 * terms.square().sum(-1) + (terms @ data.sin()).cos()

    eager = ce.build_sampler(energy, ce.Langevin(1e-3), 2, backend="eager")
    use(monkeypatch, LAYOUTS[layout])
    fused = fused_like(eager, energy)
    x0 = start_of((2,))
    assert worst(run(fused, x0, 1).state, run(eager, x0, 1).state) <= 1
