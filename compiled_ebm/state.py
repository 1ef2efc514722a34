"""What a sampler hands out: the chains, and what a run gave."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["ChainState", "RunResult", "RunStats"]


@dataclass(frozen=True, eq=False)
class ChainState:
    """Chains between runs: everything that is needed to go on, bit for bit.

    ``torch.save`` and ``torch.load`` keep it; a sampler of the same energy goes on from it in another process.
    Positions and the transition's other per-chain values are carried in at least float32; ``x`` is rounded to the
    sampler's dtype. Noise depends on (seed, step, chain id) alone, so this is the whole state.

    Args:
        positions: ``[n_chains, *event]``, float32 or float64.
        carried: The transition's other leaves (energy, gradient, ...), or None before the first run.
        failed_at: int64 ``[n_chains]``: the step at which the chain's energy or position was not finite, or -1.
        chain_ids: int64 ``[n_chains]``, global.
        seed: The 64-bit seed.
        step: Steps done since the start.
        dtype: The dtype of ``x``.
        weights: A checksum of the tensors that ``carried`` was computed from.
        leaves: What ``carried`` holds, by name: another move takes it only where its own leaves have these names.
    """

    positions: Tensor
    carried: tuple[Tensor, ...] | None
    failed_at: Tensor
    chain_ids: Tensor
    seed: int
    step: int
    dtype: torch.dtype
    weights: tuple[int, ...] | None = None
    leaves: tuple[str, ...] | None = None

    @property
    def x(self) -> Tensor:
        """Positions ``[n_chains, *event]`` in the sampler's dtype."""
        return self.positions.to(self.dtype)

    @property
    def energy(self) -> Tensor | None:
        """E(x) ``[n_chains]``, or None before the first run."""
        return None if self.carried is None else self.carried[0]

    @property
    def n_chains(self) -> int:
        """How many chains."""
        return self.positions.shape[0]

    @property
    def n_failed(self) -> int:
        """How many chains have failed; waits for the device."""
        return int((self.failed_at >= 0).sum())

    def __repr__(self) -> str:
        return (
            f"ChainState(n_chains={self.n_chains}, event_shape={tuple(self.positions.shape[1:])}, step={self.step}, "
            f"seed={self.seed}, dtype={self.dtype}, device={self.positions.device})"
        )


@dataclass(frozen=True)
class RunStats:
    """Figures of one run.

    Args:
        n_chains: Chains advanced.
        n_steps: Steps done by each; fewer than asked if the run was interrupted.
        n_failed: Chains that are at their last finite position because their energy or position was not finite.
        first_failed_step: The earliest such step, or None.
        build_seconds: Tracing, compiling and capturing that this run had to do.
        run_seconds: The rest.
        n_launches: Calls into compiled code.
        interrupted: Whether Ctrl-C ended the run early.
        info: With ``info=True``, float64 ``[n_chains]`` means over the run's steps of what the transition tells:
            energy, acceptance, accepted, divergent, as it has them.
        info_draws: With ``thin`` too, the same ``[n_chains, n_kept]`` over the steps that lead to each draw.
        swap_acceptance: Of replica exchange: float64 ``[R - 1]``, the part of the swaps that were accepted between
            neighbours, the coldest first.
        temperatures: Of replica exchange with ``thin``: ``[n_chains, n_kept]``, at which each draw was made.
    """

    n_chains: int
    n_steps: int
    n_failed: int
    first_failed_step: int | None
    build_seconds: float
    run_seconds: float
    n_launches: int
    interrupted: bool
    info: dict[str, Tensor] | None = None
    info_draws: dict[str, Tensor] | None = None
    swap_acceptance: Tensor | None = None
    temperatures: Tensor | None = None

    @property
    def chain_steps_per_second(self) -> float:
        """Steps of one chain, per second of run time."""
        return self.n_chains * self.n_steps / self.run_seconds if self.run_seconds > 0 else 0.0


class RunResult(NamedTuple):
    """What a run gave."""

    state: ChainState
    """The chains at the end."""
    draws: Tensor | None
    """Kept draws ``[n_chains, n_steps // thin, *event]``, or None if no ``thin`` was given."""
    stats: RunStats
    """Figures."""

    def at_temperature(self, temperature: float) -> Tensor:
        """The draws that replica exchange made at one temperature: ``[n_ladders, n_kept, *event]``.

        Raises:
            ValueError: There are no draws, or none at this temperature.
        """
        if self.draws is None or self.stats.temperatures is None:
            raise ValueError("at_temperature: expected draws of ReplicaExchange, got none; run it with thin=1, say")
        if isinstance(temperature, bool) or not isinstance(temperature, (int, float)):
            raise TypeError(f"temperature: expected a number, got {type(temperature).__name__}")
        held, swaps = self.stats.temperatures, self.stats.swap_acceptance
        assert swaps is not None
        n_kept = held.shape[1]
        if n_kept == 0:
            return self.draws[: len(self.draws) // (len(swaps) + 1)]
        rungs = sorted(set(held[:, 0].tolist()))
        nearest = min(rungs, key=lambda rung: abs(rung - temperature))
        if not abs(nearest - temperature) <= 1e-6 * abs(temperature):  # or is NaN
            raise ValueError(f"temperature: expected one of {rungs}, got {temperature}")
        chosen = held.view(-1, len(rungs), n_kept) == nearest
        ladders = self.draws.view(-1, len(rungs), *self.draws.shape[1:])
        index = chosen.int().argmax(dim=1)[:, None].reshape(-1, 1, n_kept, *(1,) * (self.draws.ndim - 2))
        return ladders.gather(1, index.expand(-1, 1, -1, *self.draws.shape[2:])).squeeze(1)


# plain tensors and numbers: torch.load takes them as it does weights
torch.serialization.add_safe_globals([ChainState, RunResult, RunStats])
