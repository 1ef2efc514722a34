"""The workloads themselves: the torch and jax energies agree, chains stay finite, and the peers run the same chain."""

from __future__ import annotations

import dataclasses
import math
from typing import Protocol

import pytest
import torch
from torch import Tensor
from torch.utils.dlpack import from_dlpack

from benchmarks import peers
from benchmarks.timing import measure, ratios
from benchmarks.workloads import EXTRAS, TEN, WORKLOADS, Workload, initial
from compiled_ebm.laboratory.timing import Contender


class Peer(Protocol):
    """A factory of contenders."""

    __name__: str

    def __call__(self, workload: Workload, device: str = "cpu", noise_scale: float = 1.0) -> Contender:
        """The contender for one workload."""


everything = pytest.mark.parametrize("workload", TEN + EXTRAS, ids=lambda workload: workload.name)
ten = pytest.mark.parametrize("workload", TEN, ids=lambda workload: workload.name)


def small(workload: Workload, n_chains: int = 32, n_steps: int = 20) -> Workload:
    return dataclasses.replace(workload, n_chains=n_chains, n_steps=n_steps)


def energy_and_gradient(workload: Workload, x: Tensor) -> tuple[Tensor, Tensor]:
    x = x.detach().requires_grad_(True)
    energy = workload.energy_factory().to(x.dtype)(x)
    return energy.detach(), torch.autograd.grad(energy.sum(), x)[0]


def relative_error(got: Tensor, want: Tensor) -> float:
    """Largest difference over the largest magnitude of what is wanted."""
    return float((got - want).abs().max() / want.abs().max())


@everything
def test_energy_of_a_batch_is_that_of_its_chains(workload: Workload) -> None:
    energy, x = workload.energy_factory().double(), initial(small(workload, 4)).double()
    together = energy(x).detach()
    assert together.shape == (4,)
    assert relative_error(torch.cat([energy(one[None]).detach() for one in x]), together) < 1e-12


@everything
def test_same_weights_every_time(workload: Workload) -> None:
    first, second = workload.energy_factory().state_dict(), workload.energy_factory().state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)


@ten
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["f32", "f64"])
def test_torch_and_jax_energies_agree(workload: Workload, dtype: torch.dtype) -> None:
    jax = pytest.importorskip("jax")
    assert workload.jax_energy is not None
    x = initial(small(workload, 64)).to(dtype)
    energy, gradient = energy_and_gradient(workload, x)
    with jax.enable_x64(dtype == torch.float64):
        function = workload.jax_energy(workload.energy_factory().to(dtype))
        values, gradients = jax.vmap(jax.value_and_grad(function))(x.numpy())
        values, gradients = from_dlpack(values), from_dlpack(gradients)
    assert values.dtype == gradients.dtype == dtype
    tolerance = 1e-4 if dtype == torch.float32 else 1e-10
    assert relative_error(values, energy) < tolerance
    assert relative_error(gradients, gradient) < tolerance


@everything
def test_chains_stay_finite(workload: Workload) -> None:
    last = peers.plain_torch_langevin(small(workload, min(workload.n_chains, 1024), 200)).run()
    assert last.isfinite().all()
    assert last.std() > 0


@ten
@pytest.mark.parametrize(
    "peer",
    [peers.torchebm_langevin, peers.jax_langevin, peers.traced_jax_langevin],
    ids=["torchebm", "jax", "jax-traced"],
)
def test_peers_follow_the_same_drift(workload: Workload, peer: Peer) -> None:
    """With next to no noise every peer must walk where the plain loop walks."""
    pytest.importorskip("torchebm" if peer is peers.torchebm_langevin else "jax")
    work = small(workload)
    other = peer(work, noise_scale=1e-9)
    other.build()
    start, plain = initial(work), peers.plain_torch_langevin(work, noise_scale=1e-9).run()
    assert relative_error(other.run() - start, plain - start) < 1e-3


@pytest.mark.parametrize("name", ["double-well", "rosenbrock", "gaussian"])
def test_torchebm_models_are_the_same_energies(name: str) -> None:
    pytest.importorskip("torchebm")
    work = small(WORKLOADS[name])
    start, plain = initial(work), peers.plain_torch_langevin(work, noise_scale=1e-9).run()
    own = peers.torchebm_model_langevin(work, noise_scale=1e-9).run()
    assert relative_error(own - start, plain - start) < 1e-3


@pytest.mark.parametrize(
    "peer",
    [peers.torchebm_langevin, peers.plain_torch_langevin, peers.jax_langevin, peers.traced_jax_langevin],
    ids=["torchebm", "plain", "jax", "jax-traced"],
)
def test_peers_add_the_right_noise(peer: Peer) -> None:
    """Unit Gaussian, step η from N(0, 1): variance follows v' = (1 − η)² v + 2η."""
    pytest.importorskip(_NEEDS.get(peer.__name__, "torch"))
    work = dataclasses.replace(
        small(WORKLOADS["double-well"], 2048, 10),
        step_size=0.1,
        energy_factory=UnitGaussian,
        jax_energy=lambda module: lambda x: 0.5 * (x**2).sum(),
    )
    run = peer(work)
    run.build()
    variance = 1.0
    for _ in range(work.n_steps):
        variance = (1 - work.step_size) ** 2 * variance + 2 * work.step_size
    count = work.n_chains * math.prod(work.event_shape)
    assert abs(float(run.run().var()) - variance) < 5 * variance * math.sqrt(2 / count)


_NEEDS = {"torchebm_langevin": "torchebm", "jax_langevin": "jax", "traced_jax_langevin": "jax"}


class UnitGaussian(torch.nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return 0.5 * x.square().sum(-1)


def test_measure_gives_a_row_a_contender() -> None:
    work = small(WORKLOADS["mixture"])
    first, second = peers.plain_torch_langevin(work), peers.plain_torch_langevin(work)
    second.name = "again"
    rows = measure(work, [first, second], rounds=3, baseline="plain")
    assert [row["contender"] for row in rows] == ["plain", "again"]
    assert all(len(row["seconds"]) == 3 and row["min"] <= row["median"] <= row["max"] for row in rows)
    assert rows[0]["ratio"] == 1.0
    assert ratios(rows, "again", "plain") == {"mixture": rows[1]["ratio"]}
