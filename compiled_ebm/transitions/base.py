"""What a transition is: a pure function of one chain."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Protocol, runtime_checkable

from torch import Tensor

__all__ = ["Noise", "NoiseDraw", "Target", "Transition"]


@dataclass(frozen=True)
class Noise:
    """The random numbers that one step of one chain consumes.

    Args:
        normals: Standard normals, as multiples of the event: 1 means one normal for each element of x.
        uniforms: Scalars in (0, 1], for accept decisions and the like.
    """

    normals: int = 1
    uniforms: int = 0


class NoiseDraw(NamedTuple):
    """One step's random numbers for one chain."""

    normals: Tensor
    """``[*event]``, or ``[normals, *event]`` where a transition asks for more than one."""
    uniforms: Tensor
    """``[uniforms]``"""


class Target(Protocol):
    """The density of one chain, as a transition sees it: p(x) proportional to exp(-E(x))."""

    def energy(self, x: Tensor) -> Tensor:
        """E(x), a 0-d tensor in the carried dtype."""

    def energy_and_grad(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """E(x) and its gradient ``[*event]``, in the carried dtype."""


@runtime_checkable
class Transition(Protocol):
    """One MCMC move. Implementations are frozen dataclasses that hold hyper-parameters only.

    ``init`` and ``step`` see ONE chain: no batch dimension, no generator, no I/O. The first two fields of a State
    are always ``x`` and its ``energy``, ``target.energy(x)``: the run loop keeps the one and quarantines chains by
    both. An energy that no later step reads is evaluated where it is looked at only.
    """

    noise: ClassVar[Noise]
    hyper_type: ClassVar[type]

    def init(self, x: Tensor, target: Target) -> Any:
        """The State of a chain that stands at x."""

    def step(self, state: Any, noise: NoiseDraw, hyper: Any, target: Target) -> tuple[Any, Any]:
        """(State, Info) one step later; ``hyper`` is a ``hyper_type`` of 0-d tensors for this step."""

    def hyper_table(self, first_step: int, n_steps: int) -> Any:
        """A ``hyper_type`` of float64 tensors ``[n_steps]``: the schedules, evaluated on the host."""

    def structure(self) -> tuple[object, ...]:
        """What of the hyper-parameters is baked into the traced step; equal structures share one build."""
