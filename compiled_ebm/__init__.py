"""Compiled many-chain sampling of PyTorch energies."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from compiled_ebm import schedules
from compiled_ebm.adaptation import WarmupResult
from compiled_ebm.builder import build_sampler
from compiled_ebm.energies import (
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
from compiled_ebm.errors import BackendUnavailableError, NonFiniteChainWarning, UnsupportedEnergyError
from compiled_ebm.kernel_cost import KernelCost, kernel_cost
from compiled_ebm.repetition import repeat
from compiled_ebm.sampler import Sampler
from compiled_ebm.samplers import GradientDescentSampler, HamiltonianMonteCarlo, LangevinDynamics, NesterovSampler
from compiled_ebm.state import ChainState, RunResult, RunStats
from compiled_ebm.transitions import (
    HMC,
    MALA,
    Barker,
    GradientDescent,
    Langevin,
    Nesterov,
    Noise,
    PreconditionedLangevin,
    RandomWalk,
    ReplicaExchange,
    Transition,
    UnderdampedLangevin,
)

if TYPE_CHECKING:
    from compiled_ebm.laboratory.compare import compare
    from compiled_ebm.laboratory.report import Comparison
    from compiled_ebm.laboratory.tune import Tuning, tune

__version__ = "0.1.0"

__all__ = [
    "AckleyModel",
    "BackendUnavailableError",
    "BananaModel",
    "Barker",
    "BaseModel",
    "BoothModel",
    "ChainState",
    "Comparison",
    "DoubleWellModel",
    "FunnelModel",
    "GaussianMixtureModel",
    "GaussianModel",
    "GradientDescent",
    "GradientDescentSampler",
    "HMC",
    "HamiltonianMonteCarlo",
    "HarmonicModel",
    "HimmelblauModel",
    "KernelCost",
    "Langevin",
    "LangevinDynamics",
    "MALA",
    "MLPModel",
    "Nesterov",
    "NesterovSampler",
    "Noise",
    "NonFiniteChainWarning",
    "PreconditionedLangevin",
    "RandomWalk",
    "RastriginModel",
    "ReplicaExchange",
    "RosenbrockModel",
    "RunResult",
    "RunStats",
    "Sampler",
    "StyblinskiTangModel",
    "Transition",
    "Tuning",
    "UnderdampedLangevin",
    "UnsupportedEnergyError",
    "WarmupResult",
    "__version__",
    "build_sampler",
    "compare",
    "kernel_cost",
    "repeat",
    "schedules",
    "tune",
]

_LABORATORY = {"Comparison": "report", "Tuning": "tune", "compare": "compare", "tune": "tune"}
"""Imported when they are first asked for: sampling needs none of what they do."""


def __getattr__(name: str) -> Any:
    if name not in _LABORATORY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"compiled_ebm.laboratory.{_LABORATORY[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_LABORATORY})
