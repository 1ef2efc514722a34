"""The command line: ``compiled-ebm sample``, ``explain`` and ``energies``, and the laboratory's commands.

What a user can get wrong is one line on stderr and exit code 2; a run in which every chain failed, or whose file could
not be written, is 1; Ctrl-C is 130, after saving what there is.
"""

from __future__ import annotations

import inspect
import io
import os
import platform
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import torch

try:
    import rich  # noqa: F401  what the modules below need
    import typer
except ImportError as error:
    raise ImportError("the command line needs typer and rich: pip install typer rich") from error

from compiled_ebm import __version__, cli_laboratory
from compiled_ebm.builder import build_sampler
from compiled_ebm.cli_messages import INTERRUPTED, OneLineErrors, check_json, fail, in_option, say, write_json, writing
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
    ShapeOption,
    StepSizeOption,
    StepsOption,
    count,
    one_of,
    seed_of,
)
from compiled_ebm.cli_report import figures_of, kept_arrays, megabytes, plot_draws, print_report, run_metadata
from compiled_ebm.draws import plot, save
from compiled_ebm.energies.registry import BUILTIN_ENERGIES
from compiled_ebm.kernel_cost import TARGETS, kernel_cost
from compiled_ebm.named_energy import load_energy
from compiled_ebm.sampler import Sampler
from compiled_ebm.target import Energy
from compiled_ebm.transitions import Langevin

__all__ = ["app", "main"]

app = typer.Typer(cls=OneLineErrors, add_completion=False, pretty_exceptions_enable=False, no_args_is_help=False)


for _command in (cli_laboratory.compare, cli_laboratory.tune, cli_laboratory.bench):
    app.command()(_command)


def main() -> None:
    """The entry point of ``compiled-ebm``."""
    # One graph needs no pool of compile workers, whose start goes on for many seconds and slows the run down.
    os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal without Greek letters gets question marks
    app(prog_name="compiled-ebm")


@app.callback(invoke_without_command=True)
def root(
    ctx: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print versions and leave.")] = False,
) -> None:
    """Compiled many-chain sampling of PyTorch energies: p(x) ∝ exp(−E(x))."""
    if version:
        print(f"compiled-ebm {__version__} (torch {torch.__version__}, Python {platform.python_version()})")
        raise typer.Exit()
    if ctx.invoked_subcommand is None:
        print(ctx.get_help())


@app.command()
def energies() -> None:
    """List the built-in energies."""
    rows = []
    for name, (factory, event_shape) in BUILTIN_ENERGIES.items():
        doc = inspect.getdoc(getattr(factory, "func", factory)) or ""
        rows.append((name, ",".join(map(str, event_shape)), doc.partition("\n")[0]))
    widths = [max(len(row[i]) for row in rows) for i in (0, 1)]
    for name, shape, doc in rows:
        print(f"{name:<{widths[0]}}  {shape:>{widths[1]}}  {doc}")


@app.command()
def explain(
    energy: EnergyOption = "mlp",
    event_shape: ShapeOption = None,
    chains: ChainsOption = 10_000,
    step_size: StepSizeOption = 0.01,
    noise_scale: NoiseOption = 1.0,
    dtype: DtypeOption = "float32",
    device: DeviceOption = None,
    backend: BackendOption = "auto",
    source: Annotated[bool, typer.Option("--source", help="Print the generated source instead.")] = False,
    target: Annotated[
        str | None,
        typer.Option(
            "--target",
            help="Compile the CUDA kernel for sm_80, sm_90 or sm_100, with no GPU, and tell its cost instead.",
        ),
    ] = None,
    json_to: JsonOption = None,
) -> None:
    """Build the sampler, and tell which backend it is, why, and what is compiled."""
    check_json(json_to)
    if target is not None:
        kind = DTYPE_NAMES[one_of("--dtype", dtype, tuple(DTYPE_NAMES))]
        one_of("--target", target, TARGETS)
        model = load_energy(energy, event_shape, kind, "cpu")
        transition = Langevin(step_size=step_size, noise_scale=noise_scale)
        cost = kernel_cost(model.energy, transition, model.event_shape, target=target, n_chains=chains, dtype=kind)
        _explained(str(cost), cost.source, source, json_to)
        return
    sampler, _ = _build(energy, event_shape, step_size, noise_scale, dtype, device, backend)
    sampler.build(chains)
    _explained(sampler.explain(), sampler.source, source, json_to)


