"""From C++ source to a loaded library: finds a compiler, compiles once a machine, verifies before loading."""

from compiled_ebm.backends.fused.toolchain.compilation import CompileError, CompileTimeout, n_compilations
from compiled_ebm.backends.fused.toolchain.compiler import Compiler, find_compiler, why_unavailable
from compiled_ebm.backends.fused.toolchain.library import build, load, unloaded
from compiled_ebm.backends.fused.toolchain.processor import Vector, cpu_flags, cpu_identity

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
    "unloaded",
    "why_unavailable",
]
