"""What a kernel is generated from: the tile program of a step and, where the step does without it, of the energy.

The energy of a step is asked for only to notice where it is not finite. Where it can be shown to be finite for all
positions within some bound, a step is spared it: the kernel notices at the end of a segment of steps whether a chain
has gone beyond the bound, and then does the segment again, step by step and with the energy.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from compiled_ebm.backends.fused.bounds import Reach
from compiled_ebm.backends.fused.cost import count
from compiled_ebm.backends.fused.frame import SEGMENT
from compiled_ebm.backends.fused.lower import lower_energy, lower_init, lower_move
from compiled_ebm.backends.fused.lowered import Lowered
from compiled_ebm.backends.fused.program import Dot
from compiled_ebm.backends.fused.unguarded import reads_energy
from compiled_ebm.trace import ChainProgram

__all__ = ["Parts", "init_parts", "step_parts"]

_LEAST_REACH = 300.0
"""Chains that go beyond are slow, so few may."""
_LEEWAY = 0.9
"""For the rounding of a sum of squares."""


class Parts:
    """A kernel's tile programs, with the constants that they read.

    Args:
        main: What is done in every step.
        energy: The energy of x, if that does without.
        reach: Of that energy.
    """

    def __init__(self, main: Lowered, energy: Lowered | None = None, reach: Reach | None = None) -> None:
        self.main, self.energy = main, energy
        self._all = [main] if energy is None else [main, energy]
        self._reach = reach
        self.chain_kwargs = sorted({position for part in self._all for position in part.program.chain_kwargs()})
        """Positions of the keyword arguments of each chain that are read."""
        self._within = 0.0
        """How far from the origin the energy is surely finite, by the constants as they were last."""

    def captured(self, shared: Sequence[Tensor]) -> list[list[Tensor]]:
        """The captured tensors that each program reads, as they are now."""
        return [part.captured(shared) for part in self._all]

    def tensors(self, shared: Sequence[Tensor]) -> list[Tensor]:
        """The user's own that the programs depend on."""
        return list({id(t): t for part in self._all for t in part.tensors(shared)}.values())

    def versions(self, shared: Sequence[Tensor]) -> object:
        """Equal as long as no captured tensor has been written to; None where tensors do not tell."""
        tensors = self.tensors(shared)
        if any(t.is_inference() for t in tensors):
            return None
        return [(t.data_ptr(), t._version) for t in tensors]

    def is_stale(self, captured: Sequence[Sequence[Tensor]]) -> bool:
        """Whether the programs were made for tensors that have changed since."""
        return any(part.is_stale(own) for part, own in zip(self._all, captured, strict=True))

    def constants(self, captured: Sequence[Sequence[Tensor]]) -> list[list[Tensor]]:
        """All constants of each program, flat."""
        return [part.constants(own) for part, own in zip(self._all, captured, strict=True)]

    def limit(self, constants: Sequence[Sequence[Tensor]], real: torch.dtype) -> float:
        """Of the sum of the squares of all positions since the last check: below it every energy was finite."""
        most = 0.5 * torch.finfo(real).max
        if self._reach is None:
            return most
        self._within = _LEEWAY * self._reach(constants[1])
        return min(most, self._within**2)

    def checks(self) -> str:
        """When it is looked whether a chain has failed, for explain()."""
        if self._reach is None:
            return f"every {SEGMENT} steps; the energy in each"
        return f"every {SEGMENT} steps, and the energy only then: it is finite where every |x_i| < {self._within:.2g}"


def step_parts(program: ChainProgram, shared: Sequence[Tensor], least_spared: float) -> Parts:
    """Of the program's step.

    Args:
        program: The chain program.
        shared: The tensors of ``model_kwargs`` that all chains share, as they are.
        least_spared: Part of the work that a step without the energy must be spared where there are matrix products,
            which both may need; with 1 the energy stays in the step.
    """
    together = partial(Lowered, partial(lower_move, program, True), program.step, shared)
    if least_spared == 1 or reads_energy(program.step.body, len(program.state_shapes)):
        return Parts(together())
    alone = Lowered(partial(lower_move, program, False), program.step, shared)
    energy = Lowered(partial(lower_energy, program), program.init, shared)
    reach = Reach(energy.program)
    if reach(energy.constants(energy.captured(shared))) < _LEAST_REACH:
        return Parts(together())
    if least_spared > 0 and any(isinstance(node, Dot) for node in alone.program.nodes):
        both = together()
        if count(alone.program).rough_ns() > (1 - least_spared) * count(both.program).rough_ns():
            return Parts(both)
    return Parts(alone, energy, reach)


def init_parts(program: ChainProgram, shared: Sequence[Tensor], least_spared: float) -> Parts:
    """Of the program's first state, which has the energy in it."""
    del least_spared
    return Parts(Lowered(partial(lower_init, program), program.init, shared))
