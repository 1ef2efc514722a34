"""Schedules: formulas by hand and against TorchEBM's schedulers, and what `evaluate` takes and refuses."""

import copy
import doctest
import math
import pickle
from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from compiled_ebm.schedules import (
    Constant,
    Cosine,
    Exponential,
    Geometric,
    Linear,
    MultiStep,
    Schedule,
    Warmup,
    evaluate,
    evaluation,
    forms,
)

NAN = float("nan")

BY_HAND: list[tuple[Schedule, Callable[[int], float]]] = [
    (Constant(0.3), lambda t: 0.3),
    (Linear(2.0, 0.5, 10), lambda t: 2.0 - 0.15 * min(t, 10)),
    (Cosine(2.0, 0.5, 10), lambda t: 0.5 + 1.5 * math.cos(math.pi * min(t, 10) / 20) ** 2),
    (Exponential(2.0, 0.8, 0.5), lambda t: max(0.5, math.exp(math.log(2.0) + t * math.log(0.8)))),
    (MultiStep(2.0, [3, 7, 20], 0.5), lambda t: 2.0 * 0.5 ** sum(t >= m for m in (3, 7, 20))),
    (Warmup(Linear(2.0, 0.5, 10), 4, 0.1), lambda t: 0.2 + 0.45 * t if t < 4 else 2.0 - 0.15 * min(t - 4, 10)),
    (Geometric(2.0, 0.5, 10), lambda t: float(np.geomspace(2.0, 0.5, 11)[min(t, 10)])),
]


@pytest.mark.parametrize("case", range(len(BY_HAND)))
def test_schedule_is_the_formula(case: int) -> None:
    schedule, formula = BY_HAND[case]
    values = evaluate(schedule, 0, 30)
    assert values.shape == (30,) and values.dtype == torch.float64 and values.device.type == "cpu"
    assert values.tolist() == [schedule(step) for step in range(30)]
    np.testing.assert_allclose(values.numpy(), [formula(step) for step in range(30)], rtol=1e-13)
    assert all(type(schedule(step)) is float for step in range(30))


def torchebm_pairs() -> list[tuple[Schedule, object]]:
    core = pytest.importorskip("torchebm.core")
    return [
        (Constant(0.3), core.ConstantScheduler(0.3)),
        (Linear(2.0, 0.5, 10), core.LinearScheduler(2.0, 0.5, 10)),
        (Cosine(2.0, 0.5, 10), core.CosineScheduler(2.0, 0.5, 10)),
        (Exponential(2.0, 0.8), core.ExponentialDecayScheduler(2.0, 0.8)),
        (Exponential(2.0, 0.8, 0.5), core.ExponentialDecayScheduler(2.0, 0.8, 0.5)),
        (MultiStep(2.0, [3, 7, 20]), core.MultiStepScheduler(2.0, [3, 7, 20])),
        (Warmup(Cosine(2.0, 0.5, 10), 4), core.WarmupScheduler(core.CosineScheduler(2.0, 0.5, 10), 4)),
        (
            Warmup(Exponential(2.0, 0.8), 5, 0.2),
            core.WarmupScheduler(core.ExponentialDecayScheduler(2.0, 0.8), 5, 0.2),
        ),
    ]


@pytest.mark.parametrize("case", range(8))
def test_torchebm_schedulers_give_the_same_step_by_step(case: int) -> None:
    ours, theirs = torchebm_pairs()[case]
    taken_in = evaluate(theirs, 0, 30).tolist()
    theirs.reset()
    stepped = []
    for _ in range(30):  # as TorchEBM's samplers do: the value is read, then the scheduler advanced
        stepped.append(theirs.get_value())
        theirs.step()
    assert taken_in == stepped
    np.testing.assert_allclose(evaluate(ours, 0, 30).numpy(), stepped, rtol=1e-15)


@pytest.mark.parametrize("case", range(8))
def test_the_callers_scheduler_is_left_as_it_is(case: int) -> None:
    _, scheduler = torchebm_pairs()[case]
    for _ in range(6):
        scheduler.step()

    def state() -> list[object]:
        inner = getattr(scheduler, "main_scheduler", scheduler)
        return [scheduler.step_count, scheduler.current_value, inner.step_count, inner.current_value]

    before = copy.copy(state())
    whole = evaluate(scheduler, 0, 20)
    assert torch.equal(evaluate(scheduler, 12, 8), whole[12:])
    assert state() == before


def test_a_torchebm_scheduler_of_the_users_own() -> None:
    core = pytest.importorskip("torchebm.core")

    class Harmonic(core.BaseScheduler):
        def _compute_value(self) -> float:
            return self.start_value / (1 + self.step_count)

    assert evaluate(Harmonic(1.0), 1, 3).tolist() == [1 / 2, 1 / 3, 1 / 4]
    temperature = core.TemperatureScheduler(epsilon_max=0.25, tau_star=0.5, n_steps=4)
    np.testing.assert_allclose(evaluate(temperature, 0, 6).numpy(), [0, 0, 0, math.sqrt(0.125), 0.5, 0.5])


