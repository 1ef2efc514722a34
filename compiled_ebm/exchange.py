"""The swaps of replica exchange, between launches and on the chains' own device."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from compiled_ebm import rng
from compiled_ebm.backends.base import Chains

__all__ = ["Exchange"]


class Exchange:
    """Swaps temperatures of neighbouring rungs after every so many steps, and records who was where.

    Args:
        n_rungs: Temperatures of a ladder, R.
        every: Steps between swaps; they happen after steps whose number, counted from 1, is a multiple.
        n_chains: A multiple of R; further rows are padding.
        fields: Names of the leaves of the state.
        inverse_temperature: ``step -> 1 / T``, 0-d, of the move's own temperature, which multiplies the ladder's.
        first_step, thin: Of the run: where it begins, and which draws are kept.
        device: Where the chains are.
    """

    def __init__(
        self,
        n_rungs: int,
        every: int,
        n_chains: int,
        fields: tuple[str, ...],
        inverse_temperature: Callable[[int], Tensor],
        first_step: int,
        thin: int | None,
        device: torch.device,
    ) -> None:
        self._n_rungs, self._every, self._n = n_rungs, every, n_chains
        self._at = {name: k for k, name in enumerate(fields)}
        self._own = inverse_temperature
        self._first, self._thin, self._kept = first_step, thin, 0
        self._temperatures: list[Tensor] = []
        self._accepted = torch.zeros(n_rungs - 1, dtype=torch.float64, device=device)
        self._tried = [0] * (n_rungs - 1)

    def until(self, step: int) -> int:
        """Steps from this one to the next swap."""
        return self._every - step % self._every

    def act(self, chains: Chains, step: int) -> None:
        """Note the temperatures of the draws kept in this launch, then swap if it is time."""
        if self._thin is not None:
            kept = (step - self._first) // self._thin
            now = chains.state[self._at["temperature"]][: self._n].clone()
            self._temperatures += [now] * (kept - self._kept)
            self._kept = kept
        if step % self._every == 0:
            self._swap(chains, step)

    def _swap(self, chains: Chains, step: int) -> None:
        n, rungs = self._n, self._n_rungs
        leaf = chains.state[self._at["temperature"]]
        temperature, energy = leaf[:n].view(-1, rungs), chains.state[1][:n].view(-1, rungs)
        alive = chains.failed_at[:n].view(-1, rungs) < 0
        order = temperature.argsort(dim=1)  # of each rung, the chain that is on it
        parity = step // self._every % 2 if rungs > 2 else 0  # two rungs are one pair, and no other takes its turn
        low, high = order[:, parity:-1:2], order[:, parity + 1 :: 2]

        def of(values: Tensor, which: Tensor) -> Tensor:
            return values.gather(1, which)

        cold, hot = of(temperature, low).double(), of(temperature, high).double()
        difference = of(energy, low).double() - of(energy, high).double()
        log_ratio = (1 / cold - 1 / hot) * difference * self._own(step - 1)
        ladders = chains.ids[:n:rungs]
        index = torch.full((), step, dtype=torch.int64, device=ladders.device)
        uniform = rng.uniforms(chains.seed, index, ladders, rungs, rng.Stream.EXCHANGE, torch.float64)
        swap = (uniform[:, parity : rungs - 1 : 2] <= log_ratio.clamp(max=0.0).exp()) & of(alive, low) & of(alive, high)
        self._accepted[parity::2] += swap.sum(dim=0)
        for pair in range(parity, rungs - 1, 2):
            self._tried[pair] += n // rungs
        for name in ("temperature", "step_factor"):
            values = chains.state[self._at[name]][:n].view(-1, rungs)
            a, b = of(values, low), of(values, high)
            values.scatter_(1, low, torch.where(swap, b, a)).scatter_(1, high, torch.where(swap, a, b))
        if "momentum" in self._at:
            ratio = torch.ones_like(temperature)
            up = (hot / cold).sqrt().to(ratio.dtype)
            ratio.scatter_(1, low, torch.where(swap, up, 1.0)).scatter_(1, high, torch.where(swap, 1 / up, 1.0))
            momentum = chains.state[self._at["momentum"]]
            momentum[:n].mul_(ratio.reshape(n, *(1,) * (momentum.ndim - 1)))

    def acceptance(self) -> Tensor:
        """float64 ``[R - 1]``: of the swaps tried between rungs r and r + 1, by temperature, the part accepted."""
        tried = torch.tensor(self._tried, dtype=torch.float64, device=self._accepted.device)
        return self._accepted / tried

    def temperatures(self) -> Tensor | None:
        """``[n_chains, n_kept]``: at which temperature each kept draw was made."""
        if self._thin is None:
            return None
        if not self._temperatures:
            return self._accepted.new_empty((self._n, 0))
        return torch.stack(self._temperatures, dim=1)
