"""CUDA's part in the graph launch, played on the CPU: what a captured call would do, a replay does."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor, fx

from compiled_ebm.backends import cudagraph, graph_bucket, inductor

__all__ = ["FakeClock", "FakeGraph", "FakeStream", "play_cuda", "recorded"]


class FakeGraph:
    """Records the calls made while it captures, and makes them again at each replay."""

    capturing: FakeGraph | None = None
    replays = 0
    made: list[weakref.ref[FakeGraph]] = []

    def __init__(self) -> None:
        self.calls: list[Callable[[], None]] = []
        FakeGraph.made.append(weakref.ref(self))

    def replay(self) -> None:
        FakeGraph.replays += 1
        FakeClock.now += FakeClock.launch_seconds
        for call in self.calls:
            call()

    @staticmethod
    def alive() -> int:
        return sum(graph() is not None for graph in FakeGraph.made)


class FakeClock:
    """The device's time, that events read."""

    now = 0.0
    launch_seconds = 4e-6
    step_seconds = 10e-6


class FakeEvent:
    def __init__(self, enable_timing: bool = False) -> None:
        self.at = 0.0

    def record(self, stream: object) -> None:
        self.at = FakeClock.now

    def synchronize(self) -> None:
        FakeStream.calls.append("wait for event")

    def elapsed_time(self, end: FakeEvent) -> float:
        return (end.at - self.at) * 1e3


class FakeStream:
    calls: list[str] = []

    def wait_stream(self, other: object) -> None:
        pass

    def wait_event(self, event: FakeEvent) -> None:
        FakeStream.calls.append("order")

    def synchronize(self) -> None:
        FakeStream.calls.append("synchronize")


class FakePool:
    """Says if it goes before the graphs that use it."""

    id = (0, 1)

    def __del__(self) -> None:
        FakeStream.calls.append(f"pool goes after {FakeGraph.alive()} graphs")


def recorded(function: Callable[[], None]) -> Callable[[], None]:
    """A function that is called outside of a capture, and recorded within one."""

    def call() -> None:
        if FakeGraph.capturing is None:
            function()
        else:
            FakeGraph.capturing.calls.append(function)

    return call


def play_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    """Until the test ends, ``backend="inductor"`` is the graph launch, on CPU tensors, uncompiled."""

    @contextmanager
    def capture(graph: FakeGraph, *, pool: object, stream: object, capture_error_mode: str) -> Iterator[None]:
        assert pool == FakePool.id and isinstance(stream, FakeStream) and capture_error_mode == "thread_local"
        assert FakeGraph.capturing is None, "two captures at once"
        FakeGraph.capturing = graph
        yield
        FakeGraph.capturing = None

    def compiled(graph: fx.GraphModule, example: Any) -> tuple[Callable[..., None], float]:
        def timed(inputs: tuple[Tensor, ...]) -> None:
            FakeClock.now += FakeClock.step_seconds / 2  # noise and step are a call each
            graph(*inputs)

        return lambda *inputs: recorded(lambda: timed(inputs))(), 0.0

    for name, value in {
        "CUDAGraph": FakeGraph,
        "graph": capture,
        "Event": FakeEvent,
        "MemPool": FakePool,
        "Stream": lambda device: FakeStream(),
        "current_stream": lambda device: FakeStream(),
        "stream": lambda s: nullcontext(),
        "device": lambda d: nullcontext(),
        "synchronize": lambda d=None: None,
        "mem_get_info": lambda d: (1 << 30, 2 << 30),
        "memory_reserved": lambda d: 0,
    }.items():
        monkeypatch.setattr(torch.cuda, name, value)
    monkeypatch.setattr(graph_bucket, "compile_graph", compiled)
    monkeypatch.setattr(inductor, "CpuLaunch", cudagraph.CudaGraphLaunch)
    monkeypatch.setattr(FakeClock, "step_seconds", FakeClock.step_seconds)
    FakeGraph.replays, FakeGraph.made, FakeStream.calls = 0, [], []
