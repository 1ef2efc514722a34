"""Nodes that nothing needs leave a tile program."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from compiled_ebm.backends.fused.program import Close, Ids, Input, Node, Open, Role

__all__ = ["pruned"]


def pruned(nodes: Sequence[Node], outputs: Sequence[Ids]) -> list[Node]:
    """The nodes that the outputs need, and every state leaf and the like that is one of them."""
    total = max((node.first + node.size for node in nodes), default=0)
    needed = np.zeros(total, dtype=bool)
    for ids in outputs:
        needed[ids] = True

    def wanted(node: Node) -> bool:
        always = isinstance(node, Input) and node.role in (Role.STATE, Role.FAILED)
        return always or bool(needed[node.first : node.first + node.size].any())

    has_loops = any(isinstance(node, Open) for node in nodes)
    while True:
        before = needed.sum()
        for node in reversed(nodes):
            if wanted(node):
                for operand in node.operands():
                    needed[operand.reshape(-1)] = True
        if not has_loops or needed.sum() == before:  # what a carry needs is made after it: one look may not do
            break
    kept: list[Node] = []
    closed: dict[Open, Close] = {}
    for node in reversed(nodes):
        if isinstance(node, Close):
            carries = tuple(carry for carry in node.carries if wanted(carry))
            if carries:
                kept.append(replace(node, carries=carries))
                closed[node.opened] = node
        elif node in closed if isinstance(node, Open) else wanted(node):
            kept.append(node)
    return kept[::-1]
