"""Energies: formulas by hand and against TorchEBM, gradients, exact answers, argument checks."""

import doctest
import importlib
import math
import pkgutil
from collections.abc import Callable

import numpy as np
import pytest
import scipy.integrate
import scipy.special
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import compiled_ebm.energies
from compiled_ebm.energies import (
    BUILTIN_ENERGIES,
    AckleyModel,
    BananaModel,
    BaseModel,
    BoothModel,
    DoubleWellModel,
    FunnelModel,
    GaussianMixtureModel,
    GaussianModel,
    HarmonicModel,
    HimmelblauModel,
    MLPModel,
    RastriginModel,
    RosenbrockModel,
    StyblinskiTangModel,
)
from compiled_ebm.recorder import record

DOUBLE = torch.float64
MEAN = [0.5, -1.0, 2.0]
COV = [[2.0, 0.3, -0.4], [0.3, 1.0, 0.2], [-0.4, 0.2, 0.5]]
MEANS = [[-2.0, 0.0], [1.0, 3.0], [2.0, -1.0]]
COVS = [[[1.0, 0.5], [0.5, 2.0]], [[0.3, 0.0], [0.0, 0.4]], [[1.5, -0.7], [-0.7, 0.9]]]
WEIGHTS = [1.0, 2.0, 5.0]

# Every model with parameters away from their defaults, and its event shape.
MODELS: dict[str, tuple[Callable[..., BaseModel], tuple[int, ...]]] = {
    "gaussian": (lambda **kw: GaussianModel(torch.tensor(MEAN), torch.tensor(COV, dtype=DOUBLE), **kw), (3,)),
    "harmonic": (lambda **kw: HarmonicModel(2.5, **kw), (3,)),
    "harmonic-lattice": (lambda **kw: HarmonicModel(2.5, **kw), (2, 3)),
    "double-well": (lambda **kw: DoubleWellModel(0.7, 1.3, **kw), (3,)),
    "double-well-lattice": (lambda **kw: DoubleWellModel(0.7, 1.3, **kw), (2, 2)),
    "rosenbrock": (lambda **kw: RosenbrockModel(0.8, 20.0, **kw), (4,)),
    "rosenbrock-2d": (lambda **kw: RosenbrockModel(0.8, 20.0, **kw), (2,)),
    "ackley": (lambda **kw: AckleyModel(15.0, 0.3, 5.0, **kw), (3,)),
    "rastrigin": (lambda **kw: RastriginModel(4.0, **kw), (3,)),
    "himmelblau": (HimmelblauModel, (2,)),
    "booth": (BoothModel, (2,)),
    "styblinski-tang": (StyblinskiTangModel, (3,)),
    "mixture-scale": (lambda **kw: GaussianMixtureModel(MEANS, scales=0.7, **kw), (2,)),
    "mixture-scales": (lambda **kw: GaussianMixtureModel(MEANS, scales=[0.5, 1.0, 2.0], weights=WEIGHTS, **kw), (2,)),
    "mixture-diagonal": (
        lambda **kw: GaussianMixtureModel(MEANS, scales=[[0.5, 1.0], [2.0, 0.7], [1.0, 1.5]], weights=WEIGHTS, **kw),
        (2,),
    ),
    "mixture-covs": (lambda **kw: GaussianMixtureModel(MEANS, COVS, weights=WEIGHTS, **kw), (2,)),
    "funnel": (lambda **kw: FunnelModel(dim=4, scale=1.5, **kw), (4,)),
    "funnel-2d": (lambda **kw: FunnelModel(dim=2, scale=0.6, **kw), (2,)),
    "banana": (lambda **kw: BananaModel(dim=4, scale=2.0, curvature=0.3, **kw), (4,)),
    "banana-2d": (lambda **kw: BananaModel(scale=1.5, curvature=0.4, **kw), (2,)),
    "mlp": (lambda **kw: MLPModel(3, (16, 8), nn.Tanh, seed=1, confinement=0.5, **kw), (3,)),
}


def make(name: str, **kwargs: object) -> BaseModel:
    return MODELS[name][0](**kwargs)


def positions(name: str, n: int = 7, dtype: torch.dtype = DOUBLE) -> torch.Tensor:
    generator = torch.Generator().manual_seed(11)
    return torch.randn(n, *MODELS[name][1], generator=generator, dtype=DOUBLE).mul(1.5).to(dtype)


def mixture_energy(x: np.ndarray, covs: list[np.ndarray], weights: np.ndarray) -> float:
    densities = [scipy.stats.multivariate_normal(m, c).pdf(x) for m, c in zip(MEANS, covs, strict=True)]
    return -math.log(np.dot(weights / weights.sum(), densities))


def mlp_energy(x: np.ndarray) -> float:
    state = {k: v.numpy() for k, v in make("mlp", dtype=DOUBLE).state_dict().items()}
    hidden = np.tanh(state["net.0.weight"] @ x + state["net.0.bias"])
    hidden = np.tanh(state["net.2.weight"] @ hidden + state["net.2.bias"])
    return (state["net.4.weight"] @ hidden + state["net.4.bias"]).item() + 0.25 * np.sum(x**2)


