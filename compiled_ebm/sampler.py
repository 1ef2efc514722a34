"""The sampler: chains in, chains and draws out."""

from __future__ import annotations

import math
import threading
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from compiled_ebm import rng, runloop
from compiled_ebm.adaptation import WarmupResult, adaptable, warm_up
from compiled_ebm.arguments import (
    MAX_STEPS,
    check_ladders,
    check_state,
    checked_int,
    checked_kwargs,
    checked_positions,
    checked_steps,
)
from compiled_ebm.backends.base import Launch
from compiled_ebm.draws.means import InfoMeans
from compiled_ebm.draws.memory import Collector, MemoryDraws
from compiled_ebm.draws.progress import progress_bar
from compiled_ebm.errors import NonFiniteChainWarning
from compiled_ebm.exchange import Exchange
from compiled_ebm.hosttensors import finite_rows
from compiled_ebm.hypertable import hyper_rows
from compiled_ebm.memory import check_fits
from compiled_ebm.session import Builds, Session
from compiled_ebm.state import ChainState, RunResult, RunStats
from compiled_ebm.trace import ALIVE, ChainProgram
from compiled_ebm.transitions.base import Transition
from compiled_ebm.transitions.replica_exchange import ReplicaExchange
from compiled_ebm.transitions.tally import told_by

__all__ = ["Sampler"]

_LEAST_WARMUP = 20
_FAR = 0.5
"""Of the way from the acceptance that was asked for to 0 or 1: a warm-up that ends there has not found it."""


