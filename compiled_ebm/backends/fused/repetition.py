"""Loops of the transition in a plan: where they stand, and how long values must live because of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from compiled_ebm.backends.fused.plan import Closing, Group, Opening, Plan
from compiled_ebm.backends.fused.program import Ids, Node

__all__ = ["extend_lives", "stretches"]


def stretches(planned: Plan) -> list[tuple[int, int]]:
    """The places of each repetition's opening and closing group, inner ones first."""
    found: list[tuple[int, int]] = []
    opened: list[int] = []
    for g, group in enumerate(planned.groups):
        if isinstance(group, Opening):
            opened.append(g)
        elif isinstance(group, Closing):
            found.append((opened.pop(), g))
    return found


def extend_lives(
    nodes: Sequence[Node], owner: Ids, planned: Plan, group_of: Mapping[int, Group], last: dict[int, int]
) -> None:
    """What a round reads and no round makes is read again by the next: it lives to the end of the repetition.

    Args:
        nodes: All nodes.
        owner: By element, the index of its node.
        planned: Their groups.
        group_of: By node index, the group that makes it.
        last: By node index, the place of the group that reads it last in the order of the text; changed here.
    """
    place = {id(group): g for g, group in enumerate(planned.groups)}
    made = {o: place[id(group)] for o, group in group_of.items()}
    for first, stop in stretches(planned):
        for o, reader in last.items():
            if made.get(o, -1) < first < reader < stop:
                last[o] = stop
    for first, stop in stretches(planned):
        opening, closing = planned.groups[first], planned.groups[stop]
        assert isinstance(opening, Opening) and isinstance(closing, Closing)
        for carry in opening.carries:
            last[int(owner[carry.first])] = stop
        for result in closing.results:  # stands where the carry stood
            o = int(owner[result.carry.first])
            last[o] = max(last[o], last.get(int(owner[result.first]), stop))
