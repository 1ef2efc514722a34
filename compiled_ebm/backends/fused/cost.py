"""What a chain-step costs by its operations, and the least time that this machine could take for them."""

from __future__ import annotations

import ctypes
from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from compiled_ebm.backends.fused import cache, toolchain
from compiled_ebm.backends.fused.expressions import lanes_header
from compiled_ebm.backends.fused.plan import LONG_OPERATIONS
from compiled_ebm.backends.fused.program import (
    Close,
    Dot,
    Input,
    Kind,
    Literal,
    Open,
    Pointwise,
    Reduce,
    Role,
    TileProgram,
)

__all__ = ["Cost", "Products", "Rates", "as_time", "count", "live_bytes", "machine_rates"]

_PROBED = ("exp", "log", "sin", "tanh", "erf", "lgamma")
_LIKE = {
    **dict.fromkeys(("exp", "exp2", "expm1", "sigmoid"), "exp"),
    **dict.fromkeys(("log", "log2", "log10", "log1p", "log1p_unit", "softplus"), "log"),
    **dict.fromkeys(("sin", "cos", "tan", "asin", "acos", "atan", "atan2", "hypot"), "sin"),
    **dict.fromkeys(("tanh", "sinh", "cosh"), "tanh"),
    **dict.fromkeys(("asinh", "acosh", "atanh", "erf", "erfc", "erfcx"), "erf"),
    **dict.fromkeys(("lgamma", "digamma", "trigamma", "erfinv", "ndtri", "pow", "fmod", "remainder"), "lgamma"),
}
"""The function whose measured time stands for that of another."""
_SHORT = 128
"""A product with a side below this is small: of sides of 64, Inductor was 2.6 times slower at its best."""


@dataclass(frozen=True)
class Products:
    """FLOPs of matrix products, by whether a side is short."""

    small: int = 0
    large: int = 0


@dataclass(frozen=True)
class Cost:
    """Of one step of one chain.

    Args:
        flops: Real additions and multiplications; a multiply-add is two.
        functions: How often each longer function is evaluated.
        normals: Random numbers drawn.
        products: Those of the FLOPs that are in matrix products.
    """

    flops: int
    functions: dict[str, int]
    normals: int
    products: Products

    def floor_ns(self, rates: Rates) -> float:
        """Nanoseconds on one thread, were every multiply-add unit always busy; work of unlike kinds may overlap."""
        functions = sum(n * rates.function_ns[_LIKE[name]] for name, n in self.functions.items())
        return self.flops / rates.gflops + functions + self.normals * rates.normal_ns

    def rough_ns(self) -> float:
        """About what a thread of any machine of today takes, without a measurement."""
        return self.flops / 40 + sum(self.functions.values()) + self.normals

    def __str__(self) -> str:
        parts = [f"{self.flops:,} FLOPs", *(f"{n:,} {name}" for name, n in sorted(self.functions.items()))]
        return ", ".join([*parts, f"{self.normals:,} normals"])


@dataclass(frozen=True)
class Rates:
    """What one thread of this machine reaches.

    Args:
        gflops: 10^9 operations a second by multiply-adds.
        function_ns: Nanoseconds of a function for one lane.
        normal_ns: Nanoseconds of a normal.
    """

    gflops: float
    function_ns: dict[str, float]
    normal_ns: float


def as_time(ns: float) -> str:
    """For people."""
    return f"{ns:.3g} ns" if ns < 1000 else f"{ns / 1000:.3g} us" if ns < 1e6 else f"{ns / 1e6:.3g} ms"


def count(program: TileProgram) -> Cost:
    """Count the operations of a tile program, those in loops as often as they are done."""
    flops, normals, small, large, times = 0, 0, 0, 0, 1
    functions: Counter[str] = Counter()
    for node in program.nodes:
        if isinstance(node, Open):
            times *= node.rounds
        elif isinstance(node, Close):
            times //= node.opened.rounds
        elif isinstance(node, Pointwise) and node.op in LONG_OPERATIONS:
            functions[node.op] += times * node.size
        elif isinstance(node, Pointwise) and node.kind is Kind.REAL:
            flops += times * node.size
        elif isinstance(node, Reduce) and node.kind is Kind.REAL:
            flops += times * node.arg.size
        elif isinstance(node, Dot):
            product = times * 2 * node.left.size * node.right.shape[1]
            flops += product
            if min(node.right.shape) < _SHORT:
                small += product
            else:
                large += product
        elif isinstance(node, Input) and node.role is Role.NORMALS:
            normals += node.size
    return Cost(flops, dict(functions), normals, Products(small, large))


