"""Schedules: hyper-parameters as functions of the step.

A schedule is any callable `step -> value`, pure: the same step always gives the same value. Those here are frozen
dataclasses with the formulas of TorchEBM's schedulers, which carry a step counter of their own instead. `evaluate`
turns whatever a user passes for a hyper-parameter into the array of its values, once per run.

Step 0 is the first transition: it takes from x⁰ to x¹, with the value `schedule(0)`.
"""

import copy
import math
from array import array
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any, Protocol, TypeAlias, TypeGuard

import torch

__all__ = [
    "Constant",
    "Cosine",
    "Exponential",
    "Geometric",
    "Linear",
    "MultiStep",
    "Schedule",
    "ScheduleLike",
    "SteppedScheduler",
    "Warmup",
    "evaluate",
]

#: Value of a hyper-parameter at a step >= 0.
Schedule: TypeAlias = Callable[[int], float]


class SteppedScheduler(Protocol):
    """The part of TorchEBM's `BaseScheduler` that is used here; recognised by its methods, never imported."""

    def step(self) -> float: ...
    def get_value(self) -> float: ...
    def reset(self) -> None: ...
    def _compute_value(self) -> float: ...


#: What a hyper-parameter may be given as.
ScheduleLike: TypeAlias = float | Schedule | SteppedScheduler | torch.Tensor | Sequence[float]


@dataclass(frozen=True)
class Constant:
    """One value at every step.

        v(t) = value

    Args:
        value: Any finite number.

    Raises:
        TypeError, ValueError: value is not a finite real number.

    Source: TorchEBM's `ConstantScheduler`.

    Example:
        >>> Constant(0.1)(1000)
        0.1
    """

    value: float

    def __post_init__(self) -> None:
        _set_numbers(self, "value")

    def __call__(self, step: int) -> float:
        return self.value


@dataclass(frozen=True)
class Linear:
    """A straight line from one value to another, held from there on.

        v(t) = start + t (end - start) / n_steps  for t < n_steps, else end

    Args:
        start: Value at step 0.
        end: Value from step `n_steps` on.
        n_steps: Steps that it takes, >= 1.

    Raises:
        TypeError, ValueError: An argument is not a number in its range.

    Source: TorchEBM's `LinearScheduler`.

    Example:
        >>> [Linear(1.0, 0.0, 4)(step) for step in range(6)]
        [1.0, 0.75, 0.5, 0.25, 0.0, 0.0]
    """

    start: float
    end: float
    n_steps: int

    def __post_init__(self) -> None:
        _set_numbers(self, "start", "end")
        _set_count(self, "n_steps")

    def __call__(self, step: int) -> float:
        if step >= self.n_steps:
            return self.end
        return self.start + (self.end - self.start) / self.n_steps * step


@dataclass(frozen=True)
class Cosine:
    """Half a cosine wave from one value to another, held from there on: slow, fast, slow.

        v(t) = end + (start - end) (1 + cos(π t / n_steps)) / 2  for t < n_steps, else end

    Args:
        start: Value at step 0.
        end: Value from step `n_steps` on.
        n_steps: Steps that it takes, >= 1.

    Raises:
        TypeError, ValueError: An argument is not a number in its range.

    Source: TorchEBM's `CosineScheduler`; I. Loshchilov, F. Hutter, SGDR (2017), equation 5, without restarts.

    Example:
        >>> [round(Cosine(1.0, 0.0, 4)(step), 3) for step in range(6)]
        [1.0, 0.854, 0.5, 0.146, 0.0, 0.0]
    """

    start: float
    end: float
    n_steps: int

    def __post_init__(self) -> None:
        _set_numbers(self, "start", "end")
        _set_count(self, "n_steps")

    def __call__(self, step: int) -> float:
        if step >= self.n_steps:
            return self.end
        if step == 0:
            return self.start  # the line below rounds
        return self.end + (self.start - self.end) * (0.5 * (1 + math.cos(math.pi * (step / self.n_steps))))


@dataclass(frozen=True)
class Exponential:
    """Exponential decay down to a floor.

        v(t) = max(min_value, start · decay_rateᵗ)

    Args:
        start: Value at step 0, at least `min_value`.
        decay_rate: Factor a step, in (0, 1].
        min_value: The floor, >= 0. Default 0.

    Raises:
        TypeError, ValueError: An argument is not a number in its range.

    Source: TorchEBM's `ExponentialDecayScheduler`.

    Example:
        >>> [Exponential(1.0, 0.5, min_value=0.2)(step) for step in range(4)]
        [1.0, 0.5, 0.25, 0.2]
    """

    start: float
    decay_rate: float
    min_value: float = 0.0

    def __post_init__(self) -> None:
        _set_numbers(self, "start", "decay_rate", "min_value")
        _require(self, "decay_rate", 0.0 < self.decay_rate <= 1.0, "a number in (0, 1]")
        _require(self, "min_value", self.min_value >= 0.0, "a number >= 0")
        _require(self, "start", self.start >= self.min_value, f"a number >= min_value ({self.min_value:g})")

    def __call__(self, step: int) -> float:
        return max(self.min_value, self.start * self.decay_rate**step)


