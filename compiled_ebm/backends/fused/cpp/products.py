"""Matrix products, a block of results in registers at a time."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from compiled_ebm.backends.fused.cpp.step import Step
from compiled_ebm.backends.fused.program import Dot, Ids, Input, distinct, is_constant

__all__ = ["emit_product"]

_BLOCK = 12
"""Results of a product that are in registers at once: with the operand and a broadcast they leave AVX2 none to spare,
and hide the latency of the multiply-add on both."""


def emit_product(step: Step, node: Dot) -> None:
    """Rows times blocks of columns: the side that varies fastest in the packed table is the constant one."""
    step.comment(node)
    rows, columns, row_step, column_step = node.left, node.right.T, node.right.shape[1], 1
    if _is_one_constant(step, node.left) and not _is_one_constant(step, node.right):
        rows, columns, row_step, column_step = columns, rows, 1, row_step
    packed = _is_one_constant(step, columns)
    n_columns = columns.shape[0]
    n_blocks = -(-n_columns // _BLOCK)
    block = -(-n_columns // n_blocks)
    start = step.storage.slots[step.index_of(node)]
    begin = 0
    while begin < n_columns:
        width = min(block, n_columns - begin)
        count = (n_columns - begin) // width if width == block else 1
        _emit_blocks(
            step,
            rows,
            columns[begin : begin + count * width],
            width,
            packed,
            f"{start + begin * column_step}",
            row_step,
            column_step,
        )
        begin += count * width


def _emit_blocks(
    step: Step, rows: Ids, columns: Ids, width: int, packed: bool, start: str, row_step: int, column_step: int
) -> None:
    text, terms, n_blocks = step.out, rows.shape[1], len(columns) // width
    if len(rows) > 1:
        text.open(f"for (long r = 0; r < {len(rows)}; ++r)")
    text.open(f"for (long b = 0; b < {n_blocks}; ++b)")
    text(f"R sum[{width}];")
    text(f"for (int j = 0; j < {width}; ++j) sum[j] = rset(0);")
    if packed:
        owner = step.nodes[int(step.owner[int(columns[0, 0])])]
        assert isinstance(owner, Input)
        table = columns.reshape(n_blocks, width, terms).transpose(0, 2, 1) - owner.first
        weights = _packed(step, owner.position, np.ascontiguousarray(table.reshape(-1)))
        text(f"const real* w = w{weights} + b * {terms * width};")
    text.open(f"for (long k = 0; k < {terms}; ++k)")
    where = np.array([step.storage.place(int(i)) for i in rows.reshape(-1)], dtype=np.int64)
    counters = ("r,k", rows.shape) if len(rows) > 1 else ("k", (terms,))
    text(f"const R h = at[{step.index(where, counters[1], counters[0])}];")
    if packed:
        text("LANES_UNROLL")
        text(f"for (int j = 0; j < {width}; ++j) sum[j] += h * rset(w[k * {width} + j]);")
    else:
        places = np.array([step.storage.place(int(i)) for i in columns.reshape(-1)], dtype=np.int64)
        blocks = places.reshape(n_blocks, width, terms)
        for j in range(width):
            index = step.index(np.ascontiguousarray(blocks[:, j]).reshape(-1), (n_blocks, terms), "b,k")
            text(f"sum[{j}] += h * at[{index}];")
    text.close()
    place = f"{start} + {row_step} * r" if len(rows) > 1 else start
    stride = "" if column_step == 1 else f"{column_step} * "
    text("LANES_UNROLL")
    text(f"for (int j = 0; j < {width}; ++j) at[{place} + {stride}({width} * b + j)] = sum[j];")
    text.close()
    if len(rows) > 1:
        text.close()


def _packed(step: Step, position: int, table: NDArray[np.int64]) -> int:
    """The number of a packed table; products inside a repetition and after it may share one."""
    for k, (other, known) in enumerate(step.weights):
        if other == position and np.array_equal(known, table):
            return k
    step.weights.append((position, table))
    return len(step.weights) - 1


def _is_one_constant(step: Step, ids: Ids) -> bool:
    owners = distinct(step.owner[ids.reshape(-1)])
    return len(owners) == 1 and is_constant(step.nodes[owners[0]])
