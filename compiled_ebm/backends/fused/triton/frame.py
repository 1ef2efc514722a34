"""The function around a step: load the chains of a program instance, loop over steps, keep draws, store the chains."""

from __future__ import annotations

from compiled_ebm.backends.fused.names import LETTER
from compiled_ebm.backends.fused.program import Input, Kind, Role
from compiled_ebm.backends.fused.triton.rows import load_block, load_elements, store_block, store_elements
from compiled_ebm.backends.fused.triton.values import Lines, Values

__all__ = ["assemble"]

_CONSTEXPRS = ("BLOCK: tl.constexpr", "REAL: tl.constexpr", "FAST: tl.constexpr", "KEEP: tl.constexpr")


def assemble(v: Values) -> tuple[str, tuple[tuple[str, str], ...]]:
    """The source, and the arguments with their Triton types."""
    real = f"fp{v.program.real_bits}"
    inputs = [node for node in v.nodes if isinstance(node, Input)]
    of = {role: sorted((n for n in inputs if n.role is role), key=lambda n: n.position) for role in Role}
    per_chain = [*of[Role.STATE], *of[Role.FAILED], *of[Role.CHAIN_KWARG]]
    arguments: list[tuple[str, str]] = []
    load, store = Lines(1), Lines(1)
    for node in per_chain:
        letter = f"{LETTER[node.role]}{node.position}"
        array = f"p_{letter}"
        arguments.append((array, f"*{real}" if node.kind is Kind.REAL else "*i64"))
        o = int(v.owner[node.first])
        if o in v.wide:
            places = v.places(node.size)
            where = f"{v.over_elements('chain')} * {node.size} + {v.over_chains(places)}"
            inside = v.inside(node.size)
            mask = "" if inside is None else f", mask={inside}"
            other = "" if inside is None else ", other=0"
            load_block(v, load, v.wide[o], f"{array} + {where}", mask + other, v.shape(node.size), node.kind)
            if node.role is not Role.CHAIN_KWARG:
                store_block(v, store, f"{array} + {where}", v.wide[o], mask)
            continue
        names = [v.names[node.first + e] for e in range(node.size)]
        load_elements(v, load, array, names, node.kind)
        if node.role is not Role.CHAIN_KWARG:
            store_elements(v, store, array, names, "chain", None)
    keep = Lines(4)
    for node, target in zip(of[Role.STATE][:2], ("keep_x", "keep_energy"), strict=False):
        o = int(v.owner[node.first])
        if o in v.wide:
            row = f"(slot * n_kept + {v.over_elements('chain')}) * {node.size} + {v.over_chains(v.places(node.size))}"
            inside = v.inside(node.size)
            mask = v.over_elements("(chain < n_kept)") + ("" if inside is None else f" & {inside}")
            store_block(v, keep, f"{target} + {row}", v.wide[o], f", mask={mask}")
            continue
        names = [v.names[node.first + e] for e in range(node.size)]
        store_elements(v, keep, target, names, "(slot * n_kept + chain)", "chain < n_kept")
    ids = Lines(1)
    load_block(v, ids, "id_", "ids + chain", "", "(BLOCK,)", Kind.INT)
    begin = Lines(2)
    for node in of[Role.STEP]:
        begin(f"{v.names[node.first]} = step")
    for node in of[Role.HYPER]:
        begin(f"{v.names[node.first]} = tl.load(hyper + s * n_hyper + {node.position})")
    arguments += [
        ("seed_at", "*i64"),
        ("ids", "*i64"),
        ("hyper", f"*{real}"),
        ("keep_x", f"*{real}"),
        ("keep_energy", f"*{real}"),
    ]
    arguments += [("reals", f"*{real}"), ("ints", "*i64"), ("indices", "*i32")]
    scalars = ["first_step", "n_steps", "n_hyper", "thin", "until", "n_kept", "once"]
    scalars += [f"rounds{k}" for k in range(len(v.rounds))]
    arguments += [(name, "i64") for name in scalars]
    lines = [
        "@jit",
        f"def chain_loop({', '.join([*(_declared(*a) for a in arguments), *_CONSTEXPRS])}):",
        "    chain = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)",
        "    seed = tl.load(seed_at)",
        *ids.lines,
        "    id_low = (id_ & 0xFFFFFFFF).to(tl.uint32)",
        "    id_high = ((id_ >> 32) & 0xFFFFFFFF).to(tl.uint32)",
        *v.head.lines,
        *load.lines,
        "    slot = tl.full((), 0, tl.int64)",
        "    s = tl.full((), 0, tl.int64)",
        "    while s < n_steps:",
        "        step = first_step + s",
        *begin.lines,
        *v.out.lines,
        "        s += 1",
        "        if KEEP:",
        "            until -= 1",
        "            if until == 0:",
        *keep.lines,
        "                until = thin",
        "                slot += 1",
        *store.lines,
    ]
    return "\n".join(lines) + "\n", tuple(arguments)


def _declared(name: str, type_: str) -> str:
    """An argument; numbers with their type, or Triton would take small ones for int32 and compile anew."""
    return name if type_.startswith("*") else f"{name}: tl.int64"
