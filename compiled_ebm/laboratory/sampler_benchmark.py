"""What the pytest fixture ``sampler_benchmark`` does: it times a sampler under pytest-benchmark, and checks it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor

from compiled_ebm.arguments import checked_int
from compiled_ebm.errors import BackendUnavailableError, UnsupportedEnergyError
from compiled_ebm.laboratory.agreement import agreements
from compiled_ebm.laboratory.contenders import NAMES, OUR_BACKENDS, Problem, SamplerSteps, checked_problem, contender
from compiled_ebm.laboratory.timing import Contender, timed_side_by_side
from compiled_ebm.laboratory.work import gradients_of
from compiled_ebm.state import RunResult
from compiled_ebm.target import Energy
from compiled_ebm.transitions.base import Transition

__all__ = ["SamplerBenchmark"]

REFERENCE = "eager"
_TIMED = "timed"
"""Its own name may be that of what it is compared with."""
_STEPS, _CHAINS = 5, 64
"""Of the check that a backend does the same steps as eager."""


class SamplerBenchmark:
    """What the fixture ``sampler_benchmark`` gives: call it once in a test.

    .. code-block:: python

        def test_speed(sampler_benchmark):
            sampler_benchmark(energy, ce.Langevin(0.01), n_chains=10_000, n_steps=100, min_speedup_vs="eager")
    """

    def __init__(self, benchmark: Any) -> None:
        self._benchmark = benchmark

    def __call__(
        self,
        energy: Energy,
        transition: Transition,
        n_chains: int,
        n_steps: int,
        *,
        event_shape: tuple[int, ...] | int | None = None,
        backend: str = "auto",
        min_speedup_vs: str | Mapping[str, float] | None = None,
        rounds: int = 5,
        device: torch.device | str | None = None,
        dtype: torch.dtype = torch.float32,
        x0: Tensor | None = None,
        seed: int = 0,
    ) -> RunResult:
        """Check the sampler's first steps against eager, then time its runs.

        Building is apart, and each timed run waits for the device. ``extra_info`` of the benchmark has the build and
        the figures that follow from the median, so that ``--benchmark-compare`` compares them too.

        Args:
            energy, transition, n_chains, n_steps, event_shape, device, dtype, x0: As for :func:`compiled_ebm.compare`.
            backend: "auto", "fused", "inductor" or "eager".
            min_speedup_vs: The name of another contender that has to be no faster, or how many times slower each of
                several has to be: ``{"eager": 20, "jax": 2}``. Rounds of both take turns.
            rounds: Timed runs, >= 1.
            seed: Of start and noise.

        Returns:
            The last run's result.

        Raises:
            AssertionError: Its steps are not eager's, or it is slower than it has to be.
            TypeError, ValueError: An argument is wrong.
        """
        problem = checked_problem(energy, transition, n_chains, n_steps, event_shape, device, dtype, x0)
        if backend not in OUR_BACKENDS:
            raise ValueError(f"backend: expected one of {', '.join(OUR_BACKENDS)}, got {backend!r}")
        seed = checked_int("seed", seed, 0, (1 << 31) - 1)
        floors = _floors(min_speedup_vs)
        rounds = checked_int("rounds", rounds, 1, 1 << 20)
        others = {name: _other(name, problem, seed + 1) for name in floors}
        timed = contender(backend, problem, seed)
        assert isinstance(timed, SamplerSteps)
        build_seconds = timed.build()
        timed.name = _TIMED
        info = self._benchmark.extra_info
        info |= {
            "backend": timed.sampler.backend,
            "transition": str(transition),
            "event_shape": list(problem.event_shape),
            "n_chains": n_chains,
            "n_steps": n_steps,
            "dtype": str(dtype).removeprefix("torch."),
            "device": str(problem.device),
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
            "build_seconds": build_seconds,
            "drift_ulp": self._agree(problem, timed, seed),
        }
        result: RunResult = self._benchmark.pedantic(timed.result, rounds=rounds, warmup_rounds=1)
        if self._benchmark.stats is not None:  # with --benchmark-disable nothing is timed
            median = self._benchmark.stats.stats.median
            rate = n_chains * n_steps / median
            info |= {
                "seconds_per_step": median / n_steps,
                "chain_steps_per_second": rate,
                "gradients_per_second": rate * gradients_of(transition, problem.event_shape),
            }
            self._check_speed(timed, others, floors, rounds)
        return result

    def _agree(self, problem: Problem, timed: SamplerSteps, seed: int) -> float:
        """Units in the last place after a few steps, from eager's; fails the test where it is more than rounding."""
        samplers = {REFERENCE: problem.sampler(REFERENCE), _TIMED: timed.sampler}
        begin = samplers[REFERENCE].init(problem.start(seed)[: problem.whole_ladders(_CHAINS)], seed=seed)
        [found] = agreements(samplers, begin, min(problem.n_steps, _STEPS), REFERENCE)
        if found.departure is not None:
            pytest.fail(f"{timed.sampler.backend} leaves eager {found.departure}", pytrace=False)
        return found.drift[-1]

    def _check_speed(
        self, timed: SamplerSteps, others: Mapping[str, Contender], floors: Mapping[str, float], rounds: int
    ) -> None:
        for name, floor in floors.items():
            one = others[name]
            # a peer whose chains diverge is timed all the same
            built = {one.name: one.build(), timed.name: 0.0}
            one.run()
            other, ours = timed_side_by_side([one, timed], rounds, built=built)
            speedup = other.median / ours.median
            self._benchmark.extra_info[f"speedup_vs_{name}"] = speedup
            if speedup < floor:
                pytest.fail(
                    f"{timed.sampler.backend} is {speedup:.3g} times as fast as {name}, expected at least {floor:g} "
                    f"(medians of {rounds} rounds in turn: {ours.median:.4g} s, {other.median:.4g} s)",
                    pytrace=False,
                )


def _other(name: str, problem: Problem, seed: int) -> Contender:
    try:
        return contender(name, problem, seed)
    except (BackendUnavailableError, UnsupportedEnergyError) as error:
        raise type(error)(f"min_speedup_vs: {name}: {error}") from error


def _floors(given: object) -> dict[str, float]:
    wanted = {given: 1.0} if isinstance(given, str) else {} if given is None else given
    if not isinstance(wanted, Mapping):
        raise TypeError(f"min_speedup_vs: expected a name, or a mapping of names to numbers, got {given!r}")
    for name, floor in wanted.items():
        if name not in NAMES:
            raise ValueError(f"min_speedup_vs: expected of {', '.join(NAMES)}, got {name!r}")
        if isinstance(floor, bool) or not isinstance(floor, (int, float)) or not 0 < floor < math.inf:
            raise ValueError(f"min_speedup_vs: expected a finite number above 0 for {name!r}, got {floor!r}")
    return dict(wanted)
