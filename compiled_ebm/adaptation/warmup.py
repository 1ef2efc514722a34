"""The warm-up: chains go where the target is, and hyper-parameters become plain numbers."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Protocol

import torch
from torch import Tensor

from compiled_ebm.adaptation.averages import Moments
from compiled_ebm.adaptation.step_size import StepSize
from compiled_ebm.adaptation.trajectory import LENGTHS, Movement
from compiled_ebm.runloop import Interlude
from compiled_ebm.session import Session
from compiled_ebm.state import ChainState
from compiled_ebm.transitions.base import Transition
from compiled_ebm.transitions.tally import told_by

__all__ = ["Run", "WarmupResult", "adaptable", "warm_up"]

_PARTS = (0.15, 0.2, 0.25)
"""Of the steps, before the first diagonal, the second, and the trajectory's length."""
_SEARCH = 0.15
"""Of the steps, for the trajectory's length at most."""
_MOST_UPDATES = 1000
_MOVES = 4000
"""Of all chains together, that tell how good a length is."""
_BOLD = 10.0
"""Of the step size that a user gives, where the search for it is drawn to at first: steps too large are found fast."""
_FALL = 0.7
"""A length whose rate is so much below the best is past it."""


@dataclass(frozen=True, eq=False)
class WarmupResult:
    """What a warm-up found; the sampler has the transition already.

    Args:
        state: The chains at the end.
        transition: The move with the step size, diagonal and length found: plain numbers.
        step_size: The step size.
        acceptance: Mean acceptance of all living chains in the last quarter of the steps.
        diagonal: Variances of x for MALA's preconditioner, 1 / variances for HMC's mass, float64; None if not adapted.
        n_leapfrog_steps: Of HMC, else None.
        history: ``step_size`` and ``acceptance`` of every update, float64.
    """

    state: ChainState
    transition: Transition
    step_size: float
    acceptance: float
    diagonal: Tensor | None
    n_leapfrog_steps: int | None
    history: dict[str, Tensor]

    def __repr__(self) -> str:
        return f"WarmupResult({self.transition}, acceptance={self.acceptance:.3f}, n_chains={self.state.n_chains})"


class Run(Protocol):
    """One stretch of steps, as a sampler does it."""

    def __call__(
        self,
        transition: Transition,
        state: ChainState,
        n_steps: int,
        interludes: Callable[[Session], Sequence[Interlude]],
        rows: Callable[[Tensor], Tensor],
    ) -> ChainState:
        """The chains after ``n_steps`` of the transition, tallied; ``rows`` changes each launch's hyper-parameters."""


def adaptable(transition: Transition) -> None:
    """Raise if the transition has no acceptance that a step size could be adapted to."""
    known = getattr(transition, "target_acceptance", None) is not None
    if not known or "acceptance" not in told_by(transition) or not _has_field(transition, "step_size"):
        raise ValueError(
            "transition: expected one with an acceptance to adapt to (MALA, HMC, RandomWalk, Barker), got "
            f"{transition}; set the hyper-parameters of others by hand, and warm up a move before it enters a ladder"
        )


def warm_up(
    transition: Transition,
    state: ChainState,
    n_steps: int,
    run: Run,
    *,
    event_shape: tuple[int, ...],
    device: torch.device,
    target: float,
    diagonal: bool,
    trajectory: bool,
) -> WarmupResult:
    """Adapt a transition on the chains of a state.

    Args:
        transition: An :func:`adaptable` one; its step size is where the search begins.
        state: The chains.
        n_steps: Of all stretches together.
        run: Does a stretch.
        event_shape, device: Of the chains.
        target: Mean acceptance.
        diagonal: Whether to adapt the transition's vector, if it has one.
        trajectory: Whether to adapt ``n_leapfrog_steps``, if it has that.
    """
    vector = next(iter(getattr(transition, "vector_fields", ())), None) if diagonal else None
    search = trajectory and _has_field(transition, "n_leapfrog_steps")
    work = _Warmup(transition, state, run, max(1, math.ceil(n_steps / _MOST_UPDATES)), event_shape, device, target)
    end = state.step + n_steps
    if vector is not None:
        for part in _PARTS:
            work.advance(int(part * n_steps), vector)
    if search:
        work.advance(int(0.1 * n_steps), None)
        work.find_length(int(_SEARCH * n_steps))
    work.advance(end - work.state.step, None)
    return work.result(vector)


