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
from collections.abc import Sequence
from pathlib import Path

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
    command = [sys.executable, "-m", "benchmarks.build", "--here", name, "--backend", backend]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.build", description=__doc__)
    parser.add_argument("--workloads", default="mlp-2-64-1,mlp-16-256-256-1", help="names, or 'all' (%(default)s)")
    parser.add_argument("--backend", default="fused", help="of fused inductor eager auto (default %(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="processes of each kind (default 5)")
    parser.add_argument("--here", metavar="WORKLOAD", help="print one measurement of this process, as JSON")
    options = parser.parse_args(argv)
    if options.here:
        print(json.dumps(measure_here(options.here, options.backend)))
        return
    from rich.console import Console
    from rich.table import Table

    from benchmarks.timing import environment
    from benchmarks.workloads import TEN, WORKLOADS

    chosen = [w.name for w in TEN] if options.workloads == "all" else options.workloads.split(",")
    for name in chosen:
        if name not in WORKLOADS:
            parser.error(f"unknown workload {name!r}: choose from {', '.join(WORKLOADS)}")
    here = environment()
    table = Table(
        title=f"Build, {options.backend}: medians of {options.rounds} processes, seconds, least total in brackets"
    )
    for column in ("workload", "cache", *FIGURES):
        table.add_column(column)
    with tempfile.TemporaryDirectory() as folder:
        bytecode = Path(folder) / "bytecode"
        measure_apart(chosen[0], options.backend, Path(folder) / "first", bytecode)
        for name in chosen:
            found: dict[str, list[dict[str, float]]] = {"cold": [], "cached": []}
            for index in range(options.rounds):
                cache = Path(folder) / f"{name}-{index}"
                for kind in found:  # the first process leaves the cache to the second
                    found[kind].append(measure_apart(name, options.backend, cache, bytecode))
            for kind, runs in found.items():
                cells = {figure: f"{statistics.median(run[figure] for run in runs):.3f}" for figure in FIGURES}
                cells["total"] += f" ({min(run['total'] for run in runs):.3f})"
                table.add_row(name, kind, *cells.values())
    versions = ", ".join(f"{package} {version}" for package, version in here["versions"].items() if version)
    console = Console(width=120)
    console.print(
        f"{here['cpu']}, {here['threads']} of {here['cores']} cores, load {os.getloadavg()[0]:.1f}; {versions}"
    )
    console.print(table)


if __name__ == "__main__":
    main()
