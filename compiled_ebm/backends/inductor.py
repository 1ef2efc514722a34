"""``torch.compile`` of the step: a tile of chains at a time on CPU, CUDA graphs of many steps on a GPU."""

from __future__ import annotations

import importlib.util
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx
from torch.distributions import Distribution

from compiled_ebm.backends.base import FEW_STEPS, ROW_QUANTUM, Chains, Keep, round_up
from compiled_ebm.backends.batched import (
    BatchedStep,
    batched_noise,
    batched_step,
    copies,
    first_row,
    noise_buffers,
    started,
    step_inputs,
)
from compiled_ebm.backends.first_state import init_chains
from compiled_ebm.backends.regions import with_regions
from compiled_ebm.backends.scatters import correct_scatters
from compiled_ebm.errors import UnsupportedEnergyError
from compiled_ebm.loopgraph import readable_code
from compiled_ebm.trace import ChainProgram
from compiled_ebm.transitions.base import NoiseDraw

__all__ = ["CpuLaunch", "compile", "compile_graph", "why_unavailable"]

_MAX_TILE = 16384
"""Chains in a tile at most: by then a call's 40 us of Python are a few percent, and less would be left in cache."""
_TILE_BYTES = 64 << 20
"""Intermediate values of a tile at most, were none of them fused away."""
_NOISE_STEPS = 4
"""Steps whose noise is drawn in one call, to share the call's cost; what a launch does not use is thrown away."""
_NOISE_NUMBERS = 1 << 18
"""Numbers drawn in one call at most, if it is for several steps: 1 MiB stays in the L2 cache."""
_LARGEST_DIFFERENCE, _LARGEST_IN_HALF = 0.01, 0.05
"""Of the largest value: far above rounding, and below a wrong result."""
_SENSITIVE = 0.02
"""Of these: by so much a result changes from a rounding away that says nothing of the compiler."""
_MOST_WRONG = 1e-3
"""Share of the elements: a decision that goes another way by rounding is one in a hundred thousand."""
_HALF = (torch.float16, torch.bfloat16)
_SLACK = 1.3
"""A tile compiled before is used again if it costs at most this much more than one made to measure."""

_OPTIONS: dict[str, Any] = {"realize_opcount_threshold": 12}
"""Inductor's default of 30 recomputes chains of small sums inside their users: the 8-component mixture was 20 times
slower with it (890 against 46 ns a chain-step on two Zen 4 cores)."""

_COMPILED: OrderedDict[tuple[object, ...], Callable[..., Any]] = OrderedDict()
_MAX_COMPILED = 64
_CALL_ROWS = 64
"""A call of compiled code costs about as much as stepping this many chains."""


def compile(program: ChainProgram) -> Any:
    """The launch for the program's device."""
    if program.device.type == "cuda":
        from compiled_ebm.backends.cudagraph import CudaGraphLaunch

        return CudaGraphLaunch(program)
    return CpuLaunch(program)


def why_unavailable(device: torch.device) -> str | None:
    """Why ``torch.compile`` cannot work here, or None if it can."""
    if device.type == "cuda":
        found = importlib.util.find_spec("triton") is not None
        return None if found else "Triton is not installed: pip install triton"
    from torch._inductor import cpp_builder, exc

    try:
        cpp_builder.get_cpp_compiler()
    except exc.InvalidCxxCompiler:
        return "no C++ compiler was found: install g++ or clang, or set CXX"
    return None


