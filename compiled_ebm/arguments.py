"""Checks of what users hand in: each names the argument, what was expected, what was given and what to do."""

from __future__ import annotations

import math
import operator
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, SupportsIndex

import torch
from torch import Tensor

from compiled_ebm import captures, rng, sourcelines
from compiled_ebm.errors import UnsupportedEnergyError
from compiled_ebm.hosttensors import copied, finite_rows
from compiled_ebm.state import ChainState
from compiled_ebm.trace import KwargsSpec
from compiled_ebm.transitions.base import Transition
from compiled_ebm.transitions.replica_exchange import ReplicaExchange

__all__ = [
    "DTYPES",
    "MAX_STEPS",
    "check_dtypes",
    "check_state",
    "checked_int",
    "checked_kwargs",
    "checked_positions",
    "checked_shape",
    "checked_steps",
    "described_kwargs",
    "naming_kwargs",
    "resolve_device",
]

DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
"""Of the positions that are handed in and out, and of the energy's arithmetic."""
MAX_STEPS = 1 << 32
"""The step is one 32-bit word of the noise's counter; beyond, noise would repeat."""
MAX_EVENT = rng.MAX_NUMBERS
_SLOW_COPY_BYTES_PER_SECOND = 10e9
"""About what a host-to-device copy reaches over PCIe; for the warning's estimate only."""
_LABELS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)


def checked_int(name: str, value: object, lowest: int, highest: int) -> int:
    """``value`` as an int between two bounds, or an error that names the argument."""
    if isinstance(value, bool) or not (isinstance(value, int) or isinstance(value, SupportsIndex)):
        raise TypeError(f"{name}: expected an integer, got {value!r} of type {type(value).__name__}")
    number = operator.index(value)
    if not lowest <= number <= highest:
        raise ValueError(f"{name}: expected an integer from {lowest} to {highest}, got {number}")
    return number


def checked_shape(event_shape: object) -> tuple[int, ...]:
    """An event shape as a tuple of positive integers; an integer is one dimension."""
    given = event_shape
    if isinstance(given, SupportsIndex) and not isinstance(given, (bool, Tensor)):
        given = (given,)
    if not isinstance(given, (tuple, list, torch.Size)) or not all(
        isinstance(n, SupportsIndex) and not isinstance(n, bool) for n in given
    ):
        raise TypeError(f"event_shape: expected a tuple of integers such as (2,) or (1, 28, 28), got {event_shape!r}")
    shape = tuple(operator.index(n) for n in given)
    if any(n < 1 for n in shape):
        raise ValueError(f"event_shape: expected sizes of at least 1, got {shape}")
    if math.prod(shape) > MAX_EVENT:
        raise ValueError(
            f"event_shape: expected at most {MAX_EVENT} elements, the random numbers that a chain can draw in a step, "
            f"got {shape}; split the event over several chains"
        )
    return shape


def check_dtypes(**dtypes: object) -> None:
    """Raise if a dtype is not one of ours."""
    for name, value in dtypes.items():
        if value not in DTYPES:
            raise TypeError(f"{name}: expected one of {', '.join(map(str, DTYPES))}, got {value!r}")


def checked_compute_dtype(dtype: torch.dtype, compute_dtype: torch.dtype | str | None) -> tuple[torch.dtype, bool]:
    """The dtype of the energy, and whether TF32 will do for products; raises if one is not one of ours."""
    check_dtypes(dtype=dtype)
    if compute_dtype == "tf32":
        return torch.float32, True
    if compute_dtype is not None and compute_dtype not in DTYPES:
        names = ", ".join(map(str, DTYPES))
        raise TypeError(f"compute_dtype: expected one of {names} or 'tf32', got {compute_dtype!r}")
    assert not isinstance(compute_dtype, str)
    return compute_dtype or dtype, False


def resolve_device(device: torch.device | str | None, slots: list[captures.Slot]) -> torch.device:
    """The device asked for, else where the energy's tensors are (a GPU if any is on one), else the CPU."""
    if device is not None:
        try:
            found = torch.device(device)
        except (RuntimeError, TypeError) as error:
            raise ValueError(f"device: expected a device such as 'cpu' or 'cuda:0', got {device!r}") from error
    else:
        held = [slot.value.device for slot in captures.tensors(slots)]
        found = next((d for d in held if d.type == "cuda"), torch.device("cpu"))
    if found.type not in ("cpu", "cuda"):
        raise ValueError(f"device: expected 'cpu' or 'cuda', got {str(found)!r}")
    if found.type == "cpu":
        return torch.device("cpu")
    if found.type == "cuda":
        if not torch.cuda.is_available():
            raise ValueError(
                f"device: expected a device of this machine, got {str(found)!r}, and CUDA is not available"
            )
        if found.index is None:
            found = torch.device("cuda", torch.cuda.current_device())
        elif found.index >= torch.cuda.device_count():
            raise ValueError(f"device: expected cuda:0 to cuda:{torch.cuda.device_count() - 1}, got {str(found)!r}")
    return found


