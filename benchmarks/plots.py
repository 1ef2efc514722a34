"""The figures of a report as SVG, drawn by matplotlib: each for a wide page and for a narrow one.

One unit of a figure is a pixel at its natural width. Text stays text. Every mark of a number has an id that begins with
``mark-``, so that what is drawn can be counted. The same report gives the same bytes.
"""

from __future__ import annotations

import io
import statistics
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from benchmarks.scaling import curves, exponent
from benchmarks.table import move_of
from benchmarks.timing import ratios

Report = dict[str, Any]

INK, MUTED, LINE = "#1f2328", "#59636e", "#d1d9e0"
COLOURS = {
    "fused": "#d55e00",
    "compiled_ebm": "#d55e00",
    "inductor": "#e69f00",
    "eager": "#cc79a7",
    "auto": "#a65628",
    "jax": "#0072b2",
    "jax-traced": "#332288",
    "plain": "#8c959f",
    "torchebm": "#56b4e9",
    "torchebm-model": "#44aa99",
    "blackjax": "#009e73",
    "numpyro": "#882255",
}
"""By contender, in every figure; after Okabe and Ito, and Tol."""
MARKERS = {
    "fused": "o",
    "compiled_ebm": "o",
    "inductor": "s",
    "eager": "v",
    "auto": "p",
    "torchebm": "^",
    "torchebm-model": "<",
    "plain": ">",
    "jax": "D",
    "jax-traced": "d",
    "blackjax": "D",
    "numpyro": "s",
}
ORDER = tuple(COLOURS)
"""Of contenders, in every figure and table: ours first."""
_FONTS = ["DejaVu Sans", "Verdana", "Helvetica", "Arial", "sans-serif"]
_PRODUCTS = {"tf32x3": "three TF32 products", "tf32": "TF32", "float16": "float16", "bfloat16": "bfloat16"}


@dataclass(frozen=True)
class Size:
    """A width in pixels, its text, and the thickness of a bar."""

    name: str
    width: int
    text: float
    bar: float

    @property
    def narrow(self) -> bool:
        return self.width < 500


WIDE, NARROW = Size("wide", 760, 12, 11), Size("narrow", 360, 11, 10)


@contextmanager
def _style(size: Size) -> Iterator[None]:
    settings: Any = {
        "font.family": "sans-serif",
        "font.sans-serif": _FONTS,
        "font.size": size.text,
        "svg.fonttype": "none",
        "svg.hashsalt": "compiled_ebm",
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.spines.left": False,
        "axes.edgecolor": MUTED,
        "axes.labelcolor": INK,
        "axes.axisbelow": True,
        "axes.grid": True,
        "axes.unicode_minus": False,
        "grid.color": LINE,
        "grid.linewidth": 0.8,
        "text.color": INK,
        "xtick.color": MUTED,
        "xtick.labelcolor": INK,
        "ytick.color": MUTED,
        "ytick.labelcolor": INK,
        "ytick.major.size": 0,
        "ytick.minor.size": 0,
        "xtick.minor.size": 0,
        "xtick.labelsize": size.text,
        "ytick.labelsize": size.text,
        "legend.frameon": False,
        "legend.fontsize": size.text,
        "legend.borderpad": 0,
        "legend.handlelength": 1.4,
        "legend.handletextpad": 0.6,
        "legend.columnspacing": 1.4,
        "savefig.facecolor": "none",
        "lines.linewidth": 1.8,
        "lines.markersize": 6,
    }
    with matplotlib.rc_context(settings):
        yield


def _canvas(size: Size, height: float) -> tuple[Figure, Axes]:
    """A figure so many pixels high, laid out by what is in it."""
    figure = Figure(figsize=(size.width / 72, height / 72), layout="constrained")
    figure.get_layout_engine().set(w_pad=2 / 72, h_pad=6 / 72)  # type: ignore[union-attr, call-arg]
    return figure, figure.add_subplot()


def _plain_number(value: float, _: object = None) -> str:
    for limit, suffix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= limit * 0.9999:
            return f"{value / limit:g}{suffix}"
    return f"{value:g}"


def _times(value: float, _: object = None) -> str:
    return f"{value:g}×"


def _with_unit(seconds: float) -> tuple[float, str]:
    for limit, unit in ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs")):
        if seconds >= limit * 0.9995:
            return seconds / limit, unit
    return seconds * 1e9, "ns"


def seconds_text(seconds: float) -> str:
    """To three digits, with the unit that suits."""
    value, unit = _with_unit(seconds)
    digits = f"{value:,.0f}" if value >= 1000 else f"{value:#.3g}".rstrip(".")
    return f"{digits} {unit}"


def _tick_seconds(seconds: float, _: object = None) -> str:
    value, unit = _with_unit(seconds)
    return f"{value:.3g} {unit}"


def _log_axis(axis: Any, text: Callable[[float, object], str], most: int, each: Sequence[float] = (1.0,)) -> None:
    axis.set_major_locator(LogLocator(10, subs=each, numticks=most))
    axis.set_major_formatter(FuncFormatter(text))
    axis.set_minor_formatter(NullFormatter())


