"""One generated and compiled function over tiles of chains, with the constants that it reads."""

from __future__ import annotations

import ctypes
import functools
import re
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor

from compiled_ebm.backends.base import Chains, Keep, round_up
from compiled_ebm.backends.fused import toolchain
from compiled_ebm.backends.fused.cost import count, live_bytes
from compiled_ebm.backends.fused.cpp import emit
from compiled_ebm.backends.fused.expressions import lanes_header
from compiled_ebm.backends.fused.lowered import Lowered
from compiled_ebm.backends.fused.names import readable
from compiled_ebm.backends.fused.program import Role, TileProgram
from compiled_ebm.errors import UnsupportedEnergyError

__all__ = ["ChainKernel"]

_COMPILE_SECONDS = 60.0
MOST_STATEMENTS = 12_000
"""That no loop holds, a function as twenty: 5,000 take g++ 1.8 s, 18,000 take it 15 s. Each value may live to the end,
in 64 bytes of the stack."""
_ALIGNMENT = 64
"""Bytes: of the widest vector."""
_WAKING_NS = 50_000.0
"""Work that a further thread is worth; waking it takes as long."""
VECTOR: toolchain.Vector = "native"
"""The instruction sets that kernels are compiled for."""
_COMMENT_LINES = re.compile(r"^ *//.*\n", re.MULTILINE)
_WIDTH = 'extern "C" __attribute__((visibility("default"))) int lanes_of_a_vector() { return W; }\n'


