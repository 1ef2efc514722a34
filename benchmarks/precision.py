"""What products of rounded factors do to a score: `python -m benchmarks.precision --json precision.json`.

The factors are rounded as tensor cores take them, everything else is float64, so that no GPU is needed.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.report import write
from benchmarks.timing import Row
from benchmarks.workloads import WORKLOADS, initial
from compiled_ebm.laboratory.machine import environment

NAMES = ("mlp-2-64-64-1", "gaussian")
_LEAST = 16
"""Length of every side of a product that tensor cores take."""
_TF32_BITS = 11
_CHAINS, _QUICK_CHAINS = 2000, 50


def tf32(x: Tensor) -> Tensor:
    """Rounded to TF32's significand."""
    fraction, exponent = torch.frexp(x)
    return torch.ldexp(torch.round(fraction * 2**_TF32_BITS) / 2**_TF32_BITS, exponent)


def three_tf32(a: Tensor, b: Tensor) -> Tensor:
    """The product of three, the fourth of which is beyond float32."""
    high_a, high_b = tf32(a), tf32(b)
    return high_a @ high_b + (tf32(a - high_a) @ high_b + high_a @ tf32(b - high_b))


PRODUCTS: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {
    "tf32x3": three_tf32,
    "tf32": lambda a, b: tf32(a) @ tf32(b),
    "float16": lambda a, b: a.half().double() @ b.half().double(),
    "bfloat16": lambda a, b: a.bfloat16().double() @ b.bfloat16().double(),
}


class _Rounding(TorchDispatchMode):  # type: ignore[no-untyped-call]
    def __init__(self, product: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._product = product

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func._schema.name in ("aten::mm", "aten::addmm"):
            a, b = args[-2:]
            if min(a.shape[1], b.shape[1]) >= _LEAST:
                product = self._product(a, b)
                return product if len(args) == 2 else args[0] + product
        return func(*args, **(kwargs or {}))


def errors(name: str, n_chains: int = _CHAINS) -> dict[str, Tensor]:
    """By kind of product the relative error of each chain's score, `[n_chains]`."""
    workload = WORKLOADS[name]
    energy = workload.energy_factory().double()
    x = initial(workload)[:n_chains].double()

    def score() -> Tensor:
        y = x.clone().requires_grad_()
        return torch.autograd.grad(energy(y).sum(), y)[0]

    exact = score()
    found = {}
    for kind, product in PRODUCTS.items():
        with _Rounding(product):
            found[kind] = (score() - exact).norm(dim=-1) / exact.norm(dim=-1)
    return found


def measure_all(n_chains: int = _CHAINS) -> list[Row]:
    """One row for each workload and kind of product: the median, the 90% quantile and the largest relative error."""
    rows = []
    for name in NAMES:
        for kind, error in errors(name, n_chains).items():
            found = {"median": error.median(), "ninety": error.quantile(0.9), "worst": error.max()}
            row = {"workload": name, "product": kind, "n_chains": n_chains}
            rows.append({**row, **{key: float(value) for key, value in found.items()}})
    return rows


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.precision", description=__doc__)
    parser.add_argument("--json", type=Path, help="write machine, versions and rows to this file")
    parser.add_argument("--quick", action="store_true", help="few chains, to see that it runs")
    options = parser.parse_args(argv)
    rows = measure_all(_QUICK_CHAINS if options.quick else _CHAINS)
    if options.json:
        write(options.json, {**environment(), "precision": rows})
    print(f"{'workload':<15} {'products':<9} {'median':>8} {'90%':>8} {'worst':>8}")
    for row in rows:
        print(
            f"{row['workload']:<15} {row['product']:<9} {row['median']:8.1e} {row['ninety']:8.1e} {row['worst']:8.1e}"
        )


if __name__ == "__main__":
    main()
