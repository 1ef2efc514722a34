"""One self-contained HTML page of a report: `python -m benchmarks.page results.json`.

No script, no font, nothing from the network: figures are inline SVG, one for wide and one for narrow windows.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from benchmarks import plots
from benchmarks.plots import NARROW, WIDE, Report, Size, seconds_text
from benchmarks.scaling import curves, exponent
from benchmarks.table import move_of, three_digits
from compiled_ebm.draws.save import atomic_path

_DARK = {
    **plots.COLOURS,
    "jax": "#3d8fe0",
    "jax-traced": "#9a8fe0",
    "torchebm": "#9bd7f7",
    "numpyro": "#d46a9f",
    "auto": "#c98a64",
}
"""Colours on a dark page, where the dark ones would be lost."""
_SHARED = {
    plots.INK: "var(--ink)",
    plots.MUTED: "var(--muted)",
    plots.LINE: "var(--line)",
    "#ffffff": "var(--page)",
    **{colour: f"var(--{name})" for name, colour in plots.COLOURS.items()},
}
_STYLE = """
:root { color-scheme: light dark; --page: #ffffff; --ink: INK; --muted: MUTED; --line: LINE; --band: #f6f8fa; LIGHT }
@media (prefers-color-scheme: dark) {
  :root { --page: #14181d; --ink: #e6eaef; --muted: #9aa4af; --line: #343c45; --band: #1b2027; DARK }
}
* { box-sizing: border-box }
body { margin: 0; background: var(--page); color: var(--ink); font: 16px/1.55 system-ui, "DejaVu Sans", sans-serif }
main { max-width: 960px; margin: 0 auto; padding: 40px 20px 64px }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 0.6rem; letter-spacing: -0.01em }
h2 { font-size: 1.3rem; line-height: 1.3; margin: 3.2rem 0 0.9rem; border-top: 1px solid var(--line) }
h2 { padding-top: 1.2rem }
p, figure { margin: 0 }
.lead { font-size: 1.1rem; margin-bottom: 0.7rem }
.facts, figcaption, .left-out { color: var(--muted); font-size: 0.9rem; overflow-wrap: anywhere }
figcaption { margin: 0.6rem 0 1rem; max-width: 46rem }
figure svg { display: block; width: 100%; height: auto }
figure svg.narrow { display: none; max-width: 480px; margin: 0 auto }
@media (max-width: 719px) {
  main { padding: 24px 20px 48px }
  figure svg.wide { display: none }
  figure svg.narrow { display: block }
  h1 { font-size: 1.5rem }
}
.scroll { overflow-x: auto; border: 1px solid var(--line); border-radius: 6px }
.scroll:focus-visible { outline: 2px solid var(--jax) }
table { border-collapse: collapse; width: 100%; font-size: 0.85rem; font-variant-numeric: tabular-nums }
th, td { padding: 0.4rem 0.7rem; line-height: 1.35; text-align: right; white-space: nowrap; font-weight: 400 }
th:first-child { text-align: left; position: sticky; left: 0; background: var(--page) }
thead th, thead th:first-child { background: var(--band); font-weight: 600; vertical-align: bottom }
tbody tr + tr > * { border-top: 1px solid var(--line) }
small { color: var(--muted); font-size: 1em; font-weight: 400 }
.left-out ul { margin: 0; padding-left: 1.1rem }
"""


def _colours(chosen: dict[str, str]) -> str:
    return " ".join(f"--{name}: {colour};" for name, colour in chosen.items())


def style() -> str:
    """The page's style sheet."""
    named = {"INK": plots.INK, "MUTED": plots.MUTED, "LINE": plots.LINE}
    named |= {"LIGHT": _colours(plots.COLOURS), "DARK": _colours(_DARK)}
    return re.sub(r"\b(INK|MUTED|LINE|LIGHT|DARK)\b", lambda found: named[found[0]], _STYLE)


@dataclass(frozen=True)
class Section:
    """A question and its answer.

    Args:
        name: The figure's id.
        shown: Whether the report has what it needs.
        caption: What was measured, in one sentence.
        table: (heads, rows): the first cell of a row names it.
    """

    name: str
    title: str
    shown: Callable[[Report], bool]
    draw: Callable[[Report, Size], Figure]
    caption: Callable[[Report], str]
    table: Callable[[Report], tuple[Sequence[str], Sequence[Sequence[str]]]]


def inline(document: str, name: str, size: Size, label: str) -> str:
    """An SVG document as a part of a page: ids of its own, the page's colours, the page's width."""
    text = document[document.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    prefix = f"{name}-{size.name}-"
    text = re.sub(r'\bid="(?!mark-)', f'id="{prefix}', text)
    text = re.sub(r'(url\(|xlink:href=")#', rf"\1#{prefix}", text)
    for colour, variable in _SHARED.items():
        text = text.replace(colour, variable)
    box = re.search(r'viewBox="[^"]*"', text)
    assert box is not None
    head = f'<svg class="{size.name}" {box[0]} role="img" aria-label="{escape(label)}"'
    head += ' xmlns:xlink="http://www.w3.org/1999/xlink" xmlns="http://www.w3.org/2000/svg">'
    return head + text[text.index(">") + 1 :].strip()


def html_table(heads: Sequence[str], rows: Sequence[Sequence[str]], label: str) -> str:
    """A table in a box that scrolls by itself; cells are HTML."""
    head = "".join(f'<th scope="col">{cell}</th>' for cell in heads)
    body = "".join(
        f'<tr><th scope="row">{first}</th>{"".join(f"<td>{cell}</td>" for cell in rest)}</tr>\n'
        for first, *rest in rows
    )
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(label)}">'
        f"<table><thead><tr>{head}</tr></thead>\n<tbody>{body}</tbody></table></div>"
    )


