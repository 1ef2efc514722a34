"""Which backend ``auto`` takes where two can run an energy: by an estimate, and by a short trial where that is unsure.

A trial is remembered in the cache directory, so that the same energy with about as many chains gets the same backend
in every later process of this machine. All backends agree to rounding, and a state goes on under any of them.
"""

from __future__ import annotations

import hashlib
import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import torch

from compiled_ebm.backends import inductor
from compiled_ebm.backends.base import Chains, Launch
from compiled_ebm.errors import UnsupportedEnergyError
from compiled_ebm.trace import ChainProgram

if TYPE_CHECKING:
    from compiled_ebm.backends.fused.estimate import Estimate

__all__ = ["Choice", "KernelLaunch", "choose"]

_FORMAT = 2
"""Raised when a trial comes to mean something else."""
_FEWEST_CHAINS = 256
_STEP_SECONDS = 0.04
"""Of one step of a trial, by the estimate: fewer chains than asked for step in it if need be."""
_ROUND_SECONDS = 0.02
_ROUNDS = 3
_MOST_STEPS = 64


@dataclass(frozen=True)
class Choice:
    """A backend, and why, in a line."""

    backend: str
    why: str


class KernelLaunch(Launch, Protocol):
    """A generated kernel, which can be judged before it runs."""

    def estimate(self) -> Estimate | None:
        """What a chain-step should take; None where no other backend comes near."""

    def machine(self) -> str:
        """What a trial is good for."""

    def code(self) -> str:
        """What is compiled: equal for equal kernels."""


def choose(program: ChainProgram, fused: KernelLaunch, chains: Chains) -> tuple[Choice, Launch]:
    """Between a kernel that is compiled and what Inductor would make of the program.

    Args:
        program: The program.
        fused: Its kernel.
        chains: The buffers of the run to come; they are only read.

    Returns:
        The choice, and the launch that goes with it.
    """
    expected = fused.estimate()
    if expected is None:
        held = "registers" if program.device.type == "cuda" else "cache"
        return Choice("fused", f"no large matrix products, and all of a tile in {held}: no trial needed"), fused
    if expected.is_sure:
        return Choice("fused", f"estimated {expected}: no trial needed"), fused
    unavailable = inductor.why_unavailable(program.device)
    if unavailable is not None:
        return Choice("fused", f"not inductor: {unavailable}"), fused
    from compiled_ebm.backends.fused import cache  # imported when used, as all of the fused backend

    key = _key(fused, chains)
    trial, remembered = cache.recall(key), ", remembered"
    other: Launch | None = None
    if trial is None:
        trial, other = _trial(program, fused, expected.fused, chains)
        earlier, remembered = cache.recall(key), ""
        if earlier is None:
            cache.remember(key, trial)
        else:  # another process was faster: all go with the first
            trial = earlier
    why = f"estimated {expected}: unsure; {trial['result']}{remembered}"
    if trial["backend"] == "fused":
        return Choice("fused", why), fused
    return Choice("inductor", why), other or inductor.compile(program)


def _key(fused: KernelLaunch, chains: Chains) -> str:
    """Of the kernel, down to its last operation; the machine; the number of chains to a factor of two."""
    n_chains = chains.ids.shape[0].bit_length()
    facts = [torch.__version__, n_chains, fused.machine()]
    return f"choice {_FORMAT} {facts} {hashlib.sha256(fused.code().encode()).hexdigest()}"


def _trial(
    program: ChainProgram, fused: KernelLaunch, expected_ns: float, chains: Chains
) -> tuple[dict[str, Any], Launch | None]:
    """Both, in turns, for a few steps of some of the chains; the fastest round of each counts."""
    workers = 1 if program.device.type == "cuda" else torch.get_num_threads()
    affordable = _STEP_SECONDS * workers / (1e-9 * expected_ns)
    n_chains = min(chains.ids.shape[0], max(_FEWEST_CHAINS, 1 << int(affordable).bit_length() - 1))
    other = inductor.compile(program)
    try:
        runners = {"fused": _Runner(program, fused, chains, n_chains)}
        runners["inductor"] = _Runner(program, other, chains, n_chains)
    except (UnsupportedEnergyError, MemoryError) as error:
        return {"backend": "fused", "result": f"not inductor: {error}"}, None
    ns = {name: math.inf for name in runners}
    for _ in range(_ROUNDS):
        for name, runner in runners.items():
            ns[name] = min(ns[name], runner.ns_a_chain_step())
    winner = min(ns, key=lambda name: ns[name])
    took = ", ".join(f"{name} {value / 1000:.3g} us" for name, value in ns.items())
    where = "" if program.device.type == "cuda" else f" on {workers} threads"
    result = f"a trial of {n_chains:,} chains{where} took {took} a chain-step"
    return {"backend": winner, "result": result}, other


class _Runner:
    """A launch, with buffers of its own."""

    def __init__(self, program: ChainProgram, launch: Launch, chains: Chains, n_chains: int) -> None:
        self._launch = launch
        self._n_chains = n_chains
        self._chains = _copied(chains, launch.capacity(n_chains))
        launch.prepare(self._chains)
        launch.init(self._chains, 0)
        launch.begin(self._chains)
        columns = [column.to(program.carry_dtype) for column in program.transition.hyper_table(0, _MOST_STEPS)]
        self._hyper = torch.stack(columns, dim=1).to(program.device)
        self._steps = 1
        seconds = self._seconds()  # the first call is slower than the rest
        self._steps = max(1, min(_MOST_STEPS, int(_ROUND_SECONDS / seconds)))

    def _seconds(self) -> float:
        begin = time.perf_counter()
        self._launch(self._chains, 0, self._hyper[: self._steps], None)
        self._launch.synchronize()
        return time.perf_counter() - begin

    def ns_a_chain_step(self) -> float:
        """Of one round, by the clock on the wall."""
        return 1e9 * self._seconds() / (self._steps * self._n_chains)


def _copied(chains: Chains, rows: int) -> Chains:
    """So many rows, in memory of their own; the first again and again where there are too few."""
    take = torch.arange(rows, device=chains.ids.device) % chains.ids.shape[0]
    return Chains(
        tuple(leaf[take] for leaf in chains.state),
        chains.failed_at[take],
        chains.ids[take],
        chains.seed,
        tuple(value[take] for value in chains.chain_kwargs),
        chains.shared_kwargs,
    )
