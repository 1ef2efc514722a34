"""The same step in JAX: each operation against torch, and the law of a run."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
import torch
from cases import CASES, Case
from operation_cases import GROUPS, Operation

import compiled_ebm as ce
from compiled_ebm.chaingraph import trace_graph

pytest.importorskip("jax")

from compiled_ebm.laboratory.jax_graphs import array_of, chain_function  # noqa: E402
from compiled_ebm.laboratory.jax_steps import JaxSteps  # noqa: E402
from compiled_ebm.laboratory.law import compare_laws  # noqa: E402

N, STEPS = 400, 20
QUICK, QUICK_CASES, QUICK_MOVES = ("reductions",), ("mixture", "own-gradient"), ("Langevin", "HMC")
NOT_TRANSLATED = set(
    "_cdist_forward.default _linalg_det.default _linalg_slogdet.default _linalg_solve_ex.default "
    "_pdist_forward.default _trilinear.default avg_pool2d.default cholesky_solve.default cummax.default cummin.default "
    "diagonal_scatter.default kthvalue.default linalg_cholesky_ex.default linalg_inv_ex.default "
    "linalg_lu_factor_ex.default max_pool2d_with_indices.default median.dim native_batch_norm.default "
    "scatter_reduce.two searchsorted.Tensor special_erfcx.default unfold.default upsample_bilinear2d.default".split()
)


def steps(case: Case, move: ce.Transition, seed: int, dtype: torch.dtype = torch.float32, n: int = N) -> JaxSteps:
    energy = case.make()
    sampler = ce.build_sampler(energy, move, case.event, backend="eager", dtype=dtype)
    program, _ = sampler.built({}, n)
    return JaxSteps(energy, program, case.x0(n).to(dtype), STEPS, seed)


def ours(case: Case, move: ce.Transition, seed: int) -> torch.Tensor:
    sampler = ce.build_sampler(case.make(), move, case.event, backend="eager")
    return sampler.run(sampler.init(n_chains=N, seed=seed), STEPS).state.x


@pytest.mark.parametrize(
    "case",
    [pytest.param(c, id=c.name, marks=[] if c.name in QUICK_CASES else [pytest.mark.slow]) for c in CASES],
)
def test_without_noise_it_is_the_same_descent(case: Case) -> None:
    """One seed or another, with no noise to differ by: ours to rounding."""
    move = ce.Langevin(case.step_size, noise_scale=0.0)
    own = steps(case, move, seed=1, n=32)
    own.build()
    sampler = ce.build_sampler(case.make(), move, case.event, backend="eager")
    wanted = sampler.run(sampler.init(case.x0(32)), STEPS).state.x
    torch.testing.assert_close(own.run(), wanted, rtol=2e-4, atol=2e-5)


MOVES = {
    "Langevin": ce.Langevin(0.02),
    "clipped": ce.Langevin(0.02, clamp=(-2.0, 2.0), grad_clip=3.0),
    "schedule": ce.Langevin(ce.schedules.Cosine(0.05, 0.01, STEPS)),
    "MALA": ce.MALA(0.1),
    "UnderdampedLangevin": ce.UnderdampedLangevin(0.1, 1.5),
    "Barker": ce.Barker(0.1),
    "RandomWalk": ce.RandomWalk(0.1),
    "HMC": ce.HMC(0.1, n_leapfrog_steps=5, jitter=0.2),
}


@pytest.mark.parametrize("name", [pytest.param(n, marks=[] if n in QUICK_MOVES else [pytest.mark.slow]) for n in MOVES])
def test_draws_are_of_the_same_law(name: str) -> None:
    case, move = next(case for case in CASES if case.name == "mixture"), MOVES[name]
    own = steps(case, move, seed=1)
    own.build()
    # its chains start elsewhere than ours do, so that the two samples are independent
    found = compare_laws(own.run(), ours(case, move, seed=2))
    assert found.p_value > 1e-4
    wrong = compare_laws(own.run(), 1.5 * ours(case, move, seed=2))
    assert wrong.p_value < 1e-4


def test_double_precision() -> None:
    case = next(case for case in CASES if case.name == "mlp")
    move = ce.Langevin(case.step_size, noise_scale=0.0)
    own = steps(case, move, 1, torch.float64, n=32)
    own.build()
    sampler = ce.build_sampler(case.make(), move, case.event, backend="eager", dtype=torch.float64)
    wanted = sampler.run(sampler.init(case.x0(32).double()), STEPS).state.x
    assert own.run().dtype == torch.float64
    torch.testing.assert_close(own.run(), wanted, rtol=1e-12, atol=1e-12)


def test_an_operation_without_a_form_is_named() -> None:
    energy = lambda x: torch.special.erfcx(x).sum(-1)  # noqa: E731
    sampler = ce.build_sampler(energy, ce.Langevin(0.1), 2, backend="eager")
    with pytest.raises(ce.UnsupportedEnergyError, match=r"no form of aten.special_erfcx.default at .*test_jax_steps"):
        JaxSteps(energy, sampler.built({}, 8)[0], torch.zeros(8, 2), 5, 0)


def test_run_before_build() -> None:
    case = next(case for case in CASES if case.name == "harmonic")
    with pytest.raises(RuntimeError, match="call build"):
        steps(case, ce.Langevin(0.1), 0).run()


def operations() -> list[Any]:
    assert set(QUICK) < set(GROUPS)
    return [
        pytest.param(operation, id=f"{group}-{operation.name}", marks=[] if group in QUICK else [pytest.mark.slow])
        for group, found in GROUPS.items()
        for operation in found
    ]


@pytest.mark.parametrize("operation", operations())
def test_operation(operation: Operation) -> None:
    """Forward, as JAX's user would have it differentiated; what has no form says so."""
    x = operation.scale * torch.randn(4, *operation.event, generator=torch.Generator().manual_seed(3))
    graph = trace_graph(lambda x: (operation.function(x),), (x,), 1, 0)
    try:
        function = chain_function(graph)
    except ce.UnsupportedEnergyError as error:
        refused = re.search(r"jax: no form of aten\.(\S+) at .*operation_cases", str(error))
        assert refused is not None and refused[1] in NOT_TRANSLATED
        return
    got = torch.from_numpy(np.array(function(array_of(x))[0]))
    torch.testing.assert_close(got, operation.function(x), rtol=1e-4, atol=1e-5)
