"""What a kernel costs on a device, from its machine code: compiled here, with no GPU."""

from __future__ import annotations

import re
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from triton.runtime.errors import PTXASError

from compiled_ebm.backends.fused.triton.devices import Device
from compiled_ebm.backends.fused.triton.emitter import Kernel
from compiled_ebm.backends.fused.triton.sass import parse, step_loop
from compiled_ebm.backends.fused.triton.values import Form

__all__ = ["Resources", "constexprs", "cross_compile", "options"]

_TOOLS = Path(triton.__file__).parent / "backends/nvidia/bin"
_USAGE = re.compile(r"REG:(\d+)\s+STACK:(\d+)")
_SPILLS = ("LDL", "STL")
_TENSOR = ("HMMA", "HGMMA", "DMMA", "QGMMA", "UTCHMMA", "UTCQMMA")
_MOST_REGISTERS = 255


@dataclass(frozen=True)
class Resources:
    """Of a program instance of a kernel, and of one round of its loop over steps.

    Args:
        form: The kernel's layout.
        registers: Of a thread.
        stack_bytes: Of a thread.
        spills: Loads and stores of the stack in the loop.
        shared_bytes: Of the instance.
        instructions: In the loop, of a warp.
        tensor_instructions: Those on tensor cores.
        issue_cycles: Of a scheduler, for a warp's round.
        latency_cycles: Of a warp alone, for a round.
        compile_seconds: It took.
    """

    form: Form
    registers: int
    stack_bytes: int
    spills: int
    shared_bytes: int
    instructions: int
    tensor_instructions: int
    issue_cycles: float
    latency_cycles: float
    compile_seconds: float

    @property
    def instructions_per_chain_step(self) -> float:
        """Of whole warps."""
        return self.instructions * self.form.warps / self.form.block

    def fits(self, device: Device) -> bool:
        """Whether the device can run an instance at all."""
        return self.shared_bytes <= device.shared_bytes and self.resident(device) > 0

    def resident(self, device: Device) -> int:
        """Instances that a multiprocessor holds at once."""
        registers = -(-self.registers // 8) * 8 * 32 * self.form.warps
        limits = [device.warps // self.form.warps, device.registers // registers, 32]
        if self.shared_bytes:
            limits.append(device.shared_bytes // self.shared_bytes)
        return min(limits)

    def seconds(self, device: Device, n_chains: int, n_steps: int) -> float:
        """Of a launch: by instructions issued where warps are many, by their latency where they are few."""
        return n_steps * max(self.bounds(device, n_chains))

    def bounds(self, device: Device, n_chains: int) -> tuple[float, float]:
        """Seconds of a step by the instructions issued, and by the latency of one warp's."""
        instances = -(-n_chains // self.form.block)
        at_once = min(self.resident(device), -(-instances // device.multiprocessors))
        waves = -(-instances // (device.multiprocessors * at_once))
        warps_a_scheduler = max(1.0, at_once * self.form.warps / 4)
        issue, latency = self.issue_cycles * warps_a_scheduler, self.latency_cycles
        return waves * issue / device.clock, waves * latency / device.clock


def options(form: Form) -> dict[str, Any]:
    """For Triton's compiler."""
    registers = min(_MOST_REGISTERS, 65_536 // (32 * form.warps))
    return {"num_warps": form.warps, "num_stages": 1, "maxnreg": registers}


def constexprs(form: Form, real: torch.dtype, keep: bool, fast: bool = True) -> dict[str, Any]:
    """What a kernel is compiled for."""
    import triton.language as tl

    is_single = real == torch.float32
    return {
        "BLOCK": form.block,
        "REAL": tl.float32 if is_single else tl.float64,
        "FAST": fast and is_single,
        "KEEP": keep,
    }


def cross_compile(kernel: Kernel, function: Any, real: torch.dtype, device: Device) -> Resources | None:
    """Compile for a device and read what came out; None if a pass of Triton's compiler fails."""
    fixed = constexprs(kernel.form, real, keep=False)
    signature = {**dict(kernel.arguments), **dict.fromkeys(fixed, "constexpr")}
    aligned = {(i,): [["tt.divisibility", 16]] for i, (_, type_) in enumerate(kernel.arguments) if type_[0] == "*"}
    begin = time.perf_counter()
    source = ASTSource(function, signature, fixed, aligned)
    try:
        compiled = triton.compile(source, target=GPUTarget("cuda", device.capability, 32), options=options(kernel.form))
    except (RuntimeError, PTXASError) as error:
        if isinstance(error, RuntimeError) and "PassManager" not in str(error):
            raise
        return None
    seconds = time.perf_counter() - begin
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.cubin"
        path.write_bytes(compiled.asm["cubin"])
        usage = _USAGE.search(_tool("-res-usage", path))
        loop = step_loop(parse(_tool("--dump-sass", path)))
    assert usage is not None
    return Resources(
        kernel.form,
        int(usage.group(1)),
        int(usage.group(2)),
        loop.count(_SPILLS),
        int(compiled.metadata.shared),
        loop.count(),
        loop.count(_TENSOR),
        loop.issue_cycles(),
        loop.latency_cycles(),
        seconds,
    )


def _tool(option: str, path: Path) -> str:
    return subprocess.run(
        [str(_TOOLS / "cuobjdump"), option, str(path)], capture_output=True, text=True, check=True
    ).stdout