def section_html(section: Section, report: Report) -> str:
    """Title, figure, caption, table."""
    drawn = [
        inline(plots.document(section.draw, report, size), section.name, size, section.title) for size in (WIDE, NARROW)
    ]
    return (
        f'<section>\n<h2>{escape(section.title)}</h2>\n<figure id="{section.name}">\n{drawn[0]}\n{drawn[1]}\n'
        f"<figcaption>{escape(section.caption(report))}</figcaption>\n</figure>\n"
        f"{html_table(*section.table(report), section.title)}\n</section>\n"
    )


def _throughput_table(report: Report) -> tuple[Sequence[str], Sequence[Sequence[str]]]:
    rows = {(row["workload"], row["contender"]): row for row in report["rows"]}
    workloads, names = list(dict.fromkeys(workload for workload, _ in rows)), plots.ordered(name for _, name in rows)
    found = plots.speedups(report)

    def cell(workload: str, name: str) -> str:
        row, ratio = rows.get((workload, name)), found.get(name, {}).get(workload)
        if row is None:
            return "–"
        return seconds_text(row["median"]) + ("" if ratio is None else f" <small>({ratio:.1f}×)</small>")

    def named(workload: str) -> str:
        first = next(row for (found_in, _), row in rows.items() if found_in == workload)
        return f"{escape(workload)}<br><small>{first['n_chains']:,} × {first['n_steps']:,}</small>"

    cells = [[named(workload), *(cell(workload, name) for name in names)] for workload in workloads]
    means = [found.get(name, {}).get("geometric mean") for name in names]
    if any(means):
        cells.append(["geometric mean", *("–" if mean is None else f"{mean:.1f}×" for mean in means)])
    return ["workload<br><small>chains × steps</small>", *map(escape, names)], cells


def _throughput_caption(report: Report) -> str:
    return (
        f"Langevin in float32: the time of a run, median of {report['rounds']} interleaved rounds, against TorchEBM's "
        "in the same rounds; building is not in it."
    )


