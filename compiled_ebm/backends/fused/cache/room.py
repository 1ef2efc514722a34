"""The bound on the cache's size."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

from compiled_ebm.backends.fused.cache.locks import locked
from compiled_ebm.backends.fused.cache.own_files import WORK, remove

__all__ = ["MAX_BYTES", "trim"]

MAX_BYTES = 512 << 20
"""Bytes of kernels and trials at most: thousands of kernels, which take 20 to 100 KiB each."""
_BLOCK = 4096
"""Bytes that even the smallest file takes on most file systems."""
_ABANDONED_AFTER = 86400.0
"""Seconds after which what a killed process was writing is removed: longer than any compilation."""


def trim(folder: Path, keep: str = "", max_bytes: int | None = None) -> None:
    """Remove what was not used for longest until the rest fits; never ``keep``, nor what is locked.

    Args:
        folder: The cache directory.
        keep: The key of the kernel just built.
        max_bytes: 512 MiB by default.
    """
    limit = MAX_BYTES if max_bytes is None else max_bytes
    size: dict[str, int] = {}
    used: dict[str, float] = {}
    now = time.time()
    with contextlib.suppress(OSError), os.scandir(folder) as found:
        for entry in found:
            with contextlib.suppress(OSError):
                info = entry.stat(follow_symlinks=False)
                stem, suffix = os.path.splitext(entry.name)
                if entry.name.startswith(WORK) or suffix in (".lock", ".held"):
                    if now - info.st_mtime > _ABANDONED_AFTER:
                        remove(Path(entry.path))
                elif suffix in (".so", ".json"):
                    size[stem] = size.get(stem, 0) + max(info.st_size, _BLOCK)
                    used[stem] = max(used.get(stem, 0.0), info.st_mtime)
    total = sum(size.values())
    for stem in sorted(size, key=lambda stem: used[stem]):
        if total <= limit:
            return
        if stem == keep:
            continue
        with contextlib.suppress(OSError), locked(folder, stem, timeout=0) as held:
            if held:
                for suffix in (".json", ".so"):
                    remove(folder / f"{stem}{suffix}")
                total -= size[stem]
