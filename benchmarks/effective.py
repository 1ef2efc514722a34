"""Effective samples a second of HMC and MALA on CPU: compiled_ebm beside BlackJAX and NumPyro.

`python -m benchmarks.effective --threads 2 --json effective.json`; needs the extra `peers`.

The targets are the 128-d double well, the mixture of 8 normals in 2-d and the 100-d Gaussian of `workloads.py`. Target,
chains, step size and trajectory are the same for all, in float32, without adaptation, each run one launch or one jitted
call. NumPyro has no MALA and runs HMC with one leapfrog step of √(2η), which is the same Markov kernel. What is timed
keeps the last positions alone. Acceptance, effective samples and moments come from other runs, which start from exact
draws of the target, so that there is nothing to burn in, and the benchmark fails unless all of them agree.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import math
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from benchmarks.cpu import limit_cpus

if TYPE_CHECKING:
    import jax
    from torch import Tensor, nn

    import compiled_ebm as ce
    from benchmarks.workloads import Workload

Array = NDArray[np.float64]
Row = dict[str, Any]
Exact = Callable[["nn.Module", int, np.random.Generator], Array]

OURS = "compiled_ebm"
REQUIRES = ("jax", "blackjax", "numpyro")
COORDINATES = 4
"""The first of each position: their moments are compared, and effective samples counted, beside the energy's."""
EXACT_DRAWS = 100_000
SIGMAS = 5.0
ACCEPTANCES, EFFICIENCIES = 0.01, 0.25
"""How far apart acceptances, and steps a sample by their ratio, may be: Monte-Carlo error is a quarter of it."""


@dataclass(frozen=True)
class Move:
    """A move, how long it is timed, and how it is looked at: `n_draws` draws, one every `thin` steps.

    Draws that are kept stretch over several autocorrelation times; slow chains are thinned.
    """

    name: str
    step_size: float
    n_leapfrog_steps: int
    n_steps: int
    n_draws: int
    thin: int


@dataclass(frozen=True)
class Problem:
    """A workload of `workloads.py`, how it is drawn from exactly, and the moves that sample it."""

    workload: str
    exact: Exact
    moves: tuple[Move, ...]


def double_wells(energy: nn.Module, n: int, generator: np.random.Generator) -> Array:
    """Coordinates are independent: each by the inverse of its distribution function on a fine grid."""
    from benchmarks.workloads import WORKLOADS

    height, b = energy.barrier_height, energy.b
    grid = np.linspace(-4.0, 4.0, 40_001)
    mass = np.exp(-height * (grid**2 - b**2) ** 2)  # type: ignore[operator]
    below = np.concatenate([[0.0], np.cumsum(0.5 * (mass[1:] + mass[:-1]))])
    return np.interp(generator.random((n, *WORKLOADS["double-well"].event_shape)), below / below[-1], grid)


def mixture(energy: nn.Module, n: int, generator: np.random.Generator) -> Array:
    """A component, and a normal around it."""
    means, log_weights = _float64(energy.means), _float64(energy.log_weights)
    weights = np.exp(log_weights)
    which = generator.choice(len(weights), n, p=weights / weights.sum())
    sigma = 1 / math.sqrt(energy.precision)  # type: ignore[arg-type]
    return np.asarray(means[which] + sigma * generator.standard_normal((n, means.shape[1])))


def gaussian(energy: nn.Module, n: int, generator: np.random.Generator) -> Array:
    """By the Cholesky factor of its covariance."""
    mean, factor = _float64(energy.mean), np.linalg.cholesky(_float64(energy.cov))
    return np.asarray(mean + generator.standard_normal((n, len(mean))) @ factor.T)


def _float64(tensor: Any) -> Array:
    return np.asarray(tensor.numpy(), dtype=np.float64)


# Step sizes for acceptances of about 0.85 (HMC) and 0.6 (MALA).
PROBLEMS = (
    Problem("double-well", double_wells, (Move("hmc", 0.1, 8, 150, 150, 2), Move("mala", 0.0115, 1, 400, 100, 25))),
    Problem("mixture", mixture, (Move("hmc", 0.6, 6, 60, 100, 1), Move("mala", 0.4, 1, 250, 100, 8))),
    Problem("gaussian", gaussian, (Move("hmc", 0.4, 4, 30, 50, 1), Move("mala", 0.22, 1, 120, 60, 3))),
)
_QUICK = slice(2, 3)
"""HMC of the mixture, which takes least."""


