"""Static buffers for one number of rows, and CUDA graphs of the compiled step over them."""

from __future__ import annotations

import importlib.util
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from compiled_ebm.backends.base import Chains
from compiled_ebm.backends.batched import batched_noise, batched_step, first_row, noise_buffers, started, step_inputs
from compiled_ebm.backends.graph_length import SHORTEST, measured, steps_per_graph, timed_replays
from compiled_ebm.backends.head import Head, take_head
from compiled_ebm.backends.inductor import compile_graph
from compiled_ebm.backends.noise import draw_noise
from compiled_ebm.errors import UnsupportedEnergyError
from compiled_ebm.garbage import collection_paused
from compiled_ebm.trace import ChainProgram
from compiled_ebm.transitions.base import NoiseDraw

__all__ = ["TABLE_LENGTH", "Bucket"]

TABLE_LENGTH = 1 << 16
"""Rows of the static hyper-parameter table: the longest launch."""
_WARM_UP_CALLS = 3
_CHECKED_ROWS = 256
_LARGEST_NOISE_ERROR = 1e-3
"""Far above what the hardware's logarithm and sine are off by (5e-6), far below another number."""
_CAPTURING = threading.Lock()
"""One capture at a time: samplers of other threads run meanwhile, but do not capture."""


class Bucket:
    """Everything captured for one number of rows.

    The step counter and the cursor into the hyper-parameter table live on the device and are advanced by the captured
    step, so a replay needs nothing from the host. Nothing of the user's is captured: what depends on weights is copied
    into :attr:`constants` by :meth:`load`.

    Args:
        program: The chain program, on a CUDA device.
        chains: Chains like those that will be advanced.
        pool: A MemPool, where the graphs' intermediate values live. It may be shared with graphs that never run at the
            same time: nothing in it outlives a replay.
    """

    def __init__(self, program: ChainProgram, chains: Chains, pool: Any) -> None:
        self._program = program
        device = program.device
        self.chains = replace(started(program, chains), shared_kwargs=())
        self.step = torch.zeros((), dtype=torch.int64, device=device)
        self.cursor = torch.zeros((), dtype=torch.int64, device=device)
        row = first_row(program)
        self.table = row.new_zeros((TABLE_LENGTH, len(row)))
        ahead = noise_buffers(program, 1, self.chains.ids)
        noise = NoiseDraw(ahead.normals[0], ahead.uniforms[0])
        values = program.step.constants(chains.shared_kwargs)
        traced = step_inputs(self.chains, noise, self.step, self.table, self.cursor, values)
        self.batched = batched_step(program, traced, on_device_cursor=True)
        self.constants = [t.clone() for t in self.batched.layout(*values)]
        self.noise_by, draw = self._noise(ahead, noise)
        inputs = step_inputs(self.chains, noise, self.step, self.table, self.cursor, self.constants)
        self.table[0] = row
        draw()
        function, _ = compile_graph(self.batched.graph, inputs)

        def advance() -> None:
            draw()
            function(*inputs)

        # the compiled code too: a graph holds only the addresses of its kernels and of the constants they read
        self._held = (advance, *inputs)
        self.graphs, self.cost = self._captured(advance, pool.id)
        self._pool = pool  # last, and so the last to go: it must outlive the graphs
        self._captured_tensors = (*inputs, self.chains.ids, self.chains.seed)
        self._pointers = self._addresses()

    def _noise(self, ahead: NoiseDraw, noise: NoiseDraw) -> tuple[str, Callable[[], None]]:
        """Who draws a step's noise, and the call that does."""
        seed, ids = self.chains.seed, self.chains.ids
        if _triton_can(ids.device):
            from compiled_ebm.backends.noise_kernel import fill_noise

            fast = self._program.carry_dtype == torch.float32
            draw = fill_noise(seed, self.step, ids, noise, fast=fast)
            self._check(draw, noise, self._specified())
            head = self._head()
            if head is None:
                return "one Triton kernel, four numbers a Philox call", draw
            return f"in the Triton kernel of the update, {head}", self._update(head, noise, fast=fast)
        inputs = (seed, self.step.unsqueeze(0), ids, *ahead)  # a view: the noise follows the step that the graph sets
        function, _ = compile_graph(batched_noise(self._program, inputs), inputs)
        return "torch.compile of the specification", lambda: function(*inputs)

    def _specified(self) -> NoiseDraw:
        """The noise of the last rows, by ``rng.py``."""
        return draw_noise(self._program, self.chains.seed, self.step, self.chains.ids[-_CHECKED_ROWS:])

    def _head(self) -> Head | None:
        """Take the update out of the step's graph if a kernel can do it with the noise; ``normals`` holds x' then."""
        p = self._program
        if p.transition.noise.normals != 1:
            return None
        n_state = len(p.state_shapes)
        normals = n_state + 1 + len(p.kwargs.per_chain)  # as step_inputs has them
        return take_head(self.batched.graph, n_state, normals, normals + 3)

    def _update(self, head: Head, noise: NoiseDraw, *, fast: bool) -> Callable[[], None]:
        """The call that writes x' where the normals were, and draws the uniforms if there are any."""
        from compiled_ebm.backends.noise_kernel import fill_noise
        from compiled_ebm.backends.update_kernel import fill_update

        seed, step, ids = self.chains.seed, self.step, self.chains.ids
        a, b = self.chains.state[head.first], self.chains.state[head.second]
        update = fill_update(head, seed, step, self.cursor, self.table, ids, (a, b), noise.normals, fast=fast)
        none = torch.empty((len(ids), 0), dtype=a.dtype, device=a.device)
        uniforms = fill_noise(seed, step, ids, NoiseDraw(none, noise.uniforms), fast=fast)

        def draw() -> None:
            update()
            uniforms()

        self.table[0] = 0.5
        change = -0.5 * b if head.minus else 0.5 * b
        specified = self._specified()
        moved = ((a + change)[-_CHECKED_ROWS:] + 0.5 * specified.normals).clamp(*head.bounds)
        self._check(draw, noise, specified._replace(normals=moved))
        self.table.zero_()
        return draw

    def _check(self, draw: Callable[[], None], buffers: NoiseDraw, expected: NoiseDraw) -> None:
        """Compare the last rows with the specification: a fault of a compiler would be wrong samples in silence."""
        draw()
        for got, wanted in zip(buffers, expected, strict=True):
            wanted = wanted.reshape(got[-_CHECKED_ROWS:].shape)
            scale = 1 + wanted.nan_to_num().abs()
            error = (got[-_CHECKED_ROWS:] - wanted).abs() / scale
            wrong = ~(error <= _LARGEST_NOISE_ERROR) & torch.isfinite(wanted)
            if bool(wrong.any()):
                raise UnsupportedEnergyError(
                    "backend='inductor': the Triton kernel that draws the noise gives other numbers than "
                    "compiled_ebm.rng: a fault of the compiler; use backend='eager', and please report the device"
                )

    def _captured(self, advance: Callable[[], None], pool: Any) -> tuple[dict[int, Any], Any]:
        """Graphs by their number of steps, longest first, and what a step was measured to cost."""
        device = self._program.device
        stream: Any = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream(device))

        def captured(n_steps: int) -> Any:
            graph = torch.cuda.CUDAGraph()
            # thread_local: other threads may allocate and launch meanwhile. No stance of torch.compile is set, since
            # that would hold for them too: a call that compiled here would fail to be captured anyway.
            with torch.cuda.graph(graph, pool=pool, stream=stream, capture_error_mode="thread_local"):
                for _ in range(n_steps):
                    advance()
            return graph

        # a collection could free what belongs to other graphs, which is not allowed while this thread captures
        with _CAPTURING, collection_paused(), _deterministic_convolutions():
            with torch.cuda.stream(stream):
                for _ in range(_WARM_UP_CALLS):
                    advance()
            graphs = {1: captured(1)}
            before, begin = _drivers_bytes(device), time.perf_counter()
            graphs[SHORTEST] = captured(SHORTEST)
            seconds, held = time.perf_counter() - begin, _drivers_bytes(device) - before
            torch.cuda.current_stream(device).wait_stream(stream)
            times = []
            for n_steps in (1, SHORTEST):
                self.cursor.zero_()
                times.append(timed_replays(graphs[n_steps], device))
            cost = measured(times[0], times[1], seconds, held)
            longest = steps_per_graph(cost)
            # eightfold in between, so that a launch of any length is a few replays of each
            for n_steps in (SHORTEST * 8, longest):
                if SHORTEST < n_steps <= longest and n_steps not in graphs:
                    graphs[n_steps] = captured(n_steps)
            torch.cuda.current_stream(device).wait_stream(stream)
        return dict(sorted(graphs.items(), reverse=True)), cost

    @property
    def steps_per_graph(self) -> int:
        """In the longest graph."""
        return max(self.graphs)

    def replay(self, n_steps: int) -> None:
        """Do so many steps on the current stream, by as few graphs as there can be."""
        for length, graph in self.graphs.items():
            for _ in range(n_steps // length):
                graph.replay()
            n_steps %= length

    def _addresses(self) -> tuple[int, ...]:
        return tuple(t.data_ptr() for t in self._captured_tensors)

    def is_intact(self) -> bool:
        """Whether every captured tensor still is where it was: a graph reads and writes addresses, not tensors."""
        return self._addresses() == self._pointers

    def check(self) -> None:
        """Raise if a captured tensor has moved; a microsecond a launch.

        Raises:
            RuntimeError: Replaying would read and write memory that belongs to something else.
        """
        if not self.is_intact():
            raise RuntimeError(
                "CUDA graph: expected its static buffers where they were when it was captured, and one has moved; "
                "something outside has replaced its storage: run the sampler again, which captures anew"
            )

    def load(self, chains: Chains) -> None:
        """Copy the chains, and what depends on captured tensors as they are now, into the static buffers."""
        for source, target in _pairs(chains, self.chains, results_only=False):
            target.copy_(source)
        values = self.batched.layout(*self._program.step.constants(chains.shared_kwargs))
        for buffer, value in zip(self.constants, values, strict=True):
            buffer.copy_(value)

    def fetch(self, chains: Chains) -> None:
        """Copy what launches change into the static buffers: it may have been changed between them, too."""
        for source, target in _pairs(chains, self.chains, results_only=True):
            target.copy_(source)

    def store(self, chains: Chains) -> None:
        """Copy what a launch changes back to the chains."""
        for source, target in _pairs(self.chains, chains, results_only=True):
            target.copy_(source)


@contextmanager
def _deterministic_convolutions() -> Iterator[None]:
    """What is captured adds in one order, and is not chosen by a trial: the same chain is the same bits."""
    cudnn: Any = torch.backends.cudnn
    before = cudnn.deterministic, cudnn.benchmark
    cudnn.deterministic, cudnn.benchmark = True, False
    try:
        yield
    finally:
        cudnn.deterministic, cudnn.benchmark = before


def _triton_can(device: torch.device) -> bool:
    return device.type == "cuda" and importlib.util.find_spec("triton") is not None


def _pairs(source: Chains, target: Chains, *, results_only: bool) -> Iterator[tuple[Tensor, Tensor]]:
    yield from zip((*source.state, source.failed_at), (*target.state, target.failed_at), strict=True)
    if not results_only:
        yield from zip(
            (source.ids, source.seed, *source.chain_kwargs),
            (target.ids, target.seed, *target.chain_kwargs),
            strict=True,
        )


def _drivers_bytes(device: torch.device) -> int:
    """Device memory in use that is not torch's: the driver's, for graphs among others."""
    free, total = torch.cuda.mem_get_info(device)
    return total - free - torch.cuda.memory_reserved(device)
