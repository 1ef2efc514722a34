"""Checks at the end of segments in the fused CUDA kernel: nobody can tell from what comes out, as on a CPU."""

from __future__ import annotations

import pytest
import torch
from cases import same_state
from layouts import LAYOUTS, THREE, use
from test_segments import APART, ENERGIES, samplers, starts

from compiled_ebm.backends.fused import parts
from compiled_ebm.backends.fused.triton import frame
from compiled_ebm.backends.fused.triton.launch import FusedCudaLaunch

SEGMENT = 5
STEPS = 3 * SEGMENT + 3
QUICK = ("quartic",)


CASES = [
    pytest.param(name, layout, marks=() if layout == "flat" and name in QUICK else pytest.mark.slow)
    for name in ENERGIES
    for layout in THREE
    if (name, layout) != ("wide-quartic", "flat")  # a minute, and no more than the quartic
]


def prepare(patch: pytest.MonkeyPatch, layout: str, segment: int = SEGMENT) -> None:
    use(patch, LAYOUTS[layout])
    patch.setattr(frame, "SEGMENT", segment)
    patch.setattr(FusedCudaLaunch, "first_steps", lambda *_: 1000)  # or launches would be as short as segments


@pytest.mark.filterwarnings("ignore::compiled_ebm.NonFiniteChainWarning")
@pytest.mark.parametrize(("name", "layout"), CASES)
def test_chains_fail_where_they_do_in_eager_however_a_run_is_cut(
    name: str, layout: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare(monkeypatch, layout)
    fused, eager = samplers(name)
    state = fused.init(starts(name, ENERGIES[name][1]), seed=2)
    ours, theirs = (s.run(state, STEPS).state for s in (fused, eager))
    assert ("energy_of" in fused.source) == APART[name]
    assert 0 < int((theirs.failed_at >= 0).sum()) < len(theirs.failed_at)
    assert torch.equal(ours.failed_at, theirs.failed_at)
    for a, b in zip((ours.positions, *ours.carried), (theirs.positions, *theirs.carried), strict=True):
        torch.testing.assert_close(a, b, rtol=2e-4, atol=2e-4)
    part = state
    for n_steps in (1, SEGMENT + 2, STEPS - SEGMENT - 3):
        part = fused.run(part, n_steps).state
    assert same_state(part, ours)
    kept = fused.run(state, STEPS, thin=3)
    assert same_state(kept.state, ours) and kept.draws is not None
    assert torch.equal(kept.draws[:, 1], fused.run(state, 6).state.positions)


@pytest.mark.filterwarnings("ignore::compiled_ebm.NonFiniteChainWarning")
@pytest.mark.slow
@pytest.mark.parametrize("layout", THREE)
def test_however_near_the_limit_is_the_bits_are_the_same(layout: str, monkeypatch: pytest.MonkeyPatch) -> None:
    prepare(monkeypatch, layout)
    ends = []
    for limit in (None, 0.0, 50.0):
        if limit is not None:
            monkeypatch.setattr(parts.Parts, "limit", lambda *_, limit=limit: limit)
        fused, _ = samplers("quartic")
        ends.append(fused.run(fused.init(starts("quartic", 2), seed=2), STEPS).state)
    assert same_state(ends[1], ends[0]) and same_state(ends[2], ends[0])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::compiled_ebm.NonFiniteChainWarning")
def test_without_a_limit_failures_on_the_way_would_be_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The control, with segments so long that chains pass the wall between two checks."""
    prepare(monkeypatch, "flat", segment=64)
    monkeypatch.setattr(parts, "_LEAST_REACH", -1.0)
    monkeypatch.setattr(parts.Parts, "limit", lambda *_: 1e38)
    blind, eager = samplers("thin-wall")
    state = blind.init(starts("thin-wall", 2), seed=2)
    ours, theirs = (s.run(state, 192).state for s in (blind, eager))
    assert "energy_of" in blind.source and not torch.equal(ours.failed_at, theirs.failed_at)
