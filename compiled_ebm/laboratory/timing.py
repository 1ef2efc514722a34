"""Timing side by side: build apart, then interleaved rounds, so that a slow spell of the machine hits everyone."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

__all__ = ["Contender", "Timing", "timed_side_by_side", "timer_overhead", "wait_for", "wall_seconds"]

_PAUSE = 0.05
"""Seconds before every timed run: the thread pools of the contender before go on spinning for a few milliseconds."""
_CALLS = 1000


class Contender(Protocol):
    """One way to do the same steps. Every ``run`` starts from the same positions and returns when all are done."""

    name: str

    def build(self) -> float:
        """Compile or warm up; seconds."""

    def run(self) -> Tensor:
        """All steps; the last positions, ``[n_chains, *event]``."""


@dataclass(frozen=True)
class Timing:
    """What one contender took.

    Args:
        name: The contender's.
        build_seconds: Of compiling or warming up, before the first round.
        seconds: Of each round, in their order.
    """

    name: str
    build_seconds: float
    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        """Of the rounds, in seconds."""
        return statistics.median(self.seconds)

    @property
    def drift(self) -> float:
        """Seconds of the last round by those of the first: far from 1, and the machine was not itself."""
        return self.seconds[-1] / self.seconds[0]


def wait_for(device: torch.device) -> None:
    """Until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def wall_seconds(contender: Contender) -> float:
    """One run by the host's clock; a run returns when it is done."""
    begin = time.perf_counter()
    contender.run()
    return time.perf_counter() - begin


def timed_side_by_side(
    contenders: Sequence[Contender],
    rounds: int = 5,
    progress: Callable[[str], None] = lambda message: None,
    timed: Callable[[Contender], float] = wall_seconds,
    built: Mapping[str, float] | None = None,
) -> list[Timing]:
    """Time all contenders, in turn within each round.

    Each is built and run once unrecorded first, and waits before each run until no other's threads spin.

    Args:
        contenders: Of the same work, with names of their own.
        rounds: How often each is timed, >= 1.
        progress: Is told what happens next.
        timed: Runs a contender once and gives the seconds that it took.
        built: Build seconds by name, of those that are built already and have run.

    Raises:
        FloatingPointError: A contender's last positions are not finite.
        ValueError: Two contenders have one name, or there are no rounds.
    """
    names = [contender.name for contender in contenders]
    if len(set(names)) < len(names):
        raise ValueError(f"contenders: expected names of their own, got {', '.join(names)}")
    if rounds < 1:
        raise ValueError(f"rounds: expected at least 1, got {rounds}")
    builds, seconds = dict(built or {}), {name: list[float]() for name in names}
    for contender in contenders:
        if contender.name in builds:
            continue
        progress(f"{contender.name} builds")
        builds[contender.name] = contender.build()
        if not bool(contender.run().isfinite().all()):
            raise FloatingPointError(f"{contender.name}: positions are not finite")
    for index in range(rounds):
        for contender in contenders:
            progress(f"{contender.name}, round {index + 1} of {rounds}")
            time.sleep(_PAUSE)
            seconds[contender.name].append(timed(contender))
    return [Timing(name, builds[name], tuple(seconds[name])) for name in names]


def timer_overhead() -> float:
    """Seconds that timing adds to what it times: the median of a thousand pairs of readings of the clock."""
    found = []
    for _ in range(_CALLS):
        begin = time.perf_counter()
        found.append(time.perf_counter() - begin)
    return statistics.median(found)