class Sampler:
    """Advances many chains of one energy by one transition; made by :func:`build_sampler`.

    One sampler serves any number of chains. It holds no chains itself: :meth:`init` makes a
    :class:`ChainState`, :meth:`run` takes one and gives the next.
    """

    def __init__(
        self,
        builds: Builds,
        transition: Transition,
        event_shape: tuple[int, ...],
        dtype: torch.dtype,
        carry_dtype: torch.dtype,
        device: torch.device,
        model_kwargs: Mapping[str, Any],
    ) -> None:
        self._builds = builds
        self._transition = transition
        self._model_kwargs = dict(model_kwargs)
        self._carry = carry_dtype
        self._running = threading.RLock()  # a launch has buffers of its own: one run at a time
        self.event_shape = event_shape
        self.dtype = dtype
        self.device = device

    @property
    def transition(self) -> Transition:
        """The move. Assign one that differs in floats and schedules only, and nothing is rebuilt."""
        return self._transition

    @transition.setter
    def transition(self, value: Transition) -> None:
        if (
            not isinstance(value, Transition)
            or isinstance(value, type)
            or value.structure() != self._transition.structure()
        ):
            raise ValueError(
                f"transition: expected one that differs from {self._transition} in values and schedules only, got "
                f"{value}; build another sampler for another move, clamp or grad_clip"
            )
        with self._running:
            self._adopt(value)

    def _adopt(self, transition: Transition) -> None:
        self._builds.adopt(transition)
        self._transition = transition

    @torch.inference_mode(False)
    def init(
        self,
        x0: Tensor | None = None,
        *,
        n_chains: int | None = None,
        seed: int = 0,
        first_chain: int = 0,
        first_step: int = 0,
    ) -> ChainState:
        """Chains at ``x0``, or at draws from N(0, I) by the counter-based generator.

        Args:
            x0: ``[n_chains, *event]``, floating; moved to the sampler's device with a warning if it is elsewhere.
            n_chains: How many chains, if ``x0`` is not given.
            seed: 64-bit; with the chain id and the step it determines every random number.
            first_chain: Global id of the first chain: chains 0..9 and 10..19 in two runs are chains 0..19 in one.
            first_step: Where schedules and noise begin.

        Raises:
            TypeError, ValueError: Naming the argument, what was expected and what was given.
            MemoryError: If so many chains do not fit; says how many do.

        Example:
            >>> import compiled_ebm as ce
            >>> sampler = ce.build_sampler(ce.HarmonicModel(), ce.Langevin(0.1), event_shape=(2,), backend="eager")
            >>> sampler.init(n_chains=3, seed=1).x.shape
            torch.Size([3, 2])
        """
        seed = checked_int("seed", seed, -(1 << 63), (1 << 64) - 1)
        first_chain = checked_int("first_chain", first_chain, 0, (1 << 63) - 1)
        first_step = checked_int("first_step", first_step, 0, MAX_STEPS - 1)
        if x0 is not None:
            positions = checked_positions(x0, self.event_shape, self.device, self._carry)
            if n_chains is not None and n_chains != len(positions):
                raise ValueError(f"n_chains: expected {len(positions)} as x0 has, got {n_chains}; give x0 alone")
            n_chains = positions.shape[0]
        elif n_chains is None:
            raise ValueError("x0, n_chains: expected one of them, got neither; for example n_chains=1000")
        n_chains = checked_int("n_chains", n_chains, 1, (1 << 63) - first_chain)
        self._check_memory(n_chains, 0, None)
        ids = first_chain + torch.arange(n_chains, dtype=torch.int64, device=self.device)
        if x0 is None:
            z = rng.normals(
                rng.seed_tensor(seed, self.device),
                torch.zeros((), dtype=torch.int64, device=self.device),
                ids,
                math.prod(self.event_shape),
                rng.Stream.INITIALISATION,
                self._carry,
            )
            positions = z.reshape(n_chains, *self.event_shape).to(self.dtype).to(self._carry)
        failed = torch.full((n_chains,), ALIVE, dtype=torch.int64, device=self.device)
        return ChainState(positions, None, failed, ids, seed, first_step, self.dtype)

    def _check_memory(self, n_chains: int, n_kept: int, launch: Launch | None) -> None:
        """Positions and gradient, twice (the caller's state and the run's), ids, failed_at, energies; draws; work."""
        numel = math.prod(self.event_shape)
        state, draws = 4 * numel * self._carry.itemsize + 64, n_kept * numel * self.dtype.itemsize
        working, fixed, padding = 0, 0, 0
        if launch is not None:
            working, fixed = launch.working_bytes(n_chains)
            padding = (launch.capacity(n_chains) - n_chains) * (state + working)
        what = "their state" + (" and draws" if n_kept else "")
        check_fits(n_chains, state + draws + working, fixed + padding, self.device, what)

    @torch.inference_mode(False)
    def run(
        self,
        state: ChainState,
        n_steps: int,
        thin: int | None = None,
        *,
        model_kwargs: Mapping[str, Any] | None = None,
        progress: bool = False,
        collector: Collector | None = None,
        info: bool = False,
    ) -> RunResult:
        """Advance every chain by ``n_steps``; the state given is not changed.

        Args:
            state: From :meth:`init` or an earlier run.
            n_steps: Steps, >= 0.
            thin: Keep the position after every thin-th step; None keeps the last positions only.
            model_kwargs: For the energy; tensors whose first dimension is the number of chains are per chain.
            progress: Show a bar on stderr (needs rich). It changes no sample.
            collector: Also hand every kept draw to this object (``thin`` says which).
            info: Also average what the transition tells of its steps (energy, acceptance, ...) chain by chain, in
                registers: ``stats.info``, and with ``thin`` over the steps that lead to each draw, for which launches
                are at most ``thin`` steps long: ``stats.info_draws``.

        Returns:
            :class:`RunResult` ``(state, draws, stats)``. Two runs of n steps give bit for bit what one of 2n gives.
            Ctrl-C ends the run after the current launch; ``stats.interrupted`` tells.

        Raises:
            TypeError, ValueError: Naming the argument, what was expected and what was given.
            MemoryError: If chains and draws do not fit; says how many chains do.

        Warns:
            NonFiniteChainWarning: Once, if chains have left the region where the energy is finite.
        """
        check_state(state, self.event_shape, self.device, self._carry)
        n_steps, thin = checked_steps(n_steps, thin, state.step, collector is not None)
        if not isinstance(info, bool):
            raise TypeError(f"info: expected True or False, got {info!r}")
        kwargs = checked_kwargs(self._model_kwargs if model_kwargs is None else model_kwargs, self.device)
        with self._running, torch.autocast(self.device.type, enabled=False):  # compute_dtype says it, nothing else
            return self._run(state, n_steps, thin, kwargs, progress, collector, info)

    def _run(
        self,
        state: ChainState,
        n_steps: int,
        thin: int | None,
        kwargs: Mapping[str, Any],
        progress: bool,
        collector: Collector | None,
        info: bool,
    ) -> RunResult:
        before = self._builds.seconds
        begin = time.perf_counter()
        hyper = hyper_rows(self._transition, state.step, n_steps, self._carry, self.device)
        check_ladders(self._transition, state)
        n_kept = n_steps // thin if thin else 0
        kept_here = n_kept if thin and collector is None else 0
        session = Session(
            self._builds, state, kwargs, info, lambda launch: self._check_memory(state.n_chains, kept_here, launch)
        )

        memory = None
        if thin and collector is None:
            memory = MemoryDraws(state.n_chains, n_kept, self.event_shape, self.dtype, self.device)
        means = exchange = None
        if info:
            told = told_by(self._transition)
            means = InfoMeans(told, state.n_chains, state.step, thin, self.device)
        if isinstance(self._transition, ReplicaExchange):
            exchange = self._exchange(self._transition, session.fields, state, hyper, thin)
        with progress_bar(progress, n_steps, state.n_chains) as report:
            done, n_launches = runloop.advance(
                session.launch,
                session.chains,
                state.n_chains,
                state.step,
                n_steps,
                hyper,
                thin=thin,
                collector=memory if collector is None else collector,
                report=report,
                interludes=[interlude for interlude in (means, exchange) if interlude is not None],
            )
        final = session.final(done)
        build_seconds = self._builds.seconds - before
        _warn_of_range(final)
        stats = _stats(final, done, n_launches, build_seconds, time.perf_counter() - begin - build_seconds, n_steps)
        if means is not None:
            stats = replace(stats, info=means.means(session.chains, final.step), info_draws=means.draws())
        if exchange is not None:
            stats = replace(stats, swap_acceptance=exchange.acceptance(), temperatures=exchange.temperatures())
        return RunResult(final, memory.draws if memory else None, stats)

    def _exchange(
        self,
        transition: ReplicaExchange,
        fields: tuple[str, ...],
        state: ChainState,
        hyper: Callable[[int, int], Tensor],
        thin: int | None,
    ) -> Exchange:
        column = transition.hyper_type._fields.index("inverse_temperature")  # type: ignore[attr-defined]
        return Exchange(
            len(transition.temperatures),
            transition.swap_every,
            state.n_chains,
            fields,
            lambda step: hyper(step - state.step, 1)[0, column],
            state.step,
            thin,
            self.device,
        )

    @torch.inference_mode(False)
    def warmup(
        self,
        state: ChainState,
        n_steps: int,
        *,
        target_acceptance: float | None = None,
        adapt_diagonal: bool = True,
        adapt_trajectory: bool | None = None,
        model_kwargs: Mapping[str, Any] | None = None,
        progress: bool = False,
    ) -> WarmupResult:
        r"""Bring chains to the target while the transition's hyper-parameters adapt to it, across all chains.

        The step size follows the mean acceptance by dual averaging; the diagonal (MALA's preconditioner, HMC's mass)
        is taken from the variances of x over chains and steps, three times; the trajectory of HMC grows for as long
        as ChEES, the mean square of the change of :math:`\|x - \mu\|^2 / 2`, grows with the gradients that it costs.
        Chains that have failed count nowhere. What is found are plain numbers, which :attr:`transition` has from then
        on: sampling afterwards is a function of the seed again. The host waits for the device once a tenth of a
        second and at the end of each of some ten stretches, not at every step.

        Args:
            state: From :meth:`init`; a hundred chains or more say most about the target.
            n_steps: Steps of each chain, >= 20; some hundreds are usual.
            target_acceptance: Mean acceptance, above 0 and below 1. Default: 0.574 for MALA, 0.8 for HMC, 0.4 for
                Barker, 0.234 for RandomWalk.
            adapt_diagonal: Whether to adapt the preconditioner or mass.
            adapt_trajectory: Whether to adapt ``n_leapfrog_steps``. Default: where another length costs no
                compilation, on the backends "fused" and "eager".
            model_kwargs, progress: As in :meth:`run`.

        Returns:
            :class:`WarmupResult`: the chains to go on with, what was found, and its history.

        Raises:
            TypeError, ValueError: Naming the argument, what was expected and what was given; also if all chains fail.

        Example:
            >>> import compiled_ebm as ce
            >>> sampler = ce.build_sampler(ce.HarmonicModel(), ce.MALA(0.01), event_shape=(2,), backend="eager")
            >>> found = sampler.warmup(sampler.init(n_chains=100, seed=0), n_steps=60)
            >>> result = sampler.run(found.state, n_steps=10)
            >>> found.step_size > 0.1
            True
        """
        check_state(state, self.event_shape, self.device, self._carry)
        n_steps, _ = checked_steps(n_steps, None, state.step, False)
        if n_steps < _LEAST_WARMUP:
            raise ValueError(f"n_steps: expected at least {_LEAST_WARMUP} to adapt in, got {n_steps}")
        adaptable(self._transition)
        target = self._transition.target_acceptance if target_acceptance is None else target_acceptance  # type: ignore[attr-defined]
        if isinstance(target, bool) or not isinstance(target, (int, float)):
            raise TypeError(f"target_acceptance: expected a number or None, got {type(target).__name__}")
        if not 0 < target < 1:
            raise ValueError(f"target_acceptance: expected a number above 0 and below 1, got {target}")
        for name, value in (("adapt_diagonal", adapt_diagonal), ("adapt_trajectory", adapt_trajectory)):
            if not isinstance(value, bool) and (value is not None or name == "adapt_diagonal"):
                raise TypeError(f"{name}: expected True or False, got {value!r}")
        kwargs = checked_kwargs(self._model_kwargs if model_kwargs is None else model_kwargs, self.device)
        before = self._transition
        with self._running, torch.autocast(self.device.type, enabled=False):
            try:
                with progress_bar(progress, n_steps, state.n_chains) as report:
                    found = warm_up(
                        before,
                        state,
                        n_steps,
                        partial(self._stretch, kwargs, state.step, report),
                        event_shape=self.event_shape,
                        device=self.device,
                        target=target,
                        diagonal=adapt_diagonal,
                        trajectory=self.backend != "inductor" if adapt_trajectory is None else adapt_trajectory,
                    )
            except BaseException:
                self._adopt(before)
                raise
            self._adopt(found.transition)
        if found.state.n_failed:
            _warn_of_failed(found.state, stacklevel=4)
        if not abs(found.acceptance - target) < _FAR * min(target, 1 - target):
            warnings.warn(
                f"warmup: expected a mean acceptance of {target:.3g}, got {found.acceptance:.3g} in the last quarter "
                f"of {n_steps} steps, at step size {found.step_size:.3g}: take more steps, or begin with another size",
                stacklevel=3,
            )
        return found

    def _stretch(
        self,
        kwargs: Mapping[str, Any],
        begin: int,
        report: Callable[[int], None],
        transition: Transition,
        state: ChainState,
        n_steps: int,
        interludes: Callable[[Session], Sequence[runloop.Interlude]],
        rows: Callable[[Tensor], Tensor],
    ) -> ChainState:
        """Some steps of a warm-up."""
        self._adopt(transition)
        table = hyper_rows(transition, state.step, n_steps, self._carry, self.device)
        session = Session(
            self._builds, state, kwargs, True, lambda launch: self._check_memory(state.n_chains, 0, launch)
        )
        _require_living(session.final(0))
        done, _ = runloop.advance(
            session.launch,
            session.chains,
            state.n_chains,
            state.step,
            n_steps,
            lambda done, count: rows(table(done, count)),
            thin=None,
            collector=None,
            report=lambda done: report(state.step - begin + done),
            interludes=interludes(session),
        )
        if done < n_steps:
            raise KeyboardInterrupt
        return _require_living(session.final(done))

    def build(self, n_chains: int, model_kwargs: Mapping[str, Any] | None = None) -> float:
        """Trace and compile ahead of the first run.

        Args:
            n_chains: How many chains will run.
            model_kwargs: As they will be given to :meth:`run`.

        Returns:
            Seconds that it took; about 0 if it was done before.
        """
        before = self._builds.seconds
        self.run(self.init(n_chains=n_chains), 0, model_kwargs=model_kwargs)
        return self._builds.seconds - before

    def sample(
        self,
        n_steps: int,
        *,
        n_chains: int | None = None,
        x0: Tensor | None = None,
        seed: int = 0,
        thin: int | None = None,
        model_kwargs: Mapping[str, Any] | None = None,
        progress: bool = False,
    ) -> Tensor:
        """``init`` and ``run`` in one: the last positions ``[n_chains, *event]``, or with ``thin`` all kept draws.

        Args:
            n_steps, thin, model_kwargs, progress: As in :meth:`run`.
            n_chains, x0, seed: As in :meth:`init`.
        """
        state = self.init(x0, n_chains=n_chains, seed=seed)
        result = self.run(state, n_steps, thin, model_kwargs=model_kwargs, progress=progress)
        return result.state.x if result.draws is None else result.draws

    @property
    def backend(self) -> str:
        """The backend in use: what ``auto`` chose, or what was asked for."""
        return self._builds.backend

    @property
    def passed_over(self) -> dict[str, str]:
        """Backends that ``auto`` has passed over, and why; empty where one was asked for."""
        return dict(self._builds.passed_over)

    def explain(self) -> str:
        """Which backend and why, what is compiled, how often and how long it was built."""
        return self._builds.explain()

    def built(self, model_kwargs: Mapping[str, Any], n_chains: int) -> tuple[ChainProgram, Launch]:
        """The traced program and its launch, for checked keyword arguments."""
        return self._builds.get(model_kwargs, n_chains)

    @property
    def source(self) -> str:
        """The generated code, readable."""
        return self._builds.source()

    def __repr__(self) -> str:
        return f"Sampler({self._transition}, event_shape={self.event_shape}, dtype={self.dtype}, device={self.device})"


