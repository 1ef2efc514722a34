"""Two faults of Inductor's C++ backend (torch 2.13) in what is scattered, mended while it compiles for us.

A scatter adds into a filled buffer in place, and its result goes by another name. Where loops of different shapes are
fused (``[n, 2, 4]`` and ``[8 n]``), what they depend on is looked up anew, by the old name, so that the fill and the
reader may be fused and the scatter come last: a term of a gradient was missing, in silence. Such loops stay apart here.

Where a tile of two dimensions is vectorised and threads add into one buffer, the place of the addition is moved on by
the row of the tile twice: sums went to other chains, or beyond the buffer.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import fx

__all__ = ["correct_scatters"]

_PATCHING = threading.RLock()


@contextmanager
def correct_scatters() -> Iterator[None]:
    """Within, Inductor orders scatters before their readers and adds where it should.

    What it keeps on disk is found again by a mark, so that code from elsewhere, unmended, is not taken.
    """
    from torch._inductor import config
    from torch._inductor.codegen import cpp

    mended = (
        (cpp.CppScheduling, "_can_fuse_nodes_with_compatible_ranges", _fusible_in_order),
        (cpp.CppTile2DKernel, "store", _store_in_place),
    )
    with _PATCHING, ExitStack() as stack:
        for kind, name, mend in mended:
            method = getattr(kind, name, None)
            if method is not None:  # another version of torch may do it otherwise; what is compiled is checked, too
                stack.callback(setattr, kind, name, method)
                setattr(kind, name, mend(method))
        if config.post_grad_custom_post_pass is None:
            stack.enter_context(config.patch(post_grad_custom_post_pass=_mark()))
        yield


@functools.cache
def _mark() -> Any:
    """A pass over graphs that does nothing, whose name is part of the keys of Inductor's cache."""
    from torch._inductor.custom_graph_pass import CustomGraphPass

    class Mark(CustomGraphPass):
        def __call__(self, graph: fx.Graph) -> None:
            pass

        def uuid(self) -> str:
            return f"{__name__} 1"

    return Mark()


def _fusible_in_order(fusible: Callable[..., bool]) -> Callable[..., bool]:
    def mended(self: Any, first: Any, second: Any) -> bool:
        return not _touch_scattered(self.scheduler, first, second) and fusible(self, first, second)

    return mended


def _store_in_place(store: Callable[..., Any]) -> Callable[..., Any]:
    from torch._inductor import config
    from torch._inductor.codegen.cpp import CppVecKernel

    vector: Any = CppVecKernel

    def mended(self: Any, name: str, index: Any, value: Any, mode: str | None = None) -> Any:
        by_index = config.cpp.dynamic_threads or self.num_threads != 1  # else by an expression, which is right
        if mode == "atomic_add" and by_index and not self.need_vec_transpose(self.rename_indexing(index)):
            return vector.store(self, name, index, value, mode)
        return store(self, name, index, value, mode)

    return mended


def _touch_scattered(scheduler: Any, *fused: Any) -> bool:
    """Whether something is scattered into a buffer that one of them reads or writes."""
    from torch._inductor.ir import Scatter

    real = scheduler.mutation_real_name
    scattered = {
        real.get(name, name)
        for node in scheduler.name_to_node.values()
        if isinstance(getattr(node.node, "data", None), Scatter)
        for buffer in node.get_outputs()
        for name in (buffer.get_name(), *buffer.get_mutations())
    }
    touched = (dep.name for node in fused for dep in node.read_writes.reads_and_writes())
    return any(real.get(name, name) in scattered for name in touched)
