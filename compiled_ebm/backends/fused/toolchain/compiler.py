"""The C++ compiler: the one asked for, or the first that runs."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shlex
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from compiled_ebm.backends.fused.toolchain.processes import kill, spawn
from compiled_ebm.errors import BackendUnavailableError

__all__ = ["INSTALL", "Compiler", "find_compiler", "why_unavailable"]

_PROBE_SECONDS = 30.0
INSTALL = "install g++ or clang, or pip install 'compiled-ebm[compiler]'"


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
        return None if find_compiler() else f"no C++ compiler was found: {INSTALL}"
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
                f"correct it, or unset CXX and {INSTALL}"
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
    process = spawn((*command, "--version"), os.environ | {"LC_ALL": "C"})
    try:
        answer = process.communicate(timeout=_PROBE_SECONDS)[0]
    except BaseException:
        kill(process)
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
