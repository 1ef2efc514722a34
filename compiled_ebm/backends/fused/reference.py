"""The tile program, interpreted with torch: what every emitter is tested against."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from compiled_ebm.backends.fused.program import (
    Carried,
    Carry,
    Close,
    Dot,
    Input,
    Kind,
    Literal,
    Node,
    Open,
    Pointwise,
    Reduce,
    Role,
    TileProgram,
)

__all__ = ["OPERATIONS", "interpret"]

_DTYPES = {Kind.MASK: torch.bool, Kind.INT: torch.int64}

OPERATIONS: dict[str, Callable[..., Tensor]] = {
    "add": torch.add,
    "sub": torch.sub,
    "mul": torch.mul,
    "div": torch.div,
    "neg": torch.neg,
    "abs": torch.abs,
    "max": torch.maximum,
    "min": torch.minimum,
    "fmax": torch.fmax,
    "fmin": torch.fmin,
    "pow": torch.pow,
    "atan2": torch.atan2,
    "fmod": torch.fmod,
    "remainder": torch.remainder,
    "hypot": torch.hypot,
    "copysign": torch.copysign,
    "softplus": lambda x: torch.nn.functional.softplus(x, threshold=1e6 if x.dtype == torch.float64 else 80.0),
    "log1p_unit": torch.log1p,
    "erfcx": torch.special.erfcx,
    "ndtri": torch.special.ndtri,
    "trigamma": lambda x: torch.polygamma(1, x),
    "isnan": torch.isnan,
    "isinf": torch.isinf,
    "isfinite": torch.isfinite,
    "rsel": torch.where,
    "isel": torch.where,
    "msel": torch.where,
    "iadd": torch.add,
    "isub": torch.sub,
    "imul": torch.mul,
    "ineg": torch.neg,
    "iabs": torch.abs,
    "imax": torch.maximum,
    "imin": torch.minimum,
    "iand": torch.bitwise_and,
    "ior": torch.bitwise_or,
    "ixor": torch.bitwise_xor,
    "inot": torch.bitwise_not,
    "idiv_floor": lambda a, b: torch.div(a, b, rounding_mode="floor"),
    "idiv_trunc": lambda a, b: torch.div(a, b, rounding_mode="trunc"),
    "imod_floor": torch.remainder,
    "mand": torch.logical_and,
    "mor": torch.logical_or,
    "mxor": torch.logical_xor,
    "mnot": torch.logical_not,
    **{f"r{name}": getattr(torch, name) for name in ("eq", "ne", "lt", "le", "gt", "ge")},
    **{f"i{name}": getattr(torch, name) for name in ("eq", "ne", "lt", "le", "gt", "ge")},
    **{
        name: getattr(torch, name)
        for name in (
            "exp exp2 expm1 log log2 log10 log1p sqrt rsqrt sin cos tan asin acos atan sinh cosh tanh asinh acosh "
            "atanh erf erfc erfinv sigmoid floor ceil trunc round sign lgamma digamma"
        ).split()
    },
}
"""What each pointwise operation of a tile program means."""

_CASTS = {"r": torch.float64, "m": torch.bool, "i": torch.int64}
_REDUCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "sum": lambda rows: rows.sum(1),
    "prod": lambda rows: rows.prod(1),
    "max": lambda rows: rows.amax(1),
    "min": lambda rows: rows.amin(1),
    "all": lambda rows: rows.all(1),
    "any": lambda rows: rows.any(1),
}


def interpret(program: TileProgram, inputs: Mapping[tuple[Role, int], Tensor]) -> list[Tensor]:
    """One step of several chains.

    Args:
        program: The tile program.
        inputs: By role and position: ``[elements]`` where all chains share them, else ``[elements, chains]``.

    Returns:
        The new state leaves and ``failed_at``, each ``[elements, chains]``.
    """
    real = torch.float64 if program.real_bits == 64 else torch.float32
    chains = max((t.shape[1] for t in inputs.values() if t.ndim == 2), default=1)
    values: dict[Kind, Tensor] = {}
    total = max(node.first + node.size for node in program.nodes)
    for kind in Kind:
        values[kind] = torch.zeros((total, chains), dtype=_DTYPES.get(kind, real))
    nodes, owner = program.nodes, program.owner()
    ends = {node.opened: index for index, node in enumerate(nodes) if isinstance(node, Close)}

    def read(ids: Tensor) -> Tensor:
        kind = nodes[int(owner[int(ids.reshape(-1)[0])])].kind
        return values[kind][ids]

    def write(node: Node, result: Tensor) -> None:
        table = values[node.kind]
        table[node.first : node.first + node.size] = result.to(table.dtype)

    def run(first: int, last: int) -> None:
        index = first
        while index < last:
            opened = nodes[index]
            if isinstance(opened, Open):
                end = ends[opened]
                repeat(opened.rounds, index + 1, end)
                index = end
            elif not isinstance(opened, Carry):
                write(opened, evaluate(opened))
            index += 1

    def repeat(rounds: int, first: int, end: int) -> None:
        carries = nodes[end].carries  # type: ignore[attr-defined]
        now = [read(torch.from_numpy(carry.start)) for carry in carries]
        for _ in range(rounds):
            for carry, value in zip(carries, now, strict=True):
                write(carry, value)
            run(first, end)
            now = [read(torch.from_numpy(carry.next)) for carry in carries]
        for carry, value in zip(carries, now, strict=True):
            write(carry, value)

    def evaluate(node: Node) -> Tensor:
        if isinstance(node, Input):
            given = inputs[node.role, node.position]
            return given if given.ndim == 2 else given.unsqueeze(1).expand(-1, chains)
        if isinstance(node, Literal):
            return torch.from_numpy(node.values).unsqueeze(1).expand(-1, chains)
        if isinstance(node, Pointwise):
            args = [read(torch.from_numpy(a)) for a in node.args]
            return args[0].to(_CASTS[node.op[-1]]) if "_to_" in node.op else OPERATIONS[node.op](*args)
        if isinstance(node, Reduce):
            return _REDUCTIONS[node.op](read(torch.from_numpy(node.arg)))
        if isinstance(node, Dot):
            left, right = read(torch.from_numpy(node.left)), read(torch.from_numpy(node.right))
            return torch.einsum("mkc,knc->mnc", left, right).reshape(node.size, chains)
        if isinstance(node, Carried):
            return read(torch.from_numpy(node.carry.ids))
        raise TypeError(f"unknown node {node}")

    run(0, len(nodes))
    return [read(torch.from_numpy(ids)) for ids in program.outputs]