SCHEDULES = st.one_of(
    st.builds(Constant, st.floats(-10, 10)),
    st.builds(Linear, st.floats(-10, 10), st.floats(-10, 10), st.integers(1, 50)),
    st.builds(Cosine, st.floats(-10, 10), st.floats(-10, 10), st.integers(1, 50)),
    st.builds(Exponential, st.floats(1, 10), st.floats(0.01, 1), st.floats(0, 1)),
    st.builds(MultiStep, st.floats(-10, 10), st.sets(st.integers(1, 60)).map(sorted), st.floats(0, 2)),
    st.builds(Geometric, st.floats(1e-300, 1e300), st.floats(1e-300, 1e300), st.integers(1, 50)),
)


@given(
    st.one_of(SCHEDULES, st.builds(Warmup, SCHEDULES, st.integers(1, 30), st.floats(0, 1))),
    st.integers(0, 60),
    st.integers(0, 60),
)
@settings(max_examples=200, deadline=None)
def test_a_value_depends_on_its_step_alone(schedule: Schedule, split: int, rest: int) -> None:
    whole = evaluate(schedule, 0, split + rest)
    parts = torch.cat([evaluate(schedule, 0, split), evaluate(schedule, split, rest)])
    assert torch.equal(whole, parts)


@given(st.floats(-10, 10), st.floats(-10, 10), st.integers(1, 40))
@settings(max_examples=50, deadline=None)
def test_any_torchebm_line_and_cosine(start: float, end: float, n_steps: int) -> None:
    core = pytest.importorskip("torchebm.core")
    for ours, theirs in (
        (Linear(start, end, n_steps), core.LinearScheduler(start, end, n_steps)),
        (Cosine(start, end, n_steps), core.CosineScheduler(start, end, n_steps)),
    ):
        assert torch.equal(evaluate(ours, 0, 45), evaluate(theirs, 0, 45))


@pytest.mark.parametrize("value", [2, 2.0, np.float32(2.0), np.int64(2), np.array(2.0), Fraction(2), torch.tensor(2)])
def test_constants(value: object) -> None:
    values = evaluate(value, 1000, 5)
    assert values.tolist() == [2.0] * 5 and values.dtype == torch.float64
    values[0] = 3.0  # every entry has memory of its own
    assert values.tolist() == [3.0] + [2.0] * 4


@pytest.mark.parametrize("convert", [list, tuple, np.array, torch.tensor, lambda v: torch.tensor(v).requires_grad_()])
def test_values_per_step(convert: Callable[[list[float]], object]) -> None:
    given_values = convert([0.5, 0.25, 0.125, 1.0])
    assert evaluate(given_values, 1, 3).tolist() == [0.25, 0.125, 1.0]
    assert not evaluate(given_values, 0, 1).requires_grad
    with pytest.raises(ValueError, match="step_size: expected at least 5 values, for steps up to 4, got 4"):
        evaluate(given_values, 2, 3, name="step_size")


def test_per_step_values_are_copied_and_checked_where_used() -> None:
    source = torch.tensor([NAN, 1.0, 2.0], dtype=torch.float64)
    values = evaluate(source, 1, 2)
    source[1] = 5.0
    assert values.tolist() == [1.0, 2.0]
    assert evaluate([], 3, 0).shape == (0,)
    assert evaluate([0.1, 0.3], 0, 2).tolist() == [0.1, 0.3]  # not through float32


def test_callables() -> None:
    assert evaluate(lambda step: step, 2, 3).tolist() == [2.0, 3.0, 4.0]
    assert evaluate(lambda step: torch.tensor(0.5), 0, 2).tolist() == [0.5, 0.5]
    assert evaluate(lambda step: np.float32(0.5), 0, 2).tolist() == [0.5, 0.5]
    assert evaluate(lambda step: 1 / 0, 7, 0).shape == (0,)  # never called
    with pytest.raises(ZeroDivisionError):
        evaluate(lambda step: 1 / 0, 0, 1)


@pytest.mark.parametrize("bad", [NAN, math.inf, -math.inf])
def test_non_finite_values_name_parameter_step_and_value(bad: float) -> None:
    cases = [bad, lambda t: bad if t >= 12 else 1.0, [1.0] * 12 + [bad] * 9]
    for value, step in zip(cases, (10, 12, 12), strict=True):
        with pytest.raises(ValueError, match=rf"^step_size: expected a finite number .* got {bad} at step {step}\."):
            evaluate(value, 10, 5, name="step_size")


@pytest.mark.parametrize("bad", [1j, "0.1", None, [0.1], torch.zeros(2)])
def test_non_real_values_name_parameter_step_and_value(bad: object) -> None:
    with pytest.raises(ValueError, match=r"^step_size at step 12: expected a real number, got "):
        evaluate(lambda t: bad if t >= 12 else 1.0, 10, 5, name="step_size")


