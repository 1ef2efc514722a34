"""What a comparison found: as a table, JSON, Markdown and a picture, and what in it is wrong."""

from __future__ import annotations

import math
import os
import statistics
from dataclasses import asdict, dataclass
from pathlib import Path
from textwrap import fill
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from compiled_ebm.draws.plot import check_plot
from compiled_ebm.draws.save import atomic_path
from compiled_ebm.json_files import as_json
from compiled_ebm.laboratory.agreement import Agreement
from compiled_ebm.laboratory.law import LawComparison
from compiled_ebm.laboratory.peaks import MachinePeak
from compiled_ebm.laboratory.printed import Printed, where
from compiled_ebm.laboratory.timing import Timing
from compiled_ebm.laboratory.work import StepWork

__all__ = ["Comparison", "Entry"]

_SURE = 1e-6
"""A p-value below this is no accident, however many comparisons were made."""
_SIGMAS = 5.0
_TITLE = 95
"""Letters of a picture's title in a line."""
_DRIFTING = 1.5
"""Times, between the last round and the first, from which a machine was not itself."""


@dataclass(frozen=True)
class Entry(Timing):
    """One contender.

    Args:
        name: A backend of ours, "plain", "torch.compile", "torchebm" or "jax".
        backend: What "auto" has become; of the others their name.
        build_seconds: Warm: with what the first build has kept on disk.
        seconds: Of each round.
        cold_build_seconds: With nothing cached.
        peak_bytes: In use during a run at most, beyond those before; None where the system does not tell.
        launches_per_step: Calls into compiled code, or operations that Python hands over.
        agreement: With eager, for backends of ours.
        law: Against eager's draws.
        not_finite: Chains that have failed, or whose last position is not finite. Laws are of the others.
    """

    backend: str
    cold_build_seconds: float
    peak_bytes: int | None
    launches_per_step: float
    agreement: Agreement | None
    law: LawComparison | None
    not_finite: int


