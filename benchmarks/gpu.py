"""One command for a GPU machine: `python -m benchmarks.gpu`, from a bare checkout, in under 8 minutes.

Runs the tests that need a CUDA device, then times TorchEBM eager, the plain loop, JAX and this library on the
workloads, in one run, and writes one JSON. What is left out, for want of time or of a package, is said to be; what was
measured is always written.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import date
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from benchmarks.figures import Figure

RESULTS = Path(__file__).parent / "results"
TESTS = Path(__file__).parent.parent / "tests"
_QUICK_TEST_SECONDS = 150.0
"""What the quick tests may take of the time; the slow ones come last, in what is left."""
_CONTENDERS = ("torchebm", "plain", "jax", "fused", "inductor")
_SCALING = ((10_000, 1000), (1_000_000, 200), (10_000_000, 50))
_FIRST = ("double-well", "mlp-2-64-1", "conv")


def arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("--seconds", type=float, default=460, help="time for everything (default %(default)s)")
    parser.add_argument("--rounds", type=int, default=20, help="timed runs of each contender (default %(default)s)")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the JSON (default %(default)s)")
    parser.add_argument("--no-tests", action="store_true", help="skip the tests marked cuda")
    return parser.parse_args(argv)


def figures() -> list[Figure]:
    """What is measured, the most wanted first."""
    from benchmarks.figures import Figure
    from benchmarks.workloads import EXTRAS, TEN, WORKLOADS

    mlp = WORKLOADS["mlp-2-64-1"]
    rest = [workload for workload in (*TEN, *EXTRAS) if workload.name not in _FIRST]
    return [
        *(Figure(WORKLOADS[name], _CONTENDERS, wanted=True) for name in _FIRST),
        *(Figure(replace(mlp, n_chains=n, n_steps=steps), ("fused",), "scaling", wanted=True) for n, steps in _SCALING),
        *(Figure(workload, _CONTENDERS) for workload in rest),
    ]


def cuda_test_files() -> list[str]:
    """Files with a test marked ``cuda``: the others may need packages that a GPU machine does not have."""
    return sorted(str(path) for path in TESTS.glob("test_*.py") if "mark.cuda" in path.read_text())


def run_tests(marks: str, seconds: float) -> dict[str, Any]:
    """The tests with these marks: pytest's exit status, or None without pytest or time, and its output's end."""
    if find_spec("pytest") is None:
        return {"marks": marks, "exit": None, "seconds": 0.0, "output": "pytest is not installed"}
    command = [sys.executable, "-m", "pytest", *cuda_test_files(), "-m", marks, "-v", "--no-header", "--tb=short"]
    begin = time.perf_counter()
    status: int | None
    try:
        done = subprocess.run(command, cwd=TESTS.parent, capture_output=True, text=True, timeout=seconds, check=False)
        status, output = done.returncode, done.stdout + done.stderr
    except subprocess.TimeoutExpired as error:
        said = error.stdout or b""
        status = None
        output = (said.decode(errors="replace") if isinstance(said, bytes) else said) + "\nstopped: out of time"
    counts = {word: len(re.findall(rf" {word.upper()}\b", output)) for word in ("passed", "failed", "skipped")}
    took = time.perf_counter() - begin
    return {"marks": marks, "exit": status, "seconds": took, "counts": counts, "output": output[-8000:]}


def succeeded(report: dict[str, Any]) -> bool:
    """Whether no test failed and nothing unexpected happened; what was left out is no failure."""
    tests = report.get("tests", [])
    return not report["errors"] and all(t["exit"] in (0, None) and not t.get("counts", {}).get("failed") for t in tests)


def main(argv: Sequence[str] | None = None) -> int:
    options = arguments(argv)
    deadline = time.perf_counter() + options.seconds
    # JAX would take most of the card's memory at its first use.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    # Inductor's worker pool goes on starting for tens of seconds after a compile and would share the timed cores.
    os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")
    import torch

    if not torch.cuda.is_available():
        print("benchmarks.gpu: expected a CUDA device, found none; python -m benchmarks.cpu measures a CPU")
        return 2
    from benchmarks import contenders
    from benchmarks.device import device_seconds, launch_row
    from benchmarks.figures import Session, summary
    from benchmarks.table import markdown
    from compiled_ebm.laboratory.machine import environment, package_version

    report: dict[str, Any] = {**environment("cuda"), "rounds": options.rounds, "tests": []}
    report["versions"]["triton"] = package_version("triton")
    name = re.sub(r"[^A-Za-z0-9]+", "-", report["device"]).strip("-").lower()
    options.out.mkdir(parents=True, exist_ok=True)
    session = Session(
        report,
        options.out / f"{date.today().isoformat()}-{name}.json",
        deadline,
        options.rounds,
        make=partial(contenders.contender, device="cuda"),
        missing=partial(contenders.missing, device="cuda"),
        timed=device_seconds,
        launch=launch_row,
        progress=lambda text: print(text, file=sys.stderr),
    )

    def test(marks: str, seconds: float) -> None:
        if options.no_tests or seconds < 1:
            return
        report["tests"].append(run_tests(marks, seconds))
        print(report["tests"][-1]["output"])
        session.write()

    test("cuda and not slow", min(_QUICK_TEST_SECONDS, options.seconds / 2))
    session.run(figures())
    test("cuda and slow", deadline - time.perf_counter())
    if report["rows"]:
        report["rounds"] = min(row["rounds"] for row in report["rows"])  # of any of them
        session.write()
        print(markdown(session.path.name, report))
    print(summary(report))
    for line in report["left_out"]:
        print(f"left out: {line}")
    for line in report["errors"]:
        print(f"error: {line}")
    print(f"written: {session.path}")
    return int(not succeeded(report))


if __name__ == "__main__":
    raise SystemExit(main())
