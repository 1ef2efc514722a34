"""Branches of a selection, under their condition: ``where(x > 0, x, expm1(x))`` needs expm1 of x <= 0 alone."""

from __future__ import annotations

from collections.abc import KeysView, Sequence

import numpy as np

from compiled_ebm.backends.fused.program import Ids, Kind, Literal, Node, Pointwise, is_constant

__all__ = ["narrowed"]

_SELECTS = ("rsel", "isel")
_HOLDS = {"rgt": ("at_least", "at_most"), "rge": ("at_least", "at_most"), "rlt": ("at_most", "at_least")}
_HOLDS["rle"] = _HOLDS["rlt"]
"""What a comparison says of its operands, in terms of each other, where it is true. Where it is false, and the
operands are numbers, the opposite holds, equality aside."""
_DELICATE = frozenset(
    "exp exp2 expm1 log log2 log10 log1p sqrt rsqrt div pow sinh cosh asin acos acosh atanh erfcx lgamma "
    "digamma".split()
)
_MOST_VISITED = 64


def narrowed(nodes: Sequence[Node]) -> list[Node]:
    """The nodes, each branch of a selection recomputed from what its condition leaves of the compared values.

    That is true of the selection's result alone: where the branch is not taken, its copy may be anything.
    """
    return _Narrowing(nodes).nodes


class _Narrowing:
    def __init__(self, nodes: Sequence[Node]) -> None:
        self.nodes: list[Node] = []
        self._owner = np.zeros(0, dtype=np.int64)
        self._size = max((node.first + node.size for node in nodes), default=0)
        self._owner = np.full(self._size, -1, dtype=np.int64)
        for node in nodes:
            selects = isinstance(node, Pointwise) and node.op in _SELECTS
            self._append(self._select(node) if selects else node)  # type: ignore[arg-type]

    def _append(self, node: Node) -> None:
        missing = node.first + node.size - self._owner.size
        if missing > 0:
            self._owner = np.append(self._owner, np.full(max(missing, self._owner.size), -1, dtype=np.int64))
        self._owner[node.first : node.first + node.size] = len(self.nodes)
        self.nodes.append(node)

    def _made_by(self, ids: Ids) -> Pointwise | None:
        """The operation that all of these elements are of."""
        first = int(self._owner[ids[0]])
        node = self.nodes[first]
        return node if isinstance(node, Pointwise) and bool((self._owner[ids] == first).all()) else None

    def _add(self, op: str, kind: Kind, args: tuple[Ids, ...]) -> Ids:
        node = Pointwise(self._size, args[0].size, kind, op=op, args=args)
        self._size += node.size
        self._append(node)
        return node.ids

    def _select(self, node: Pointwise) -> Pointwise:
        mask, *branches = node.args
        test = self._made_by(mask)
        if test is None or test.op not in _HOLDS:
            return node
        compared = tuple(arg[mask - test.first] for arg in test.args)
        true, false = _HOLDS[test.op]
        new = [
            self._under(branch, compared, holds)
            for branch, holds in zip(branches, ((true, false), (false, true)), strict=True)
        ]
        return Pointwise(node.first, node.size, node.kind, op=node.op, args=(mask, *new), origin=node.origin)

    def _under(self, branch: Ids, compared: tuple[Ids, ...], holds: tuple[str, str]) -> Ids:
        """The branch again, where ``compared[0]`` is ``holds[0]`` the other, and that ``holds[1]`` the first."""
        narrow = {u.tobytes(): (u, v, op) for u, v, op in zip(compared, compared[::-1], holds, strict=True)}
        narrow = {key: made for key, made in narrow.items() if not self._is_known(made[0])}
        visited: dict[bytes, bool] = {}
        steps: list[Ids] = []
        if not self._depends(branch, narrow.keys(), visited, steps):
            return branch
        made = [self._made_by(ids) for ids in steps]
        if branch.tobytes() not in narrow and not any(node is not None and node.op in _DELICATE for node in made):
            return branch
        copies = {key: self._add(op, Kind.REAL, (u, v)) for key, (u, v, op) in narrow.items() if key in visited}
        for ids, node in zip(steps, made, strict=True):
            if node is not None:
                args = tuple(copies.get(arg.tobytes(), arg) for arg in self._args(ids))
                copies[ids.tobytes()] = self._add(node.op, node.kind, args)
        return copies[branch.tobytes()]

    def _is_known(self, ids: Ids) -> bool:
        node = self.nodes[int(self._owner[ids[0]])]
        return isinstance(node, Literal) or is_constant(node)

    def _args(self, ids: Ids) -> list[Ids]:
        made = self._made_by(ids)
        return [] if made is None else [np.ascontiguousarray(arg[ids - made.first]) for arg in made.args]

    def _depends(self, ids: Ids, on: KeysView[bytes], visited: dict[bytes, bool], steps: list[Ids]) -> bool:
        """Whether elements are made of those compared; ``steps`` collects by what, operands first."""
        key = ids.tobytes()
        if key not in visited and len(visited) < _MOST_VISITED:
            visited[key] = key in on
            if not visited[key] and any([self._depends(arg, on, visited, steps) for arg in self._args(ids)]):
                visited[key] = True
                steps.append(ids)
        return visited.get(key, False)
