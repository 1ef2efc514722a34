"""Loops over the elements of nodes."""

from __future__ import annotations

from compiled_ebm.backends.fused.cpp.step import Step
from compiled_ebm.backends.fused.expressions import COMBINE, EXPRESSIONS, combined, start
from compiled_ebm.backends.fused.groups import Loop, is_inner_loop
from compiled_ebm.backends.fused.program import Reduce

__all__ = ["emit_loop"]


def emit_loop(step: Step, group: Loop) -> None:
    """Round i makes element i of every node in the group."""
    step.out.forget_note()
    for reduce in group.row_reduces:
        kind, i = reduce.node.kind, reduce.node.first + reduce.row
        step.out(f"{kind.value} e{i} = {start(reduce.node.op, kind)};")
    inner = step.out
    inner.open(f"for (long i = 0; i < {group.size}; ++i)")
    for node in group.nodes:
        step.comment(node)
        if isinstance(node, Reduce) and is_inner_loop(node):
            inner(f"{node.kind.value} v{node.first} = {start(node.op, node.kind)};")
            inner.open(f"for (long k = 0; k < {node.arg.shape[1]}; ++k)")
            term = step.access(node.arg, "i,k", group, node.kind)
            inner(f"v{node.first} = {COMBINE[node.op, node.kind].format(f'v{node.first}', term)};")
            inner.close()
        elif isinstance(node, Reduce):
            terms = [step.access(column, "i", group, node.kind) for column in node.arg.T]
            inner(f"const {node.kind.value} v{node.first} = {combined(node.op, node.kind, terms)};")
        else:
            operands = [step.access(a, "i", group, step.kind(a)) for a in node.args]
            inner(f"const {node.kind.value} v{node.first} = {EXPRESSIONS[node.op].format(*operands)};")
        if step.index_of(node) in step.storage.stored:
            place = step.storage.slots[step.index_of(node)]
            step.store(node.kind, f"{place} + i" if place else "i", f"v{node.first}")
    for reduce in group.row_reduces:
        i = reduce.node.first + reduce.row
        term = step.access(reduce.node.arg[reduce.row], "i", group, reduce.node.kind)
        inner(f"e{i} = {COMBINE[reduce.node.op, reduce.node.kind].format(f'e{i}', term)};")
    inner.close()
    for reduce in group.row_reduces:
        i = reduce.node.first + reduce.row
        step.names[i] = f"e{i}"
        if i in step.storage.mirrors:
            step.mirror(i)
