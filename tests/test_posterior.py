"""A posterior that another library has sampled in float64 (reference_posterior.py): moves here have the same law."""

import json
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from reference_posterior import FEATURES, RESULT, checksum, data
from torch import Tensor, nn

import compiled_ebm as ce
from compiled_ebm.backends.fused import toolchain
from compiled_ebm.transitions import Transition

needs_compiler = pytest.mark.skipif(toolchain.why_unavailable() is not None, reason="needs a C++ compiler")
SIGMAS = 5.0
N_CHAINS = 16_384
REFERENCE: dict[str, Any] = json.loads(RESULT.read_text())


class LogisticPosterior(nn.Module):
    features: Tensor
    labels: Tensor
    prior_precision: Tensor

    def __init__(self) -> None:
        super().__init__()
        features, labels = data()
        self.register_buffer("features", torch.from_numpy(features))
        self.register_buffer("labels", torch.from_numpy(labels))
        self.register_buffer("prior_precision", torch.tensor(1.0))

    def forward(self, x: Tensor) -> Tensor:
        logits = x @ self.features.T
        fit = (F.softplus(logits) - self.labels * logits).sum(-1)
        return fit + 0.5 * self.prior_precision * x.square().sum(-1)


def reference(name: str) -> tuple[np.ndarray, np.ndarray]:
    """A statistic and its standard error."""
    return np.array(REFERENCE["values"][name]), np.array(REFERENCE["standard errors"][name])


def deviations(x: Tensor) -> dict[str, np.ndarray]:
    """(ours - theirs) / the error of both, of independent draws ``[n, features]``, for each statistic.

    Our error is exact, from the spread of the statistic's influence function over independent chains; that of a tail,
    the part of the chains beyond the reference's quantile, is binomial, and what the quantile's own error adds to it
    takes the density of a normal there.
    """
    draws = x.double().numpy()
    root = math.sqrt(len(draws))
    sd = draws.std(0)
    z = (draws - draws.mean(0)) / sd
    left, right, squares = z[:, :-1], z[:, 1:], z**2
    correlation = (left * right).mean(0)
    tilted = left * right - 0.5 * correlation * (squares[:, :-1] + squares[:, 1:])
    found: dict[str, np.ndarray] = {}
    for name, ours, error in (
        ("mean", draws.mean(0), sd / root),
        ("sd", sd, 0.5 * sd * squares.std(0) / root),
        ("correlation", correlation, tilted.std(0) / root),
    ):
        theirs, their_error = reference(name)
        found[name] = (ours - theirs) / np.hypot(error, their_error)
    tail = REFERENCE["quantiles"][0]
    density = math.exp(-0.5 * 1.6449**2) / math.sqrt(2 * math.pi) / reference("sd")[0]
    for name, sign in (("low", 1.0), ("high", -1.0)):
        quantile, their_error = reference(name)
        beyond = (sign * (draws - quantile) < 0).mean(0)
        found[name] = (beyond - tail) / np.hypot(math.sqrt(tail * (1 - tail)) / root, density * their_error)
    return found


def worst(found: Mapping[str, np.ndarray]) -> dict[str, float]:
    """The largest deviation of each statistic, in standard errors."""
    return {name: float(np.abs(values).max()) for name, values in found.items()}


def moved(sampler: ce.Sampler, state: ce.ChainState, n_steps: int) -> ce.ChainState:
    """The chains after so many steps, of which none has failed."""
    result = sampler.run(state, n_steps, info=True)
    assert result.stats.info is not None
    assert result.stats.n_failed == 0
    assert result.stats.info["acceptance"].mean() > 0.6
    return result.state


@contextmanager
def changed(tensor: Tensor, values: Tensor) -> Iterator[None]:
    """The tensor with other values, in place."""
    before = tensor.clone()
    tensor.copy_(values)
    yield
    tensor.copy_(before)


def check(transition: Transition, n_steps: int, n_more: int) -> None:
    """The move finds the reference's posterior, and another one where the energy is another.

    Args:
        transition: A move that leaves the posterior invariant.
        n_steps: Steps from N(0, I) until the chains have forgotten it.
        n_more: Steps until they have left the posterior for one close by.
    """
    posterior = LogisticPosterior()
    sampler = ce.build_sampler(posterior, transition, event_shape=(FEATURES,))
    state = moved(sampler, sampler.init(n_chains=N_CHAINS, seed=12), n_steps)
    assert sampler.backend == "fused"
    found = worst(deviations(state.x))
    assert max(found.values()) < SIGMAS, found

    flipped = torch.arange(len(posterior.labels)) % 33 == 0
    for tensor, values in (
        (posterior.prior_precision, torch.tensor(1.3)),
        (posterior.labels, torch.where(flipped, 1 - posterior.labels, posterior.labels)),
    ):
        with changed(tensor, values):
            other = worst(deviations(moved(sampler, state, n_more).x))
        assert other["mean"] > 2 * SIGMAS, other


def test_the_data_are_those_of_the_reference() -> None:
    assert checksum() == REFERENCE["data sha256"]


@pytest.mark.slow
@needs_compiler
def test_hmc_finds_the_posterior_of_nuts() -> None:
    """Short steps at first: on the way from N(0, I) curvature is up to three times that of the posterior."""
    check(ce.HMC(step_size=ce.schedules.Linear(0.02, 0.05, 10), n_leapfrog_steps=8), n_steps=40, n_more=8)


@pytest.mark.slow
@needs_compiler
def test_mala_finds_the_posterior_of_nuts() -> None:
    check(ce.MALA(step_size=1.8e-3), n_steps=500, n_more=150)
