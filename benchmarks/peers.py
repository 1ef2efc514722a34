"""The same Langevin runs as others write them: TorchEBM, a plain torch loop, jax."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils.dlpack import from_dlpack

from benchmarks.models import DoubleWell, Gaussian, Rosenbrock
from benchmarks.workloads import Workload, initial
from compiled_ebm.laboratory.contenders import Problem, contender
from compiled_ebm.laboratory.loops import LoopSteps, plain_loop, torchebm_loop
from compiled_ebm.laboratory.timing import Contender
from compiled_ebm.transitions import Langevin

if TYPE_CHECKING:
    import jax

# Not the seed of the start, or the first noise would be the start again.
NOISE_SEED = 1


def problem_of(workload: Workload, device: str = "cpu", noise_scale: float = 1.0) -> Problem:
    """The workload, for whoever takes any energy and any transition."""
    return Problem(
        workload.energy_factory().to(device),
        Langevin(workload.step_size, noise_scale=noise_scale),
        workload.event_shape,
        workload.n_chains,
        workload.n_steps,
        torch.device(device),
        x0=initial(workload),
    )


def _loop(
    make: Callable[..., LoopSteps], workload: Workload, device: str, noise_scale: float, energy: Any = None
) -> LoopSteps:
    problem = problem_of(workload, device, noise_scale)
    energy = problem.energy if energy is None else energy.to(device)
    return make(energy, problem.transition, problem.start(NOISE_SEED), problem.n_steps, NOISE_SEED)


def torchebm_langevin(workload: Workload, device: str = "cpu", noise_scale: float = 1.0) -> LoopSteps:
    """TorchEBM's LangevinDynamics on the workload's own energy, wrapped; gradient by TorchEBM's autograd default."""
    return _loop(torchebm_loop, workload, device, noise_scale)


def has_torchebm_model(workload: Workload) -> bool:
    """Whether TorchEBM ships this energy as a model of its own."""
    return isinstance(workload.energy_factory(), (DoubleWell, Gaussian, Rosenbrock))


def torchebm_model_langevin(workload: Workload, device: str = "cpu", noise_scale: float = 1.0) -> LoopSteps:
    """TorchEBM's LangevinDynamics on TorchEBM's own model of the energy, where it ships one."""
    from torchebm.core import DoubleWellModel, GaussianModel, RosenbrockModel

    energy = workload.energy_factory()
    if isinstance(energy, DoubleWell):
        model: Any = DoubleWellModel(energy.barrier_height, energy.b)
    elif isinstance(energy, Rosenbrock):
        model = RosenbrockModel(energy.a, energy.b)
    elif isinstance(energy, Gaussian):
        model = GaussianModel(energy.mean, energy.cov)
    else:
        raise ValueError(f"workload {workload.name!r}: TorchEBM ships no model of this energy")
    found = _loop(torchebm_loop, workload, device, noise_scale, model)
    found.name = "torchebm-model"
    return found


def plain_torch_langevin(workload: Workload, device: str = "cpu", noise_scale: float = 1.0) -> LoopSteps:
    """The loop a user would write: autograd.grad and torch.randn, step by step."""
    return _loop(plain_loop, workload, device, noise_scale)


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
    """jax on the workload's energy as one writes it there for one position, from the same weights."""
    return JaxLangevin(workload, device, noise_scale)


def traced_jax_langevin(workload: Workload, device: str = "cpu", noise_scale: float = 1.0) -> Contender:
    """jax on the energy's trace over all chains, as ``ce.compare`` has it: where XLA does better with a batch."""
    found = contender("jax", problem_of(workload, device, noise_scale), NOISE_SEED)
    found.name = "jax-traced"
    return found
