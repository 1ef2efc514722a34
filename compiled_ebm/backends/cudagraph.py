"""The compiled step captured in CUDA graphs: many steps a replay, nothing but replays in steady state."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from compiled_ebm.backends.base import FEW_STEPS, ROW_QUANTUM, Chains, Keep, round_up
from compiled_ebm.backends.batched import BatchedStep, batched_noise, batched_step, noise_buffers, step_inputs
from compiled_ebm.backends.first_state import init_chains
from compiled_ebm.backends.inductor import compile_graph
from compiled_ebm.loopgraph import readable_code
from compiled_ebm.trace import ChainProgram
from compiled_ebm.transitions.base import NoiseDraw

__all__ = ["STEPS_PER_GRAPH", "TABLE_LENGTH", "CudaGraphLaunch"]

STEPS_PER_GRAPH = 64
"""Steps captured in the long graph; at three or more kernels a step its launch (about 3 us) is under 2%."""
TABLE_LENGTH = 1 << 16
"""Rows of the static hyper-parameter table: the longest launch."""
_WARM_UP_CALLS = 3


@dataclass
class _Bucket:
    """Static buffers and graphs for one number of rows."""

    chains: Chains
    step: Tensor
    cursor: Tensor
    table: Tensor
    constants: list[Tensor]
    captured: tuple[Tensor, ...]
    batched: BatchedStep
    many: torch.cuda.CUDAGraph
    one: torch.cuda.CUDAGraph


class CudaGraphLaunch:
    """Copies the chains into static buffers, replays, copies them back.

    The step counter and the cursor into the hyper-parameter table live on the device and are advanced by the captured
    step, so a replay needs nothing from the host. What depends on captured tensors is evaluated at ``begin`` and
    copied into static buffers, so weights are live and no pointer of theirs is captured.
    """

    def __init__(self, program: ChainProgram) -> None:
        self._program = program
        self._buckets: dict[int, _Bucket] = {}
        self._pool: Any = None

    def capacity(self, n_chains: int) -> int:
        """Up to an eighth more rows than chains, so that nearby batch sizes share a graph."""
        quantum = max(ROW_QUANTUM, 1 << max(0, n_chains.bit_length() - 4))
        return round_up(n_chains, quantum)

    def working_bytes(self, n_chains: int) -> tuple[int, int]:
        """Every chain's intermediate values are alive at once, and its state stands in the static buffers too."""
        return 2 * self._program.bytes_per_chain(), 0

    def first_steps(self, n_chains: int) -> int:
        """The first launch shows how fast it is."""
        return FEW_STEPS

    def prepare(self, chains: Chains) -> float:
        """Compile and capture for this number of rows, if that is still to do."""
        rows = chains.ids.shape[0]
        if rows in self._buckets:
            return 0.0
        begin = time.perf_counter()
        with torch.cuda.device(self._program.device), torch.no_grad():
            self._buckets[rows] = self._capture(chains)
        return time.perf_counter() - begin

    def _capture(self, chains: Chains) -> _Bucket:
        p, device = self._program, self._program.device
        n_hyper = len(p.transition.hyper_table(0, 1))
        static = Chains(
            tuple(t.clone() for t in chains.state),
            chains.failed_at.clone(),
            chains.ids.clone(),
            chains.seed.clone(),
            tuple(t.clone() for t in chains.chain_kwargs),
            (),
        )
        step = torch.zeros((), dtype=torch.int64, device=device)
        cursor = torch.zeros((), dtype=torch.int64, device=device)
        table = torch.zeros((TABLE_LENGTH, n_hyper), dtype=p.carry_dtype, device=device)
        steps = step.unsqueeze(0)  # a view, so the noise follows the step that the graph advances
        buffers = noise_buffers(p, 1, static.ids)
        noise_inputs = (static.seed, steps, static.ids, *buffers)
        noise, _ = compile_graph(batched_noise(p, noise_inputs), noise_inputs)
        drawn = NoiseDraw(buffers.normals[0], buffers.uniforms[0])
        captured_values = p.step.constants(chains.shared_kwargs)
        batched = batched_step(
            p, step_inputs(static, drawn, step, table, cursor, captured_values), on_device_cursor=True
        )
        constants = [t.clone() for t in batched.layout(*captured_values)]
        inputs = step_inputs(static, drawn, step, table, cursor, constants)
        function, _ = compile_graph(batched.graph, inputs)

        def advance() -> None:
            noise(*noise_inputs)
            function(*inputs)

        stream: Any = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(stream):
            for _ in range(_WARM_UP_CALLS):
                advance()
        torch.cuda.current_stream(device).wait_stream(stream)
        many, one = torch.cuda.CUDAGraph(), torch.cuda.CUDAGraph()
        with torch.compiler.set_stance("fail_on_recompile"):
            for captured, count in ((many, STEPS_PER_GRAPH), (one, 1)):
                with torch.cuda.graph(captured, pool=self._pool, capture_error_mode="thread_local"):
                    for _ in range(count):
                        advance()
                self._pool = self._pool or captured.pool()
        return _Bucket(static, step, cursor, table, constants, (*buffers, steps), batched, many, one)

    @torch.no_grad()
    def init(self, chains: Chains, step: int) -> None:
        """State at the positions in ``chains.state[0]``."""
        init_chains(self._program, chains, step)

    @torch.no_grad()
    def begin(self, chains: Chains) -> None:
        """Copy the chains and what depends on captured tensors into the static buffers."""
        bucket = self._buckets[chains.ids.shape[0]]
        _copy_chains(chains, bucket.chains)
        constants = bucket.batched.layout(*self._program.step.constants(chains.shared_kwargs))
        for buffer, value in zip(bucket.constants, constants, strict=True):
            buffer.copy_(value)

    @torch.no_grad()
    def __call__(self, chains: Chains, first_step: int, hyper: Tensor, keep: Keep | None) -> None:
        """``hyper.shape[0]`` steps, at most :data:`TABLE_LENGTH`; returns before they are done."""
        bucket = self._buckets[chains.ids.shape[0]]
        n_steps = hyper.shape[0]
        bucket.table[:n_steps].copy_(hyper)
        bucket.cursor.zero_()
        bucket.step.fill_(first_step)
        for count, slot in keep.segments(n_steps) if keep else [(n_steps, None)]:
            for _ in range(count // STEPS_PER_GRAPH):
                bucket.many.replay()
            for _ in range(count % STEPS_PER_GRAPH):
                bucket.one.replay()
            if keep is not None and slot is not None:
                n = keep.x.shape[1]
                keep.x[slot].copy_(bucket.chains.state[0][:n])
                keep.energy[slot].copy_(bucket.chains.state[1][:n])
        _copy_chains(bucket.chains, chains, results_only=True)

    def synchronize(self) -> None:
        """Wait until the replays are done."""
        torch.cuda.synchronize(self._program.device)

    def facts(self) -> dict[str, object]:
        """For explain()."""
        return {
            "compiled": f"torch.compile, fullgraph, {STEPS_PER_GRAPH} steps a CUDA graph",
            "rows captured": sorted(self._buckets),
        }

    def source(self) -> str:
        """The batched step that was handed to Inductor."""
        if not self._buckets:
            return self._program.code()
        rows, bucket = max(self._buckets.items())
        return f"# one step of {rows} chains, as handed to torch.compile\n{readable_code(bucket.batched.graph)}\n"


def _copy_chains(source: Chains, target: Chains, *, results_only: bool = False) -> None:
    """Copy the buffers, or those that a launch changes."""
    pairs = [*zip((*source.state, source.failed_at), (*target.state, target.failed_at), strict=True)]
    if not results_only:
        pairs += zip(
            (source.ids, source.seed, *source.chain_kwargs),
            (target.ids, target.seed, *target.chain_kwargs),
            strict=True,
        )
    for a, b in pairs:
        b.copy_(a)
