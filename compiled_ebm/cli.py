"""The command line: ``compiled-ebm sample``, ``explain`` and ``energies``.

What a user can get wrong is one line on stderr and exit code 2; Ctrl-C is 130, after saving what there is.
"""

from __future__ import annotations

import inspect
import io
import math
import os
import platform
import re
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import Annotated, Any, NoReturn

import torch
from torch import Tensor

try:
    import typer
    from rich.console import Console
    from rich.text import Text
    from typer.core import TyperGroup
except ImportError as error:
    raise ImportError("the command line needs typer and rich: pip install typer rich") from error

from compiled_ebm import __version__, captures
from compiled_ebm.builder import BACKENDS, DTYPES, build_sampler
from compiled_ebm.draws import plot, save
from compiled_ebm.draws.summary import summarise, summary_table
from compiled_ebm.energies.registry import BUILTIN_ENERGIES
from compiled_ebm.errors import BackendUnavailableError, NonFiniteChainWarning
from compiled_ebm.named_energy import load_energy
from compiled_ebm.sampler import Sampler
from compiled_ebm.state import RunResult
from compiled_ebm.target import Energy
from compiled_ebm.transitions import Langevin

__all__ = ["app", "main"]

_DTYPES = {str(dtype).removeprefix("torch."): dtype for dtype in DTYPES}
_BACKENDS = ("auto", *BACKENDS)
_SEEDS = range(-(1 << 63), 1 << 64)
_INTERRUPTED = 130  # 128 + SIGINT, as shells have it
_OPTIONS = {"n_chains": "chains", "n_steps": "steps"}  # library arguments whose option has another name
_USAGE_ERROR: Any = typer.BadParameter.__mro__[1]  # click's, which typer either imports or carries a copy of


def _say(style: str, label: str, message: object) -> None:
    """One line on stderr, whatever the message's own line breaks."""
    line = Text.assemble((f"{label}: ", style), " ".join(str(message).split()))
    Console(stderr=True).print(line, soft_wrap=True)


def _fail(message: object) -> NoReturn:
    """Say what is wrong, in the option's name where the library gave the argument's, and leave with code 2."""
    text = re.sub(
        r"^(n_chains|n_steps|step_size|noise_scale|thin|seed|device|dtype|backend|event_shape)\b",
        lambda found: "--" + _OPTIONS.get(found[1], found[1]).replace("_", "-"),
        str(message),
    )
    _say("bold red", "error", text)
    raise typer.Exit(2)


class _OneLineErrors(TyperGroup):
    """Commands whose mistakes are told in one line, without a traceback."""

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        windows_expand_args: bool = True,
        **extra: Any,
    ) -> Any:
        """As the command's own, with usage errors in one line too."""
        names = (args, prog_name, complete_var)
        if not standalone_mode:
            return super().main(*names, standalone_mode=False, windows_expand_args=windows_expand_args, **extra)
        try:
            code = super().main(*names, standalone_mode=False, windows_expand_args=windows_expand_args, **extra)
        except _USAGE_ERROR as error:
            _say("bold red", "error", error.format_message())
            code = 2
        sys.exit(code if isinstance(code, int) else 0)

    def invoke(self, ctx: Any) -> Any:
        """Run the command; what the library raises about a bad value becomes a line."""
        try:
            with _warnings_as_lines():
                return super().invoke(ctx)
        except KeyboardInterrupt:
            _say("yellow", "interrupted", "no unfinished file is left")
            raise typer.Exit(_INTERRUPTED) from None
        except torch.OutOfMemoryError as error:
            _fail(f"{error}; use fewer --chains or a larger --thin")
        except (ValueError, TypeError, MemoryError, ImportError, BackendUnavailableError) as error:
            _fail(error if str(error) else type(error).__name__)


@contextmanager
def _warnings_as_lines() -> Iterator[None]:
    def show(message: Warning | str, *_: object, **__: object) -> None:
        _say("yellow", "warning", message)

    with warnings.catch_warnings():
        warnings.simplefilter("always", NonFiniteChainWarning)
        warnings.showwarning = show
        yield


app = typer.Typer(cls=_OneLineErrors, add_completion=False, pretty_exceptions_enable=False, no_args_is_help=False)


