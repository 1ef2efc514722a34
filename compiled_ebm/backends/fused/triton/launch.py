"""The fused launch on a CUDA device: one generated Triton kernel runs the whole chain loop."""

from __future__ import annotations

import hashlib
import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from functools import partial
from typing import Any

import torch
import triton
from torch import Tensor

from compiled_ebm.backends.base import FEW_STEPS, Chains, Keep, round_up
from compiled_ebm.backends.first_state import init_chains
from compiled_ebm.backends.fused import cache
from compiled_ebm.backends.fused.estimate import Estimate
from compiled_ebm.backends.fused.parts import init_parts, step_parts
from compiled_ebm.backends.fused.program import Dot
from compiled_ebm.backends.fused.triton.devices import DEVICES, Device
from compiled_ebm.backends.fused.triton.forms import candidates
from compiled_ebm.backends.fused.triton.kernel import TritonKernel
from compiled_ebm.backends.fused.triton.loading import is_interpreted
from compiled_ebm.backends.fused.triton.resources import Resources
from compiled_ebm.backends.fused.triton.search import best_layouts
from compiled_ebm.backends.fused.triton.values import Form
from compiled_ebm.errors import UnsupportedEnergyError
from compiled_ebm.garbage import collection_paused
from compiled_ebm.trace import ChainProgram

__all__ = ["FusedCudaLaunch", "step_kernel"]

PRECISIONS = {torch.bfloat16: "bf16", torch.float16: "fp16"}
"""Of products, by the dtype of the energy; of float32 they are made of three of TF32, as good as float32."""
_LARGEST_BLOCK = 128
_FIRST_SECONDS = 0.05
_TIMED = 3
"""Layouts that are tried on the device."""
_TRIAL_SECONDS = 0.01
_MOST_TRIAL_STEPS = 1024
_TRIAL_FORMAT = 1


def step_kernel(program: ChainProgram) -> TritonKernel:
    """The kernel of the program's step."""
    precision = "tf32" if program.tf32 else PRECISIONS.get(program.compute_dtype, "tf32x3")
    return TritonKernel(partial(step_parts, program), program.carry_dtype, precision)


