"""Backends step by step against eager: what agrees, and what is planted to disagree."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from cases import BY_NAME
from torch import Tensor

import compiled_ebm as ce
from compiled_ebm.backends.fused import toolchain
from compiled_ebm.laboratory.agreement import Agreement, agreements

N, STEPS = 64, 12
needs_compiler = pytest.mark.skipif(toolchain.why_unavailable() is not None, reason="needs a C++ compiler")
MOVES = {
    "Langevin": ce.Langevin(0.01),
    "MALA": ce.MALA(0.3),
    "UnderdampedLangevin": ce.UnderdampedLangevin(0.1, 1.5),
    "Barker": ce.Barker(0.3),
}


class Altered:
    """Eager, but for what is done to a state before it steps and after."""

    def __init__(
        self, sampler: ce.Sampler, before: Any = lambda state: state, after: Any = lambda state: state
    ) -> None:
        self._sampler, self._before, self._after = sampler, before, after

    def run(self, state: ce.ChainState, n_steps: int, thin: int | None = None) -> ce.RunResult:
        result = self._sampler.run(self._before(state), n_steps)
        return result._replace(state=self._after(replace(result.state, step=state.step + n_steps)))


def sampler(name: str, move: ce.Transition, backend: str = "eager", dtype: torch.dtype = torch.float32) -> ce.Sampler:
    case = BY_NAME[name]
    return ce.build_sampler(case.make(), move, case.event, backend=backend, dtype=dtype)


def found_for(other: Any, move: ce.Transition = MOVES["MALA"], name: str = "mixture") -> Agreement:
    reference = sampler(name, move)
    [found] = agreements({"eager": reference, "other": other}, reference.init(BY_NAME[name].x0(N), seed=3), STEPS)
    return found


@needs_compiler
@pytest.mark.parametrize("move", MOVES)
def test_the_kernel_agrees_and_drifts_by_roundings(move: str) -> None:
    found = found_for(sampler("mixture", MOVES[move], "fused"), MOVES[move])
    assert found.agrees and found.departure is None and found.flipped == 0
    assert (found.backend, found.n_chains, found.n_steps, len(found.drift)) == ("other", N, STEPS, STEPS)
    assert 0 < max(found.drift) < 1000 and 0.5 * N * STEPS < found.moved <= N * STEPS


def test_noise_of_the_next_step_is_a_departure_at_the_first() -> None:
    found = found_for(Altered(sampler("mixture", MOVES["MALA"]), lambda s: replace(s, step=s.step + 1)))
    assert found.departure is not None and found.departure.step == 1
    assert found.departure.ulps > 1e3 * found.departure.allowed and found.flipped > 0


def test_one_chain_that_is_off_in_one_step_is_named() -> None:
    def nudge(state: ce.ChainState) -> ce.ChainState:
        if state.step != 5:
            return state
        positions = state.positions.clone()
        positions[17] += 1e-4
        return replace(state, positions=positions)

    found = found_for(Altered(sampler("mixture", MOVES["MALA"]), after=nudge))
    assert found.departure is not None and (found.departure.step, found.departure.chain) == (5, 17)
    assert not found.agrees and found.drift[3] == 0.0


@pytest.mark.parametrize(("factor", "agrees"), [(1 + 1e-6, True), (1.001, False)])
def test_a_step_size_off_by_roundings_agrees_and_one_off_by_a_thousandth_does_not(factor: float, agrees: bool) -> None:
    move = ce.Langevin(0.01)
    assert found_for(sampler("double-well", ce.Langevin(0.01 * factor)), move, "double-well").agrees is agrees


@pytest.mark.filterwarnings("ignore::compiled_ebm.NonFiniteChainWarning")
def test_a_chain_that_fails_in_one_alone_is_a_departure() -> None:
    def fail(state: ce.ChainState) -> ce.ChainState:
        failed = state.failed_at.clone()
        failed[2] = 0
        return replace(state, failed_at=failed)

    found = found_for(Altered(sampler("mixture", MOVES["MALA"]), after=fail))
    assert found.departure is not None and (found.departure.step, found.departure.chain) == (1, 2)
    assert found.departure.ulps == float("inf")


def test_chains_that_fail_in_both_agree() -> None:
    def energy(x: Tensor) -> Tensor:
        return (x - 0.5).log().square().sum(-1)

    builds = {
        name: ce.build_sampler(energy, ce.Langevin(0.05), 1, backend="eager", dtype=torch.float64)
        for name in ("eager", "other")
    }
    [found] = agreements(builds, builds["eager"].init(n_chains=40, seed=0), 3)  # and no warning at every step
    assert found.agrees and set(found.drift) == {0.0}

    def revived(state: ce.ChainState) -> ce.ChainState:
        return replace(state, failed_at=torch.full_like(state.failed_at, -1))

    other = Altered(builds["eager"], after=revived)
    [found] = agreements({"eager": builds["eager"], "other": other}, builds["eager"].init(n_chains=40, seed=0), 3)
    assert found.departure is not None and found.departure.ulps == float("inf")


class Rushed:
    """Right when it does one step; a run of several is what is given."""

    def __init__(self, sampler: ce.Sampler, several: Any) -> None:
        self._sampler, self._several = sampler, several

    def run(self, state: ce.ChainState, n_steps: int, thin: int | None = None) -> ce.RunResult:
        return self._sampler.run(state, 1) if n_steps == 1 else self._several(self._sampler, state, n_steps)


@pytest.mark.parametrize(
    "several",
    [
        lambda sampler, state, n: sampler.run(state, 1),
        lambda sampler, state, n: sampler.run(state, n - 1),
        lambda sampler, state, n: sampler.run(replace(state, step=state.step + 1), n),
    ],
    ids=["the first step alone", "the last one left out", "noise of the step after"],
)
def test_a_launch_of_several_steps_is_looked_at(several: Any) -> None:
    eager = sampler("mixture", MOVES["Langevin"])
    found = found_for(Rushed(eager, several), MOVES["Langevin"])
    assert found.departure is not None and (found.departure.step, found.departure.allowed) == (STEPS, 0.0)
    assert found_for(Rushed(eager, lambda s, state, n: s.run(state, n)), MOVES["Langevin"]).agrees


def test_what_is_carried_beside_the_position_is_looked_at() -> None:
    def energies(amount: float) -> Any:
        def alter(state: ce.ChainState) -> ce.ChainState:
            assert state.carried is not None
            return replace(state, carried=(state.carried[0] + amount, *state.carried[1:]))

        return alter

    eager = sampler("mixture", MOVES["MALA"])
    assert not found_for(Altered(eager, after=energies(3.0))).agrees
    assert found_for(Altered(eager, after=energies(1e-6))).agrees

    def turned(state: ce.ChainState) -> ce.ChainState:
        assert state.carried is not None
        return replace(state, carried=(*state.carried[:-1], -0.5 * state.carried[-1]))

    under = sampler("mixture", MOVES["UnderdampedLangevin"])
    assert not found_for(Altered(under, after=turned), MOVES["UnderdampedLangevin"]).agrees


def test_decisions_that_rounding_of_large_energies_turns_are_no_departure() -> None:
    """A sum of thousands of squares is rounded to 0.004, and a decision follows it."""
    data = torch.randn(3000, generator=torch.Generator().manual_seed(0)) + 5

    def energy(x: Tensor) -> Tensor:
        return 0.5 * (x - data).square().sum(-1)

    def other_order(x: Tensor) -> Tensor:
        return 0.5 * (x - data.flip(0)).square().reshape(len(x), 3, -1).sum(-1).sum(-1)

    builds = {
        name: ce.build_sampler(e, ce.MALA(2e-4), 1, backend="eager")
        for name, e in (("eager", energy), ("other", other_order))
    }
    start = 5 + 0.02 * torch.randn(400, 1, generator=torch.Generator().manual_seed(1))
    [found] = agreements(builds, builds["eager"].init(start, seed=0), 20)
    assert found.agrees and found.moved > 1000


def test_what_cannot_be_compared_is_refused() -> None:
    eager = sampler("mixture", MOVES["MALA"])
    state = eager.init(BY_NAME["mixture"].x0(4), seed=0)
    with pytest.raises(ValueError, match="reference: expected one of fused"):
        agreements({"fused": eager}, state, 3)
    with pytest.raises(ValueError, match="n_steps: expected at least 1, got 0"):
        agreements({"eager": eager}, state, 0)
