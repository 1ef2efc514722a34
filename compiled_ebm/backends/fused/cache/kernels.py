"""Compiled kernels, each with the digest noted when it was built; one that differs from it counts as absent."""

from __future__ import annotations

import contextlib
import hashlib
import json
from pathlib import Path
from typing import Any

from compiled_ebm.backends.fused.cache.own_files import put, read, replace, touch

__all__ = ["install", "kernel_file", "verified"]


def kernel_file(folder: Path, key: str) -> Path:
    """Where a kernel is, if it is."""
    return folder / f"{key}.so"


def verified(folder: Path, key: str) -> Path | None:
    """The kernel's file if it is what was installed, else None; marks it as used."""
    path = kernel_file(folder, key)
    note, content = read(path.with_suffix(".json")), read(path)
    if note is None or content is None:
        return None
    with contextlib.suppress(ValueError):
        if json.loads(note) == _note(content):
            touch(path)
            return path
    return None


def install(built: Path, folder: Path, key: str) -> None:
    """Move a compiled kernel to its place; a crash in between leaves a kernel that does not count as verified.

    Nothing is flushed to the disk: what a power cut may leave of it fails its digest and is compiled again.
    """
    built.chmod(0o700)  # a linker leaves it writable by the group under the umask 002
    note = json.dumps(_note(built.read_bytes())).encode()
    target = kernel_file(folder, key)
    put(target.with_suffix(".json"), note)
    replace(built, target)


def _note(content: bytes) -> dict[str, Any]:
    return {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