class Contender(Protocol):
    """One library's move on one target."""

    name: str

    def build(self) -> float:
        """Compile; seconds."""

    def run(self) -> Tensor:
        """All steps from the start; the last positions."""

    def draws(self, x0: Tensor, n_draws: int, thin: int) -> tuple[Tensor, float]:
        """Draws `[chains, n_draws, *event]` from this start, one every `thin` steps, and the mean acceptance."""


class CompiledMove:
    """compiled_ebm, with the backend that it chooses."""

    name = OURS

    def __init__(self, workload: Workload, move: Move, x0: Tensor) -> None:
        self.workload, self.move, self.x0 = workload, move, x0
        self.sampler: ce.Sampler | None = None

    def build(self) -> float:
        """Trace and compile; seconds."""
        import compiled_ebm as ce

        step_size, n_leapfrog_steps = self.move.step_size, self.move.n_leapfrog_steps
        transition = ce.HMC(step_size, n_leapfrog_steps) if self.move.name == "hmc" else ce.MALA(step_size)
        begin = time.perf_counter()
        self.sampler = ce.build_sampler(
            self.workload.energy_factory(), transition, event_shape=self.workload.event_shape
        )
        self.sampler.build(len(self.x0))
        return time.perf_counter() - begin

    def run(self) -> Tensor:
        """All steps from the start; the last positions."""
        sampler = self._built()
        x: Tensor = sampler.run(sampler.init(self.x0, seed=0), self.move.n_steps).state.x
        return x

    def draws(self, x0: Tensor, n_draws: int, thin: int) -> tuple[Tensor, float]:
        """By the kernel that is timed; acceptances by one that averages them, over the same steps."""
        sampler = self._built()
        state, n_steps = sampler.init(x0, seed=1), n_draws * thin
        draws, told = sampler.run(state, n_steps, thin=thin).draws, sampler.run(state, n_steps, info=True).stats.info
        assert draws is not None and told is not None
        return draws, float(told["acceptance"].mean())

    def _built(self) -> ce.Sampler:
        if self.sampler is None:
            raise RuntimeError("CompiledMove: call build() first")
        return self.sampler


class JaxMove:
    """A jax library's kernel, vmapped over chains and scanned over steps in one jitted call; how is up to subclasses.

    The chains' state at the start is made in `build`, so that a run is its steps alone.
    """

    name: str

    def __init__(self, workload: Workload, move: Move, x0: Tensor) -> None:
        assert workload.jax_energy is not None
        self.energy, self.move, self.x0 = workload.jax_energy(workload.energy_factory()), move, x0
        self.compiled: Callable[[], jax.Array] | None = None

    def begin(self, x0: jax.Array, key: jax.Array) -> Any:
        """The chains' state at x0."""
        raise NotImplementedError

    def step(self, state: Any, key: jax.Array) -> tuple[Any, jax.Array]:
        """One step of all chains, and the acceptance probabilities."""
        raise NotImplementedError

    def positions(self, state: Any) -> jax.Array:
        """Those of the state, `[chains, *event]`."""
        raise NotImplementedError

    def _state(self, x0: Tensor, seed: int) -> tuple[Any, jax.Array]:
        import jax

        first, key = jax.random.split(jax.random.key(seed))
        return self.begin(jax.numpy.asarray(x0.numpy()), first), key

    def build(self) -> float:
        """Trace and compile the whole run; seconds."""
        import jax

        def sample(state: Any, key: jax.Array) -> jax.Array:
            keys = jax.random.split(key, self.move.n_steps)
            return self.positions(jax.lax.scan(lambda state, key: (self.step(state, key)[0], None), state, keys)[0])

        begin = time.perf_counter()
        state, key = self._state(self.x0, seed=0)
        compiled = jax.jit(sample).lower(state, key).compile()
        self.compiled = lambda: compiled(state, key)
        return time.perf_counter() - begin

    def run(self) -> Tensor:
        """All steps from the start, waited for; the last positions (no copy)."""
        from torch.utils.dlpack import from_dlpack

        if self.compiled is None:
            raise RuntimeError(f"{type(self).__name__}: call build() first")
        return from_dlpack(self.compiled().block_until_ready())

    def draws(self, x0: Tensor, n_draws: int, thin: int) -> tuple[Tensor, float]:
        """By another jitted call, which keeps positions and acceptances."""
        import jax
        from torch.utils.dlpack import from_dlpack

        def draw(state: Any, key: jax.Array) -> tuple[Any, tuple[jax.Array, jax.Array]]:
            state, acceptances = jax.lax.scan(self.step, state, jax.random.split(key, thin))
            return state, (self.positions(state), acceptances.mean())

        def sample(state: Any, key: jax.Array) -> tuple[jax.Array, jax.Array]:
            kept: tuple[jax.Array, jax.Array] = jax.lax.scan(draw, state, jax.random.split(key, n_draws))[1]
            return kept

        x, acceptances = jax.jit(sample)(*self._state(x0, seed=1))
        return from_dlpack(x).movedim(0, 1), float(acceptances.mean())


