"""Schedules: hyper-parameters as functions of the step.

A schedule is any callable `step -> value`, pure: the same step always gives the same value. Those here are frozen
dataclasses with the formulas of TorchEBM's schedulers, which carry a step counter of their own instead. `evaluate`
turns whatever a user passes for a hyper-parameter into the array of its values, once per run.

Step 0 is the first transition: it takes from x⁰ to x¹, with the value `schedule(0)`.
"""

from compiled_ebm.schedules.evaluation import ScheduleLike, SteppedScheduler, evaluate
from compiled_ebm.schedules.forms import (
    Constant,
    Cosine,
    Exponential,
    Geometric,
    Linear,
    MultiStep,
    Schedule,
    Warmup,
)

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
