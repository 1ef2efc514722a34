"""The first state of chains, by the traced program uncompiled: once a run at most, and torch's own checks with it."""

from __future__ import annotations

import torch

from compiled_ebm.backends.base import Chains
from compiled_ebm.products import ChainProducts
from compiled_ebm.trace import ChainProgram

__all__ = ["init_chains"]

_INIT_ROWS = 4096


def init_chains(program: ChainProgram, chains: Chains, step: int) -> None:
    """Evaluate the program's ``init`` over the buffers, a tile at a time to bound memory."""
    body = program.init.batched()
    constants = program.init.constants(chains.shared_kwargs)
    index = torch.tensor(step, dtype=torch.int64, device=chains.ids.device)
    rows = chains.ids.shape[0]
    for start in range(0, rows, _INIT_ROWS):
        part = chains.rows(start, min(start + _INIT_ROWS, rows))
        with ChainProducts(part.ids.shape[0]):
            values = body(part.state[0], *part.chain_kwargs, index, *constants)
        for buffer, value in zip((*part.state, part.failed_at), values, strict=True):
            buffer.copy_(value)
