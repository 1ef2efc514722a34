"""The machine and the versions that figures belong to."""

from __future__ import annotations

import os
import platform
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

__all__ = ["cpu_model", "device_name", "environment", "package_version"]

_PACKAGES = ("compiled_ebm", "torch", "torchebm", "jax", "numpy")


def environment(device: torch.device | str = "cpu") -> dict[str, Any]:
    """Date, device, processor, cores, threads, vector unit, Python and the versions of packages."""
    return {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "device": device_name(torch.device(device)),
        "cpu": cpu_model(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "vector": torch.backends.cpu.get_cpu_capability(),
        "python": platform.python_version(),
        "versions": {name: package_version(name) for name in _PACKAGES},
    }


def device_name(device: torch.device) -> str:
    """The GPU's, or the kind of device."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def cpu_model() -> str:
    """The processor's name, with what else tells two of the same name apart."""
    table = Path("/proc/cpuinfo")
    if not table.exists():
        return platform.processor() or platform.machine()
    first = table.read_text().split("\n\n")[0]
    fields = dict(line.partition(":")[::2] for line in first.splitlines())
    named = {key.strip(): value.strip() for key, value in fields.items()}
    if "model name" not in named:
        return platform.machine()
    return f"{named['model name']} (family {named.get('cpu family', '?')}, model {named.get('model', '?')})"


def package_version(package: str) -> str | None:
    """The installed version of a package, None without it."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None