def _scaling_table(over: str) -> Callable[[Report], tuple[Sequence[str], Sequence[Sequence[str]]]]:
    def table(report: Report) -> tuple[Sequence[str], Sequence[Sequence[str]]]:
        by_name = curves(report["scaling"], over)
        found = {name: dict(by_name[name]) for name in plots.ordered(by_name)}
        sizes = sorted({size for points in found.values() for size in points})
        cells = [
            [f"{size:,}", *(seconds_text(points[size]) if size in points else "–" for points in found.values())]
            for size in sizes
        ]
        slopes = [exponent(list(points), list(points.values())) for points in found.values()]
        cells.append(["exponent", *("–" if slope is None else f"{slope:.2f}" for slope in slopes)])
        return [over, *map(escape, found)], cells

    return table


def _of(report: Report, over: str) -> str:
    """The workload of a curve, with its dimension where that stays."""
    rows = [row for row in report["scaling"] if row.get("over", "chains") == over]
    dimensions = {row.get("dimension") for row in rows}
    where = f" in {dimensions.pop()}-d" if len(dimensions) == 1 and None not in dimensions else ""
    return " and ".join(dict.fromkeys(row["workload"] for row in rows)) + where


def _chains_caption(report: Report) -> str:
    return (
        f"Langevin on the energy {_of(report, 'chains')}: the time of one step of all chains, from runs timed whole, "
        "against the number of chains; an exponent is the slope over the last two decades."
    )


def _dimension_caption(report: Report) -> str:
    most = max(row["n_chains"] * row["dimension"] for row in report["scaling"] if row.get("over") == "dimension")
    return (
        f"Langevin on the energy {_of(report, 'dimension')}: the time of one step of one chain against the dimension, "
        f"with {most:,} elements over all chains; an exponent is the slope over the last two decades."
    )


def _build_table(report: Report) -> tuple[Sequence[str], Sequence[Sequence[str]]]:
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for row in report["build"]:
        found.setdefault((row["workload"], row["backend"]), {})[row["cache"]] = row
    figures = (("total", "total"), ("trace", "tracing"), ("compile", "compiling"), ("processor", "processor"))
    cells = [
        [escape(workload), backend, *(f"{kinds[kind][figure]:.2f}" for kind in kinds for figure, _ in figures)]
        for (workload, backend), kinds in found.items()
    ]
    return ["workload", "backend", *(f"{kind}<br>{said}" for kind in ("cold", "cached") for _, said in figures)], cells


def _build_caption(report: Report) -> str:
    processes = len(report["build"][0]["totals"])
    return (
        "Seconds from torch imported to a compiled sampler, with an empty cache of kernels (cold) and in a second "
        f"process (cached), medians of {processes} processes; the processor's time has the compiler's in it."
    )


def _effective_table(report: Report) -> tuple[Sequence[str], Sequence[Sequence[str]]]:
    rows = {(row["workload"], move_of(row), row["contender"]): row for row in report["effective"]}
    names = plots.ordered(name for _, _, name in rows)

    def cell(row: dict[str, Any] | None) -> str:
        if row is None:
            return "–"
        ours = "" if row["ours_over_this"] == 1 else f" <small>(ours {row['ours_over_this']:.1f}×)</small>"
        return f"{three_digits(row['samples_per_second'])}{ours}"

    problems = list(dict.fromkeys((workload, move) for workload, move, _ in rows))
    cells = [[escape(w), escape(move), *(cell(rows.get((w, move, name))) for name in names)] for w, move in problems]
    return ["target", "move", *map(escape, names)], cells


def _effective_caption(report: Report) -> str:
    return (
        "Effective samples a second of the coordinate, or the energy, that needs most steps, with the same target, "
        "move, step size and chains for all, in float32 and without adaptation; all were seen to draw the same law."
    )


def _precision_table(report: Report) -> tuple[Sequence[str], Sequence[Sequence[str]]]:
    cells = [
        [escape(row["workload"]), row["product"], *(f"{row[key]:.1e}" for key in ("median", "ninety", "worst"))]
        for row in report["precision"]
    ]
    return ["workload", "products", "median", "90%", "worst"], cells