class ChainKernel:
    """A tile program as machine code.

    Args:
        lower: Makes the tile program from the constants as they are; again, if it has taken one as an index.
        n_constants: How many constants the traced function has.
        real: The dtype of its lanes.
    """

    def __init__(self, lower: Callable[[Sequence[Tensor]], TileProgram], n_constants: int, real: torch.dtype) -> None:
        self._lower = lower
        self._n_constants = n_constants
        self._real = real
        self._scratch: list[Tensor] = []
        self._held: list[Tensor] = []
        self._taken: list[Tensor] = []
        self._is_fresh = False

    def generate(self, constants: Sequence[Tensor]) -> None:
        """Lower the traced function and write the source; one thread at a time, as all tracing."""
        self._lowered = Lowered(self._lower, self._n_constants, constants)
        self.kernel = emit(self._lowered.program)
        if self.kernel.plan.single > MOST_STATEMENTS:
            raise UnsupportedEnergyError(
                f"energy: expected at most {MOST_STATEMENTS:,} statements outside loops in the fused backend, got "
                f"{self.kernel.plan.single:,}, which a C++ compiler takes minutes for; use backend='inductor' or "
                "'auto', or work on whole tensors where the energy repeats itself on small ones"
            )
        self.cost = count(self._lowered.program)
        self.live_bytes = live_bytes(self._lowered.program)

    def compile(self) -> None:
        """From the source, or from the cache, to a loaded function."""
        text = f"#define REAL_BITS {8 * self._real.itemsize}\n{lanes_header()}\n{self.code()}{_WIDTH}"
        try:
            library = toolchain.load(text, vector=VECTOR, timeout=_COMPILE_SECONDS)
        except toolchain.CompileTimeout as error:
            raise UnsupportedEnergyError(
                f"energy: compiling the fused kernel took more than {_COMPILE_SECONDS:.0f} s; use backend='inductor' "
                "or 'auto', or an energy of fewer operations"
            ) from error
        except toolchain.CompileError as error:
            raise UnsupportedEnergyError(
                f"energy: the C++ compiler refuses the fused kernel: {error}; use backend='inductor'"
            ) from error
        self.lanes = int(library.lanes_of_a_vector())
        self._function = library.chain_loop
        self._function.restype = None
        self._function.argtypes = [ctypes.c_void_p] * 8
        self._scratch, self._is_fresh = [], False

    def code(self) -> str:
        """The source without comments, or the same energy on another line of the user's would be compiled anew."""
        return _COMMENT_LINES.sub("", self.kernel.source)

    def source(self) -> str:
        """The generated chain loop, for readers; without the vector functions that it calls."""
        packed = [position for position, _ in self.kernel.weights]
        return readable(self.kernel.source, self._lowered.program, packed, lanes_header())

    def refresh(self, constants: Sequence[Tensor]) -> None:
        """Take the constants as they are now, laid out as the kernel reads them."""
        if self._is_fresh and all(map(torch.equal, self._taken, constants)):
            return
        if self._lowered.is_stale(constants):
            self.generate(constants)
            self.compile()
        every = self._lowered.constants(constants)
        kernel = self.kernel
        flat = {p: self.flat(every[p]) for p in {*kernel.constants, *(p for p, _ in kernel.weights)}}
        self._held = [flat[p] for p in kernel.constants]
        self._held += [flat[p][torch.from_numpy(table)] for p, table in kernel.weights]
        self._taken, self._is_fresh = [t.detach().clone() for t in constants], True

    def flat(self, tensor: Tensor) -> Tensor:
        """Contiguous, in the kernel's real or in int64."""
        dtype = self._real if tensor.dtype.is_floating_point else torch.int64
        return tensor.detach().reshape(-1).to(dtype).contiguous()

    def __call__(
        self, chains: Chains, first_step: int, n_steps: int, hyper: Tensor | None, keep: Keep | None, n_threads: int
    ) -> None:
        """Advance every chain in place.

        Args:
            chains: The buffers; their rows are whole vectors of lanes.
            first_step: Index of the first step.
            n_steps: How many.
            hyper: ``[n_steps, n_hyper]``, or None where the program has no hyper-parameters.
            keep: Where kept draws go.
            n_threads: Threads at most.
        """
        kwargs = [self.flat(chains.chain_kwargs[p]) for p in self._lowered.program.chain_kwargs()]
        arrays = [*chains.state, chains.failed_at, *kwargs, *self._held]
        pointers = (ctypes.c_void_p * len(arrays))(*(t.data_ptr() for t in arrays))
        n_tiles = chains.ids.shape[0] // self.lanes
        table = None if hyper is None else hyper.to(self._real).contiguous()
        kept = None if keep is None else [torch.empty_like(t, dtype=self._real) for t in (keep.x, keep.energy)]
        thin, until, n_kept = (
            (0, 0, 0) if keep is None else (keep.thin, keep.thin - keep.phase % keep.thin, keep.x.shape[1])
        )
        n_hyper = 0 if table is None else table.shape[1]
        given = (int(chains.seed), first_step, n_steps, n_hyper, n_tiles, thin, until, n_kept, *self.kernel.rounds)
        numbers = (ctypes.c_longlong * len(given))(*given)
        next_tile = ctypes.c_longlong(0)
        busy = int(self.cost.rough_ns() * chains.ids.shape[0] * n_steps / _WAKING_NS)
        n_threads = max(1, min(n_threads, n_tiles, busy))
        arguments = (
            ctypes.addressof(numbers),
            ctypes.addressof(pointers),
            chains.ids.data_ptr(),
            ctypes.addressof(next_tile),
            None if table is None else table.data_ptr(),
            None if kept is None else kept[0].data_ptr(),
            None if kept is None else kept[1].data_ptr(),
        )
        scratch = self._scratch_of(n_threads)
        # ctypes lets go of the interpreter's lock, so that plain threads share the tiles
        others = [_workers(n_threads - 1).submit(self._function, *arguments, s) for s in scratch[1:]]
        self._function(*arguments, scratch[0])
        for other in others:
            other.result()
        if keep is not None and kept is not None:
            keep.x.copy_(kept[0])
            keep.energy.copy_(kept[1])

    def _scratch_of(self, n_threads: int) -> list[int]:
        """The address of a buffer for each thread."""
        while len(self._scratch) < n_threads:
            self._scratch.append(torch.zeros(self.scratch_bytes + _ALIGNMENT, dtype=torch.uint8))
        return [round_up(t.data_ptr(), _ALIGNMENT) for t in self._scratch[:n_threads]]

    @property
    def weight_bytes(self) -> int:
        """Constants and tables that a tile reads at every step."""
        sizes = {n.position: n.size for n in self._lowered.program.inputs() if n.role is Role.CONSTANT}
        kernel = self.kernel
        return self._real.itemsize * (sum(sizes[p] for p in kernel.constants) + sum(t.size for _, t in kernel.weights))

    @property
    def scratch_bytes(self) -> int:
        """What a thread keeps in cache."""
        reals, ints = self.kernel.scratch
        return _ALIGNMENT * (reals + 2 * ints) + _ALIGNMENT


@functools.cache
def _workers(count: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(count, thread_name_prefix="compiled-ebm")
