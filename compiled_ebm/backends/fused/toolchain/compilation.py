"""One run of the compiler on one generated source."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shlex
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from compiled_ebm.backends.fused.toolchain.compiler import INSTALL, Compiler, find_compiler
from compiled_ebm.backends.fused.toolchain.processes import GRACE_SECONDS, kill, spawn
from compiled_ebm.backends.fused.toolchain.processor import Vector, cpu_flags, cpu_identity
from compiled_ebm.errors import BackendUnavailableError

__all__ = ["Compilation", "CompileError", "CompileTimeout", "compilation_of", "n_compilations", "run"]

_FORMAT = 1
"""Raised when what is kept in the cache changes meaning."""
_ERROR_LINES = 20
_FLAGS = (
    "-std=c++17",
    "-O3",
    # CXX may bring -ffast-math along; it would let the compiler take NaN and inf for impossible, and drop their tests
    "-fno-fast-math",
    "-ffp-contract=fast",  # a * b + c in one rounding
    # The next two keep every NaN and inf as it is. Without errno, sqrt is an instruction and not a branch to a call;
    # without traps, both sides of a select may be computed, which vectorising needs. Only errno and the exception
    # flags of the processor are lost, and nobody reads them.
    "-fno-math-errno",
    "-fno-trapping-math",
    "-fPIC",
    "-shared",
    "-fvisibility=hidden",
)
_counting = threading.Lock()
_n_compilations = 0


def _after_fork() -> None:
    """In a forked child the thread that held the lock may not exist."""
    global _counting
    _counting = threading.Lock()


if sys.platform != "win32":
    os.register_at_fork(after_in_child=_after_fork)


class CompileError(RuntimeError):
    """The compiler refused the generated source, or left something that cannot be loaded."""


class CompileTimeout(CompileError):
    """Compiling took longer than it was allowed to; nothing of it is left."""


@dataclass(frozen=True)
class Compilation:
    """What to compile, how, and under which key the result is kept."""

    source: str
    command: tuple[str, ...]
    key: str
    timeout: float | None


def n_compilations() -> int:
    """How often this process has run a compiler."""
    return _n_compilations


def compilation_of(
    source: str, flags: Sequence[str], vector: Vector, timeout: float | None, compiler: Compiler | None
) -> Compilation:
    """The command for this machine, and the key of everything that its result depends on."""
    compiler = compiler or find_compiler()
    if compiler is None:
        raise BackendUnavailableError(f"no C++ compiler was found: {INSTALL}")
    files = ("-o", "kernel.so", "kernel.cpp")
    command = (*compiler.command, *_FLAGS, *cpu_flags(compiler, vector), *_link_flags(compiler), *files, *flags)
    facts = json.dumps([_FORMAT, source, command, compiler.version, cpu_identity()])
    return Compilation(source, command, hashlib.sha256(facts.encode()).hexdigest(), timeout)


def _link_flags(compiler: Compiler) -> tuple[str, ...]:
    """No library is linked: memcpy and the like are found in the process, which saves 17 ms of 62 with gcc.

    For zig they also save the minute that it takes to build a C++ library of its own for each kind of processor.
    """
    if compiler.kind == "zig":
        return "-nostdlib", "-nostdlib++"
    return ("-nostdlib",) if sys.platform == "linux" else ()


def run(job: Compilation, work: Path, folder: Path, timeout: float | None) -> None:
    """Run the compiler in ``work``, where its temporary files go too; whatever ends it early kills all of it.

    It is started by another thread: Ctrl-C interrupts the main thread alone, where it could come just between the
    start of the process and the moment when its id is known.
    """
    global _n_compilations
    shown = shlex.join(job.command)
    environment = os.environ | {"LC_ALL": "C", "TMPDIR": str(work), "ZIG_LOCAL_CACHE_DIR": str(work / "zig")}
    environment.setdefault("ZIG_GLOBAL_CACHE_DIR", str(folder / "zig"))
    started = threading.Event()
    running: list[subprocess.Popen[str]] = []
    failures: list[Exception] = []
    outputs: list[str] = []

    def watch() -> None:
        try:
            process = spawn(job.command, environment, work)
            running.append(process)
            started.set()
            try:
                outputs.append(process.communicate(timeout=timeout)[0])
            except subprocess.TimeoutExpired:
                kill(process)
                raise
        except Exception as error:
            failures.append(error)
        finally:
            started.set()

    with _counting:
        _n_compilations += 1
    watcher = threading.Thread(target=watch, daemon=True)
    try:
        watcher.start()
        while watcher.is_alive():
            watcher.join(0.1)  # a signal that comes just before an endless wait would not end it
    except BaseException:
        started.wait(GRACE_SECONDS)
        for process in running:
            kill(process, reap=False)
        watcher.join(GRACE_SECONDS)
        raise
    if failures:
        if isinstance(failures[0], subprocess.TimeoutExpired):
            raise CompileTimeout(f"compiling took longer than {job.timeout:g} s: {shown}")
        # not an OSError, which would be the directory's fault
        raise CompileError(f"the compiler cannot be started: {failures[0]}: {shown}") from failures[0]
    code = running[0].returncode
    if code != 0:
        if "No space left on device" in outputs[0] or "Disk quota exceeded" in outputs[0]:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        lines = outputs[0].strip().splitlines()
        raise CompileError("\n".join([f"{shown}: exited with {code}", *lines[:_ERROR_LINES]]))
    if not (work / "kernel.so").is_file():
        raise CompileError(f"{shown}: exited with 0 and left no output")
