"""The tile program of a traced function, made again when what it was made for has changed."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from compiled_ebm.backends.fused.fold import fold_constants
from compiled_ebm.backends.fused.program import TileProgram, is_transpose
from compiled_ebm.chaingraph import ChainGraph

__all__ = ["Lowered"]


class Lowered:
    """A tile program without what depends on constants alone.

    Args:
        lower: Makes the tile program from the captured tensors as they are.
        graph: The traced function.
        shared: The tensors of ``model_kwargs`` that all chains share.
    """

    def __init__(
        self, lower: Callable[[Sequence[Tensor]], TileProgram], graph: ChainGraph, shared: Sequence[Tensor]
    ) -> None:
        self._graph = graph
        program = lower(self.captured(shared))
        self._frozen, self._equal, self._transposed = program.frozen, program.equal, program.transposed
        self._folded = fold_constants(program, graph.n_constants)
        self.program = self._folded.program

    def tensors(self, shared: Sequence[Tensor]) -> list[Tensor]:
        """The user's own that the function depends on."""
        return [*self._graph.captured, *shared]

    def captured(self, shared: Sequence[Tensor]) -> list[Tensor]:
        """What the function reads of captured and shared tensors, as they are now."""
        return self._graph.constants(shared)

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
