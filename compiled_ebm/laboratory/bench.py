"""How long building and running take, energy by energy, with one backend."""

from __future__ import annotations

import os
import statistics
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from rich.text import Text

from compiled_ebm.arguments import checked_int
from compiled_ebm.json_files import as_json
from compiled_ebm.laboratory.builds import build_times
from compiled_ebm.laboratory.contenders import Competitor, SamplerSteps, checked_problem, contender
from compiled_ebm.laboratory.machine import environment
from compiled_ebm.laboratory.peaks import peak_bytes
from compiled_ebm.laboratory.printed import Printed, where
from compiled_ebm.laboratory.timing import timed_side_by_side
from compiled_ebm.laboratory.work import gradients_of
from compiled_ebm.target import Energy
from compiled_ebm.transitions.base import Transition

__all__ = ["Bench", "Row", "bench"]


@dataclass(frozen=True)
class Row:
    """One energy.

    Args:
        energy, event_shape, backend: What ran.
        cold_build_seconds, warm_build_seconds: With nothing cached, and with what the first has kept.
        seconds: Of each round.
        chain_steps_per_second, gradients_per_second: By their median.
        peak_bytes: Of a run, beyond those before; None where the system does not tell.
    """

    energy: str
    event_shape: tuple[int, ...]
    backend: str
    cold_build_seconds: float
    warm_build_seconds: float
    seconds: tuple[float, ...]
    chain_steps_per_second: float
    gradients_per_second: float
    peak_bytes: int | None


@dataclass(frozen=True)
class Bench(Printed):
    """The result; printed, it is a table.

    Args:
        transition, n_chains, n_steps, dtype, rounds: What was run.
        machine: Device, processor, threads and versions.
        rows: One for each energy.
    """

    transition: str
    n_chains: int
    n_steps: int
    dtype: str
    machine: dict[str, Any]
    rounds: int
    rows: tuple[Row, ...]

    def to_json(self, path: str | os.PathLike[str] | None = None) -> str:
        """Everything, as JSON; also into a file, whole or not at all."""
        report = asdict(self)
        for row in report["rows"]:
            row["median"] = statistics.median(row["seconds"])
        return as_json(report, path)

    def __rich_console__(self, console: Console, options: Any) -> Any:
        """As rich prints it."""
        yield Text(
            f"{self.transition}: {self.n_chains:,} chains × {self.n_steps:,} steps, {self.dtype}, "
            f"{where(self.machine)}; medians of {self.rounds} rounds in turn",
            style="bold",
        )
        table = Table()
        for index, name in enumerate(
            ("energy", "shape", "backend", "build cold, warm s", "ms a run", "least", "most", "chain-steps/s", "MB")
        ):
            table.add_column(name, justify="left" if index < 3 else "right", no_wrap=True)
        for row in self.rows:
            times = (f"{1e3 * f(row.seconds):.4g}" for f in (statistics.median, min, max))
            memory = "–" if row.peak_bytes is None else f"{max(0, row.peak_bytes) / 1e6:,.1f}"
            table.add_row(
                row.energy,
                "×".join(map(str, row.event_shape)) or "scalar",
                row.backend,
                f"{row.cold_build_seconds:.2f}, {row.warm_build_seconds:.2f}",
                *times,
                f"{row.chain_steps_per_second:.3g}",
                memory,
            )
        yield table


def bench(
    energies: Mapping[str, tuple[Energy, tuple[int, ...]]],
    transition: Transition,
    n_chains: int,
    n_steps: int,
    *,
    backend: str = "auto",
    device: torch.device | str | None = None,
    dtype: torch.dtype = torch.float32,
    rounds: int = 5,
    progress: Callable[[str], None] = lambda message: None,
) -> Bench:
    """Build each energy twice, then time all of them in turn.

    Args:
        energies: By name, each with the shape of one position.
        transition, n_chains, n_steps, device, dtype, rounds, progress: As for :func:`compiled_ebm.compare`.
        backend: "auto", "fused", "inductor" or "eager".

    Raises:
        UnsupportedEnergyError, BackendUnavailableError: An energy cannot be sampled here.
        TypeError, ValueError: An argument is wrong.
    """
    rounds = checked_int("rounds", rounds, 1, 1 << 20)
    if not energies:
        raise ValueError("energies: expected at least one, got none")
    found, builds = dict[str, Competitor](), dict[str, tuple[float, float]]()
    shapes = {}
    for name, (energy, shape) in energies.items():
        problem = checked_problem(energy, transition, n_chains, n_steps, shape, device, dtype, None)
        progress(f"{name} builds, with nothing cached and again")
        found[name], builds[name] = build_times(lambda p=problem: contender(backend, p, seed=0))  # type: ignore[misc]
        found[name].name = name  # all have the same backend
        shapes[name] = problem.event_shape
    memory = {name: peak_bytes(one.run, problem.device) for name, one in found.items()}
    timings = timed_side_by_side(list(found.values()), rounds, progress, built={n: b[1] for n, b in builds.items()})
    rows = []
    for timing in timings:
        one, rate = found[timing.name], n_chains * n_steps / timing.median
        assert isinstance(one, SamplerSteps)
        rows.append(
            Row(
                timing.name,
                shapes[timing.name],
                one.sampler.backend,
                *builds[timing.name],
                timing.seconds,
                rate,
                rate * gradients_of(transition, shapes[timing.name]),
                memory[timing.name],
            )
        )
    return Bench(
        transition=str(transition),
        n_chains=n_chains,
        n_steps=n_steps,
        dtype=str(dtype).removeprefix("torch."),
        machine=environment(problem.device),
        rounds=rounds,
        rows=tuple(rows),
    )
