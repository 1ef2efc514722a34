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
from compiled_ebm.backends.fused.cpp import Kernel, emit
from compiled_ebm.backends.fused.expressions import lanes_header
from compiled_ebm.backends.fused.names import readable
from compiled_ebm.backends.fused.parts import Parts
from compiled_ebm.backends.fused.program import Role
from compiled_ebm.checksum import same_bits
from compiled_ebm.errors import UnsupportedEnergyError

__all__ = ["ChainKernel"]

_COMPILE_SECONDS = 60.0
MOST_STATEMENTS = 12_000
"""That no loop holds, a function as twenty: 5,000 take g++ 1.8 s, 18,000 take it 15 s. Each value may live to the end,
in 64 bytes of the stack."""
_LEAST_SPARED = 0.15
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
        lower: Makes its tile programs from the shared tensors as they are, with the energy apart from the step where
            that spares so much of the work; again, if a constant is no longer what it was taken for.
        real: The dtype of its lanes.
    """

    def __init__(self, lower: Callable[[Sequence[Tensor], float], Parts], real: torch.dtype) -> None:
        self._lower = lower
        self._real = real
        self._scratch: list[Tensor] = []
        self._held: list[list[Tensor]] = []
        self._taken: list[Tensor] | None = None
        self._limit = torch.zeros(1, dtype=real)

    def generate(self, shared: Sequence[Tensor]) -> None:
        """Lower the traced functions and write the source; one thread at a time, as all tracing."""
        statements = self._generate(self._lower(shared, _LEAST_SPARED))
        if statements > MOST_STATEMENTS and self._parts.energy is not None:
            statements = self._generate(self._lower(shared, 1.0))
        if statements > MOST_STATEMENTS:
            raise UnsupportedEnergyError(
                f"energy: expected at most {MOST_STATEMENTS:,} statements outside loops in the fused backend, got "
                f"{statements:,}, which a C++ compiler takes minutes for; use backend='inductor' or "
                "'auto', or work on whole tensors where the energy repeats itself on small ones"
            )
        self.cost = count(self._parts.main.program)
        self.live_bytes = live_bytes(self._parts.main.program)

    def _generate(self, parts: Parts) -> int:
        """Write the source; how many statements it has outside loops."""
        self._parts = parts
        self.kernel = emit(parts.main.program, None if parts.energy is None else parts.energy.program)
        return sum(kernel.plan.single for kernel in self._kernels())

    def _kernels(self) -> list[Kernel]:
        """That of the step, then that of the energy if there is one."""
        return [self.kernel] if self.kernel.energy is None else [self.kernel, self.kernel.energy]

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
        self._function.argtypes = [ctypes.c_void_p] * 11
        self._scratch, self._taken = [], None

    def code(self) -> str:
        """The source without comments, or the same energy on another line of the user's would be compiled anew."""
        return _COMMENT_LINES.sub("", self.kernel.source)

    def source(self) -> str:
        """The generated chain loop, for readers; without the vector functions that it calls."""
        energy = self.kernel.energy
        if energy is None:
            return self._readable(self.kernel, self.kernel.source)
        before, after = self.kernel.source.split(energy.source)
        mark = "ENERGY_FUNCTION"
        whole = self._readable(self.kernel, f"{before}{mark}{after}")
        return whole.replace(mark, self._readable(energy, energy.source))

    def _readable(self, kernel: Kernel, source: str) -> str:
        return readable(source, kernel.program, [position for position, _ in kernel.weights], lanes_header())

    def refresh(self, shared: Sequence[Tensor]) -> None:
        """Take the constants as they are now, laid out as the kernel reads them."""
        tensors = self._parts.tensors(shared)
        if self._taken is not None and len(tensors) == len(self._taken) and all(map(same_bits, tensors, self._taken)):
            return
        captured = self._parts.captured(shared)
        if self._parts.is_stale(captured):
            self.generate(shared)
            self.compile()
            captured = self._parts.captured(shared)
        constants = self._parts.constants(captured)
        self._held = [self._laid_out(kernel, own) for kernel, own in zip(self._kernels(), constants, strict=True)]
        self._limit.fill_(self._parts.limit(constants, self._real))
        self._taken = [t.detach().clone() for t in self._parts.tensors(shared)]

    def _laid_out(self, kernel: Kernel, constants: Sequence[Tensor]) -> list[Tensor]:
        """As they are and packed, in the order of the kernel's arrays."""
        flat = {p: self.flat(constants[p]) for p in {*kernel.constants, *(p for p, _ in kernel.weights)}}
        return [
            *(flat[p] for p in kernel.constants),
            *(flat[p][torch.from_numpy(table)] for p, table in kernel.weights),
        ]

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
        read = self._parts.chain_kwargs
        kwargs = [self.flat(t) if p in read else None for p, t in enumerate(chains.chain_kwargs)]
        held, *energy_held = self._held
        arrays = _pointers([*chains.state, chains.failed_at, *held])
        energy_arrays, kwarg_arrays = _pointers(_flat(energy_held)), _pointers(kwargs)
        rounds = [n for kernel in self._kernels() for n in kernel.rounds]
        n_tiles = chains.ids.shape[0] // self.lanes
        table = None if hyper is None else hyper.to(self._real).contiguous()
        kept = None if keep is None else [torch.empty_like(t, dtype=self._real) for t in (keep.x, keep.energy)]
        thin, until, n_kept = (
            (0, 0, 0) if keep is None else (keep.thin, keep.thin - keep.phase % keep.thin, keep.x.shape[1])
        )
        n_hyper = 0 if table is None else table.shape[1]
        given = (int(chains.seed), first_step, n_steps, n_hyper, n_tiles, thin, until, n_kept, *rounds)
        numbers = (ctypes.c_longlong * len(given))(*given)
        next_tile = ctypes.c_longlong(0)
        busy = int(self.cost.rough_ns() * chains.ids.shape[0] * n_steps / _WAKING_NS)
        n_threads = max(1, min(n_threads, n_tiles, busy))
        arguments = (
            ctypes.addressof(numbers),
            ctypes.addressof(arrays),
            ctypes.addressof(kwarg_arrays),
            ctypes.addressof(energy_arrays),
            self._limit.data_ptr(),
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

    def checks(self) -> str:
        """When it is looked whether a chain has failed, for explain()."""
        return self._parts.checks()

    @property
    def weight_bytes(self) -> int:
        """Constants and tables that a tile reads at every step."""
        kernel = self.kernel
        sizes = {n.position: n.size for n in kernel.program.inputs() if n.role is Role.CONSTANT}
        return self._real.itemsize * (sum(sizes[p] for p in kernel.constants) + sum(t.size for _, t in kernel.weights))

    @property
    def scratch_bytes(self) -> int:
        """What a thread keeps in cache."""
        return _ALIGNMENT * sum(reals + 2 * ints for reals, ints in (k.scratch for k in self._kernels())) + _ALIGNMENT


def _flat(lists: Sequence[Sequence[Tensor]]) -> list[Tensor]:
    return [tensor for each in lists for tensor in each]


def _pointers(tensors: Sequence[Tensor | None]) -> ctypes.Array[ctypes.c_void_p]:
    return (ctypes.c_void_p * len(tensors))(*(None if t is None else t.data_ptr() for t in tensors))


@functools.cache
def _workers(count: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(count, thread_name_prefix="compiled-ebm")
