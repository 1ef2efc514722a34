"""The specification: a Python loop over ``vmap(step)``, with the user's own energy code at every step.

The transition is mapped over chains; the energy is called on the whole batch, as its author wrote it, so that
breakpoints and prints in it work. Nothing here is traced, which is what makes it worth comparing against.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor

from compiled_ebm import captures
from compiled_ebm.backends.base import FEW_STEPS, ROW_QUANTUM, Chains, Keep, round_up
from compiled_ebm.backends.noise import draw_noise
from compiled_ebm.products import ChainProducts, has_products
from compiled_ebm.target import BatchTarget, Energy
from compiled_ebm.trace import ChainProgram, guarded_init, guarded_step, mutations_undone
from compiled_ebm.transitions.base import NoiseDraw

__all__ = ["EagerLaunch", "compile"]

_NOISE_STEPS = 16
_NOISE_NUMBERS = 1 << 20
"""Numbers drawn ahead at most, 8 MiB of words each way."""


def compile(program: ChainProgram, energy: Energy) -> EagerLaunch:
    """The launch that runs Python at every step."""
    return EagerLaunch(program, energy)


class _OverChains(torch.autograd.Function):
    """A function of one chain whose batching rule is to call the energy once, on all chains."""

    generate_vmap_rule = False

    @staticmethod
    def forward(run: Callable[[Tensor], Any], x: Tensor) -> Any:
        return run(x)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        return None

    @staticmethod
    def vmap(info: Any, in_dims: Any, run: Callable[[Tensor], Any], x: Tensor) -> Any:
        out = run(x.movedim(in_dims[1], 0))
        return out, tuple(0 for _ in out)


class _MappedTarget:
    """One chain's density inside ``vmap``."""

    def __init__(self, batch: BatchTarget, around_call: Callable[[], AbstractContextManager[None]]) -> None:
        self._batch = batch
        self._around_call = around_call

    def energy(self, x: Tensor) -> Tensor:
        return self._over_chains(lambda rows: (self._batch.energy(rows),), x)[0]

    def energy_and_grad(self, x: Tensor) -> tuple[Tensor, Tensor]:
        energy, grad = self._over_chains(self._batch.energy_and_grad, x)
        return energy, grad

    def _over_chains(self, run: Callable[[Tensor], tuple[Tensor, ...]], x: Tensor) -> tuple[Tensor, ...]:
        def call(rows: Tensor) -> tuple[Tensor, ...]:
            with self._around_call():
                return run(rows)

        apply: Callable[..., tuple[Tensor, ...]] = _OverChains.apply
        return apply(call, x)


