"""What a program says of the order of its elements: no term of a maximum is above it, and one of them attains it.

So softmax and logsumexp, which subtract a maximum before they exponentiate, stay finite: no exponent is above 0, and
one is 0.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from compiled_ebm.backends.fused.program import Ids, Literal, Node, Pointwise, Reduce

__all__ = ["Order"]

_MOST_ELEMENTS = 10_000
_MOST_TERMS = 64
"""Of a sum that is a chain of additions."""
_DEEPEST = 32
"""Maxima of maxima."""
_COMPARE_ABOVE, _COMPARE_BELOW = ("rgt", "rge"), ("rlt", "rle")


class Order:
    """Questions about single elements.

    Args:
        nodes: Of a tile program without loops.
    """

    def __init__(self, nodes: Sequence[Node]) -> None:
        self._nodes = nodes
        total = max((node.first + node.size for node in nodes), default=0)
        self._owner = np.full(total, -1, dtype=np.int64)
        for i, node in enumerate(nodes):
            self._owner[node.first : node.first + node.size] = i
        self._lower: dict[int, frozenset[int]] = {}
        self._upper: dict[int, frozenset[int]] = {}

    def differences(self, node: Pointwise) -> tuple[Ids, Ids] | None:
        """Of a difference: which elements are at most 0, and which are so up to rounding of the first operand alone.

        Where a product is subtracted from, both may be rounded at once, and the product is not what was compared.
        """
        if node.op != "sub" or node.size > _MOST_ELEMENTS or not self._has_maxima():
            return None
        exact: list[int] = []
        rounded: list[int] = []
        for k, (a, b) in enumerate(zip(*(arg.tolist() for arg in node.args), strict=True)):
            if self._lowers(b) & self._uppers(a):
                (rounded if self._is_product(a) else exact).append(k)
        return (np.array(exact, dtype=np.int64), np.array(rounded, dtype=np.int64)) if exact or rounded else None

    def maxima_of_sums(self, node: Node) -> list[tuple[int, int, bool]]:
        """Sums that have exp(0) among their terms, which are exponentials: (place, the maximum, whether rounded)."""
        if node.size > _MOST_ELEMENTS or not self._has_maxima():
            return []
        found: list[tuple[int, int, bool]] = []
        if isinstance(node, Reduce) and node.op == "sum":
            rows = [row.tolist() for row in node.arg]
        elif isinstance(node, Pointwise) and node.op == "add":
            rows = [self._terms([int(arg[k]) for arg in node.args]) for k in range(node.size)]
        else:
            return []
        for k, row in enumerate(rows):
            shifts = [self._shifted(e) for e in row]
            if any(shift is None for shift in shifts) or not shifts:
                continue
            for top in {s[1] for s in shifts if s is not None}:
                terms = {s[0] for s in shifts if s is not None and s[1] == top}
                if self._attained(top, terms):
                    found.append((k, top, any(e >= 0 and self._is_product(e) for e in terms)))
                    break
        return found

    # -- what there is -----------------------------------------------------------------------------------------------

    def _has_maxima(self) -> bool:
        return any(isinstance(node, (Pointwise, Reduce)) and node.op in ("max", "min", "rsel") for node in self._nodes)

    def _made(self, element: int) -> tuple[str, list[int]]:
        """The operation of an element and the elements that it reads."""
        node = self._nodes[int(self._owner[element])]
        k = element - node.first
        if isinstance(node, Pointwise):
            return node.op, [int(arg[k]) for arg in node.args]
        if isinstance(node, Reduce):
            return f"reduce {node.op}", node.arg[k].tolist()
        return "", []

    def _literal(self, element: int) -> float:
        node = self._nodes[int(self._owner[element])]
        return float(node.values[element - node.first]) if isinstance(node, Literal) else np.nan

    def _is_product(self, element: int) -> bool:
        op, args = self._made(element)
        return op in ("mul", "square") or (op == "neg" and self._is_product(args[0]))

    def _extreme_of(self, element: int, extreme: str) -> list[int]:
        """The elements that it is the maximum (or minimum) of, if it is."""
        op, args = self._made(element)
        if op in (extreme, f"reduce {extreme}"):
            return args
        if op != "rsel":
            return []
        test, compared = self._made(args[0])
        args = [args[0], *(self._without_bound(e) for e in args[1:])]
        if test in (*_COMPARE_ABOVE, *_COMPARE_BELOW) and sorted(compared) == sorted(args[1:]):
            larger = compared == args[1:] if test in _COMPARE_ABOVE else compared == args[:0:-1]
            return args[1:] if larger == (extreme == "max") else []
        if self._is_infinite(args[0], args[2]):
            return [args[2]]
        return []

    def _without_bound(self, element: int) -> int:
        """What it is but for what a condition says of it."""
        op, args = self._made(element)
        return args[0] if op in ("at_most", "at_least") else element

    def _is_infinite(self, mask: int, element: int) -> bool:
        """Whether the mask asks if the element is infinite."""
        test, args = self._made(mask)
        if test == "isinf":
            return args == [element]
        return test == "req" and self._made(args[0]) == ("abs", [element]) and self._literal(args[1]) == np.inf

    def _lowers(self, element: int, depth: int = 0) -> frozenset[int]:
        """Elements that are at most this one, itself among them."""
        if element not in self._lower:
            parts = self._extreme_of(element, "max") if depth < _DEEPEST else []
            self._lower[element] = frozenset({element}).union(*(self._lowers(e, depth + 1) for e in parts))
        return self._lower[element]

    def _uppers(self, element: int, depth: int = 0) -> frozenset[int]:
        """Elements that are at least this one, itself among them."""
        if element not in self._upper:
            parts = self._extreme_of(element, "min") if depth < _DEEPEST else []
            self._upper[element] = frozenset({element}).union(*(self._uppers(e, depth + 1) for e in parts))
        return self._upper[element]

    # -- sums of exponentials ----------------------------------------------------------------------------------------

    def _terms(self, summands: list[int]) -> list[int]:
        """The exponentials that a chain of additions consists of; none if it has others."""
        pending = list(summands)
        terms: list[int] = []
        while pending and len(terms) < _MOST_TERMS:
            element = pending.pop()
            op, args = self._made(element)
            if op == "add":
                pending += args
            elif op == "exp":
                terms.append(element)
            else:
                return []
        return [] if pending else terms

    def _shifted(self, element: int) -> tuple[int, int] | None:
        """(e, m) of exp(e - m), e = -1 standing for 0."""
        op, args = self._made(element)
        if op != "exp":
            return None
        op, args = self._made(args[0])
        if op == "sub":
            return args[0], args[1]
        return (-1, args[0]) if op == "neg" else None

    def _attained(self, element: int, terms: set[int], depth: int = 0) -> bool:
        """Whether it is surely one of the terms."""
        if element in terms or (-1 in terms and self._literal(element) == 0.0):
            return True
        parts = self._extreme_of(element, "max") if depth < _DEEPEST else []
        return bool(parts) and all(self._attained(e, terms, depth + 1) for e in parts)