class BlackJax(JaxMove):
    """blackjax.hmc and blackjax.mala."""

    name = "blackjax"

    def _algorithm(self, event_shape: tuple[int, ...]) -> Any:
        import blackjax
        import jax

        def log_density(x: jax.Array) -> jax.Array:
            return -self.energy(x)

        if self.move.name == "mala":
            return blackjax.mala(log_density, self.move.step_size)
        mass = jax.numpy.ones(event_shape)
        return blackjax.hmc(log_density, self.move.step_size, mass, self.move.n_leapfrog_steps)

    def begin(self, x0: jax.Array, key: jax.Array) -> Any:
        """Positions, log densities and gradients."""
        import jax

        return jax.vmap(self._algorithm(x0.shape[1:]).init)(x0)

    def step(self, state: Any, key: jax.Array) -> tuple[Any, jax.Array]:
        """A key for each chain, split from the step's."""
        import jax

        keys = jax.random.split(key, len(state.position))
        state, info = jax.vmap(self._algorithm(state.position.shape[1:]).step)(keys, state)
        return state, info.acceptance_rate

    def positions(self, state: Any) -> jax.Array:
        """Those of the state."""
        x: jax.Array = state.position
        return x


class NumPyro(JaxMove):
    """numpyro.infer.HMC, as its chain_method="vectorized" runs it, but without keeping draws."""

    name = "numpyro"

    def begin(self, x0: jax.Array, key: jax.Array) -> Any:
        """A kernel whose step is vmapped, since it is given many keys."""
        import jax
        from numpyro.infer import HMC

        step_size = self.move.step_size if self.move.name == "hmc" else math.sqrt(2 * self.move.step_size)
        self.kernel = HMC(
            potential_fn=self.energy,
            step_size=step_size,
            num_steps=self.move.n_leapfrog_steps,
            trajectory_length=None,
            adapt_step_size=False,
            adapt_mass_matrix=False,
        )
        return self.kernel.init(jax.random.split(key, len(x0)), 0, init_params=x0)

    def step(self, state: Any, key: jax.Array) -> tuple[Any, jax.Array]:
        """The state has the chains' keys; the step's own is not used."""
        state = self.kernel.sample(state, (), {})
        return state, state.accept_prob

    def positions(self, state: Any) -> jax.Array:
        """Those of the state."""
        x: jax.Array = state.z
        return x


CONTENDERS: tuple[type[CompiledMove] | type[JaxMove], ...] = (CompiledMove, BlackJax, NumPyro)


