"""Seconds on a GPU: by CUDA events on torch's stream, and of a launch alone."""

from __future__ import annotations

import statistics
from typing import Any

import torch

from benchmarks.contenders import CompiledLangevin
from benchmarks.timing import Row
from compiled_ebm.laboratory.timing import Contender, wall_seconds


def device_seconds(contender: Contender) -> float:
    """One run, between two events; jax has a stream of its own and is timed by the host's clock, as it waits itself."""
    if contender.name.startswith("jax"):
        return wall_seconds(contender)
    begin, end = _events()
    begin.record()
    contender.run()
    end.record()
    end.synchronize()
    return float(begin.elapsed_time(end)) / 1e3


def launch_row(contender: Contender, rounds: int) -> Row | None:
    """The launch alone of one of our backends: median, minimum and maximum seconds; None for the others."""
    if not isinstance(contender, CompiledLangevin):
        return None
    launch = contender.launch()
    launch()
    seconds = []
    for _ in range(rounds):
        torch.cuda.synchronize()
        begin, end = _events()
        begin.record()
        launch()
        end.record()
        end.synchronize()
        seconds.append(float(begin.elapsed_time(end)) / 1e3)
    return {"median": statistics.median(seconds), "min": min(seconds), "max": max(seconds), "seconds": seconds}


def _events() -> tuple[Any, Any]:
    make: Any = torch.cuda.Event
    return make(enable_timing=True), make(enable_timing=True)
