"""New values take the place of old ones: the state at the end of a step, a carry at the end of a round."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from compiled_ebm.backends.fused.cpp.step import Step
from compiled_ebm.backends.fused.program import Ids, Kind, Node

__all__ = ["copy", "place_of_each", "replace"]


def replace(step: Step, pairs: list[tuple[Node, Ids]], what: str) -> None:
    """New values take the place of old ones, all at once; where they are parts of the old, through variables.

    ``what`` they are is said in a comment.
    """
    new: list[tuple[str, str, Kind]] = []
    wide: list[tuple[Node, Ids]] = []
    for leaf, ids in pairs:
        index = step.index_of(leaf)
        if step.plan.wide[index]:
            wide.append((leaf, ids))
            continue
        for e, i in enumerate(ids.tolist()):
            target = step.names[leaf.first + e]
            source = step.element(i)
            if source != target:
                new.append((target, source, leaf.kind))
    step.out.note(what)
    for target, source, kind in new:
        step.out(f"const {kind.value} n_{target} = {source};")
    moves = [(leaf, place) for leaf, ids in wide if (place := _from(step, leaf, ids)) is not None]
    staged = {
        id(leaf): _staged(step, leaf, where) for leaf, where in moves if _is_overwritten(step, leaf, where, moves)
    }
    for leaf, where in moves:
        copy(step, leaf, staged.get(id(leaf), where), step.storage.slots[step.index_of(leaf)])
    for target, _, _ in new:
        step.out(f"{target} = n_{target};")


def place_of_each(step: Step, ids: Ids) -> NDArray[np.int64]:
    """Where the elements stand in memory; those that do not are put there."""
    for i in ids.tolist():
        if int(step.owner[i]) not in step.storage.slots and i not in step.storage.mirrors:
            step.storage.add_mirror(i)
            step.mirror(i)
    return np.array([step.storage.place(i) for i in ids.tolist()], dtype=np.int64)


def _from(step: Step, leaf: Node, ids: Ids) -> NDArray[np.int64] | None:
    """Where the elements of the leaf's next value stand, or None if that is where they belong."""
    where = place_of_each(step, ids)
    at_home = bool((where == step.storage.slots[step.index_of(leaf)] + np.arange(leaf.size)).all())
    return None if at_home else where


def _is_overwritten(
    step: Step, leaf: Node, where: NDArray[np.int64], moves: list[tuple[Node, NDArray[np.int64]]]
) -> bool:
    """Whether what the leaf takes stands where some leaf's next value goes."""
    for other, _ in moves:
        start = step.storage.slots[step.index_of(other)]
        if other.kind is leaf.kind and bool(((where >= start) & (where < start + other.size)).any()):
            return True
    return False


def _staged(step: Step, leaf: Node, where: NDArray[np.int64]) -> NDArray[np.int64]:
    start = step.storage.grow(leaf)
    copy(step, leaf, where, start)
    return start + np.arange(leaf.size)


def copy(step: Step, leaf: Node, where: NDArray[np.int64], start: int) -> None:
    """As many elements as the leaf has, to ``start`` and after it in memory."""
    step.out.open(f"for (long i = 0; i < {leaf.size}; ++i)")
    step.store(leaf.kind, f"{start} + i", step.load(leaf.kind, step.index(where, (leaf.size,), "i")))
    step.out.close()
