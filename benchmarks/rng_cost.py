"""Nanoseconds a normal on CPU: compiled_ebm.rng in a compiled graph, beside torch.randn.

`python -m benchmarks.rng_cost`
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable, Sequence

TOTAL = 1 << 20
EVENTS = (2, 4, 128)


def nanoseconds(draw: Callable[[int], object], rounds: int, repeats: int = 10) -> float:
    """Median over rounds of the time for one normal; `draw(step)` makes TOTAL of them."""
    draw(0)
    times = []
    for index in range(rounds):
        begin = time.perf_counter()
        for repeat in range(repeats):
            draw(index * repeats + repeat)
        times.append((time.perf_counter() - begin) / repeats / TOTAL * 1e9)
    return statistics.median(times)


def subjects(event: int) -> dict[str, Callable[[int], object]]:
    """Ways to make TOTAL normals as `[chains, event]`, compiled for the number of threads set now."""
    import torch
    from torch import Tensor

    from compiled_ebm import rng

    torch.compiler.reset()
    chains = TOTAL // event
    seed, ids = torch.tensor(2026), torch.arange(chains)

    def counter(step: Tensor) -> Tensor:
        return rng.normals(seed, step, ids, event)

    def generator() -> Tensor:
        return torch.randn(chains, event)

    compiled_counter = torch.compile(counter, fullgraph=True, dynamic=False)
    compiled_generator = torch.compile(generator, fullgraph=True, dynamic=False)
    return {
        "compiled_ebm.rng, compiled": lambda step: compiled_counter(torch.tensor(step)),
        "torch.randn, compiled": lambda step: compiled_generator(),
        "torch.randn, eager": lambda step: generator(),
    }


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.rng_cost", description=__doc__)
    parser.add_argument("--rounds", type=int, default=9, help="timed rounds of ten calls (default 9)")
    parser.add_argument("--threads", help="comma-separated numbers of threads (default: 1 and torch's own number)")
    options = parser.parse_args(argv)
    os.environ["TORCHINDUCTOR_COMPILE_THREADS"] = "1"

    import torch
    from rich.console import Console
    from rich.table import Table

    from compiled_ebm.laboratory.machine import environment

    machine = environment()
    console = Console(width=max(Console().width, 110))
    console.print(f"{machine['cpu']}, {machine['cores']} cores, {machine['vector']}; torch {torch.__version__}")
    table = Table(title=f"ns a normal, {TOTAL} normals a call, median of {options.rounds}", title_justify="left")
    for column in ("threads", "numbers a chain"):
        table.add_column(column, justify="right")
    everyone = torch.get_num_threads()
    asked = [int(threads) for threads in options.threads.split(",")] if options.threads else [1, everyone]
    for threads in dict.fromkeys(asked):
        torch.set_num_threads(threads)
        for event in EVENTS:
            ways = subjects(event)
            if len(table.columns) == 2:
                for name in ways:
                    table.add_column(name, justify="right")
            figures = [nanoseconds(way, options.rounds) for way in ways.values()]
            table.add_row(str(threads), str(event), *(f"{figure:.2f}" for figure in figures))
    console.print(table)


if __name__ == "__main__":
    main()
