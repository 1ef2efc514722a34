"""The tile program of a traced function, made again when what it was made for has changed."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from compiled_ebm.backends.fused.fold import fold_constants
from compiled_ebm.backends.fused.program import TileProgram, is_transpose

__all__ = ["Lowered"]


class Lowered:
    """A tile program without what depends on constants alone.

    Args:
        lower: Makes the tile program from the constants as they are.
        n_constants: How many constants the traced function has.
        constants: As they are.
    """

    def __init__(
        self, lower: Callable[[Sequence[Tensor]], TileProgram], n_constants: int, constants: Sequence[Tensor]
    ) -> None:
        program = lower(constants)
        self._frozen, self._equal, self._transposed = program.frozen, program.equal, program.transposed
        self._folded = fold_constants(program, n_constants)
        self.program = self._folded.program

    def is_stale(self, constants: Sequence[Tensor]) -> bool:
        """Whether constants that were taken as indices, as equal or as transposes no longer are."""
        return (
            any(not np.array_equal(constants[p].reshape(-1).cpu().numpy(), held) for p, held in self._frozen)
            or any(not is_transpose(constants[a], constants[b]) for a, b in self._transposed)
            or any(not torch.equal(constants[a], constants[b]) for a, b in self._equal)
        )

    def constants(self, given: Sequence[Tensor]) -> list[Tensor]:
        """All constants of the program, flat, from the traced function's own."""
        return self._folded.constants(list(given))
