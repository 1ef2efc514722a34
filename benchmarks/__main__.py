"""Every question on a CPU, one process each: `python -m benchmarks --threads 2`.

Writes `results/<date>-<machine>.json` after each question, and a page with its figures beside it. Where that file is
there already, from the same machine, versions and rounds, what is asked again replaces its part and the rest stays.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from benchmarks import effective
from benchmarks.report import RESULTS, machine, write

_ROOT = Path(__file__).parent.parent
_SAME = ("cpu", "threads", "vector", "python", "versions", "rounds", "quick")


@dataclass(frozen=True)
class Question:
    """A module with ``--json``, what it is told, and where its rows go.

    Args:
        section: Of the whole report.
        commands: Each a module and its arguments; rows of several are joined.
        written: What the rows are called in the module's own report.
        timed: It takes ``--threads`` and ``--rounds``.
        requires: Packages without which it is left out.
    """

    section: str
    commands: tuple[tuple[str, ...], ...]
    written: str
    timed: bool = True
    requires: tuple[str, ...] = ()


QUESTIONS = {
    "throughput": Question("rows", (("benchmarks.cpu",),), "rows"),
    "scaling": Question("scaling", (("benchmarks.scaling",),), "scaling"),
    "build": Question(
        "build",
        (("benchmarks.build", "--workloads", "all"), ("benchmarks.build", "--backend", "inductor")),
        "build",
    ),
    "effective": Question("effective", (("benchmarks.effective",),), "rows", requires=effective.REQUIRES),
    "precision": Question("precision", (("benchmarks.precision",),), "precision", timed=False),
}


def arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--threads", type=int, help="CPUs for every contender (default: all that this process may use)")
    parser.add_argument("--rounds", type=int, default=5, help="timed runs of each contender (default %(default)s)")
    parser.add_argument("--only", default="", help=f"comma-separated, of {' '.join(QUESTIONS)} (default: all)")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of JSON and page (default %(default)s)")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to see that all of it runs")
    options = parser.parse_args(argv)
    for name in ("rounds", "threads"):
        if getattr(options, name) is not None and getattr(options, name) < 1:
            parser.error(f"--{name} must be at least 1")
    options.questions = [name for name in options.only.split(",") if name] or list(QUESTIONS)
    for name in options.questions:
        if name not in QUESTIONS:
            parser.error(f"unknown question {name!r}: choose from {', '.join(QUESTIONS)}")
    return options


def begun(path: Path, report: dict[str, Any]) -> dict[str, Any]:
    """The report that is at `path` already, if it is one of these; else `report`.

    Raises:
        ValueError: What is there was measured otherwise.
    """
    if not path.exists():
        return report
    known: dict[str, Any] = json.loads(path.read_text())
    for key in _SAME:
        if known.get(key) != report.get(key):
            raise ValueError(
                f"{path}: expected {key} {report.get(key)!r}, got {known.get(key)!r}: choose another folder by --out"
            )
    return known


def ask(question: Question, options: argparse.Namespace) -> dict[str, Any]:
    """Run a question's commands: its rows and what else they tell; `errors` where a process failed."""
    found: dict[str, Any] = {question.section: [], "left_out": [], "errors": [], "versions": {}}
    common = ["--quick"] if options.quick else []
    if question.timed:
        common += ["--rounds", str(options.rounds)]
        common += ["--threads", str(options.threads)] if options.threads else []
    for module, *told in question.commands[:1] if options.quick else question.commands:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "report.json"
            command = [sys.executable, "-m", module, *told, *common, "--json", str(path)]
            status = subprocess.run(command, cwd=_ROOT, check=False).returncode
            if status != 0:
                found["errors"].append(f"{' '.join(command[1:-2])}: exit status {status}")
            part = json.loads(path.read_text()) if path.exists() else {}
        found[question.section] += part.get(question.written, [])
        found["left_out"] += part.get("left_out", [])
        found["versions"] |= part.get("versions", {})
        found |= {key: part[key] for key in ("exponents",) if key in part}
    return found


def take(report: dict[str, Any], name: str, found: dict[str, Any]) -> None:
    """Put what a question found into the report, in place of what it found before."""
    versions = found.pop("versions")
    report["versions"] |= {package: version for package, version in versions.items() if version}
    for key in ("left_out", "errors"):
        before = [line for line in report[key] if not line.startswith(f"{name}: ")]
        report[key] = before + [f"{name}: {line}" for line in found.pop(key)]
    report |= {key: rows for key, rows in found.items() if rows or key not in report}  # a process may have failed


def main(argv: Sequence[str] | None = None) -> int:
    options = arguments(argv)
    from compiled_ebm.laboratory.machine import environment, package_version

    report: dict[str, Any] = {**environment(), "rounds": options.rounds, "quick": options.quick}
    report |= {"threads": options.threads or report["threads"], "rows": [], "left_out": [], "errors": []}
    report["versions"] |= {name: package_version(name) for name in effective.REQUIRES}
    options.out.mkdir(parents=True, exist_ok=True)
    quick = "-quick" if options.quick else ""
    path = options.out / f"{date.today().isoformat()}-{machine(report['cpu'], report['threads'])}{quick}.json"
    try:
        report = begun(path, report)
    except ValueError as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        return 2
    for name in options.questions:
        question = QUESTIONS[name]
        missing = [package for package in question.requires if find_spec(package) is None]
        if missing:
            reason = f"needs {', '.join(missing)} (pip install '.[peers]')"
            found: dict[str, Any] = {"left_out": [reason], "errors": [], "versions": {}}
        else:
            found = ask(question, options)
        take(report, name, found)
        write(path, report)
    for key in ("left_out", "errors"):
        for line in report[key]:
            print(f"{key.replace('_', ' ')}: {line}")
    print(f"written: {path}")
    if find_spec("matplotlib") is None:
        print("no page: it needs matplotlib (pip install '.[plot]')")
    else:
        from benchmarks.page import write_page

        print(f"written: {write_page(path)}")
    return int(bool(report["errors"]))


if __name__ == "__main__":
    raise SystemExit(main())
