"""How many chains, and how many steps a run, to take: throughput over both, its knee, and the memory."""

from __future__ import annotations

import math
import os
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from textwrap import fill
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from rich.text import Text

from compiled_ebm import captures
from compiled_ebm.arguments import MAX_STEPS, checked_int, checked_shape, resolve_device
from compiled_ebm.builder import build_sampler
from compiled_ebm.draws.plot import check_plot
from compiled_ebm.draws.save import atomic_path
from compiled_ebm.json_files import as_json
from compiled_ebm.laboratory.contenders import rungs_of
from compiled_ebm.laboratory.machine import environment
from compiled_ebm.laboratory.peaks import peak_bytes
from compiled_ebm.laboratory.printed import Printed, where
from compiled_ebm.laboratory.shapes import event_shape_of
from compiled_ebm.laboratory.timing import wait_for
from compiled_ebm.sampler import Sampler
from compiled_ebm.state import ChainState
from compiled_ebm.target import Energy
from compiled_ebm.transitions.base import Transition

__all__ = ["Point", "Tuning", "tune"]

CHAINS = (64, 256, 1024, 4096, 16384, 65536, 262144, 1048576)
STEPS = (1, 10, 100, 1000)
DTYPES = (torch.float32, torch.float64)
_KNEE = 0.9
"""Of the best throughput: what comes after it is bought with chains, or steps, that bring nothing more."""
_UNTIMED = 3
"""Runs of a setting beside those that are timed: the first, one to learn how long it takes, one for the memory."""
_BAR = 24


@dataclass(frozen=True)
class Point:
    """One setting.

    Args:
        dtype: Of the positions.
        n_chains, n_steps: Of each run.
        seconds: Of a run, the median of all rounds.
        peak_bytes: Of the chains and their run, at most; None where the system does not tell.
    """

    dtype: str
    n_chains: int
    n_steps: int
    seconds: float
    peak_bytes: int | None

    @property
    def chain_steps_per_second(self) -> float:
        """Throughput."""
        return self.n_chains * self.n_steps / self.seconds


