"""The side-by-side table on CPU: `python -m benchmarks.cpu --threads 2 --json cpu.json`."""

from __future__ import annotations

import argparse
import os
import statistics
from collections.abc import Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

_CONTENDERS = "torchebm,torchebm-model,plain,jax,jax-traced,inductor,fused"
_QUICK_WORKLOADS, _QUICK_CONTENDERS = "double-well,mixture", "torchebm,plain,jax,fused"
_QUICK_CHAINS, _QUICK_STEPS = 64, 5


def arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cpu", description=__doc__)
    parser.add_argument("--json", type=Path, help="write machine, versions and rows to this file")
    parser.add_argument("--rounds", type=int, default=5, help="timed runs of each contender (default 5)")
    parser.add_argument(
        "--workloads", default="", help="comma-separated names (default: the ten; also conv, attention)"
    )
    parser.add_argument(
        "--contenders",
        help="comma-separated, of torchebm torchebm-model plain jax jax-traced eager inductor fused auto "
        f"(default {_CONTENDERS})",
    )
    parser.add_argument("--threads", type=int, help="CPUs for every contender (default: all that this process may use)")
    parser.add_argument("--quick", action="store_true", help="few chains, few steps, to see that it runs")
    options = parser.parse_args(argv)
    for name in ("rounds", "threads"):
        if getattr(options, name) is not None and getattr(options, name) < 1:
            parser.error(f"--{name} must be at least 1")
    if options.quick:
        options.workloads = options.workloads or _QUICK_WORKLOADS
    options.contenders = options.contenders or (_QUICK_CONTENDERS if options.quick else _CONTENDERS)
    options.error = parser.error
    return options


def limit_cpus(threads: int) -> None:
    """Pin the process to `threads` CPUs, since jax's pool has no other limit. Before torch and jax are imported."""
    if not hasattr(os, "sched_setaffinity"):
        raise SystemExit("--threads needs a system with CPU affinity (Linux), or jax would use every core")
    allowed = sorted(os.sched_getaffinity(0))
    if threads > len(allowed):
        raise SystemExit(f"--threads {threads}: this process may use {len(allowed)} CPUs")
    os.sched_setaffinity(0, allowed[-threads:])


def measure_all(options: argparse.Namespace) -> dict[str, Any]:
    """Time every workload; after each one the JSON file, if asked for, holds what there is."""
    import torch
    from rich.console import Console

    from benchmarks import contenders
    from benchmarks import report as files
    from benchmarks.timing import measure
    from benchmarks.workloads import TEN, WORKLOADS
    from compiled_ebm.laboratory.machine import environment

    if options.threads:
        torch.set_num_threads(options.threads)
    names = [name for name in options.contenders.split(",") if name]
    chosen = [name for name in options.workloads.split(",") if name] or [workload.name for workload in TEN]
    for kind, given, known in (("contender", names, contenders.NAMES), ("workload", chosen, tuple(WORKLOADS))):
        for name in given:
            if name not in known:
                options.error(f"unknown {kind} {name!r}: choose from {', '.join(known)}")
    console = Console(stderr=True)
    report: dict[str, Any] = {**environment(), "rounds": options.rounds, "rows": [], "left_out": []}
    with console.status("") as status:
        for name in chosen:
            workload = WORKLOADS[name]
            if options.quick:
                workload = replace(workload, n_chains=_QUICK_CHAINS, n_steps=_QUICK_STEPS)
            able = []
            for contender in names:
                reason = contenders.missing(contender, workload)
                if reason is None:
                    able.append(contenders.contender(contender, workload))
                elif find_spec(contenders.REQUIRES.get(contender, "torch")) is None:
                    console.print(f"[yellow]{contender} left out: {reason}")
                    report["left_out"].append(f"{contender} on {name}: {reason}")
            report["rows"] += measure(workload, able, options.rounds, progress=status.update)
            if options.json:
                files.write(options.json, report)
    return report


def show(report: dict[str, Any]) -> None:
    """Print the tables: medians with the ratio to TorchEBM, geometric means, build seconds."""
    from rich.console import Console
    from rich.table import Table

    from benchmarks.timing import ratios

    rows = {(row["workload"], row["contender"]): row for row in report["rows"]}
    workloads, names = (list(dict.fromkeys(key[i] for key in rows)) for i in (0, 1))
    console = Console(width=max(Console().width, 30 + 26 * len(names)))
    versions = ", ".join(f"{name} {version}" for name, version in report["versions"].items() if version)
    console.print(f"{report['cpu']}, {report['threads']} of {report['cores']} cores, {report['vector']}; {versions}")

    table = Table(
        title=f"Langevin: seconds a run (median of {report['rounds']}), and how many times TorchEBM's speed",
        title_justify="left",
    )
    table.add_column("workload")
    for name in names:
        table.add_column(name, justify="right")
    for workload in workloads:
        cells = []
        for name in names:
            row = rows.get((workload, name))
            if row is None:
                cells.append("–")
                continue
            ratio = "" if row["ratio"] is None else f"{row['ratio']:8.2f}×"
            cells.append(f"{row['median']:.4f}{ratio}")
        table.add_row(workload, *cells)
    for baseline in ("torchebm", "jax", "jax-traced"):
        if baseline not in names:
            continue
        table.add_section()
        means, worsts = [], []
        for name in names:
            found = ratios(report["rows"], name, baseline)
            covered = f" of {len(found)}" if len(found) < len(workloads) else ""
            means.append(f"{statistics.geometric_mean(found.values()):.2f}×{covered}" if found else "–")
            worst = min(found, key=found.__getitem__) if found else ""
            worsts.append(f"{found[worst]:.2f}× {worst}" if found else "–")
        table.add_row(f"geometric mean ÷ {baseline}", *means)
        table.add_row(f"worst ÷ {baseline}", *worsts)
    console.print(table)

    builds = Table(title="Build seconds (a warm-up where nothing is compiled)", title_justify="left")
    builds.add_column("workload")
    for name in names:
        builds.add_column(name, justify="right")
    for workload in workloads:
        found_rows = [rows.get((workload, name)) for name in names]
        builds.add_row(workload, *("–" if row is None else f"{row['build_seconds']:.2f}" for row in found_rows))
    console.print(builds)


def main(argv: Sequence[str] | None = None) -> None:
    options = arguments(argv)
    # Inductor's worker pool goes on starting for tens of seconds after a compile and would share the timed cores.
    os.environ["TORCHINDUCTOR_COMPILE_THREADS"] = "1"
    if options.threads:
        limit_cpus(options.threads)
    show(measure_all(options))


if __name__ == "__main__":
    main()
