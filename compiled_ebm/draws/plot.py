"""A picture of the draws: where they are, and for two-dimensional energies, how the energy lies under them."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from compiled_ebm.draws.save import atomic_path, check_directory
from compiled_ebm.draws.summary import dimension_labels

__all__ = ["check_plot", "density_plot"]

_MAX_POINTS = 10_000_000
"""Positions that are binned; beyond, an even subset, which looks the same."""
_MAX_PANELS = 6
_GRID = 200
"""Points a side at which the energy is evaluated for its contours."""
_SHARES = (0.1, 0.5, 0.9, 0.99)
"""Contours are drawn at the energies that these shares of the draws lie below."""
_TAIL = 0.001
"""The share of draws that each edge of the picture cuts off, so that an outlier does not shrink the rest to a dot."""


def check_plot(path: str | os.PathLike[str]) -> None:
    """Raise now what :func:`density_plot` would raise after the run: library, kind of file, directory.

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: Naming the path, what was expected, and what to do.
    """
    target = Path(path)
    kinds = _figure().canvas.get_supported_filetypes()
    if target.suffix.lower().removeprefix(".") not in kinds:
        raise ValueError(f"{target}: expected a file name that ends in .png, .pdf or .svg, got {target.name!r}")
    check_directory(target)


def density_plot(
    path: str | os.PathLike[str],
    x: Tensor,
    energy_fn: Callable[[Tensor], Tensor] | None = None,
    *,
    name: str = "",
) -> None:
    """Draw the density of positions into an image file, whole or not at all.

    One dimension: a histogram. Two: a two-dimensional histogram, with contours of the energy. More: histograms of the
    first six marginals.

    Args:
        path: Ends in .png, .pdf, .svg or another kind that matplotlib writes.
        x: Positions ``[n, *event]``, n >= 1, finite, on any device.
        energy_fn: ``[n, 2] -> [n]``, for the contours of two-dimensional events; None for none.
        name: Of the energy, for the title.

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: There are no positions.
        OSError: The file cannot be written; nothing of it is left.

    Example:
        >>> density_plot("density.png", torch.randn(1000, 2), lambda x: 0.5 * x.square().sum(-1))  # doctest: +SKIP
    """
    if x.shape[0] < 1:
        raise ValueError("x: expected at least one position, got none")
    target = Path(path)
    event_shape = tuple(x.shape[1:])
    stride = -(-x.shape[0] // _MAX_POINTS)
    points = x[::stride].reshape(-1, math.prod(event_shape)).double().cpu()
    figure = _figure()
    if event_shape == (2,):
        _plane(figure, points, energy_fn)
    else:
        _marginals(figure, points[:, :_MAX_PANELS], dimension_labels(event_shape, _MAX_PANELS))
    title = f"{x.shape[0]:,} draws" if x.shape[0] > 1 else "1 draw"
    n_dims = math.prod(event_shape)
    if n_dims > _MAX_PANELS:
        title += f", the first {_MAX_PANELS} of {n_dims:,} dimensions"
    figure.suptitle(f"{name}: {title}" if name else title)
    with atomic_path(target) as temporary:
        figure.savefig(temporary, format=target.suffix.lower().removeprefix("."), dpi=150)


def _figure() -> Any:
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("plots need matplotlib: pip install matplotlib") from error
    figure = Figure(figsize=(6.4, 5.2), layout="constrained")  # not pyplot: no window, no global state
    FigureCanvasAgg(figure)
    return figure


def _range(column: Tensor) -> tuple[float, float]:
    """The interval that holds all but the outermost values, with a margin."""
    ordered = column.sort().values
    cut = int(_TAIL * (len(ordered) - 1))
    low, high = float(ordered[cut]), float(ordered[len(ordered) - 1 - cut])
    margin = 0.08 * (high - low) or max(1e-3 * abs(low), 0.5)  # all equal: still an interval
    return low - margin, high + margin


def _bins(wanted: float) -> int:
    """Bins a side: between what can be seen and what a screen can show."""
    return max(20, min(120, int(wanted)))


def _plane(figure: Any, points: Tensor, energy_fn: Callable[[Tensor], Tensor] | None) -> None:
    import numpy as np
    from matplotlib.lines import Line2D
    from matplotlib.patheffects import withStroke

    axes = figure.add_subplot()
    xs, ys = (_range(points[:, d]) for d in (0, 1))
    counts, x_edges, y_edges = np.histogram2d(
        points[:, 0].numpy(),
        points[:, 1].numpy(),
        bins=_bins(math.sqrt(len(points) / 10)),
        range=[xs, ys],
        density=True,
    )
    image = axes.pcolormesh(x_edges, y_edges, counts.T, cmap="cividis", rasterized=True)
    figure.colorbar(image, ax=axes, label="density of the draws")
    if energy_fn is not None:
        across, up = (torch.linspace(*ends, _GRID, dtype=torch.float64) for ends in (xs, ys))
        grid = torch.cartesian_prod(across, up)
        surface = energy_fn(grid).detach().double().cpu().reshape(_GRID, _GRID).T
        at_draws = energy_fn(points[:: -(-len(points) // 10_000)]).detach().double().cpu()
        at_draws = at_draws[at_draws.isfinite()]
        levels = sorted(set(at_draws.quantile(at_draws.new_tensor(_SHARES)).tolist())) if len(at_draws) else []
        if levels and bool(surface.isfinite().any()):
            halo = [withStroke(linewidth=1.8, foreground="black", alpha=0.5)]  # readable on bright and dark
            style = {"colors": "white", "linewidths": 0.8, "linestyles": "solid"}
            lines = axes.contour(across, up, np.ma.masked_invalid(surface.numpy()), levels=levels, **style)
            lines.set_path_effects(halo)
            shares = ", ".join(f"{100 * share:.0f}" for share in _SHARES)
            handle = Line2D([], [], color="white", linewidth=0.8, path_effects=halo)
            text = f"energies below which {shares} % of the draws lie"
            figure.legend([handle], [text], loc="outside lower center", frameon=False)
    axes.set(xlabel="x[0]", ylabel="x[1]", xlim=xs, ylim=ys)
    width, height = xs[1] - xs[0], ys[1] - ys[0]
    if 2 / 3 < width / height < 3 / 2:
        axes.set_aspect("equal")


def _marginals(figure: Any, points: Tensor, labels: list[str]) -> None:
    n_panels = len(labels)
    n_columns = 2 if n_panels == 4 else min(3, n_panels)
    n_rows = -(-n_panels // n_columns)
    if n_panels > 1:
        figure.set_size_inches(3.2 * n_columns, 0.6 + 2.6 * n_rows)
    bins = _bins(2 * len(points) ** (1 / 3))  # Rice's rule
    panels = figure.subplots(n_rows, n_columns, squeeze=False).flat
    for d, axes in enumerate(panels):
        if d >= n_panels:
            axes.set_visible(False)
            continue
        column = points[:, d]
        axes.hist(column.numpy(), bins=bins, range=_range(column), density=True, color="#00467f")
        axes.set(xlabel=labels[d], ylabel="density of the draws" if d % n_columns == 0 else "")