def checked_positions(
    x0: Tensor, event_shape: tuple[int, ...], device: torch.device, carry_dtype: torch.dtype
) -> Tensor:
    """A copy of finite positions ``[n_chains, *event]`` on the device, in the carried dtype."""
    if not isinstance(x0, Tensor):
        raise TypeError(f"x0: expected a tensor [n_chains, *{list(event_shape)}], got {type(x0).__name__}")
    if not x0.dtype.is_floating_point:
        raise TypeError(
            f"x0: expected a floating-point dtype, got {x0.dtype}; Langevin moves are continuous: x0.float()"
        )
    if x0.ndim != 1 + len(event_shape) or tuple(x0.shape[1:]) != event_shape or x0.shape[0] < 1:
        raise ValueError(
            f"x0: expected shape [n_chains >= 1, *{list(event_shape)}], got {list(x0.shape)}; the first dimension is "
            f"the chains, and the sampler was built with event_shape={event_shape}"
        )
    if x0.device.type not in ("cpu", "cuda"):
        raise ValueError(f"x0: expected a tensor on the CPU or a GPU, got one on {x0.device}")
    if x0.device != device:
        size = x0.numel() * x0.element_size()
        warnings.warn(
            f"x0 is on {x0.device}, the sampler on {device}: {size / 2**20:.1f} MiB are copied once, about "
            f"{1e3 * size / _SLOW_COPY_BYTES_PER_SECOND:.2f} ms; create x0 with device={str(device)!r}",
            stacklevel=4,  # the caller of Sampler.init, which torch.inference_mode wraps
        )
    positions = copied(x0.detach().to(device=device, dtype=carry_dtype))
    bad = ~finite_rows(positions)
    if bool(bad.any()):
        raise ValueError(
            f"x0: expected finite positions, got NaN or inf in {int(bad.sum())} of {len(bad)} chains, the first "
            f"chain {int(bad.nonzero()[0, 0])}; start every chain where the energy is finite"
        )
    return positions


def check_state(
    state: ChainState, event_shape: tuple[int, ...], device: torch.device, carry_dtype: torch.dtype
) -> None:
    """Raise if a state is not of the sampler's shape, dtype and device."""
    if not isinstance(state, ChainState):
        raise TypeError(f"state: expected a ChainState from init() or run(), got {type(state).__name__}")
    if tuple(state.positions.shape[1:]) != event_shape or state.positions.dtype != carry_dtype:
        raise ValueError(
            f"state: expected positions [n, *{list(event_shape)}] carried in {carry_dtype}, got "
            f"{list(state.positions.shape)} in {state.positions.dtype}; use this sampler's own init()"
        )
    if state.positions.device != device:
        raise ValueError(f"state: expected a state on {device}, got one on {state.positions.device}")


def check_ladders(transition: Transition, state: ChainState) -> None:
    """Raise if replica exchange is to run on chains that are no whole ladders."""
    if not isinstance(transition, ReplicaExchange):
        return
    rungs, first = len(transition.temperatures), int(state.chain_ids[0])
    if state.n_chains % rungs or first % rungs:
        raise ValueError(
            f"state: expected whole ladders of {rungs} chains, one a temperature, got {state.n_chains} chains from "
            f"chain {first} on; choose multiples of {rungs} for n_chains and first_chain"
        )


def checked_steps(n_steps: int, thin: int | None, first_step: int, has_collector: bool) -> tuple[int, int | None]:
    """``n_steps`` and ``thin`` of a run that begins at ``first_step``."""
    n_steps = checked_int("n_steps", n_steps, 0, MAX_STEPS - first_step)
    if thin is not None:
        thin = checked_int("thin", thin, 1, max(1, n_steps))
    elif has_collector:
        raise ValueError("thin: expected a number of steps because a collector is given, got None; thin=1 keeps all")
    return n_steps, thin


def checked_kwargs(model_kwargs: Mapping[str, Any], device: torch.device) -> dict[str, Any]:
    """Keyword arguments of the energy: tensors, on the device, and constants."""
    if not isinstance(model_kwargs, Mapping):
        raise TypeError(f"model_kwargs: expected a mapping of names to values, got {type(model_kwargs).__name__}")
    checked: dict[str, Any] = {}
    for name, value in model_kwargs.items():
        if isinstance(value, Tensor):
            checked[name] = value.detach().to(device)
        elif value is None or isinstance(value, (bool, int, float, str)):
            checked[name] = value
        else:
            raise TypeError(
                f"model_kwargs[{name!r}]: expected a tensor, a number, a string or None, got "
                f"{type(value).__name__}; make it a tensor, or give each of its tensors a name of its own"
            )
    return checked


def described_kwargs(model_kwargs: Mapping[str, Any], spec: KwargsSpec, n_chains: int) -> str:
    """The keyword arguments by name, for messages: shapes, ranges of labels, and how each was taken."""

    def one(name: str, value: object) -> str:
        if not isinstance(value, Tensor):
            return f"{name}={value!r}"
        if name in spec.per_chain:
            how = "per chain"
        else:
            how = "shared by all chains" + (f", as {value.shape[0]} is not {n_chains}" if value.ndim else "")
        what = f"{list(value.shape)} {str(value.dtype).removeprefix('torch.')}"
        if value.device.type == "cpu" and value.numel() and value.dtype in _LABELS:
            what += f" from {int(value.min())} to {int(value.max())}"
        return f"{name} {what} ({how})"

    listed = "; ".join(one(name, value) for name, value in model_kwargs.items())
    return f"model_kwargs for {n_chains} chains: {listed}"


@contextmanager
def naming_kwargs(model_kwargs: Mapping[str, Any], spec: KwargsSpec, n_chains: int) -> Iterator[None]:
    """Within the block, an energy that fails on its keyword arguments is told with their names.

    A label that is out of range in a late chain shows here first: before, the energy has seen a few chains only.
    """
    try:
        yield
    except (UnsupportedEnergyError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        if not model_kwargs:
            raise
        raise UnsupportedEnergyError(
            f"energy: it fails on {n_chains} chains: {type(error).__name__}: {error} (at "
            f"{sourcelines.line_of_error(error)}); {described_kwargs(model_kwargs, spec, n_chains)}; look for labels "
            "out of range"
        ) from error
