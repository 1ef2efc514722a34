"""A posterior whose moments and quantiles another library has computed: `python -m tests.reference_posterior`.

Bayesian logistic regression, 1000 rows of 25 correlated features, prior N(0, I). NumPyro's NUTS samples it in float64
and writes tests/reference/logistic_posterior.json, which test_posterior.py compares with; that takes the extra `peers`
and three minutes of one core. The data need numpy alone.
"""

from __future__ import annotations

import hashlib
import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

RESULT = Path(__file__).parent / "reference" / "logistic_posterior.json"
ROWS, FEATURES, NEIGHBOURS = 1000, 25, 0.7
"""Of the table of features; the last is the correlation of neighbouring ones."""
DATA_SEED, NUTS_SEED = 20261123, 7
CHAINS, WARM_UP, DRAWS, BATCH = 20, 1000, 15_000, 500
"""A batch is what standard errors are computed over: many times longer than draws stay correlated."""
QUANTILES = (0.05, 0.95)

Array = NDArray[np.float64]


def data() -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Features ``[rows, features]`` and labels ``[rows]``, float32, so that every dtype sees the same numbers."""
    generator = np.random.default_rng(DATA_SEED)
    features = generator.standard_normal((ROWS, FEATURES))
    for column in range(2, FEATURES):
        fresh = np.sqrt(1 - NEIGHBOURS**2) * features[:, column]
        features[:, column] = NEIGHBOURS * features[:, column - 1] + fresh
    features[:, 0] = 1.0
    table = features.astype(np.float32)
    logits = (table.astype(np.float64) * generator.standard_normal(FEATURES)).sum(1)
    labels = generator.random(ROWS) < 1 / (1 + np.exp(-logits))
    return table, labels.astype(np.float32)


def checksum() -> str:
    """Of the data, which a later numpy might draw otherwise."""
    return hashlib.sha256(b"".join(array.tobytes() for array in data())).hexdigest()


def statistics(draws: Array) -> dict[str, Array]:
    """What is compared, of draws ``[n, features]``: one number for each feature, or pair of neighbours."""
    standard = (draws - draws.mean(0)) / draws.std(0)
    low, high = np.quantile(draws, QUANTILES, axis=0)
    return {
        "mean": draws.mean(0),
        "sd": draws.std(0),
        "low": low,
        "high": high,
        "correlation": (standard[:, 1:] * standard[:, :-1]).mean(0),
    }


def standard_errors(draws: Array) -> dict[str, Array]:
    """Of the statistics of chains ``[chains, n, features]``, from those of their batches."""
    batches = [statistics(batch) for chain in draws for batch in np.split(chain, len(chain) // BATCH)]
    return {
        name: np.std([batch[name] for batch in batches], axis=0, ddof=1) / np.sqrt(len(batches)) for name in batches[0]
    }


def nuts() -> tuple[Array, dict[str, float]]:
    """Chains ``[chains, draws, features]``, and figures of how well they mixed."""
    import jax

    jax.config.update("jax_enable_x64", True)
    import jax.numpy as jnp
    from numpyro.diagnostics import effective_sample_size, gelman_rubin
    from numpyro.infer import MCMC, NUTS

    features, labels = (jnp.asarray(array, dtype=jnp.float64) for array in data())

    def energy(weights: jax.Array) -> jax.Array:
        logits = features @ weights
        out: jax.Array = (jax.nn.softplus(logits) - labels * logits).sum() + 0.5 * (weights**2).sum()
        return out

    mcmc = MCMC(
        NUTS(potential_fn=energy),
        num_warmup=WARM_UP,
        num_samples=DRAWS,
        num_chains=CHAINS,
        chain_method="sequential",
        progress_bar=False,
    )
    key = jax.random.key(NUTS_SEED)
    mcmc.run(key, init_params=0.1 * jax.random.normal(key, (CHAINS, FEATURES)), extra_fields=("diverging",))
    draws = np.asarray(mcmc.get_samples(group_by_chain=True))
    assert draws.dtype == np.float64
    return draws, {
        "divergent": int(mcmc.get_extra_fields()["diverging"].sum()),
        "smallest effective sample size": float(effective_sample_size(draws).min()),
        "largest r_hat": float(gelman_rubin(draws).max()),
    }


def main() -> None:
    draws, mixing = nuts()
    values, errors = statistics(draws.reshape(-1, FEATURES)), standard_errors(draws)
    assert (errors["mean"] < 0.003 * values["sd"]).all(), "standard errors above 0.3% of a standard deviation"
    assert mixing["divergent"] == 0 and mixing["largest r_hat"] < 1.001
    report: dict[str, Any] = {
        "command": "python -m tests.reference_posterior",
        "method": "numpyro NUTS, float64, sequential chains",
        "versions": {name: version(name) for name in ("numpyro", "jax", "jaxlib", "numpy")},
        "seeds": {"data": DATA_SEED, "nuts": NUTS_SEED},
        "chains": CHAINS,
        "warm-up": WARM_UP,
        "draws": DRAWS,
        "batch": BATCH,
        "mixing": mixing,
        "data sha256": checksum(),
        "quantiles": list(QUANTILES),
        "values": {name: value.tolist() for name, value in values.items()},
        "standard errors": {name: [float(f"{error:.3g}") for error in value] for name, value in errors.items()},
    }
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