@dataclass(frozen=True)
class Comparison(Printed):
    """The result of :func:`compiled_ebm.compare`; printed, it is a table.

    Args:
        energy, transition, event_shape, n_chains, n_steps, dtype: What was run.
        machine: Device, processor, threads and versions.
        rounds: How often each was timed, in turn.
        min_speedup: Times eager's speed that each backend of ours has to reach.
        work: Of one step of one chain, counted in the traced program.
        peak: What the device reached right then.
        timer_seconds: That timing adds to a run.
        entries: The contenders, eager first.
        left_out: Those that could not run, and why.
    """

    energy: str
    transition: str
    event_shape: tuple[int, ...]
    n_chains: int
    n_steps: int
    dtype: str
    machine: dict[str, Any]
    rounds: int
    min_speedup: float
    work: StepWork
    peak: MachinePeak
    timer_seconds: float
    entries: tuple[Entry, ...]
    left_out: dict[str, str]

    def __getitem__(self, name: str) -> Entry:
        """The contender of that name.

        Raises:
            KeyError: It was left out, or not asked for.
        """
        for entry in self.entries:
            if entry.name == name:
                return entry
        raise KeyError(f"{name!r}: {self.left_out.get(name, 'it was not asked for')}")

    def speedup(self, name: str, over: str = "eager") -> float:
        """How many times faster one is than another, by medians."""
        return self[over].median / self[name].median

    def figures(self, name: str) -> dict[str, float]:
        """What follows from a contender's median.

        ``seconds_per_step`` of all chains, ``chain_steps_per_second``, ``gradients_per_second``, ``launches_per_step``,
        ``flops_fraction`` and ``bytes_fraction`` of what the device reached. A fraction counts what the program has to
        do, not what is done; that of bytes takes each chain's state to go to memory and back once a step, so that one
        above 1 means that it does not.
        """
        entry = self[name]
        rate = self.n_chains * self.n_steps / entry.median
        return {
            "seconds_per_step": entry.median / self.n_steps,
            "chain_steps_per_second": rate,
            "gradients_per_second": rate * self.work.gradients,
            "launches_per_step": entry.launches_per_step,
            "flops_fraction": rate * self.work.flops / self.peak.flops,
            "bytes_fraction": rate * self.work.bytes / self.peak.bytes,
        }

    def problems(self) -> list[str]:
        """What is wrong, in words: steps that differ by more than rounding, draws of another law or that are not
        finite, a compiled backend of ours that is less than ``min_speedup`` times as fast as eager."""
        found = []
        for entry in self.entries:
            agreement, law = entry.agreement, entry.law
            if agreement is not None and agreement.departure is not None:
                found.append(f"{entry.name} leaves eager {agreement.departure}")
            if law is not None and law.p_value < _SURE:
                found.append(
                    f"{entry.name} draws from another law than eager: p = {law.p_value:.1e}, by the {law.worst[1]} of "
                    f"coordinate {law.worst[0]}"
                )
            if self._fails_otherwise(entry):
                found.append(
                    f"of {entry.name} {entry.not_finite:,} of {self.n_chains:,} chains failed or are not finite, of "
                    f"eager {self['eager'].not_finite:,}"
                )
            compiled = agreement is not None and entry.backend != "eager"
            if compiled and not self.speedup(entry.name) >= self.min_speedup:
                found.append(
                    f"{entry.name} is {self.speedup(entry.name):.3g} times as fast as eager, expected at least "
                    f"{self.min_speedup:g}"
                )
        return found

    def _fails_otherwise(self, entry: Entry) -> bool:
        """Whether the number of failed chains is another than eager's by more than chance."""
        here, there = entry.not_finite, self["eager"].not_finite
        share = (here + there) / (2 * self.n_chains)
        return abs(here - there) > _SIGMAS * math.sqrt(2 * self.n_chains * share * (1 - share))

    def to_json(self, path: str | os.PathLike[str] | None = None) -> str:
        """Everything, as JSON; also into a file, whole or not at all."""
        report: dict[str, Any] = asdict(self)
        for entry in report["entries"]:
            name = entry["name"]
            entry |= {"median": self[name].median, "drift": self[name].drift, "speedup": self.speedup(name)}
            entry |= self.figures(name)
        report["problems"] = self.problems()
        return as_json(report, path)

    def to_markdown(self) -> str:
        """The tables, and what was left out."""
        lines = [f"**{self._title()}**"]
        for header, rows in self._tables():
            lines += ["", "| " + " | ".join(header) + " |", "| --- " * len(header) + "|"]
            lines += ["| " + " | ".join(row) + " |" for row in rows]
        return "\n".join([*lines, "", *(f"* {note}" for note in self._notes())])

    def plot(self, path: str | os.PathLike[str]) -> None:
        """Two panels into a .png, .pdf or .svg file: chain-steps a second with their range, and drift by rounding.

        Raises:
            ImportError: matplotlib is not installed.
            ValueError: The file cannot be written.
        """
        check_plot(path)
        from matplotlib.figure import Figure
        from matplotlib.ticker import NullFormatter

        figure = Figure(figsize=(9, max(4.0, 0.5 * len(self.entries) + 2)), layout="constrained")
        speeds, drifts = figure.subplots(1, 2, width_ratios=(3, 2))
        work = self.n_chains * self.n_steps
        names = [entry.name for entry in self.entries]
        medians = [work / entry.median for entry in self.entries]
        lows = [m - work / max(e.seconds) for m, e in zip(medians, self.entries, strict=True)]
        highs = [work / min(e.seconds) - m for m, e in zip(medians, self.entries, strict=True)]
        bars = speeds.barh(names, medians, xerr=(lows, highs), color="#3b6ea5", ecolor="#222222", capsize=2)
        speeds.bar_label(bars, [f" {self.speedup(name):.3g}×" for name in names], padding=2)
        speeds.set_xscale("log")
        speeds.set_xlim(10 ** math.floor(math.log10(min(medians))), 8 * max(medians))
        speeds.xaxis.set_minor_formatter(NullFormatter())
        speeds.invert_yaxis()
        speeds.set_xlabel("chain-steps a second; times eager's")
        for entry in self.entries:
            if entry.agreement is not None:
                steps = range(1, 1 + entry.agreement.n_steps)
                drifts.plot(steps, [max(d, 0.1) for d in entry.agreement.drift], label=entry.name)
        drifts.set_yscale("log")
        drifts.set_xlabel("step")
        drifts.set_ylabel("ulp from eager, median")
        if drifts.lines:
            drifts.legend(frameon=False)
        figure.suptitle(fill(self._title(), _TITLE), fontsize=10)
        with atomic_path(Path(path)) as unfinished:
            figure.savefig(unfinished, format=Path(path).suffix[1:], dpi=150)

    def __rich_console__(self, console: Console, options: Any) -> Any:
        """As rich prints it."""
        yield Text(self._title(), style="bold")
        for header, rows in self._tables():
            table = Table()
            for index, name in enumerate(header):
                table.add_column(name, justify="right" if index else "left", no_wrap=True)
            for row in rows:
                table.add_row(*row)
            yield table
        yield from (Text(note) for note in self._notes())

    def _title(self) -> str:
        shape = "×".join(map(str, self.event_shape)) or "scalar"
        return (
            f"{self.energy} ({shape}), {self.transition}: {self.n_chains:,} chains × {self.n_steps:,} steps, "
            f"{self.dtype}, {where(self.machine)}"
        )

    def _tables(self) -> list[tuple[list[str], list[list[str]]]]:
        """Agreement and law, then speed."""
        whether = [
            "against eager",
            "steps agree",
            "drift, ulp",
            "decisions flipped",
            "p: means",
            "variances",
            "KS",
            "all",
        ]
        speed = [
            "speed",
            "build cold, warm s",
            "µs a step",
            "least",
            "most",
            "last ÷ first",
            "× eager",
            "chain-steps/s",
        ]
        speed += ["gradients/s", "launches/step", "memory MB", "FLOP/s", "bytes/s"]
        others = [self._whether(entry) for entry in self.entries if entry.name != "eager"]
        return [(whether, others), (speed, [self._speed(entry) for entry in self.entries])]

    def _whether(self, entry: Entry) -> list[str]:
        agreement, law = entry.agreement, entry.law
        told = ["noise of its own", "–", "–"]
        if agreement is not None:
            gone = agreement.departure
            told = [
                f"{agreement.n_steps} of {agreement.n_steps}" if gone is None else f"not the {gone.step}.",
                f"{agreement.drift[-1]:.3g}",
                f"{agreement.flipped:,} of {agreement.moved:,}",
            ]
        found = [] if law is None else [law.mean, law.variance, law.distribution, law.p_value]
        return [entry.name, *told, *(f"{p:.2g}" for p in found), *["–"] * (4 - len(found))]

    def _speed(self, entry: Entry) -> list[str]:
        found = self.figures(entry.name)
        times = (1e6 * f(entry.seconds) / self.n_steps for f in (statistics.median, min, max))
        return [
            entry.name if entry.name == entry.backend else f"{entry.name}: {entry.backend}",
            f"{entry.cold_build_seconds:.2f}, {entry.build_seconds:.2f}",
            *(_short(time) for time in times),
            f"{entry.drift:.2f}",
            _short(self.speedup(entry.name)),
            f"{found['chain_steps_per_second']:.3g}",
            f"{found['gradients_per_second']:.3g}",
            _short(entry.launches_per_step),
            "–" if entry.peak_bytes is None else f"{max(0, entry.peak_bytes) / 1e6:.1f}",
            f"{found['flops_fraction']:.1%}",
            f"{found['bytes_fraction']:.1%}",
        ]

    def _notes(self) -> list[str]:
        work, peak = self.work, self.peak
        functions = "".join(f", {n:,} {name}" for name, n in sorted(work.functions.items()))
        notes = [
            f"A step of one chain: {work.flops:,} FLOPs{functions}, {work.normals:,} normals, {work.gradients} "
            f"gradients, {work.bytes:,} bytes of state. The device reached {peak.flops / 1e9:,.0f} GFLOP/s and "
            f"{peak.bytes / 1e9:,.0f} GB/s.",
            f"Medians of {self.rounds} rounds in turn; the timer adds {1e6 * self.timer_seconds:.2g} µs to a run. "
            "Builds are apart; p is that draws are of eager's law, corrected for the number of coordinates.",
        ]
        failed = ", ".join(f"{e.name} {e.not_finite:,}" for e in self.entries if e.not_finite)
        if failed:
            notes.append(f"Chains that failed, or are not finite: {failed}. Laws are of the others.")
        drifting = [entry for entry in self.entries if not 1 / _DRIFTING < entry.drift < _DRIFTING]
        if drifting:
            told = ", ".join(f"{entry.name} {entry.drift:.2f}" for entry in drifting)
            notes.append(f"The machine was not itself: last round by first {told}.")
        notes += [f"{name} is left out: {reason}." for name, reason in self.left_out.items()]
        return [*notes, *(f"PROBLEM: {problem}." for problem in self.problems())]


def _short(number: float) -> str:
    """Three digits or more, never an exponent."""
    return f"{number:,.0f}" if number >= 1000 else f"{number:.3g}"
