"""ATen operations as operations on elements: one row each. What is not here, and has no decomposition, is not fused."""

from compiled_ebm.backends.fused.operations import (  # noqa: F401  each registers its rows
    activations,
    choices,
    convolutions,
    factorisations,
    gathers,
    linearmaps,
    norms,
    pointwise,
    products,
    reductions,
    references,
    scatters,
    solves,
    sorts,
)
from compiled_ebm.backends.fused.operations.table import MOVES, ROWS, Operand, Row, Unsupported, as_value, row

__all__ = ["MOVES", "ROWS", "Operand", "Row", "Unsupported", "as_value", "row"]
