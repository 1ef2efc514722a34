"""The run loop: launches of 50 to 200 ms, with the host awake in between for the bar, the draws and Ctrl-C."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Protocol

import torch
from torch import Tensor

from compiled_ebm.backends.base import Chains, Keep, Launch
from compiled_ebm.draws.memory import Collector

__all__ = ["MAX_LAUNCH_STEPS", "Interlude", "advance"]

_LAUNCH_SECONDS = 0.1
MAX_LAUNCH_STEPS = 1 << 16
_KEEP_BYTES = 64 << 20
"""Bytes of kept draws that one launch may hold before they are handed on."""


class Interlude(Protocol):
    """What is done to the chains between launches, on their device."""

    def until(self, step: int) -> int | None:
        """Steps that a launch which begins at this one may do before the next time, or None for any number."""

    def act(self, chains: Chains, step: int) -> None:
        """Called after each launch, with the step that comes next."""


class _Interrupt:
    def __init__(self) -> None:
        self.requested = False


@contextmanager
def _deferred_interrupt() -> Iterator[_Interrupt]:
    """Within the block the first Ctrl-C only sets a flag; a second one raises as usual."""
    flag = _Interrupt()
    if threading.current_thread() is not threading.main_thread():
        yield flag
        return
    previous = signal.getsignal(signal.SIGINT)
    if previous in (None, signal.SIG_IGN):  # installed from C, or ignored as under nohup: not ours to replace
        yield flag
        return

    def handler(signum: int, frame: FrameType | None) -> None:
        if flag.requested:
            raise KeyboardInterrupt
        flag.requested = True

    signal.signal(signal.SIGINT, handler)
    try:
        yield flag
    finally:
        signal.signal(signal.SIGINT, previous)


def advance(
    launch: Launch,
    chains: Chains,
    n_chains: int,
    first_step: int,
    n_steps: int,
    hyper: Callable[[int, int], Tensor],
    *,
    thin: int | None,
    collector: Collector | None,
    report: Callable[[int], None],
    interludes: Sequence[Interlude] = (),
) -> tuple[int, int]:
    """Do ``n_steps`` steps in stretches of about 100 ms, each one launch, or several with interludes between.

    Args:
        launch: Compiled code.
        chains: Buffers to advance in place.
        n_chains: Rows that are chains; the rest is padding.
        first_step: The step index of the first step.
        n_steps: How many.
        hyper: ``(done, count)`` to the next ``count`` steps' hyper-parameters, ``[count, n_hyper]`` on the device.
        thin, collector: Keep every thin-th step's draws, if given.
        report: Called with the number of steps done, after each stretch.
        interludes: What is done between launches; the host does not wait for the device there.

    Returns:
        Steps done (fewer than asked after Ctrl-C) and launches made.
    """
    done = n_launches = 0
    room: Keep | None = None
    wanted = launch.first_steps(n_chains)
    with _deferred_interrupt() as interrupt:
        while done < n_steps and not interrupt.requested:
            begin, start = time.perf_counter(), done
            stretch = min(wanted, n_steps - done)
            while done < start + stretch and not interrupt.requested:
                step = first_step + done
                limits = [limit for interlude in interludes if (limit := interlude.until(step)) is not None]
                count = min(start + stretch - done, MAX_LAUNCH_STEPS, *limits)
                keep = None
                if thin is not None and collector is not None:
                    keep, room, count = _keep(chains, n_chains, thin, done, count, room)
                launch(chains, step, hyper(done, count), keep)
                done += count
                n_launches += 1
                for interlude in interludes:
                    interlude.act(chains, first_step + done)
                if keep is not None and collector is not None and keep.x.shape[0]:
                    collector.write(keep.x, keep.energy)
            launch.synchronize()
            seconds = time.perf_counter() - begin
            report(done)
            # at most eight-fold growth: the first launches also pay for cold caches
            wanted = max(1, min(8 * stretch, int(stretch * _LAUNCH_SECONDS / max(seconds, 1e-6))))
    return done, n_launches


def _keep(chains: Chains, n_chains: int, thin: int, done: int, count: int, room: Keep | None) -> tuple[Keep, Keep, int]:
    """Buffers for what the next ``count`` steps keep; the count shrinks if that would be too much at once.

    ``room`` is what the launch before had, used again if it is enough: launches of one length allocate nothing.
    """
    x = chains.state[0]
    bytes_per_draw = n_chains * (x[0].numel() + 1) * x.element_size()
    count = min(count, max(1, _KEEP_BYTES // max(bytes_per_draw, 1)) * thin)
    phase = done % thin
    kept = (phase + count) // thin
    if room is None or room.x.shape[0] < kept:
        room = Keep(
            torch.empty((kept, n_chains, *x.shape[1:]), dtype=x.dtype, device=x.device),
            torch.empty((kept, n_chains), dtype=x.dtype, device=x.device),
            thin,
            phase,
        )
    return Keep(room.x[:kept], room.energy[:kept], thin, phase), room, count
