"""The fused CUDA kernel on CPU tensors, under Triton's interpreter, in each of the layouts that its values may have."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import Any, NamedTuple

import pytest
import torch
from agreement import ROUNDING
from cases import same_bits
from torch import Tensor

import compiled_ebm as ce
from compiled_ebm import builder
from compiled_ebm.backends.fused import groups, plan
from compiled_ebm.backends.fused.triton import kernel
from compiled_ebm.backends.fused.triton.launch import FusedCudaLaunch
from compiled_ebm.backends.fused.triton.values import Form

N, N_STEPS = 21, 5
COORDINATES = {"seed": 2**63 + 11, "first_chain": 2**40 + 3, "first_step": 9}
"""Every word of the counter and of the key is non-zero; the first step is odd."""


class Layout(NamedTuple):
    """A form, and how the planner divides a program into single elements and axes."""

    form: Form
    plan: dict[str, int]
    unrolled_terms: int = groups.UNROLLED_TERMS


AXES = {"straight_line": 0, "small": 1}
LAYOUTS = {
    "flat": Layout(Form(16, 1), {"straight_line": 10**9}),
    "chains first": Layout(Form(16, 1), AXES, 1),
    "chains last": Layout(Form(16, 1, chains_last=True), AXES, 1),
    "as planned": Layout(Form(16, 1), {}),
    "as planned, chains last": Layout(Form(32, 4, chains_last=True), {}),
}
"""Block sizes of which N is no multiple."""
THREE = ("flat", "chains first", "chains last")


def use(patch: pytest.MonkeyPatch, layout: Layout) -> None:
    """Samplers that are built and run from now on are those of the CUDA kernel in this layout."""
    backend = builder._Backend(lambda program, _: FusedCudaLaunch(program, layout.form), lambda device: None)
    patch.setitem(builder.BACKENDS, "fused", backend)
    patch.setattr(kernel, "plan", functools.partial(plan.plan, **layout.plan))
    patch.setattr(groups, "UNROLLED_TERMS", layout.unrolled_terms)


def launched(sampler: ce.Sampler, model_kwargs: dict[str, Any] | None = None) -> FusedCudaLaunch:
    """The launch of its only program."""
    _, launch = sampler._builds.get(model_kwargs or {}, N)
    assert isinstance(launch, FusedCudaLaunch)
    return launch


def run(sampler: ce.Sampler, x0: Tensor, n_steps: int = N_STEPS, **options: Any) -> ce.RunResult:
    """From ``COORDINATES``, which options of :meth:`Sampler.init` by those names replace."""
    where = {name: options.pop(name, value) for name, value in COORDINATES.items()}
    kwargs = {name: options[name] for name in ("model_kwargs",) if name in options}
    return sampler.run(sampler.init(x0, **where, **kwargs), n_steps, **options)


def worst(ours: ce.ChainState, theirs: ce.ChainState, size: float = 1.0) -> float:
    """Largest difference of any leaf, in units of what rounding explains; 1 is the most allowed.

    ``size`` is of the largest terms that a sum has passed through.
    """
    assert torch.equal(ours.failed_at, theirs.failed_at) and ours.step == theirs.step
    found = 0.0
    for a, b in zip((ours.positions, *ours.carried), (theirs.positions, *theirs.carried), strict=True):
        assert a.dtype == b.dtype and a.shape == b.shape
        found = max(found, float(((a - b).abs() / (size + b.abs())).max()))
    return found / (ROUNDING * torch.finfo(ours.positions.dtype).eps)


def rows_are(part: ce.ChainState, whole: ce.ChainState, rows: Iterable[int]) -> bool:
    """Whether the chains of ``part`` are, bit for bit, these of ``whole``."""
    at = list(rows)
    leaves = zip((part.positions, *part.carried), (whole.positions, *whole.carried), strict=True)
    return all(same_bits(a, b[at]) for a, b in leaves) and torch.equal(part.failed_at, whole.failed_at[at])
