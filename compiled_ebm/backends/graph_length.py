"""How many steps one CUDA graph holds: enough that launching it costs under 2% of its kernels' own time."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch

__all__ = ["LONGEST", "SHORTEST", "StepCost", "measured", "steps_per_graph", "timed_replays"]

SHORTEST, LONGEST = 8, 512
"""Steps in a long graph. Eight are captured anyway, to time them."""
_SHARE = 0.02
"""What the launch may cost, of the time of the graph's kernels."""
_LAUNCH_SECONDS = 3e-6
"""Of a graph at the least, on the host; torch fills two words of its generator's state before each, too."""
_CAPTURE_SECONDS = 1.0
"""Longest capture: the host runs the compiled step's Python once for each step captured."""
_CAPTURE_BYTES = 128 << 20
"""Most memory of the driver's own for one graph."""
_REPLAYS, _REPEATS = 8, 3


class StepCost(NamedTuple):
    """Of one captured step, and of launching a graph."""

    step_seconds: float
    """The kernels of one step, one after the other in a graph."""
    launch_seconds: float
    """What a replay takes beyond its steps."""
    capture_seconds: float
    """To capture and instantiate a step."""
    capture_bytes: float
    """The driver's memory for a step's nodes."""


def steps_per_graph(cost: StepCost) -> int:
    """A power of two from :data:`SHORTEST` to :data:`LONGEST`, as small as launching it for under 2% allows.

    Fewer if capturing so many would take too long or too much memory.
    """
    length = SHORTEST
    while (
        length < LONGEST
        and cost.launch_seconds > _SHARE * length * cost.step_seconds
        and 2 * length * cost.capture_seconds <= _CAPTURE_SECONDS
        and 2 * length * cost.capture_bytes <= _CAPTURE_BYTES
    ):
        length *= 2
    return length


def measured(one_seconds: float, short_seconds: float, capture_seconds: float, capture_bytes: int) -> StepCost:
    """The costs that follow from a replay of one step and one of :data:`SHORTEST`.

    Args:
        one_seconds, short_seconds: Of a replay, back to back with others.
        capture_seconds, capture_bytes: What capturing the graph of :data:`SHORTEST` steps took.
    """
    step = (short_seconds - one_seconds) / (SHORTEST - 1)
    if not step > 0:  # other work on the device between the two
        step = short_seconds / SHORTEST
    launch = max(one_seconds - step, _LAUNCH_SECONDS)
    return StepCost(step, launch, capture_seconds / SHORTEST, max(0, capture_bytes) / SHORTEST)


def timed_replays(graph: Any, device: torch.device) -> float:
    """Seconds a replay on the current stream: the best of a few, since other streams may be at work meanwhile.

    At most :data:`_REPLAYS` * (:data:`_REPEATS` + 1) replays: the cursor that they advance must stay in its table.
    """
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
    stream = torch.cuda.current_stream(device)
    best = float("inf")
    for repeat in range(_REPEATS + 1):  # the first uploads the graph to the device
        begin.record(stream)
        for _ in range(_REPLAYS):
            graph.replay()
        end.record(stream)
        end.synchronize()
        if repeat:
            best = min(best, begin.elapsed_time(end) / 1e3 / _REPLAYS)
    return best
