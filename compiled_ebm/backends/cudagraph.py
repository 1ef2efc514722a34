"""The compiled step captured in CUDA graphs: many steps a replay, nothing but replays in steady state."""

from __future__ import annotations

import time
import weakref
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from compiled_ebm.backends.base import FEW_STEPS, ROW_QUANTUM, Chains, Keep, round_up
from compiled_ebm.backends.first_state import init_chains
from compiled_ebm.backends.graph_bucket import TABLE_LENGTH, Bucket
from compiled_ebm.loopgraph import readable_code
from compiled_ebm.trace import ChainProgram

__all__ = ["MAX_BUCKETS", "CudaGraphLaunch"]

MAX_BUCKETS = 8
"""Numbers of rows whose buffers and graphs are kept; beyond, the one unused for longest goes."""
_FIRST_LAUNCH_SECONDS = 0.05


class _Buckets:
    """The buckets of one launch: in one memory pool, and in one order, whatever streams they are used on."""

    def __init__(self, program: ChainProgram) -> None:
        self._program = program
        self._held: OrderedDict[int, Bucket] = OrderedDict()
        self._pool: Any = None
        self._done: Any = None

    def rows(self) -> list[int]:
        return sorted(self._held)

    def find(self, rows: int) -> Bucket | None:
        return self._held.get(rows)

    def used(self, rows: int) -> Bucket:
        self._held.move_to_end(rows)
        return self._held[rows]

    def capture(self, rows: int, chains: Chains) -> None:
        self._held.pop(rows, None)
        while len(self._held) >= MAX_BUCKETS:
            self._wait()
            self._held.popitem(last=False)
        if self._pool is None:
            # of its own: when the last graph and it are gone its memory goes back to the device, which that of a
            # graph's own pool does only when the device is full
            self._pool = torch.cuda.MemPool()
            self._done = torch.cuda.Event()  # type: ignore[no-untyped-call]
        with self.in_order():
            self._held[rows] = Bucket(self._program, chains, self._pool)

    @contextmanager
    def in_order(self) -> Iterator[None]:
        """What is done on the current stream within comes after what was done before, on whatever stream.

        The buckets share buffers with each other and between runs, which may come on another stream each.
        """
        stream = torch.cuda.current_stream(self._program.device)
        stream.wait_event(self._done)
        try:
            yield
        finally:
            self._done.record(stream)

    def _wait(self) -> None:
        """Until nothing that was enqueued uses the buffers: the allocator knows one stream of a tensor only."""
        if self._done is not None:
            self._done.synchronize()

    def release(self) -> None:
        """Give everything back; graphs first, since the pool must outlive them."""
        self._wait()
        self._held.clear()
        self._pool = None


class CudaGraphLaunch:
    """Copies the chains into static buffers, replays, copies them back.

    It works on the caller's current stream and never waits for the device but in :meth:`prepare` and
    :meth:`synchronize`. When it goes, its graphs, buffers and pool go with it.
    """

    def __init__(self, program: ChainProgram) -> None:
        self._program = program
        self._buckets = _Buckets(program)
        # not at exit, when the driver may have gone before
        weakref.finalize(self, self._buckets.release).atexit = False

    def capacity(self, n_chains: int) -> int:
        """Up to an eighth more rows than chains, so that nearby batch sizes share a graph."""
        quantum = max(ROW_QUANTUM, 1 << max(0, n_chains.bit_length() - 4))
        return round_up(n_chains, quantum)

    def working_bytes(self, n_chains: int) -> tuple[int, int]:
        """Every chain's intermediate values are alive at once, and its state stands in the static buffers too."""
        return 2 * self._program.bytes_per_chain(), 0

    def first_steps(self, n_chains: int) -> int:
        """Some 50 ms, by what a step was measured to take when it was captured."""
        bucket = self._buckets.find(self.capacity(n_chains))
        if bucket is None:
            return FEW_STEPS
        return max(FEW_STEPS, min(TABLE_LENGTH, int(_FIRST_LAUNCH_SECONDS / bucket.cost.step_seconds)))

    def prepare(self, chains: Chains) -> float:
        """Compile and capture for this number of rows, if that is still to do."""
        rows = chains.ids.shape[0]
        bucket = self._buckets.find(rows)
        if bucket is not None and bucket.is_intact():
            return 0.0
        begin = time.perf_counter()
        with torch.cuda.device(self._program.device), torch.no_grad():
            self._buckets.capture(rows, chains)
        return time.perf_counter() - begin

    @torch.no_grad()
    def init(self, chains: Chains, step: int) -> None:
        """State at the positions in ``chains.state[0]``."""
        init_chains(self._program, chains, step)

    @torch.no_grad()
    def begin(self, chains: Chains) -> None:
        """Copy the chains and what depends on captured tensors into the static buffers."""
        with self._buckets.in_order():
            self._buckets.used(chains.ids.shape[0]).load(chains)

    @torch.no_grad()
    def __call__(self, chains: Chains, first_step: int, hyper: Tensor, keep: Keep | None) -> None:
        """``hyper.shape[0]`` steps, at most :data:`TABLE_LENGTH`; returns before they are done.

        Every call here is enqueued: copies between tensors of the device, fills by value, replays. None allocates.
        """
        bucket = self._buckets.used(chains.ids.shape[0])
        bucket.check()
        n_steps = hyper.shape[0]
        with self._buckets.in_order():
            bucket.fetch(chains)
            bucket.table[:n_steps].copy_(hyper)
            bucket.cursor.zero_()
            bucket.step.fill_(first_step)
            for count, slot in keep.segments(n_steps) if keep else [(n_steps, None)]:
                bucket.replay(count)
                if keep is not None and slot is not None:
                    n = keep.x.shape[1]
                    keep.x[slot].copy_(bucket.chains.state[0][:n])
                    keep.energy[slot].copy_(bucket.chains.state[1][:n])
            bucket.store(chains)

    def synchronize(self) -> None:
        """Wait until the replays are done: those on this stream, not other streams' work."""
        torch.cuda.current_stream(self._program.device).synchronize()

    def facts(self) -> dict[str, object]:
        """For explain()."""
        found: dict[str, object] = {"compiled": "torch.compile, fullgraph, captured in CUDA graphs"}
        for rows in self._buckets.rows():
            bucket = self._buckets.find(rows)
            assert bucket is not None
            found["noise"] = bucket.noise_by
            found[f"{rows} rows"] = (
                f"{bucket.steps_per_graph} steps a graph: {bucket.cost.step_seconds * 1e6:.1f} us a step, "
                f"{bucket.cost.launch_seconds * 1e6:.1f} us a launch"
            )
        return found

    def source(self) -> str:
        """The batched step that was handed to Inductor."""
        if not self._buckets.rows():
            return self._program.code()
        rows = self._buckets.rows()[-1]
        bucket = self._buckets.find(rows)
        assert bucket is not None
        code = readable_code(bucket.batched.graph)
        return f"# noise: {bucket.noise_by}\n# one step of {rows} chains, as handed to torch.compile\n{code}\n"
