"""The sampler: chains in, chains and draws out."""

from __future__ import annotations

import math
import threading
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from compiled_ebm import rng, runloop
from compiled_ebm.arguments import (
    MAX_STEPS,
    check_state,
    checked_int,
    checked_kwargs,
    checked_positions,
    checked_steps,
    naming_kwargs,
)
from compiled_ebm.backends.base import Chains, Launch
from compiled_ebm.draws.memory import Collector, MemoryDraws
from compiled_ebm.draws.progress import progress_bar
from compiled_ebm.errors import NonFiniteChainWarning
from compiled_ebm.hosttensors import copied, finite_rows, sent
from compiled_ebm.memory import check_fits
from compiled_ebm.state import ChainState, RunResult, RunStats
from compiled_ebm.trace import ALIVE, ChainProgram
from compiled_ebm.transitions.base import Transition

__all__ = ["Builds", "Sampler"]

_TABLE_STEPS = 1 << 22
"""Steps whose hyper-parameters are evaluated before the run starts: 32 MiB a hyper-parameter."""


class Builds(Protocol):
    """What the sampler asks of the builder."""

    def get(self, model_kwargs: Mapping[str, Any], n_chains: int) -> tuple[ChainProgram, Launch]:
        """Program and launch for these keyword arguments, built or rebuilt if need be."""

    def prepare(self, program: ChainProgram, launch: Launch, chains: Chains) -> Launch:
        """Compile for these buffers; may give another launch where ``auto`` finds that the first cannot do it."""

    def checksum(self, program: ChainProgram, chains: Chains) -> tuple[int, ...]:
        """Of everything but x that energy and gradient depend on."""

    def explain(self) -> str:
        """For :meth:`Sampler.explain`."""

    def source(self) -> str:
        """For :attr:`Sampler.source`."""

    @property
    def backend(self) -> str:
        """The backend in use."""

    @property
    def passed_over(self) -> dict[str, str]:
        """Backends that ``auto`` has passed over, and why."""

    @property
    def seconds(self) -> float:
        """Spent building so far."""


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
        if not isinstance(value, Transition) or value.structure() != self._transition.structure():
            raise ValueError(
                f"transition: expected one that differs from {self._transition} in values and schedules only, got "
                f"{value}; build another sampler for another move, clamp or grad_clip"
            )
        self._transition = value

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
                _seed_tensor(seed, self.device),
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
    ) -> RunResult:
        """Advance every chain by ``n_steps``; the state given is not changed.

        Args:
            state: From :meth:`init` or an earlier run.
            n_steps: Steps, >= 0.
            thin: Keep the position after every thin-th step; None keeps the last positions only.
            model_kwargs: For the energy; tensors whose first dimension is the number of chains are per chain.
            progress: Show a bar on stderr (needs rich). It changes no sample.
            collector: Also hand every kept draw to this object (``thin`` says which).

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
        kwargs = checked_kwargs(self._model_kwargs if model_kwargs is None else model_kwargs, self.device)
        with self._running, torch.autocast(self.device.type, enabled=False):  # compute_dtype says it, nothing else
            return self._run(state, n_steps, thin, kwargs, progress, collector)

    def _run(
        self,
        state: ChainState,
        n_steps: int,
        thin: int | None,
        kwargs: Mapping[str, Any],
        progress: bool,
        collector: Collector | None,
    ) -> RunResult:
        before = self._builds.seconds
        begin = time.perf_counter()
        hyper = self._hyper(state.step, n_steps)
        program, launch = self._builds.get(kwargs, state.n_chains)
        n_kept = n_steps // thin if thin else 0
        kept_here = n_kept if thin and collector is None else 0
        self._check_memory(state.n_chains, kept_here, launch)
        chains = self._buffers(program, launch, state, kwargs)
        with naming_kwargs(kwargs, program.kwargs, state.n_chains):
            while (prepared := self._builds.prepare(program, launch, chains)) is not launch:
                launch, chains = prepared, self._buffers(program, prepared, state, kwargs)
            weights = self._builds.checksum(program, chains)
            if state.carried is None or state.weights != weights:
                launch.init(chains, state.step)
                _keep_failed(chains, state)
        launch.begin(chains)

        memory = None
        if thin and collector is None:
            memory = MemoryDraws(state.n_chains, n_kept, self.event_shape, self.dtype, self.device)
        with progress_bar(progress, n_steps, state.n_chains) as report:
            done, n_launches = runloop.advance(
                launch,
                chains,
                state.n_chains,
                state.step,
                n_steps,
                hyper,
                thin=thin,
                collector=memory if collector is None else collector,
                report=report,
            )
        final = self._final_state(state, chains, done, weights)
        build_seconds = self._builds.seconds - before
        _warn_of_range(final)
        stats = _stats(final, done, n_launches, build_seconds, time.perf_counter() - begin - build_seconds, n_steps)
        return RunResult(final, memory.draws if memory else None, stats)

    def _hyper(self, first_step: int, n_steps: int) -> Callable[[int, int], Tensor]:
        """The hyper-parameters of a stretch of the run's steps, ``[count, n_hyper]`` on the device.

        All of them are evaluated (and checked) at once, but for runs so long that the table itself would be large.
        """

        def table(first: int, count: int) -> Tensor:
            exact = np.stack([column.numpy() for column in self._transition.hyper_table(first, count)], axis=1)
            with np.errstate(over="ignore", under="ignore"):
                rounded = exact.astype(np.float64 if self._carry == torch.float64 else np.float32)
            if not (np.isfinite(rounded) & ((rounded == 0) == (exact == 0))).all():
                raise ValueError(
                    f"transition: expected values within the range of {self._carry}, got {exact[0].tolist()} at the "
                    f"first step of {self._transition}; choose larger or smaller ones, or dtype=torch.float64"
                )
            return sent(torch.from_numpy(rounded), self.device)

        if n_steps > _TABLE_STEPS:
            return lambda done, count: table(first_step + done, count)
        whole = table(first_step, n_steps)
        return lambda done, count: whole[done : done + count]

    def _buffers(self, program: ChainProgram, launch: Launch, state: ChainState, kwargs: Mapping[str, Any]) -> Chains:
        """Copies of the state's tensors, padded to the launch's capacity by repeating the first chain."""
        n = state.n_chains
        capacity = launch.capacity(n)

        def padded(tensor: Tensor) -> Tensor:
            if capacity == n:
                return copied(tensor)
            return torch.cat([tensor, tensor[:1].expand(capacity - n, *tensor.shape[1:])])

        if state.carried is None:
            rest = [
                copied(torch.zeros((), dtype=self._carry, device=self.device).expand(capacity, *shape))
                for shape in program.state_shapes[1:]
            ]
        else:
            rest = [padded(leaf) for leaf in state.carried]
        return Chains(
            (padded(state.positions), *rest),
            padded(state.failed_at),
            padded(state.chain_ids),
            _seed_tensor(state.seed, self.device),
            tuple(padded(kwargs[name]) for name in program.kwargs.per_chain),
            tuple(kwargs[name] for name in program.kwargs.shared),
        )

    def _final_state(self, state: ChainState, chains: Chains, done: int, weights: tuple[int, ...]) -> ChainState:
        n = state.n_chains
        x, *carried = (copied(leaf[:n]) for leaf in chains.state)
        return replace(
            state,
            positions=x,
            carried=tuple(carried),
            failed_at=copied(chains.failed_at[:n]),
            step=state.step + done,
            weights=weights,
        )

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


def _keep_failed(chains: Chains, state: ChainState) -> None:
    """A chain that had failed before stays failed since then, whatever its energy is now."""
    n = state.n_chains
    chains.failed_at[:n] = torch.where(state.failed_at >= 0, state.failed_at, chains.failed_at[:n])


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
        warnings.warn(
            f"{n_failed} of {state.n_chains} chains reached a position or energy that is not finite, the first at step "
            f"{first}; they stay at their last finite position (state.failed_at tells which and when): "
            "use a smaller step_size, clamp or grad_clip",
            NonFiniteChainWarning,
            stacklevel=5,
        )
    return RunStats(
        state.n_chains, done, n_failed, first, build_seconds, run_seconds, n_launches, interrupted=done < n_steps
    )


def _seed_tensor(seed: int, device: torch.device) -> Tensor:
    signed = seed - (1 << 64) if seed >= 1 << 63 else seed
    # a fill, where torch.tensor would copy from the host and wait for the device
    return torch.full((), signed, dtype=torch.int64, device=device)
