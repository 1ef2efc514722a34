"""The fused kernel checks its chains at the end of a segment of steps: nobody can tell from what comes out."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from cases import same_state
from torch import Tensor

import compiled_ebm as ce
from compiled_ebm.backends.fused import parts, toolchain
from compiled_ebm.backends.fused.frame import SEGMENT

pytestmark = pytest.mark.skipif(toolchain.why_unavailable() is not None, reason="needs a C++ compiler")

N, STEPS = 40, 3 * SEGMENT + 7


def quartic(x: Tensor) -> Tensor:
    """Finite as far as 3e9 in float32, its gradient as far as 5e12."""
    return 0.25 * x.pow(4).sum(-1)


def wide_quartic(x: Tensor) -> Tensor:
    """Fifty dimensions: loops over memory."""
    return quartic(x) + (x.roll(1, -1) * x).sum(-1)


def hard_wall(x: Tensor) -> Tensor:
    """Flat but for a wall that the gradient does not see."""
    return torch.where(x.abs() > 3, torch.inf, 0.0 * x).sum(-1)


def thin_wall(x: Tensor) -> Tensor:
    """One that chains pass without being in it at the end of a segment."""
    return torch.where((x.abs() - 3).abs() < 0.01, torch.inf, 0.0 * x).sum(-1)


def far_exponential(x: Tensor) -> Tensor:
    return x.exp().sum(-1) + x.square().sum(-1)


ENERGIES: dict[str, tuple[Callable[[Tensor], Tensor], int, float]] = {
    "quartic": (quartic, 2, 1e-3),
    "wide-quartic": (wide_quartic, 50, 1e-3),
    "hard-wall": (hard_wall, 2, 0.02),
    "thin-wall": (thin_wall, 2, 0.02),
    "exponential": (far_exponential, 3, 1e-3),
}
APART = {"quartic": True, "wide-quartic": True, "hard-wall": False, "thin-wall": False, "exponential": False}
"""Whether the step does without the energy."""


def samplers(name: str) -> tuple[ce.Sampler, ce.Sampler]:
    energy, dim, step_size = ENERGIES[name]
    fused, eager = (
        ce.build_sampler(energy, ce.Langevin(step_size), (dim,), backend=backend) for backend in ("fused", "eager")
    )
    return fused, eager


def starts(name: str, dim: int) -> Tensor:
    """Most chains where they belong, some where they will fail, or go far without failing."""
    x = torch.randn(N, dim, generator=torch.Generator().manual_seed(4)).clamp(-2, 2)
    if "wall" not in name:  # where those of the walls fail is for their noise to say
        x[3] = 40.0 if name != "exponential" else 60.0
        x[17, 0] = 46.0 if name != "exponential" else 30.0
        x[25] *= 20.0
    return x


@pytest.mark.filterwarnings("ignore::compiled_ebm.NonFiniteChainWarning")
@pytest.mark.parametrize("name", ENERGIES)
def test_chains_fail_at_the_step_at_which_they_do_in_eager(name: str) -> None:
    fused, eager = samplers(name)
    state = fused.init(starts(name, ENERGIES[name][1]), seed=2)
    ours, theirs = (s.run(state, STEPS).state for s in (fused, eager))
    assert ("energy_of" in fused.source) == APART[name]
    assert 0 < int((theirs.failed_at >= 0).sum()) < N
    assert torch.equal(ours.failed_at, theirs.failed_at)
    for a, b in zip((ours.positions, *ours.carried), (theirs.positions, *theirs.carried), strict=True):
        torch.testing.assert_close(a, b, rtol=2e-4, atol=2e-4)


@pytest.mark.filterwarnings("ignore::compiled_ebm.NonFiniteChainWarning")
@pytest.mark.parametrize("name", ENERGIES)
def test_the_same_bits_however_a_run_is_cut(name: str) -> None:
    """In launches, in draws, and beside other chains: every cut makes other segments."""
    fused, _ = samplers(name)
    state = fused.init(starts(name, ENERGIES[name][1]), seed=2)
    whole = fused.run(state, STEPS).state
    for cuts in ([1] * STEPS, [SEGMENT - 1, 1, SEGMENT + 5, STEPS - 2 * SEGMENT - 5]):
        part = state
        for n_steps in cuts:
            part = fused.run(part, n_steps).state
        assert same_state(part, whole)
    every = fused.run(state, STEPS, thin=1)
    assert same_state(every.state, whole) and every.draws is not None
    for thin in (3, SEGMENT + 1):
        result = fused.run(state, STEPS, thin=thin)
        assert same_state(result.state, whole) and result.draws is not None
        assert torch.equal(result.draws, every.draws[:, thin - 1 :: thin])
    alone = [fused.run(fused.init(state.positions[k : k + 1], seed=2, first_chain=k), STEPS).state for k in (3, 4)]
    for k, chain in zip((3, 4), alone, strict=True):
        assert torch.equal(chain.positions[0], whole.positions[k])


@pytest.mark.filterwarnings("ignore::compiled_ebm.NonFiniteChainWarning")
def test_far_chains_are_as_they_would_be_with_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """However near the limit is, which decides how much is done step by step, the bits are the same."""
    ends = []
    for limit in (None, 0.0, 50.0, 1e4):
        if limit is not None:
            monkeypatch.setattr(parts.Parts, "limit", lambda *_, limit=limit: limit)
        fused, _ = samplers("quartic")
        state = fused.init(starts("quartic", 2), seed=2)
        ends.append(fused.run(state, STEPS).state)
    assert all(same_state(end, ends[0]) for end in ends[1:])


@pytest.mark.filterwarnings("ignore::compiled_ebm.NonFiniteChainWarning")
def test_without_a_limit_failures_on_the_way_would_be_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The control: the energy is seen at the end of a segment alone."""
    fused, eager = samplers("thin-wall")
    state = fused.init(starts("thin-wall", 2), seed=2)
    theirs = eager.run(state, STEPS).state
    assert torch.equal(fused.run(state, STEPS).state.failed_at, theirs.failed_at)
    monkeypatch.setattr(parts, "_LEAST_REACH", -1.0)
    monkeypatch.setattr(parts.Parts, "limit", lambda *_: 1e38)
    blind, _ = samplers("thin-wall")
    ours = blind.run(state, STEPS).state
    assert "energy_of" in blind.source and not torch.equal(ours.failed_at, theirs.failed_at)