@dataclass(frozen=True)
class Tuning(Printed):
    """The result of :func:`compiled_ebm.tune`; printed, it is the curves and a suggestion.

    Args:
        energy, transition, event_shape, backend: What was run.
        machine: Device, processor, threads and versions.
        points: All that was measured, by dtype, steps and chains.
        left_out: Settings that were not, and why.
    """

    energy: str
    transition: str
    event_shape: tuple[int, ...]
    backend: str
    machine: dict[str, Any]
    points: tuple[Point, ...]
    left_out: tuple[str, ...]

    def curve(self, dtype: str, n_steps: int) -> list[Point]:
        """The points of one dtype and one number of steps, chains going up."""
        found = [point for point in self.points if (point.dtype, point.n_steps) == (dtype, n_steps)]
        return sorted(found, key=lambda point: point.n_chains)

    def knee(self, dtype: str, n_steps: int) -> Point:
        """The fewest chains that reach nine tenths of the curve's best throughput."""
        curve = self.curve(dtype, n_steps)
        enough = _KNEE * max(point.chain_steps_per_second for point in curve)
        return next(point for point in curve if point.chain_steps_per_second >= enough)

    def suggestion(self, dtype: str | None = None) -> Point:
        """Of a dtype, by default the fastest: the knee over chains of runs that are long enough, and then the fewest
        steps that still reach nine tenths of its throughput."""
        if dtype is None:
            dtype = max(self.points, key=lambda point: point.chain_steps_per_second).dtype
        best = max((p for p in self.points if p.dtype == dtype), key=lambda point: point.chain_steps_per_second)
        knee = self.knee(dtype, best.n_steps)
        same = sorted(
            (p for p in self.points if (p.dtype, p.n_chains) == (dtype, knee.n_chains)), key=lambda p: p.n_steps
        )
        return next(p for p in same if p.chain_steps_per_second >= _KNEE * knee.chain_steps_per_second)

    def to_json(self, path: str | os.PathLike[str] | None = None) -> str:
        """Everything, as JSON; also into a file, whole or not at all."""
        report: dict[str, Any] = asdict(self)
        for row, point in zip(report["points"], self.points, strict=True):
            row["chain_steps_per_second"] = point.chain_steps_per_second
        report["suggestion"] = asdict(self.suggestion())
        return as_json(report, path)

    def plot(self, path: str | os.PathLike[str]) -> None:
        """Throughput over chains, a curve for each number of steps, knees marked, and the memory; a panel a dtype.

        Raises:
            ImportError: matplotlib is not installed.
            ValueError: The file cannot be written.
        """
        check_plot(path)
        from matplotlib.figure import Figure

        dtypes, steps = self._settings()
        figure = Figure(figsize=(5 * len(dtypes), 6), layout="constrained")
        grid = figure.subplots(2, len(dtypes), squeeze=False, sharex=True, sharey="row", height_ratios=(2, 1))
        for dtype, panel, below in zip(dtypes, *grid, strict=True):
            for n_steps in steps:
                curve = self.curve(dtype, n_steps)
                if not curve:
                    continue
                chains = [point.n_chains for point in curve]
                rates = [point.chain_steps_per_second for point in curve]
                [line] = panel.plot(chains, rates, "o-", ms=3, label=f"{n_steps:,}", gid=f"{dtype}, {n_steps} steps")
                knee = self.knee(dtype, n_steps)
                panel.plot(knee.n_chains, knee.chain_steps_per_second, "s", ms=8, mfc="none", color=line.get_color())
                memory = [(point.n_chains, point.peak_bytes / 1e6) for point in curve if point.peak_bytes]
                if memory:
                    below.plot(*zip(*memory, strict=True), "o-", ms=3, color=line.get_color())
            panel.set(xscale="log", yscale="log", title=dtype)
            panel.legend(title="steps a run", frameon=False, fontsize=8)
            below.set(yscale="log", xlabel="chains")
        grid[0][0].set_ylabel("chain-steps a second; squares: knees")
        grid[1][0].set_ylabel("memory, MB")
        figure.suptitle(fill(self._title(), 50 * len(dtypes)), fontsize=10)
        with atomic_path(Path(path)) as unfinished:
            figure.savefig(unfinished, format=Path(path).suffix[1:], dpi=150)

    def __rich_console__(self, console: Console, options: Any) -> Any:
        """As rich prints it."""
        dtypes, _ = self._settings()
        yield Text(self._title(), style="bold")
        for dtype in dtypes:
            yield self._drawn(dtype)
        for dtype in dtypes:
            chosen = self.suggestion(dtype)
            yield Text(
                f"{dtype}: take {chosen.n_chains:,} chains and {chosen.n_steps:,} steps a run, or more: "
                f"{chosen.chain_steps_per_second:.3g} chain-steps a second"
            )
        yield from (Text(f"left out: {reason}") for reason in self.left_out)

    def _drawn(self, dtype: str) -> Table:
        """A row for each number of chains: throughputs, and a bar and the memory of the longest run."""
        steps = [k for k in self._settings()[1] if self.curve(dtype, k)]
        found = {(p.n_chains, p.n_steps): p for p in self.points if p.dtype == dtype}
        knees = {(knee.n_chains, k) for k in steps if (knee := self.knee(dtype, k))}
        best = max(point.chain_steps_per_second for point in self.points)
        table = Table(title=f"{dtype}: chain-steps a second, by steps a run; * the knee", title_justify="left")
        table.add_column("chains", justify="right", no_wrap=True)
        for k in steps:
            table.add_column(f"{k:,}", justify="right", no_wrap=True)
        table.add_column("the longest run", no_wrap=True)
        table.add_column("ms", justify="right", no_wrap=True)
        table.add_column("MB", justify="right", no_wrap=True)
        for n in sorted({n for n, _ in found}):
            row = [found.get((n, k)) for k in steps]
            cells = [
                "–" if p is None else f"{p.chain_steps_per_second:.3g}{'*' if (n, k) in knees else ' '}"
                for p, k in zip(row, steps, strict=True)
            ]
            longest = [p for p in row if p is not None][-1]
            bar = "█" * max(1, round(_BAR * longest.chain_steps_per_second / best))
            memory = "–" if longest.peak_bytes is None else f"{max(0, longest.peak_bytes) / 1e6:,.1f}"
            table.add_row(f"{n:,}", *cells, bar, f"{1e3 * longest.seconds:.3g}", memory)
        return table

    def _title(self) -> str:
        shape = "×".join(map(str, self.event_shape)) or "scalar"
        return f"{self.energy} ({shape}), {self.transition}, {self.backend}, {where(self.machine)}"

    def _settings(self) -> tuple[list[str], list[int]]:
        dtypes = list(dict.fromkeys(point.dtype for point in self.points))
        return dtypes, sorted({point.n_steps for point in self.points})


