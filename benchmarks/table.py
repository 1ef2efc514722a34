"""The README's tables and pictures, made from the newest result of each device: `python -m benchmarks.table`."""

from __future__ import annotations

import json
import re
import statistics
from pathlib import Path
from typing import Any

from benchmarks.report import RESULTS
from benchmarks.timing import ratios
from compiled_ebm.draws.save import atomic_path

README = Path(__file__).parent.parent / "README.md"
_BEGIN, _END = "<!-- {}:begin -->", "<!-- {}:end -->"


def newest() -> list[tuple[str, dict[str, Any]]]:
    """(file name, report) of the newest result of each device that has a table, by the date in the file."""
    found: dict[str, tuple[str, dict[str, Any]]] = {}
    for path in RESULTS.glob("*.json"):
        report = json.loads(path.read_text())
        if not report["rows"] or report.get("quick"):
            continue
        known = found.get(report["device"])
        if known is None or known[1]["date"] < report["date"]:
            found[report["device"]] = (path.name, report)
    return [found[device] for device in sorted(found)]


def picture_name(report: dict[str, Any]) -> str:
    """Of the file in the folder of results: one a device, whatever the date."""
    device = re.sub(r"[^a-z0-9]+", "-", report["device"].lower()).strip("-")
    return f"speed-{device}.svg"


def picture(name: str, report: dict[str, Any]) -> str:
    """One report's speeds as an SVG document; what it was drawn from is among its metadata."""
    from benchmarks import plots

    drawn_from = json.dumps({"results": name, "speedups": plots.speedups(report)})
    return plots.document(plots.throughput, report, plots.WIDE, drawn_from)


def markdown(name: str, report: dict[str, Any]) -> str:
    """One report as a table: median seconds, and in brackets how many times TorchEBM's speed."""
    rows = {(row["workload"], row["contender"]): row for row in report["rows"]}
    workloads, contenders = (list(dict.fromkeys(key[i] for key in rows)) for i in (0, 1))
    machine = report["device"] if report["device"] != "cpu" else report["cpu"]
    versions = ", ".join(f"{k} {v}" for k, v in report["versions"].items() if v and k != "compiled_ebm")
    lines = [
        f"{machine}, {report['threads']} CPU threads; {versions}; medians of {report['rounds']} interleaved rounds, "
        f"seconds, and times TorchEBM's speed; build time apart (`benchmarks/results/{name}`).",
        "",
        "| workload | chains × steps | " + " | ".join(contenders) + " |",
        "| --- " * (2 + len(contenders)) + "|",
    ]
    for workload in workloads:
        first = next(row for (w, _), row in rows.items() if w == workload)
        cells = [workload, f"{first['n_chains']:,} × {first['n_steps']:,}"]
        for contender in contenders:
            row = rows.get((workload, contender))
            ratio = "" if row is None or row["ratio"] is None else f" ({row['ratio']:.1f}×)"
            cells.append("–" if row is None else f"{row['median']:.3g}{ratio}")
        lines.append("| " + " | ".join(cells) + " |")
    means = ["geometric mean", ""]
    for contender in contenders:
        found = ratios(report["rows"], contender, "torchebm")
        means.append(f"{statistics.geometric_mean(found.values()):.1f}×" if found else "–")
    lines.append("| " + " | ".join(means) + " |")
    return "\n".join(lines)


def newest_effective() -> tuple[str, dict[str, Any], list[dict[str, Any]]]:
    """(path in the folder of results, report, rows) of the newest result with effective samples."""
    found = []
    for path in RESULTS.rglob("*.json"):
        report = json.loads(path.read_text())
        rows = report["rows"] if path.parent.name == "effective" else report.get("effective")
        if rows and not report.get("quick"):
            found.append((path.relative_to(RESULTS).as_posix(), report, rows))
    return max(found, key=lambda entry: entry[1]["date"])


def move_of(row: dict[str, Any]) -> str:
    """A row's move, in words."""
    leaps = f", {row['n_leapfrog_steps']} leaps" if row["move"] == "hmc" else ""
    return f"{row['move'].upper()}{leaps}"


def three_digits(value: float) -> str:
    """A large number, rounded to three digits."""
    return f"{float(f'{value:.3g}'):,.0f}"


def markdown_effective(name: str, report: dict[str, Any], rows: list[dict[str, Any]]) -> str:
    """Effective samples a second as a table, and in brackets how many times each other library's is ours."""
    found = {(row["workload"], move_of(row), row["contender"]): row for row in rows}
    contenders = list(dict.fromkeys(contender for _, _, contender in found))
    heads = [f"{contender} {report['versions'].get(contender) or ''}".strip() for contender in contenders]
    beside = f", {report['note']}" if "note" in report else ""
    lines = [
        f"{report['cpu']}, {report['threads']} CPU threads{beside}; medians of {report['rounds']} interleaved rounds "
        f"(`benchmarks/results/{name}`).",
        "",
        "| target | move | " + " | ".join(heads) + " |",
        "| --- " * (2 + len(heads)) + "|",
    ]
    for workload, move in dict.fromkeys((workload, move) for workload, move, _ in found):
        cells = [workload, move]
        for contender in contenders:
            row = found[workload, move, contender]
            ours = "" if row["ours_over_this"] == 1 else f" (ours {row['ours_over_this']:.1f}×)"
            cells.append(three_digits(row["samples_per_second"]) + ours)
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _between(text: str, marker: str, content: str) -> str:
    begin, end = _BEGIN.format(marker), _END.format(marker)
    head, rest = text.split(begin)
    return f"{head}{begin}\n{content}\n{end}{rest.split(end)[1]}"


def updated(text: str) -> str:
    """The README's text with its tables made anew."""
    parts = []
    for name, report in newest():
        alt = f"Times TorchEBM's speed, by workload, on {report['device']}"
        parts += [f"![{alt}](benchmarks/results/{picture_name(report)})", markdown(name, report)]
    text = _between(text, "benchmarks", "\n\n".join(parts))
    return _between(text, "effective", markdown_effective(*newest_effective()))


def _write(path: Path, text: str) -> None:
    with atomic_path(path) as unfinished:
        unfinished.write_text(text)


def newest_on(device: str) -> tuple[str, dict[str, Any]]:
    """That of one device.

    Raises:
        StopIteration: There is none.
    """
    return next((name, report) for name, report in newest() if report["device"] == device)


def main() -> None:
    _write(README, updated(README.read_text()))
    for name, report in newest():
        _write(RESULTS / picture_name(report), picture(name, report))


if __name__ == "__main__":
    main()