def _legend(figure: Figure, handles: Sequence[Any], size: Size, title: str | None = None, columns: int = 6) -> None:
    found = figure.legend(
        handles=list(handles),
        loc="outside upper left",
        ncols=2 if size.narrow else columns,
        title=title,
        alignment="left",
    )
    found.get_title().set_color(MUTED)


def _rows(axes: Axes, labels: Sequence[str], spread: float = 0.5) -> None:
    """Named rows from the top down."""
    axes.set_yticks(range(len(labels)), labels)
    axes.set_ylim(len(labels) - 1 + spread, -spread)
    axes.grid(False, axis="y")


def _dot(name: str, colour: str | None = None, **style: Any) -> Line2D:
    look: dict[str, Any] = {"marker": MARKERS[name], "linestyle": "none", **style}
    return Line2D([], [], color=colour or COLOURS[name], label=name, **look)


def ordered(names: Iterable[str]) -> list[str]:
    """Each once, ours first."""
    return sorted(set(names), key=ORDER.index)


def speedups(report: Report) -> dict[str, dict[str, float]]:
    """contender -> workload -> how many times TorchEBM's speed, with the geometric mean where all are there."""
    rows = report.get("rows", [])
    workloads = list(dict.fromkeys(row["workload"] for row in rows))
    found = {}
    for contender in ordered(row["contender"] for row in rows):
        found[contender] = ratios(rows, contender, "torchebm")
        if len(workloads) > 1 and len(found[contender]) == len(workloads):
            found[contender]["geometric mean"] = statistics.geometric_mean(found[contender].values())
    return {contender: by_workload for contender, by_workload in found.items() if by_workload}


def throughput(report: Report, size: Size) -> Figure:
    """Bars from 1, TorchEBM's speed, on a logarithmic axis, by workload and contender."""
    found = {contender: values for contender, values in speedups(report).items() if contender != "torchebm"}
    labels = list(dict.fromkeys(workload for values in found.values() for workload in values))
    if "geometric mean" in labels:
        labels = [label for label in labels if label != "geometric mean"] + ["geometric mean"]
    gap = 0.9 * size.bar
    slots = {label: [name for name in found if label in found[name]] for label in labels}
    height = sum(len(names) * size.bar + gap for names in slots.values())
    figure, axes = _canvas(size, height + (95 if size.narrow else 75))
    top, centres = gap / 2, []
    for label, names in slots.items():
        best = max(names, key=lambda name: found[name][label])
        centres.append(top + len(names) * size.bar / 2)
        for name in names:
            ratio = found[name][label]
            (bar,) = axes.barh(top + size.bar / 2, ratio - 1, 0.86 * size.bar, left=1, color=COLOURS[name])
            bar.set_gid(f"mark-{label.replace(' ', '-')}-{name}")
            if name == best:
                axes.annotate(
                    f"{ratio:.1f}×", (ratio, top + size.bar / 2), (4, 0), textcoords="offset points", va="center"
                )
            top += size.bar
        top += gap
    axes.set_xscale("log")
    values = [ratio for by_workload in found.values() for ratio in by_workload.values()]
    axes.set_xlim(min(0.9, 0.9 * min(values)), max(values) * (1.9 if size.narrow else 1.3))
    axes.axvline(1, color=MUTED, linewidth=1)
    axes.set_ylim(top - gap / 2, 0)
    axes.set_yticks(centres, labels)
    axes.grid(False, axis="y")
    _log_axis(axes.xaxis, _times, 9, (1.0,) if size.narrow else (1.0, 2.0, 5.0))
    axes.set_xlabel("times TorchEBM's speed")
    handles = [Patch(color=COLOURS[name], label=name) for name in found]
    _legend(figure, handles, size)
    return figure


def _curves(report: Report, over: str, size: Size, x_label: str, y_label: str) -> Figure:
    figure, axes = _canvas(size, 340 if size.narrow else 400)
    handles = []
    found = curves(report["scaling"], over)
    for name in ordered(found):
        points = found[name]
        slope = exponent(*zip(*points, strict=True))
        (line,) = axes.loglog(*zip(*points, strict=True), color=COLOURS[name], marker=MARKERS[name])
        line.set_gid(f"mark-{over}-{name}")
        label = name if slope is None else f"{name}, {slope:.2f}"
        handles.append(Line2D([], [], color=COLOURS[name], marker=MARKERS[name], label=label))
    _log_axis(axes.xaxis, _plain_number, 9)
    _log_axis(axes.yaxis, _tick_seconds, 12)
    axes.set_xlabel(x_label)
    axes.set_title(y_label, loc="left", fontsize=size.text, color=MUTED)
    _legend(figure, handles, size, "exponent over the last two decades", 5)
    return figure


def scaling_in_chains(report: Report, size: Size) -> Figure:
    """Seconds a step of all chains against their number."""
    return _curves(report, "chains", size, "chains", "time of a step of all chains")