def main() -> None:
    """The entry point of ``compiled-ebm``."""
    # One graph needs no pool of compile workers, whose start goes on for many seconds and slows the run down.
    os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal without Greek letters gets question marks
    app(prog_name="compiled-ebm")


# --- options ----------------------------------------------------------------------------------------------------------


def _count(text: str | int) -> int:
    """Also 1e6 and 1_000_000."""
    try:
        number = int(text) if re.fullmatch(r"[\d_]+", str(text)) else float(text)
    except ValueError:
        number = math.nan
    if not 1 <= number < math.inf or number != int(number):
        raise typer.BadParameter(f"expected an integer of at least 1, got {str(text)!r}")
    return int(number)


def _seed(text: str | int) -> int:
    if not re.fullmatch(r"[+-]?\d+", str(text)) or int(text) not in _SEEDS:
        raise typer.BadParameter(f"expected an integer of 64 bits, got {str(text)!r}")
    return int(text)


def _number(text: str | float) -> float:
    try:
        return float(text)
    except ValueError:
        raise typer.BadParameter(f"expected a number, got {str(text)!r}") from None


EnergyOption = Annotated[str, typer.Option("--energy", help="A built-in energy, or module:attribute of your own.")]
ShapeOption = Annotated[
    str | None, typer.Option("--event-shape", help="Of one position: 2, or 1,28,28. Default: the energy's own.")
]
ChainsOption = Annotated[int, typer.Option("--chains", parser=_count, metavar="N", help="How many chains.")]
StepSizeOption = Annotated[
    float, typer.Option("--step-size", parser=_number, metavar="η", help="In x' = x − η∇E(x) + s√(2η)ξ.")
]
NoiseOption = Annotated[
    float, typer.Option("--noise-scale", parser=_number, metavar="s", help="The target is exp(−E/s²).")
]
DtypeOption = Annotated[str, typer.Option("--dtype", help=f"{', '.join(_DTYPES)}.")]
DeviceOption = Annotated[
    str | None, typer.Option("--device", help="cpu, cuda or cuda:N. Default: a GPU if there is one.")
]
BackendOption = Annotated[str, typer.Option("--backend", help=f"{', '.join(_BACKENDS)}.")]


def _one_of(option: str, value: str, allowed: tuple[str, ...]) -> str:
    if value not in allowed:
        _fail(f"{option}: expected one of {', '.join(allowed)}, got {value!r}")
    return value


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
    kind = _DTYPES[_one_of("--dtype", dtype, tuple(_DTYPES))]
    _one_of("--backend", backend, _BACKENDS)
    transition = Langevin(step_size=step_size, noise_scale=noise_scale)
    target = load_energy(energy, event_shape, kind, device)
    sampler = build_sampler(
        target.energy, transition, target.event_shape, backend=backend, device=target.device, dtype=kind
    )
    return sampler, target.energy


# --- commands ---------------------------------------------------------------------------------------------------------


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
) -> None:
    """Build the sampler, and tell which backend it is, why, and what is compiled."""
    sampler, _ = _build(energy, event_shape, step_size, noise_scale, dtype, device, backend)
    sampler.build(chains)
    print(sampler.source.strip() if source else sampler.explain())