class EagerLaunch:
    """Advances chains step by step; see the module's docstring."""

    def __init__(self, program: ChainProgram, energy: Energy) -> None:
        self._program = program
        self._energy = energy
        self._slots = captures.find_slots(energy)
        self._has_products = any(has_products(part.body) for part in (program.init, program.step))

    def capacity(self, n_chains: int) -> int:
        """Rows that the buffers need."""
        return round_up(n_chains, ROW_QUANTUM)

    def working_bytes(self, n_chains: int) -> tuple[int, int]:
        """Every chain's intermediate values are alive at once."""
        return self._program.bytes_per_chain(), 0

    def first_steps(self, n_chains: int) -> int:
        """The first launch shows how fast it is."""
        return FEW_STEPS

    def prepare(self, chains: Chains) -> float:
        """Nothing to compile."""
        return 0.0

    def begin(self, chains: Chains) -> None:
        """Nothing to fetch: the energy reads its tensors at every call."""

    def synchronize(self) -> None:
        """Wait for the device."""
        if self._program.device.type == "cuda":
            torch.cuda.synchronize(self._program.device)

    def _target(self, chains: Chains) -> _MappedTarget:
        p = self._program
        kwargs: dict[str, Any] = dict(p.kwargs.constants)
        names = (*p.kwargs.per_chain, *p.kwargs.shared)
        kwargs |= {k: self._cast(v) for k, v in zip(names, (*chains.chain_kwargs, *chains.shared_kwargs), strict=True)}
        around = functools.partial(self._around_call, chains.ids.shape[0])
        return _MappedTarget(BatchTarget(self._energy, kwargs, p.compute_dtype, p.carry_dtype), around)

    @contextmanager
    def _around_call(self, n_chains: int) -> Iterator[None]:
        """The energy sees its tensors in the compute dtype; where it keeps a state of its own, the same one again."""
        undone = mutations_undone(self._slots, []) if self._program.notes else nullcontext()
        products = ChainProducts(n_chains) if self._has_products else nullcontext()
        with captures.substituted(self._slots, self._cast), undone, products:
            yield

    def _cast(self, tensor: Tensor) -> Tensor:
        return tensor.to(self._program.compute_dtype) if tensor.dtype.is_floating_point else tensor

    @torch.no_grad()
    def init(self, chains: Chains, step: int) -> None:
        """State at the positions in ``chains.state[0]``."""
        target, transition = self._target(chains), self._program.transition
        index = torch.tensor(step, dtype=torch.int64, device=chains.ids.device)

        def one(x: Tensor) -> tuple[Any, Tensor]:
            return guarded_init(transition, target, x, index)

        state, failed = torch.vmap(one)(chains.state[0])
        for buffer, value in zip((*chains.state, chains.failed_at), (*state, failed), strict=True):
            buffer.copy_(value)

    @torch.no_grad()
    def __call__(self, chains: Chains, first_step: int, hyper: Tensor, keep: Keep | None) -> None:
        """``hyper.shape[0]`` steps of every chain."""
        segments = keep.segments(hyper.shape[0]) if keep else [(hyper.shape[0], None)]
        done = 0
        for n_steps, slot in segments:
            for i, noise in self._noise(chains, first_step + done, n_steps):
                self._one_step(chains, first_step + done + i, hyper[done + i], noise)
            done += n_steps
            if keep is not None and slot is not None:
                n = keep.x.shape[1]
                keep.x[slot] = chains.state[0][:n]
                keep.energy[slot] = chains.state[1][:n]

    def _noise(self, chains: Chains, first_step: int, n_steps: int) -> Iterator[tuple[int, NoiseDraw]]:
        """Each step's noise, drawn for several steps at once: a draw is 150 small operations."""
        p, n = self._program, chains.ids.shape[0]
        per_step = n * (p.event_numel * p.transition.noise.normals + p.transition.noise.uniforms)
        ahead = max(1, min(_NOISE_STEPS, _NOISE_NUMBERS // max(per_step, 1)))
        for start in range(0, n_steps, ahead):
            count = min(ahead, n_steps - start)
            first = first_step + start
            steps = torch.arange(first, first + count, dtype=torch.int64, device=chains.ids.device)
            draw = draw_noise(p, chains.seed, steps.unsqueeze(1), chains.ids.expand(count, n))
            for i in range(count):
                yield start + i, NoiseDraw(draw.normals[i], draw.uniforms[i])

    def _one_step(self, chains: Chains, step: int, row: Tensor, noise: NoiseDraw) -> None:
        p, target = self._program, self._target(chains)
        index = torch.tensor(step, dtype=torch.int64, device=row.device)
        hyper = p.transition.hyper_type(*row)

        def one(failed_at: Tensor, draw: NoiseDraw, *leaves: Tensor) -> tuple[tuple[Tensor, ...], Tensor]:
            state, failed = guarded_step(p.transition, target, p.state_type(*leaves), failed_at, index, draw, hyper)
            return tuple(state), failed

        state, failed = torch.vmap(one)(chains.failed_at, noise, *chains.state)
        for buffer, value in zip((*chains.state, chains.failed_at), (*state, failed), strict=True):
            buffer.copy_(value)

    def facts(self) -> dict[str, object]:
        """For explain()."""
        return {"compiled": "nothing: every operation is dispatched by Python at every step"}

    def source(self) -> str:
        """The traced step: what the compiled backends start from."""
        return self._program.code()
