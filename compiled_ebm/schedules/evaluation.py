"""From whatever a user passes for a hyper-parameter to the array of its values, once per run."""

import copy
import math
from array import array
from collections.abc import Callable, Sequence
from numbers import Real
from typing import Any, Protocol, TypeAlias, TypeGuard

import torch

from compiled_ebm.schedules.checks import checked_count, complaint
from compiled_ebm.schedules.forms import Constant, Schedule

__all__ = ["ScheduleLike", "SteppedScheduler", "evaluate", "is_stepped"]


class SteppedScheduler(Protocol):
    """The part of TorchEBM's `BaseScheduler` that is used here; recognised by its methods, never imported."""

    def step(self) -> float: ...
    def get_value(self) -> float: ...
    def reset(self) -> None: ...
    def _compute_value(self) -> float: ...


#: What a hyper-parameter may be given as.
ScheduleLike: TypeAlias = float | Schedule | SteppedScheduler | torch.Tensor | Sequence[float]


def evaluate(
    value: ScheduleLike,
    first_step: int,
    n_steps: int,
    *,
    name: str = "value",
    minimum: float | None = None,
    strict: bool = False,
) -> torch.Tensor:
    """Values of a hyper-parameter over a range of steps.

        out[i] = value at step first_step + i

    A value depends on its step alone: two adjoining ranges give the same numbers, bit for bit, as one long range.
    A number costs one fill. A callable is called once a step, 0.1 to 0.4 µs each for those of this package. A TorchEBM
    scheduler can only be stepped from its start, so that it costs `first_step` more; a copy of it is stepped, and the
    caller's stays as it is, whatever step it has reached.

    Args:
        value: A real number; a callable `int -> float`, such as the schedules of this package; a 0-d tensor; a 1-d
            tensor or sequence with the value of every step from step 0 on; or a TorchEBM scheduler, which is at
            step i after i calls of `step()`.
        first_step: Absolute index of the first step, >= 0.
        n_steps: How many, >= 0.
        name: The hyper-parameter's name, for messages. Default "value".
        minimum: Lower bound. Default: none.
        strict: Whether values must be above `minimum`, not just reach it. Default False.

    Returns:
        float64 [n_steps] on the CPU, contiguous, not shared with `value`.

    Raises:
        TypeError: `value` is none of the above.
        ValueError: A value that is not a real finite number, or is below the minimum, with the first step where; a
            sequence that ends too early; a negative range.

    Example:
        >>> from compiled_ebm.schedules import Linear
        >>> evaluate(Linear(1.0, 0.0, 4), first_step=2, n_steps=3, name="step_size", minimum=0.0).tolist()
        [0.5, 0.25, 0.0]
    """
    first_step = checked_count("first_step", first_step, minimum=0)
    n_steps = checked_count("n_steps", n_steps, minimum=0)
    if isinstance(value, Constant):
        value = value.value
    if isinstance(value, float) and _is_allowed(value, minimum, strict):
        return torch.full((n_steps,), value, dtype=torch.float64, device="cpu")
    # One entry stands for all of a constant, so that the checks below cost nothing.
    constant = isinstance(value, Real) and not isinstance(value, bool)
    values = (
        torch.tensor([value], dtype=torch.float64, device="cpu")
        if constant
        else _values(value, first_step, n_steps, name)
    )
    _require_values(values, torch.isfinite(values), first_step, name, "a finite number")
    if minimum is not None:
        allowed = values > minimum if strict else values >= minimum
        _require_values(values, allowed, first_step, name, f"a number {'>' if strict else '>='} {minimum:g}")
    return values.repeat(n_steps) if constant else values


def _is_allowed(value: float, minimum: float | None, strict: bool) -> bool:
    return math.isfinite(value) and (minimum is None or (value > minimum if strict else value >= minimum))


