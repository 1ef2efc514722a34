"""The energies of `models.py` in jax, for one position, from the same weights.

jax is imported when a function is called.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor, nn

from benchmarks.models import (
    MLP,
    DoubleWell,
    Gaussian,
    GaussianMixture,
    LennardJones,
    LogisticPosterior,
    Phi4,
    Rosenbrock,
)

if TYPE_CHECKING:
    import jax

    JaxEnergy = Callable[[jax.Array], jax.Array]


def _array(tensor: Tensor) -> np.ndarray:
    return tensor.detach().cpu().numpy()


def mlp(module: MLP) -> JaxEnergy:
    import jax

    activations = {nn.SELU: jax.nn.selu, nn.SiLU: jax.nn.silu}
    layers = [(_array(layer.weight), _array(layer.bias)) for layer in module.net if isinstance(layer, nn.Linear)]
    activation = activations[type(module.net[1])]

    def energy(x: jax.Array) -> jax.Array:
        for weight, bias in layers[:-1]:
            x = activation(weight @ x + bias)
        weight, bias = layers[-1]
        out: jax.Array = weight @ x + bias
        return out[0]

    return energy


def gaussian_mixture(module: GaussianMixture) -> JaxEnergy:
    import jax

    means, log_weights = _array(module.means), _array(module.log_weights)

    def energy(x: jax.Array) -> jax.Array:
        squared = ((x - means) ** 2).sum(-1)
        return -jax.nn.logsumexp(log_weights - 0.5 * module.precision * squared)

    return energy


def double_well(module: DoubleWell) -> JaxEnergy:
    return lambda x: module.barrier_height * ((x**2 - module.b**2) ** 2).sum()


def rosenbrock(module: Rosenbrock) -> JaxEnergy:
    return lambda x: (module.b * (x[1:] - x[:-1] ** 2) ** 2 + (module.a - x[:-1]) ** 2).sum()


def gaussian(module: Gaussian) -> JaxEnergy:
    mean, precision = _array(module.mean), _array(module.precision)

    def energy(x: jax.Array) -> jax.Array:
        delta = x - mean
        return 0.5 * (delta * (delta @ precision)).sum()

    return energy


def logistic_posterior(module: LogisticPosterior) -> JaxEnergy:
    import jax
    import jax.numpy as jnp

    features, labels = _array(module.features), _array(module.labels)

    def energy(x: jax.Array) -> jax.Array:
        logits = jnp.dot(features, x)
        return (jax.nn.softplus(logits) - labels * logits).sum() + 0.5 * (x**2).sum()

    return energy


def phi4(module: Phi4) -> JaxEnergy:
    import jax.numpy as jnp

    def energy(x: jax.Array) -> jax.Array:
        kinetic = 0.5 * ((jnp.roll(x, -1, -1) - x) ** 2 + (jnp.roll(x, -1, -2) - x) ** 2)
        return (kinetic + 0.5 * module.mass_squared * x**2 + module.coupling * x**4).sum()

    return energy


def lennard_jones(module: LennardJones) -> JaxEnergy:
    first, second = _array(module.first), _array(module.second)

    def energy(x: jax.Array) -> jax.Array:
        inverse6 = 1.0 / ((x[first] - x[second]) ** 2).sum(-1) ** 3
        pair_energy = 4.0 * module.epsilon * (inverse6 * inverse6 - inverse6).sum()
        return pair_energy + 0.5 * module.trap * (x**2).sum()

    return energy
