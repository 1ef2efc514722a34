"""This machine's processor: what it is, and the flags that choose among its instruction sets."""

from __future__ import annotations

import contextlib
import functools
import platform
import subprocess
import sys
from pathlib import Path
from typing import Literal

from compiled_ebm.backends.fused.toolchain.compiler import Compiler

__all__ = ["Vector", "cpu_flags", "cpu_identity"]

Vector = Literal["native", "avx512", "avx2", "portable"]
"""Instruction sets: all of this machine; x86 with AVX-512 or AVX2 and FMA; what every machine of its kind has."""
_X86 = ("x86_64", "amd64", "i386", "i686")


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
