"""The schedules themselves: frozen dataclasses with the formulas of TorchEBM's schedulers."""

import math
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from compiled_ebm.schedules.checks import checked_count, checked_number, complaint, require, set_count, set_numbers

__all__ = ["Constant", "Cosine", "Exponential", "Geometric", "Linear", "MultiStep", "Schedule", "Warmup"]

#: Value of a hyper-parameter at a step >= 0.
Schedule: TypeAlias = Callable[[int], float]


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
        set_numbers(self, "value")

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
        set_numbers(self, "start", "end")
        set_count(self, "n_steps")

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
        set_numbers(self, "start", "end")
        set_count(self, "n_steps")

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
        set_numbers(self, "start", "decay_rate", "min_value")
        require(self, "decay_rate", 0.0 < self.decay_rate <= 1.0, "a number in (0, 1]")
        require(self, "min_value", self.min_value >= 0.0, "a number >= 0")
        require(self, "start", self.start >= self.min_value, f"a number >= min_value ({self.min_value:g})")

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
        set_numbers(self, "start", "gamma")
        require(self, "gamma", self.gamma >= 0.0, "a number >= 0")
        try:
            given = tuple(self.milestones)
        except TypeError as error:
            got = repr(self.milestones)
            message = complaint("MultiStep: milestones", "a sequence of integers", got, "Pass a tuple.")
            raise TypeError(message) from error
        milestones = tuple(checked_count(f"MultiStep: milestones[{i}]", value) for i, value in enumerate(given))
        object.__setattr__(self, "milestones", milestones)
        increasing = all(a < b for a, b in zip(milestones, milestones[1:], strict=False))
        require(self, "milestones", increasing, "strictly increasing steps")

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
        set_count(self, "warmup_steps")
        set_numbers(self, "init_factor")
        if not callable(self.schedule):
            remedy = "Wrap a number: Constant(0.1)."
            raise TypeError(complaint("Warmup: schedule", "a callable step -> value", repr(self.schedule), remedy))
        checked_number("Warmup: schedule(0)", self.schedule(0))

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
        set_numbers(self, "start", "end")
        set_count(self, "n_steps")
        require(self, "start", self.start > 0.0, "a number > 0")
        require(self, "end", self.end > 0.0, "a number > 0")

    def __call__(self, step: int) -> float:
        if step >= self.n_steps:
            return self.end
        done = step / self.n_steps
        return math.pow(self.start, 1 - done) * math.pow(self.end, done)  # end / start itself may overflow
