"""From C++ source to a loaded library: finds a compiler, compiles once a machine, verifies before loading."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import functools
import hashlib
import importlib.util
import json
import os
import platform
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

from compiled_ebm.backends.fused import cache
from compiled_ebm.errors import BackendUnavailableError

__all__ = [
    "CompileError",
    "CompileTimeout",
    "Compiler",
    "Vector",
    "build",
    "cpu_flags",
    "cpu_identity",
    "find_compiler",
    "load",
    "n_compilations",
    "why_unavailable",
]

Vector = Literal["native", "avx512", "avx2", "portable"]
"""Instruction sets: all of this machine; x86 with AVX-512 or AVX2 and FMA; what every machine of its kind has."""

_FORMAT = 1
"""Raised when what is kept in the cache changes meaning."""
_PROBE_SECONDS = 30.0
_GRACE_SECONDS = 5.0
"""For what was killed to be gone."""
_ERROR_LINES = 20
_INSTALL = "install g++ or clang, or pip install 'compiled-ebm[compiler]'"
_X86 = ("x86_64", "amd64", "i386", "i686")

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


class CompileError(RuntimeError):
    """The compiler refused the generated source, or left something that cannot be loaded."""


class CompileTimeout(CompileError):
    """Compiling took longer than it was allowed to; nothing of it is left."""


@dataclass(frozen=True)
class Compiler:
    """A C++ compiler that ran.

    Args:
        command: Its path and first arguments, such as ``("/usr/bin/ccache", "g++")``.
        kind: Whose flags it understands.
        version: The first line of ``--version``.
    """

    command: tuple[str, ...]
    kind: Literal["gcc", "clang", "zig"]
    version: str


# --- finding one ------------------------------------------------------------------------------------------------------

_found: dict[tuple[str | None, str | None], Compiler] = {}


def find_compiler() -> Compiler | None:
    """``CXX`` if it is set; else the first that runs of g++, clang++, c++, and the one in the wheel ``ziglang``.

    What was found is kept for this process while ``CXX`` and ``PATH`` stay; that nothing was found is not.

    Raises:
        BackendUnavailableError: ``CXX`` is set, and is no C++ compiler that runs.
    """
    key = os.environ.get("CXX"), os.environ.get("PATH")
    if key not in _found:
        compiler = _search(key[0])
        if compiler is None:
            return None
        _found[key] = compiler
    return _found[key]


def why_unavailable() -> str | None:
    """Why nothing can be compiled here and what to install, or None if it can."""
    try:
        return None if find_compiler() else f"no C++ compiler was found: {_INSTALL}"
    except BackendUnavailableError as error:
        return str(error)


def _search(cxx: str | None) -> Compiler | None:
    if cxx and cxx.strip():
        try:
            words = [cxx] if shutil.which(cxx) else shlex.split(cxx)
            return _probe(words)
        except (OSError, ValueError, subprocess.SubprocessError) as error:
            raise BackendUnavailableError(
                f"CXX={cxx!r}: expected the command of a C++ compiler that runs, got {type(error).__name__}: {error}; "
                f"correct it, or unset CXX and {_INSTALL}"
            ) from error
    candidates = [[name] for name in ("g++", "clang++", "c++") if shutil.which(name)]
    with contextlib.suppress(ValueError):  # a module that is None in sys.modules
        wheel = importlib.util.find_spec("ziglang")
        if wheel and wheel.origin:
            # what "python -m ziglang" starts, without 0.2 s of Python and a look for a ziglang in the working directory
            candidates.append([str(Path(wheel.origin).with_name("zig")), "c++"])
    for words in candidates:
        with contextlib.suppress(OSError, ValueError, subprocess.SubprocessError):
            return _probe(words)
    return None


def _probe(words: list[str]) -> Compiler:
    """Ask a command for its version; one that is not found, fails or says nothing known raises."""
    path = shutil.which(words[0])
    if path is None:
        raise FileNotFoundError(f"{words[0]} is not on PATH")
    command = (os.path.abspath(path), *words[1:])
    process = _spawn((*command, "--version"), os.environ | {"LC_ALL": "C"})
    try:
        answer = process.communicate(timeout=_PROBE_SECONDS)[0]
    except BaseException:
        _kill(process)
        raise
    text = answer.lower()
    first = answer.strip().partition("\n")[0]
    if process.returncode != 0:
        raise ValueError(f"--version exited with {process.returncode}: {first[:200]}")
    names = [Path(word).stem for word in words]
    if "zig" in text or "zig" in names or "ziglang" in names:
        return Compiler(command, "zig", first)
    if "clang" in text or "llvm" in text or "oneapi" in text:
        return Compiler(command, "clang", first)
    if "free software foundation" in text and any(name in text for name in ("g++", "gcc", "c++")):
        return Compiler(command, "gcc", first)
    raise ValueError(f"--version says {first[:80]!r}, which is none of gcc, clang and zig")


# --- flags ------------------------------------------------------------------------------------------------------------


def cpu_flags(compiler: Compiler, vector: Vector = "native") -> tuple[str, ...]:
    """The flags that choose instruction sets.

    Raises:
        ValueError: This machine is of another kind than the instruction set.
    """
    x86 = platform.machine().lower() in _X86
    if vector not in ("native", "avx512", "avx2", "portable"):
        raise ValueError(f"vector: expected 'native', 'avx512', 'avx2' or 'portable', got {vector!r}")
    if vector.startswith("avx") and not x86:
        raise ValueError(f"vector: {vector!r} needs an x86 machine, got {platform.machine()}; use 'native'")
    if not x86:
        arm = platform.machine().lower() in ("arm64", "aarch64")
        return ("-mcpu=native",) if vector == "native" and (arm or compiler.kind == "zig") else ()
    # haswell and skylake-avx512 rather than x86-64-v3 and -v4: gcc knows those from 11 on only
    name = {"native": "native", "avx512": "skylake-avx512", "avx2": "haswell", "portable": "x86-64"}[vector]
    # without the width, gcc and clang split 64-byte vectors in two where they find that gentler on the clock
    width = ("-mprefer-vector-width=512",) if vector in ("native", "avx512") else ()
    return (f"-mcpu={name.replace('-', '_')}" if compiler.kind == "zig" else f"-march={name}", *width)


def _link_flags(compiler: Compiler) -> tuple[str, ...]:
    """No library is linked: memcpy and the like are found in the process, which saves 17 ms of 62 with gcc.

    For zig they also save the minute that it takes to build a C++ library of its own for each kind of processor.
    """
    if compiler.kind == "zig":
        return "-nostdlib", "-nostdlib++"
    return ("-nostdlib",) if sys.platform == "linux" else ()


@functools.cache
def cpu_identity() -> str:
    """Model and features of this machine's processor: code for one may not run on another."""
    facts = [sys.platform, platform.machine(), platform.processor()]
    if sys.platform == "darwin":
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            names = ["machdep.cpu.brand_string", "hw.cpufamily", "hw.cpusubfamily"]
            facts.append(subprocess.run(["sysctl", *names], capture_output=True, text=True, timeout=10).stdout)
    with contextlib.suppress(OSError):
        wanted: tuple[str, ...] = ("vendor_id", "cpu family", "model", "model name", "flags", "Features", "isa")
        wanted += tuple(f"CPU {name}" for name in ("implementer", "architecture", "variant", "part"))
        lines = Path("/proc/cpuinfo").read_text().partition("\n\n")[0].splitlines()
        facts += [line for line in lines if line.partition(":")[0].strip() in wanted]
    return "\n".join(facts)


