"""Who does the same steps, by name: our backends, the loop that one would write, and the peers."""

from __future__ import annotations

import math
import os
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Protocol

import torch
from torch import Tensor

from compiled_ebm import captures
from compiled_ebm.arguments import checked_int, checked_positions, checked_shape, resolve_device
from compiled_ebm.builder import BACKENDS, build_sampler
from compiled_ebm.errors import BackendUnavailableError, NonFiniteChainWarning, UnsupportedEnergyError
from compiled_ebm.laboratory import loops
from compiled_ebm.laboratory.dispatch import operations_per_step
from compiled_ebm.laboratory.shapes import event_shape_of
from compiled_ebm.laboratory.timing import Contender, wait_for
from compiled_ebm.sampler import Sampler
from compiled_ebm.state import RunResult
from compiled_ebm.target import Energy
from compiled_ebm.transitions.base import Transition
from compiled_ebm.transitions.replica_exchange import ReplicaExchange

__all__ = [
    "LEAST_CHAINS",
    "NAMES",
    "OUR_BACKENDS",
    "PEERS",
    "Competitor",
    "Problem",
    "SamplerSteps",
    "checked_problem",
    "contender",
    "rungs_of",
]

OUR_BACKENDS = (*BACKENDS, "auto")
PEERS = ("plain", "torch.compile", "torchebm", "jax")
NAMES = (*OUR_BACKENDS, *PEERS)
LEAST_CHAINS = 8
"""Fewer draws tell nothing of a law."""
_NOISE = 0x2545F491
"""Added to a seed, or torch's generator would give the start again as the first noise; it reads 32 bits on a CPU."""
_TRIED = 64
"""Chains, and steps, after which JAX's gradient is compared: where a bound or a corner is, there it may differ."""
_PACKAGES = ("torchebm", "jax")


