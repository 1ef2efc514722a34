"""Loops that step from Python: what one would write oneself, and TorchEBM's samplers."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from compiled_ebm.laboratory.dispatch import operations_per_step
from compiled_ebm.laboratory.timing import wait_for
from compiled_ebm.target import Energy, own_gradient
from compiled_ebm.transitions import HMC, Langevin
from compiled_ebm.transitions.base import Transition

__all__ = ["LoopSteps", "compiled_loop", "plain_loop", "torchebm_loop", "why_no_loop", "why_no_torchebm"]

_WARM_UP_STEPS = 5

Sample = Callable[[Tensor, int], Tensor]
"""From positions and a number of steps to the last positions."""


class LoopSteps:
    """A contender that steps from Python.

    Args:
        name: For reports.
        x0: ``[n_chains, *event]``, where the chains start.
        n_steps: Steps of a run.
        sample: Does them.
        compiled: Whether a step is one call of compiled code.
    """

    def __init__(self, name: str, x0: Tensor, n_steps: int, sample: Sample, compiled: bool = False) -> None:
        self.name, self._x0, self._n_steps, self._sample, self._compiled = name, x0, n_steps, sample, compiled

    def build(self) -> float:
        """A few steps, which compile what there is to compile; seconds."""
        begin = time.perf_counter()
        self._sample(self._x0, _WARM_UP_STEPS)
        wait_for(self._x0.device)
        return time.perf_counter() - begin

    def run(self) -> Tensor:
        """All steps from the start; the last positions."""
        x = self._sample(self._x0, self._n_steps)
        wait_for(self._x0.device)
        return x

    def draws(self) -> Tensor:
        """As :meth:`run`: nothing is done about chains that fail."""
        return self.run()

    def launches_per_step(self) -> float:
        """Operations that Python hands over."""
        return 1.0 if self._compiled else operations_per_step(lambda n: self._sample(self._x0, n))


def why_no_loop(transition: Transition) -> str | None:
    """Why the loop that one would write is not there for a transition; None where it is."""
    return None if type(transition) is Langevin else f"it is written for Langevin, not for {type(transition).__name__}"


def plain_loop(energy: Energy, transition: Langevin, x0: Tensor, n_steps: int, seed: int) -> LoopSteps:
    """The loop that one would write: ``autograd.grad`` and ``torch.randn``, step by step."""
    gradient = own_gradient(energy) or _autograd_of(energy)
    rows = [table.tolist() for table in transition.hyper_table(0, max(n_steps, _WARM_UP_STEPS))]

    def sample(x: Tensor, n: int) -> Tensor:
        generator = torch.Generator(x.device).manual_seed(seed)
        for step_size, std in zip(*(row[:n] for row in rows), strict=True):
            slope = gradient(x)
            with torch.no_grad():
                noise = torch.randn(x.shape, generator=generator, device=x.device, dtype=x.dtype)
                x = _clamped(x - step_size * _clipped(slope, transition) + std * noise, transition)
        return x

    return LoopSteps("plain", x0, n_steps, sample)


def compiled_loop(energy: Energy, transition: Langevin, x0: Tensor, n_steps: int, seed: int) -> LoopSteps:
    """The same loop with its step under ``torch.compile``."""

    def total(x: Tensor) -> Tensor:
        return energy(x).sum()

    gradient = own_gradient(energy) or torch.func.grad(total)
    length = max(n_steps, _WARM_UP_STEPS)
    rows = [table.to(x0.device, x0.dtype).unbind() for table in transition.hyper_table(0, length)]

    def step(x: Tensor, step_size: Tensor, std: Tensor) -> Tensor:
        moved = x - step_size * _clipped(gradient(x), transition) + std * torch.randn_like(x)
        return _clamped(moved, transition)

    step.__code__ = step.__code__.replace()  # compilations are counted by code: each loop has its own
    compiled = torch.compile(step, fullgraph=True, dynamic=False)

    def sample(x: Tensor, n: int) -> Tensor:
        on_cuda = x.device.type == "cuda"
        with torch.random.fork_rng([x.device] if on_cuda else []), torch.no_grad():
            if on_cuda:
                with torch.cuda.device(x.device):
                    torch.cuda.manual_seed(seed)
            else:
                torch.default_generator.manual_seed(seed)
            for step_size, std in zip(*(row[:n] for row in rows), strict=True):
                x = compiled(x, step_size, std)
        return x

    return LoopSteps("torch.compile", x0, n_steps, sample, compiled=True)


def _autograd_of(energy: Energy) -> Callable[[Tensor], Tensor]:
    def gradient(x: Tensor) -> Tensor:
        x = x.detach().requires_grad_()
        found: Tensor = torch.autograd.grad(energy(x).sum(), x)[0]
        return found

    return gradient


def _clipped(slope: Tensor, transition: Langevin) -> Tensor:
    if transition.grad_clip is None:
        return slope
    norm = slope.reshape(len(slope), -1).norm(dim=1).reshape(-1, *(1,) * (slope.ndim - 1))
    return torch.where(norm > transition.grad_clip, slope / norm * transition.grad_clip, slope)


def _clamped(x: Tensor, transition: Langevin) -> Tensor:
    return x if transition.clamp is None else x.clamp(*transition.clamp)


def why_no_torchebm(transition: Transition) -> str | None:
    """Why TorchEBM has no sampler of a transition as it is; None where it has."""
    if type(transition) is Langevin:
        changing = [
            v for v in (transition.step_size, transition.noise_scale) if not isinstance(v, (int, float, type(None)))
        ]
        if changing or transition.noise_std is not None or transition.grad_clip is not None:
            return "TorchEBM's LangevinDynamics has no noise_std, no grad_clip and other schedules"
        return None
    if type(transition) is HMC:
        if not isinstance(transition.step_size, (int, float)) or transition.temperature != 1 or transition.jitter:
            return "TorchEBM's HamiltonianMonteCarlo has no temperature, no jitter and other schedules"
        return None
    return f"TorchEBM has no sampler like {type(transition).__name__}"


def torchebm_loop(energy: Energy, transition: Transition, x0: Tensor, n_steps: int, seed: int) -> LoopSteps:
    """TorchEBM's sampler on the energy, wrapped where it is no model of TorchEBM's."""
    from torchebm import samplers

    model, options = _torchebm_model(energy, x0), {"device": x0.device, "dtype": x0.dtype}
    if isinstance(transition, Langevin):
        scale = 1.0 if transition.noise_scale is None else transition.noise_scale
        sampler = samplers.LangevinDynamics(
            model, step_size=transition.step_size, noise_scale=scale, clamp=transition.clamp, **options
        )
    else:
        assert isinstance(transition, HMC)
        sampler = samplers.HamiltonianMonteCarlo(
            model,
            step_size=transition.step_size,
            n_leapfrog_steps=transition.n_leapfrog_steps,
            mass=transition.mass,
            **options,
        )

    def sample(x: Tensor, n: int) -> Tensor:
        out: Tensor = sampler.sample(x=x, n_steps=n, generator=torch.Generator(x.device).manual_seed(seed))
        return out

    return LoopSteps("torchebm", x0, n_steps, sample)


def _torchebm_model(energy: Energy, x0: Tensor) -> Any:
    from torchebm.core import BaseModel

    if isinstance(energy, BaseModel):
        return energy

    class Wrapped(BaseModel):
        def __init__(self) -> None:
            super().__init__()
            self.energy = energy
            # what its samplers take device and dtype from
            self.register_buffer("place", x0.new_zeros(()), persistent=False)

        def forward(self, x: Tensor) -> Tensor:
            return energy(x)

    class WithGradient(Wrapped):
        def gradient(self, x: Tensor, model_kwargs: Any = None) -> Tensor:
            assert own is not None
            return own(x)

    own = own_gradient(energy)
    return Wrapped() if own is None else WithGradient()
