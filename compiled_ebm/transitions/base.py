"""What a transition is: a pure function of one chain."""

from __future__ import annotations

import collections
from collections.abc import Callable
from copy import copy
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor

__all__ = [
    "Noise",
    "NoiseDraw",
    "Target",
    "Transition",
    "extended",
    "lasting_of",
    "set_vectors",
    "vectors_of",
    "with_own_vectors",
]


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

    More class variables may be given. ``needs_gradient``, if False, lets energies that have none be sampled.
    ``info_type`` is the NamedTuple of 0-d tensors that a step gives beside the State: without it, a run cannot
    average them. ``vector_fields`` names fields that hold a tensor with the shape of x, or a 0-d one, or None: live
    values, which a sampler takes anew without being built again; inside ``step`` they are in the carried dtype.
    ``lasting`` names fields of the State that are no function of x, such as a momentum: where the weights of an
    energy have changed, they stay, and the other fields are made anew by ``init``.
    """

    @property
    def noise(self) -> Noise:
        """What a step consumes; a class variable will do."""

    @property
    def hyper_type(self) -> type:
        """The NamedTuple of a step's scalars; likewise."""

    def init(self, x: Tensor, target: Target) -> Any:
        """The State of a chain that stands at x."""

    def step(self, state: Any, noise: NoiseDraw, hyper: Any, target: Target) -> tuple[Any, Any]:
        """(State, Info) one step later; ``hyper`` is a ``hyper_type`` of 0-d tensors for this step."""

    def hyper_table(self, first_step: int, n_steps: int) -> Any:
        """A ``hyper_type`` of float64 tensors ``[n_steps]``: the schedules, evaluated on the host."""

    def structure(self) -> tuple[object, ...]:
        """What of the hyper-parameters is baked into the traced step; equal structures share one build."""


def vectors_of(transition: Transition) -> dict[str, Tensor]:
    """The transition's tensors by field; those that are None left out."""
    fields: tuple[str, ...] = getattr(transition, "vector_fields", ())
    return {name: value for name in fields if (value := getattr(transition, name)) is not None}


def with_own_vectors(
    transition: Transition, event_shape: tuple[int, ...], dtype: torch.dtype, device: torch.device
) -> Transition:
    """The transition with copies of its tensors, each with the shape of x: for a trace, which holds on to them.

    Raises:
        ValueError: A tensor has another shape.
    """
    inner = getattr(transition, "transition", None)
    if inner is not None:  # a move around another, whose tensors these are
        copied = copy(transition)
        object.__setattr__(copied, "transition", with_own_vectors(inner, event_shape, dtype, device))
        return copied
    own = {
        name: torch.empty(event_shape, dtype=dtype, device=device).copy_(_fitting(name, value, event_shape, dtype))
        for name, value in vectors_of(transition).items()
    }
    if not own:
        return transition
    copied = copy(transition)
    for name, value in own.items():
        object.__setattr__(copied, name, value)  # it may be frozen, and check and copy what it is made with
    return copied


def set_vectors(own: Transition, wanted: Transition) -> None:
    """The values of another one's tensors into those that a trace holds on to.

    Raises:
        ValueError: A tensor has another shape than x.
    """
    given, held = vectors_of(wanted), vectors_of(own)
    fitting = {name: _fitting(name, value, tuple(held[name].shape), held[name].dtype) for name, value in given.items()}
    for name, value in fitting.items():
        held[name].copy_(value)


def _fitting(name: str, value: Tensor, event_shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    if value.ndim and tuple(value.shape) != event_shape:
        raise ValueError(
            f"{name}: expected a number or a tensor of shape {list(event_shape)}, as x has, got {list(value.shape)}"
        )
    rounded = value.to(dtype)
    if not bool((torch.isfinite(rounded) & ((rounded == 0) == (value == 0))).all()):
        raise ValueError(
            f"{name}: expected values within the range of {dtype}, in which chains are carried, got from "
            f"{float(value.min()):g} to {float(value.max()):g}; choose others, or dtype=torch.float64"
        )
    return value


def lasting_of(transition: Transition) -> tuple[str, ...]:
    """Fields of its State that are no function of x."""
    return getattr(transition, "lasting", ())


def extended(inner: type, further: tuple[str, ...]) -> Callable[..., Any]:
    """A State type with further fields after those of another, which it has as ``inner_type``; one for each pair."""
    key: Any = (inner, further)
    if key not in _extended:
        fields: tuple[str, ...] = inner._fields  # type: ignore[attr-defined]
        made: Any = collections.namedtuple(inner.__name__, (*fields, *further))  # type: ignore[misc]
        setattr(made, "inner_type", inner)  # noqa: B010
        _extended[key] = made
    return _extended[key]


_extended: dict[Any, Callable[..., Any]] = {}