class _Warmup:
    """The chains and the transition on their way."""

    def __init__(
        self,
        transition: Transition,
        state: ChainState,
        run: Run,
        every: int,
        event_shape: tuple[int, ...],
        device: torch.device,
        target: float,
    ) -> None:
        self.state, self._transition = state, transition
        self._run, self._every, self._event, self._device, self._target = run, every, event_shape, device, target
        self._step_size = float(transition.hyper_table(state.step, 1).step_size)
        self._steps: list[Tensor] = []
        self._acceptances: list[Tensor] = []

    def advance(self, n_steps: int, vector: str | None) -> None:
        """Adapt the step size for so many steps, then set the vector to what the chains have shown."""
        if n_steps < 1:
            return
        adapted: list[StepSize] = []
        toward = self._step_size * (1 if self._steps else _BOLD)
        moments = Moments(self._event, self.state.n_chains, self._every, self.state.step, self._device)

        def interludes(session: Session) -> Sequence[Interlude]:
            told = told_by(self._transition)
            at = len(session.fields) - len(told) + told.index("acceptance")
            first, n = self.state.step, self.state.n_chains
            adapted.append(
                StepSize(self._step_size, toward, self._target, self._every, first, at, len(told), n, self._device)
            )
            return [moments, adapted[0]] if vector is not None else [adapted[0]]

        column = self._transition.hyper_type._fields.index("step_size")  # type: ignore[attr-defined]
        self.state = self._run(
            self._transition, self.state, n_steps, interludes, lambda table: adapted[0].rows(table, column)
        )
        self._steps += adapted[0].steps
        self._acceptances += adapted[0].acceptances
        if adapted[0].steps:
            self._set(step_size=adapted[0].found())
        if vector is not None and n_steps >= self._every:
            self._set_vector(vector, moments.variance().cpu())

    def _set(self, **values: object) -> None:
        if "step_size" in values:
            self._step_size = float(values["step_size"])  # type: ignore[arg-type]
        self._transition = _replaced(self._transition, values)

    def _set_vector(self, name: str, variance: Tensor) -> None:
        """The variances, or for a mass their inverses, and a step size that moves about as far as before."""
        before = getattr(self._transition, name)
        before = torch.ones((), dtype=torch.float64) if before is None else before
        if name == "mass":
            vector = 1 / variance
            factor = float((vector / before).log().mean().mul(0.5).exp())
        else:
            vector = variance
            factor = float((before / vector).log().mean().exp())
        self._set(**{name: vector}, step_size=self._step_size * factor)

    def find_length(self, n_steps: int) -> None:
        """Try longer and longer trajectories, a few steps of all chains each, while that pays."""
        each = max(2, min(50, math.ceil(_MOVES / self.state.n_chains)))
        rates: dict[int, float] = {}
        done = 0
        for length in LENGTHS:
            if done + each > n_steps:
                break
            self._set(n_leapfrog_steps=length)
            rates[length] = self._rate(each)
            done += each
            if rates[length] < _FALL * max(rates.values()):
                break
        if rates:
            self._set(n_leapfrog_steps=max(rates, key=lambda length: rates[length]))

    def _rate(self, n_steps: int) -> float:
        found: list[Movement] = []

        def interludes(session: Session) -> Sequence[Interlude]:
            mass = getattr(self._transition, "mass", None)
            mass = None if mass is None else mass.to(self._device)
            found.append(Movement(session.chains.state[0], mass, self.state.n_chains))
            return found

        self.state = self._run(self._transition, self.state, n_steps, interludes, lambda table: table)
        return found[0].rate(self._transition.n_leapfrog_steps)  # type: ignore[attr-defined]

    def result(self, vector: str | None) -> WarmupResult:
        """What was found."""
        history = {"step_size": _column(self._steps), "acceptance": _column(self._acceptances)}
        last = history["acceptance"][-max(1, len(self._acceptances) // 4) :]
        return WarmupResult(
            self.state,
            self._transition,
            self._step_size,
            float(last.mean()),
            None if vector is None else getattr(self._transition, vector),
            getattr(self._transition, "n_leapfrog_steps", None),
            history,
        )


def _replaced(transition: Transition, values: dict[str, Any]) -> Transition:
    made: Transition = replace(transition, **values)  # type: ignore[type-var]
    return made


def _has_field(transition: Transition, name: str) -> bool:
    return any(field.name == name for field in fields(transition))  # type: ignore[arg-type]


def _column(values: list[Tensor]) -> Tensor:
    return torch.stack(values).cpu() if values else torch.empty(0, dtype=torch.float64)
