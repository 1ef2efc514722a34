"""Draws in a few figures: mean, standard deviation and quantiles of each dimension, and the mean energy."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

if TYPE_CHECKING:
    from rich.console import Group

__all__ = ["QUANTILES", "DimensionSummary", "DrawsSummary", "dimension_labels", "summarise", "summary_table"]

QUANTILES = (0.05, 0.5, 0.95)
_CHUNK = 1 << 22
"""Values turned into float64 at once: 32 MiB."""
_MAX_SORTED = 1 << 24
"""Values that quantiles are taken from. Their standard error, sqrt(q (1 - q) / n) in probability, is then 1e-4."""


class DimensionSummary(NamedTuple):
    """One dimension of the event, over draws and chains."""

    label: str
    """``x[i]``, or ``x[i,j,k]`` for events of several dimensions."""
    mean: float
    std: float
    """With n - 1; NaN for a single value."""
    quantiles: tuple[float, ...]
    """At :data:`QUANTILES`, interpolated linearly."""


class DrawsSummary(NamedTuple):
    """All draws of the chains that have not failed."""

    n_chains: int
    """Chains that the figures are taken over."""
    n_failed: int
    """Chains left out because they failed."""
    n_kept: int
    """Draws of each."""
    n_dims: int
    """Dimensions of the event; the first few are in ``dimensions``."""
    dimensions: tuple[DimensionSummary, ...]
    mean_energy: float
    """Of the chains' last positions."""


def summarise(draws: Tensor, energy: Tensor, failed_at: Tensor, *, max_dims: int = 10) -> DrawsSummary:
    """Summarise draws, a chunk at a time: the memory needed does not grow with their number.

    Chains that failed stand still where the energy was last finite, often far out, so that they are left out.
    Mean and standard deviation are exact; quantiles are up to 2^24 values, of an even subset beyond.

    Args:
        draws: ``[n_chains, n_kept, *event]``.
        energy: ``[n_chains]``, of the last positions.
        failed_at: ``[n_chains]``: the step at which a chain failed, or -1.
        max_dims: How many dimensions to look at. Default 10.

    Returns:
        :class:`DrawsSummary`.

    Example:
        >>> x = torch.arange(5.0).reshape(5, 1, 1)
        >>> summary = summarise(x, torch.zeros(5), torch.full((5,), -1))
        >>> summary.dimensions[0].mean, summary.dimensions[0].quantiles[1]
        (2.0, 2.0)
    """
    alive = failed_at < 0
    n_alive = int(alive.sum())
    event_shape = tuple(draws.shape[2:])
    n_dims = math.prod(event_shape)
    flat = draws.reshape(*draws.shape[:2], n_dims) if len(event_shape) != 1 else draws
    dimensions: list[DimensionSummary] = []
    if n_alive and draws.shape[1]:
        keep = None if n_alive == len(alive) else alive
        for d, label in enumerate(dimension_labels(event_shape, max_dims)):
            dimensions.append(_dimension(label, flat[..., d], keep, n_alive * draws.shape[1]))
    mean_energy = float(energy[alive].double().mean()) if n_alive else math.nan
    return DrawsSummary(n_alive, len(alive) - n_alive, draws.shape[1], n_dims, tuple(dimensions), mean_energy)


def dimension_labels(event_shape: tuple[int, ...], count: int) -> list[str]:
    """``x[0]``, ``x[1]`` ... or ``x[0,0]`` ...: names of the first few dimensions, in row-major order."""
    if not event_shape:
        return ["x"]
    indices = itertools.product(*(range(n) for n in event_shape))
    return [f"x[{','.join(map(str, index))}]" for index in itertools.islice(indices, count)]


def _chunks(column: Tensor, alive: Tensor | None) -> Iterator[Tensor]:
    """The values of ``column [n_chains, n_kept]`` in the rows that are alive, flat, in float64, chain after chain."""
    rows = max(1, _CHUNK // column.shape[1])
    for start in range(0, column.shape[0], rows):
        part = column[start : start + rows]
        if alive is not None:
            part = part[alive[start : start + rows]]
        yield part.reshape(-1).double()


def _dimension(label: str, column: Tensor, alive: Tensor | None, count: int) -> DimensionSummary:
    mean = sum(float(part.sum()) for part in _chunks(column, alive)) / count
    squares = sum(float((part - mean).square().sum()) for part in _chunks(column, alive))
    std = math.sqrt(squares / (count - 1)) if count > 1 else math.nan
    return DimensionSummary(label, mean, std, _quantiles(column, alive, count))


def _quantiles(column: Tensor, alive: Tensor | None, count: int) -> tuple[float, ...]:
    stride = -(-count // _MAX_SORTED)
    while math.gcd(stride, column.shape[1]) != 1:  # else the same few draws of every chain would be taken
        stride += 1
    taken, seen = [], 0
    for part in _chunks(column, alive):
        taken.append(part[-seen % stride :: stride].to(column.dtype))
        seen += len(part)
    values = torch.cat(taken).sort().values  # torch.quantile stops at 2^24 values
    found = []
    for q in QUANTILES:
        position = q * (len(values) - 1)
        low = math.floor(position)
        below, above = (float(values[min(i, len(values) - 1)]) for i in (low, low + 1))
        found.append(below + (position - low) * (above - below))
    return tuple(found)


def summary_table(summary: DrawsSummary) -> Group:
    """The summary for rich to print: a line that says of what, and the table."""
    from rich import box
    from rich.console import Group
    from rich.table import Table

    what = "last positions" if summary.n_kept == 1 else f"{summary.n_kept:,} draws each"
    title = f"{summary.n_chains:,} chains, {what}"
    if summary.n_failed:
        title += f"; {summary.n_failed:,} failed chains left out"
    if not summary.dimensions:
        return Group(title)
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for name in ("", "mean", "std", *(f"{q:.0%}" for q in QUANTILES)):
        table.add_column(name, justify="right" if name else "left", no_wrap=True)
    for row in summary.dimensions:
        table.add_row(row.label, *(f"{value:.4g}" for value in (row.mean, row.std, *row.quantiles)))
    if summary.n_dims > len(summary.dimensions):
        table.add_row(f"and {summary.n_dims - len(summary.dimensions):,} more")
    return Group(title, table)
