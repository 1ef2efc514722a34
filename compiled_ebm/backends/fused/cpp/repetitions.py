"""Repetitions: a carry stands in variables or in a place of its own, and a round ends with its new values."""

from __future__ import annotations

from compiled_ebm.backends.fused.cpp.replacement import copy, place_of_each, replace
from compiled_ebm.backends.fused.cpp.step import Step
from compiled_ebm.backends.fused.groups import Closing, Opening

__all__ = ["emit_closing", "emit_opening"]


def emit_opening(step: Step, group: Opening) -> None:
    """The carries take what they start with, and a round begins."""
    step.out.forget_note()
    for carry in group.carries:
        index = step.index_of(carry)
        if step.plan.wide[index]:
            where = place_of_each(step, carry.start)
            copy(step, carry, where, step.storage.slots[index])
            continue
        for i, start in zip(carry.ids.tolist(), carry.start.tolist(), strict=True):
            step.names[i] = f"q{i}"
            step.out(f"{carry.kind.value} q{i} = {step.element(start)};")
    k = len(step.rounds)
    step.rounds.append(group.node.rounds)
    step.out.open(f"for (long long round{k} = 0; round{k} < rounds{k}; ++round{k})")
    carried = {i for carry in group.carries for i in carry.ids.tolist()}
    for i in step.storage.mirrors:
        if i in carried:
            step.mirror(i)


def emit_closing(step: Step, group: Closing) -> None:
    """The carries take their new values, and a round ends."""
    replace(step, [(carry, carry.next) for carry in group.node.carries], "the carry for the next round")
    step.out.close()
    step.out.forget_note()
    for result in group.results:
        for i, now in zip(result.ids.tolist(), result.carry.ids.tolist(), strict=True):
            if now in step.names:
                step.names[i] = step.names[now]
            if i in step.storage.mirrors:
                step.mirror(i)
