"""Quadratic forms: x^T A x needs x A, and its gradient x A^T beside it; one product with A + A^T gives both.

The inverse of a symmetric matrix is symmetric up to rounding only, so that nothing else sees that the two are one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from compiled_ebm.backends.fused.program import (
    Close,
    Dot,
    Ids,
    Kind,
    Literal,
    Node,
    Open,
    Pointwise,
    Reduce,
    distinct,
    is_constant,
)

__all__ = ["merge_products"]

_SUMS = ("add", "sub")
_PLAIN = -1
"""In the place of a literal's number: no factor at all."""


def merge_products(nodes: Sequence[Node], outputs: Sequence[Ids]) -> list[Node]:
    """The nodes, with pairs of products of one vector, with one matrix or with a matrix and its transpose, made one.

    Args:
        nodes: In an order in which every operand is made before it is used.
        outputs: What the program gives; element numbers stay what they are.
    """
    form = _Form(list(nodes), outputs)
    while form.merge_one():
        pass
    return form.nodes


class _Form:
    def __init__(self, nodes: list[Node], outputs: Sequence[Ids]) -> None:
        self.nodes = nodes
        self._outputs = outputs
        self._next = max((node.first + node.size for node in nodes), default=0)

    def merge_one(self) -> bool:
        """Merge one pair, if there is one."""
        self._owner = np.full(self._next, -1, dtype=np.int64)
        for i, node in enumerate(self.nodes):
            self._owner[node.first : node.first + node.size] = i
        dots: list[tuple[Dot, tuple[int, ...]]] = []
        loops: list[int] = []
        for i, node in enumerate(self.nodes):
            if isinstance(node, Open):
                loops.append(i)
            elif isinstance(node, Close):
                loops.pop()
            elif isinstance(node, Dot) and node.left.shape[0] == 1:
                dots.append((node, tuple(loops)))
        for plain, loop in dots:
            for other, other_loop in dots:
                factor = (
                    None
                    if plain is other or loop != other_loop
                    else self._factor(other.left.reshape(-1), plain.left.reshape(-1))
                )
                if factor is None:
                    continue
                if np.array_equal(plain.right, other.right):
                    self._make_multiple(plain, other, factor)
                    return True
                transposed = np.array_equal(plain.right, other.right.T) and self._is_constant(plain.right)
                if transposed and self._merge_transposed(plain, other, factor):
                    return True
        return False

    # -- what there is -----------------------------------------------------------------------------------------------

    def _node(self, ids: Ids) -> Node | None:
        """The node that all of these elements are of."""
        owners = distinct(self._owner[ids.reshape(-1)])
        return self.nodes[int(owners[0])] if owners.size == 1 else None

    def _factor(self, ids: Ids, plain: Ids) -> int | None:
        """The literal c where ``ids`` is c ``plain``, ``_PLAIN`` where it is the same, None where it is neither."""
        if np.array_equal(ids, plain):
            return _PLAIN
        node = self._node(ids)
        if ids.shape != plain.shape or not isinstance(node, Pointwise) or node.op != "mul":
            return None
        at = ids - node.first
        for c, x in (node.args, node.args[::-1]):
            numbers = distinct(c[at])
            if numbers.size == 1 and isinstance(self._node(numbers), Literal) and np.array_equal(x[at], plain):
                return int(numbers[0])
        return None

    def _is_constant(self, ids: Ids) -> bool:
        node = self._node(ids)
        return node is not None and is_constant(node)

    def _users(self, made: Node) -> Iterator[Node]:
        for node in self.nodes:
            if any((self._owner[ids.reshape(-1)] == self._owner[made.first]).any() for ids in node.operands()):
                yield node

    def _is_output(self, made: Node) -> bool:
        return any(((ids >= made.first) & (ids < made.first + made.size)).any() for ids in self._outputs)

    # -- one product that is a multiple of another -------------------------------------------------------------------

    def _make_multiple(self, plain: Dot, other: Dot, factor: int) -> None:
        """x (c A) beside x A: the elements of the first are c times those of the second."""
        at = self.nodes.index(other)
        number = np.full(other.size, factor, dtype=np.int64)
        multiple = self._pointwise(other.first, "mul", number, plain.ids, other.origin)
        del self.nodes[at]
        self.nodes.insert(max(at, self.nodes.index(plain) + 1), multiple)

    # -- a matrix and its transpose ----------------------------------------------------------------------------------

    def _merge_transposed(self, plain: Dot, other: Dot, factor: int) -> bool:
        """y = x A, y' = c x A^T: used in the gradient c y + y' and the sum of x y, both follow from x (A + A^T)."""
        gradients: list[tuple[Pointwise, list[tuple[str, Ids]]]] = []
        known: list[Node] = []
        for node in self._users(other):
            total = self._sum_around(node, other)
            if total is None:
                return False
            rest = self._terms(total, "add", known)
            added = [(k, ids) for k, (op, ids) in enumerate(rest) if op == "add"]
            theirs = [k for k, ids in added if np.array_equal(ids, other.ids)]
            own = [k for k, ids in added if self._factor(ids, plain.ids) == factor]
            if len(theirs) != 1 or len(own) != 1:
                return False
            rest = [term for k, term in enumerate(rest) if k not in (theirs[0], own[0])]
            gradients.append((total, rest))
        scaled = [node for node in self._users(plain) if self._is_scaled(node, plain, factor)]
        known += [*scaled, *(node for node in self._users(plain) if self._is_term(node, plain))]
        users = [*self._users(plain), *(user for node in scaled for user in self._users(node))]
        if not gradients or any(not any(user is k for k in known) for user in users):
            return False
        if any(self._is_output(node) for node in (plain, other, *scaled)):
            return False
        n, one = plain.size, self._literal(1.0)
        both = self._pointwise(None, "add", plain.right.reshape(-1), other.right.reshape(-1), plain.origin)
        product = Dot(self._take(n), n, Kind.REAL, left=plain.left, right=both.ids.reshape(n, n), origin=plain.origin)
        half = self._literal(0.5)
        mean = self._pointwise(plain.first, "mul", np.repeat(half.ids, n), product.ids, plain.origin)
        made: dict[int, list[Node]] = {id(plain): [one, half, both, product, mean], id(other): []}
        for node, rest in gradients:
            number = np.full(n, int(one.ids[0]) if factor == _PLAIN else factor)
            new = [self._pointwise(None if rest else node.first, "mul", number, product.ids, node.origin)]
            for k, (op, ids) in enumerate(rest):
                first = node.first if k == len(rest) - 1 else None
                new.append(self._pointwise(first, op, new[-1].ids, ids, node.origin))
            made[id(node)] = list(new)
        self.nodes = [new for node in self.nodes for new in made.get(id(node), [node])]
        return True

    def _is_scaled(self, node: Node, plain: Dot, factor: int) -> bool:
        """Whether it is c y, in order."""
        if factor == _PLAIN or not isinstance(node, Pointwise) or node.op != "mul" or node.size != plain.size:
            return False
        return self._factor(node.ids, plain.ids) == factor

    def _sum_around(self, node: Node, made: Node) -> Pointwise | None:
        """The whole of the sum in which ``node`` takes ``made`` in; None if it is no sum of all of it."""
        if not self._adds(node, made):
            return None
        while not self._is_output(node):
            users = list(self._users(node))
            if len(users) != 1 or not self._adds(users[0], node):
                break
            node = users[0]
        assert isinstance(node, Pointwise)
        return node

    def _adds(self, node: Node, term: Node) -> bool:
        """Whether the term, in order, is added to something, or something is subtracted from it."""
        if not isinstance(node, Pointwise) or node.op not in _SUMS or node.size != term.size:
            return False
        at = [np.array_equal(a, term.ids) for a in node.args]
        return sum(at) == 1 and (node.op == "add" or at[0])

    def _terms(self, total: Pointwise, sign: str, inside: list[Node]) -> list[tuple[str, Ids]]:
        """The terms of a sum and whether each is added, those of sums that nothing else reads one by one.

        ``inside`` collects the sums.
        """
        inside.append(total)
        terms: list[tuple[str, Ids]] = []
        for position, ids in enumerate(total.args):
            own = _SUMS[1 - _SUMS.index(sign)] if total.op == "sub" and position == 1 else sign
            inner = self._node(ids)
            whole = isinstance(inner, Pointwise) and inner.op in _SUMS and np.array_equal(ids, inner.ids)
            if whole and not self._is_output(inner) and len(list(self._users(inner))) == 1:  # type: ignore[arg-type]
                terms += self._terms(inner, own, inside)  # type: ignore[arg-type]
            else:
                terms.append((own, ids))
        return terms

    def _is_term(self, node: Node, plain: Dot) -> bool:
        """Whether it is x y, in order, and nothing but summed up."""
        if not isinstance(node, Pointwise) or node.op != "mul" or node.size != plain.size or self._is_output(node):
            return False
        x = plain.left.reshape(-1)
        if not any(np.array_equal(a, x) and np.array_equal(b, plain.ids) for a, b in (node.args, node.args[::-1])):
            return False
        return all(self._sums(user, node) for user in self._users(node))

    def _sums(self, user: Node, node: Node) -> bool:
        if not isinstance(user, Reduce) or user.op != "sum":
            return False
        touched = [row for row in user.arg if (self._owner[row] == self._owner[node.first]).any()]
        return all(np.array_equal(np.sort(row), node.ids) for row in touched)

    # -- new nodes ---------------------------------------------------------------------------------------------------

    def _take(self, size: int) -> int:
        first = self._next
        self._next += size
        return first

    def _literal(self, value: float) -> Literal:
        return Literal(self._take(1), 1, Kind.REAL, values=np.array([value]))

    def _pointwise(self, first: int | None, op: str, left: Ids, right: Ids, origin: str) -> Pointwise:
        first = self._take(left.size) if first is None else first
        return Pointwise(first, left.size, Kind.REAL, op=op, args=(left, right), origin=origin)
