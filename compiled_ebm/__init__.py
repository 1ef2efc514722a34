"""Compiled many-chain sampling of PyTorch energies."""

from compiled_ebm import schedules
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
from compiled_ebm.samplers import LangevinDynamics
from compiled_ebm.state import ChainState, RunResult, RunStats
from compiled_ebm.transitions import Langevin, Noise, Transition

__version__ = "0.1.0"

__all__ = [
    "AckleyModel",
    "BackendUnavailableError",
    "BananaModel",
    "BaseModel",
    "BoothModel",
    "ChainState",
    "DoubleWellModel",
    "FunnelModel",
    "GaussianMixtureModel",
    "GaussianModel",
    "HarmonicModel",
    "HimmelblauModel",
    "KernelCost",
    "Langevin",
    "LangevinDynamics",
    "MLPModel",
    "Noise",
    "NonFiniteChainWarning",
    "RastriginModel",
    "RosenbrockModel",
    "RunResult",
    "RunStats",
    "Sampler",
    "StyblinskiTangModel",
    "Transition",
    "UnsupportedEnergyError",
    "__version__",
    "build_sampler",
    "kernel_cost",
    "repeat",
    "schedules",
]
