"""``compiled-ebm compare``, ``tune`` and ``bench``: the laboratory on the command line."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from rich.status import Status

from compiled_ebm.cli_messages import check_json, fail, in_option, say, writing
from compiled_ebm.cli_options import (
    BACKEND_NAMES,
    DTYPE_NAMES,
    BackendOption,
    ChainsOption,
    DeviceOption,
    DtypeOption,
    EnergyOption,
    JsonOption,
    NoiseOption,
    PlotOption,
    RoundsOption,
    ShapeOption,
    StepSizeOption,
    StepsOption,
    count,
    names_of,
    one_of,
)
from compiled_ebm.draws import plot
from compiled_ebm.energies.registry import BUILTIN_ENERGIES
from compiled_ebm.named_energy import NamedEnergy, load_energy
from compiled_ebm.transitions import Langevin

__all__ = ["bench", "compare", "tune"]

_WIDE = 160


def compare(
    energy: EnergyOption = "mlp",
    event_shape: ShapeOption = None,
    chains: ChainsOption = 10_000,
    steps: StepsOption = 100,
    step_size: StepSizeOption = 0.01,
    noise_scale: NoiseOption = 1.0,
    dtype: DtypeOption = "float32",
    device: DeviceOption = None,
    backends: Annotated[
        str, typer.Option("--backends", help="Of fused, inductor, auto, with commas; eager is always there.")
    ] = "fused,inductor",
    against: Annotated[
        str, typer.Option("--against", help="Of plain, torch.compile, torchebm, jax, with commas; or none.")
    ] = "plain,torch.compile,torchebm,jax",
    rounds: RoundsOption = 5,
    min_speedup: Annotated[
        float, typer.Option("--min-speedup", help="Times eager's speed that each backend has to reach.")
    ] = 1.0,
    json_to: JsonOption = None,
    plot_to: PlotOption = None,
) -> None:
    """Compare backends with eager and with peers: agreement, law, speed. Exit code 1 if something is wrong."""
    from compiled_ebm.laboratory import contenders
    from compiled_ebm.laboratory.compare import compare as compared

    kind = DTYPE_NAMES[one_of("--dtype", dtype, ("float32", "float64"))]
    ours = names_of("--backends", backends, contenders.OUR_BACKENDS)
    peers = names_of("--against", against, contenders.PEERS)
    _check_files(json_to, plot_to)
    transition = Langevin(step_size=step_size, noise_scale=noise_scale)
    model = load_energy(energy, event_shape, kind, device)
    with _progress() as progress:
        report = compared(
            model.energy,
            transition,
            chains,
            steps,
            event_shape=model.event_shape,
            backends=ours,
            against=peers,
            rounds=rounds,
            device=model.device,
            dtype=kind,
            min_speedup=min_speedup,
            progress=progress,
        )
    _tell(report, report.to_json, json_to)
    if plot_to is not None:
        with writing(plot_to):
            report.plot(plot_to)
    problems = report.problems()
    for problem in problems:
        say("bold red", "problem", problem)
    if problems:
        raise typer.Exit(1)


def tune(
    energy: EnergyOption = "mlp",
    event_shape: ShapeOption = None,
    chains: Annotated[str | None, typer.Option("--chains", metavar="N,N,...", help="Numbers of chains to try.")] = None,
    steps: Annotated[str | None, typer.Option("--steps", metavar="N,N,...", help="Steps a run to try.")] = None,
    step_size: StepSizeOption = 0.01,
    noise_scale: NoiseOption = 1.0,
    dtype: Annotated[
        str, typer.Option("--dtype", help=f"To try, with commas: {', '.join(DTYPE_NAMES)}.")
    ] = "float32,float64",
    device: DeviceOption = None,
    backend: BackendOption = "auto",
    rounds: RoundsOption = 3,
    seconds: Annotated[float, typer.Option("--seconds", help="For all of it but building, about.")] = 60.0,
    json_to: JsonOption = None,
    plot_to: PlotOption = None,
) -> None:
    """Sweep chains, steps a run and dtype: the throughput curve, its knee, the memory, and what to take."""
    from compiled_ebm.laboratory.tune import CHAINS, STEPS
    from compiled_ebm.laboratory.tune import tune as tuned

    kinds = [DTYPE_NAMES[name] for name in names_of("--dtype", dtype, tuple(DTYPE_NAMES))]
    one_of("--backend", backend, BACKEND_NAMES)
    _check_files(json_to, plot_to)
    n_chains = CHAINS if chains is None else _counts("--chains", chains)
    n_steps = STEPS if steps is None else _counts("--steps", steps)
    model = load_energy(energy, event_shape, torch.float64 if torch.float64 in kinds else torch.float32, device)
    with _progress() as progress:
        found = tuned(
            model.energy,
            Langevin(step_size=step_size, noise_scale=noise_scale),
            event_shape=model.event_shape,
            n_chains=n_chains,
            n_steps=n_steps,
            dtypes=kinds,
            backend=backend,
            device=model.device,
            rounds=rounds,
            seconds=seconds,
            progress=progress,
        )
    _tell(found, found.to_json, json_to)
    if plot_to is not None:
        with writing(plot_to):
            found.plot(plot_to)


def bench(
    energy: Annotated[
        str | None, typer.Option("--energy", help="With commas; default: all built-in ones. Or module:attribute.")
    ] = None,
    event_shape: ShapeOption = None,
    chains: ChainsOption = 10_000,
    steps: StepsOption = 1_000,
    step_size: StepSizeOption = 0.001,
    noise_scale: NoiseOption = 1.0,
    dtype: DtypeOption = "float32",
    device: DeviceOption = None,
    backend: BackendOption = "auto",
    rounds: RoundsOption = 5,
    json_to: JsonOption = None,
) -> None:
    """Time the built-in energies, or yours: building with nothing cached and again, and runs."""
    from compiled_ebm.laboratory.bench import bench as benched

    kind = DTYPE_NAMES[one_of("--dtype", dtype, ("float32", "float64"))]
    one_of("--backend", backend, BACKEND_NAMES)
    _check_files(json_to, None)
    models = _models(energy, event_shape, kind, device)
    with _progress() as progress:
        found = benched(
            {name: (model.energy, model.event_shape) for name, model in models.items()},
            Langevin(step_size=step_size, noise_scale=noise_scale),
            chains,
            steps,
            backend=backend,
            device=next((model.device for model in models.values()), None),
            dtype=kind,
            rounds=rounds,
            progress=progress,
        )
    _tell(found, found.to_json, json_to)


def _models(
    energy: str | None, event_shape: str | None, kind: torch.dtype, device: str | None
) -> dict[str, NamedEnergy]:
    names = list(BUILTIN_ENERGIES) if energy is None else [name.strip() for name in energy.split(",") if name.strip()]
    if not names:
        fail(f"--energy: expected names with commas, got {energy!r}")
    return {name: load_energy(name, event_shape, kind, device) for name in names}


def _counts(option: str, text: str) -> list[int]:
    try:
        return [count(part.strip()) for part in text.split(",")]
    except typer.BadParameter as error:
        fail(f"{option}: {error}")


def _check_files(json_to: str | None, plot_to: Path | None) -> None:
    check_json(json_to)
    if plot_to is not None:
        in_option("--plot", plot.check_plot, plot_to)


def _tell(report: Any, to_json: Callable[..., str], json_to: str | None) -> None:
    """The report on stdout, or with ``--json -`` its JSON in its place."""
    if json_to == "-":
        print(to_json())
        return
    Console(width=None if sys.stdout.isatty() else _WIDE, highlight=False).print(report)
    if json_to is not None:
        with writing(Path(json_to)):
            to_json(json_to)


@contextmanager
def _progress() -> Iterator[Callable[[str], None]]:
    """A line on a terminal; nothing elsewhere."""
    if not sys.stderr.isatty():
        yield lambda message: None
        return
    with Status("", console=Console(stderr=True)) as status:
        yield status.update
