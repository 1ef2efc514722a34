"""The package where Triton cannot be imported: a CPU needs none of it."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from compiled_ebm.backends.fused import toolchain

BLOCKED = """
import sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "triton":
            raise ModuleNotFoundError("No module named 'triton'", name="triton")

sys.meta_path.insert(0, Refuse())
"""
SAMPLE = """
import torch
import compiled_ebm as ce

def energy(x):
    return (x.square() - 1).square().sum(-1)

for backend in {backends}:
    sampler = ce.build_sampler(energy, ce.Langevin(0.01), 3, backend=backend)
    x = sampler.run(sampler.init(n_chains=20, seed=1), 10, thin=5).draws
    assert x.shape == (20, 2, 3) and bool(torch.isfinite(x).all())
    assert sampler.explain() and (backend == "auto" or sampler.backend == backend)
assert "triton" not in sys.modules
print("sampled")
"""


def run_in_a_fresh_process(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(code)],
        cwd=Path(__file__).parent.parent,
        env={**os.environ, "PYTHONPATH": "."},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_cpu_backends_work() -> None:
    backends = ("eager", "fused", "auto") if toolchain.why_unavailable() is None else ("eager", "auto")
    assert run_in_a_fresh_process(BLOCKED + SAMPLE.format(backends=backends)) == "sampled\n"


def test_negative_control_the_block_blocks() -> None:
    code = "try:\n    import triton.language\nexcept ModuleNotFoundError as error:\n    print(error)"
    assert run_in_a_fresh_process(BLOCKED + code) == "No module named 'triton'\n"


def test_sampling_on_a_cpu_does_not_load_triton_that_is_there() -> None:
    pytest.importorskip("triton")
    code = SAMPLE.format(backends=("eager",)).replace("import torch\n", "import sys, torch\n")
    assert run_in_a_fresh_process(code) == "sampled\n"


def test_on_a_cuda_device_the_reason_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    from compiled_ebm.backends.fused import launch

    monkeypatch.setattr(launch, "find_spec", lambda name: None)
    assert launch.why_unavailable(torch.device("cuda")) == "Triton is not installed: pip install triton"