def autocorrelation_time(values: Array) -> float:
    """Draws that are worth an independent one, of stationary chains `[chains, n]` of one number.

    Geyer's initial monotone sequence ("Practical Markov chain Monte Carlo", 1992, section 3.3) of the covariances of
    all chains together, around their common mean and unbiased: with many chains both are known well, where estimates
    around each chain's own mean, made for a few long chains, are 25% off for chains of a few autocorrelation times.
    """
    n = values.shape[1]
    transformed = np.fft.rfft(values - values.mean(), 2 * n, axis=1)
    covariance = np.fft.irfft(np.mean(np.abs(transformed) ** 2, axis=0), 2 * n)[:n] / np.arange(n, 0, -1)
    pairs = (covariance / covariance[0])[: n // 2 * 2].reshape(-1, 2).sum(1)
    negative = np.flatnonzero(pairs <= 0)
    positive = pairs[: negative[0]] if len(negative) else pairs
    return float(2 * np.minimum.accumulate(positive).sum() - 1)


def quantities(energy: nn.Module, x: Tensor) -> Array:
    """First coordinates, their squares and the energy of draws `[chains, n, *event]`: `[quantities, chains, n]`."""
    import torch

    first = x.flatten(2)[..., :COORDINATES].movedim(-1, 0).double()
    with torch.no_grad():
        energies = torch.stack([energy(draw) for draw in x.unbind(1)], dim=1).double()
    return np.asarray(torch.cat([first, first.square(), energies[None]]).numpy())


@dataclass(frozen=True)
class Law:
    """What a sampler was seen to draw: means of the quantities with their errors, over independent chains."""

    means: Array
    errors: Array
    acceptance: float = math.nan
    steps_per_sample: float = math.nan
    """Of the coordinate, or the energy, that needs most."""


def law_of(values: Array, acceptance: float = math.nan, thin: int = 1) -> Law:
    """From quantities `[quantities, chains, n]` of draws `thin` steps apart."""
    chains = values.mean(2)
    errors = chains.std(1, ddof=1) / math.sqrt(chains.shape[1])
    if values.shape[2] == 1:
        return Law(chains.mean(1), errors)
    n_coordinates = len(values) // 2
    slowest = max(autocorrelation_time(values[k]) for k in (*range(n_coordinates), -1))
    return Law(chains.mean(1), errors, acceptance, thin * slowest)


def deviation(one: Law, other: Law) -> float:
    """The largest difference of a mean, in standard errors."""
    return float((np.abs(one.means - other.means) / np.hypot(one.errors, other.errors)).max())


def check(laws: dict[str, Law], exact: Law) -> dict[str, float]:
    """That all are the same Markov kernel, which leaves the target as it is; by contender, its largest deviation.

    Raises:
        ValueError: Naming what does not agree.
    """
    worst = {name: deviation(law, exact) for name, law in laws.items()}
    for (one, first), (other, second) in itertools.combinations(laws.items(), 2):
        apart = deviation(first, second)
        worst |= {name: max(worst[name], apart) for name in (one, other)}
        if not abs(first.acceptance - second.acceptance) < ACCEPTANCES:
            raise ValueError(f"{one} accepts {first.acceptance:.3f}, {other} {second.acceptance:.3f}")
        if not abs(math.log(first.steps_per_sample / second.steps_per_sample)) < EFFICIENCIES:
            needs = f"{first.steps_per_sample:.3g} steps a sample, {other} {second.steps_per_sample:.3g}"
            raise ValueError(f"{one} needs {needs}")
    for name, found in worst.items():
        if not found < SIGMAS:
            raise ValueError(f"a moment of {name} is {found:.1f} standard errors off")
    return worst


def compare(problem: Problem, move: Move, rounds: int, progress: Callable[[str], None]) -> list[Row]:
    """Time all contenders, look at what they draw, and check it: one row each."""
    import torch

    from benchmarks.timing import measure
    from benchmarks.workloads import WORKLOADS

    workload = dataclasses.replace(WORKLOADS[problem.workload], n_steps=move.n_steps)
    energy = workload.energy_factory()

    def exact(n: int, seed: int) -> Tensor:
        return torch.from_numpy(problem.exact(energy, n, np.random.default_rng(seed))).float()

    contenders = [contender(workload, move, exact(workload.n_chains, seed=0)) for contender in CONTENDERS]
    rows = measure(workload, contenders, rounds, baseline=OURS, progress=lambda text: progress(f"{move.name}, {text}"))
    laws: dict[str, Law] = {}
    for seed, contender in enumerate(contenders, start=1):
        progress(f"{move.name}, {workload.name}: {contender.name} draws")
        x, acceptance = contender.draws(exact(workload.n_chains, seed), move.n_draws, move.thin)
        laws[contender.name] = law_of(quantities(energy, x), acceptance, move.thin)
    progress(f"{move.name}, {workload.name}: exact draws")
    target = law_of(quantities(energy, exact(EXACT_DRAWS, seed=len(laws) + 1)[:, None]))
    try:
        worst = check(laws, target)
    except ValueError as error:
        raise SystemExit(f"{workload.name}, {move.name}: {error}") from None
    for row in rows:
        law = laws[row["contender"]]
        row |= {
            **dataclasses.asdict(move),
            "move": move.name,
            "acceptance": law.acceptance,
            "steps_per_sample": law.steps_per_sample,
            "samples_per_second": row["chain_steps_per_second"] / law.steps_per_sample,
            "deviation": worst[row["contender"]],
        }
        del row["name"]
    ours = next(row for row in rows if row["contender"] == OURS)
    for row in rows:
        row["ours_over_this"] = ours["samples_per_second"] / row["samples_per_second"]
    return rows


def show(report: Row) -> None:
    """Print the table."""
    from rich.console import Console
    from rich.table import Table

    console = Console(width=max(Console().width, 175))
    versions = ", ".join(f"{name} {version}" for name, version in report["versions"].items() if version)
    console.print(
        f"{report['device']}: {report['cpu']}, {report['threads']} of {report['cores']} cores, {report['vector']}; "
        f"{versions}"
    )
    table = Table(
        title=f"Effective samples a second, float32; speeds are medians of {report['rounds']} interleaved rounds",
        title_justify="left",
    )
    for column in ("target (chains)", "move", "contender"):
        table.add_column(column, no_wrap=True)
    for column in ("build s", "chain-steps/s", "steps/sample", "samples/s", "ours ÷ this", "speed alone"):
        table.add_column(column, justify="right", no_wrap=True)
    for column in ("acceptance", "worst moment"):
        table.add_column(column, justify="right", no_wrap=True)
    for index, row in enumerate(report["rows"]):
        if index % len(CONTENDERS) == 0:
            table.add_section()
        trajectory = f" × {row['n_leapfrog_steps']}" if row["move"] == "hmc" else ""
        table.add_row(
            f"{row['workload']} ({row['n_chains']:,})",
            f"{row['move']} {row['step_size']:g}{trajectory}",
            row["contender"],
            f"{row['build_seconds']:.2f}",
            f"{row['chain_steps_per_second']:.3g}",
            f"{row['steps_per_sample']:.3g}",
            f"{row['samples_per_second']:.3g}",
            f"{row['ours_over_this']:.1f}×",
            f"{1 / row['ratio']:.1f}×",
            f"{row['acceptance']:.3f}",
            f"{row['deviation']:.1f}σ",
        )
    console.print(table)
    console.print(
        f"All agree: acceptances within {ACCEPTANCES:g}, steps a sample within {EFFICIENCIES:.0%}, and "
        f"within {SIGMAS:g}σ the mean energy and the first coordinates' means and second moments, of each other's and "
        f"of {EXACT_DRAWS:,} exact draws'."
    )


def arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.effective", description=__doc__)
    parser.add_argument("--json", type=Path, help="write machine, versions and rows to this file")
    parser.add_argument("--rounds", type=int, default=5, help="timed runs of each contender (default %(default)s)")
    parser.add_argument("--threads", type=int, help="CPUs for every contender (default: all that this process may use)")
    parser.add_argument("--quick", action="store_true", help="one target and move, to see that it runs")
    options = parser.parse_args(argv)
    for name in ("rounds", "threads"):
        if getattr(options, name) is not None and getattr(options, name) < 1:
            parser.error(f"--{name} must be at least 1")
    return options


def main(argv: Sequence[str] | None = None) -> None:
    options = arguments(argv)
    missing = [name for name in REQUIRES if find_spec(name) is None]
    if missing:
        raise SystemExit(f"benchmarks.effective needs {', '.join(missing)}: pip install '.[peers]'")
    # Inductor's worker pool goes on starting for tens of seconds after a compile and would share the timed cores.
    os.environ["TORCHINDUCTOR_COMPILE_THREADS"] = "1"
    if options.threads:
        limit_cpus(options.threads)
    import torch
    from rich.console import Console

    from benchmarks.report import write
    from compiled_ebm.laboratory.machine import environment, package_version

    if options.threads:
        torch.set_num_threads(options.threads)
    report: Row = {**environment(), "rounds": options.rounds, "rows": []}
    report["versions"] |= {name: package_version(name) for name in ("blackjax", "numpyro")}
    with Console(stderr=True).status("") as status:
        compared = [(problem, move) for problem in PROBLEMS for move in problem.moves]
        for problem, move in compared[_QUICK] if options.quick else compared:
            report["rows"] += compare(problem, move, options.rounds, status.update)
            if options.json:
                write(options.json, report)
    show(report)


if __name__ == "__main__":
    main()
