"""What the generated CUDA kernel of an energy would cost, with no GPU: compiled here, read from its machine code."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import torch

from compiled_ebm.arguments import checked_int
from compiled_ebm.builder import traced
from compiled_ebm.errors import BackendUnavailableError, UnsupportedEnergyError
from compiled_ebm.target import Energy
from compiled_ebm.transitions.base import Transition

__all__ = ["TARGETS", "KernelCost", "kernel_cost"]

TARGETS = ("sm_80", "sm_90", "sm_100")
"""An A100, an H100 or H200, a B200."""


@dataclass(frozen=True)
class KernelCost:
    """A kernel on a device, by its machine code; no device has run it.

    Args:
        target: Such as "sm_90".
        device: The product that the seconds are for.
        n_chains: For which the layout was chosen.
        tile: Chains of a program instance, its warps of 32 threads, and how they share the work.
        registers: Of a thread.
        spills: Loads and stores of the stack in the loop over steps, of a thread.
        shared_bytes: Of an instance.
        instructions: Of warps, a chain-step.
        tensor_core_instructions: Among them.
        step_seconds: Of a step of all chains: the larger of the next two.
        issue_seconds: Were every scheduler to issue in every cycle that its pipes allow.
        latency_seconds: By what one warp waits for, one instruction after the other.
        compile_seconds: Of this layout.
        layouts: How many were compiled.
        source: The kernel.
    """

    target: str
    device: str
    n_chains: int
    tile: str
    registers: int
    spills: int
    shared_bytes: int
    instructions: float
    tensor_core_instructions: float
    step_seconds: float
    issue_seconds: float
    latency_seconds: float
    compile_seconds: float
    layouts: int
    source: str

    def __str__(self) -> str:
        bound = "latency" if self.latency_seconds >= self.issue_seconds else "instructions issued"
        rows = {
            "target": f"{self.target} ({self.device}); compiled, not run: no device has seen this kernel",
            "tile": f"{self.tile}: the best of {self.layouts} layouts",
            "registers": f"{self.registers} a thread, {self.spills} spills in the loop over steps",
            "shared memory": f"{self.shared_bytes:,} bytes",
            "chain-step": f"{self.instructions:.1f} warp instructions, {self.tensor_core_instructions:.1f} of them on "
            "tensor cores",
            "step": f"{1e6 * self.step_seconds:.3g} us of {self.n_chains:,} chains, bound by {bound} "
            f"(issue {1e6 * self.issue_seconds:.3g} us, latency {1e6 * self.latency_seconds:.3g} us)",
            "1,000 steps": f"{1e3 * self.step_seconds * 1000:.3g} ms expected",
            "compiled in": f"{self.compile_seconds:.2f} s",
        }
        return "\n".join(f"{name:<14} {value}" for name, value in rows.items())


def kernel_cost(
    energy: Energy,
    transition: Transition,
    event_shape: tuple[int, ...] | int,
    *,
    target: str = "sm_90",
    n_chains: int = 10_000,
    dtype: torch.dtype = torch.float32,
    compute_dtype: torch.dtype | str | None = None,
    model_kwargs: Mapping[str, Any] | None = None,
) -> KernelCost:
    """Compile the fused CUDA kernel for a target that need not be here, and say what a step costs.

    Layouts are compiled and compared as on a device, but for the last trial there. Issue time counts the cycles for
    which each kind of instruction holds its pipe; latency is a walk through the loop in order, with the stalls and
    barriers that the machine code carries.

    Args:
        energy, transition, event_shape, dtype, compute_dtype, model_kwargs: As for :func:`build_sampler`.
        target: "sm_80" (A100), "sm_90" (H100, H200) or "sm_100" (B200).
        n_chains: Chains that will run: few are better spread over the device in smaller tiles.

    Returns:
        A :class:`KernelCost`; print it.

    Raises:
        BackendUnavailableError: Triton is not installed.
        UnsupportedEnergyError: The energy has an operation that no kernel has, or fits none.
        TypeError, ValueError: An argument is wrong.

    Example:
        >>> import compiled_ebm as ce
        >>> cost = ce.kernel_cost(ce.DoubleWellModel(), ce.Langevin(0.01), 2)  # doctest: +SKIP
        >>> cost.spills  # doctest: +SKIP
        0
    """
    n_chains = checked_int("n_chains", n_chains, 1, 1 << 40)
    if target not in TARGETS:
        raise ValueError(f"target: expected one of {', '.join(TARGETS)}, got {target!r}")
    if find_spec("triton") is None:
        raise BackendUnavailableError("kernel_cost: Triton is not installed: pip install triton")
    from compiled_ebm.backends.fused.triton.devices import DEVICES
    from compiled_ebm.backends.fused.triton.launch import step_kernel
    from compiled_ebm.backends.fused.triton.search import best_layouts

    device = DEVICES[target]
    kwargs = {} if model_kwargs is None else model_kwargs
    options: dict[str, Any] = {"dtype": dtype, "compute_dtype": compute_dtype, "model_kwargs": kwargs}
    program, shared = traced(energy, transition, event_shape, n_chains=n_chains, **options)
    kernel = step_kernel(program)
    kernel.generate(shared)
    found, tried = best_layouts(kernel, device, n_chains)
    if not found:
        raise UnsupportedEnergyError(
            f"energy: expected a step of one chain that fits a program instance on {device.name}, got none of {tried} "
            "layouts that do; backend='inductor' runs it"
        )
    best = found[0]
    kernel.use(best.form)
    issue, latency = best.bounds(device, n_chains)
    return KernelCost(
        target,
        device.name,
        n_chains,
        str(best.form),
        best.registers,
        best.spills,
        best.shared_bytes,
        best.instructions_per_chain_step,
        best.tensor_instructions * best.form.warps / best.form.block,
        max(issue, latency),
        issue,
        latency,
        best.compile_seconds,
        tried,
        kernel.source(),
    )
