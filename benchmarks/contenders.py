"""Who runs a workload, by name: the peers, and compiled_ebm with each of its backends."""

from __future__ import annotations

import time
from collections.abc import Callable
from importlib.util import find_spec
from typing import TYPE_CHECKING

from torch import Tensor

from benchmarks import peers
from benchmarks.workloads import Workload, initial
from compiled_ebm.laboratory.timing import Contender

if TYPE_CHECKING:
    import compiled_ebm as ce
from compiled_ebm.hypertable import hyper_rows
from compiled_ebm.session import buffers

BACKENDS = ("eager", "inductor", "fused", "auto")
PEERS: dict[str, Callable[[Workload, str, float], Contender]] = {
    "torchebm": peers.torchebm_langevin,
    "torchebm-model": peers.torchebm_model_langevin,
    "plain": peers.plain_torch_langevin,
    "jax": peers.jax_langevin,
}
NAMES = (*PEERS, *BACKENDS)
REQUIRES = {"torchebm": "torchebm", "torchebm-model": "torchebm", "jax": "jax"}


class CompiledLangevin:
    """compiled_ebm on a workload; `build` traces and compiles, `run` launches."""

    def __init__(self, workload: Workload, backend: str, device: str = "cpu", noise_scale: float = 1.0) -> None:
        self.name, self.workload, self.backend, self.noise_scale = backend, workload, backend, noise_scale
        self.energy = workload.energy_factory().to(device)
        self.x0 = initial(workload).to(device)
        self.sampler: ce.Sampler | None = None

    def build(self) -> float:
        """Trace and compile for the workload's number of chains; seconds."""
        import compiled_ebm as ce

        transition = ce.Langevin(step_size=self.workload.step_size, noise_scale=self.noise_scale)
        begin = time.perf_counter()
        self.sampler = ce.build_sampler(
            self.energy, transition, event_shape=self.workload.event_shape, backend=self.backend, device=self.x0.device
        )
        self.sampler.build(self.workload.n_chains)
        return time.perf_counter() - begin

    def launch(self) -> Callable[[], None]:
        """The run's launch alone, without what a run does around it on the host; it returns before it is done."""
        sampler, work = self._built(), self.workload
        state = sampler.init(self.x0, seed=0)
        program, launch = sampler._builds.get({}, work.n_chains)
        chains = buffers(program, launch, state, {})
        launch.prepare(chains)
        launch.init(chains, 0)
        launch.begin(chains)
        hyper = hyper_rows(sampler.transition, 0, work.n_steps, sampler.dtype, sampler.device)(0, work.n_steps)
        return lambda: launch(chains, 0, hyper, None)

    def _built(self) -> ce.Sampler:
        if self.sampler is None:
            raise RuntimeError("CompiledLangevin: call build() first")
        return self.sampler

    def run(self) -> Tensor:
        """All steps from the start; the last positions."""
        sampler = self._built()
        state = sampler.init(self.x0, seed=0)
        x: Tensor = sampler.run(state, n_steps=self.workload.n_steps).state.x
        peers.synchronize(x.device)
        return x


def compiled_ebm_langevin(
    workload: Workload, backend: str, device: str = "cpu", noise_scale: float = 1.0
) -> CompiledLangevin:
    """compiled_ebm on the workload with one backend."""
    return CompiledLangevin(workload, backend, device, noise_scale)


def missing(name: str, workload: Workload, device: str = "cpu") -> str | None:
    """Why `name` cannot run `workload` here (not installed, or no such form of the energy); None if it can."""
    package = REQUIRES.get(name)
    if package is not None and find_spec(package) is None:
        return f"{package} is not installed"
    if name == "jax" and device == "cuda" and not _jax_has_gpu():
        return "jax is installed without its GPU part"
    if name == "jax" and workload.jax_energy is None:
        return f"{workload.name} has no jax form"
    if name == "torchebm-model" and not peers.has_torchebm_model(workload):
        return f"TorchEBM ships no model of {workload.name}"
    return None


def _jax_has_gpu() -> bool:
    import jax

    return any(place.platform == "gpu" for place in jax.devices())


def contender(name: str, workload: Workload, device: str = "cpu", noise_scale: float = 1.0) -> Contender:
    """The contender `name`, ready to build."""
    if name in PEERS:
        return PEERS[name](workload, device, noise_scale)
    if name in BACKENDS:
        return compiled_ebm_langevin(workload, name, device, noise_scale)
    raise ValueError(f"contender must be one of {', '.join(NAMES)}; got {name!r}")
