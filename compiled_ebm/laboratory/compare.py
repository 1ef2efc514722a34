"""Eager against compiled, and against peers: agreement first, then the law, then speed."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from compiled_ebm.arguments import checked_int
from compiled_ebm.errors import BackendUnavailableError, UnsupportedEnergyError
from compiled_ebm.laboratory.agreement import agreements
from compiled_ebm.laboratory.builds import build_times
from compiled_ebm.laboratory.contenders import OUR_BACKENDS, PEERS, Competitor, SamplerSteps, checked_problem, contender
from compiled_ebm.laboratory.law import LawComparison, compare_laws
from compiled_ebm.laboratory.peaks import machine_peak, peak_bytes
from compiled_ebm.laboratory.report import Comparison, Entry
from compiled_ebm.laboratory.timing import timed_side_by_side, timer_overhead
from compiled_ebm.laboratory.work import step_work
from compiled_ebm.target import Energy
from compiled_ebm.transitions.base import Transition

__all__ = ["compare"]

REFERENCE = "eager"
_BACKENDS = ("fused", "inductor")
_AGAINST = ("plain", "torch.compile", "torchebm", "jax")
_AGREEMENT_STEPS, _AGREEMENT_CHAINS = 20, 256
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
            What is not installed, or has no form of the move, is left out, and the report says so.
        rounds: How often each is timed, >= 1.
        device: By default where the energy's tensors are.
        dtype: float32 or float64.
        x0: ``[n_chains, *event]``, where chains start; by default draws from N(0, I).
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
    problem = checked_problem(energy, transition, n_chains, n_steps, event_shape, device, dtype, x0)
    names = _names(backends, against)
    rounds = checked_int("rounds", rounds, 1, 1 << 20)
    left_out = dict[str, str]()
    found, builds = dict[str, Competitor](), dict[str, tuple[float, float]]()
    for seed, name in enumerate(names, start=1):
        progress(f"{name} builds, with nothing cached and again")
        try:
            found[name], builds[name] = build_times(lambda n=name, s=seed: contender(n, problem, s))  # type: ignore[misc]
        except (BackendUnavailableError, UnsupportedEnergyError) as error:
            if name == REFERENCE:
                raise
            left_out[name] = str(error)
    progress("steps are compared")
    samplers = {name: c.sampler for name, c in found.items() if isinstance(c, SamplerSteps)}
    few = problem.start(0)[:_AGREEMENT_CHAINS]
    begin = samplers[REFERENCE].init(few, seed=0)
    agreed = {a.backend: a for a in agreements(samplers, begin, min(n_steps, _AGREEMENT_STEPS), REFERENCE)}
    laws = _laws(found, progress)
    memory = {}
    for name, one in found.items():
        progress(f"{name}: memory")
        memory[name] = peak_bytes(one.run, problem.device)
    timings = timed_side_by_side(list(found.values()), rounds, progress, built={n: b[1] for n, b in builds.items()})
    program, _ = samplers[REFERENCE].built({}, n_chains)
    entries = [
        Entry(
            name=timing.name,
            cold_build_seconds=builds[timing.name][0],
            build_seconds=timing.build_seconds,
            seconds=timing.seconds,
            peak_bytes=memory[timing.name],
            launches_per_step=found[timing.name].launches_per_step(),
            agreement=agreed.get(timing.name),
            law=laws.get(timing.name),
        )
        for timing in timings
    ]
    return Comparison(
        energy=getattr(energy, "__name__", type(energy).__name__),
        transition=str(transition),
        event_shape=problem.event_shape,
        n_chains=n_chains,
        n_steps=n_steps,
        device=_described(problem.device),
        dtype=str(dtype).removeprefix("torch."),
        threads=torch.get_num_threads(),
        rounds=rounds,
        work=step_work(program),
        peak=machine_peak(problem.device, dtype),
        timer_seconds=timer_overhead(),
        entries=tuple(entries),
        left_out=left_out,
    )


def _names(backends: Sequence[str], against: Sequence[str]) -> list[str]:
    """The specification first, each once."""
    for argument, given, known in (("backends", backends, OUR_BACKENDS), ("against", against, PEERS)):
        if isinstance(given, str):
            raise TypeError(f"{argument}: expected a sequence of names, got the text {given!r}; write ({given!r},)")
        for name in given:
            if name not in known:
                raise ValueError(f"{argument}: expected of {', '.join(known)}, got {name!r}")
    return list(dict.fromkeys((REFERENCE, *backends, *against)))


def _laws(found: dict[str, Competitor], progress: Callable[[str], None]) -> dict[str, LawComparison]:
    """Of each contender's draws against the specification's; none shares noise with another."""
    draws = {}
    for name, one in found.items():
        progress(f"{name} draws")
        draws[name] = one.run()[:_LAW_CHAINS].cpu()
    wanted = draws.pop(REFERENCE)
    progress("laws are compared")
    return {name: compare_laws(drawn, wanted) for name, drawn in draws.items()}


def _described(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
