"""Timing of contenders side by side: build apart, then interleaved rounds, medians, ratios of the same run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from benchmarks.workloads import Workload
from compiled_ebm.laboratory.timing import Contender, timed_side_by_side, wall_seconds

Row = dict[str, Any]


def measure(
    workload: Workload,
    contenders: Sequence[Contender],
    rounds: int = 5,
    baseline: str = "torchebm",
    progress: Callable[[str], None] = lambda message: None,
    timed: Callable[[Contender], float] = wall_seconds,
) -> list[Row]:
    """Time all contenders of one workload, side by side.

    A row has `seconds` (one per round), their median, minimum and maximum, `build_seconds`, and `ratio`: the baseline's
    median over this median, None without the baseline. ``timed`` runs a contender once and gives the seconds it took.

    Raises:
        FloatingPointError: a contender's last positions are not finite.
    """
    timings = timed_side_by_side(contenders, rounds, lambda text: progress(f"{workload.name}: {text}"), timed)
    medians = {timing.name: timing.median for timing in timings}
    return [
        {
            "workload": workload.name,
            "contender": timing.name,
            "n_chains": workload.n_chains,
            "n_steps": workload.n_steps,
            "build_seconds": timing.build_seconds,
            "seconds": list(timing.seconds),
            "median": timing.median,
            "min": min(timing.seconds),
            "max": max(timing.seconds),
            "chain_steps_per_second": workload.chain_steps / timing.median,
            "baseline": baseline,
            "ratio": medians[baseline] / timing.median if baseline in medians else None,
        }
        for timing in timings
    ]


def ratios(rows: Iterable[Row], contender: str, baseline: str) -> dict[str, float]:
    """workload -> how many times faster `contender` is than `baseline`, where both were timed."""
    medians = {(row["workload"], row["contender"]): row["median"] for row in rows}
    return {
        workload: medians[workload, baseline] / median
        for (workload, name), median in medians.items()
        if name == contender and (workload, baseline) in medians
    }