@dataclass(frozen=True)
class MultiStep:
    """A factor at every milestone, constant between them.

        v(t) = start · gammaᵏ,  k = number of milestones <= t

    Args:
        start: Value before the first milestone.
        milestones: Steps, >= 1 and strictly increasing.
        gamma: The factor, >= 0. Default 0.1.

    Raises:
        TypeError, ValueError: An argument is not a number in its range; milestones that do not increase.

    Source: TorchEBM's `MultiStepScheduler`.

    Example:
        >>> [MultiStep(8.0, (2, 3), gamma=0.5)(step) for step in range(5)]
        [8.0, 8.0, 4.0, 2.0, 2.0]
    """

    start: float
    milestones: Sequence[int]
    gamma: float = 0.1

    def __post_init__(self) -> None:
        _set_numbers(self, "start", "gamma")
        _require(self, "gamma", self.gamma >= 0.0, "a number >= 0")
        try:
            given = tuple(self.milestones)
        except TypeError as error:
            got = repr(self.milestones)
            message = _complaint("MultiStep: milestones", "a sequence of integers", got, "Pass a tuple.")
            raise TypeError(message) from error
        milestones = tuple(_count(f"MultiStep: milestones[{i}]", value) for i, value in enumerate(given))
        object.__setattr__(self, "milestones", milestones)
        increasing = all(a < b for a, b in zip(milestones, milestones[1:], strict=False))
        _require(self, "milestones", increasing, "strictly increasing steps")

    def __call__(self, step: int) -> float:
        return self.start * self.gamma ** bisect_right(self.milestones, step)


@dataclass(frozen=True)
class Warmup:
    """A linear rise to the first value of another schedule, which then begins.

        v(t) = u (f + (1 - f) t / w)  for t <= w, else schedule(t - w)
        u = schedule(0),  f = init_factor,  w = warmup_steps

    Args:
        schedule: What follows: any schedule.
        warmup_steps: w >= 1.
        init_factor: f, the part of u at step 0. Default 0.01.

    Raises:
        TypeError, ValueError: schedule is not a callable that gives a finite number at step 0; another argument is not
            a number in its range.

    Source: TorchEBM's `WarmupScheduler`.

    Example:
        >>> schedule = Warmup(Linear(1.0, 0.0, 2), warmup_steps=4, init_factor=0.0)
        >>> [schedule(step) for step in range(8)]
        [0.0, 0.25, 0.5, 0.75, 1.0, 0.5, 0.0, 0.0]
    """

    schedule: Schedule
    warmup_steps: int
    init_factor: float = 0.01

    def __post_init__(self) -> None:
        _set_count(self, "warmup_steps")
        _set_numbers(self, "init_factor")
        if not callable(self.schedule):
            remedy = "Wrap a number: Constant(0.1)."
            raise TypeError(_complaint("Warmup: schedule", "a callable step -> value", repr(self.schedule), remedy))
        _number("Warmup: schedule(0)", self.schedule(0))

    def __call__(self, step: int) -> float:
        if step > self.warmup_steps:
            return self.schedule(step - self.warmup_steps)
        target = self.schedule(0)
        first = target * self.init_factor
        return first + step / self.warmup_steps * (target - first)


