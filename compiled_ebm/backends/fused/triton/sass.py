"""Machine code of NVIDIA GPUs, as ``cuobjdump`` lists it: instructions with their stalls and barriers, and loops.

Since Volta an instruction carries the cycles that the warp waits after it, and the numbers of the barriers that it sets
and waits for (Jia et al., "Dissecting the NVIDIA Volta GPU architecture via microbenchmarking", 2018, section 2.1).
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Container, Sequence
from dataclasses import dataclass

__all__ = ["Instruction", "StepLoop", "parse", "step_loop"]

_LINE = re.compile(r"/\*([0-9a-f]{4,6})\*/\s+(.*?)\s*;\s*/\*\s*0x([0-9a-f]{16})\s*\*/")
_CONTROL = re.compile(r"^\s*/\*\s*0x([0-9a-f]{16})\s*\*/")
_GUARD = re.compile(r"^@!?U?P\w+\s+")
_TARGET = re.compile(r"\b0x([0-9a-f]+)\s*$")
_NUMBER = re.compile(r"0x[0-9a-f]+")
_ADDS = ("IADD3", "UIADD3", "VIADD", "IADD")
_COMPARES = ("ISETP", "UISETP")
_NO_BARRIER = 7
_LATENCY = {
    "MUFU": 18,
    "SHFL": 24,
    "LDS": 24,
    "LDSM": 30,
    "LDG": 35,
    "LDL": 35,
    "LDC": 25,
    "ULDC": 12,
    "I2FP": 6,
    "I2F": 14,
    "F2I": 14,
    "FRND": 14,
    "HMMA": 32,
    "HGMMA": 64,
    "DMMA": 40,
    "S2R": 20,
}
"""Cycles until a result is there, for instructions that say so by a barrier; loads from the first-level cache."""
_OTHER_LATENCY = 16
_PIPES = {
    **dict.fromkeys(("MUFU", "I2F", "F2I", "FRND", "F2F"), 8.0),
    **dict.fromkeys(("SHFL", "LDS", "STS", "LDSM", "STSM", "LDG", "STG", "LDL", "STL"), 4.0),
    **dict.fromkeys(("LOP3", "IADD3", "SHF", "ISETP", "FSETP", "SEL", "FSEL", "FMNMX", "PRMT", "LEA", "PLOP3"), 2.0),
    **dict.fromkeys(("DADD", "DMUL", "DFMA", "DSETP"), 2.0),
    **dict.fromkeys(("HMMA", "DMMA"), 16.0),
    "HGMMA": 64.0,
}
"""Cycles for which an instruction of a warp holds the pipe of its scheduler that takes its kind."""
_PIPE_OF = {
    **dict.fromkeys(("MUFU", "I2F", "F2I", "FRND", "F2F"), "special"),
    **dict.fromkeys(("SHFL", "LDS", "STS", "LDSM", "STSM", "LDG", "STG", "LDL", "STL"), "memory"),
    **dict.fromkeys(("DADD", "DMUL", "DFMA", "DSETP"), "double"),
    **dict.fromkeys(("HMMA", "DMMA", "HGMMA"), "tensor"),
}


@dataclass(frozen=True)
class Instruction:
    """One instruction.

    Args:
        address: In bytes.
        opcode: Without modifiers, such as FFMA.
        jump: The address that it may jump to.
        stall: Cycles until the warp's next instruction.
        sets: The barrier that it clears when its result is there.
        awaits: The barriers that it waits for, a bit each.
        operands: As listed.
    """

    address: int
    opcode: str
    jump: int | None
    stall: int
    sets: int | None
    awaits: int
    operands: tuple[str, ...] = ()


def parse(listing: str) -> list[Instruction]:
    """The instructions of a listing."""
    found: list[Instruction] = []
    lines = listing.splitlines()
    for line, after in zip(lines, [*lines[1:], ""], strict=True):
        head, control = _LINE.search(line), _CONTROL.search(after)
        if head is None or control is None:
            continue
        text = _GUARD.sub("", head.group(2))
        word = int(control.group(1), 16)
        opcode = text.split()[0].split(".")[0] if text else "NOP"
        jump = _TARGET.search(text) if opcode == "BRA" else None
        barrier = word >> 46 & 7
        found.append(
            Instruction(
                int(head.group(1), 16),
                opcode,
                int(jump.group(1), 16) if jump else None,
                max(1, word >> 41 & 15),
                None if barrier == _NO_BARRIER else barrier,
                word >> 52 & 63,
                tuple(text.partition(" ")[2].replace(" ", "").split(",")),
            )
        )
    return found


@dataclass(frozen=True)
class StepLoop:
    """The loop over steps, with the loops inside it.

    Args:
        code: All its instructions.
        inner: Of each loop inside, its instructions and how often it is done.
    """

    code: tuple[Instruction, ...]
    inner: tuple[tuple[tuple[Instruction, ...], int], ...]

    def count(self, opcodes: Container[str] | None = None) -> int:
        """Instructions of a round, those of loops inside as often as they are done."""

        def of(code: Sequence[Instruction]) -> int:
            return sum(opcodes is None or i.opcode in opcodes for i in code)

        return of(self.code) + sum((times - 1) * of(code) for code, times in self.inner)

    def issue_cycles(self) -> float:
        """Cycles of a scheduler for one warp's round, once other warps hide all latency."""
        pipes: defaultdict[str, float] = defaultdict(float)
        for code, times in ((self.code, 1), *((code, times - 1) for code, times in self.inner)):
            for i in code:
                pipe = _PIPE_OF.get(i.opcode, "integer" if i.opcode in _PIPES else "other")
                pipes[pipe] += times * _PIPES.get(i.opcode, 1.0)
        return float(max(self.count(), *pipes.values())) if pipes else 0.0

    def latency_cycles(self) -> float:
        """Cycles of one warp that is alone: in order, with the stalls and the barriers as the code has them."""
        return _walk(self.code) + sum((times - 1) * _walk(code) for code, times in self.inner)