def test_bounds() -> None:
    line = Linear(1.0, 0.0, 4)
    assert evaluate(line, 0, 6, minimum=0.0).tolist() == [1.0, 0.75, 0.5, 0.25, 0.0, 0.0]
    with pytest.raises(ValueError, match=r"step_size: expected a number > 0 at every step, got 0.0 at step 4"):
        evaluate(line, 0, 6, name="step_size", minimum=0.0, strict=True)
    with pytest.raises(ValueError, match=r"step_size: expected a number >= 0 at every step, got -1.0 at step 0"):
        evaluate(-1.0, 0, 6, name="step_size", minimum=0.0)
    assert evaluate(line, 0, 4, minimum=0.0, strict=True).shape == (4,)


@pytest.mark.parametrize(
    ("value", "error"),
    [
        ("0.1", TypeError),
        (b"0.1", TypeError),
        (None, TypeError),
        (True, TypeError),
        (1j, TypeError),
        ({}, TypeError),
        (["a"], TypeError),
        ([[1.0]], ValueError),
        ([1j], ValueError),
        (torch.tensor([True]), ValueError),
    ],
)
def test_what_is_no_schedule(value: object, error: type[Exception]) -> None:
    with pytest.raises(error, match="^noise_scale: expected"):
        evaluate(value, 0, 1, name="noise_scale")


@pytest.mark.parametrize(("first", "n", "name"), [(-1, 2, "first_step"), (0, -2, "n_steps"), (0.5, 1, "first_step")])
def test_bad_ranges(first: int, n: int, name: str) -> None:
    with pytest.raises((ValueError, TypeError), match=f"{name}: expected an integer >= 0"):
        evaluate(1.0, first, n)


BAD_SCHEDULES: list[tuple[Callable[[], object], type[Exception], str]] = [
    (lambda: Constant(NAN), ValueError, "Constant: value: expected a finite number, got nan"),
    (lambda: Constant("1"), TypeError, "Constant: value: expected a real number"),
    (lambda: Constant(True), TypeError, "Constant: value"),
    (lambda: Linear(math.inf, 0.0, 1), ValueError, "Linear: start"),
    (lambda: Linear(0.0, NAN, 1), ValueError, "Linear: end"),
    (lambda: Linear(0.0, 1.0, 0), ValueError, "Linear: n_steps: expected an integer >= 1, got 0"),
    (lambda: Linear(0.0, 1.0, 2.5), TypeError, "Linear: n_steps"),
    (lambda: Cosine(0.0, 1.0, -1), ValueError, "Cosine: n_steps"),
    (lambda: Cosine(None, 1.0, 1), TypeError, "Cosine: start"),
    (lambda: Exponential(1.0, 0.0), ValueError, r"Exponential: decay_rate: expected a number in \(0, 1\]"),
    (lambda: Exponential(1.0, 1.1), ValueError, "Exponential: decay_rate"),
    (lambda: Exponential(1.0, 0.5, -0.1), ValueError, "Exponential: min_value: expected a number >= 0"),
    (lambda: Exponential(1.0, 0.5, 2.0), ValueError, r"Exponential: start: expected a number >= min_value \(2\)"),
    (lambda: MultiStep(1.0, [0, 3]), ValueError, r"MultiStep: milestones\[0\]: expected an integer >= 1"),
    (lambda: MultiStep(1.0, [3, 3]), ValueError, "MultiStep: milestones: expected strictly increasing"),
    (lambda: MultiStep(1.0, 3), TypeError, "MultiStep: milestones: expected a sequence"),
    (lambda: MultiStep(1.0, [3], -0.1), ValueError, "MultiStep: gamma"),
    (lambda: Warmup(0.1, 5), TypeError, r"Warmup: schedule: expected a callable .* Constant"),
    (lambda: Warmup(lambda t: NAN, 5), ValueError, r"Warmup: schedule\(0\): expected a finite number"),
    (lambda: Warmup(Constant(1.0), 0), ValueError, "Warmup: warmup_steps"),
    (lambda: Warmup(Constant(1.0), 5, NAN), ValueError, "Warmup: init_factor"),
    (lambda: Geometric(0.0, 1.0, 5), ValueError, "Geometric: start: expected a number > 0"),
    (lambda: Geometric(1.0, -1.0, 5), ValueError, "Geometric: end: expected a number > 0"),
    (lambda: Geometric(1.0, 1.0, 0), ValueError, "Geometric: n_steps"),
]


@pytest.mark.parametrize("case", range(len(BAD_SCHEDULES)))
def test_bad_schedules_get_a_clear_message(case: int) -> None:
    call, error, message = BAD_SCHEDULES[case]
    with pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize("case", range(len(BY_HAND)))
def test_schedules_are_values(case: int) -> None:
    schedule, _ = BY_HAND[case]
    twin = pickle.loads(pickle.dumps(schedule))
    assert twin == schedule and hash(twin) == hash(schedule)
    with pytest.raises(AttributeError):
        schedule.start = 1.0


@pytest.mark.parametrize("module", [evaluation, forms])
def test_docstring_examples_run(module: object) -> None:
    found = doctest.testmod(module)
    assert found.attempted > 0 and found.failed == 0