@dataclass(frozen=True)
class Problem:
    """What every contender does.

    Args:
        energy: ``[n, *event] -> [n]``.
        transition: The move.
        event_shape: Of one position.
        n_chains, n_steps: How many.
        device: Where.
        dtype: Of the positions and of all arithmetic: float32 or float64.
        x0: ``[n_chains, *event]``, where all start; by default draws from N(0, I), other ones for each seed.
    """

    energy: Energy
    transition: Transition
    event_shape: tuple[int, ...]
    n_chains: int
    n_steps: int
    device: torch.device
    dtype: torch.dtype = torch.float32
    x0: Tensor | None = field(default=None, repr=False)

    def sampler(self, backend: str) -> Sampler:
        """One of ours."""
        return build_sampler(
            self.energy, self.transition, self.event_shape, backend=backend, device=self.device, dtype=self.dtype
        )

    def whole_ladders(self, most: int) -> int:
        """Chains, at most so many or one ladder, that replica exchange takes; as many without it."""
        rungs = rungs_of(self.transition)
        return max(rungs, min(self.n_chains, most) // rungs * rungs)

    def independent(self, x: Tensor) -> Tensor:
        """Of ``[n_chains, *event]`` the first chain of each ladder; all of them without replica exchange."""
        return x[:: rungs_of(self.transition)]

    def start(self, seed: int) -> Tensor:
        """Where the chains start."""
        if self.x0 is not None:
            return self.x0.to(self.device, self.dtype)
        generator = torch.Generator().manual_seed(seed)
        return torch.randn((self.n_chains, *self.event_shape), generator=generator).to(self.device, self.dtype)


def rungs_of(transition: Transition) -> int:
    """Chains that swap with each other; 1 without replica exchange."""
    return len(transition.temperatures) if isinstance(transition, ReplicaExchange) else 1


def checked_problem(
    energy: Energy,
    transition: Transition,
    n_chains: int,
    n_steps: int,
    event_shape: tuple[int, ...] | int | None,
    device: torch.device | str | None,
    dtype: torch.dtype,
    x0: Tensor | None,
) -> Problem:
    """Arguments checked as far as they can be before anything is built.

    Args:
        event_shape: By default that of ``x0``, or what the energy tells.

    Raises:
        TypeError, ValueError: Naming the argument, what was expected and what was given.
    """
    if not callable(energy):
        raise TypeError(f"energy: expected a callable [n, *event] -> [n], got {type(energy).__name__}")
    if not isinstance(transition, Transition) or isinstance(transition, type):
        raise TypeError(f"transition: expected a transition such as ce.Langevin(step_size=0.01), got {transition!r}")
    if dtype not in (torch.float32, torch.float64):
        raise ValueError(f"dtype: expected torch.float32 or torch.float64, which all contenders have, got {dtype}")
    rungs = rungs_of(transition)
    n_chains = checked_int("n_chains", n_chains, LEAST_CHAINS * rungs, 1 << 40)
    if n_chains % rungs:
        raise ValueError(f"n_chains: expected a multiple of {rungs}, the temperatures of a ladder, got {n_chains}")
    n_steps = checked_int("n_steps", n_steps, 1, 1 << 32)
    where = resolve_device(device, captures.find_slots(energy))
    if event_shape is not None:
        shape = checked_shape(event_shape)
    else:
        shape = tuple(x0.shape[1:]) if isinstance(x0, Tensor) else event_shape_of(energy)
    if x0 is not None:
        x0 = checked_positions(x0, shape, where, dtype)
        if len(x0) != n_chains:
            raise ValueError(f"x0: expected {n_chains} rows, as n_chains says, got {len(x0)}")
    return Problem(energy, transition, shape, n_chains, n_steps, where, dtype, x0)


class Competitor(Contender, Protocol):
    """A contender that also tells how often it calls."""

    def launches_per_step(self) -> float:
        """Calls into compiled code, or operations that Python hands over."""

    def draws(self) -> Tensor:
        """All steps from the start; the last positions, NaN where a chain has failed."""


class SamplerSteps:
    """One of our backends. ``build`` traces and compiles, ``run`` launches."""

    def __init__(self, problem: Problem, backend: str, seed: int) -> None:
        self.name, self._backend, self._problem, self._seed = backend, backend, problem, seed
        self._x0 = problem.start(seed)
        self._sampler: Sampler | None = None
        self._launches = 0

    @property
    def sampler(self) -> Sampler:
        """Once it is built."""
        if self._sampler is None:
            raise RuntimeError("SamplerSteps: call build() first")
        return self._sampler

    def build(self) -> float:
        """From the energy to a compiled sampler; seconds."""
        begin = time.perf_counter()
        self._sampler = self._problem.sampler(self._backend)
        self._sampler.build(self._problem.n_chains)
        return time.perf_counter() - begin

    def run(self) -> Tensor:
        """All steps from the start; the last positions."""
        return self.result().state.x

    def draws(self) -> Tensor:
        """All steps from the start; the last positions, NaN where a chain has failed."""
        state = self.result().state
        failed = (state.failed_at >= 0).reshape(-1, *(1,) * (state.x.ndim - 1))
        return state.x.masked_fill(failed, math.nan)

    def result(self) -> RunResult:
        """All steps from the start, waited for."""
        result = self._steps(self._problem.n_steps)
        wait_for(self._problem.device)
        self._launches = result.stats.n_launches
        return result

    def launches_per_step(self) -> float:
        """Calls into compiled code; of eager, operations that Python hands over."""
        if self.sampler.backend == "eager":
            return operations_per_step(self._steps)
        return (self._launches or self.result().stats.n_launches) / self._problem.n_steps

    def _steps(self, n_steps: int) -> RunResult:
        return self.sampler.run(self.sampler.init(self._x0, seed=self._seed), n_steps)


def contender(name: str, problem: Problem, seed: int) -> Competitor:
    """The contender of that name, not built yet; its start is of ``seed``, its noise of another.

    Raises:
        BackendUnavailableError: It cannot run here; says why.
        UnsupportedEnergyError: It has no form of the energy or the transition; says of what.
        ValueError: There is no such contender.
    """
    if name in OUR_BACKENDS:
        if name != "auto" and (reason := BACKENDS[name].why_unavailable(problem.device)):
            raise BackendUnavailableError(reason)
        return SamplerSteps(problem, name, seed)
    if name not in PEERS:
        raise ValueError(f"contender: expected one of {', '.join(NAMES)}, got {name!r}")
    if name in _PACKAGES and find_spec(name) is None:
        raise BackendUnavailableError(f"{name} is not installed: pip install {name}")
    if name == "jax":
        return _jax(problem, seed)
    why, make = _LOOPS[name]
    reason = why(problem.transition)
    if reason is not None:
        raise UnsupportedEnergyError(reason)
    return make(problem.energy, problem.transition, problem.start(seed), problem.n_steps, seed + _NOISE)


_LOOPS: dict[str, tuple[Callable[[Transition], str | None], Callable[..., Competitor]]] = {
    "plain": (loops.why_no_loop, loops.plain_loop),
    "torch.compile": (loops.why_no_loop, loops.compiled_loop),
    "torchebm": (loops.why_no_torchebm, loops.torchebm_loop),
}


def _jax(problem: Problem, seed: int) -> Competitor:
    if isinstance(problem.transition, ReplicaExchange):
        raise UnsupportedEnergyError("its step is of one chain, and the swaps of ReplicaExchange are between chains")
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # or it takes most of the card at its first use
    import jax

    if problem.device.type == "cuda" and not any(place.platform == "gpu" for place in jax.devices()):
        raise BackendUnavailableError("jax is installed without its GPU part")
    from compiled_ebm.laboratory.jax_steps import JaxSteps

    sampler = problem.sampler("eager")
    program, _ = sampler.built({}, problem.n_chains)
    start = problem.start(seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NonFiniteChainWarning)
        later = sampler.run(sampler.init(start[:_TRIED], seed=seed), min(problem.n_steps, _TRIED)).state.x
    return JaxSteps(problem.energy, program, start, problem.n_steps, seed + _NOISE, also=later)