# One chain, in NumPy and SciPy, written down independently.
BY_HAND: dict[str, Callable[[np.ndarray], float]] = {
    "gaussian": lambda x: (
        -scipy.stats.multivariate_normal(MEAN, COV).logpdf(x) - 0.5 * np.log(np.linalg.det(2 * np.pi * np.array(COV)))
    ),
    "harmonic": lambda x: 1.25 * np.dot(x, x),
    "harmonic-lattice": lambda x: 1.25 * np.sum(x**2),
    "double-well": lambda x: 0.7 * sum((xi**2 - 1.69) ** 2 for xi in x),
    "double-well-lattice": lambda x: 0.7 * sum((xi**2 - 1.69) ** 2 for xi in x.ravel()),
    "rosenbrock": lambda x: sum(20 * (x[i + 1] - x[i] ** 2) ** 2 + (0.8 - x[i]) ** 2 for i in range(3)),
    "rosenbrock-2d": lambda x: 20 * (x[1] - x[0] ** 2) ** 2 + (0.8 - x[0]) ** 2,
    "ackley": lambda x: (
        -15 * np.exp(-0.3 * np.linalg.norm(x) / np.sqrt(3)) - np.exp(np.cos(5 * x).sum() / 3) + 15 + np.e
    ),
    "rastrigin": lambda x: 12 + sum(xi**2 - 4 * np.cos(2 * np.pi * xi) for xi in x),
    "himmelblau": lambda x: (x[0] ** 2 + x[1] - 11) ** 2 + (x[0] + x[1] ** 2 - 7) ** 2,
    "booth": lambda x: (x[0] + 2 * x[1] - 7) ** 2 + (2 * x[0] + x[1] - 5) ** 2,
    "styblinski-tang": lambda x: sum(xi**4 - 16 * xi**2 + 5 * xi for xi in x) / 2,
    "mixture-scale": lambda x: mixture_energy(x, [0.49 * np.eye(2)] * 3, np.ones(3)),
    "mixture-scales": lambda x: mixture_energy(x, [s**2 * np.eye(2) for s in (0.5, 1.0, 2.0)], np.array(WEIGHTS)),
    "mixture-diagonal": lambda x: mixture_energy(
        x, [np.diag(s) ** 2 for s in ([0.5, 1.0], [2.0, 0.7], [1.0, 1.5])], np.array(WEIGHTS)
    ),
    "mixture-covs": lambda x: mixture_energy(x, [np.array(c) for c in COVS], np.array(WEIGHTS)),
    "funnel": lambda x: (
        -scipy.stats.norm(0, 1.5).logpdf(x[0])
        - scipy.stats.norm(0, np.exp(x[0] / 2)).logpdf(x[1:]).sum()
        - 2 * np.log(2 * np.pi)
        - np.log(1.5)
    ),
    "funnel-2d": lambda x: x[0] ** 2 / 0.72 + x[0] / 2 + x[1] ** 2 * np.exp(-x[0]) / 2,
    "banana": lambda x: x[0] ** 2 / 8 + (x[1] + 0.3 * x[0] ** 2 - 1.2) ** 2 / 2 + x[2] ** 2 / 2 + x[3] ** 2 / 2,
    "banana-2d": lambda x: x[0] ** 2 / 4.5 + (x[1] + 0.4 * x[0] ** 2 - 0.9) ** 2 / 2,
    "mlp": mlp_energy,
}


