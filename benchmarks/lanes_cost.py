"""Nanoseconds an element of the fused kernels' vector functions and normals, on one thread, in the first-level cache.

`taskset -c 0 python -m benchmarks.lanes_cost`
"""

from __future__ import annotations

import argparse
import ctypes
import os
import shlex
import statistics
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

ELEMENTS = 1024
REPEATS = 2000
UNARY = (
    "abs neg sign floor ceil trunc round sqrt rsqrt exp exp2 expm1 log log2 log10 log1p sin cos tan asin acos "
    "atan sinh cosh tanh asinh acosh atanh erf erfc sigmoid softplus lgamma digamma"
).split()
BINARY = "min max fmin fmax copysign hypot atan2 pow fmod remainder".split()
NOISE = {"normals8": 8, "normals4": 4, "normals2": 2, "uniforms4": 4}  # numbers a call
WITHIN_ONE = ("asin", "acos", "atanh")

SOURCE = """
#include "lanes.h"
#include <time.h>
static double now() {{
    timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}}
alignas(64) static real a[{n}], b[{n}], y[{n}];
static void fill(real low, real high) {{
    for (int i = 0; i < {n}; i++) {{
        a[i] = low + (high - low) * ((real)(i * 37 % {n}) + (real)0.5) / {n};
        b[i] = 1 + a[i] * (real)0.7;
    }}
}}
"""
UNARY_BODY = "rstore(y + i, r_{0}(rload(a + i)));"
BINARY_BODY = "rstore(y + i, r_{0}(rload(a + i), rload(b + i)));"
FUNCTION = """
extern "C" double time_{0}(long repeats) {{
    fill({1}, {2});
    double begin = now();
    for (long r = 0; r < repeats; r++) {{
        for (int i = 0; i < {n}; i += W) {{ {body} }}
        __asm__ volatile("" : : "r"(y), "r"(a) : "memory");
    }}
    return (now() - begin) / (double)repeats / {n};
}}
"""
# Chains change slowest, as in a kernel: W chains, then steps, then the blocks of an event of 64 numbers.
NOISE_FUNCTION = """
extern "C" double time_{0}(long repeats) {{
    PhiloxKeys keys = philox_keys(7);
    long long ids[W];
    for (int i = 0; i < W; i++) ids[i] = i + 1000;
    ChainWords chains = chain_words(ids);
    double begin = now();
    for (long r = 0; r < repeats; r++) {{
        for (uint32_t block = 0; block < {blocks}; block++) {{
            R z[{count}];
            {0}(keys, chains, 2 * block, (uint32_t)r, z);
            for (int j = 0; j < {count}; j++) rstore(y + ({count} * block + j) % ({n} / W) * W, z[j]);
        }}
        __asm__ volatile("" : : "r"(y) : "memory");
    }}
    return (now() - begin) / (double)repeats / ({blocks} * {count} * W);
}}
"""


def source() -> str:
    parts = [SOURCE.format(n=ELEMENTS)]
    for name in (*UNARY, *BINARY):
        body = (BINARY_BODY if name in BINARY else UNARY_BODY).format(name)
        low, high = ("-0.99", "0.99") if name in WITHIN_ONE else ("0.01", "6")
        parts.append(FUNCTION.format(name, low, high, n=ELEMENTS, body=body))
    for name, count in NOISE.items():
        parts.append(NOISE_FUNCTION.format(name, n=ELEMENTS, blocks=16, count=count))
    return "\n".join(parts)


def build(folder: Path, bits: int, width: int | None) -> ctypes.CDLL:
    import compiled_ebm

    headers = Path(compiled_ebm.__file__).parent / "backends" / "fused"
    program, library = folder / "cost.cpp", folder / f"cost_{bits}_{width}.so"
    program.write_text(source())
    flags = "-std=c++17 -O3 -march=native -mprefer-vector-width=512 -ffp-contract=fast -fPIC -shared".split()
    macros = [f"-DREAL_BITS={bits}", *([f"-DVECTOR_BYTES={width}"] if width else [])]
    compiler = shlex.split(os.environ.get("CXX", "g++"))
    subprocess.run([*compiler, *flags, *macros, f"-I{headers}", str(program), "-o", str(library)], check=True)
    return ctypes.CDLL(str(library))


def nanoseconds(library: ctypes.CDLL, name: str, rounds: int) -> float:
    """Median over rounds, after one unrecorded."""
    function = getattr(library, f"time_{name}")
    function.restype = ctypes.c_double
    return statistics.median([float(function(ctypes.c_long(REPEATS))) for _ in range(rounds + 1)][1:])


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.lanes_cost", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="timed rounds (default 5)")
    parser.add_argument("--width", type=int, choices=(16, 32, 64), help="bytes of a vector (default: the widest)")
    options = parser.parse_args(argv)

    from rich.console import Console
    from rich.table import Table

    from compiled_ebm.laboratory.machine import environment

    machine = environment()
    console = Console(width=max(Console().width, 110))
    console.print(f"{machine['cpu']}, {machine['vector']}; vectors of {options.width or 'most'} bytes, one thread")
    table = Table(title=f"ns an element, median of {options.rounds}", title_justify="left")
    table.add_column("function")
    for bits in (32, 64):
        table.add_column(f"float{bits}", justify="right")
    with tempfile.TemporaryDirectory() as folder:
        libraries = [build(Path(folder), bits, options.width) for bits in (32, 64)]
        for name in (*NOISE, *UNARY, *BINARY):
            table.add_row(name, *(f"{nanoseconds(library, name, options.rounds):.2f}" for library in libraries))
    console.print(table)


if __name__ == "__main__":
    main()
