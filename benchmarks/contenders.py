"""Who runs a workload, by name: the peers, and compiled_ebm with each of its backends."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec

from benchmarks import peers
from benchmarks.workloads import Workload, initial
from compiled_ebm.hypertable import hyper_rows
from compiled_ebm.laboratory.contenders import SamplerSteps
from compiled_ebm.laboratory.timing import Contender
from compiled_ebm.session import buffers

BACKENDS = ("eager", "inductor", "fused", "auto")
PEERS: dict[str, Callable[[Workload, str, float], Contender]] = {
    "torchebm": peers.torchebm_langevin,
    "torchebm-model": peers.torchebm_model_langevin,
    "plain": peers.plain_torch_langevin,
    "jax": peers.jax_langevin,
    "jax-traced": peers.traced_jax_langevin,
}
NAMES = (*PEERS, *BACKENDS)
REQUIRES = {"torchebm": "torchebm", "torchebm-model": "torchebm", "jax": "jax", "jax-traced": "jax"}


class CompiledLangevin(SamplerSteps):
    """compiled_ebm on a workload; `build` traces and compiles, `run` launches."""

    def __init__(self, workload: Workload, backend: str, device: str = "cpu", noise_scale: float = 1.0) -> None:
        problem = peers.problem_of(workload, device, noise_scale)
        super().__init__(problem, backend, seed=0)
        self.workload = workload

    def launch(self) -> Callable[[], None]:
        """The run's launch alone, without what a run does around it on the host; it returns before it is done."""
        sampler, work = self.sampler, self.workload
        state = sampler.init(initial(work).to(sampler.device), seed=0)
        program, launch = sampler.built({}, work.n_chains)
        chains = buffers(program, launch, state, {})
        launch.prepare(chains)
        launch.init(chains, 0)
        launch.begin(chains)
        hyper = hyper_rows(sampler.transition, 0, work.n_steps, sampler.dtype, sampler.device)(0, work.n_steps)
        return lambda: launch(chains, 0, hyper, None)


def missing(name: str, workload: Workload, device: str = "cpu") -> str | None:
    """Why `name` cannot run `workload` here (not installed, or no such form of the energy); None if it can."""
    package = REQUIRES.get(name)
    if package is not None and find_spec(package) is None:
        return f"{package} is not installed"
    if name in ("jax", "jax-traced") and device == "cuda" and not _jax_has_gpu():
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
        return CompiledLangevin(workload, name, device, noise_scale)
    raise ValueError(f"contender must be one of {', '.join(NAMES)}; got {name!r}")
