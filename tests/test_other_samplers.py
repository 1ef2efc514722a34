"""``HamiltonianMonteCarlo``, ``GradientDescentSampler`` and ``NesterovSampler`` against TorchEBM 0.8."""

from __future__ import annotations

import inspect
import warnings
from typing import Any

import pytest
import torch
from cases import fixed
from torch import Tensor

import compiled_ebm as ce

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    torchebm = pytest.importorskip("torchebm")
    from torchebm import samplers as theirs
    from torchebm.core import DoubleWellModel, GaussianModel, LinearScheduler

NAMES = ("HamiltonianMonteCarlo", "GradientDescentSampler", "NesterovSampler")
OPTIONS: dict[str, dict[str, Any]] = {
    "HamiltonianMonteCarlo": {"step_size": 0.1, "n_leapfrog_steps": 4},
    "GradientDescentSampler": {"step_size": 0.01},
    "NesterovSampler": {"step_size": 0.005, "momentum": 0.7},
}


def both(name: str, **options: Any) -> tuple[Any, Any]:
    """TorchEBM's and ours, of the same energy."""
    given = OPTIONS[name] | options
    return getattr(theirs, name)(DoubleWellModel(), **given), getattr(ce, name)(
        DoubleWellModel(), **given, backend="eager"
    )


@pytest.mark.parametrize("name", NAMES)
def test_arguments_and_defaults_are_torchebms(name: str) -> None:
    for method in ("__init__", "sample"):
        reference = inspect.signature(getattr(getattr(theirs, name), method)).parameters
        ours = inspect.signature(getattr(getattr(ce, name), method)).parameters
        assert [n for n in ours if n != "backend"] == list(reference)
        defaults = {n: p.default for n, p in ours.items() if n != "backend"}
        assert defaults == {n: p.default for n, p in reference.items()}


@pytest.mark.parametrize(("n_steps", "thin"), [(6, 1), (7, 3), (0, 1), (3, 10)])
@pytest.mark.parametrize("name", NAMES)
def test_shapes_and_keys_are_torchebms(name: str, n_steps: int, thin: int) -> None:
    ask = {"dim": 3, "n_steps": n_steps, "n_samples": 5, "thin": thin, "return_diagnostics": True}
    for trajectory in (False, True):
        (want, keys), (got, found) = (s.sample(**ask, return_trajectory=trajectory) for s in both(name))
        assert got.shape == want.shape and got.dtype == want.dtype
        assert {k: v.shape for k, v in found.items()} == {k: v.shape for k, v in keys.items()}
        assert list(found) == list(keys)


@pytest.mark.parametrize("name", ["GradientDescentSampler", "NesterovSampler"])
def test_descent_goes_where_torchebms_does(name: str) -> None:
    """It is deterministic: every position of the path, and the energies; the control is 1% of the step size."""
    x, ask = fixed(40, 2, seed=1), {"n_steps": 30, "thin": 3, "return_trajectory": True, "return_diagnostics": True}
    reference, ours = both(name)
    (want, keys), (got, found) = (s.sample(x=x.clone(), **ask) for s in (reference, ours))
    torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(found["energy"], keys["energy"], rtol=1e-5, atol=1e-6)
    _, control = both(name, step_size=OPTIONS[name]["step_size"] * 1.01)
    assert not torch.allclose(control.sample(x=x.clone(), **ask)[0], want, rtol=1e-5, atol=1e-6)


def test_descent_follows_schedulers() -> None:
    x = fixed(20, 2, seed=2)
    reference, ours = both("GradientDescentSampler", step_size=LinearScheduler(0.02, 0.001, 15))
    torch.testing.assert_close(ours.sample(x=x, n_steps=20), reference.sample(x=x, n_steps=20), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("mass", [None, 2.0, torch.tensor([0.5, 3.0])], ids=["unit", "number", "diagonal"])
def test_hmc_accepts_as_often_as_torchebms(mass: float | Tensor | None) -> None:
    """20,000 chains from normal starts: the mean acceptance and energy of each step, within five standard errors."""
    n, x = 20_000, fixed(20_000, 2, seed=3)
    ask = {"n_steps": 5, "return_diagnostics": True}
    reference, ours = both("HamiltonianMonteCarlo", step_size=0.25, mass=mass)
    (_, want), (last, got) = (s.sample(x=x.clone(), **ask) for s in (reference, ours))
    rate = want["acceptance_rate"]
    error = 5 * (2 * rate * (1 - rate) / n).sqrt()
    assert bool(((got["acceptance_rate"] - rate).abs() < error).all())
    spread = ce.DoubleWellModel()(last).std() * (2 / n) ** 0.5
    assert bool(((got["energy"] - want["energy"]).abs() < 5 * spread + 0.02 * want["energy"].abs()).all())
    assert float(rate.mean()) < 0.97
    _, control = both("HamiltonianMonteCarlo", step_size=0.3, mass=mass)
    assert bool(((control.sample(x=x.clone(), **ask)[1]["acceptance_rate"] - rate).abs() > error).any())


def test_hmc_rejects_what_torchebm_repairs() -> None:
    """A step so large that every trajectory overflows: chains stay where they were, and none is at 0."""
    x = fixed(50, 2, seed=4) + 3
    _, ours = both("HamiltonianMonteCarlo", step_size=1e4)
    samples, diagnostics = ours.sample(x=x, n_steps=4, return_diagnostics=True)
    assert torch.equal(samples, x) and not diagnostics["acceptance_rate"].any()


def test_hmc_takes_the_dimension_from_the_models_mean() -> None:
    model = GaussianModel(torch.zeros(3), torch.eye(3))
    want = theirs.HamiltonianMonteCarlo(model, step_size=0.1).sample(n_samples=4, n_steps=2)
    got = ce.HamiltonianMonteCarlo(model, step_size=0.1, backend="eager").sample(n_samples=4, n_steps=2)
    assert got.shape == want.shape == (4, 3)


@pytest.mark.parametrize(
    ("name", "options", "error", "message"),
    [
        ("HamiltonianMonteCarlo", {"n_leapfrog_steps": 0}, ValueError, "n_leapfrog_steps must be positive"),
        ("HamiltonianMonteCarlo", {"step_size": 0.0}, ValueError, "step_size must be positive"),
        ("HamiltonianMonteCarlo", {"mass": -1.0}, ValueError, "mass: expected finite numbers above 0"),
        ("HamiltonianMonteCarlo", {"integrator": "yoshida"}, ValueError, "integrator: expected None or 'leapfrog'"),
        ("GradientDescentSampler", {"step_size": -1.0}, ValueError, "step_size must be positive"),
        ("NesterovSampler", {"momentum": 1.0}, ValueError, r"momentum must be in \[0, 1\)"),
        ("NesterovSampler", {"momentum": "big"}, TypeError, "momentum: expected a number"),
    ],
)
def test_constructors_refuse(name: str, options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        getattr(ce, name)(DoubleWellModel(), **options)


@pytest.mark.parametrize("name", NAMES)
def test_repr_says_what_is_set(name: str) -> None:
    _, ours = both(name)
    assert repr(ours).startswith(f"{name}(model=DoubleWellModel, step_size=")
    for option in OPTIONS[name]:
        assert f"{option}=" in repr(ours)
