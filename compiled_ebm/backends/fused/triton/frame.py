"""The function around a step: load the chains of a program instance, loop over steps, check, keep draws, store."""

from __future__ import annotations

from compiled_ebm.backends.fused.frame import SEGMENT
from compiled_ebm.backends.fused.names import LETTER
from compiled_ebm.backends.fused.program import Input, Kind, Role
from compiled_ebm.backends.fused.triton.rows import load_block, load_elements, store_block, store_elements
from compiled_ebm.backends.fused.triton.values import Lines, Values

__all__ = ["assemble"]

_CONSTEXPRS = ("BLOCK: tl.constexpr", "REAL: tl.constexpr", "FAST: tl.constexpr", "KEEP: tl.constexpr")
_POOLS = ("reals", "ints", "indices")


def assemble(v: Values, energy: Values | None = None, result: str = "") -> tuple[str, tuple[tuple[str, str], ...]]:
    """The source, and the arguments with their Triton types.

    Args:
        v: One step, written.
        energy: What gives the energy where the step does not, written.
        result: The energy, as an expression of it.
    """
    of = _by_role(v)
    real = f"fp{v.program.real_bits}"
    kwargs = {node.position: node for w in (v, energy) if w is not None for node in _by_role(w)[Role.CHAIN_KWARG]}
    per_chain = [*of[Role.STATE], *of[Role.FAILED], *(node for _, node in sorted(kwargs.items()))]
    arguments = [(_array(node), f"*{real}" if node.kind is Kind.REAL else "*i64") for node in per_chain]
    arguments += [
        ("seed_at", "*i64"),
        ("ids", "*i64"),
        ("hyper", f"*{real}"),
        ("keep_x", f"*{real}"),
        ("keep_energy", f"*{real}"),
    ]
    pools = [("reals", f"*{real}"), ("ints", "*i64"), ("indices", "*i32")]
    arguments += [*pools, ("limit_at", f"*{real}")]
    if energy is not None:
        arguments += [(f"energy_{name}", type_) for name, type_ in pools]
    scalars = ["first_step", "n_steps", "n_hyper", "thin", "until", "n_kept", "once"]
    scalars += [f"rounds{k}" for k in range(len(v.rounds))]
    if energy is not None:
        scalars += [f"energy_rounds{k}" for k in range(len(energy.rounds))]
    arguments += [(name, "i64") for name in scalars]
    ids = Lines(1)
    load_block(v, ids, "id_", "ids + chain", "", "(BLOCK,)", Kind.INT)
    body = _checked(v, of, energy) if of[Role.SPREAD] else _plain(v, of)  # first: it adds to what is done once
    lines = [
        *([] if energy is None else _energy_function(energy, result)),
        "@jit",
        f"def chain_loop({', '.join([*(_declared(*a) for a in arguments), *_CONSTEXPRS])}):",
        "    chain = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)",
        "    seed = tl.load(seed_at)",
        *ids.lines,
        "    id_low = (id_ & 0xFFFFFFFF).to(tl.uint32)",
        "    id_high = ((id_ >> 32) & 0xFFFFFFFF).to(tl.uint32)",
        *v.head.lines,
        *body,
    ]
    return "\n".join(lines) + "\n", tuple(arguments)


def _plain(v: Values, of: dict[Role, list[Input]]) -> list[str]:
    """Every step in the same way, and the state stored after the last."""
    leaves = [*of[Role.STATE], *of[Role.FAILED]]
    load, store, keep = Lines(1), Lines(1), Lines(4)
    for node in (*leaves, *of[Role.CHAIN_KWARG]):
        _load(v, load, node)
    for node in leaves:
        _store(v, store, node)
    _keep(v, keep, of)
    return [
        *load.lines,
        "    slot = tl.full((), 0, tl.int64)",
        "    s = tl.full((), 0, tl.int64)",
        "    while s < n_steps:",
        *_step(v, of, 0),
        "        if KEEP:",
        "            until -= 1",
        "            if until == 0:",
        *keep.lines,
        "                until = thin",
        "                slot += 1",
        *store.lines,
    ]


