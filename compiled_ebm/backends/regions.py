"""Loops for ``torch.compile``: the body of a loop is a region of its own, compiled once and called in every round.

Unrolled, the compiler's work would grow with the rounds; its own loop would look at a number on the host in every
round, which a CUDA graph cannot capture. Loops inside others are unrolled: Inductor (torch 2.13) fails on regions
inside regions.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx, nn

from compiled_ebm.loopgraph import Rounds

__all__ = ["with_regions"]


def with_regions(graph: fx.GraphModule) -> fx.GraphModule:
    """A copy of the graph whose loops call a region; the graph itself if it has none."""
    return _with_loops(graph, _Region)


def _with_loops(graph: fx.GraphModule, form: Callable[[Rounds], nn.Module]) -> fx.GraphModule:
    loops = [(name, child) for name, child in graph.named_children() if isinstance(child, Rounds)]
    if not loops:
        return graph
    changed = copy.deepcopy(graph)
    for name, loop in loops:
        setattr(changed, name, form(loop))
    return changed


class _Unrolled(nn.Module):
    """What :class:`Rounds` computes, one round after the other."""

    def __init__(self, loop: Rounds) -> None:
        super().__init__()
        self.rounds, self.n_carry = loop.rounds, loop.n_carry
        self.body = _with_loops(loop.body, _Unrolled)

    def forward(self, *given: Tensor) -> tuple[Tensor, ...]:
        return _repeated(self.body, self.rounds, given[: self.n_carry], given[self.n_carry :])


class _Region(nn.Module):
    """The same, each round a call of one region.

    A region refuses tensors that share memory, going in (views of one weight) or coming out (a carry that is handed on
    as it is), hence the copies (torch 2.13); those of results are fused away.
    """

    def __init__(self, loop: Rounds) -> None:
        super().__init__()
        self.rounds, self.n_carry = loop.rounds, loop.n_carry
        body = _with_loops(loop.body, _Unrolled)

        def one_round(*given: Tensor) -> tuple[Tensor, ...]:
            return tuple(t.clone() for t in body(*given))

        region: Any = torch.compiler.nested_compile_region
        self.one_round = region(one_round)

    def forward(self, *given: Tensor) -> tuple[Tensor, ...]:
        owned = tuple(t.clone() for t in given)
        return _repeated(self.one_round, self.rounds, owned[: self.n_carry], owned[self.n_carry :])


def _repeated(
    one_round: Callable[..., tuple[Tensor, ...]], rounds: int, carry: tuple[Tensor, ...], held: tuple[Tensor, ...]
) -> tuple[Tensor, ...]:
    for _ in range(rounds):
        carry = one_round(*carry, *held)
    return carry
