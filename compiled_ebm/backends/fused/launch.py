"""The fused launch: one generated kernel runs the whole chain loop, another makes the first state."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from importlib.util import find_spec

import torch
from torch import Tensor

from compiled_ebm.backends.base import FEW_STEPS, ROW_QUANTUM, Chains, Keep, Launch, round_up
from compiled_ebm.backends.first_state import init_chains
from compiled_ebm.backends.fused import toolchain
from compiled_ebm.backends.fused.cost import as_time, machine_rates
from compiled_ebm.backends.fused.estimate import Estimate, estimate, is_clear
from compiled_ebm.backends.fused.kernel import ChainKernel
from compiled_ebm.backends.fused.parts import init_parts, step_parts
from compiled_ebm.errors import UnsupportedEnergyError
from compiled_ebm.garbage import collection_paused
from compiled_ebm.trace import ChainProgram

__all__ = ["FusedCpuLaunch", "compile", "why_unavailable"]

_FIRST_SECONDS = 0.05
_LEAST_CAPABILITY = (8, 0)


def compile(program: ChainProgram) -> Launch:
    """The launch for a program; it compiles when it is prepared."""
    if program.device.type == "cuda":
        from compiled_ebm.backends.fused.triton.launch import FusedCudaLaunch  # Triton is loaded where it is used

        return FusedCudaLaunch(program)
    return FusedCpuLaunch(program)


def why_unavailable(device: torch.device) -> str | None:
    """Why no kernel can be generated here, or None if one can."""
    if device.type == "cpu":
        return toolchain.why_unavailable()
    if device.type != "cuda":
        return f"the fused backend generates code for CPUs and CUDA devices, not for {device.type}"
    if find_spec("triton") is None:
        return "Triton is not installed: pip install triton"
    if torch.cuda.get_device_capability(device) < _LEAST_CAPABILITY:
        return f"Triton's kernels need a GPU of compute capability {'.'.join(map(str, _LEAST_CAPABILITY))} or more"
    return None


class FusedCpuLaunch:
    """Generated code for any number of chains."""

    def __init__(self, program: ChainProgram) -> None:
        self._program = program
        self._step = ChainKernel(partial(step_parts, program), program.carry_dtype)
        self._init = ChainKernel(partial(init_parts, program), program.carry_dtype)
        self._build_seconds: float | None = None
        self._measured = (0, 0.0, 1)
        """Of the largest launch: chain-steps, seconds, threads."""

    def capacity(self, n_chains: int) -> int:
        """Whole vectors of lanes, of any width."""
        return round_up(n_chains, ROW_QUANTUM)

    def working_bytes(self, n_chains: int) -> tuple[int, int]:
        """A thread's scratch buffer stays in cache, whatever the number of chains."""
        return 0, 0

    def first_steps(self, n_chains: int) -> int:
        """Fifty milliseconds' worth by the operations: waking threads for short launches costs more than it brings."""
        step_seconds = 1e-9 * self._step.cost.rough_ns() * n_chains / torch.get_num_threads()
        return max(FEW_STEPS, int(_FIRST_SECONDS / max(step_seconds, 1e-9)))

    def prepare(self, chains: Chains) -> float:
        """Generate and compile, once for any number of chains; both kernels side by side."""
        if self._build_seconds is not None:
            return 0.0
        begin = time.perf_counter()
        program = self._program
        if program.carry_dtype == torch.float32 and program.compute_dtype == torch.float64:
            raise UnsupportedEnergyError(
                "compute_dtype: expected at most the precision of dtype in the fused backend, got torch.float64 beside "
                "positions carried in torch.float32; use dtype=torch.float64, or backend='inductor'"
            )
        shared = chains.shared_kwargs
        with collection_paused():
            self._step.generate(shared)
            self._init.generate(shared)
        with ThreadPoolExecutor(1) as other:
            init = other.submit(self._init.compile)
            self._step.compile()
            init.result()
        self._build_seconds = time.perf_counter() - begin
        return self._build_seconds

    def estimate(self) -> Estimate | None:
        """What a chain-step should take, once it is prepared; None where no other backend comes near."""
        step = self._step
        if is_clear(step.cost, step.weight_bytes, step.scratch_bytes):
            return None
        return estimate(
            step.cost, machine_rates(self._program.carry_dtype), step.weight_bytes, step.scratch_bytes, step.lanes
        )

    def machine(self) -> str:
        """What trials are remembered for: processor, compiler and threads."""
        return f"{toolchain.cpu_identity()} {toolchain.find_compiler()} {torch.get_num_threads()} threads"

    def code(self) -> str:
        """The generated chain loop as it is compiled: equal for equal kernels."""
        return self._step.code()

    @torch.no_grad()
    def init(self, chains: Chains, step: int) -> None:
        """State at the positions in ``chains.state[0]``."""
        if any(not t.dtype.is_floating_point for t in chains.chain_kwargs):
            init_chains(self._program, chains, step)  # labels may be out of range, which the kernel would not see
            return
        self._init.refresh(chains.shared_kwargs)
        self._init(chains, step, 1, None, None, torch.get_num_threads())

    @torch.no_grad()
    def begin(self, chains: Chains) -> None:
        """Evaluate what depends on captured tensors only."""
        self._step.refresh(chains.shared_kwargs)

    def synchronize(self) -> None:
        """CPU code has finished when it returns."""

    @torch.no_grad()
    def __call__(self, chains: Chains, first_step: int, hyper: Tensor, keep: Keep | None) -> None:
        """``hyper.shape[0]`` steps of every chain."""
        n_steps, n_threads = hyper.shape[0], torch.get_num_threads()
        begin = time.perf_counter()
        self._step(chains, first_step, n_steps, hyper, keep, n_threads)
        seconds = time.perf_counter() - begin
        if chains.ids.shape[0] * n_steps >= self._measured[0]:
            self._measured = (chains.ids.shape[0] * n_steps, seconds, n_threads)

    def facts(self) -> dict[str, object]:
        """For explain()."""
        if self._build_seconds is None:
            return {"compiled": "not yet"}
        planned, cost, rates = self._step.kernel.plan, self._step.cost, machine_rates(self._program.carry_dtype)
        floor = cost.floor_ns(rates)
        form = "straight line" if planned.straight_line else f"{len(planned.groups)} loops and sections"
        facts: dict[str, object] = {
            "compiled": f"one C++ kernel for the whole chain loop, {self._build_seconds:.2f} s",
            "tile": f"{self._step.lanes} chains, {form}",
            "bytes live": f"{self._step.live_bytes:,} a chain at most; scratch {self._step.scratch_bytes:,} a thread, "
            f"weights {self._step.weight_bytes:,}",
            "chain-step": f"{cost}",
            "checks": self._step.checks(),
            "floor": f"{as_time(floor)} a chain-step on one thread here: {rates.gflops:.0f} GFLOP/s, "
            f"{rates.function_ns['exp']:.2f} ns an exp, {rates.normal_ns:.2f} ns a normal",
        }
        chain_steps, seconds, n_threads = self._measured
        if chain_steps:
            measured = 1e9 * seconds * n_threads / chain_steps
            threads = f"{n_threads} thread{'s' if n_threads > 1 else ''}"
            facts["measured"] = f"{as_time(measured)} with {threads}: {floor / measured:.0%} of the floor's speed"
        return facts

    def source(self) -> str:
        """The generated chain loop, without the vector functions that it calls."""
        return "" if self._build_seconds is None else self._step.source()