def live_bytes(program: TileProgram) -> int:
    """Bytes of one chain that are alive at once at most, if nodes run in their order; what chains share not counted."""
    owner = program.owner()
    shared = np.array([isinstance(n, Literal) or (isinstance(n, Input) and n.role.uniform) for n in program.nodes])
    last = np.zeros(owner.size, dtype=np.int64)
    for position, node in enumerate(program.nodes):
        for ids in node.operands():
            last[ids.reshape(-1)] = position
    for ids in program.outputs:
        last[ids] = len(program.nodes)
    held = (owner >= 0) & ~shared[owner]
    sizes = np.array([8 if n.kind is Kind.INT else program.real_bits // 8 for n in program.nodes])
    change = np.zeros(len(program.nodes) + 2, dtype=np.int64)
    born = np.where(np.array([isinstance(n, Input) for n in program.nodes])[owner], 0, owner)
    np.add.at(change, born[held], sizes[owner[held]])
    np.add.at(change, np.maximum(last, born)[held] + 1, -sizes[owner[held]])
    return int(change.cumsum().max())


def machine_rates(real: torch.dtype) -> Rates:
    """Measured once a machine, in a tenth of a second, and remembered in the cache directory."""
    bits = 8 * real.itemsize
    key = f"rates-1 {bits} {toolchain.cpu_identity()}"
    known = cache.recall(key)
    if known is None:
        known = _measure(bits)
        cache.remember(key, known)
    return Rates(float(known["gflops"]), dict(known["function_ns"]), float(known["normal_ns"]))


def _measure(bits: int) -> dict[str, Any]:
    lanes = lanes_header()
    cases = "\n".join(
        f"    case {k}: for (long i = 0; i < n; ++i) for (int j = 0; j < 8; ++j) v[j] = v[j] * rset((real)0.5) + "
        f"r_{name}(v[j]) * rset((real)0.1) + rset((real)0.7); break;"
        for k, name in enumerate(_PROBED)
    )
    library = toolchain.load(f"#define REAL_BITS {bits}\n{lanes}\n{_PROBE.replace('CASES', cases)}")
    probe = library.probe_seconds
    probe.argtypes, probe.restype = [ctypes.c_int, ctypes.c_long], ctypes.c_double
    lanes_of = int(library.probe_lanes())

    def seconds_each(which: int, rounds: int, times: int) -> float:
        best = min(float(probe(which, rounds)) for _ in range(7))
        return best / (rounds * times * lanes_of)

    return {
        "gflops": 2e-9 / seconds_each(-1, 20_000, 12),
        "function_ns": {name: 1e9 * seconds_each(k, 2_000, 8) for k, name in enumerate(_PROBED)},
        "normal_ns": 1e9 * seconds_each(-2, 2_000, 8),
    }


_PROBE = """
using namespace lanes;
struct Time { long seconds, nanoseconds; };
extern "C" int clock_gettime(int, Time*);
static double now() {
    Time t;
    clock_gettime(1, &t);
    return (double)t.seconds + 1e-9 * (double)t.nanoseconds;
}
#define PUBLIC extern "C" __attribute__((visibility("default")))
PUBLIC int probe_lanes() { return W; }
PUBLIC double probe_seconds(int which, long n) {
    static volatile real sink;
    R v[12];
    for (int j = 0; j < 12; ++j) v[j] = rset((real)0.5 + (real)0.01 * j);
    const R a = rset((real)0.999), b = rset((real)0.001);
    const long long ids[W] = {};
    const PhiloxKeys keys = philox_keys(1);
    const ChainWords words = chain_words(ids);
    const double begin = now();
    switch (which) {
    case -1:
        for (long i = 0; i < n; ++i)
            for (int j = 0; j < 12; ++j) v[j] = v[j] * a + b;
        break;
    case -2:
        for (long i = 0; i < n; ++i) normals8(keys, words, 0, (uint32_t)i, v);
        break;
CASES
    }
    const double end = now();
    R sum = v[0];
    for (int j = 1; j < 12; ++j) sum = sum + v[j];
    sink = sum[0];
    return end - begin;
}
"""
