"""This step's normals and uniforms."""

from __future__ import annotations

from compiled_ebm.backends.fused.cpp.step import Step
from compiled_ebm.backends.fused.names import LETTER
from compiled_ebm.backends.fused.program import Input, Role

__all__ = ["draw_into_variables", "emit_draw"]


def draw_into_variables(step: Step) -> None:
    """Those of which there are few."""
    for i, node in enumerate(step.nodes):
        if not isinstance(node, Input) or step.plan.wide[i] or node.role not in (Role.NORMALS, Role.UNIFORMS):
            continue
        draw = "normals" if node.role is Role.NORMALS else "uniforms"
        step.out.note(f"this step's {draw}")
        for block in range(0, node.size, 4):
            count = 2 if node.size <= 2 and draw == "normals" else 4
            step.out(f"R {LETTER[node.role]}b{block}[{count}];")
            step.out(f"{draw}{count}(keys, words, {block // 4}u | {draw}_stream, step, {LETTER[node.role]}b{block});")
            for e in range(block, min(block + 4, node.size)):
                step.out(f"const R {step.names[node.first + e]} = {LETTER[node.role]}b{block}[{e - block}];")


def emit_draw(step: Step, node: Input) -> None:
    """Blocks of four into memory; the last may be shorter."""
    draw = "normals" if node.role is Role.NORMALS else "uniforms"
    start = step.storage.slots[step.index_of(node)]
    step.out.note(f"this step's {draw}")
    width = 8 if draw == "normals" and node.size % 8 == 0 else 4
    blocks, rest = divmod(node.size, width)
    if blocks:
        step.out.open(f"for (long b = 0; b < {blocks}; ++b)")
        step.out(f"R z[{width}];")
        block = f"{width // 4} * (uint32_t)b" if width > 4 else "(uint32_t)b"
        step.out(f"{draw}{width}(keys, words, {block} | {draw}_stream, step, z);")
        step.out(f"for (long j = 0; j < {width}; ++j) at[{start} + {width} * b + j] = z[j];")
        step.out.close()
    if rest:
        step.out.open("")
        step.out("R z[4];")
        step.out(f"{draw}4(keys, words, {blocks * width // 4}u | {draw}_stream, step, z);")
        step.out(f"for (long j = 0; j < {rest}; ++j) at[{start + blocks * width} + j] = z[j];")
        step.out.close()
