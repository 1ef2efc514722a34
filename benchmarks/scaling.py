"""How cost grows with chains and with the dimension: `python -m benchmarks.scaling --threads 2 --json scaling.json`.

Langevin on the double well: 1 to 10^7 chains in 2-d, and 1 to 10^4 dimensions with 10^6 elements over all chains. A run
is timed whole; each contender takes as many steps as fill about a second. An exponent is the slope of log seconds
against log size, by least squares over the last two decades of sizes, where fixed costs a step no longer count.
"""

from __future__ import annotations

import argparse
import math
import os
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.cpu import limit_cpus

if TYPE_CHECKING:
    from benchmarks.workloads import Workload

Row = dict[str, Any]

CHAINS = tuple(10**k for k in range(8))
DIMENSIONS = tuple(10**k for k in range(5))
ELEMENTS = 10**6
"""Chains times dimension, while the dimension grows."""
_QUICK_CHAINS, _QUICK_DIMENSIONS, _QUICK_ELEMENTS = (1, 30, 1000), (1, 10, 100), 1000
_SECONDS, _QUICK_SECONDS = 1.0, 0.001
_STEPS = (3, 100_000)
"""No fewer, whatever they cost; and no more, since all have outgrown by then what a run costs once. At 10^7 chains that
is as much as several of the fused kernel's steps."""
_COSTS = {
    "torchebm": (2e-4, 3e-8),
    "jax": (4e-7, 1e-8),
    "eager": (8e-4, 3e-7),
    "inductor": (6e-5, 2e-8),
    "fused": (5e-8, 1e-9),
}
"""Seconds of a step, and of each element in it, as seen on two cores: they choose the number of steps, nothing else."""
_MOST_ELEMENTS = {"eager": 2 * 10**6}
"""eager's noise is made of 64-bit integers, op by op: 10^7 chains would take 6 seconds a step."""
_DECADES = 2


def exponent(sizes: Sequence[float], seconds: Sequence[float]) -> float | None:
    """The slope of log seconds against log size, by least squares over the last two decades of sizes.

    None where they hold fewer than two sizes.
    """
    upper = [(math.log(n), math.log(s)) for n, s in zip(sizes, seconds, strict=True) if n * 10**_DECADES >= max(sizes)]
    if len({x for x, _ in upper}) < 2:
        return None
    return statistics.linear_regression(*zip(*upper, strict=True)).slope


def size_and_seconds(row: Row) -> tuple[float, float]:
    """Where a row lies on its curve: (chains, seconds a step) or (dimension, seconds a chain and step)."""
    step = row["median"] / row["n_steps"]
    if row.get("over", "chains") == "chains":
        return row["n_chains"], step
    return row["dimension"], step / row["n_chains"]


def curves(rows: Iterable[Row], over: str) -> dict[str, list[tuple[float, float]]]:
    """contender -> its (size, seconds), by size."""
    found: dict[str, list[tuple[float, float]]] = {}
    for row in rows:
        if row.get("over", "chains") == over:
            found.setdefault(row["contender"], []).append(size_and_seconds(row))
    return {contender: sorted(points) for contender, points in found.items()}


def exponents(rows: Sequence[Row]) -> list[Row]:
    """One for each contender over chains, and over the dimension."""
    return [
        {"over": over, "contender": contender, "exponent": exponent(*zip(*points, strict=True))}
        for over in ("chains", "dimension")
        for contender, points in curves(rows, over).items()
    ]


