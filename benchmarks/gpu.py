"""One command for a GPU machine: `python -m benchmarks.gpu`, from a bare checkout, in under 8 minutes.

Runs `pytest -m cuda`, then times TorchEBM eager, the plain loop, JAX and this library on the workloads, in one run, and
writes one JSON. A workload is left out, and said to be, once the time is up; what was measured is always written.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
_TEST_SECONDS = 200
"""What the tests may take of the time."""
_CONTENDERS = ("torchebm", "plain", "jax", "inductor")


def arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("--seconds", type=float, default=460, help="time for everything (default %(default)s)")
    parser.add_argument("--rounds", type=int, default=20, help="timed runs of each contender (default %(default)s)")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the JSON (default %(default)s)")
    parser.add_argument("--no-tests", action="store_true", help="skip pytest -m cuda")
    return parser.parse_args(argv)


def run_tests(seconds: float) -> dict[str, Any]:
    """`pytest -m cuda`: its exit status and the end of its output."""
    command = [sys.executable, "-m", "pytest", "-m", "cuda", "-q", "-x", "--no-header"]
    begin = time.perf_counter()
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=False)
        status, output = done.returncode, done.stdout + done.stderr
    except subprocess.TimeoutExpired as error:
        status, output = -1, (error.stdout or b"").decode(errors="replace") + "\nstopped: out of time"
    return {"exit": status, "seconds": time.perf_counter() - begin, "output": output[-6000:]}


def main(argv: Sequence[str] | None = None) -> int:
    options = arguments(argv)
    deadline = time.perf_counter() + options.seconds
    # JAX would take most of the card's memory at its first use.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    import torch

    if not torch.cuda.is_available():
        print("benchmarks.gpu: expected a CUDA device, found none; python -m benchmarks.cpu measures a CPU")
        return 2
    from benchmarks import contenders
    from benchmarks.cpu import show
    from benchmarks.timing import environment, measure
    from benchmarks.workloads import EXTRAS, TEN

    report: dict[str, Any] = {**environment("cuda"), "rounds": options.rounds, "rows": [], "left_out": []}
    name = re.sub(r"[^A-Za-z0-9]+", "-", report["device"]).strip("-").lower()
    path = options.out / f"{date.today().isoformat()}-{name}.json"
    options.out.mkdir(parents=True, exist_ok=True)
    if not options.no_tests:
        report["tests"] = run_tests(_TEST_SECONDS)
        print(report["tests"]["output"])
    for workload in (*TEN, *EXTRAS):
        if time.perf_counter() > deadline:
            report["left_out"].append(f"{workload.name}: out of time")
            continue
        able = []
        for contender in _CONTENDERS:
            reason = contenders.missing(contender, workload)
            if reason is None:
                able.append(contenders.contender(contender, workload, "cuda"))
            else:
                report["left_out"].append(f"{contender} on {workload.name}: {reason}")
        report["rows"] += measure(workload, able, options.rounds, progress=lambda text: print(text, file=sys.stderr))
        path.write_text(json.dumps(report, indent=1) + "\n")
    path.write_text(json.dumps(report, indent=1) + "\n")
    show(report)
    for line in report["left_out"]:
        print(f"left out: {line}")
    print(f"written: {path}")
    return int(not options.no_tests and report["tests"]["exit"] != 0)


if __name__ == "__main__":
    raise SystemExit(main())
