"""The README's table, made from the newest result of each device: `python -m benchmarks.table`."""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

from benchmarks.timing import ratios

README = Path(__file__).parent.parent / "README.md"
RESULTS = Path(__file__).parent / "results"
_BEGIN, _END = "<!-- benchmarks:begin -->", "<!-- benchmarks:end -->"


def newest() -> list[tuple[str, dict[str, Any]]]:
    """(file name, report) of the newest result of each device, by the date in the file."""
    found: dict[str, tuple[str, dict[str, Any]]] = {}
    for path in RESULTS.glob("*.json"):
        report = json.loads(path.read_text())
        known = found.get(report["device"])
        if known is None or known[1]["date"] < report["date"]:
            found[report["device"]] = (path.name, report)
    return [found[device] for device in sorted(found)]


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


def updated(text: str) -> str:
    """The README's text with its table made anew."""
    head, rest = text.split(_BEGIN)
    tail = rest.split(_END)[1]
    tables = "\n\n".join(markdown(name, report) for name, report in newest())
    return f"{head}{_BEGIN}\n{tables}\n{_END}{tail}"


def main() -> None:
    README.write_text(updated(README.read_text()))


if __name__ == "__main__":
    main()
