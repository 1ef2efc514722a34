"""How long the values of a plan live: up to the group that reads them last."""

from __future__ import annotations

from collections.abc import Mapping

from compiled_ebm.backends.fused.groups import Closing, Group, Opening, Plan, reads, stretches
from compiled_ebm.backends.fused.program import Ids, TileProgram, distinct

__all__ = ["last_readers"]


def last_readers(program: TileProgram, planned: Plan, group_of: Mapping[int, Group]) -> dict[int, int]:
    """By node index, the place of the group before whose end nothing may take the node's place.

    Args:
        program: The tile program.
        planned: Its groups; what is read after the last of them has their number.
        group_of: By node index, the group that makes it.
    """
    owner = program.owner()
    last: dict[int, int] = {}
    for g, group in enumerate(planned.groups):
        for ids, _ in reads(group):
            for o in distinct(owner[ids.reshape(-1)]).tolist():
                last[o] = g
    for ids in program.outputs:
        for o in distinct(owner[ids]).tolist():
            last[o] = len(planned.groups)
    _extend(owner, planned, group_of, last)
    return last


def _extend(owner: Ids, planned: Plan, group_of: Mapping[int, Group], last: dict[int, int]) -> None:
    """What a round reads and no round makes is read again by the next: it lives to the end of the repetition."""
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
