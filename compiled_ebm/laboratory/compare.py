"""Eager against compiled, and against peers: agreement first, then the law, then speed."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from compiled_ebm.arguments import checked_int
from compiled_ebm.errors import BackendUnavailableError, UnsupportedEnergyError
from compiled_ebm.laboratory.agreement import agreements
from compiled_ebm.laboratory.builds import BuildTimes, build_times
from compiled_ebm.laboratory.contenders import (
    LEAST_CHAINS,
    NAMES,
    OUR_BACKENDS,
    PEERS,
    Competitor,
    Problem,
    SamplerSteps,
    checked_problem,
    contender,
)
from compiled_ebm.laboratory.law import LawComparison, compare_laws, require_scipy
from compiled_ebm.laboratory.machine import environment
from compiled_ebm.laboratory.peaks import machine_peak, peak_bytes
from compiled_ebm.laboratory.report import Comparison, Entry
from compiled_ebm.laboratory.timing import timed_side_by_side, timer_overhead
from compiled_ebm.laboratory.work import step_work
from compiled_ebm.sampler import Sampler
from compiled_ebm.target import Energy
from compiled_ebm.transitions.base import Transition

__all__ = ["compare"]

REFERENCE = "eager"
_BACKENDS = ("fused", "inductor")
_AGAINST = ("plain", "torch.compile", "torchebm", "jax")
_SEEDS = len(NAMES) + 1
_AGREEMENT_STEPS, _AGREEMENT_CHAINS = 20, 2048
_LAW_CHAINS = 20_000
"""Draws that laws are compared by, at most: the tests take longer than the steps beyond."""


def compare(
    energy: Energy,
    transition: Transition,
    n_chains: int,
    n_steps: int,
    *,
    event_shape: tuple[int, ...] | int | None = None,
    backends: Sequence[str] = _BACKENDS,
    against: Sequence[str] = _AGAINST,
    rounds: int = 5,
    device: torch.device | str | None = None,
    dtype: torch.dtype = torch.float32,
    x0: Tensor | None = None,
    seed: int = 0,
    min_speedup: float = 1.0,
    progress: Callable[[str], None] = lambda message: None,
) -> Comparison:
    r"""Compare backends with each other and with peers: whether they agree, whether they sample one law, how fast.

    Agreement: on the same noise, each step from eager's own state, a backend may differ by rounding alone; how far
    runs of their own drift apart is told in units in the last place. Law: last positions of independent chains, by
    Welch's tests and Kolmogorov-Smirnov's against eager's. Speed: build with nothing cached, and with what the first
    build has kept; then rounds in turn, medians and ranges, so that a slow spell of the machine hits everyone.

    Args:
        energy: ``[n, *event] -> [n]``.
        transition: The move.
        n_chains, n_steps: Of each run.
        event_shape: Of one position; by default the energy's ``event_shape``, or that of ``x0``.
        backends: Of ours, beside "eager", which is the specification and always there.
        against: Of "plain" (the loop that one would write), "torch.compile" (that loop compiled), "torchebm", "jax".
            What is not installed, has no form of the move or the energy, or raises is left out; the report says so.
        rounds: How often each is timed, >= 1.
        device: By default where the energy's tensors are.
        dtype: float32 or float64.
        x0: ``[n_chains, *event]``, where chains start; by default draws from N(0, I).
        seed: Of starts and noise; each contender has its own.
        min_speedup: Times eager's speed that each backend of ours has to reach, > 0; less is a problem.
        progress: Is told what happens next.

    Returns:
        A :class:`Comparison`: print it, or see ``to_json``, ``to_markdown``, ``plot`` and ``problems``.

    Raises:
        UnsupportedEnergyError: The energy cannot be sampled at all.
        TypeError, ValueError: An argument is wrong.
        ImportError: Without scipy, which the comparison of laws needs.

    Example:
        >>> import compiled_ebm as ce
        >>> report = ce.compare(ce.DoubleWellModel(), ce.Langevin(0.01), n_chains=100, n_steps=20, event_shape=2,
        ...                     backends=(), against=("plain",), rounds=1)
        >>> [entry.name for entry in report.entries], report.problems()
        (['eager', 'plain'], [])
    """
    require_scipy()
    problem = checked_problem(energy, transition, n_chains, n_steps, event_shape, device, dtype, x0)
    names = _names(backends, against)
    rounds = checked_int("rounds", rounds, 1, 1 << 20)
    if isinstance(min_speedup, bool) or not isinstance(min_speedup, (int, float)) or not 0 < min_speedup < math.inf:
        raise ValueError(f"min_speedup: expected a finite number above 0, got {min_speedup!r}")
    base = checked_int("seed", seed, 0, 1 << 24) * _SEEDS
    progress("the machine's peak")
    peak = machine_peak(problem.device, dtype)
    built = _Built(problem, names, base, progress)
    reference = built.sampler(REFERENCE)
    progress("steps are compared")
    begin = reference.init(problem.start(base)[: problem.whole_ladders(_AGREEMENT_CHAINS)], seed=base)
    samplers = {name: one.sampler for name, one in built.found.items() if isinstance(one, SamplerSteps)}
    agreed = {a.backend: a for a in agreements(samplers, begin, min(n_steps, _AGREEMENT_STEPS), REFERENCE)}
    laws = built.laws()
    timings = timed_side_by_side(
        list(built.found.values()), rounds, progress, built={name: warm for name, (_, warm) in built.builds.items()}
    )
    program, _ = reference.built({}, n_chains)
    entries = [
        Entry(
            name=timing.name,
            backend=samplers[timing.name].backend if timing.name in samplers else timing.name,
            cold_build_seconds=built.builds[timing.name][0],
            build_seconds=timing.build_seconds,
            seconds=timing.seconds,
            peak_bytes=built.memory[timing.name],
            launches_per_step=built.found[timing.name].launches_per_step(),
            agreement=agreed.get(timing.name),
            law=laws.get(timing.name),
            not_finite=built.not_finite[timing.name],
        )
        for timing in timings
    ]
    return Comparison(
        energy=getattr(energy, "__name__", type(energy).__name__),
        transition=str(transition),
        event_shape=problem.event_shape,
        n_chains=n_chains,
        n_steps=n_steps,
        dtype=str(dtype).removeprefix("torch."),
        machine=environment(problem.device),
        rounds=rounds,
        min_speedup=min_speedup,
        work=step_work(program),
        peak=peak,
        timer_seconds=timer_overhead(),
        entries=tuple(entries),
        left_out=built.left_out,
    )


class _Built:
    """The contenders that can be built and run once, and what that showed; those that cannot, and why."""

    def __init__(self, problem: Problem, names: Sequence[str], base: int, progress: Callable[[str], None]) -> None:
        self.found = dict[str, Competitor]()
        self.builds = dict[str, BuildTimes]()
        self.memory = dict[str, int | None]()
        self.not_finite = dict[str, int]()
        self.left_out = dict[str, str]()
        self._draws = dict[str, Tensor]()
        self._problem, self._progress = problem, progress
        for seed, name in enumerate(names, start=base + 1):
            try:
                self._try(name, seed)
            except Exception as error:
                known = isinstance(error, (BackendUnavailableError, UnsupportedEnergyError, MemoryError))
                if name == REFERENCE or not (known or name in PEERS or isinstance(error, torch.OutOfMemoryError)):
                    raise
                self.left_out[name] = str(error) if known else f"{type(error).__name__}: {str(error)[:300]}"

    def _try(self, name: str, seed: int) -> None:
        self._progress(f"{name} builds, with nothing cached and again")
        one, builds = build_times(lambda: contender(name, self._problem, seed))
        self._progress(f"{name} draws")
        drawn = list[Tensor]()
        memory = peak_bytes(lambda: drawn.append(one.draws()), self._problem.device)
        finite = drawn[0].reshape(len(drawn[0]), -1).isfinite().all(1)
        self.found[name], self.builds[name] = one, builds
        # on a GPU JAX's memory is its own, of which torch knows nothing
        self.memory[name] = memory if name != "jax" or self._problem.device.type == "cpu" else None
        self.not_finite[name] = int((~finite).sum())
        self._draws[name] = self._problem.independent(drawn[0])[:_LAW_CHAINS].cpu()

    def sampler(self, name: str) -> Sampler:
        one = self.found[name]
        assert isinstance(one, SamplerSteps)
        return one.sampler

    def laws(self) -> dict[str, LawComparison]:
        """Of each contender's draws against the specification's; none shares noise with another."""
        self._progress("laws are compared")
        found = {}
        wanted = _finite(self._draws[REFERENCE])
        for name, drawn in self._draws.items():
            alive = _finite(drawn)
            if name != REFERENCE and min(len(alive), len(wanted)) >= LEAST_CHAINS:
                found[name] = compare_laws(alive, wanted)
        return found


def _finite(x: Tensor) -> Tensor:
    return x[x.reshape(len(x), -1).isfinite().all(1)]


def _names(backends: Sequence[str], against: Sequence[str]) -> list[str]:
    """The specification first, each once."""
    for argument, given, known in (("backends", backends, OUR_BACKENDS), ("against", against, PEERS)):
        if isinstance(given, str):
            raise TypeError(f"{argument}: expected a sequence of names, got the text {given!r}; write ({given!r},)")
        if not isinstance(given, Sequence):
            raise TypeError(f"{argument}: expected a sequence of names, got {type(given).__name__}; () is none")
        for name in given:
            if name not in known:
                raise ValueError(f"{argument}: expected of {', '.join(known)}, got {name!r}")
    return list(dict.fromkeys((REFERENCE, *backends, *against)))