@pytest.mark.parametrize("name", MODELS)
def test_energy_is_the_formula(name: str) -> None:
    x = positions(name)
    expected = [BY_HAND[name](row) for row in x.numpy()]
    np.testing.assert_allclose(make(name, dtype=DOUBLE)(x).detach().numpy(), expected, rtol=1e-12, atol=1e-12)
    single = make(name)(x.float())
    assert single.dtype == torch.float32 and single.shape == (7,)
    np.testing.assert_allclose(single.detach().numpy(), expected, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("name", MODELS)
def test_gradient_is_the_slope_of_the_formula(name: str) -> None:
    x = positions(name, 3)
    gradient = make(name, dtype=DOUBLE).gradient(x)
    assert gradient.shape == x.shape and gradient.dtype == DOUBLE and not gradient.requires_grad
    h = 1e-5
    for row, slope in zip(x.numpy(), gradient.numpy(), strict=True):
        for index in np.ndindex(row.shape):
            shift = np.zeros_like(row)
            shift[index] = h
            difference = (BY_HAND[name](row + shift) - BY_HAND[name](row - shift)) / (2 * h)
            assert slope[index] == pytest.approx(difference, rel=1e-6, abs=1e-6)


@pytest.mark.parametrize("name", MODELS)
def test_one_chain_is_its_row_and_vmap_agrees(name: str) -> None:
    model, x = make(name, dtype=DOUBLE), positions(name)
    energies, gradients = model(x), model.gradient(x)
    for i in range(x.shape[0]):
        torch.testing.assert_close(model(x[i : i + 1]), energies[i : i + 1], rtol=1e-13, atol=1e-13)
        torch.testing.assert_close(model.gradient(x[i : i + 1]), gradients[i : i + 1], rtol=1e-12, atol=1e-12)

    def one(position: torch.Tensor) -> torch.Tensor:
        energy: torch.Tensor = model(position.unsqueeze(0))
        return energy.squeeze(0)

    slopes, values = torch.func.vmap(torch.func.grad_and_value(one))(x)
    torch.testing.assert_close(values, energies, rtol=1e-13, atol=1e-13)
    torch.testing.assert_close(slopes, gradients, rtol=1e-12, atol=1e-12)
    if x.ndim == 2:
        assert model(x[0]).shape == (1,)


@pytest.mark.parametrize("name", MODELS)
def test_no_branch_depends_on_the_batch_or_the_data(name: str) -> None:
    """A trace of one chain at 0 gives the energy everywhere; the recorder refuses control flow on data."""
    model = make(name, dtype=DOUBLE)

    def one(position: torch.Tensor) -> torch.Tensor:
        energy: torch.Tensor = model(position.unsqueeze(0))
        return energy.squeeze(0)

    x = positions(name)
    recording = record(one, [torch.zeros_like(x[0])])
    torch.testing.assert_close(torch.stack([recording.replay(row) for row in x]), model(x), rtol=1e-13, atol=1e-13)


def torchebm_pair(name: str, dtype: torch.dtype) -> tuple[BaseModel, nn.Module]:
    core = pytest.importorskip("torchebm.core")
    mean, cov = torch.tensor(MEAN, dtype=dtype), torch.tensor(COV, dtype=dtype)
    theirs: dict[str, Callable[[], nn.Module]] = {
        "gaussian": lambda: core.GaussianModel(mean, cov, dtype=dtype),
        "harmonic": lambda: core.HarmonicModel(2.5, dtype=dtype),
        "double-well": lambda: core.DoubleWellModel(0.7, 1.3, dtype=dtype),
        "rosenbrock": lambda: core.RosenbrockModel(0.8, 20.0, dtype=dtype),
        "ackley": lambda: core.AckleyModel(15.0, 0.3, 5.0, dtype=dtype),
        "rastrigin": lambda: core.RastriginModel(4.0, dtype=dtype),
        "himmelblau": lambda: core.HimmelblauModel(dtype=dtype),
        "booth": lambda: core.BoothModel(dtype=dtype),
        "styblinski-tang": lambda: core.StyblinskiTangModel(dtype=dtype),
    }
    return make(name, dtype=dtype), theirs[name]()


TORCHEBM_NAMES = [
    "gaussian",
    "harmonic",
    "double-well",
    "rosenbrock",
    "ackley",
    "rastrigin",
    "himmelblau",
    "booth",
    "styblinski-tang",
]


@pytest.mark.parametrize("dtype", [DOUBLE, torch.float32])
@pytest.mark.parametrize("name", TORCHEBM_NAMES)
def test_torchebm_gives_the_same(name: str, dtype: torch.dtype) -> None:
    ours, theirs = torchebm_pair(name, dtype)
    x = positions(name, 50, dtype)
    tolerance = 1e-11 if dtype == DOUBLE else 5e-5
    torch.testing.assert_close(ours(x), theirs(x), rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(ours.gradient(x), theirs.gradient(x), rtol=tolerance, atol=tolerance)
    assert ours.dtype == theirs.dtype and ours.device == theirs.device
    assert ours.state_dict().keys() == theirs.state_dict().keys()


@pytest.mark.parametrize(
    "class_name", ["DoubleWellModel", "HarmonicModel", "RosenbrockModel", "AckleyModel", "RastriginModel"]
)
def test_torchebm_defaults_are_ours(class_name: str) -> None:
    core = pytest.importorskip("torchebm.core")
    x = torch.randn(20, 4, generator=torch.Generator().manual_seed(0), dtype=DOUBLE)
    ours, theirs = getattr(compiled_ebm.energies, class_name)(dtype=DOUBLE), getattr(core, class_name)(dtype=DOUBLE)
    torch.testing.assert_close(ours(x), theirs(x), rtol=1e-13, atol=1e-13)


def test_ackley_gradient_at_the_origin_is_finite() -> None:
    model = AckleyModel(dtype=DOUBLE)
    origin = torch.zeros(2, 3, dtype=DOUBLE)
    origin[1, 0] = 1e-7
    gradient = model.gradient(origin)
    assert torch.equal(gradient[0], torch.zeros(3, dtype=DOUBLE))
    assert float(model(origin)[0]) == pytest.approx(0.0, abs=1e-14)
    # Just beside the tip of the cone the slope is a b / sqrt(d).
    assert float(gradient[1, 0]) == pytest.approx(20 * 0.2 / math.sqrt(3), rel=1e-5)
    h = 1e-6
    for i in range(3):
        step = torch.zeros(1, 3, dtype=DOUBLE)
        step[0, i] = h
        assert float(model(step) - model(-step)) / (2 * h) == pytest.approx(0.0, abs=1e-8)


def test_energies_stay_finite_far_out_and_in_half_precision() -> None:
    far = torch.full((1, 2), 1e4)
    mixture = make("mixture-covs")
    assert bool(torch.isfinite(mixture(far)).all()) and bool(torch.isfinite(mixture.gradient(far)).all())
    # The neck of the funnel, 4 standard deviations down: e^(-v) alone would be infinite in float16.
    neck = torch.tensor([[-12.0, 1e-3, -1e-3]], dtype=torch.float16)
    assert bool(torch.isfinite(FunnelModel(3)(neck)).all())


def test_mixture_keeps_digits_for_means_far_from_zero() -> None:
    model = GaussianMixtureModel([[1000.0, -1000.0]], covs=[[[1.0, 0.9], [0.9, 1.0]]])
    x = torch.tensor([[1000.5, -1000.25]])
    expected = -scipy.stats.multivariate_normal([1000, -1000], [[1, 0.9], [0.9, 1]]).logpdf(x.double().numpy())
    assert model(x).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("name", ["gaussian", "mixture-covs", "mixture-scale"])
def test_forward_computes_in_the_dtype_of_x(name: str) -> None:
    x = positions(name)
    assert make(name)(x).dtype == DOUBLE
    torch.testing.assert_close(make(name)(x), make(name, dtype=DOUBLE)(x), rtol=1e-5, atol=1e-5)


# ---- exact answers ------------------------------------------------------------------------------------------------


def grid_moments(model: BaseModel, bounds: list[tuple[float, float]], n: int) -> tuple[float, np.ndarray, np.ndarray]:
    """log Z, mean and covariance of exp(-E) by Simpson's rule on a grid of the model's own energies."""
    axes = [np.linspace(lo, hi, n) for lo, hi in bounds]
    points = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)
    with torch.no_grad():
        energy = model(torch.tensor(points.reshape(-1, len(bounds)))).numpy().reshape(points.shape[:-1])
    density = np.exp(-energy)

    def integral(values: np.ndarray) -> float:
        for axis in reversed(axes):
            values = scipy.integrate.simpson(values, x=axis, axis=-1)
        return float(values)

    z = integral(density)
    d = len(bounds)
    mean = np.array([integral(density * points[..., i]) for i in range(d)]) / z
    cov = np.array([[integral(density * points[..., i] * points[..., j]) for j in range(d)] for i in range(d)]) / z
    return math.log(z), mean, cov - np.outer(mean, mean)


GRIDS: dict[str, tuple[Callable[..., BaseModel], list[tuple[float, float]], int]] = {
    "gaussian": (
        lambda **kw: GaussianModel([1.0, -1.0], [[1.0, 0.6], [0.6, 1.5]], **kw),
        [(-9, 11), (-13, 11)],
        801,
    ),
    "harmonic": (lambda **kw: HarmonicModel(2.5, **kw), [(-6, 6), (-6, 6)], 801),
    "double-well": (DoubleWellModel, [(-3, 3)], 4001),
    "double-well-deep": (lambda **kw: DoubleWellModel(30.0, 2.0, **kw), [(-3, 3)], 20001),
    "double-well-quartic": (lambda **kw: DoubleWellModel(0.01, 0.0, **kw), [(-12, 12)], 4001),
    "rosenbrock": (lambda **kw: RosenbrockModel(0.5, 4.0, **kw), [(-5, 6), (-4, 30)], 1601),
    "rastrigin": (RastriginModel, [(-7, 7)], 20001),
    "booth": (BoothModel, [(-4, 6), (-2, 8)], 1001),
    "styblinski-tang": (StyblinskiTangModel, [(-6, 6)], 8001),
    "mixture-covs": (MODELS["mixture-covs"][0], [(-12, 12), (-14, 14)], 1601),
    "mixture-scales": (MODELS["mixture-scales"][0], [(-16, 20), (-18, 18)], 1601),
    "banana": (MODELS["banana-2d"][0], [(-12, 12), (-60, 12)], 2001),
}


@pytest.mark.parametrize("name", GRIDS)
def test_exact_answers_by_quadrature(name: str) -> None:
    factory, bounds, n = GRIDS[name]
    model, dim = factory(dtype=DOUBLE), len(bounds)
    log_z, mean, cov = grid_moments(model, bounds, n)
    assert model.log_normalizer(dim) == pytest.approx(log_z, abs=1e-7)
    np.testing.assert_allclose(model.exact_mean(dim).numpy(), mean, atol=1e-7)
    np.testing.assert_allclose(model.exact_cov(dim).numpy(), cov, rtol=1e-7, atol=1e-7)


def test_funnel_by_quadrature() -> None:
    model = FunnelModel(dim=2, scale=0.9, dtype=DOUBLE)
    # In the coordinates (v, u), x = e^(v/2) u, the tails are Gaussian; dx = e^(v/2) du.
    v, u = np.linspace(-11, 12, 801), np.linspace(-11, 11, 801)
    grid_v, grid_u = np.meshgrid(v, u, indexing="ij")
    x = np.stack([grid_v, grid_u * np.exp(grid_v / 2)], axis=-1)
    density = np.exp(-model(torch.tensor(x.reshape(-1, 2))).numpy().reshape(grid_v.shape) + grid_v / 2)

    def integral(values: np.ndarray) -> float:
        return float(scipy.integrate.simpson(scipy.integrate.simpson(values, x=u, axis=-1), x=v))

    z = integral(density)
    assert model.log_normalizer() == pytest.approx(math.log(z), abs=1e-9)
    variances = [integral(density * x[..., i] ** 2) / z for i in range(2)]
    np.testing.assert_allclose(model.exact_cov().diagonal().numpy(), variances, rtol=1e-9)
    assert torch.equal(model.exact_mean(2), torch.zeros(2, dtype=DOUBLE))
    assert float(FunnelModel().exact_cov()[3, 3]) == pytest.approx(math.exp(4.5))


def test_quadrature_in_closed_form() -> None:
    # b = 0: a pure quartic, whose moments are gamma functions; a = 0: a Gaussian; a > 0: a Bessel series for Z.
    quartic = DoubleWellModel(3.0, 0.0)
    z = 2 * scipy.special.gamma(1.25) / 3.0**0.25
    assert quartic.log_normalizer(5) == pytest.approx(5 * math.log(z), abs=1e-10)
    variance = scipy.special.gamma(0.75) / scipy.special.gamma(0.25) / math.sqrt(3.0)
    assert float(quartic.exact_cov(1)) == pytest.approx(variance, rel=1e-10)
    assert float(RastriginModel(0.0).exact_cov(1)) == pytest.approx(0.5, rel=1e-10)
    series = sum(scipy.special.ive(abs(k), 10.0) * math.exp(-((math.pi * k) ** 2)) for k in range(-9, 10))
    assert RastriginModel().log_normalizer(1) == pytest.approx(math.log(math.sqrt(math.pi) * series), abs=1e-10)
    with pytest.raises(ValueError, match="DoubleWellModel: moments: expected grids that agree .* rescale"):
        DoubleWellModel(1e12, 1.0).exact_cov(1)


SAMPLED = {
    name: MODELS[name]
    for name in (
        "gaussian",
        "harmonic",
        "rosenbrock-2d",
        "booth",
        "mixture-scale",
        "mixture-scales",
        "mixture-diagonal",
        "mixture-covs",
        "funnel",
        "funnel-2d",
        "banana",
        "banana-2d",
    )
}


def worst_deviation(values: torch.Tensor, expected: torch.Tensor) -> float:
    """Largest distance of column means from what they should be, in standard errors."""
    error = values.std(dim=0) / math.sqrt(values.shape[0])
    return float(((values.mean(dim=0) - expected) / error).abs().max())


def products(x: torch.Tensor, mean: torch.Tensor) -> torch.Tensor:
    """(x - μ)ᵢ (x - μ)ⱼ, i <= j."""
    delta = x - mean
    i, j = torch.triu_indices(x.shape[1], x.shape[1])
    return delta[:, i] * delta[:, j]


@pytest.mark.parametrize("name", SAMPLED)
def test_exact_samples_follow_the_energy(name: str) -> None:
    factory, (dim,) = SAMPLED[name]
    model = factory(dtype=DOUBLE)
    n = 100_000
    x = model.exact_sample(n, seed=3, dim=dim)
    assert x.shape == (n, dim) and x.dtype == DOUBLE
    mean, cov = model.exact_mean(dim), model.exact_cov(dim)
    upper = torch.triu_indices(dim, dim)
    assert worst_deviation(x, mean) < 5
    if name != "funnel":  # its fourth moments, e^(2 s²), are out of reach of a sample; the identities below are not
        assert worst_deviation(products(x, mean), cov[upper[0], upper[1]]) < 5
    # Integration by parts: E[∇E] = 0 and E[(x - μ)ᵢ ∂ᵢE] = 1 for any density that vanishes at infinity.
    gradient = model.gradient(x)
    assert worst_deviation(gradient, torch.zeros(dim, dtype=DOUBLE)) < 5
    assert worst_deviation((x - mean) * gradient, torch.ones(dim, dtype=DOUBLE)) < 5
    # Controls: the same tests must see a sample that is 3% too wide.
    wide = mean + 1.03 * (x - mean)
    assert worst_deviation((wide - mean) * model.gradient(wide), torch.ones(dim, dtype=DOUBLE)) > 5
    if name != "funnel":
        assert worst_deviation(products(wide, mean), cov[upper[0], upper[1]]) > 5


def test_exact_samples_are_a_function_of_the_seed() -> None:
    model = FunnelModel(3)
    state = torch.get_rng_state()
    assert torch.equal(model.exact_sample(5, 1), model.exact_sample(5, 1))
    assert not torch.equal(model.exact_sample(5, 1), model.exact_sample(5, 2))
    assert torch.equal(torch.get_rng_state(), state)
    assert model.exact_sample(5, 1).dtype == torch.float32
    assert HarmonicModel(dtype=torch.bfloat16).exact_sample(5, 1, dim=2).dtype == torch.bfloat16
    with pytest.raises(ValueError, match="seed: expected an integer >= 0, got -1"):
        model.exact_sample(5, -1)


@pytest.mark.parametrize("name", [name for name in MODELS if hasattr(make(name), "exact_mean")])
def test_exact_answers_check_the_dimension_and_ignore_the_default_device(name: str) -> None:
    model = make(name)
    dim = 2 if name.startswith("rosenbrock") else math.prod(MODELS[name][1])
    with torch.device("meta"):
        answers = model.exact_mean(dim), model.exact_cov(dim)
        assert math.isfinite(model.log_normalizer(dim))
    assert all(a.dtype == DOUBLE and a.device.type == "cpu" for a in answers)
    assert answers[0].shape == (dim,) and answers[1].shape == (dim, dim)
    for bad in (0, dim + 1, 1.5):
        if bad == dim + 1 and name.startswith(("harmonic", "double-well", "rastrigin", "styblinski")):
            continue
        with pytest.raises((ValueError, TypeError), match="dim: expected"):
            model.exact_mean(bad)


@given(st.integers(1, 5), st.integers(0, 2**32 - 1))
@settings(max_examples=25, deadline=None)
def test_any_gaussian(dim: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    root = rng.normal(size=(dim, dim))
    cov, mean, x = root @ root.T + 0.1 * np.eye(dim), rng.normal(size=dim), rng.normal(size=(3, dim))
    model = GaussianModel(torch.tensor(mean), torch.tensor(cov), dtype=DOUBLE)
    log_p = np.atleast_1d(scipy.stats.multivariate_normal(mean, cov).logpdf(x))
    np.testing.assert_allclose(-model(torch.tensor(x)).numpy() - model.log_normalizer(), log_p, rtol=1e-8, atol=1e-8)
    np.testing.assert_allclose(model.exact_cov().numpy(), cov, rtol=1e-8, atol=1e-8)


# ---- the base class -----------------------------------------------------------------------------------------------


class Plain(BaseModel):
    """A subclass without tensors, that forwards its keyword arguments."""

    def __init__(self, sharpness: float = 1.0, **kwargs: object) -> None:
        super().__init__(**kwargs)
        self.sharpness = sharpness

    def forward(self, x: torch.Tensor, shift: torch.Tensor | float = 0.0) -> torch.Tensor:
        return self.sharpness * (x - shift).pow(2).flatten(1).sum(dim=1)


def test_device_and_dtype_follow_the_module() -> None:
    plain = Plain()
    assert (plain.dtype, plain.device) == (torch.float32, torch.device("cpu"))
    assert plain.to(DOUBLE).dtype == DOUBLE and plain.to("meta").device.type == "meta"
    assert Plain(dtype=torch.bfloat16).dtype == torch.bfloat16
    assert plain.state_dict() == {}
    mlp = MLPModel(2, dtype=DOUBLE)
    assert mlp.dtype == DOUBLE and mlp.half().dtype == torch.float16

    class Labelled(BaseModel):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("labels", torch.arange(3))
            self.register_buffer("centre", torch.zeros(2, dtype=DOUBLE))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.sum(dim=-1)

    assert Labelled().dtype == DOUBLE


def test_unknown_arguments_are_named() -> None:
    with pytest.raises(TypeError, match=r"Plain: arguments: expected sharpness, dtype, device, got 'sharpnes'"):
        Plain(sharpnes=2.0)
    with pytest.raises(TypeError, match="unexpected keyword argument 'barrier'"):
        DoubleWellModel(barrier=2.0)
    with pytest.raises(TypeError, match="abstract"):
        BaseModel()
    with pytest.raises(ValueError, match="dtype: expected a floating-point type"):
        HarmonicModel(dtype=torch.int64)
    with pytest.raises(TypeError, match="dtype: expected a torch.dtype"):
        HarmonicModel(dtype="float32")
    with pytest.raises(ValueError, match="device: expected the name of a torch device, got 'gpu'"):
        HarmonicModel(device="gpu")


def test_gradient_of_a_batch() -> None:
    model, x = Plain(0.5), torch.randn(4, 2, 3)
    shift = torch.randn(4, 2, 3)
    with torch.no_grad():
        torch.testing.assert_close(model.gradient(x, {"shift": shift}), x - shift)
    with torch.inference_mode():
        torch.testing.assert_close(model.gradient(torch.ones(2, 3)), torch.ones(2, 3))
    assert not x.requires_grad
    leaf = x.clone().requires_grad_(True)
    assert not model.gradient(leaf).requires_grad and leaf.grad is None
    mlp = MLPModel(2)
    mlp.gradient(torch.zeros(3, 2))
    assert all(parameter.grad is None for parameter in mlp.parameters())
    assert model.gradient(torch.zeros(0, 3)).shape == (0, 3)


def test_gradient_refuses_wrong_energies() -> None:
    class Wrong(BaseModel):
        def __init__(self, energy: Callable[[torch.Tensor], object]) -> None:
            super().__init__()
            self.energy = energy
            self.weight = nn.Parameter(torch.ones(()))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.energy(x)

    x = torch.ones(4, 2)
    with pytest.raises(ValueError, match=r"Wrong.forward: expected energies of shape \(4,\), got shape \(4, 1\)"):
        Wrong(lambda x: x.sum(dim=-1, keepdim=True)).gradient(x)
    with pytest.raises(ValueError, match=r"got shape \(\)"):
        Wrong(lambda x: x.sum()).gradient(x)
    with pytest.raises(ValueError, match="got float"):
        Wrong(lambda x: 1.0).gradient(x)
    for energy in (lambda x: x.detach().sum(dim=-1), lambda x: torch.zeros(4)):
        with pytest.raises(ValueError, match="an energy that depends on x"):
            Wrong(energy).gradient(x)
    model = Wrong(lambda x: x.new_zeros(4))
    model.energy = lambda x: model.weight * x.new_zeros(4)  # requires grad, but not through x
    with pytest.raises(ValueError, match="an energy that depends on x"):
        model.gradient(x)
    with pytest.raises(ValueError, match="floating-point"):
        HarmonicModel().gradient(torch.ones(3, 2, dtype=torch.int64))


# ---- arguments ----------------------------------------------------------------------------------------------------

NAN = float("nan")
BAD_ARGUMENTS: list[tuple[Callable[[], object], type[Exception], str]] = [
    (lambda: HarmonicModel(0.0), ValueError, "k: expected a finite real number > 0, got 0.0"),
    (lambda: HarmonicModel(NAN), ValueError, "k: expected .* got nan"),
    (lambda: HarmonicModel(torch.ones(3)), TypeError, r"k: expected .* \(Tensor\)"),
    (lambda: HarmonicModel(True), TypeError, r"k: expected .* got True \(bool\)"),
    (lambda: DoubleWellModel(-2.0), ValueError, "barrier_height: expected"),
    (lambda: DoubleWellModel(b=-1.0), ValueError, "b: expected a finite real number >= 0"),
    (lambda: DoubleWellModel(b=math.inf), ValueError, "b: expected"),
    (lambda: RosenbrockModel(a=NAN), ValueError, "a: expected"),
    (lambda: RosenbrockModel(b=0.0), ValueError, "b: expected"),
    (lambda: AckleyModel(a=-1.0), ValueError, "a: expected"),
    (lambda: AckleyModel(b=0.0), ValueError, "b: expected"),
    (lambda: AckleyModel(c=NAN), ValueError, "c: expected"),
    (lambda: RastriginModel(-1.0), ValueError, "a: expected"),
    (lambda: RastriginModel("10"), TypeError, "a: expected"),
    (lambda: FunnelModel(1), ValueError, "dim: expected an integer >= 2, got 1"),
    (lambda: FunnelModel(scale=0.0), ValueError, "scale: expected"),
    (lambda: FunnelModel(2.0), TypeError, "dim: expected an integer"),
    (lambda: BananaModel(1), ValueError, "dim: expected"),
    (lambda: BananaModel(scale=-1.0), ValueError, "scale: expected"),
    (lambda: BananaModel(curvature=NAN), ValueError, "curvature: expected"),
    (lambda: GaussianModel([[0.0]], [[1.0]]), ValueError, r"mean: expected shape \[d\]"),
    (lambda: GaussianModel([], [[1.0]]), ValueError, "mean: expected .* not empty"),
    (lambda: GaussianModel([0.0, NAN], np.eye(2)), ValueError, "mean: expected finite numbers, got 1 NaN"),
    (lambda: GaussianModel([0.0, 0.0], np.eye(3)), ValueError, r"cov: expected shape \[2, 2\], got shape \(3, 3\)"),
    (lambda: GaussianModel([0.0, 0.0], [1.0, 1.0]), ValueError, r"cov: expected shape \[d, d\]"),
    (lambda: GaussianModel([0.0, 0.0], [[1.0, 0.5], [0.0, 1.0]]), ValueError, "cov: expected a symmetric matrix"),
    (lambda: GaussianModel([0.0, 0.0], [[1.0, 2.0], [2.0, 1.0]]), ValueError, "eigenvalues from -1 to 3"),
    (lambda: GaussianModel([0.0, 0.0], [[1.0, 1.0], [1.0, 1.0]]), ValueError, "cov: expected a positive definite"),
    (lambda: GaussianModel([0.0], [[0.0]]), ValueError, "cov: expected a positive definite"),
    (lambda: GaussianModel("origin", [[1.0]]), TypeError, "mean: expected numbers"),
    (lambda: GaussianModel([1j], [[1.0]]), TypeError, "mean: expected real numbers"),
    (lambda: GaussianMixtureModel([[0.0]]), ValueError, "covs, scales: expected one of the two, got neither"),
    (lambda: GaussianMixtureModel([[0.0]], [[[1.0]]], 1.0), ValueError, "covs, scales: .* got both"),
    (lambda: GaussianMixtureModel([0.0], scales=1.0), ValueError, r"means: expected shape \[K, d\]"),
    (lambda: GaussianMixtureModel(MEANS, scales=0.0), ValueError, "scales: expected a finite real number > 0"),
    (lambda: GaussianMixtureModel(MEANS, scales=[1.0, 1.0]), ValueError, r"scales: expected shape \[3\]"),
    (lambda: GaussianMixtureModel(MEANS, scales=[1.0, -1.0, 1.0]), ValueError, "scales: expected entries > 0, got -1"),
    (lambda: GaussianMixtureModel(MEANS, np.ones((3, 3, 2))), ValueError, r"covs: expected shape \[3, 2, 2\]"),
    (lambda: GaussianMixtureModel(MEANS, -np.ones((3, 1, 1)) * np.eye(2)), ValueError, r"covs\[0\]: expected"),
    (lambda: GaussianMixtureModel(MEANS, scales=1.0, weights=[1.0, 0.0, 1.0]), ValueError, "weights: .* > 0, got 0"),
    (lambda: GaussianMixtureModel(MEANS, scales=1.0, weights=[1.0]), ValueError, r"weights: expected shape \[3\]"),
    (lambda: MLPModel(0), ValueError, "dim: expected"),
    (lambda: MLPModel(2, (0,)), ValueError, r"hidden\[0\]: expected"),
    (lambda: MLPModel(2, 1.5), TypeError, "hidden: expected a sequence"),
    (lambda: MLPModel(2, "64"), TypeError, "hidden: expected a sequence"),
    (lambda: MLPModel(2, activation="swish"), ValueError, "activation: expected one of .* got 'swish'"),
    (lambda: MLPModel(2, activation=nn.ReLU()), TypeError, "Pass the class"),
    (lambda: MLPModel(2, activation=dict), TypeError, "activation: expected .* gives dict"),
    (lambda: MLPModel(2, seed=-1), ValueError, "seed: expected"),
    (lambda: MLPModel(2, confinement=-0.1), ValueError, "confinement: expected"),
    (lambda: GaussianModel(MEAN, COV)(torch.zeros(4, 2)), ValueError, r"GaussianModel: x: expected shape \[n, 3\]"),
    (lambda: RosenbrockModel()(torch.zeros(4, 1)), ValueError, r"RosenbrockModel: x: expected shape \[n, d >= 2\]"),
    (lambda: HimmelblauModel()(torch.zeros(4, 3)), ValueError, r"HimmelblauModel: x: expected shape \[n, 2\]"),
    (lambda: BoothModel()(torch.zeros(4, 2, 2)), ValueError, r"BoothModel: x: expected"),
    (lambda: MLPModel(2)(torch.zeros(4, 3)), ValueError, r"MLPModel: x: expected shape \[n, 2\]"),
    (lambda: HarmonicModel()(torch.zeros(())), ValueError, "HarmonicModel: x: .* a 0-d tensor"),
    (lambda: HarmonicModel().exact_mean(), ValueError, "HarmonicModel: dim: expected an integer >= 1, got None"),
    (lambda: RosenbrockModel().exact_mean(3), ValueError, "RosenbrockModel: dim: expected 2 or None, got 3"),
]


@pytest.mark.parametrize("case", range(len(BAD_ARGUMENTS)))
def test_bad_arguments_get_a_clear_message(case: int) -> None:
    call, error, message = BAD_ARGUMENTS[case]
    with pytest.raises(error, match=message):
        call()


def test_lists_of_floats_lose_no_digits() -> None:
    assert GaussianModel([0.1], [[0.3]], dtype=DOUBLE).exact_mean().item() == 0.1
    assert float(GaussianModel([0.1], [[0.3]], dtype=DOUBLE).exact_cov()) == pytest.approx(0.3, rel=1e-15)


def test_a_float32_estimate_of_a_covariance_is_symmetric_enough() -> None:
    cov = torch.tensor(COV)
    cov[0, 1] += 1e-6
    assert float((GaussianModel(MEAN, cov).exact_cov() - torch.tensor(COV)).abs().max()) < 1e-5


# ---- network and registry -----------------------------------------------------------------------------------------


def test_mlp_seed_gives_one_network() -> None:
    state = torch.get_rng_state()
    model = MLPModel(2, seed=5)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(model.net[0].weight, MLPModel(2, seed=5).net[0].weight)
    assert torch.equal(model.net[0].weight, MLPModel(2, seed=5, dtype=DOUBLE).net[0].weight.float())
    assert not torch.equal(model.net[0].weight, MLPModel(2, seed=6).net[0].weight)
    assert not torch.equal(MLPModel(2).net[0].weight, MLPModel(2).net[0].weight)
    # Without a seed it draws what the same layers written by hand draw.
    torch.manual_seed(9)
    by_hand = nn.Sequential(nn.Linear(2, 64), nn.SELU(), nn.Linear(64, 1))
    torch.manual_seed(9)
    ours = MLPModel(2)
    x = torch.randn(5, 2)
    assert torch.equal(ours(x), by_hand(x).squeeze(-1))
    assert str(ours.net) == str(by_hand)


def test_mlp_layers_are_as_asked() -> None:
    assert [layer.out_features for layer in MLPModel(3, 8).net[::2]] == [8, 1]
    assert [layer.out_features for layer in MLPModel(3, [8, 4]).net[::2]] == [8, 4, 1]
    assert MLPModel(3, ())(torch.zeros(2, 3)).shape == (2,)
    assert isinstance(MLPModel(3, activation="SiLU").net[1], nn.SiLU)
    leaky = MLPModel(3, activation=lambda: nn.LeakyReLU(0.3)).net[1]
    assert isinstance(leaky, nn.LeakyReLU) and leaky.negative_slope == 0.3


def test_confinement_makes_a_density() -> None:
    bare, confined = MLPModel(2, seed=0), MLPModel(2, seed=0, confinement=1.0)
    x = torch.randn(6, 2, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(confined(x) - bare(x), 0.5 * x.square().sum(dim=-1))
    angles = torch.linspace(0, 2 * math.pi, 200)
    ring = torch.stack([angles.cos(), angles.sin()], dim=-1)
    with torch.no_grad():
        assert float((bare(1000 * ring) - bare(100 * ring)).min()) < 0  # falls without bound somewhere
        assert float((confined(1000 * ring) - confined(100 * ring)).min()) > 1e5


@pytest.mark.parametrize("name", BUILTIN_ENERGIES)
def test_builtin_energies_can_be_sampled(name: str) -> None:
    factory, event_shape = BUILTIN_ENERGIES[name]
    x = torch.randn(5, *event_shape, generator=torch.Generator().manual_seed(0))
    model = factory()
    assert isinstance(model, BaseModel)
    assert bool(torch.isfinite(model(x)).all()) and bool(torch.isfinite(model.gradient(x)).all())
    torch.testing.assert_close(factory()(x), model(x), rtol=0, atol=0)  # a name is one density
    double = factory(dtype=DOUBLE)(x.double())
    assert double.dtype == DOUBLE
    torch.testing.assert_close(double.float(), model(x), rtol=1e-4, atol=1e-4)
    assert factory(device="cpu").device.type == "cpu"


def test_every_model_has_a_name() -> None:
    named = {type(builtin.factory()).__name__ for builtin in BUILTIN_ENERGIES.values()}
    models = {name for name in compiled_ebm.energies.__all__ if name.endswith("Model")} - {"BaseModel"}
    assert named == models


@pytest.mark.parametrize("module", [info.name for info in pkgutil.iter_modules(compiled_ebm.energies.__path__)])
def test_docstring_examples_run(module: str) -> None:
    assert doctest.testmod(importlib.import_module(f"compiled_ebm.energies.{module}")).failed == 0