def _warn_of_range(state: ChainState) -> None:
    """Positions are carried in float32 and handed out in the user's dtype, which may not reach as far."""
    if state.dtype.itemsize >= state.positions.dtype.itemsize:
        return
    beyond = int((~finite_rows(state.x)).sum())
    if beyond:
        warnings.warn(
            f"{beyond} of {state.n_chains} chains are beyond the range of {state.dtype} and are handed out as inf: use "
            "dtype=torch.float32 or torch.bfloat16, or clamp",
            NonFiniteChainWarning,
            stacklevel=5,
        )


def _stats(
    state: ChainState, done: int, n_launches: int, build_seconds: float, run_seconds: float, n_steps: int
) -> RunStats:
    n_failed = state.n_failed
    first = int(state.failed_at[state.failed_at >= 0].min()) if n_failed else None
    if n_failed:
        _warn_of_failed(state, stacklevel=6)
    return RunStats(
        state.n_chains, done, n_failed, first, build_seconds, run_seconds, n_launches, interrupted=done < n_steps
    )


def _warn_of_failed(state: ChainState, stacklevel: int) -> None:
    first = int(state.failed_at[state.failed_at >= 0].min())
    warnings.warn(
        f"{state.n_failed} of {state.n_chains} chains reached a position or energy that is not finite, the first at "
        f"step {first}; they stay at their last finite position (state.failed_at tells which and when): "
        "use a smaller step_size, clamp or grad_clip",
        NonFiniteChainWarning,
        stacklevel=stacklevel,
    )


def _require_living(state: ChainState) -> ChainState:
    if state.n_failed == state.n_chains:
        raise ValueError(
            f"state: expected chains that live, got all {state.n_chains} failed by step {state.step}: start them where "
            "the energy is finite"
        )
    return state