def compile_graph(graph: fx.GraphModule, example: Sequence[Tensor]) -> tuple[Callable[..., Any], float]:
    """Compile a flat graph, or find it compiled: graphs with equal code and inputs share one.

    Every tensor is an input of the graph, so a compiled graph belongs to no sampler.

    Returns:
        The callable, and the seconds that compiling took.

    Raises:
        UnsupportedEnergyError: The compiled graph does not compute what the graph does.
    """
    key = (graph.code, *((t.shape, t.stride(), t.dtype, t.device) for t in example), torch.get_num_threads())
    if key in _COMPILED:
        _COMPILED.move_to_end(key)
        return _COMPILED[key], 0.0
    begin = time.perf_counter()
    try:
        with _value_checks_kept(), correct_scatters():
            function = torch.compile(with_regions(graph), fullgraph=True, dynamic=False, options=_OPTIONS)
            _check_compiled(function, graph, example)
    except (UnsupportedEnergyError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        raise UnsupportedEnergyError(
            f"energy: torch.compile cannot compile the step: {type(error).__name__}: {str(error)[:400]}; "
            "use backend='eager', or write the operation with others"
        ) from error
    if example[0].device.type == "cuda":
        torch.cuda.synchronize(example[0].device)
    _COMPILED[key] = function
    if len(_COMPILED) > _MAX_COMPILED:
        _COMPILED.popitem(last=False)
    return function, time.perf_counter() - begin


@contextmanager
def forgotten() -> Iterator[None]:
    """Within it, what this process has compiled counts as not compiled: for measuring how long that takes."""
    held = dict(_COMPILED)
    _COMPILED.clear()
    try:
        yield
    finally:
        _COMPILED.update(held)


@contextmanager
def _value_checks_kept() -> Iterator[None]:
    """``torch.compile`` turns off the checks of ``torch.distributions`` for good, and energies count on them."""
    before = Distribution._validate_args
    try:
        yield
    finally:
        Distribution.set_default_validate_args(before)


def _check_compiled(function: Callable[..., Any], graph: fx.GraphModule, example: Sequence[Tensor]) -> None:
    """Run the compiled graph and the graph itself once on copies, and compare what they leave in their inputs.

    A fault of the compiler would otherwise be wrong samples in silence: Inductor of torch 2.13 added the gradients of
    all chains into one row for energies that index with repeats, before the graph was rewritten to avoid it.
    """
    values = (node.meta.get("val") for node in graph.graph.nodes)
    in_half = any(isinstance(value, Tensor) and value.dtype in _HALF for value in values)
    most = _LARGEST_IN_HALF if in_half else _LARGEST_DIFFERENCE
    compiled, expected = copies(example), copies(example)
    with torch.no_grad():
        function(*compiled)
        graph(*expected)
        errors = [_relative(got, wanted) for got, wanted in zip(compiled, expected, strict=True)]
        if not any(bool((error > most).any()) for error in errors):
            return
        # a long trajectory, or a decision on the edge, may go elsewhere from a rounding away: that is no fault
        nearby = copies(example)
        for tensor in nearby[:1]:
            if tensor.dtype.is_floating_point:
                tensor.copy_(tensor * (1 + 8 * torch.finfo(tensor.dtype).eps))
        graph(*nearby)
        for error, near, wanted in zip(errors, nearby, expected, strict=True):
            wrong = (error > most) & ~(_relative(near, wanted) > _SENSITIVE * most)
            if float(wrong.double().mean()) > _MOST_WRONG:
                raise UnsupportedEnergyError(
                    "energy: torch.compile gives another result than the same operations uncompiled (by "
                    f"{float(error[wrong].max()):.2g} of the largest value): a fault of the compiler; use "
                    "backend='eager', and please report the energy"
                )


def _relative(got: Tensor, wanted: Tensor) -> Tensor:
    """Differences of the elements by the largest; infinite where only the one is finite."""
    finite = torch.isfinite(wanted)
    if not wanted.dtype.is_floating_point or not bool(finite.any()):
        return torch.zeros((1,), device=wanted.device)
    scale = wanted[finite].abs().max().clamp_min(torch.finfo(wanted.dtype).tiny)
    error = ((got - wanted).abs() / scale).nan_to_num(nan=float("inf"))
    return torch.where(finite, error, 0.0)


@dataclass(frozen=True)
class _Tile:
    """What was compiled for one number of chains."""

    noise: Callable[..., Any]
    buffers: NoiseDraw
    step: Callable[..., Any]
    batched: BatchedStep


class CpuLaunch:
    """Tiles of chains, each run through all steps of the launch before the next, so that it stays in cache."""

    def __init__(self, program: ChainProgram) -> None:
        self._program = program
        self._tiles: dict[int, _Tile] = {}
        self._tile_of_rows: dict[int, int] = {}
        self._constants: list[Tensor] = []

    def _tile(self, n_chains: int) -> int:
        """Chains per compiled call: as few equal parts as the limits allow.

        Shapes are static: compiled for any number of chains, the noise kernel was up to 10 times slower.
        """
        largest = min(_MAX_TILE, max(ROW_QUANTUM, _TILE_BYTES // max(1, self._program.bytes_per_chain())))
        largest = round_up(largest, ROW_QUANTUM)
        parts = -(-n_chains // largest)
        best = round_up(-(-n_chains // parts), ROW_QUANTUM)

        def cost(tile: int) -> int:
            return -(-n_chains // tile) * (tile + _CALL_ROWS)

        built = min(self._tiles, key=cost, default=best)
        return built if cost(built) <= _SLACK * cost(best) else best

    def capacity(self, n_chains: int) -> int:
        """A whole number of tiles."""
        tile = self._tile(n_chains)
        rows = round_up(n_chains, tile)
        self._tile_of_rows[rows] = tile
        return rows

    def working_bytes(self, n_chains: int) -> tuple[int, int]:
        """Only one tile's intermediate values are alive at once."""
        return 0, self._tile(n_chains) * self._program.bytes_per_chain()

    def _noise_steps(self, tile: int) -> int:
        numbers = tile * self._program.event_numel * max(1, self._program.transition.noise.normals)
        return max(1, min(_NOISE_STEPS, _NOISE_NUMBERS // numbers))

    def first_steps(self, n_chains: int) -> int:
        """The first launch shows how fast it is."""
        return FEW_STEPS

    def prepare(self, chains: Chains) -> float:
        """Compile the tile that these buffers are made of, if it is not."""
        tile = self._tile_of_rows[chains.ids.shape[0]]
        if tile in self._tiles:
            return 0.0
        begin = time.perf_counter()
        first = started(self._program, chains.rows(0, tile))
        buffers = noise_buffers(self._program, self._noise_steps(tile), first.ids)
        noise_example = (first.seed, torch.arange(len(buffers.normals)), first.ids, *buffers)
        noise, _ = compile_graph(batched_noise(self._program, noise_example), noise_example)
        with torch.no_grad():
            noise(*noise_example)
        row = first_row(self._program)
        constants = self._program.step.constants(chains.shared_kwargs)
        drawn, step = NoiseDraw(buffers.normals[0], buffers.uniforms[0]), torch.tensor(0)
        batched = batched_step(
            self._program, step_inputs(first, drawn, step, row, None, constants), on_device_cursor=False
        )
        example = step_inputs(first, drawn, step, row, None, batched.layout(*constants))
        self._tiles[tile] = _Tile(noise, buffers, compile_graph(batched.graph, example)[0], batched)
        return time.perf_counter() - begin

    @torch.no_grad()
    def init(self, chains: Chains, step: int) -> None:
        """State at the positions in ``chains.state[0]``."""
        init_chains(self._program, chains, step)

    @torch.no_grad()
    def begin(self, chains: Chains) -> None:
        """Evaluate what depends on captured tensors only."""
        layout = self._tiles[self._tile_of_rows[chains.ids.shape[0]]].batched.layout
        self._constants = layout(*self._program.step.constants(chains.shared_kwargs))

    def synchronize(self) -> None:
        """CPU code has finished when it returns."""

    @torch.no_grad()
    def __call__(self, chains: Chains, first_step: int, hyper: Tensor, keep: Keep | None) -> None:
        """``hyper.shape[0]`` steps of every chain, tile by tile."""
        n_steps = hyper.shape[0]
        segments = keep.segments(n_steps) if keep else [(n_steps, None)]
        rows = hyper.unbind()
        tile = self._tile_of_rows[chains.ids.shape[0]]
        built = self._tiles[tile]
        normals, uniforms = built.buffers
        drawn = len(normals)
        ahead = torch.arange(first_step, first_step + n_steps + drawn)
        steps = ahead.unbind()
        for start in range(0, chains.ids.shape[0], tile):
            part = chains.rows(start, start + tile)
            done = 0
            for count, slot in segments:
                for i in range(done, done + count):
                    if i % drawn == 0:
                        built.noise(part.seed, ahead[i : i + drawn], part.ids, normals, uniforms)
                    noise = NoiseDraw(normals[i % drawn], uniforms[i % drawn])
                    built.step(*step_inputs(part, noise, steps[i], rows[i], None, self._constants))
                done += count
                if keep is not None and slot is not None:
                    stop = min(start + tile, keep.x.shape[1])
                    keep.x[slot, start:stop] = part.state[0][: stop - start]
                    keep.energy[slot, start:stop] = part.state[1][: stop - start]

    def facts(self) -> dict[str, object]:
        """For explain()."""
        return {"compiled": "torch.compile, fullgraph, static shapes", "tiles compiled": sorted(self._tiles)}

    def source(self) -> str:
        """The batched step that was handed to Inductor."""
        if not self._tiles:
            return self._program.code()
        tile, built = max(self._tiles.items(), key=lambda item: item[0])
        return (
            f"# one step of a tile of {tile} chains, as handed to torch.compile\n{readable_code(built.batched.graph)}\n"
        )
