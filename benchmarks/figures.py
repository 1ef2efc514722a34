"""A list of figures, measured in order within a given time: what cannot be had is said to be left out, and why."""

from __future__ import annotations

import statistics
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from benchmarks.report import write
from benchmarks.timing import Row, measure
from benchmarks.workloads import Workload
from compiled_ebm.errors import BackendUnavailableError, UnsupportedEnergyError
from compiled_ebm.laboratory.timing import Contender

_LEAST_ROUNDS = 3
_SLOW_BUILDS = {"inductor": 40.0}
"""Seconds a figure must have left for these to be built: torch.compile takes 5 to 30."""
_MEASURING_SHARE, _WANTED_SHARE = 0.5, 0.15
"""Of the time that is a figure's, the rest being for building; and of all that is left, for a wanted figure."""


@dataclass(frozen=True)
class Figure:
    """A workload and who runs it."""

    workload: Workload
    contenders: tuple[str, ...]
    section: str = "rows"
    """Where in the report its rows go: those of the README's table are under "rows"."""
    wanted: bool = False
    """All of it is measured, whatever the other figures are left with."""


class _Built:
    """A contender that has been built and has run once."""

    def __init__(self, contender: Contender, clock: Callable[[], float]) -> None:
        self.contender, self.name = contender, contender.name
        self._build_seconds = contender.build()
        begin = clock()
        last = contender.run()
        self.run_seconds = clock() - begin
        if not last.isfinite().all():
            raise FloatingPointError(f"{contender.name}: positions are not finite")

    def build(self) -> float:
        return self._build_seconds

    def run(self) -> Tensor:
        return self.contender.run()


@dataclass
class Session:
    """What measures figures; every step of it can be replaced for a test.

    Args:
        report: Grows by rows, ``left_out`` (texts) and ``errors`` (tracebacks).
        path: The report is written here after every figure.
        deadline: By ``clock``; what has not begun by then is left out.
        rounds: Timed runs of each contender, fewer where the time does not allow them.
        make, missing: As in ``benchmarks.contenders``, with the device filled in.
        timed: Runs a contender once; seconds.
        launch: A row for the launch alone, or None.
    """

    report: dict[str, Any]
    path: Path
    deadline: float
    rounds: int
    make: Callable[[str, Workload], Contender]
    missing: Callable[[str, Workload], str | None]
    timed: Callable[[Contender], float]
    launch: Callable[[Contender, int], Row | None] = lambda contender, rounds: None
    clock: Callable[[], float] = time.perf_counter
    progress: Callable[[str], None] = lambda text: None
    _ahead: int = field(default=0, init=False)

    def run(self, figures: Sequence[Figure]) -> None:
        """All of them, as far as the time goes. An unexpected exception ends its figure alone, and is reported."""
        for key in ("left_out", "errors", *(figure.section for figure in figures)):
            self.report.setdefault(key, [])
        self._ahead = len(figures)
        for figure in figures:
            if self.clock() >= self.deadline:
                self._leave_out(figure.workload.name, "out of time")
            else:
                self._guarded(figure.workload.name, lambda figure=figure: self._measure(figure))  # type: ignore[misc]
            self._ahead -= 1
            self.write()

    def write(self) -> None:
        """The report as it stands; whole or not at all."""
        write(self.path, self.report)

    def _leave_out(self, what: str, why: str) -> None:
        self.report["left_out"].append(f"{what}: {why}")

    def _guarded(self, what: str, work: Callable[[], None]) -> None:
        try:
            work()
        except (BackendUnavailableError, UnsupportedEnergyError) as error:
            self._leave_out(what, str(error))
        except Exception:
            self.report["errors"].append(f"{what}:\n{traceback.format_exc()}")
            self.progress(self.report["errors"][-1])

    def _measure(self, figure: Figure) -> None:
        work, able = figure.workload, list[_Built]()
        left = self.deadline - self.clock()
        share = left / self._ahead

        def build(name: str) -> None:
            self.progress(f"{work.name}: {name} builds")
            able.append(_Built(self.make(name, work), self.clock))

        for name in figure.contenders:
            what = f"{name} on {work.name}"
            reason = self.missing(name, work)
            if reason is None and not figure.wanted and share < _SLOW_BUILDS.get(name, 0.0):
                reason = f"out of time: {share:.0f} s are left for each figure"
            if reason is None:
                self._guarded(what, lambda name=name: build(name))  # type: ignore[misc]
            else:
                self._leave_out(what, reason)
        if not able:
            return
        one_round = sum(built.run_seconds for built in able)
        seconds = max(_MEASURING_SHARE * share, _WANTED_SHARE * left if figure.wanted else 0.0)
        affordable = int(seconds / max(one_round, 1e-6))
        rounds = max(_LEAST_ROUNDS, min(self.rounds, affordable))
        rows = measure(work, able, rounds, progress=self.progress, timed=self.timed)
        for row, built in zip(rows, able, strict=True):
            row["rounds"] = rounds
            row["nanoseconds_per_chain_step"] = 1e9 * row["median"] / work.chain_steps
            self.report[figure.section].append(row)
            self._guarded(f"{row['contender']}'s launch on {work.name}", lambda b=built, r=row: self._add(b, r))  # type: ignore[misc]

    def _add(self, built: _Built, row: Row) -> None:
        found = self.launch(built.contender, row["rounds"])
        if found is not None:
            chain_steps = row["n_chains"] * row["n_steps"]
            row["launch"] = {**found, "nanoseconds_per_chain_step": 1e9 * found["median"] / chain_steps}


def summary(report: dict[str, Any]) -> str:
    """The launches alone, and what scales, as text: one line a figure."""
    lines = []
    sections = [key for key, rows in report.items() if isinstance(rows, list) and rows and isinstance(rows[0], dict)]
    for row in (row for key in sections for row in report[key]):
        alone = row.get("launch")
        launch = "" if alone is None else f", the launch alone {alone['median'] * 1e3:.4g} ms"
        lines.append(
            f"{row['workload']}, {row['n_chains']:,} x {row['n_steps']:,}, {row['contender']}: "
            f"{row['median'] * 1e3:.4g} ms{launch}; {row['nanoseconds_per_chain_step']:.3g} ns a chain-step"
        )
    for contender in dict.fromkeys(row["contender"] for row in report.get("rows", [])):
        ratios = [row["ratio"] for row in report["rows"] if row["contender"] == contender and row["ratio"]]
        if ratios:
            mean = statistics.geometric_mean(ratios)
            lines.append(f"{contender}: {mean:.1f} x TorchEBM's speed, geometric mean of {len(ratios)}")
    return "\n".join(lines)