def step_loop(code: Sequence[Instruction]) -> StepLoop:
    """The longest loop that stands in the longest of all, which goes from check to check."""
    loops = sorted({(i.jump, i.address) for i in code if i.jump is not None and i.jump < i.address})
    if not loops:
        return StepLoop((), ())
    first, last = max(loops, key=lambda loop: loop[1] - loop[0])
    within = [loop for loop in loops if first <= loop[0] and loop[1] < last]
    first, last = max(within, key=lambda loop: loop[1] - loop[0], default=(first, last))
    inner = []
    for begin, end in loops:
        if first <= begin and end < last:
            body = tuple(i for i in code if begin <= i.address <= end)
            inner.append((body, _rounds(body)))
    return StepLoop(tuple(i for i in code if first <= i.address <= last), tuple(inner))


def _rounds(body: Sequence[Instruction]) -> int:
    """How often a loop is done: what its counter is compared with, over what it grows by; once if neither is there."""
    grows = {}
    for i in body:
        if i.opcode in _ADDS and (numbers := [n for n in i.operands[1:] if _NUMBER.fullmatch(n)]):
            if i.operands[0] in i.operands[1:]:
                grows[i.operands[0]] = int(numbers[0], 16)
    for i in body:
        if i.opcode in _COMPARES:
            limits = [int(n, 16) for n in i.operands if _NUMBER.fullmatch(n)]
            steps = [grows[name] for name in i.operands if grows.get(name)]
            if limits and steps and limits[0] >= steps[0] > 0:
                return -(-limits[0] // steps[0])
    return 1


def _walk(code: Sequence[Instruction]) -> float:
    """Cycles of a warp's second round, whose first instructions wait for the end of the first."""
    now, begin, ready = 0.0, 0.0, [0.0] * 6
    for _ in range(2):
        begin = now
        for i in code:
            for barrier in range(6):
                if i.awaits >> barrier & 1:
                    now = max(now, ready[barrier])
            if i.sets is not None and i.sets < 6:
                ready[i.sets] = max(ready[i.sets], now + _LATENCY.get(i.opcode, _OTHER_LATENCY))
            now += i.stall
    return now - begin
