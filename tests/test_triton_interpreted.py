"""Triton's kernels without a GPU: the tests of tests/interpreted in a process of their own, under the interpreter."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ONE_THREAD = {"OMP_NUM_THREADS": "1"}
"""Blocks of some chains are small: threads would only wait for each other."""


def run_folder(marked: str) -> None:
    """Triton decides at import whether kernels are interpreted, so that this process cannot do both."""
    pytest.importorskip("triton")
    command = [sys.executable, "-m", "pytest", str(HERE / "interpreted"), "-q", "--no-header", "-m", marked]
    done = subprocess.run(
        command,
        cwd=HERE.parent,
        env={**os.environ, "TRITON_INTERPRET": "1", **ONE_THREAD},
        capture_output=True,
        text=True,
        check=False,
    )
    print(done.stdout, done.stderr)  # shown if the assertions fail
    assert done.returncode == 0
    assert " passed" in done.stdout and " skipped" not in done.stdout


def test_kernels_under_tritons_interpreter() -> None:
    run_folder("not slow")


@pytest.mark.slow
def test_slow_ones_too() -> None:
    run_folder("slow")
