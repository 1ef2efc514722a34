"""Which layout a program gets: candidates are compiled, rejected on facts, and ranked for a number of chains."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

from compiled_ebm.backends.fused.groups import Loop, Plan, Product
from compiled_ebm.backends.fused.plan import statements
from compiled_ebm.backends.fused.program import Input, Literal, Node, TileProgram, is_constant
from compiled_ebm.backends.fused.triton.devices import Device
from compiled_ebm.backends.fused.triton.resources import Resources
from compiled_ebm.backends.fused.triton.values import Form, padded

__all__ = ["candidates", "ranked"]

_ELEMENTS_A_THREAD = (8, 16, 32)
"""Of the widest node: fewer leave registers unused, more spill."""
_MOST_ELEMENTS = 64
_SPILLING = 1.25
"""How much slower than its instructions say a kernel may be whose stack does not fit the first-level cache."""
_LARGEST_BLOCK = 128
_FEW_CONSTANTS = 600
_MOST_STATEMENTS = 4000
"""Of programs that are tried without loops: these take Triton some 6 s."""
_TRIED = 10
"""Layouts that are compiled; a number and not a time, so that the choice is the same on a busy machine."""


def candidates(program: TileProgram, planned: Plan, precision: str = "tf32x3") -> list[Form]:
    """Layouts worth a look, the likeliest first."""
    if not any(is_wide and not _is_table(node) for node, is_wide in zip(program.nodes, planned.wide, strict=True)):
        return [Form(128, 4, precision=precision), Form(32, 1, precision=precision)]
    sizes = [padded(group.size) for group in planned.groups if isinstance(group, Loop)]
    sizes += [padded(group.node.size) for group in planned.groups if isinstance(group, Product)]
    sizes += [padded(node.size) for node in program.nodes if isinstance(node, Input) and not is_constant(node)]
    widest = max(sizes)
    table = sum(node.size for node in program.nodes if is_constant(node))
    few = table <= _FEW_CONSTANTS and statements(program) <= _MOST_STATEMENTS
    flat = [Form(128, 4, precision=precision, unrolled=True)] if few else []
    if any(isinstance(group, Product) for group in planned.groups):
        return flat + _ordered(_for_products(widest, precision), widest, 64)
    return flat + _ordered(_for_axes(widest, precision), widest, 8)


def _is_table(node: Node) -> bool:
    return isinstance(node, Literal) or is_constant(node)


def _ordered(forms: Iterator[Form], widest: int, each: int) -> list[Form]:
    """Those nearest to so many elements a thread first; the narrowest there is if all are too wide."""
    distance = {form: abs(math.log2(form.block * widest / (32 * form.warps * each))) for form in forms}
    found = sorted(distance, key=distance.__getitem__)
    return found or [Form(1, 8)]


def _for_products(widest: int, precision: str) -> Iterator[Form]:
    for block, warps in ((128, 8), (64, 4), (64, 8), (32, 4), (16, 4), (16, 8), (8, 8)):
        if block * widest <= 32 * warps * _MOST_ELEMENTS:
            for chains_last in (False, True):
                yield Form(block, warps, chains_last, precision=precision)


def _for_axes(widest: int, precision: str) -> Iterator[Form]:
    for chains_last in (True, False):
        for warps in (1, 4):
            for each in _ELEMENTS_A_THREAD:
                block = each * 32 * warps // widest
                least = 8 if chains_last else 1
                if max(least, warps) <= block <= _LARGEST_BLOCK:  # Triton's gather wants a row for each warp
                    yield Form(block, warps, chains_last, precision=precision)


def ranked(
    forms: Sequence[Form], compiled: Callable[[Form], Resources | None], device: Device, n_chains: int
) -> list[Resources]:
    """What fits the device, the fastest for so many chains first; spills in the loop where they save a good part."""
    found: list[Resources] = []
    for form in forms[:_TRIED]:
        resources = compiled(form)
        if resources is not None and resources.fits(device):
            found.append(resources)
    found.sort(key=lambda r: r.seconds(device, n_chains, 1) * (_SPILLING if r.spills else 1.0))
    return found
