"""A compiled backend against eager on the same noise: samplers that share a trace, and how far apart they may be."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import Any
from unittest.mock import patch

import pytest
import torch
from cases import carry_of
from operation_cases import GROUPS, LONG, Operation, energy_of, parts_of
from torch import Tensor

import compiled_ebm as ce
from compiled_ebm import builder, rng

Energy = Callable[..., Tensor]

N, N_STEPS, SEED = 21, 10, 77
STEP_SIZE = 1e-3
ROUNDING = 128
"""Rounding units that may lie between two orders of the same operations, relative to what an operation has passed
through: beside its gradient 1, as most go through numbers near 1."""


def starts(numel: int, dtype: torch.dtype, n: int = N) -> Tensor:
    """Normal positions ``[n, numel]``."""
    return rng.normals(torch.tensor(3), torch.tensor(0), torch.arange(n), max(1, numel), dtype=carry_of(dtype))


def both(energy: Energy, event: tuple[int, ...], step_size: float = STEP_SIZE, **options: Any) -> list[ce.Sampler]:
    """An eager and a fused sampler that share one trace."""
    eager = ce.build_sampler(energy, ce.Langevin(step_size=step_size), event, backend="eager", **options)
    return [eager, fused_like(eager, energy, step_size, **options)]


def fused_like(eager: ce.Sampler, energy: Energy, step_size: float = STEP_SIZE, **options: Any) -> ce.Sampler:
    """A fused sampler that takes over the trace of another, which takes longer than everything else here."""
    kwargs = options.get("model_kwargs", {})
    program, _ = eager._builds.get(kwargs, N)
    with patch.object(builder._Builds, "_checked_program", lambda *_: (program, [])):
        transition = ce.Langevin(step_size=step_size)
        fused = ce.build_sampler(energy, transition, eager.event_shape, backend="fused", **options)
        fused._builds.get(kwargs, N)
    return fused


def after(sampler: ce.Sampler, x0: Tensor, n_steps: int, **options: Any) -> ce.ChainState:
    state = sampler.init(x0, seed=SEED)
    return sampler.run(state, n_steps, **options).state


def disagreement(ours: ce.ChainState, theirs: ce.ChainState, eps: float) -> Tensor:
    """Of positions and gradients ``[2, n, *event]``, in units of what rounding explains; 1 is the most allowed."""
    assert torch.equal(ours.failed_at, theirs.failed_at) and ours.n_failed == 0
    deviations = []
    for a, b in ((ours.positions, theirs.positions), (ours.carried[1], theirs.carried[1])):
        assert a.dtype == b.dtype
        deviations.append((a - b).abs() / (ROUNDING * eps * (1 + b.abs())))
    return torch.stack(deviations)


def check_energy(ours: ce.ChainState, theirs: ce.ChainState, eps: float, size: float = 1.0) -> None:
    a, b = ours.carried[0], theirs.carried[0]
    assert float(((a - b).abs() / (size + b.abs())).max()) <= ROUNDING * eps


# -- groups of operations ----------------------------------------------------------------------------------------------


def groups(quick: Iterable[str] = GROUPS.keys() - set(LONG)) -> list[Any]:
    """All groups, those not named in ``quick`` marked slow."""
    return [pytest.param(name, marks=() if name in quick else pytest.mark.slow) for name in GROUPS]


def operations_of(group: str, dtype: torch.dtype) -> list[Operation]:
    # torch's own gradients of the first two are no better than float32 in float64, and refused for it; its trigamma
    # is good to 1e-9
    rough = ("Hardsigmoid", "Hardswish", "digamma", "trigamma", "polygamma 0") if dtype == torch.float64 else ()
    return [operation for operation in GROUPS[group] if operation.name not in rough]


@functools.cache
def samplers_of(group: str, dtype: torch.dtype) -> list[ce.Sampler]:
    operations = operations_of(group, dtype)
    return both(energy_of(operations), (sum(o.numel for o in operations),), dtype=dtype)


@functools.cache
def eager_after(group: str, dtype: torch.dtype, n_steps: int) -> ce.ChainState:
    sampler = samplers_of(group, dtype)[0]
    return after(sampler, starts(sampler.event_shape[0], dtype), n_steps)


def check_group(group: str, dtype: torch.dtype, sampler: ce.Sampler, lengths: tuple[int, ...] = (1, N_STEPS)) -> None:
    """The sampler's chains and those of eager after runs of these lengths, operation by operation."""
    operations = operations_of(group, dtype)
    x0, eps = starts(sampler.event_shape[0], dtype), torch.finfo(dtype).eps
    for n_steps in lengths:
        ours, theirs = after(sampler, x0, n_steps), eager_after(group, dtype, n_steps)
        found = disagreement(ours, theirs, eps).amax((0, 1))
        worst = {name: float(found[part].max()) for name, part in parts_of(operations).items()}
        assert not {name: f"{size:.3g}" for name, size in worst.items() if not size <= 1}, n_steps
        check_energy(ours, theirs, eps, size=len(operations))
