"""How far from the origin a program's results are surely finite, by bounds of every element."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from compiled_ebm.backends.fused.bounds.branches import narrowed
from compiled_ebm.backends.fused.bounds.intervals import DOUBLE, RULES, SINGLE, Bounds, flushed
from compiled_ebm.backends.fused.bounds.places import Memory, Plan
from compiled_ebm.backends.fused.program import Dot, Input, Literal, Node, Pointwise, Reduce, TileProgram
from compiled_ebm.backends.fused.pruning import pruned

__all__ = ["CANDIDATES", "Reach"]

CANDIDATES = {
    32: ((1e18, 1e12, 1e6), (1e4, 1e3, 300.0, 80.0, 30.0, 10.0, 3.0, 1.0)),
    64: ((1e100, 1e18, 1e12, 1e6), (1e4, 1e3, 600.0, 300.0, 80.0, 30.0, 10.0, 3.0, 1.0)),
}
"""Distances by the width of reals, falling; the later are tried where none of the former is shown."""
_MOST_BOUNDS = 4_000_000
"""Numbers held at once."""


class Reach:
    """The distances within which a program's outputs are surely finite.

    Each element's bounds follow from its operands', rounding, fused multiply-adds and the flushing of denormals
    included. A distance is shown if no element's bounds are too large; then every element that is not behind a
    selection's other branch is finite.

    Args:
        program: Its real inputs are x, ``Input(role=Role.STATE, position=0)``, and constants; nothing can be shown of
            outputs that need others.
    """

    def __init__(self, program: TileProgram) -> None:
        nodes = pruned(narrowed(program.nodes), program.outputs)
        self._precision = DOUBLE if program.real_bits == 64 else SINGLE
        self._candidates = CANDIDATES[program.real_bits]
        self._real = torch.float64 if program.real_bits == 64 else torch.float32
        possible = all(_has_rule(node) for node in nodes)
        self._plan = Plan(nodes, program.outputs, self._precision) if possible else None

    def __call__(self, constants: Sequence[Tensor]) -> float:
        """The largest B among ``CANDIDATES`` such that the outputs are finite for all |x_i| <= B, or 0.0.

        Args:
            constants: Of the program, by position.
        """
        if self._plan is None:
            return 0.0
        given = {position: _numbers(constants[position], self._real) for position in self._plan.positions}
        known = self._plan.known_numbers(given)
        at_once = max(1, _MOST_BOUNDS // max(1, 2 * self._plan.size))
        with np.errstate(all="ignore"):
            for distances in self._candidates:
                for first in range(0, len(distances), at_once):
                    shown = self._shown(known, given, distances[first : first + at_once])
                    if shown:
                        return shown
        return 0.0

    def _shown(self, known: Bounds, given: dict[int, NDArray[np.float64]], distances: Sequence[float]) -> float:
        """The largest of the distances that is shown, or 0.0.

        Nearly always no bound is so small that it may be flushed to zero, which is seen afterwards.
        """
        assert self._plan is not None
        memory = Memory(np.empty((2, len(distances), self._plan.size)), known, given)
        small = self._precision.small
        self._plan.run(memory, distances, flush=False)
        if _has_small(memory.table, small) or _has_small(known, small):
            memory.known = flushed(known, self._precision)
            self._plan.run(memory, distances, flush=True)
        finite = np.abs(memory.table).max(axis=(0, 2)) < self._precision.limit
        return next((d for d, shown in zip(distances, finite.tolist(), strict=True) if shown), 0.0)


def _has_rule(node: Node) -> bool:
    return node.op in RULES if isinstance(node, Pointwise) else isinstance(node, (Reduce, Dot, Literal, Input))


def _numbers(tensor: Tensor, real: torch.dtype) -> NDArray[np.float64]:
    """Flat, reals as wide as the program's."""
    flat = tensor.detach().cpu().reshape(-1)
    array: NDArray[np.float64] = flat.to(real if flat.dtype.is_floating_point else torch.float64).numpy()
    return array


def _has_small(bounds: Bounds, small: float) -> bool:
    sizes = np.abs(bounds)
    return bool(((sizes < small) & (sizes > 0)).any())
