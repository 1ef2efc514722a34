"""What this machine reaches at its best, measured on the spot: products of matrices, copies of memory, peak memory."""

from __future__ import annotations

import ctypes
import re
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from compiled_ebm.laboratory.timing import wait_for

__all__ = ["MachinePeak", "machine_peak", "peak_bytes"]

_SIDE = {"cpu": 1024, "cuda": 4096}
_COPIED = {"cpu": 1 << 26, "cuda": 1 << 30}
"""Bytes: far beyond every cache."""
_ROUNDS = 7
_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


@dataclass(frozen=True)
class MachinePeak:
    """The best of several products of large matrices, and of several copies, with all threads.

    Args:
        flops: Operations a second; a multiply-add is two.
        bytes: Read and written, a second.
    """

    flops: float
    bytes: float


def machine_peak(device: torch.device, dtype: torch.dtype) -> MachinePeak:
    """Measure it; takes well under a second."""
    side = _SIDE.get(device.type, 1024)
    a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    source = torch.zeros(_COPIED.get(device.type, 1 << 26), dtype=torch.uint8, device=device)
    into = torch.empty_like(source)
    product, copy = (_best(work, device) for work in (lambda: torch.mm(a, b), lambda: into.copy_(source)))
    return MachinePeak(2 * side**3 / product, 2 * source.numel() / copy)


def _best(work: Callable[[], object], device: torch.device) -> float:
    """Seconds."""
    found = []
    for _ in range(_ROUNDS):
        wait_for(device)
        begin = time.perf_counter()
        work()
        wait_for(device)
        found.append(time.perf_counter() - begin)
    return min(found)


def peak_bytes(work: Callable[[], object], device: torch.device) -> int | None:
    """Bytes that were in use during the work at most, beyond those before; None where the system does not tell."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        work()
        wait_for(device)
        return torch.cuda.max_memory_allocated(device) - before
    _give_back()
    try:
        _RESET.write_text("5")  # the peak begins anew
        before = _resident("VmHWM")
    except OSError:
        return None
    work()
    return _resident("VmHWM") - before


def _give_back() -> None:
    """What the C library keeps of freed memory: the work would take it again, and nothing would be seen."""
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's own
        if trim is not None:
            trim(0)


def _resident(name: str) -> int:
    found = re.search(rf"{name}:\s+(\d+) kB", _STATUS.read_text())
    if found is None:
        raise OSError(f"{_STATUS} tells no {name}")
    return int(found[1]) * 1024
