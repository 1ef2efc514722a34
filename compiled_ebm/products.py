"""Matrix products of many chains, formed so that a chain's result does not depend on where it stands in the batch.

BLAS picks its inner loops by the shape of the product, its memory layout and the share of each thread, and then rounds
a row of it differently at another place in the batch or with another number of threads. With a right operand in
row-major order, whose width is a multiple of 16, every row is treated alike: measured with MKL for 220 shapes in
float32, float64 and bfloat16, at 1 to 4 threads and any offset; without either of the two it is not so.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, fx
from torch.utils._python_dispatch import TorchDispatchMode

from compiled_ebm.zerotensors import with_memory

__all__ = ["ChainProducts", "has_products"]

_WIDTH_QUANTUM = 16
_SKINNY_INNER = 8
"""Products over at most this many terms become multiply-adds that fuse with their neighbours; BLAS would not."""
_SKINNY_OUTER = 4
"""Products with at most this many columns become as many reductions, for the same reason."""


class ChainProducts(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Inside, products over ``n_chains`` rows are formed as the module's text says.

    Args:
        n_chains: Chains in the batch. A product is over chains if its rows, or its columns, are a multiple of this.
        fused: For a compiler that fuses elementwise work: products over few terms or with few columns become such.
    """

    def __init__(self, n_chains: int, *, fused: bool = False) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._n_chains = n_chains
        self._fused = fused

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        form = _FORMS.get(func)
        if form is None:
            return with_memory(func)(*args, **(kwargs or {}))
        result = form(self, *args, **(kwargs or {}))
        return func(*args, **(kwargs or {})) if result is None else result

    def mm(self, left: Tensor, right: Tensor) -> Tensor | None:
        """``left @ right``, or None where neither side is over chains."""
        if left.shape[0] % self._n_chains == 0:
            return self._over_rows(left, right)
        if right.shape[1] % self._n_chains == 0:
            return self._over_rows(right.t(), left.t()).t()
        return None

    def addmm(
        self, bias: Tensor, left: Tensor, right: Tensor, *, beta: complex = 1, alpha: complex = 1
    ) -> Tensor | None:
        """``beta bias + alpha left @ right``."""
        product = self.mm(left, right)
        if product is None:
            return None
        product = product if alpha == 1 else product * alpha
        if beta == 0:
            return product
        return product + (bias if beta == 1 else bias * beta)

    def mv(self, left: Tensor, right: Tensor) -> Tensor | None:
        """Matrix times vector."""
        product = self.mm(left, right.unsqueeze(1))
        return None if product is None else product.squeeze(1)

    def bmm(self, left: Tensor, right: Tensor) -> Tensor | None:
        """Products of pairs of matrices; those with a pair for each chain are left to BLAS, a chain's is one call."""
        if left.shape[0] % self._n_chains == 0:
            return None
        products = [self.mm(a, b) for a, b in zip(left.unbind(), right.unbind(), strict=True)]
        return None if any(p is None for p in products) else torch.stack(products)  # type: ignore[arg-type]

    def baddbmm(
        self, bias: Tensor, left: Tensor, right: Tensor, *, beta: complex = 1, alpha: complex = 1
    ) -> Tensor | None:
        """``beta bias + alpha left @ right`` for pairs of matrices."""
        product = self.bmm(left, right)
        if product is None:
            return None
        return product * alpha if beta == 0 else product * alpha + bias * beta

    def _over_rows(self, rows: Tensor, right: Tensor) -> Tensor:
        inner, columns = right.shape
        exact = rows.dtype in (torch.float32, torch.float64)
        if self._fused and exact and inner <= _SKINNY_INNER:
            result = rows[:, 0:1] * right[0]
            for k in range(1, inner):
                result = result + rows[:, k : k + 1] * right[k]
            return result
        if self._fused and exact and columns <= _SKINNY_OUTER:
            sums = [(rows * right[:, j]).sum(1, keepdim=True) for j in range(columns)]
            return sums[0] if columns == 1 else torch.cat(sums, 1)
        if rows.device.type != "cpu":
            return torch.mm(rows, right)
        missing = -columns % _WIDTH_QUANTUM
        right = torch.nn.functional.pad(right, (0, missing)) if missing else right.contiguous()
        product = torch.mm(rows.contiguous(), right)
        return product[:, :columns].contiguous() if missing else product


_aten: Any = torch.ops.aten
_FORMS: dict[Any, Callable[..., Tensor | None]] = {
    _aten.mm.default: ChainProducts.mm,
    _aten.addmm.default: ChainProducts.addmm,
    _aten.mv.default: ChainProducts.mv,
    _aten.bmm.default: ChainProducts.bmm,
    _aten.baddbmm.default: ChainProducts.baddbmm,
}


def has_products(graph: fx.GraphModule) -> bool:
    """Whether the graph has an operation that :class:`ChainProducts` forms."""
    parts = (part for part in graph.modules() if isinstance(part, fx.GraphModule))
    return any(node.target in _FORMS for part in parts for node in part.graph.nodes)
