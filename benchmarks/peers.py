"""The same Langevin runs as others write them: TorchEBM, a plain torch loop, jax."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.utils.dlpack import from_dlpack

from benchmarks.models import DoubleWell, Gaussian, Rosenbrock
from benchmarks.workloads import Workload, initial

if TYPE_CHECKING:
    import torchebm.core

WARM_UP_STEPS = 5
# Not the seed of the start, or the first noise would be the start again.
NOISE_SEED = 1


def synchronize(device: torch.device) -> None:
    """Wait until `device` has done its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@dataclass
class Loop:
    """A contender with nothing to compile: `sample(x0, n_steps)` is called eagerly, from the workload's start."""

    name: str
    x0: Tensor
    n_steps: int
    sample: Callable[[Tensor, int], Tensor]

    def build(self) -> float:
        """Warm up for a few steps; seconds."""
        begin = time.perf_counter()
        self.sample(self.x0, WARM_UP_STEPS)
        synchronize(self.x0.device)
        return time.perf_counter() - begin

    def run(self) -> Tensor:
        """All steps from the start; the last positions."""
        x = self.sample(self.x0, self.n_steps)
        synchronize(self.x0.device)
        return x


def _torchebm(name: str, model: torchebm.core.BaseModel, workload: Workload, device: str, noise_scale: float) -> Loop:
    from torchebm.samplers import LangevinDynamics

    x0 = initial(workload).to(device)
    sampler = LangevinDynamics(
        model.to(device), step_size=workload.step_size, noise_scale=noise_scale, device=torch.device(device)
    )

    def sample(x: Tensor, n_steps: int) -> Tensor:
        out = sampler.sample(x=x, n_steps=n_steps, generator=torch.Generator(device).manual_seed(NOISE_SEED))
        assert isinstance(out, Tensor)
        return out

    return Loop(name, x0, workload.n_steps, sample)


def torchebm_langevin(workload: Workload, device: str = "cpu", noise_scale: float = 1.0) -> Loop:
    """TorchEBM's LangevinDynamics on the workload's own energy, wrapped; gradient by TorchEBM's autograd default."""
    from torchebm.core import BaseModel

    class Wrapped(BaseModel):
        def __init__(self, energy: nn.Module) -> None:
            super().__init__()
            self.energy = energy

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.energy(x)
            return out

    return _torchebm("torchebm", Wrapped(workload.energy_factory()), workload, device, noise_scale)


def has_torchebm_model(workload: Workload) -> bool:
    """Whether TorchEBM ships this energy as a model of its own."""
    return isinstance(workload.energy_factory(), (DoubleWell, Gaussian, Rosenbrock))


def torchebm_model_langevin(workload: Workload, device: str = "cpu", noise_scale: float = 1.0) -> Loop:
    """TorchEBM's LangevinDynamics on TorchEBM's own model of the energy, where it ships one."""
    from torchebm.core import DoubleWellModel, GaussianModel, RosenbrockModel

    energy = workload.energy_factory()
    model: torchebm.core.BaseModel
    if isinstance(energy, DoubleWell):
        model = DoubleWellModel(energy.barrier_height, energy.b)
    elif isinstance(energy, Rosenbrock):
        model = RosenbrockModel(energy.a, energy.b)
    elif isinstance(energy, Gaussian):
        model = GaussianModel(energy.mean, energy.cov)
    else:
        raise ValueError(f"workload {workload.name!r}: TorchEBM ships no model of this energy")
    return _torchebm("torchebm-model", model, workload, device, noise_scale)


def plain_torch_langevin(workload: Workload, device: str = "cpu", noise_scale: float = 1.0) -> Loop:
    """The loop a user would write: autograd.grad and torch.randn, step by step."""
    energy = workload.energy_factory().to(device)
    step_size, noise_std = workload.step_size, noise_scale * math.sqrt(2 * workload.step_size)

    def sample(x: Tensor, n_steps: int) -> Tensor:
        generator = torch.Generator(device).manual_seed(NOISE_SEED)
        for _ in range(n_steps):
            x = x.detach().requires_grad_(True)
            (gradient,) = torch.autograd.grad(energy(x).sum(), x)
            with torch.no_grad():
                x = x - step_size * gradient + noise_std * torch.randn(x.shape, generator=generator, device=device)
        return x

    return Loop("plain", initial(workload).to(device), workload.n_steps, sample)


class JaxLangevin:
    """jit of lax.scan over vmap(grad), threefry normals, float32; `build` compiles, `run` only runs."""

    name = "jax"

    def __init__(self, workload: Workload, device: str = "cpu", noise_scale: float = 1.0) -> None:
        import jax

        if workload.jax_energy is None:
            raise ValueError(f"workload {workload.name!r} has no jax form")
        self.energy = workload.jax_energy(workload.energy_factory())
        self.step_size, self.n_steps = workload.step_size, workload.n_steps
        self.noise_std = noise_scale * math.sqrt(2 * workload.step_size)
        place = jax.devices("gpu" if device == "cuda" else device)[0]
        self.x0 = jax.device_put(initial(workload).numpy(), place)
        self.key = jax.device_put(jax.random.key(NOISE_SEED), place)
        self.compiled: Callable[[jax.Array, jax.Array], jax.Array] | None = None

    def build(self) -> float:
        """Trace and compile the whole run; seconds."""
        import jax

        score = jax.vmap(jax.grad(self.energy))

        def step(x: jax.Array, key: jax.Array) -> tuple[jax.Array, None]:
            return x - self.step_size * score(x) + self.noise_std * jax.random.normal(key, x.shape), None

        def sample(x: jax.Array, key: jax.Array) -> jax.Array:
            return jax.lax.scan(step, x, jax.random.split(key, self.n_steps))[0]

        begin = time.perf_counter()
        self.compiled = jax.jit(sample).lower(self.x0, self.key).compile()
        return time.perf_counter() - begin

    def run(self) -> Tensor:
        """All steps from the start, waited for; the last positions (no copy)."""
        if self.compiled is None:
            raise RuntimeError("JaxLangevin.run: call build() first")
        return from_dlpack(self.compiled(self.x0, self.key).block_until_ready())


def jax_langevin(workload: Workload, device: str = "cpu", noise_scale: float = 1.0) -> JaxLangevin:
    """jax on the workload's energy, from the same weights."""
    return JaxLangevin(workload, device, noise_scale)