def _checked(v: Values, of: dict[Role, list[Input]], energy: Values | None) -> list[str]:
    """Segments of steps, with the quarantine at the end of each; the state of the last check is the stored one."""
    leaves = of[Role.STATE]
    (failed,), (spread,) = of[Role.FAILED], of[Role.SPREAD]
    x, last_energy = leaves[:2]
    load, check, keep = Lines(1), Lines(2), Lines(4)
    for node in (*leaves, *of[Role.CHAIN_KWARG]):
        if energy is None or node is not last_energy:
            _load(v, load, node)
    new_energy = v.names[last_energy.first]
    far = v.names[spread.first]
    if energy is not None:
        check(f"{new_energy} = {_energy_call(v, energy, x)}")
    _load(v, check, failed)
    dead_since = v.names[failed.first]
    check(f"alive = {dead_since} == -1")
    check(f"fine = ({_nothing(v, x)} == 0.0) & (tl.abs({new_energy}) < float('inf'))")
    check(f"wrong = alive & ((fine & ({far} <= tl.load(limit_at))) == 0)")
    check("again = (s - begin > 1) & (tl.max(wrong.to(tl.int32), 0) > 0)")
    check("moves = alive & fine & (again == 0)")
    for node in leaves:
        names = _names(v, node)
        _load(v, check, node, "last_")
        for name in names:
            here = v.over_elements("moves") if len(names) == 1 and _is_wide(v, node) else "moves"
            check(f"{name} = tl.where({here}, {name}, last_{name})")
        _store(v, check, node)
    check(f"{dead_since} = tl.where(alive & (fine == 0) & (again == 0), first_step + s - 1, {dead_since})")
    _store(v, check, failed)
    _keep(v, keep, of)
    return [
        *load.lines,
        "    slot = tl.full((), 0, tl.int64)",
        "    s = tl.full((), 0, tl.int64)",
        "    careful = tl.full((), 0, tl.int64)",
        "    patience = tl.full((), 0, tl.int64)",
        "    while s < n_steps:",
        "        begin = s",
        f"        end = tl.minimum(s + tl.where(careful > 0, 1, {SEGMENT}), n_steps)",
        "        if KEEP:",
        "            end = tl.minimum(end, s + until)",
        f"        {far} = tl.full((BLOCK,), 0.0, REAL)",
        "        while s < end:",
        *_step(v, of, 1),
        "        # is everything finite, and was it all the way? else again, step by step",
        *check.lines,
        f"        longer = tl.minimum(tl.maximum(2 * patience, {SEGMENT}), {64 * SEGMENT})",
        "        patience = tl.where(again, longer, tl.where(careful > 0, patience, patience // 2))",
        "        careful = tl.where(again, patience, tl.maximum(careful - 1, 0))",
        "        s = tl.where(again, begin, s)",
        "        if KEEP:",
        "            until -= s - begin",
        "            if until == 0:",
        *keep.lines,
        "                until = thin",
        "                slot += 1",
    ]


def _step(v: Values, of: dict[Role, list[Input]], deeper: int) -> list[str]:
    begin = Lines(2)
    begin("step = first_step + s")
    for node in of[Role.STEP]:
        begin(f"{v.names[node.first]} = step")
    for node in of[Role.HYPER]:
        begin(f"{v.names[node.first]} = tl.load(hyper + s * n_hyper + {node.position})")
    return ["    " * deeper + line for line in (*begin.lines, *v.out.lines, "        s += 1")]


# -- the energy ------------------------------------------------------------------------------------------------------


def _energy_function(v: Values, result: str) -> list[str]:
    of = _by_role(v)
    (x,) = of[Role.STATE]
    load = Lines(1)
    for name in _names(v, x):  # or the compiler would share what the step computes of x, and round it otherwise
        load(f"{name} = tl.where(once > 0, {name}, 0.0)")
    for node in of[Role.CHAIN_KWARG]:
        _load(v, load, node)
    arguments = [*_names(v, x), *(_array(node) for node in of[Role.CHAIN_KWARG]), *_POOLS, "once"]
    arguments += [f"rounds{k}" for k in range(len(v.rounds))]
    return [
        "@jit",
        f"def energy_of(chain, {', '.join([*arguments, *_CONSTEXPRS[:3]])}):",
        *v.head.lines,
        *load.lines,
        *(line[4:] for line in v.out.lines),
        f"    return {result}",
        "",
        "",
    ]


