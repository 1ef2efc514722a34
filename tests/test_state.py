"""A state between processes: saved in one, resumed in another, without a difference and without an evaluation."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import compiled_ebm as ce

ROOT = Path(ce.__file__).parent.parent
SCRIPT = """
import sys
import torch
import compiled_ebm as ce
from compiled_ebm.backends.eager import EagerLaunch

first, n_steps, offset = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
torch.manual_seed(0)
model = ce.MLPModel(2)
centres = torch.randn(3, 2)
with torch.no_grad():
    next(model.parameters())[0, 0] += offset

def energy(x, y):
    return model(x) + (x - centres[y]).square().sum(-1)

evaluations = []
init = EagerLaunch.init
EagerLaunch.init = lambda *a: (evaluations.append(1), init(*a))[1]
y = torch.arange(20) % 3
sampler = ce.build_sampler(energy, ce.Langevin(0.05), (2,), backend="eager", model_kwargs={"y": y})
state = sampler.init(n_chains=20, seed=2**64 - 1) if first == "-" else torch.load(first)
state = sampler.run(state, n_steps).state
torch.save(state, sys.argv[4])
print(len(evaluations))
"""


def process(tmp_path: Path, first: str, n_steps: int, to: str, *, hash_seed: int, offset: float = 0.0) -> int:
    """Run the script; how many times it evaluated energy and gradient before stepping."""
    (tmp_path / "script.py").write_text(SCRIPT)
    command = [sys.executable, "script.py", first, str(n_steps), str(offset), to]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONHASHSEED": str(hash_seed)}
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment, timeout=300)
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


@pytest.mark.slow
def test_another_process_goes_on_bit_for_bit_and_does_not_evaluate_again(tmp_path: Path) -> None:
    assert process(tmp_path, "-", 20, "whole.pt", hash_seed=1) == 1
    assert process(tmp_path, "-", 8, "part.pt", hash_seed=2) == 1
    assert process(tmp_path, "part.pt", 12, "resumed.pt", hash_seed=3) == 0
    whole, resumed = (torch.load(tmp_path / name) for name in ("whole.pt", "resumed.pt"))
    assert (whole.step, whole.seed, whole.weights) == (resumed.step, resumed.seed, resumed.weights)
    assert (resumed.step, resumed.seed, resumed.dtype) == (20, 2**64 - 1, torch.float32)
    tensors = ((s.positions, *s.carried, s.failed_at, s.chain_ids) for s in (whole, resumed))
    assert all(torch.equal(a, b) for a, b in zip(*tensors, strict=True))
    assert process(tmp_path, "part.pt", 12, "other.pt", hash_seed=3, offset=0.5) == 1  # other weights: evaluated


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("n_steps", [None, 3])
def test_torch_load_takes_a_state_as_it_takes_weights(tmp_path: Path, dtype: torch.dtype, n_steps: int | None) -> None:
    sampler = ce.build_sampler(ce.HarmonicModel(), ce.Langevin(0.1), (2,), backend="eager", dtype=dtype)
    state = sampler.init(n_chains=5, seed=-3)
    if n_steps is not None:
        state = sampler.run(state, n_steps).state
    torch.save(state, tmp_path / "state.pt")
    loaded = torch.load(tmp_path / "state.pt", weights_only=True)
    assert isinstance(loaded, ce.ChainState) and repr(loaded) == repr(state)
    assert torch.equal(loaded.positions, state.positions) and loaded.weights == state.weights
    assert torch.equal(sampler.run(loaded, 4).state.positions, sampler.run(state, 4).state.positions)
