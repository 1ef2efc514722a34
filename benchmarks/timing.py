"""Timing of contenders side by side: build apart, then interleaved rounds, medians, ratios of the same run."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

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


def environment(device: str = "cpu") -> Row:
    """The machine and the versions that a figure belongs to."""
    return {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "device": torch.cuda.get_device_name(device) if device.startswith("cuda") else "cpu",
        "cpu": cpu_model(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "vector": torch.backends.cpu.get_cpu_capability(),
        "python": platform.python_version(),
        "versions": {name: package_version(name) for name in ("compiled_ebm", "torch", "torchebm", "jax", "numpy")},
    }


def cpu_model() -> str:
    """The processor's name, with what else tells two of the same name apart."""
    table = Path("/proc/cpuinfo")
    if not table.exists():
        return platform.processor() or platform.machine()
    first = table.read_text().split("\n\n")[0]
    fields = dict(line.partition(":")[::2] for line in first.splitlines())
    named = {key.strip(): value.strip() for key, value in fields.items()}
    if "model name" not in named:
        return platform.machine()
    return f"{named['model name']} (family {named.get('cpu family', '?')}, model {named.get('model', '?')})"


def package_version(package: str) -> str | None:
    """The installed version of a package, None without it."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None