def tune(
    energy: Energy,
    transition: Transition,
    *,
    event_shape: tuple[int, ...] | int | None = None,
    n_chains: Sequence[int] = CHAINS,
    n_steps: Sequence[int] = STEPS,
    dtypes: Sequence[torch.dtype] = DTYPES,
    backend: str = "auto",
    device: torch.device | str | None = None,
    rounds: int = 3,
    seconds: float = 60.0,
    progress: Callable[[str], None] = lambda message: None,
) -> Tuning:
    """Measure throughput over chains, steps a run and dtype, and find where more brings nothing more.

    The rounds of all settings of a dtype take turns. What would not end in its share of the time, by what fewer chains
    took, or does not fit in memory, is left out, and the result says so.

    Args:
        energy, transition, event_shape, backend, device: As for :func:`compiled_ebm.compare`.
        n_chains, n_steps: Numbers to try, each >= 1; of chains, rounded up to whole ladders of replica exchange.
        dtypes: To try, of float32, float64, float16, bfloat16.
        rounds: How often each setting is timed, >= 1.
        seconds: For everything but building, about.
        progress: Is told what happens next.

    Returns:
        A :class:`Tuning`; print it, or see ``suggestion``, ``knee``, ``to_json`` and ``plot``.

    Raises:
        UnsupportedEnergyError, BackendUnavailableError: It cannot be sampled here.
        TypeError, ValueError: An argument is wrong.

    Example:
        >>> import compiled_ebm as ce
        >>> found = ce.tune(ce.DoubleWellModel(), ce.Langevin(0.01), event_shape=2, backend="eager",
        ...                 n_chains=(8, 64), n_steps=(5,), dtypes=(torch.float32,), rounds=1)
        >>> found.suggestion().n_chains
        64
    """
    chains, steps = _numbers("n_chains", n_chains, 1 << 40), _numbers("n_steps", n_steps, MAX_STEPS - 1)
    if not isinstance(dtypes, Sequence) or not dtypes:
        raise TypeError(f"dtypes: expected a sequence of at least one dtype, got {dtypes!r}; write (torch.float32,)")
    rungs = rungs_of(transition)
    chains = sorted({-(-n // rungs) * rungs for n in chains})
    rounds = checked_int("rounds", rounds, 1, 1 << 20)
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not 0 < seconds < math.inf:
        raise ValueError(f"seconds: expected a finite number above 0, got {seconds!r}")
    where = resolve_device(device, captures.find_slots(energy)) if callable(energy) else None
    shape = event_shape_of(energy) if event_shape is None and callable(energy) else checked_shape(event_shape)
    points, left_out = list[Point](), list[str]()
    # a curve's runs grow fourfold or so, so that all before the longest take a third of it
    share = 0.75 * seconds / (len(dtypes) * len(steps) * (rounds + _UNTIMED))
    for dtype in dict.fromkeys(dtypes):
        name = str(dtype).removeprefix("torch.")
        progress(f"{name} builds")
        sampler = build_sampler(energy, transition, shape, backend=backend, device=where, dtype=dtype)
        runs, refused = _able(sampler, name, chains, steps, share, progress)
        left_out += refused
        times: dict[tuple[int, int], list[float]] = {setting: [] for setting in runs}
        for index in range(rounds):
            progress(f"{name}, round {index + 1} of {rounds}")
            for setting, run in runs.items():
                times[setting].append(_timed(run))
        memory = {(n, k): _memory(sampler, n, k) for n, k in runs}
        points += [Point(name, n, k, statistics.median(t), memory[n, k]) for (n, k), t in times.items()]
    if not points:
        raise ValueError(f"seconds: expected enough for one setting, got {seconds}; {'; '.join(left_out)}")
    return Tuning(
        energy=getattr(energy, "__name__", type(energy).__name__),
        transition=str(transition),
        event_shape=shape,
        backend=sampler.backend,
        machine=environment(sampler.device),
        points=tuple(points),
        left_out=tuple(left_out),
    )


def _numbers(name: str, given: Iterable[int], most: int) -> list[int]:
    values = [] if isinstance(given, (int, str)) or not isinstance(given, Iterable) else list(given)
    if not values:
        raise TypeError(f"{name}: expected a sequence of at least one integer, got {given!r}; write ({given!r},)")
    return sorted({checked_int(name, value, 1, most) for value in values})


def _able(
    sampler: Sampler,
    dtype: str,
    chains: Sequence[int],
    steps: Sequence[int],
    share: float,
    progress: Callable[[str], None],
) -> tuple[dict[tuple[int, int], Callable[[], object]], list[str]]:
    """Runs that fit in memory and in ``share`` seconds, done once; and from where on they do not."""
    able, refused = dict[tuple[int, int], Callable[[], object]](), list[str]()
    states = dict[int, ChainState]()
    for k in steps:
        rate = 0.0  # chain-steps a second of the largest that was done
        for n in chains:
            setting = f"{dtype}, {k:,} steps of {n:,} chains"
            if rate and n * k / rate > share:
                refused.append(f"{setting} or more: {n * k / rate:.2g} s a run, where {share:.2g} s are there")
                break
            progress(setting)
            try:
                if n not in states:
                    states[n] = sampler.init(n_chains=n, seed=0)
                run = _run_of(sampler, states[n], k)
                able[n, k], rate = run, n * k / _timed(run)
            except (MemoryError, torch.OutOfMemoryError) as error:
                refused.append(f"{setting} or more: {error}")
                break
    return able, refused


def _run_of(sampler: Sampler, state: ChainState, n_steps: int) -> Callable[[], object]:
    def run() -> None:
        sampler.run(state, n_steps)
        wait_for(sampler.device)

    run()  # what there is to build or to capture for this number of chains
    return run


def _timed(run: Callable[[], object]) -> float:
    begin = time.perf_counter()
    run()
    return time.perf_counter() - begin


def _memory(sampler: Sampler, n_chains: int, n_steps: int) -> int | None:
    """Of the chains too."""
    return peak_bytes(lambda: sampler.run(sampler.init(n_chains=n_chains, seed=0), n_steps), sampler.device)
