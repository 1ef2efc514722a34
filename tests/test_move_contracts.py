"""What runs of the moves promise beside their law: means whatever the launches, energies without gradients, ranges."""

from typing import Any

import pytest
import torch
from cases import SEED, fixed
from torch import Tensor

import compiled_ebm as ce
from compiled_ebm import runloop


def wells(x: Tensor) -> Tensor:
    return 2 * (x.square() - 1).square().sum(-1)


@pytest.mark.parametrize("thin", [None, 20])
def test_means_do_not_depend_on_the_length_of_launches(thin: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sums are taken by the step, not where a launch happens to end; the control has another step size."""
    sampler = ce.build_sampler(wells, ce.MALA(0.1), 3, backend="eager")
    state = sampler.init(n_chains=40, seed=SEED)
    found = []
    for seconds in (1e-9, 0.1):
        monkeypatch.setattr(runloop, "_LAUNCH_SECONDS", seconds)
        found.append(sampler.run(state, 60, thin, info=True).stats)
    assert found[0].n_launches > found[1].n_launches or thin is not None
    for told, values in found[0].info.items():
        assert torch.equal(values, found[1].info[told])
    sampler.transition = ce.MALA(0.11)
    control = sampler.run(state, 60, thin, info=True).stats
    assert not torch.equal(control.info["acceptance"], found[0].info["acceptance"])


def count_positive(x: Tensor) -> Tensor:
    """Has no gradient anywhere."""
    return (x > 0).sum(-1).to(x.dtype) + x.detach().abs().sum(-1)


def test_a_random_walk_needs_no_gradient() -> None:
    states = []
    for backend in ("eager", "auto"):
        sampler = ce.build_sampler(count_positive, ce.RandomWalk(0.5), 3, backend=backend)
        states.append(sampler.run(sampler.init(n_chains=200, seed=SEED), 30).state)
    torch.testing.assert_close(states[0].x, states[1].x)
    with pytest.raises(ce.UnsupportedEnergyError, match="depends on x in a differentiable way"):
        ce.build_sampler(count_positive, ce.MALA(0.5), 3)


@pytest.mark.parametrize(
    ("move", "dtype"),
    [(ce.MALA(0.1, 1e300), torch.float32), (ce.HMC(0.1, 3, 1e-60), torch.float32),
     (ce.UnderdampedLangevin(0.1, mass=torch.tensor(1e39, dtype=torch.float64)), torch.float32)],
    ids=["large", "small", "tensor"],
)  # fmt: skip
def test_diagonals_are_within_the_range_of_what_chains_are_carried_in(move: Any, dtype: torch.dtype) -> None:
    with pytest.raises(ValueError, match=r"^(preconditioner|mass): expected values within the range of torch.float32"):
        ce.build_sampler(wells, move, 3, dtype=dtype, backend="eager")
    ce.build_sampler(wells, move, 3, dtype=torch.float64, backend="eager")
    sampler = ce.build_sampler(wells, type(move)(0.1, **{move.vector_fields[0]: 1.0}), 3, backend="eager")
    before = sampler.transition
    if not isinstance(move, ce.HMC):
        with pytest.raises(ValueError, match="expected values within the range"):
            sampler.transition = move
        assert sampler.transition is before


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: ce.MALA(0.1, torch.ones(2, dtype=torch.complex64)), TypeError, "^preconditioner: expected real"),
        (lambda: ce.MALA(0.1, torch.ones(2) > 0), TypeError, "^preconditioner: expected real"),
        (lambda: ce.MALA(0.1, torch.ones(2, device="meta")), TypeError, "^preconditioner: expected real"),
        (lambda: ce.MALA(0.1, torch.ones(0)), ValueError, "^preconditioner: expected a number for each"),
        (lambda: ce.HMC(0.1, 3, 10**400), ValueError, "^mass: expected a number within the range"),
        (lambda: ce.HMC(0.1, 10**30), ValueError, "^n_leapfrog_steps: expected at most"),
        (
            lambda: ce.ReplicaExchange(ce.MALA(0.1), [1.0, 1.0 + 1e-9]),
            ValueError,
            "^temperatures: expected two or more",
        ),
        (lambda: ce.ReplicaExchange(ce.MALA(0.1), [1.0, 1e-50]), ValueError, "^temperatures: expected numbers within"),
        (lambda: ce.ReplicaExchange(ce.MALA(0.1), b"ab"), TypeError, "^temperatures: expected a sequence"),
    ],
)
def test_wrong_values_are_named(make: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()


def test_a_numpy_integer_is_a_length() -> None:
    numpy = pytest.importorskip("numpy")
    assert ce.HMC(0.1, numpy.int64(3)).n_leapfrog_steps == 3
    sampler = ce.build_sampler(wells, ce.HMC(0.1, numpy.int64(3)), 3, backend="eager")
    assert sampler.run(sampler.init(fixed(4, 3)), 2).state.step == 2


def test_a_class_is_no_transition_and_info_is_a_bool() -> None:
    sampler = ce.build_sampler(wells, ce.MALA(0.1), 3, backend="eager")
    with pytest.raises(ValueError, match="^transition: expected one that differs"):
        sampler.transition = ce.MALA
    with pytest.raises(TypeError, match="^info: expected True or False"):
        sampler.run(sampler.init(n_chains=2), 1, info="yes")


def test_no_draws_at_a_temperature() -> None:
    sampler = ce.build_sampler(wells, ce.ReplicaExchange(ce.MALA(0.1), [1.0, 2.0]), 3, backend="eager")
    result = sampler.run(sampler.init(n_chains=4), 0, thin=1)
    assert result.at_temperature(1.0).shape == (2, 0, 3)
    with pytest.raises(TypeError, match="^temperature: expected a number"):
        result.at_temperature("cold")