@dataclass(frozen=True)
class Geometric:
    """A constant ratio a step from one value to another, held from there on: a straight line in the logarithm.

        v(t) = start^(1 - t / n_steps) end^(t / n_steps)  for t < n_steps, else end

    Args:
        start: Value at step 0, > 0.
        end: Value from step `n_steps` on, > 0.
        n_steps: Steps that it takes, >= 1.

    Raises:
        TypeError, ValueError: An argument is not a number in its range.

    Source: the noise levels of Y. Song, S. Ermon, Generative modeling by estimating gradients of the data distribution
    (2019), section 4.2.

    Example:
        >>> [round(Geometric(1.0, 0.01, 2)(step), 12) for step in range(4)]
        [1.0, 0.1, 0.01, 0.01]
    """

    start: float
    end: float
    n_steps: int

    def __post_init__(self) -> None:
        _set_numbers(self, "start", "end")
        _set_count(self, "n_steps")
        _require(self, "start", self.start > 0.0, "a number > 0")
        _require(self, "end", self.end > 0.0, "a number > 0")

    def __call__(self, step: int) -> float:
        if step >= self.n_steps:
            return self.end
        done = step / self.n_steps
        return math.pow(self.start, 1 - done) * math.pow(self.end, done)  # end / start itself may overflow


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
    A number costs one fill. A callable is called once a step, 0.1 to 0.4 µs each for those of this module. A TorchEBM
    scheduler can only be stepped from its start, so that it costs `first_step` more; a copy of it is stepped, and the
    caller's stays as it is, whatever step it has reached.

    Args:
        value: A real number; a callable `int -> float`, such as the schedules of this module; a 0-d tensor; a 1-d
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
        >>> evaluate(Linear(1.0, 0.0, 4), first_step=2, n_steps=3, name="step_size", minimum=0.0).tolist()
        [0.5, 0.25, 0.0]
    """
    first_step = _count("first_step", first_step, minimum=0)
    n_steps = _count("n_steps", n_steps, minimum=0)
    if isinstance(value, Constant):
        value = value.value
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


def _values(value: object, first_step: int, n_steps: int, name: str) -> torch.Tensor:
    if _is_stepped(value):
        return _from_scheduler(value, first_step, n_steps, name)
    if callable(value) and not isinstance(value, torch.Tensor):
        return _from_calls(value, range(first_step, first_step + n_steps), name)
    if not isinstance(value, bool | str | bytes) and (isinstance(value, Sequence) or hasattr(value, "__array__")):
        return _from_array(value, first_step, n_steps, name)
    expected = "a number, a callable step -> value, a tensor or sequence of values, or a TorchEBM scheduler"
    got = f"{value!r} ({type(value).__name__})"
    raise TypeError(_complaint(name, expected, got, "Pass e.g. 0.01 or Linear(0.1, 0.01, 1000)."))


def _is_stepped(value: object) -> TypeGuard[SteppedScheduler]:
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
            raise ValueError(_complaint(f"{name} at step {step}", "a real number", got, "Return a float.")) from error
    return torch.tensor(values, dtype=torch.float64, device="cpu")


def _from_array(value: object, first_step: int, n_steps: int, name: str) -> torch.Tensor:
    try:
        given = torch.as_tensor(value, device="cpu")
        if not isinstance(value, torch.Tensor) and given.dtype == torch.get_default_dtype():
            given = torch.as_tensor(value, device="cpu", dtype=torch.float64)  # lists of Python floats lose no digits
    except (TypeError, ValueError, RuntimeError) as error:
        got = f"{type(value).__name__} ({error})"
        raise TypeError(_complaint(name, "a sequence of real numbers", got, "Pass a list of floats.")) from error
    if given.is_complex() or given.dtype == torch.bool:
        raise ValueError(_complaint(name, "real numbers", f"dtype {given.dtype}", "Convert it to floating point."))
    if given.ndim > 1:
        remedy = "Pass one value for all chains at every step."
        raise ValueError(_complaint(name, "a 0-d or 1-d array", f"shape {tuple(given.shape)}", remedy))
    numbers = given.detach().to(dtype=torch.float64)
    if numbers.ndim == 0:
        return numbers.expand(n_steps).clone()
    if n_steps > 0 and numbers.shape[0] < first_step + n_steps:
        expected = f"at least {first_step + n_steps} values, for steps up to {first_step + n_steps - 1}"
        remedy = "The index is the absolute step: give more values, run fewer steps, or pass a schedule."
        raise ValueError(_complaint(name, expected, numbers.shape[0], remedy))
    return numbers[first_step : first_step + n_steps].clone()


def _require_values(values: torch.Tensor, good: torch.Tensor, first_step: int, name: str, expected: str) -> None:
    if not bool(good.all()):
        index = int((~good).nonzero()[0])
        got = f"{values[index].item()!r} at step {first_step + index}"
        raise ValueError(_complaint(name, f"{expected} at every step", got, "Correct the value or the schedule."))


def _complaint(argument: str, expected: str, got: object, remedy: str) -> str:
    return f"{argument}: expected {expected}, got {got}. {remedy}"


def _number(argument: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, Real):
        got = f"{value!r} ({type(value).__name__})"
        raise TypeError(_complaint(argument, "a real number", got, "Pass a Python float."))
    if not math.isfinite(value):
        raise ValueError(_complaint(argument, "a finite number", repr(value), "Choose a finite value."))
    return float(value)


def _count(argument: str, value: object, minimum: int = 1) -> int:
    if isinstance(value, bool) or not isinstance(value, Integral):
        got = f"{value!r} ({type(value).__name__})"
        raise TypeError(_complaint(argument, f"an integer >= {minimum}", got, "Pass a Python int."))
    if value < minimum:
        raise ValueError(_complaint(argument, f"an integer >= {minimum}", repr(value), "Choose a larger value."))
    return int(value)


def _set_numbers(schedule: object, *fields: str) -> None:
    for field in fields:
        number = _number(f"{type(schedule).__name__}: {field}", getattr(schedule, field))
        object.__setattr__(schedule, field, number)


def _set_count(schedule: object, field: str) -> None:
    object.__setattr__(schedule, field, _count(f"{type(schedule).__name__}: {field}", getattr(schedule, field)))


def _require(schedule: object, field: str, fulfilled: bool, expected: str) -> None:
    if not fulfilled:
        argument = f"{type(schedule).__name__}: {field}"
        raise ValueError(_complaint(argument, expected, repr(getattr(schedule, field)), "Correct it."))