def _values(value: object, first_step: int, n_steps: int, name: str) -> torch.Tensor:
    if is_stepped(value):
        return _from_scheduler(value, first_step, n_steps, name)
    if callable(value) and not isinstance(value, torch.Tensor):
        return _from_calls(value, range(first_step, first_step + n_steps), name)
    if not isinstance(value, bool | str | bytes) and (isinstance(value, Sequence) or hasattr(value, "__array__")):
        return _from_array(value, first_step, n_steps, name)
    expected = "a number, a callable step -> value, a tensor or sequence of values, or a TorchEBM scheduler"
    got = f"{value!r} ({type(value).__name__})"
    raise TypeError(complaint(name, expected, got, "Pass e.g. 0.01 or Linear(0.1, 0.01, 1000)."))


def is_stepped(value: object) -> TypeGuard[SteppedScheduler]:
    """Whether it is a scheduler in TorchEBM's form, with a counter of its own."""
    return all(callable(getattr(value, method, None)) for method in ("step", "get_value", "reset", "_compute_value"))


def _from_scheduler(scheduler: SteppedScheduler, first_step: int, n_steps: int, name: str) -> torch.Tensor:
    scheduler = copy.deepcopy(scheduler)
    scheduler.reset()
    for _ in range(first_step):
        scheduler.step()

    def advance(step: int) -> object:
        if step > first_step:
            scheduler.step()
        return scheduler.get_value()

    return _from_calls(advance, range(first_step, first_step + n_steps), name)


def _from_calls(schedule: Callable[[int], Any], steps: range, name: str) -> torch.Tensor:
    # Python floats, not torch's vector functions: those may round differently at the end of an array, and the value of
    # a step would depend on where a range begins. `array` refuses what is not real.
    values = array("d")
    for step in steps:
        value = schedule(step)
        try:
            values.append(value)
        except (TypeError, ValueError, RuntimeError, OverflowError) as error:
            got = f"{value!r} ({type(value).__name__})"
            raise ValueError(complaint(f"{name} at step {step}", "a real number", got, "Return a float.")) from error
    return torch.tensor(values, dtype=torch.float64, device="cpu")


def _from_array(value: object, first_step: int, n_steps: int, name: str) -> torch.Tensor:
    try:
        given = torch.as_tensor(value, device="cpu")
        if not isinstance(value, torch.Tensor) and given.dtype == torch.get_default_dtype():
            given = torch.as_tensor(value, device="cpu", dtype=torch.float64)  # lists of Python floats lose no digits
    except (TypeError, ValueError, RuntimeError) as error:
        got = f"{type(value).__name__} ({error})"
        raise TypeError(complaint(name, "a sequence of real numbers", got, "Pass a list of floats.")) from error
    if given.is_complex() or given.dtype == torch.bool:
        raise ValueError(complaint(name, "real numbers", f"dtype {given.dtype}", "Convert it to floating point."))
    if given.ndim > 1:
        remedy = "Pass one value for all chains at every step."
        raise ValueError(complaint(name, "a 0-d or 1-d array", f"shape {tuple(given.shape)}", remedy))
    numbers = given.detach().to(dtype=torch.float64)
    if numbers.ndim == 0:
        return numbers.expand(n_steps).clone()
    if n_steps > 0 and numbers.shape[0] < first_step + n_steps:
        expected = f"at least {first_step + n_steps} values, for steps up to {first_step + n_steps - 1}"
        remedy = "The index is the absolute step: give more values, run fewer steps, or pass a schedule."
        raise ValueError(complaint(name, expected, numbers.shape[0], remedy))
    return numbers[first_step : first_step + n_steps].clone()


def _require_values(values: torch.Tensor, good: torch.Tensor, first_step: int, name: str, expected: str) -> None:
    if not bool(good.all()):
        index = int((~good).nonzero()[0])
        got = f"{values[index].item()!r} at step {first_step + index}"
        raise ValueError(complaint(name, f"{expected} at every step", got, "Correct the value or the schedule."))
