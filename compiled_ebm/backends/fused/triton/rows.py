"""Loads and stores of the chains' rows.

Triton's pass that chooses layouts (3.6, ``TritonGPUCoalesce``) walks for every load and store over all that its address
or its value has to do with, which is the whole kernel: a lattice of 64 sites, loaded and stored site by site, took
128 s to compile. It does not walk from an address that a loop hands on. So in large kernels
loads and stores stand in loops of one round, a number of rounds that the compiler does not know.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from compiled_ebm.backends.fused.program import Kind
from compiled_ebm.backends.fused.triton.expressions import dtype
from compiled_ebm.backends.fused.triton.values import Lines, Values

__all__ = ["load_block", "load_elements", "store_block", "store_elements"]

_AT_ONCE = 8
"""Loads or stores in one such loop: their addresses are in registers together."""
_LARGE = 300
"""Lines of a step from which on loads and stores are kept apart."""


def load_block(v: Values, out: Lines, name: str, address: str, mask: str, shape: str, kind: Kind) -> None:
    """``name`` becomes what stands at the addresses."""
    narrow = " != 0" if kind is Kind.MASK else ""
    if len(v.out.lines) < _LARGE:
        out(f"{name} = tl.load({address}{mask}){narrow}")
        return
    out(f"{name} = tl.full({shape}, 0, {dtype(kind)})")
    with _one_round(v, out, [address]) as (at,):
        out(f"{name} = tl.load({at}{mask}){narrow}")


def store_block(v: Values, out: Lines, address: str, value: str, mask: str) -> None:
    """What stands at the addresses becomes ``value``."""
    if len(v.out.lines) < _LARGE:
        out(f"tl.store({address}, {value}{mask})")
        return
    with _one_round(v, out, [address]) as (at,):
        out(f"tl.store({at}, {value}{mask})")


def load_elements(v: Values, out: Lines, array: str, names: Sequence[str], kind: Kind) -> None:
    """``names[e]`` becomes element e of every chain's row."""
    narrow = " != 0" if kind is Kind.MASK else ""
    addresses = [f"{array} + chain * {len(names)} + {e}" for e in range(len(names))]
    if len(v.out.lines) < _LARGE:
        for name, address in zip(names, addresses, strict=True):
            out(f"{name} = tl.load({address}){narrow}")
        return
    for first in range(0, len(names), _AT_ONCE):
        some = names[first : first + _AT_ONCE]
        for name in some:
            out(f"{name} = tl.full((BLOCK,), 0, {dtype(kind)})")
        with _one_round(v, out, addresses[first : first + _AT_ONCE]) as places:
            for name, at in zip(some, places, strict=True):
                out(f"{name} = tl.load({at}){narrow}")


def store_elements(v: Values, out: Lines, array: str, names: Sequence[str], chain: str, mask: str | None) -> None:
    """Element e of the rows becomes ``names[e]``, where the chains of ``mask`` are concerned."""
    suffix = "" if mask is None else f", mask={mask}"
    addresses = [f"{array} + {chain} * {len(names)} + {e}" for e in range(len(names))]
    if len(v.out.lines) < _LARGE:
        for name, address in zip(names, addresses, strict=True):
            out(f"tl.store({address}, {name}{suffix})")
        return
    for first in range(0, len(names), _AT_ONCE):
        with _one_round(v, out, addresses[first : first + _AT_ONCE]) as places:
            for name, at in zip(names[first : first + _AT_ONCE], places, strict=True):
                out(f"tl.store({at}, {name}{suffix})")


@contextmanager
def _one_round(v: Values, out: Lines, addresses: Sequence[str]) -> Iterator[list[str]]:
    """A loop that hands the addresses on, and is done once."""
    places, again = [v.fresh("at") for _ in addresses], v.fresh("again")
    for at, address in zip(places, addresses, strict=True):
        out(f"{at} = {address}")
    out(f"{again} = once")
    out.open(f"while {again} > 0:")
    yield places
    for at in places:
        out(f"{at} += {again}")
    out(f"{again} -= 1")
    out.close()
