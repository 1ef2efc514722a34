"""Sources compiled once a machine, verified, and loaded once a process."""

from __future__ import annotations

import ctypes
import errno
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from compiled_ebm.backends.fused import cache
from compiled_ebm.backends.fused.toolchain.compilation import (
    Compilation,
    CompileError,
    CompileTimeout,
    compilation_of,
    run,
)
from compiled_ebm.backends.fused.toolchain.compiler import Compiler
from compiled_ebm.backends.fused.toolchain.processor import Vector

__all__ = ["build", "load", "unloaded"]

T = TypeVar("T")
_loaded: dict[str, ctypes.CDLL] = {}
_loading = threading.Lock()


def _after_fork() -> None:
    """In a forked child the thread that held the lock may not exist."""
    global _loading
    _loading = threading.Lock()


if sys.platform != "win32":
    os.register_at_fork(after_in_child=_after_fork)


def build(
    source: str,
    *,
    flags: Sequence[str] = (),
    vector: Vector = "native",
    timeout: float | None = None,
    compiler: Compiler | None = None,
) -> Path:
    """The shared library compiled from ``source``, from the cache if it is there.

    Args:
        source: One C++17 file without includes of its own. What is to be called from outside is
            ``extern "C" __attribute__((visibility("default")))``; no library is linked.
        flags: Appended to the command, after those for the processor and the file.
        vector: The instruction sets that may be used.
        timeout: Seconds at most, waiting for another process that compiles the same included.
        compiler: By default :func:`find_compiler`'s.

    Returns:
        Its file, verified. It may be removed once it was not used for long: :func:`load` rather than keep the path.

    Raises:
        BackendUnavailableError: There is no compiler, or ``CXX`` is none.
        CompileError: The compiler refused the source.
        CompileTimeout: It took too long.
        CacheError: The cache directory is not safe to load code from, or there is no room for any.
    """
    job = compilation_of(source, flags, vector, timeout, compiler)
    return _obtain(job, lambda folder: cache.verified(folder, job.key))


def load(
    source: str,
    *,
    flags: Sequence[str] = (),
    vector: Vector = "native",
    timeout: float | None = None,
    compiler: Compiler | None = None,
) -> ctypes.CDLL:
    """:func:`build`, then load: the same library object for the same source and flags, as long as the process lives.

    Example:
        >>> twice = load('extern "C" __attribute__((visibility("default"))) int twice(int x) { return 2 * x; }').twice
        >>> twice(21)
        42
    """
    job = compilation_of(source, flags, vector, timeout, compiler)
    found = _loaded.get(job.key)
    return found if found is not None else _obtain(job, lambda folder: _open(folder, job.key))


@contextmanager
def unloaded() -> Iterator[None]:
    """Within it, libraries that this process has loaded count as not loaded: for measuring how long that takes."""
    held = dict(_loaded)
    _loaded.clear()
    try:
        yield
    finally:
        _loaded.update(held)


def _open(folder: Path, key: str) -> ctypes.CDLL | None:
    """Verify and load, once a process."""
    with _loading:
        if key in _loaded:
            return _loaded[key]
        path = cache.verified(folder, key)
        if path is None:
            return None
        try:
            _loaded[key] = ctypes.CDLL(str(path))
        except OSError as error:
            if not path.exists():  # another process made room
                return None
            raise CompileError(f"the compiled kernel cannot be loaded: {error}") from error
        return _loaded[key]


def _obtain(job: Compilation, use: Callable[[Path], T | None]) -> T:
    """What ``use`` makes of the verified file, compiled first if there is none."""
    folder = cache.directory()
    while True:
        try:
            found = use(folder)
            return found if found is not None else _make(job, folder, use)
        except cache.CacheError:
            raise
        except OSError as error:  # no space, no permission: in a temporary directory, or CacheError
            folder = cache.abandon(folder, error)


def _make(job: Compilation, folder: Path, use: Callable[[Path], T | None]) -> T:
    begin = time.monotonic()
    with cache.locked(folder, job.key, job.timeout) as held:
        if not held:
            raise CompileTimeout(f"another process has been compiling the same kernel for {job.timeout:g} s")
        found = use(folder)
        if found is not None:  # compiled by whoever held the lock before
            return found
        with cache.workspace(folder) as work:
            (work / "kernel.cpp").write_text(job.source)
            left = None if job.timeout is None else max(0.0, job.timeout - (time.monotonic() - begin))
            run(job, work, folder, left)
            cache.install(work / "kernel.so", folder, job.key)
        found = use(folder)
    if found is None:
        raise OSError(errno.EIO, "a file just written does not read back")
    cache.trim(folder, keep=job.key)
    return found
