"""What ``compiled-ebm sample`` leaves: arrays and metadata for the file, the plot, the report."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.text import Text
from torch import Tensor

from compiled_ebm import __version__, captures
from compiled_ebm.cli_messages import say
from compiled_ebm.draws import plot
from compiled_ebm.draws.summary import summarise, summary_table
from compiled_ebm.sampler import Sampler
from compiled_ebm.state import RunResult
from compiled_ebm.target import Energy

__all__ = ["figures_of", "kept_arrays", "megabytes", "plot_draws", "print_report", "run_metadata"]


def _kept(result: RunResult) -> Tensor:
    """Draws ``[n_chains, n_kept, *event]``: the kept ones, or the last positions as the one draw of each chain."""
    if result.draws is None or result.draws.shape[1] == 0:
        return result.state.x.unsqueeze(1)
    return result.draws


def kept_arrays(result: RunResult) -> dict[str, Tensor]:
    """What is saved, by name."""
    energy = result.state.energy
    assert energy is not None  # a run has computed it
    draws = {"x": result.state.x} if result.draws is None else {"draws": result.draws}
    return draws | {"energy": energy, "failed_at": result.state.failed_at}


def run_metadata(sampler: Sampler, result: RunResult, energy: str, thin: int | None) -> dict[str, str]:
    """How it was sampled, as strings."""
    facts = {
        "energy": energy,
        "transition": sampler.transition,
        "event_shape": ",".join(map(str, sampler.event_shape)),
        "chains": result.stats.n_chains,
        "steps": result.stats.n_steps,
        "interrupted": result.stats.interrupted,
        "thin": thin,
        "seed": result.state.seed,
        "dtype": str(sampler.dtype).removeprefix("torch."),
        "device": sampler.device,
        "backend": sampler.backend,
        "compiled_ebm": __version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }
    return {name: str(fact) for name, fact in facts.items()}


def figures_of(
    sampler: Sampler, result: RunResult, trace_seconds: float, metadata: Mapping[str, str], thin: int | None
) -> dict[str, Any]:
    """The report as JSON: what was run, seconds, speed, failures, each dimension's moments and quantiles."""
    stats = result.stats
    assert result.state.energy is not None
    summary = summarise(_kept(result), result.state.energy, result.state.failed_at)
    told = ("energy", "transition", "dtype", "device", "backend", "compiled_ebm", "torch", "python", "created")
    return {
        **{name: metadata[name] for name in told},
        "event_shape": list(sampler.event_shape),
        "n_chains": stats.n_chains,
        "n_steps": stats.n_steps,
        "thin": thin,
        "seed": result.state.seed,
        "interrupted": stats.interrupted,
        "build_seconds": trace_seconds + stats.build_seconds,
        "run_seconds": stats.run_seconds,
        "chain_steps_per_second": stats.chain_steps_per_second,
        "n_launches": stats.n_launches,
        "n_failed": stats.n_failed,
        "first_failed_step": stats.first_failed_step,
        "passed_over": dict(sampler.passed_over),
        "mean_energy": summary.mean_energy,
        "dimensions": [dimension._asdict() for dimension in summary.dimensions],
    }


def megabytes(path: Path) -> str:
    """The size of a file, readable."""
    size = path.stat().st_size
    return f"{size / 1e6:.1f} MB" if size >= 1e5 else f"{size / 1e3:.1f} kB"


def plot_draws(path: Path, name: str, energy: Energy, sampler: Sampler, result: RunResult) -> list[str]:
    """Draw the density; the files written: none if there is nothing to show."""
    alive = result.state.failed_at < 0
    x = _kept(result)
    x = (x if bool(alive.all()) else x[alive]).flatten(0, 1)
    if not len(x):
        say("yellow", "warning", f"{path}: not drawn, every chain failed")
        return []
    floating = [slot.value.dtype for slot in captures.tensors(captures.find_slots(energy))]
    dtype = next((held for held in floating if held.is_floating_point), torch.float32)

    def energy_fn(points: Tensor) -> Tensor:
        with torch.no_grad():
            return energy(points.to(device=sampler.device, dtype=dtype))

    plot.density_plot(path, x, energy_fn, name=name)
    return [str(path)]


def print_report(sampler: Sampler, result: RunResult, trace_seconds: float, files: list[str]) -> None:
    """Figures of the run, a summary of the draws, and the files written, on stdout."""
    stats = result.stats
    device = sampler.device
    about = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{torch.get_num_threads()} threads"
    rows = {
        "chains": f"{stats.n_chains:,}",
        "steps": f"{stats.n_steps:,}",
        "device": f"{device} ({about})",
        "backend": "; ".join([sampler.backend, *(f"not {name}: {why}" for name, why in sampler.passed_over.items())]),
        "build": f"{trace_seconds + stats.build_seconds:.2f} s",
        "run": f"{stats.run_seconds:.3g} s",
        "chain-steps/s": f"{stats.chain_steps_per_second:.3g}",
    }
    if stats.n_failed:
        rows["failed chains"] = f"{stats.n_failed:,}, the first at step {stats.first_failed_step:,}"
    assert result.state.energy is not None
    summary = summarise(_kept(result), result.state.energy, result.state.failed_at)
    console = Console(highlight=False)
    _facts(console, rows)
    console.print()
    console.print(summary_table(summary))
    if summary.n_chains:
        _facts(console, {"mean energy": f"{summary.mean_energy:.4g}"})
    for file in files:
        _facts(console, {"saved": file})


def _facts(console: Console, rows: dict[str, str]) -> None:
    for name, value in rows.items():
        console.print(Text(f"{name:<14} {value}"), soft_wrap=True)
