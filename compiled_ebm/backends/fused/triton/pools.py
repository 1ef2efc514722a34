"""What a kernel reads of the host's: constants, literals and tables of indices, packed as the kernel reads them."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from compiled_ebm.backends.fused.program import Ids, Input, Literal, Node

__all__ = ["Pools"]

_ALIGNED = 16
"""Entries: every table begins where a vector load may."""
_NUMBER = -1
"""In the table of positions: not an element of a constant but a number."""


@dataclass
class _Pool:
    """Entries in the order in which they are asked for; equal runs share a place."""

    positions: list[NDArray[np.int64]] = field(default_factory=list)
    offsets: list[NDArray[np.int64]] = field(default_factory=list)
    numbers: list[NDArray[np.float64]] = field(default_factory=list)
    size: int = 0
    places: dict[bytes, int] = field(default_factory=dict)

    def add(self, position: NDArray[np.int64], offset: NDArray[np.int64], number: NDArray[np.float64]) -> int:
        key = position.tobytes() + offset.tobytes() + number.tobytes()
        if key not in self.places:
            self.places[key] = self.size
            padding = -len(position) % _ALIGNED if len(position) > 1 else 0
            self.positions.append(np.pad(position, (0, padding), constant_values=_NUMBER))
            self.offsets.append(np.pad(offset, (0, padding)))
            self.numbers.append(np.pad(number, (0, padding)))
            self.size += len(position) + padding
        return self.places[key]

    def align(self) -> None:
        padding = -self.size % _ALIGNED
        if padding:
            self.positions.append(np.full(padding, _NUMBER))
            self.offsets.append(np.zeros(padding, dtype=np.int64))
            self.numbers.append(np.zeros(padding))
            self.size += padding


class Pools:
    """One array of reals, one of int64, one of int32 indices."""

    def __init__(self) -> None:
        self._reals, self._ints = _Pool(), _Pool()
        self._indices: list[NDArray[np.int32]] = []
        self._index_places: dict[bytes, int] = {}
        self._n_indices = 0
        self._laid_out: dict[str, tuple[Tensor, Tensor]] = {}

    def add(self, elements: list[tuple[Node, int] | None], real: bool) -> int:
        """A run of elements of constants and literals (None: zero); where it begins."""
        position = np.full(len(elements), _NUMBER, dtype=np.int64)
        offset = np.zeros(len(elements), dtype=np.int64)
        number = np.zeros(len(elements), dtype=np.float64)
        for k, element in enumerate(elements):
            if element is None:
                continue
            node, e = element
            if isinstance(node, Literal):
                number[k] = node.values[e]
            else:
                assert isinstance(node, Input)
                position[k], offset[k] = node.position, e
        pool = self._reals if real else self._ints
        if len(elements) > 1:
            pool.align()
        return pool.add(position, offset, number)

    def add_indices(self, indices: Ids) -> int:
        """A table of indices; where it begins."""
        table = indices.astype(np.int32)
        key = table.tobytes()
        if key not in self._index_places:
            self._index_places[key] = self._n_indices
            self._indices.append(np.pad(table, (0, -len(table) % _ALIGNED)))
            self._n_indices += len(self._indices[-1])
        return self._index_places[key]

    def indices(self, device: torch.device) -> Tensor:
        """The index tables, int32."""
        return torch.from_numpy(np.concatenate([*self._indices, np.zeros(1, dtype=np.int32)])).to(device)

    def reals(self, constants: list[Tensor], dtype: torch.dtype, device: torch.device) -> Tensor:
        """The real entries from all constants of the kernel, as they are now."""
        return self._gathered("reals", self._reals, constants, dtype, device)

    def ints(self, constants: list[Tensor], device: torch.device) -> Tensor:
        """The whole-number and mask entries."""
        return self._gathered("ints", self._ints, constants, torch.int64, device)

    @property
    def n_reals(self) -> int:
        """How many real entries there are."""
        return self._reals.size

    def _gathered(
        self, name: str, pool: _Pool, constants: list[Tensor], dtype: torch.dtype, device: torch.device
    ) -> Tensor:
        if not pool.size:
            return torch.zeros(1, dtype=dtype, device=device)
        used = sorted(set(np.concatenate(pool.positions).tolist()) - {_NUMBER})
        key = f"{name} {device}"
        if key not in self._laid_out:
            starts = {_NUMBER: 0}
            start = pool.size  # the numbers stand first, one for each entry
            for p in used:
                starts[p] = start
                start += constants[p].numel()
            position = np.concatenate(pool.positions)
            where = np.array([starts[p] for p in position.tolist()]) + np.concatenate(pool.offsets)
            where = np.where(position == _NUMBER, np.arange(pool.size), where)
            numbers = torch.from_numpy(np.concatenate(pool.numbers)).to(dtype).to(device)
            self._laid_out[key] = numbers, torch.from_numpy(where).to(device)
        numbers, index = self._laid_out[key]
        parts = [constants[p].detach().reshape(-1).to(device=device, dtype=dtype) for p in used]
        return torch.cat([numbers, *parts])[index].contiguous()
