"""The options that commands share: their names, their help, and how their values are read."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Annotated

import typer

from compiled_ebm.arguments import DTYPES
from compiled_ebm.builder import BACKENDS
from compiled_ebm.cli_messages import fail

__all__ = [
    "BACKEND_NAMES",
    "DTYPE_NAMES",
    "BackendOption",
    "ChainsOption",
    "DeviceOption",
    "DtypeOption",
    "EnergyOption",
    "JsonOption",
    "NoiseOption",
    "PlotOption",
    "RoundsOption",
    "ShapeOption",
    "StepSizeOption",
    "StepsOption",
    "count",
    "names_of",
    "one_of",
    "seed_of",
]

DTYPE_NAMES = {str(dtype).removeprefix("torch."): dtype for dtype in DTYPES}
BACKEND_NAMES = ("auto", *BACKENDS)
_SEEDS = range(-(1 << 63), 1 << 64)


def count(text: str | int) -> int:
    """An integer of at least 1; also 1e6 and 1_000_000."""
    try:
        number = int(text) if re.fullmatch(r"[\d_]+", str(text)) else float(text)
    except ValueError:
        number = math.nan
    if not 1 <= number < math.inf or number != int(number):
        raise typer.BadParameter(f"expected an integer of at least 1, got {str(text)!r}")
    return int(number)


def seed_of(text: str | int) -> int:
    """A 64-bit integer, with or without sign."""
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
ChainsOption = Annotated[int, typer.Option("--chains", parser=count, metavar="N", help="How many chains.")]
StepSizeOption = Annotated[
    float, typer.Option("--step-size", parser=_number, metavar="η", help="In x' = x − η∇E(x) + s√(2η)ξ.")
]
NoiseOption = Annotated[
    float, typer.Option("--noise-scale", parser=_number, metavar="s", help="The target is exp(−E/s²).")
]
DtypeOption = Annotated[str, typer.Option("--dtype", help=f"{', '.join(DTYPE_NAMES)}.")]
DeviceOption = Annotated[
    str | None, typer.Option("--device", help="cpu, cuda or cuda:N. Default: a GPU if there is one.")
]
StepsOption = Annotated[int, typer.Option("--steps", parser=count, metavar="N", help="Steps of each chain.")]
RoundsOption = Annotated[int, typer.Option("--rounds", parser=count, metavar="N", help="Timed runs of each, in turn.")]
PlotOption = Annotated[Path | None, typer.Option("--plot", help="Also draw into this .png, .pdf or .svg.")]
JsonOption = Annotated[
    str | None, typer.Option("--json", metavar="FILE", help="Also as JSON into this file; - is stdout, in its place.")
]
BackendOption = Annotated[str, typer.Option("--backend", help=f"{', '.join(BACKEND_NAMES)}.")]


def one_of(option: str, value: str, allowed: tuple[str, ...]) -> str:
    """``value`` if it is allowed, else one line and the end."""
    if value not in allowed:
        fail(f"{option}: expected one of {', '.join(allowed)}, got {value!r}")
    return value


def names_of(option: str, text: str, allowed: tuple[str, ...]) -> tuple[str, ...]:
    """Names between commas, each of those allowed; "none" and nothing are none."""
    names = [] if text.strip() == "none" else [part.strip() for part in text.split(",") if part.strip()]
    return tuple(dict.fromkeys(one_of(option, name, allowed) for name in names))
