"""Timing of contenders side by side: build apart, then interleaved rounds, medians, ratios of the same run."""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from benchmarks.workloads import Workload

Row = dict[str, Any]


_PAUSE = 0.05
"""Seconds before every timed run: the thread pools of the contender before go on spinning for a few milliseconds."""


class Contender(Protocol):
    """One way to run a workload. Every `run` starts from the same positions and returns when all steps are done."""

    name: str

    def build(self) -> float:
        """Compile or warm up; seconds."""

    def run(self) -> Tensor:
        """All steps; the last positions, `[n_chains, *event]`."""


def wall_seconds(contender: Contender) -> float:
    """One run by the host's clock; a run returns when it is done."""
    begin = time.perf_counter()
    contender.run()
    return time.perf_counter() - begin


def measure(
    workload: Workload,
    contenders: Sequence[Contender],
    rounds: int = 5,
    baseline: str = "torchebm",
    progress: Callable[[str], None] = lambda message: None,
    timed: Callable[[Contender], float] = wall_seconds,
) -> list[Row]:
    """Time all contenders of one workload, in turn within each round, so that a slow spell of the machine hits all.

    Each contender is built and run once unrecorded first, and waits before each run until no other's threads spin. A
    row has `seconds` (one per round), their median, minimum and maximum, `build_seconds`, and `ratio`: the baseline's
    median over this median, None without the baseline. ``timed`` runs a contender once and gives the seconds it took.

    Raises:
        FloatingPointError: a contender's last positions are not finite.
    """
    build_seconds: dict[str, float] = {}
    seconds: dict[str, list[float]] = {contender.name: [] for contender in contenders}
    for contender in contenders:
        progress(f"{workload.name}: {contender.name} builds")
        build_seconds[contender.name] = contender.build()
        if not contender.run().isfinite().all():
            raise FloatingPointError(f"{contender.name} on {workload.name}: positions are not finite")
    for index in range(rounds):
        for contender in contenders:
            progress(f"{workload.name}: {contender.name}, round {index + 1} of {rounds}")
            time.sleep(_PAUSE)
            seconds[contender.name].append(timed(contender))
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    return [
        {
            "workload": workload.name,
            "contender": name,
            "n_chains": workload.n_chains,
            "n_steps": workload.n_steps,
            "build_seconds": build_seconds[name],
            "seconds": times,
            "median": medians[name],
            "min": min(times),
            "max": max(times),
            "chain_steps_per_second": workload.chain_steps / medians[name],
            "baseline": baseline,
            "ratio": medians[baseline] / medians[name] if baseline in medians else None,
        }
        for name, times in seconds.items()
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