class FusedCudaLaunch:
    """Generated code for any number of chains.

    Args:
        program: The chain program.
        form: The layout; by default the best for the first number of chains.
    """

    def __init__(self, program: ChainProgram, form: Form | None = None) -> None:
        self._program = program
        self._kernel = step_kernel(program)
        self._init = TritonKernel(partial(init_parts, program), program.carry_dtype)
        self._form = form
        self._build_seconds: float | None = None
        self._resources: Resources | None = None
        self._trials: dict[str, float] = {}
        """Microseconds a step of each layout that was tried."""
        self._began = (0.0, 0)
        self._measured = (0, 0.0)
        """Of the largest launch: chain-steps, seconds."""

    def capacity(self, n_chains: int) -> int:
        """Whole blocks, of any size."""
        return round_up(n_chains, self._form.block if self._form else _LARGEST_BLOCK)

    def working_bytes(self, n_chains: int) -> tuple[int, int]:
        """Everything else is in registers."""
        return 0, 0

    def first_steps(self, n_chains: int) -> int:
        """Fifty milliseconds' worth by the instructions."""
        if self._resources is None:
            return FEW_STEPS
        step_seconds = self._resources.seconds(self._device(), n_chains, 1)
        return max(FEW_STEPS, int(_FIRST_SECONDS / max(step_seconds, 1e-9)))

    def prepare(self, chains: Chains) -> float:
        """Generate, choose a layout, compile: once for any number of chains."""
        if self._build_seconds is not None:
            return 0.0
        begin = time.perf_counter()
        program = self._program
        if program.carry_dtype == torch.float32 and program.compute_dtype == torch.float64:
            raise UnsupportedEnergyError(
                "compute_dtype: expected at most the precision of dtype in the fused backend, got torch.float64 beside "
                "positions carried in torch.float32; use dtype=torch.float64, or backend='inductor'"
            )
        with collection_paused():
            self._kernel.generate(chains.shared_kwargs)
            self._init.generate(chains.shared_kwargs)
        self._init.use(self._form or candidates(self._init.program, self._init.plan)[0])
        self._kernel.use(self._form or self._chosen(chains))
        self._build_seconds = time.perf_counter() - begin
        return self._build_seconds

    def _chosen(self, chains: Chains) -> Form:
        """The layout that takes least time: by the machine code, then by trial on the device."""
        kernel = self._kernel
        if is_interpreted():
            return candidates(kernel.program, kernel.plan, kernel.precision)[0]
        device, n_chains = self._device(), chains.ids.shape[0]
        kernel.prepare_for(device)
        kernel.use(candidates(kernel.program, kernel.plan, kernel.precision)[0])
        digest = hashlib.sha256(kernel.code().encode()).hexdigest()
        key = f"layout {_TRIAL_FORMAT} {self.machine()} {n_chains.bit_length()} {digest}"
        known = cache.recall(key)
        if known is None:
            known = self._searched(chains, device)
            earlier = cache.recall(key)
            if earlier is None:
                cache.remember(key, known)
            else:  # another process was faster: all go with the first
                known = earlier
        self._trials = {str(name): float(us) for name, us in known["trials"].items()}
        form = Form(**known["form"])
        self._resources = kernel.resources(form, device)
        return form

    def _searched(self, chains: Chains, device: Device) -> dict[str, Any]:
        """The layout that is fastest on the device, and what those that were tried took, in microseconds a step."""
        best, tried = best_layouts(self._kernel, device, chains.ids.shape[0])
        if not best:
            raise UnsupportedEnergyError(
                f"energy: expected a step of one chain that fits a program instance on {device.name} "
                f"({device.shared_bytes:,} bytes of shared memory), got none of {tried} layouts that do; use "
                "backend='inductor' or 'auto'"
            )
        took = [(self._step_seconds(found, chains), found.form) for found in best[:_TIMED]]
        fastest = min(took, key=lambda pair: pair[0])[1]
        return {"form": asdict(fastest), "trials": {str(form): 1e6 * seconds for seconds, form in took}}

    def _step_seconds(self, found: Resources, chains: Chains) -> float:
        """Of a step in a layout, on the device; the chains are left as they are."""
        program, device = self._program, self._program.device
        self._kernel.use(found.form)
        with torch.cuda.device(device):
            own = Chains(
                tuple(leaf.clone() for leaf in chains.state),
                chains.failed_at.clone(),
                chains.ids,
                chains.seed,
                chains.chain_kwargs,
                chains.shared_kwargs,
            )
            self.init(own, 0)
            self._kernel.refresh(chains.shared_kwargs, device)
            expected = found.seconds(self._device(), chains.ids.shape[0], 1)
            n_steps = max(1, min(_MOST_TRIAL_STEPS, int(_TRIAL_SECONDS / max(expected, 1e-9))))
            columns = [c.to(program.carry_dtype) for c in program.transition.hyper_table(0, n_steps)]
            hyper = torch.stack(columns, dim=1).to(device)
            self._kernel(own, 0, n_steps, hyper, None)  # compiles
            return min(self._timed(own, hyper) for _ in range(3)) / n_steps

    def _timed(self, chains: Chains, hyper: Tensor) -> float:
        """Seconds of a launch, by the device's own clock."""
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        begin.record()
        self._kernel(chains, 0, hyper.shape[0], hyper, None)
        end.record()
        end.synchronize()
        return 1e-3 * float(begin.elapsed_time(end))

    def _device(self) -> Device:
        """The card that the chains are on."""
        found = torch.cuda.get_device_properties(self._program.device)
        target = f"sm_{found.major}0"
        like = DEVICES.get(target, DEVICES["sm_80"])
        return Device(found.name, 10 * found.major + found.minor, found.multi_processor_count, like.clock)

    def machine(self) -> str:
        """What trials are remembered for."""
        return f"{self._device()} triton {triton.__version__}"

    def estimate(self) -> Estimate | None:
        """None where no other backend comes near: everything in registers, no matrix products."""
        has_products = any(isinstance(node, Dot) for node in self._kernel.program.nodes)
        if self._resources is None or (not has_products and self._resources.spills == 0):
            return None
        return Estimate(1e9 * self._resources.seconds(self._device(), 1 << 20, 1) / (1 << 20), 0.0)

    def code(self) -> str:
        """The generated chain loop as it is compiled: equal for equal kernels."""
        return self._kernel.code()

    @torch.no_grad()
    def init(self, chains: Chains, step: int) -> None:
        """State at the positions in ``chains.state[0]``."""
        if any(not t.dtype.is_floating_point for t in chains.chain_kwargs):
            init_chains(self._program, chains, step)  # labels may be out of range, which the kernel would not see
            return
        with self._on_device():
            self._init.refresh(chains.shared_kwargs, self._program.device)
            self._init(chains, step, 1, self._no_hyper(), None)

    def _no_hyper(self) -> Tensor:
        return torch.zeros((1, 1), dtype=self._program.carry_dtype, device=self._program.device)

    def _on_device(self) -> AbstractContextManager[Any]:
        device = self._program.device
        return torch.cuda.device(device) if device.type == "cuda" else nullcontext()

    @torch.no_grad()
    def begin(self, chains: Chains) -> None:
        """Evaluate what depends on captured tensors only."""
        self._kernel.refresh(chains.shared_kwargs, self._program.device)

    @torch.no_grad()
    def __call__(self, chains: Chains, first_step: int, hyper: Tensor, keep: Keep | None) -> None:
        """``hyper.shape[0]`` steps of every chain; returns before they are done."""
        self._began = (time.perf_counter(), chains.ids.shape[0] * hyper.shape[0])
        with self._on_device():
            self._kernel(chains, first_step, hyper.shape[0], hyper, keep)

    def synchronize(self) -> None:
        """Wait until the launches are done."""
        if self._program.device.type == "cuda":
            torch.cuda.synchronize(self._program.device)
        began, chain_steps = self._began
        if chain_steps >= self._measured[0]:
            self._measured = chain_steps, time.perf_counter() - began

    def facts(self) -> dict[str, object]:
        """For explain()."""
        if self._build_seconds is None:
            return {"compiled": "not yet"}
        form, found = self._kernel.form, self._resources
        facts: dict[str, object] = {
            "compiled": f"one Triton kernel for the whole chain loop, {self._build_seconds:.2f} s",
            "tile": str(form),
            "chain-step": f"{self._kernel.cost}",
            "checks": self._kernel.checks(),
        }
        if found is not None:
            facts["resources"] = (
                f"{found.registers} registers, {found.spills} spills in the loop, {found.shared_bytes:,} bytes shared, "
                f"{found.instructions_per_chain_step:.1f} warp instructions a chain-step"
            )
        if self._trials:
            facts["trials"] = ", ".join(f"{name} {us:.3g} us a step" for name, us in self._trials.items())
        chain_steps, seconds = self._measured
        if chain_steps and self._program.device.type == "cuda":
            facts["measured"] = f"{1e9 * seconds / chain_steps:.3g} ns a chain-step"
            if found is not None:
                expected = found.seconds(self._device(), chain_steps, 1)
                facts["expected"] = f"{1e9 * expected / chain_steps:.3g} ns a chain-step by the instructions"
        return facts

    def source(self) -> str:
        """The generated chain loop."""
        return "" if self._build_seconds is None else self._kernel.source()
