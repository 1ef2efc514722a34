"""The text of one step as it is written, with what its parts share."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from compiled_ebm.backends.fused.cpp.references import References
from compiled_ebm.backends.fused.cpp.text import Text
from compiled_ebm.backends.fused.groups import Plan
from compiled_ebm.backends.fused.program import Kind, Node, TileProgram

__all__ = ["Step"]


class Step(References):
    """One step, written group by group.

    Args:
        program: The tile program.
        planned: Its groups.
    """

    def __init__(self, program: TileProgram, planned: Plan) -> None:
        super().__init__(program, planned)
        self.program = program
        self.plan = planned
        self.out = Text()
        self.weights: list[tuple[int, NDArray[np.int64]]] = []
        """For every packed table of constants: the constant's position and, for each entry, its index."""
        self.rounds: list[int] = []
        """How often each repetition is done."""

    def stored(self, kind: Kind, index: str, value: str) -> str:
        """A statement that writes to memory at an index."""
        at = f"iat[{index}]" if kind is Kind.INT else f"at[{index}]"
        return f"{at} = {f'(R){value}' if kind is Kind.MASK else value};"

    def store(self, kind: Kind, index: str, value: str) -> None:
        """Write to memory at an index."""
        self.out(self.stored(kind, index, value))

    def mirrored(self, i: int) -> str:
        """A statement that writes an element to its place in memory, beside the variable that holds it."""
        node = self.nodes[int(self.owner[i])]
        return self.stored(node.kind, str(self.storage.mirrors[i]), self.element(i))

    def mirror(self, i: int) -> None:
        """Write an element to its place in memory."""
        self.out(self.mirrored(i))

    def mirror_now(self, wanted: Callable[[Node], bool]) -> None:
        """:meth:`mirror` of all elements of such nodes that have a place."""
        for i in self.storage.mirrors:
            if wanted(self.nodes[int(self.owner[i])]):
                self.mirror(i)

    def comment(self, node: Node) -> None:
        """The user's line that asked for the node."""
        if node.origin:
            self.out.note(node.origin)