@app.command()
def sample(
    energy: EnergyOption = "mlp",
    event_shape: ShapeOption = None,
    chains: ChainsOption = 10_000,
    steps: StepsOption = 1_000,
    step_size: StepSizeOption = 0.01,
    noise_scale: NoiseOption = 1.0,
    dtype: DtypeOption = "float32",
    device: DeviceOption = None,
    backend: BackendOption = "auto",
    seed: Annotated[
        int,
        typer.Option(
            "--seed",
            parser=seed_of,
            metavar="N",
            help="Of start and noise, and of torch while your energy is made.",
        ),
    ] = 0,
    thin: Annotated[
        int | None,
        typer.Option(
            "--thin", parser=count, metavar="N", help="Keep every N-th draw. Default: the last positions only."
        ),
    ] = None,
    out: Annotated[Path, typer.Option("--out", help="Where to save: a .npz or .safetensors file.")] = Path("draws.npz"),
    no_save: Annotated[bool, typer.Option("--no-save", help="Save nothing.")] = False,
    plot_to: PlotOption = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="No bar and no report.")] = False,
    json_to: JsonOption = None,
) -> None:
    """Sample an energy with many Langevin chains, summarise the draws and save them."""
    if thin is not None and thin > steps:
        fail(f"--thin: expected at most --steps, which is {steps}, got {thin}: no draw would be kept")
    if not no_save:
        in_option("--out", save.check_save, out)
    if plot_to is not None:
        in_option("--plot", plot.check_plot, plot_to)
    check_json(json_to)
    torch.manual_seed(seed)
    show = not quiet and sys.stderr.isatty()
    begin = time.perf_counter()
    sampler, model = _build(energy, event_shape, step_size, noise_scale, dtype, device, backend)
    state = sampler.init(n_chains=chains, seed=seed)
    trace_seconds = time.perf_counter() - begin
    if show:
        say("dim", "building", f"{energy}, for {chains:,} chains on {sampler.device}")
    result = sampler.run(state, steps, thin, progress=show)
    del state
    if result.stats.interrupted:
        say("yellow", "interrupted", f"after {result.stats.n_steps:,} of {steps:,} steps")
    files: list[str] = []
    metadata = run_metadata(sampler, result, energy, thin)
    try:
        if not no_save:
            arrays = kept_arrays(result)
            with writing(out):
                save.save_draws(out, arrays, metadata)
            files.append(f"{out} ({megabytes(out)}: {', '.join(arrays)})")
        if plot_to is not None:
            with writing(plot_to):
                files += plot_draws(plot_to, energy, model, sampler, result)
    finally:  # a full disk, or Ctrl-C while saving, takes the file and not the figures
        if not quiet and json_to != "-":
            print_report(sampler, result, trace_seconds, files)
        if json_to is not None:
            write_json(json_to, figures_of(sampler, result, trace_seconds, metadata, thin))
    if result.stats.interrupted:
        raise typer.Exit(INTERRUPTED)
    if result.stats.n_failed == result.stats.n_chains:
        say("bold red", "error", "every chain failed: no draw is of the target; try a smaller --step-size")
        raise typer.Exit(1)


def _explained(text: str, source: str, source_wanted: bool, json_to: str | None) -> None:
    """What ``explain`` prints, and as JSON: each line under its name, those of one name together."""
    if json_to != "-":
        print(source.strip() if source_wanted else text)
    if json_to is not None:
        facts: dict[str, Any] = {}
        for line in text.splitlines():
            facts.setdefault(line[:14].strip(), []).append(line[15:])
        write_json(json_to, {**{name: "\n".join(lines) for name, lines in facts.items()}, "source": source})


def _build(
    energy: str,
    event_shape: str | None,
    step_size: float,
    noise_scale: float,
    dtype: str,
    device: str | None,
    backend: str,
) -> tuple[Sampler, Energy]:
    """Check the values that need no energy first, then load the energy, then trace it."""
    kind = DTYPE_NAMES[one_of("--dtype", dtype, tuple(DTYPE_NAMES))]
    one_of("--backend", backend, BACKEND_NAMES)
    transition = Langevin(step_size=step_size, noise_scale=noise_scale)
    target = load_energy(energy, event_shape, kind, device)
    sampler = build_sampler(
        target.energy, transition, target.event_shape, backend=backend, device=target.device, dtype=kind
    )
    return sampler, target.energy