def _precision_caption(report: Report) -> str:
    return (
        "Relative error of a chain's score where the factors of its matrix products are rounded as a GPU's tensor "
        "cores take them and all else is float64: the dot is the median, the bar reaches to 90%, the tick is the worst."
    )


SECTIONS = (
    Section(
        "throughput",
        "Throughput",
        lambda report: len(plots.speedups(report)) > 1,
        plots.throughput,
        _throughput_caption,
        _throughput_table,
    ),
    Section(
        "chains",
        "Scaling in chains",
        lambda report: bool(curves(report.get("scaling", []), "chains")),
        plots.scaling_in_chains,
        _chains_caption,
        _scaling_table("chains"),
    ),
    Section(
        "dimension",
        "Scaling in the dimension",
        lambda report: bool(curves(report.get("scaling", []), "dimension")),
        plots.scaling_in_dimension,
        _dimension_caption,
        _scaling_table("dimension"),
    ),
    Section("build", "Building", lambda report: bool(report.get("build")), plots.build, _build_caption, _build_table),
    Section(
        "effective",
        "Effective samples",
        lambda report: bool(report.get("effective")),
        plots.effective,
        _effective_caption,
        _effective_table,
    ),
    Section(
        "precision",
        "Precision",
        lambda report: bool(report.get("precision")),
        plots.precision,
        _precision_caption,
        _precision_table,
    ),
)


def shown(report: Report) -> list[Section]:
    """Those that the report has something for."""
    return [section for section in SECTIONS if section.shown(report)]


def lead(report: Report) -> str:
    """The figure to know first."""
    values = plots.speedups(report).get("fused", {})
    mean = values.get("geometric mean")
    if report.get("quick"):
        return "<p class=lead>Everything runs; these sizes are too small to say how fast.</p>\n"
    if mean is None:
        return ""
    n, least = len(values) - 1, min(values.values())
    return (
        f"<p class=lead>The fused backend runs {mean:.1f} times as fast as TorchEBM by the geometric mean of {n} "
        f"workloads, {least:.1f} times on the one where it gains least.</p>\n"
    )


def page(report: Report) -> str:
    """The page of a report, also of one that has only some of the sections."""
    device = report["cpu"] if report["device"] == "cpu" else f"{report['device']}; {report['cpu']}"
    versions = ", ".join(f"{name} {version}" for name, version in report["versions"].items() if version)
    facts = (
        f"{device}, {report['threads']} of {report['cores']} cores, {report['vector']}; Python {report['python']}, "
        f"{versions}; {report['date'][:10]}."
    )
    title = f"compiled_ebm on {report['cpu'] if report['device'] == 'cpu' else report['device']}"
    left_out = [*report.get("left_out", []), *(line.splitlines()[0] for line in report.get("errors", []))]
    missing = "".join(f"<li>{escape(line)}</li>" for line in left_out)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{style()}</style>\n</head>\n<body>\n<main>\n"
        f"<h1>{escape(title)}</h1>\n{lead(report)}<p class=facts>{escape(facts)}</p>\n"
        + "".join(section_html(section, report) for section in shown(report))
        + (f"<section class=left-out>\n<h2>Left out</h2>\n<ul>{missing}</ul>\n</section>\n" if missing else "")
        + "</main>\n</body>\n</html>\n"
    )


def read(path: Path) -> Report:
    """A report; one of `benchmarks.effective` alone has its rows where a whole one has them."""
    report: Report = json.loads(path.read_text())
    if report.get("rows") and "samples_per_second" in report["rows"][0]:
        report["effective"] = report.pop("rows")
    return report


def write_page(path: Path) -> Path:
    """The page of the report at `path`, beside it."""
    to = path.with_suffix(".html")
    with atomic_path(to) as unfinished:
        unfinished.write_text(page(read(path)))
    return to


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.page", description=__doc__)
    parser.add_argument("reports", type=Path, nargs="+", help="JSON files of the benchmarks")
    for path in parser.parse_args(argv).reports:
        print(write_page(path))


if __name__ == "__main__":
    main()