# --- compiling and loading --------------------------------------------------------------------------------------------

T = TypeVar("T")
_loaded: dict[str, ctypes.CDLL] = {}
_loading = threading.Lock()
_spawning = threading.Lock()
_n_compilations = 0


def _before_fork() -> None:
    _spawning.acquire()


def _after_fork() -> None:
    _spawning.release()


def _after_fork_in_child() -> None:
    """The threads that held locks do not exist there."""
    global _loading, _spawning
    _loading = threading.Lock()
    _spawning = threading.Lock()


if sys.platform != "win32":
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork_in_child)


@dataclass(frozen=True)
class _Job:
    source: str
    command: tuple[str, ...]
    key: str
    timeout: float | None


def n_compilations() -> int:
    """How often this process has run a compiler."""
    return _n_compilations


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
    job = _job(source, flags, vector, timeout, compiler)
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
    job = _job(source, flags, vector, timeout, compiler)
    found = _loaded.get(job.key)
    return found if found is not None else _obtain(job, lambda folder: _open(folder, job.key))


def _job(source: str, flags: Sequence[str], vector: Vector, timeout: float | None, compiler: Compiler | None) -> _Job:
    compiler = compiler or find_compiler()
    if compiler is None:
        raise BackendUnavailableError(f"no C++ compiler was found: {_INSTALL}")
    files = ("-o", "kernel.so", "kernel.cpp")
    command = (*compiler.command, *_FLAGS, *cpu_flags(compiler, vector), *_link_flags(compiler), *files, *flags)
    facts = json.dumps([_FORMAT, source, command, compiler.version, cpu_identity()])
    return _Job(source, command, hashlib.sha256(facts.encode()).hexdigest(), timeout)


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


def _obtain(job: _Job, use: Callable[[Path], T | None]) -> T:
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


def _make(job: _Job, folder: Path, use: Callable[[Path], T | None]) -> T:
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
            _run(job, work, folder, left)
            cache.install(work / "kernel.so", folder, job.key)
        found = use(folder)
    if found is None:
        raise OSError(errno.EIO, "a file just written does not read back")
    cache.trim(folder, keep=job.key)
    return found


def _run(job: _Job, work: Path, folder: Path, timeout: float | None) -> None:
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
            process = _spawn(job.command, environment, work)
            running.append(process)
            started.set()
            try:
                outputs.append(process.communicate(timeout=timeout)[0])
            except subprocess.TimeoutExpired:
                _kill(process)
                raise
        except Exception as error:
            failures.append(error)
        finally:
            started.set()

    with _loading:
        _n_compilations += 1
    watcher = threading.Thread(target=watch, daemon=True)
    try:
        watcher.start()
        while watcher.is_alive():
            watcher.join(0.1)  # a signal that comes just before an endless wait would not end it
    except BaseException:
        started.wait(_GRACE_SECONDS)
        for process in running:
            _kill(process, reap=False)
        watcher.join(_GRACE_SECONDS)
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


def _spawn(command: tuple[str, ...], environment: dict[str, str], folder: Path | None = None) -> subprocess.Popen[str]:
    """Start a command in a process group of its own; forks of other threads wait for the millisecond it takes.

    A child forked meanwhile would have copies of pipes, the end of which this process waits for.
    """
    with _spawning:
        return subprocess.Popen(
            command,
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        )


def _kill(process: subprocess.Popen[str], reap: bool = True) -> None:
    """Kill a command with all that it started; ``reap`` unless another thread waits for its end."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        if sys.platform == "win32":
            process.kill()
        else:
            os.killpg(process.pid, signal.SIGKILL)
    if reap:
        with contextlib.suppress(subprocess.TimeoutExpired):  # who left the group may keep the pipe open
            process.communicate(timeout=_GRACE_SECONDS)
