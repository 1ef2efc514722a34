"""What is timed: ten Langevin workloads, and two more whose energies are convolutions and attention."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from benchmarks import jax_models, models

if TYPE_CHECKING:
    from benchmarks.jax_models import JaxEnergy


@dataclass(frozen=True)
class Workload:
    """An energy, its chains and its steps; x' = x − η∇E(x) + √(2η)ξ with η = `step_size`."""

    name: str
    event_shape: tuple[int, ...]
    n_chains: int
    n_steps: int
    step_size: float
    energy_factory: Callable[[], nn.Module]
    jax_energy: Callable[[Any], JaxEnergy] | None = None
    """module -> the same energy in jax for one position; None where the workload has no jax form."""
    centre: Callable[[], Tensor] | None = None
    """The position that chains start around, `[*event]`; None for the origin."""
    spread: float = 1.0
    """Standard deviation of the start around `centre`."""

    @property
    def chain_steps(self) -> int:
        return self.n_chains * self.n_steps


def initial(workload: Workload, seed: int = 0) -> Tensor:
    """The standard start of every chain: centre + spread·N(0, I), float32, `[n_chains, *event]`."""
    shape = (workload.n_chains, *workload.event_shape)
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    start = workload.spread * noise
    return start if workload.centre is None else start + workload.centre()


TEN = (
    Workload("mlp-2-64-1", (2,), 10_000, 1000, 1e-2, lambda: models.MLP((2, 64, 1)), jax_models.mlp),
    Workload("mlp-2-64-64-1", (2,), 10_000, 200, 1e-2, lambda: models.MLP((2, 64, 64, 1)), jax_models.mlp),
    Workload("mixture", (2,), 10_000, 1000, 1e-2, models.GaussianMixture, jax_models.gaussian_mixture),
    Workload("double-well", (128,), 1024, 200, 2e-3, models.DoubleWell, jax_models.double_well),
    # Curvature reaches 1200x² at |x| = 4: η must stay below 2/20,000.
    Workload("rosenbrock", (4,), 10_000, 1000, 1e-5, models.Rosenbrock, jax_models.rosenbrock),
    Workload("gaussian", (100,), 4096, 100, 1e-1, models.Gaussian, jax_models.gaussian),
    Workload("mlp-16-256-256-1", (16,), 4096, 50, 1e-2, lambda: models.MLP((16, 256, 256, 1), nn.SiLU), jax_models.mlp),
    Workload("logistic", (25,), 1024, 200, 1e-3, models.LogisticPosterior, jax_models.logistic_posterior),
    Workload("phi4", (8, 8), 4096, 500, 1e-2, models.Phi4, jax_models.phi4),
    # The r⁻¹² wall: curvature near 10⁴ at r = 0.8σ.
    Workload(
        "lennard-jones",
        (13, 3),
        4096,
        100,
        2e-5,
        models.LennardJones,
        jax_models.lennard_jones,
        centre=models.icosahedron,
        spread=0.02,
    ),
)

EXTRAS = (
    Workload("conv", (1, 28, 28), 128, 60, 1e-2, models.ConvEBM),
    Workload("attention", (16, 32), 256, 60, 1e-2, models.AttentionEBM),
)

WORKLOADS = {workload.name: workload for workload in TEN + EXTRAS}
