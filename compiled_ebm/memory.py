"""How much memory there is, and how many chains fit in it."""

from __future__ import annotations

import os
from pathlib import Path

import torch

__all__ = ["available_bytes", "check_fits", "gibibytes"]

_SHARE = 0.9
"""The share of the free memory that a run may plan to use; the rest is the allocator's and the system's."""

_ALWAYS_THERE = 16 << 20
"""Bytes that are not worth asking the system for, which takes 0.2 ms."""


def available_bytes(device: torch.device) -> int | None:
    """Free bytes on the device, or None where the system does not tell."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return free + cached
    limits = [limit for limit in (_proc_available(), _cgroup_available()) if limit is not None]
    if limits:
        return min(limits)
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # not on this system
        return None


def _proc_available() -> int | None:
    path = Path("/proc/meminfo")
    if not path.exists():
        return None
    for line in path.read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return None


def _cgroup_available() -> int | None:
    limit, used = Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")
    if not (limit.exists() and used.exists()):
        return None
    text = limit.read_text().strip()
    return None if text == "max" else int(text) - int(used.read_text())


def check_fits(n_chains: int, per_chain: int, fixed: int, device: torch.device, what: str) -> None:
    """Raise before work starts if ``n_chains * per_chain + fixed`` bytes will not fit.

    Raises:
        MemoryError: With the bytes wanted, the bytes free, and how many chains fit.
    """
    needed = n_chains * per_chain + fixed
    if needed < _ALWAYS_THERE:
        return
    free = available_bytes(device)
    if free is None:
        return
    if needed <= _SHARE * free:
        return
    fits = max(0, int(_SHARE * free - fixed) // max(per_chain, 1))
    raise MemoryError(
        f"n_chains: {n_chains} chains need {gibibytes(needed)} for {what}, {gibibytes(free)} is free on {device}; "
        f"about {fits} chains fit: run them in parts with first_chain=..., or keep fewer draws with a larger thin"
    )


def gibibytes(n: float) -> str:
    """Bytes for people."""
    return f"{n / 2**30:.1f} GiB" if n >= 2**30 else f"{n / 2**20:.1f} MiB"
