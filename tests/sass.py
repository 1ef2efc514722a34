"""What ptxas makes of a Triton kernel, without a GPU: registers, spills, instructions."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any, NamedTuple

__all__ = ["Sass", "compiled_for_sm90"]


class Sass(NamedTuple):
    """Of one kernel."""

    registers: int
    local_bytes: int
    """Stack and spills, a thread."""
    instructions: list[str]
    """Opcodes in order, without the padding after the last branch."""

    def count(self, *opcodes: str) -> int:
        """Instructions whose opcode is one of these, whatever its suffixes."""
        return sum(instruction.split(".")[0] in opcodes for instruction in self.instructions)


def compiled_for_sm90(kernel: Any, arguments: dict[str, Any], folder: Path, num_warps: int) -> Sass:
    """Compile for a Hopper card; ``arguments`` are types such as "*fp32" or "i32", and values of constexprs.

    Pointers are taken to be aligned to 16 bytes, as torch's are.
    """
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    names = list(kernel.arg_names)
    types = {n: v for n, v in arguments.items() if isinstance(v, str)}
    constexprs = {(names.index(n),): v for n, v in arguments.items() if n not in types}
    aligned = {(names.index(n),): [["tt.divisibility", 16]] for n, v in types.items() if v.startswith("*")}
    signature = {n: types.get(n, "constexpr") for n in names}
    source = ASTSource(fn=kernel, signature=signature, constexprs=constexprs, attrs=aligned)
    built = triton.compile(source, target=GPUTarget("cuda", 90, 32), options={"num_warps": num_warps})
    cubin = folder / "kernel.cubin"
    cubin.write_bytes(built.asm["cubin"])
    tool = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
    usage, listing = (
        subprocess.run([tool, option, cubin], capture_output=True, text=True, check=True).stdout
        for option in ("-res-usage", "--dump-sass")
    )
    found = re.search(r"REG:(\d+) STACK:(\d+) SHARED:\d+ LOCAL:(\d+)", usage)
    assert found is not None, usage
    registers, stack, local = map(int, found.groups())
    opcodes = re.findall(r"/\*[0-9a-f]{4,}\*/ +(?:@!?U?P\w+ +)?([A-Z][\w.]*)", listing)
    while opcodes and opcodes[-1] in ("NOP", "BRA"):
        opcodes.pop()
    return Sass(registers, stack + local, opcodes)
