"""What a sampler shows of a hyper-parameter that is registered with it, in TorchEBM's words."""

from __future__ import annotations

from collections.abc import Callable

from compiled_ebm.schedules import ScheduleLike, evaluate

__all__ = ["Scheduled"]


class Scheduled:
    """A hyper-parameter as a function of the step, read at the step where its sampler is.

    Args:
        name: Of the hyper-parameter.
        value: A number, a schedule (step -> value) or a sequence of values.
        steps_done: Gives the sampler's count of steps.

    Example:
        >>> import compiled_ebm as ce
        >>> sampler = ce.LangevinDynamics(ce.HarmonicModel(), step_size=0.01)
        >>> sampler.schedulers["step_size"].get_value()
        0.01
    """

    def __init__(self, name: str, value: ScheduleLike, steps_done: Callable[[], int]) -> None:
        self.name, self.value, self._steps_done = name, value, steps_done

    def __call__(self, step: int) -> float:
        """The value of a step."""
        return float(evaluate(self.value, step, 1, name=self.name))

    def get_value(self) -> float:
        """The value that the next step will use."""
        return self(self.step_count)

    @property
    def current_value(self) -> float:
        """The same."""
        return self.get_value()

    @property
    def start_value(self) -> float:
        """The value of step 0."""
        return self(0)

    @property
    def step_count(self) -> int:
        """Steps that the sampler has done since its schedules were reset."""
        return self._steps_done()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name}={self.value!r}, step_count={self.step_count})"