def steps(contender: str, elements: int, seconds: float) -> int:
    """How many fill about so many seconds, to one digit."""
    fixed, each = _COSTS[contender]
    wanted = seconds / (fixed + each * elements)
    digit = 10.0 ** math.floor(math.log10(wanted))
    return int(min(max(wanted // digit * digit, _STEPS[0]), _STEPS[1]))


def sizes(quick: bool = False) -> list[tuple[str, Workload]]:
    """(what grows, the workload at one size), without its steps."""
    from benchmarks.workloads import WORKLOADS

    wells = WORKLOADS["double-well"]
    chains, dimensions, elements = (
        (_QUICK_CHAINS, _QUICK_DIMENSIONS, _QUICK_ELEMENTS) if quick else (CHAINS, DIMENSIONS, ELEMENTS)
    )
    return [
        *(("chains", replace(wells, event_shape=(2,), n_chains=n)) for n in chains),
        *(("dimension", replace(wells, event_shape=(d,), n_chains=elements // d)) for d in dimensions),
    ]


def measure_size(
    over: str, workload: Workload, names: Sequence[str], rounds: int, seconds: float, progress: Callable[[str], None]
) -> list[Row]:
    """Time all contenders at one size, side by side; a row each."""
    from benchmarks.contenders import contender
    from compiled_ebm.laboratory.timing import timed_side_by_side

    elements = workload.n_chains * math.prod(workload.event_shape)
    able = [name for name in names if elements <= _MOST_ELEMENTS.get(name, elements)]
    works = {name: replace(workload, n_steps=steps(name, elements, seconds)) for name in able}
    size = f"{workload.n_chains:,} chains of dimension {math.prod(workload.event_shape):,}"
    timings = timed_side_by_side(
        [contender(name, works[name]) for name in able], rounds, lambda text: progress(f"{size}: {text}")
    )
    return [
        {
            "over": over,
            "workload": workload.name,
            "contender": timing.name,
            "dimension": math.prod(workload.event_shape),
            "n_chains": workload.n_chains,
            "n_steps": works[timing.name].n_steps,
            "build_seconds": timing.build_seconds,
            "seconds": list(timing.seconds),
            "median": timing.median,
            "min": min(timing.seconds),
            "max": max(timing.seconds),
            "nanoseconds_per_chain_step": 1e9 * timing.median / works[timing.name].chain_steps,
        }
        for timing in timings
    ]


def measure_all(options: argparse.Namespace) -> Row:
    """Time every size; after each one the JSON file, if asked for, holds what there is."""
    import torch
    from rich.console import Console

    from benchmarks import report as files
    from benchmarks.contenders import missing
    from compiled_ebm.laboratory.machine import environment

    if options.threads:
        torch.set_num_threads(options.threads)
    names = [name for name in options.contenders.split(",") if name]
    for name in names:
        if name not in _COSTS:
            options.error(f"unknown contender {name!r}: choose from {', '.join(_COSTS)}")
    report: Row = {**environment(), "rounds": options.rounds, "scaling": [], "exponents": [], "left_out": []}
    wanted = sizes(options.quick)
    able = []
    for name in names:
        reason = missing(name, wanted[0][1])
        able += [] if reason else [name]
        report["left_out"] += [f"{name}, scaling: {reason}"] if reason else []
    most = max(work.n_chains * math.prod(work.event_shape) for _, work in wanted)
    beyond = {name: limit for name, limit in _MOST_ELEMENTS.items() if name in able and limit < most}
    report["left_out"] += [f"{name}, beyond {limit:,} elements: a step takes seconds" for name, limit in beyond.items()]
    seconds = _QUICK_SECONDS if options.quick else _SECONDS
    with Console(stderr=True).status("") as status:
        for over, workload in wanted:
            report["scaling"] += measure_size(over, workload, able, options.rounds, seconds, status.update)
            report["exponents"] = exponents(report["scaling"])
            if options.json:
                files.write(options.json, report)
    return report


def show(report: Row) -> None:
    """Print nanoseconds a chain-step, by size, and exponents."""
    from rich.console import Console
    from rich.table import Table

    console = Console(width=max(Console().width, 110))
    versions = ", ".join(f"{name} {version}" for name, version in report["versions"].items() if version)
    console.print(f"{report['cpu']}, {report['threads']} of {report['cores']} cores, {report['vector']}; {versions}")
    names = list(dict.fromkeys(row["contender"] for row in report["scaling"]))
    table = Table(
        title=f"Langevin on the double well: nanoseconds a chain-step, medians of {report['rounds']}",
        title_justify="left",
    )
    for column in ("grows", "chains", "dimension", *names):
        table.add_column(column, justify="right")
    for over in ("chains", "dimension"):
        found: dict[tuple[int, int], dict[str, float]] = {}
        for row in report["scaling"]:
            if row["over"] == over:
                cells = found.setdefault((row["n_chains"], row["dimension"]), {})
                cells[row["contender"]] = row["nanoseconds_per_chain_step"]
        for (n_chains, dimension), cells in found.items():
            row_cells = (f"{cells[name]:,.3g}" if name in cells else "–" for name in names)
            table.add_row(over, f"{n_chains:,}", f"{dimension:,}", *row_cells)
        slopes = {row["contender"]: row["exponent"] for row in report["exponents"] if row["over"] == over}
        cells_of_slopes = ("–" if slopes.get(name) is None else f"{slopes[name]:.2f}" for name in names)
        table.add_row("exponent", "", "", *cells_of_slopes, end_section=True)
    console.print(table)
    console.print("Exponents: of seconds a step in chains, of seconds a chain-step in the dimension; last two decades.")
    for line in report["left_out"]:
        console.print(f"left out: {line}")


def arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scaling", description=__doc__)
    parser.add_argument("--json", type=Path, help="write machine, versions, rows and exponents to this file")
    parser.add_argument("--rounds", type=int, default=5, help="timed runs of each contender (default %(default)s)")
    parser.add_argument("--contenders", help=f"comma-separated, of {' '.join(_COSTS)} (default: all)")
    parser.add_argument("--threads", type=int, help="CPUs for every contender (default: all that this process may use)")
    parser.add_argument("--quick", action="store_true", help="a few small sizes, to see that it runs")
    options = parser.parse_args(argv)
    for name in ("rounds", "threads"):
        if getattr(options, name) is not None and getattr(options, name) < 1:
            parser.error(f"--{name} must be at least 1")
    if options.contenders is None:
        options.contenders = "torchebm,jax,fused" if options.quick else ",".join(_COSTS)
    options.error = parser.error
    return options


def main(argv: Sequence[str] | None = None) -> None:
    options = arguments(argv)
    # Inductor's worker pool goes on starting for tens of seconds after a compile and would share the timed cores.
    os.environ["TORCHINDUCTOR_COMPILE_THREADS"] = "1"
    if options.threads:
        limit_cpus(options.threads)
    show(measure_all(options))


if __name__ == "__main__":
    main()
