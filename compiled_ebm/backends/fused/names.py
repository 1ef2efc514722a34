"""The generated source for readers: values under the names that they have in the user's module.

What is compiled keeps short names of its own, so that equal kernels are equal text and are compiled once, whatever the
modules call their tensors. Only what is shown is renamed.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from typing import Any

from torch import fx

from compiled_ebm.backends.fused.program import Input, Role, TileProgram
from compiled_ebm.trace import ChainProgram

__all__ = ["LETTER", "input_names", "readable"]

LETTER = {
    Role.STATE: "s",
    Role.FAILED: "f",
    Role.CHAIN_KWARG: "k",
    Role.NORMALS: "z",
    Role.UNIFORMS: "u",
    Role.STEP: "t",
    Role.HYPER: "h",
    Role.CONSTANT: "c",
    Role.SPREAD: "d",
}
"""What the emitter's names of inputs begin with: ``s0_3`` is element 3 of the first state leaf, ``c2`` an array of
constants, ``w1`` a table of weights packed for a product."""

_LONGEST = 60
_TRANSPOSES = ("t", "permute", "transpose")
_LANES = re.compile(r"\b(p_|x_|n_)?([sfkzuthd]\d+)(_\d+)?\b")
_COMMENT = re.compile(r"//.*")
_HEX = re.compile(r"-?0x[0-9a-f.]+p[+-]\d+")
_DEFINED = re.compile(r"(\w+)\s*\(|(?:define|struct|namespace|using)\s+(\w+)")
_MEMBER = r"((_\d+)?(_next)?|_array|_tile)"
_ARRAYS = re.compile(r"\b[cw]\d+\b")
_KEYWORDS = frozenset(
    "alignas alignof and and_eq asm auto bitand bitor bool break case catch char class compl const constexpr continue "
    "decltype default delete do double else enum explicit export extern false final float for friend goto if inline "
    "int long mutable namespace new noexcept not not_eq nullptr operator or or_eq override private protected public "
    "register return short signed sizeof static struct switch template this throw true try typedef typeid typename "
    "union unsigned using virtual void volatile wchar_t while xor xor_eq".split()
)


def input_names(program: ChainProgram) -> dict[tuple[Role, int], str]:
    """A name for every input of the step: the transition's and the energy's own where they have one."""
    names = {(Role.FAILED, 0): "failed_at", (Role.STEP, 0): "step_index", (Role.SPREAD, 0): "spread"}
    names |= {(Role.NORMALS, 0): "normals", (Role.UNIFORMS, 0): "uniforms"}
    for role, given in (
        (Role.STATE, program.state_type._fields),  # type: ignore[attr-defined]
        (Role.HYPER, program.transition.hyper_type._fields),  # type: ignore[attr-defined]
        (Role.CHAIN_KWARG, program.kwargs.per_chain),
        (Role.CONSTANT, _constant_names(program)),
    ):
        names |= {(role, position): name for position, name in enumerate(given)}
    return names


def _constant_names(program: ChainProgram) -> list[str]:
    """Of what the prelude hands to the body: the tensor that it is, or is made of."""
    held = iter([*program.captured_names, *program.kwargs.shared])
    sources: dict[fx.Node, tuple[str, ...]] = {}
    for node in program.step.prelude.graph.nodes:
        if node.op == "placeholder":
            sources[node] = (next(held),)
        elif node.op == "output":
            outputs: Sequence[Any] = node.args[0]
        else:
            sources[node] = tuple(dict.fromkeys(name for used in node.all_input_nodes for name in sources[used]))
    return [_made_of(node, sources[node]) for node in outputs]


def _made_of(node: fx.Node, sources: tuple[str, ...]) -> str:
    flips = 0
    while _operation(node) in _TRANSPOSES:
        node, flips = node.all_input_nodes[0], flips + 1
    suffixes = [] if node.op == "placeholder" else [_operation(node)]
    return "_".join([*sources[:2], *suffixes, *(["t"] if flips % 2 else [])])


def _operation(node: fx.Node) -> str:
    return getattr(node.target, "__name__", str(node.target)).partition(".")[0].strip("_")


def readable(source: str, program: TileProgram, packed: Sequence[int], header: str) -> str:
    """The source with its inputs under their names.

    Args:
        source: As the emitter made it.
        program: Whose inputs it has.
        packed: For every packed table the position of its constant.
        header: What the source is compiled behind: no function or type of it is to be hidden by a name.
    """
    lanes = {f"{LETTER[n.role]}{n.position}": n for n in program.inputs() if n.role is not Role.CONSTANT}
    constants = {n.position: n.name for n in program.inputs() if n.role is Role.CONSTANT}
    defined = {word for pair in _DEFINED.findall(_COMMENT.sub("", header)) for word in pair}
    words = _Words({*_KEYWORDS, *defined, *re.findall(r"\w+", _COMMENT.sub("", source))})
    families = {key: words.take(node.name, family=True) for key, node in lanes.items()}
    arrays = {f"c{position}": words.take(name) for position, name in sorted(constants.items())}
    arrays |= {f"w{k}": words.take(f"{constants[position]}_packed") for k, position in enumerate(packed)}
    return "\n".join(_renamed(line, lanes, families, arrays) for line in source.split("\n"))


def _renamed(line: str, lanes: Mapping[str, Input], families: Mapping[str, str], arrays: Mapping[str, str]) -> str:
    if line.lstrip().startswith("//"):
        return line.rstrip("\\ ")  # or the line after it would belong to the comment

    def lane(match: re.Match[str]) -> str:
        prefix, key, element = match.groups()
        if key not in families or (prefix is None and element is None):
            return match[0]
        if prefix in ("p_", "x_"):
            return families[key] + ("_array" if prefix == "p_" else "_tile")
        name = families[key] if lanes[key].size == 1 else families[key] + element
        return f"{name}_next" if prefix == "n_" else name

    line = _ARRAYS.sub(lambda match: arrays.get(match[0], match[0]), _LANES.sub(lane, line))
    return _HEX.sub(lambda match: repr(float.fromhex(match[0])), line)


class _Words:
    """Hands out names that mean nothing else in the source."""

    def __init__(self, taken: set[str]) -> None:
        self._taken = taken
        self._families: list[str] = []

    def take(self, wanted: str, family: bool = False) -> str:
        """The name, or one like it; that of a ``family`` also stands before the ends of ``_MEMBER``."""
        name = re.sub(r"_+", "_", re.sub(r"[^A-Za-z0-9]", "_", wanted)).strip("_")[-_LONGEST:].lstrip("_0123456789")
        name = name or "unnamed"
        candidates = itertools.chain([name], (f"{name}_v{k}" for k in itertools.count(2)))
        free = next(c for c in candidates if self._is_free(c, family))
        self._taken.add(free)
        if family:
            self._families.append(free)
        return free

    def _is_free(self, name: str, family: bool) -> bool:
        if name in self._taken or re.fullmatch(rf"({'|'.join(self._families) or '(?!)'}){_MEMBER}", name):
            return False
        return not family or not any(re.fullmatch(name + _MEMBER, word) for word in self._taken)
