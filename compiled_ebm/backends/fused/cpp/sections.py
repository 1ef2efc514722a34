"""Elements computed by a statement each: depth first, so that few values are alive at once."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from compiled_ebm.backends.fused.cpp.step import Step
from compiled_ebm.backends.fused.expressions import EXPRESSIONS, combined
from compiled_ebm.backends.fused.groups import Section, reads
from compiled_ebm.backends.fused.program import Dot, Ids, Node, Pointwise, Reduce

__all__ = ["Sections"]

_MANY_SELECTS = 200
"""Selects from which on GCC shall not look through them."""


class Sections:
    """Writes the sections of a step.

    Args:
        step: Where they are written.
    """

    def __init__(self, step: Step) -> None:
        self._step = step
        self._needed = _find_needed(step)
        selects = [n.size for n in step.nodes if isinstance(n, Pointwise) and n.op == "rsel"]
        self._keeps_apart = sum(selects) > _MANY_SELECTS

    def emit(self, group: Section) -> None:
        """The elements that something reads."""
        step = self._step
        inside = {step.index_of(node) for node in group.nodes}
        for node in reversed(group.nodes) if step.plan.straight_line else group.nodes:
            for i in node.ids.tolist():
                if self._needed[i]:
                    self._emit_element(i, inside)

    def _emit_element(self, root: int, inside: set[int]) -> None:
        step, stack = self._step, [root]
        while stack:
            i = stack[-1]
            if i in step.names:
                stack.pop()
                continue
            node = step.nodes[int(step.owner[i])]
            e = i - node.first
            operands = [int(x) for operand in _element_operands(node) for x in np.atleast_1d(operand[e]).reshape(-1)]
            missing = [x for x in operands if x not in step.names and int(step.owner[x]) in inside]
            if missing:
                stack += reversed(missing)
                continue
            stack.pop()
            step.comment(node)
            step.names[i] = f"e{i}"
            step.out(f"const {node.kind.value} e{i} = {self._expression(node, e)};")
            if i in step.storage.mirrors:
                step.mirror(i)

    def _expression(self, node: Node, e: int) -> str:
        step = self._step
        if isinstance(node, Pointwise):
            form = "rsel_apart({0}, {1}, {2})" if node.op == "rsel" and self._keeps_apart else EXPRESSIONS[node.op]
            return form.format(*(step.element(int(a[e])) for a in node.args))
        if isinstance(node, Reduce):
            return combined(node.op, node.kind, [step.element(int(i)) for i in node.arg[e]])
        assert isinstance(node, Dot)
        row, column = divmod(e, node.right.shape[1])
        pairs = zip(node.left[row].tolist(), node.right[:, column].tolist(), strict=True)
        return " + ".join(f"{step.element(a)} * {step.element(b)}" for a, b in pairs)


def _find_needed(step: Step) -> NDArray[np.bool_]:
    """Elements that something reads."""
    needed = np.zeros(step.owner.size, dtype=bool)
    for ids in step.program.outputs:
        needed[ids] = True
    for group in reversed(step.plan.groups):
        if not isinstance(group, Section):
            for ids, _ in reads(group):
                needed[ids.reshape(-1)] = True
            continue
        for node in reversed(group.nodes):
            live = np.flatnonzero(needed[node.first : node.first + node.size])
            for operand in _element_operands(node):
                needed[operand[live].reshape(-1)] = True
    return needed


def _element_operands(node: Node) -> list[Ids]:
    """For each operand an array whose entry e holds what element e reads."""
    if isinstance(node, Dot):
        m, n = node.left.shape[0], node.right.shape[1]
        return [np.repeat(node.left, n, axis=0), np.tile(node.right.T, (m, 1))]
    return list(node.operands())