@app.command()
def sample(
    energy: EnergyOption = "mlp",
    event_shape: ShapeOption = None,
    chains: ChainsOption = 10_000,
    steps: Annotated[int, typer.Option("--steps", parser=_count, metavar="N", help="Steps of each chain.")] = 1_000,
    step_size: StepSizeOption = 0.01,
    noise_scale: NoiseOption = 1.0,
    dtype: DtypeOption = "float32",
    device: DeviceOption = None,
    backend: BackendOption = "auto",
    seed: Annotated[
        int,
        typer.Option(
            "--seed", parser=_seed, metavar="N", help="Of start and noise, and of torch while your own energy is made."
        ),
    ] = 0,
    thin: Annotated[
        int | None,
        typer.Option(
            "--thin", parser=_count, metavar="N", help="Keep every N-th draw. Default: the last positions only."
        ),
    ] = None,
    out: Annotated[Path, typer.Option("--out", help="Where to save: a .npz or .safetensors file.")] = Path("draws.npz"),
    no_save: Annotated[bool, typer.Option("--no-save", help="Save nothing.")] = False,
    plot_to: Annotated[
        Path | None, typer.Option("--plot", help="Also draw the density into this .png, .pdf or .svg.")
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="No bar and no report.")] = False,
) -> None:
    """Sample an energy with many Langevin chains, summarise the draws and save them."""
    if thin is not None and thin > steps:
        _fail(f"--thin: expected at most --steps, which is {steps}, got {thin}: no draw would be kept")
    if not no_save:
        _in_option("--out", save.check_save, out)
    if plot_to is not None:
        _in_option("--plot", plot.check_plot, plot_to)
    torch.manual_seed(seed)
    show = not quiet and sys.stderr.isatty()
    begin = time.perf_counter()
    sampler, model = _build(energy, event_shape, step_size, noise_scale, dtype, device, backend)
    state = sampler.init(n_chains=chains, seed=seed)
    trace_seconds = time.perf_counter() - begin
    if show:
        _say("dim", "building", f"{energy}, for {chains:,} chains on {sampler.device}")
    result = sampler.run(state, steps, thin, progress=show)
    del state
    if result.stats.interrupted:
        _say("yellow", "interrupted", f"after {result.stats.n_steps:,} of {steps:,} steps")
    files: list[str] = []
    try:
        if not no_save:
            arrays = _arrays(result)
            with _writing(out):
                save.save_draws(out, arrays, _metadata(sampler, result, energy, thin))
            files.append(f"{out} ({_megabytes(out)}: {', '.join(arrays)})")
        if plot_to is not None:
            with _writing(plot_to):
                files += _plot(plot_to, energy, model, sampler, result)
    finally:  # a full disk, or Ctrl-C while saving, takes the file and not the figures
        if not quiet:
            _report(sampler, result, trace_seconds, files)
    if result.stats.interrupted:
        raise typer.Exit(_INTERRUPTED)


def _in_option(option: str, check: Callable[[Path], None], path: Path) -> None:
    try:
        check(path)
    except (ValueError, ImportError) as error:
        _fail(f"{option}: {error}")


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        _say("bold red", "error", f"{path}: not written: {error.strerror or error}")
        raise typer.Exit(1) from error


def _kept(result: RunResult) -> Tensor:
    """Draws ``[n_chains, n_kept, *event]``: the kept ones, or the last positions as the one draw of each chain."""
    if result.draws is None or result.draws.shape[1] == 0:
        return result.state.x.unsqueeze(1)
    return result.draws


def _arrays(result: RunResult) -> dict[str, Tensor]:
    energy = result.state.energy
    assert energy is not None  # a run has computed it
    draws = {"x": result.state.x} if result.draws is None else {"draws": result.draws}
    return draws | {"energy": energy, "failed_at": result.state.failed_at}


def _metadata(sampler: Sampler, result: RunResult, energy: str, thin: int | None) -> dict[str, str]:
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


def _megabytes(path: Path) -> str:
    size = path.stat().st_size
    return f"{size / 1e6:.1f} MB" if size >= 1e5 else f"{size / 1e3:.1f} kB"


def _plot(path: Path, name: str, energy: Energy, sampler: Sampler, result: RunResult) -> list[str]:
    """The files written: none if there is nothing to show."""
    alive = result.state.failed_at < 0
    x = _kept(result)
    x = (x if bool(alive.all()) else x[alive]).flatten(0, 1)
    if not len(x):
        _say("yellow", "warning", f"{path}: not drawn, every chain failed")
        return []
    floating = [slot.value.dtype for slot in captures.tensors(captures.find_slots(energy))]
    dtype = next((held for held in floating if held.is_floating_point), torch.float32)

    def energy_fn(points: Tensor) -> Tensor:
        with torch.no_grad():
            return energy(points.to(device=sampler.device, dtype=dtype))

    plot.density_plot(path, x, energy_fn, name=name)
    return [str(path)]


def _report(sampler: Sampler, result: RunResult, trace_seconds: float, files: list[str]) -> None:
    stats = result.stats
    device = sampler.device
    about = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{torch.get_num_threads()} threads"
    rows = {
        "chains": f"{stats.n_chains:,}",
        "steps": f"{stats.n_steps:,}",
        "device": f"{device} ({about})",
        "backend": sampler.backend,
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