def _energy_call(v: Values, energy: Values, x: Input) -> str:
    arguments = [*_names(v, x), *(_array(node) for node in _by_role(energy)[Role.CHAIN_KWARG])]
    arguments += [*(f"energy_{name}" for name in _POOLS), "once"]
    arguments += [f"energy_rounds{k}" for k in range(len(energy.rounds))]
    return f"energy_of(chain, {', '.join([*arguments, 'BLOCK', 'REAL', 'FAST'])})"


# -- rows of chains --------------------------------------------------------------------------------------------------


def _by_role(v: Values) -> dict[Role, list[Input]]:
    inputs = [node for node in v.nodes if isinstance(node, Input)]
    return {role: sorted((n for n in inputs if n.role is role), key=lambda n: n.position) for role in Role}


def _array(node: Input) -> str:
    return f"p_{LETTER[node.role]}{node.position}"


def _is_wide(v: Values, node: Input) -> bool:
    return int(v.owner[node.first]) in v.wide


def _names(v: Values, node: Input) -> list[str]:
    """The variables that hold the input."""
    if _is_wide(v, node):
        return [v.wide[int(v.owner[node.first])]]
    return [v.names[node.first + e] for e in range(node.size)]


def _nothing(v: Values, node: Input) -> str:
    """The sum of the elements times zero: NaN where one is not finite."""
    names = _names(v, node)
    if _is_wide(v, node):
        return f"tl.sum({v.filled(f'{names[0]} * 0.0', node.size, '0.0')}, {v.axis})"
    return " + ".join(f"{name} * 0.0" for name in names)


def _where(v: Values, node: Input, row: str) -> tuple[str, str, str]:
    """The address of a block's elements, with the mask for loads and what goes with it, and the mask for stores."""
    inside = v.inside(node.size)
    address = f"{row} * {node.size} + {v.over_chains(v.places(node.size))}"
    mask = "" if inside is None else f", mask={inside}"
    return address, "" if inside is None else mask + ", other=0", mask


def _load(v: Values, out: Lines, node: Input, prefix: str = "") -> None:
    names = [prefix + name for name in _names(v, node)]
    if not _is_wide(v, node):
        load_elements(v, out, _array(node), names, node.kind)
        return
    address, mask, _ = _where(v, node, v.over_elements("chain"))
    load_block(v, out, names[0], f"{_array(node)} + {address}", mask, v.shape(node.size), node.kind)


def _store(v: Values, out: Lines, node: Input) -> None:
    if not _is_wide(v, node):
        store_elements(v, out, _array(node), _names(v, node), "chain", None)
        return
    address, _, mask = _where(v, node, v.over_elements("chain"))
    store_block(v, out, f"{_array(node)} + {address}", _names(v, node)[0], mask)


def _keep(v: Values, out: Lines, of: dict[Role, list[Input]]) -> None:
    for node, target in zip(of[Role.STATE][:2], ("keep_x", "keep_energy"), strict=False):
        if not _is_wide(v, node):
            store_elements(v, out, target, _names(v, node), "(slot * n_kept + chain)", "chain < n_kept")
            continue
        address, _, _ = _where(v, node, f"(slot * n_kept + {v.over_elements('chain')})")
        inside = v.inside(node.size)
        mask = v.over_elements("(chain < n_kept)") + ("" if inside is None else f" & {inside}")
        store_block(v, out, f"{target} + {address}", _names(v, node)[0], f", mask={mask}")


def _declared(name: str, type_: str) -> str:
    """An argument; numbers with their type, or Triton would take small ones for int32 and compile anew."""
    return name if type_.startswith("*") else f"{name}: tl.int64"