def scaling_in_dimension(report: Report, size: Size) -> Figure:
    """Seconds a chain-step against the dimension."""
    return _curves(report, "dimension", size, "dimension", "time of a step of one chain")


def build(report: Report, size: Size) -> Figure:
    """Cold and cached, joined, by workload and backend."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for row in report["build"]:
        found.setdefault((row["workload"], row["backend"]), {})[row["cache"]] = row
    figure, axes = _canvas(size, len(found) * 22 + (85 if size.narrow else 75))
    for index, ((workload, backend), kinds) in enumerate(found.items()):
        colour = COLOURS[backend]
        axes.plot([row["total"] for row in kinds.values()], [index] * len(kinds), color=colour, linewidth=1.2, zorder=1)
        for kind, row in kinds.items():
            face = colour if kind == "cold" else "white"
            (dot,) = axes.plot(row["total"], index, MARKERS[backend], color=colour, markerfacecolor=face)
            dot.set_gid(f"mark-{workload}-{backend}-{kind}")
    axes.set_xscale("log")
    _log_axis(axes.xaxis, _tick_seconds, 9, (1.0, 3.0) if size.narrow else (1.0, 2.0, 5.0))
    _rows(axes, [workload for workload, _ in found], 0.7)
    axes.set_xlabel("time beyond importing torch" if size.narrow else "time from torch imported to a compiled sampler")
    handles = [
        _dot(backend, markerfacecolor=None if kind == "cold" else "white")
        for backend in dict.fromkeys(backend for _, backend in found)
        for kind in ("cold", "cached")
    ]
    for index, handle in enumerate(handles):
        handle.set_label(f"{handle.get_label()}, {('cold', 'cached')[index % 2]}")
    _legend(figure, handles, size)
    return figure


def effective(report: Report, size: Size) -> Figure:
    """Effective samples a second, by target and move."""
    found: dict[str, dict[str, float]] = {}
    for row in report["effective"]:
        label = f"{row['workload']}{chr(10) if size.narrow else ', '}{move_of(row)}"
        found.setdefault(label, {})[row["contender"]] = row["samples_per_second"]
    figure, axes = _canvas(size, len(found) * (36 if size.narrow else 28) + (90 if size.narrow else 75))
    names = ordered(name for values in found.values() for name in values)
    for index, (label, values) in enumerate(found.items()):
        axes.axhline(index, color=LINE, linewidth=0.8, zorder=0)
        for name, value in values.items():
            apart = 0.18 * (names.index(name) - (len(names) - 1) / 2)  # those of one speed stay apart
            (dot,) = axes.plot(value, index + apart, MARKERS[name], color=COLOURS[name], markersize=7)
            dot.set_gid(f"mark-{label.split(',')[0].split(chr(10))[0]}-{index}-{name}")
    axes.set_xscale("log")
    _log_axis(axes.xaxis, _plain_number, 9)
    _rows(axes, list(found), 0.6)
    axes.set_xlabel("effective samples a second")
    _legend(figure, [_dot(name) for name in names], size)
    return figure


def precision(report: Report, size: Size) -> Figure:
    """Relative errors of scores by kind of product: from the median to 90%, and the worst."""
    rows = report["precision"]
    workloads = list(dict.fromkeys(row["workload"] for row in rows))
    colours = dict(zip(workloads, (COLOURS["jax"], COLOURS["fused"], COLOURS["blackjax"]), strict=False))
    products = list(dict.fromkeys(row["product"] for row in rows))
    figure, axes = _canvas(size, len(products) * (20 + 14 * len(workloads)) + (100 if size.narrow else 80))
    for row in rows:
        offset = (workloads.index(row["workload"]) - (len(workloads) - 1) / 2) * 0.3
        y, colour = products.index(row["product"]) + offset, colours[row["workload"]]
        axes.plot([row["median"], row["ninety"]], [y, y], color=colour, linewidth=4, solid_capstyle="butt", alpha=0.55)
        axes.plot(row["worst"], y, "|", color=colour, markersize=9, markeredgewidth=1.8)
        (dot,) = axes.plot(row["median"], y, "o", color=colour)
        dot.set_gid(f"mark-{row['workload']}-{row['product']}")
    axes.set_xscale("log")
    _log_axis(axes.xaxis, lambda value, _: f"{value:.0e}".replace("e-0", "e-"), 9)
    _rows(axes, [_PRODUCTS.get(product, product) for product in products], 0.6)
    axes.set_xlabel("relative error of a score")
    _legend(
        figure,
        [Line2D([], [], color=colours[name], marker="o", linestyle="none", label=name) for name in workloads],
        size,
    )
    return figure


def document(draw: Callable[[Report, Size], Figure], report: Report, size: Size, description: str | None = None) -> str:
    """A figure as an SVG document, without a date; the description is among its metadata."""
    with _style(size):
        canvas: Any = FigureCanvasSVG(draw(report, size))
        out = io.StringIO()
        metadata = {"Date": None, "Creator": None} | ({"Description": description} if description else {})
        canvas.print_svg(out, metadata=metadata)
        return out.getvalue()
