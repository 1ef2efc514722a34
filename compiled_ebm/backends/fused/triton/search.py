"""The search for a kernel's layout: compiled for the device, with or without one here."""

from __future__ import annotations

from functools import partial

from compiled_ebm.backends.fused.triton.devices import Device
from compiled_ebm.backends.fused.triton.forms import candidates, ranked
from compiled_ebm.backends.fused.triton.kernel import TritonKernel
from compiled_ebm.backends.fused.triton.resources import Resources

__all__ = ["best_layouts"]


def best_layouts(kernel: TritonKernel, device: Device, n_chains: int) -> tuple[list[Resources], int]:
    """What fits the device, the fastest for so many chains first; and how many were tried."""
    kernel.prepare_for(device)
    forms = candidates(kernel.program, kernel.plan, kernel.precision)
    return ranked(forms, partial(kernel.resources, device=device), device, n_chains), len(forms)
