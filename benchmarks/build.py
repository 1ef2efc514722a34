"""Seconds from `import torch` to a compiled sampler, each in a fresh process: `python -m benchmarks.build`.

Cold: with an empty cache of kernels. Cached: a second process. Beside the seconds stands the processor time that this
process and the compiler took, which is what to compare on a machine that has other work.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.cpu import limit_cpus

Row = dict[str, Any]

FIGURES = ("import", "trace", "compile", "total", "processor")


def measure_here(name: str, backend: str) -> dict[str, float]:
    """Import the library, build the workload's sampler and compile it, in this process, which has not done so yet."""
    import torch  # noqa: F401  (not part of the time)

    from benchmarks.workloads import WORKLOADS

    workload = WORKLOADS[name]
    energy = workload.energy_factory()
    spent, moments = os.times(), [time.perf_counter()]
    import compiled_ebm as ce

    moments.append(time.perf_counter())
    sampler = ce.build_sampler(energy, ce.Langevin(workload.step_size), workload.event_shape, backend=backend)
    moments.append(time.perf_counter())
    sampler.build(workload.n_chains)
    moments.append(time.perf_counter())
    processor = sum(os.times()[:4]) - sum(spent[:4])
    parts = [after - before for before, after in zip(moments, moments[1:], strict=False)]
    return dict(zip(FIGURES, (*parts, moments[-1] - moments[0], processor), strict=True))


def measure_apart(name: str, backend: str, cache: Path, bytecode: Path) -> dict[str, float]:
    """:func:`measure_here` in a process of its own, with modules in bytecode as an installed package has them."""
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    environment |= {"COMPILED_EBM_CACHE": str(cache), "PYTHONPYCACHEPREFIX": str(bytecode)}
    environment |= {"TORCHINDUCTOR_CACHE_DIR": str(cache / "inductor")}
    command = [sys.executable, "-m", "benchmarks.build", "--here", name, "--backend", backend]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def measure_all(
    names: Sequence[str], backends: Sequence[str], rounds: int, progress: Callable[[str], None] = lambda text: None
) -> list[Row]:
    """One row for each backend, workload and state of the cache: medians of the processes, and all their totals."""
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        bytecode = Path(folder) / "bytecode"
        for backend in backends:
            progress(f"{backend}: bytecode of the library")
            measure_apart(names[0], backend, Path(folder) / f"{backend}-first", bytecode)
            for name in names:
                found: dict[str, list[dict[str, float]]] = {"cold": [], "cached": []}
                for index in range(rounds):
                    cache = Path(folder) / f"{backend}-{name}-{index}"
                    for kind in found:  # the first process leaves the cache to the second
                        progress(f"{name}, {backend}: {kind}, round {index + 1} of {rounds}")
                        found[kind].append(measure_apart(name, backend, cache, bytecode))
                for kind, runs in found.items():
                    row: Row = {"workload": name, "backend": backend, "cache": kind}
                    row |= {figure: statistics.median(run[figure] for run in runs) for figure in FIGURES}
                    rows.append(row | {"totals": [run["total"] for run in runs]})
    return rows


def show(report: Row) -> None:
    """Print the table."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"Build: medians of {report['rounds']} processes, seconds, least total in brackets")
    for column in ("workload", "backend", "cache", *FIGURES):
        table.add_column(column)
    for row in report["build"]:
        cells = {figure: f"{row[figure]:.3f}" for figure in FIGURES}
        cells["total"] += f" ({min(row['totals']):.3f})"
        table.add_row(row["workload"], row["backend"], row["cache"], *cells.values())
    versions = ", ".join(f"{package} {version}" for package, version in report["versions"].items() if version)
    console = Console(width=120)
    console.print(
        f"{report['cpu']}, {report['threads']} of {report['cores']} cores, load {os.getloadavg()[0]:.1f}; {versions}"
    )
    console.print(table)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.build", description=__doc__)
    parser.add_argument("--json", type=Path, help="write machine, versions and rows to this file")
    parser.add_argument("--workloads", default="mlp-2-64-1,mlp-16-256-256-1", help="names, or 'all' (%(default)s)")
    parser.add_argument("--backend", default="fused", help="of fused inductor eager auto (default %(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="processes of each kind (default 5)")
    parser.add_argument("--threads", type=int, help="CPUs for every process (default: all that this one may use)")
    parser.add_argument("--quick", action="store_true", help="one workload, to see that it runs")
    parser.add_argument("--here", metavar="WORKLOAD", help="print one measurement of this process, as JSON")
    options = parser.parse_args(argv)
    if options.here:
        print(json.dumps(measure_here(options.here, options.backend)))
        return
    for name in ("rounds", "threads"):
        if getattr(options, name) is not None and getattr(options, name) < 1:
            parser.error(f"--{name} must be at least 1")
    if options.threads:
        limit_cpus(options.threads)
    import torch
    from rich.console import Console

    from benchmarks.report import write
    from benchmarks.workloads import TEN, WORKLOADS
    from compiled_ebm.laboratory.machine import environment

    if options.threads:
        torch.set_num_threads(options.threads)
    chosen = [w.name for w in TEN] if options.workloads == "all" else options.workloads.split(",")
    for name in chosen:
        if name not in WORKLOADS:
            parser.error(f"unknown workload {name!r}: choose from {', '.join(WORKLOADS)}")
    report: Row = {**environment(), "rounds": options.rounds, "build": []}
    with Console(stderr=True).status("") as status:
        names = chosen[:1] if options.quick else chosen
        report["build"] = measure_all(names, options.backend.split(","), options.rounds, status.update)
    if options.json:
        write(options.json, report)
    show(report)


if __name__ == "__main__":
    main()
