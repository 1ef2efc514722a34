"""How long a chain-step should take, fused and compiled by Inductor, before either has run.

Measured on one Zen 4 thread (117 GFLOP/s, 1 MiB of L2), microseconds a chain-step at 1,000 chains, fused against
Inductor: networks 2-64-64-1 0.21 against 2.3, 16-128-128-1 0.80 against 1.6, 16-256-256-1 2.7 against 3.9,
16-512-512-1 10.5 against 14.0, 16-1024-1024-1 47 against 58; Gaussians of 64 dimensions 0.20 against 0.52, 256: 2.6
against 5.2, 512: 10.3 against 15.9, 1024: 50 against 62, and 63 against 62 at 10,000 chains; 1,000 double wells 0.94
against 4.5, 100,000 (at 100 chains) 358 against 986; two convolutions on 8x8 pixels 0.49 against 10.6, on 28x28 with 16
channels 38 against 350; attention over 16 tokens of 64 15 against 50. So products alone can bring the two together,
from where the weights no longer fit the second-level cache: a tile reads them anew at every step, a batch of rows once.
"""

from __future__ import annotations

import functools
import os
from dataclasses import dataclass

from compiled_ebm.backends.fused.cost import Cost, Rates, as_time

__all__ = ["Estimate", "estimate", "is_clear"]

_PRODUCTS, _REST = 0.85, 0.5
"""Parts of the floor's speed that generated products reach, and everything else: loops that load and store."""
_BLAS, _BLAS_SMALL = 0.8, 0.35
"""Parts of the peak that no library was seen to exceed, and not where a side of the product is short."""
_INDUCTOR_NORMAL_NS = 2.0
_BYTES_A_NS = 10.0
"""Read from beyond the second-level cache, while the neighbours do the same."""
_L2_BYTES = 1 << 20


@dataclass(frozen=True)
class Estimate:
    """Nanoseconds of a chain-step on one thread.

    Args:
        fused: Of the generated kernel.
        inductor: Of Inductor's, at its best.
    """

    fused: float
    inductor: float

    @property
    def is_sure(self) -> bool:
        """Whether the kernel wins even where everything goes Inductor's way."""
        return self.fused <= self.inductor

    def __str__(self) -> str:
        return f"{as_time(self.fused)} a chain-step on one thread, inductor at least {as_time(self.inductor)}"


def is_clear(cost: Cost, weight_bytes: int, scratch_bytes: int) -> bool:
    """Whether the kernel wins on any machine: no product of size, and everything in the second-level cache."""
    return cost.products.large == 0 and weight_bytes + scratch_bytes <= l2_bytes()


def estimate(cost: Cost, rates: Rates, weight_bytes: int, scratch_bytes: int, lanes: int) -> Estimate:
    """The estimate.

    Args:
        cost: Of a chain-step.
        rates: Of this machine.
        weight_bytes: That a tile reads at every step.
        scratch_bytes: That it reads and writes.
        lanes: Chains of a tile.
    """
    small, large = cost.products.small / rates.gflops, cost.products.large / rates.gflops
    rest = cost.floor_ns(rates) - small - large
    beyond = sum(size for size in (weight_bytes, 2 * scratch_bytes) if size > l2_bytes())
    fused = max((small + large) / _PRODUCTS + rest / _REST, beyond / lanes / _BYTES_A_NS)
    noise = cost.normals * (_INDUCTOR_NORMAL_NS - rates.normal_ns)
    return Estimate(fused, small / _BLAS_SMALL + large / _BLAS + rest + max(0.0, noise))


@functools.cache
def l2_bytes() -> int:
    """Of one core."""
    try:
        return int(os.sysconf("SC_LEVEL2_CACHE_SIZE")) or _L2_BYTES
    except (AttributeError, OSError, ValueError):
        return _L2_BYTES
