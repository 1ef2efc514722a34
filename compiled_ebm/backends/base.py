"""What a backend is: one function from a program to a launch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

__all__ = ["FEW_STEPS", "Chains", "Keep", "Launch", "ROW_QUANTUM", "round_up"]

FEW_STEPS = 8
"""Of the first launch of a run whose speed is not known yet."""
ROW_QUANTUM = 16
"""Chains are padded to a multiple of this: below 16 rows BLAS takes other code paths, whose last bits differ."""


@dataclass(frozen=True)
class Chains:
    """The buffers that a launch advances in place, padded to the launch's capacity.

    Args:
        state: The leaves of the transition's State, ``[capacity, ...]``; the first two are x and energy.
        failed_at: int64 ``[capacity]``, the step at which a chain failed, or -1.
        ids: int64 ``[capacity]``, global chain ids.
        seed: int64, 0-d.
        chain_kwargs: Per-chain ``model_kwargs``, ``[capacity, ...]``.
        shared_kwargs: The other tensors of ``model_kwargs``.
    """

    state: tuple[Tensor, ...]
    failed_at: Tensor
    ids: Tensor
    seed: Tensor
    chain_kwargs: tuple[Tensor, ...]
    shared_kwargs: tuple[Tensor, ...]

    def rows(self, start: int, stop: int) -> Chains:
        """A view of some chains."""
        return Chains(
            tuple(t[start:stop] for t in self.state),
            self.failed_at[start:stop],
            self.ids[start:stop],
            self.seed,
            tuple(t[start:stop] for t in self.chain_kwargs),
            self.shared_kwargs,
        )


@dataclass(frozen=True)
class Keep:
    """Where a launch writes draws: after local step t = 1, 2, ... where (phase + t) is a multiple of ``thin``.

    Args:
        x: ``[kept, n_chains, *event]``
        energy: ``[kept, n_chains]``
        thin: Keep every thin-th step.
        phase: Steps done since the last kept one, before this launch.
    """

    x: Tensor
    energy: Tensor
    thin: int
    phase: int

    def segments(self, n_steps: int) -> list[tuple[int, int | None]]:
        """(steps, slot) pairs: how many steps to do, then which slot to write, if any."""
        found: list[tuple[int, int | None]] = []
        done, slot = 0, 0
        while done < n_steps:
            to_next = self.thin - (self.phase + done) % self.thin
            if done + to_next > n_steps:
                found.append((n_steps - done, None))
                break
            found.append((to_next, slot))
            done, slot = done + to_next, slot + 1
        return found


class Launch(Protocol):
    """Compiled code that advances every chain in place."""

    def capacity(self, n_chains: int) -> int:
        """Rows that the buffers need for this many chains."""

    def working_bytes(self, n_chains: int) -> tuple[int, int]:
        """Memory beyond the buffers that a step needs: bytes per chain, and bytes in all."""

    def first_steps(self, n_chains: int) -> int:
        """How long a run's first launch is: ``FEW_STEPS`` where nothing is known of the speed, else some 50 ms."""

    def prepare(self, chains: Chains) -> float:
        """Compile for these buffers, if that is still to do; the seconds it took."""

    def init(self, chains: Chains, step: int) -> None:
        """Fill the state and ``failed_at`` from the positions in ``state[0]``."""

    def begin(self, chains: Chains) -> None:
        """Take the captured tensors as they are now; once before the launches of a run."""

    def __call__(self, chains: Chains, first_step: int, hyper: Tensor, keep: Keep | None) -> None:
        """Do ``hyper.shape[0]`` steps; ``hyper`` is ``[n_steps, n_hyper]`` in the carried dtype."""

    def synchronize(self) -> None:
        """Wait until the launches are done."""

    def facts(self) -> dict[str, object]:
        """What :func:`explain` says of it."""

    def source(self) -> str:
        """The generated code, readable."""


def round_up(n: int, quantum: int) -> int:
    """The least multiple of ``quantum`` that is at least n, and at least one quantum."""
    return max(1, -(-n // quantum)) * quantum
