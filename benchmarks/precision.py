"""What products of rounded factors do to a score: `python -m benchmarks.precision`.

The factors are rounded as tensor cores take them, everything else is float64, so that no GPU is needed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.workloads import WORKLOADS, initial

NAMES = ("mlp-2-64-64-1", "gaussian")
_LEAST = 16
"""Length of every side of a product that tensor cores take."""
_TF32_BITS = 11


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


def errors(name: str, n_chains: int = 2000) -> dict[str, Tensor]:
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


def main() -> None:
    print(f"{'workload':<15} {'products':<9} {'median':>8} {'90%':>8} {'worst':>8}")
    for name in NAMES:
        for kind, error in errors(name).items():
            ninety = error.quantile(0.9)
            print(f"{name:<15} {kind:<9} {error.median():8.1e} {ninety:8.1e} {error.max():8.1e}")


if __name__ == "__main__":
    main()
