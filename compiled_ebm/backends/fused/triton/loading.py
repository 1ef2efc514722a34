"""From generated Python text to a Triton function."""

from __future__ import annotations

import functools
import hashlib
import linecache
from collections.abc import Sequence
from typing import Any

import triton
import triton.language as tl

from compiled_ebm.backends import triton_noise
from compiled_ebm.backends.fused.triton import functions

__all__ = ["is_interpreted", "load"]


def is_interpreted() -> bool:
    """Whether Triton was imported to interpret kernels on the CPU."""
    return bool(triton.knobs.runtime.interpret)


def load(source: str, unspecialised: Sequence[str]) -> Any:
    """The function ``chain_loop`` of the text, one kernel for any ``unspecialised`` values; tracebacks show lines."""
    called: dict[str, Any] = {
        **{k: v for k, v in vars(functions).items() if not k.startswith("__")},
        **{name: getattr(triton_noise, name) for name in ("normals4", "uniforms4")},
    }
    if is_interpreted():
        from compiled_ebm.backends.fused.triton.interpreted import stand_ins

        called |= stand_ins()
    name = f"<chain kernel {hashlib.sha256(source.encode()).hexdigest()[:16]}>"
    linecache.cache[name] = (len(source), None, source.splitlines(keepends=True), name)
    namespace = {
        **called,
        "tl": tl,
        "jit": functools.partial(triton.jit, do_not_specialize=list(unspecialised)),
        "__name__": name,
    }
    exec(compile(source, name, "exec"), namespace)
    return namespace["chain_loop"]
