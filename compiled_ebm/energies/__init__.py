"""Energies E(x): a base class, the TorchEBM analytic family, benchmark targets and a small network.

The density of an energy is exp(-E(x)) / Z. Where the answer is known, a model has some of these methods; a method that
is missing is not known exactly:

    exact_mean(dim=None)            float64 CPU tensor [d], the mean of exp(-E)/Z
    exact_cov(dim=None)             float64 CPU tensor [d, d], its covariance
    log_normalizer(dim=None)        float, log Z
    exact_sample(n, seed, dim=None) tensor [n, d], independent draws, of the model's dtype and device

"Known" means a closed form, or one-dimensional quadrature that agrees with itself to 1e-10. `dim` is needed where the
energy takes any number of dimensions, and may be left out where the model fixes it.
"""

from compiled_ebm.energies.base import BaseModel
from compiled_ebm.energies.curved import BananaModel, FunnelModel, RosenbrockModel
from compiled_ebm.energies.gaussian import BoothModel, GaussianModel
from compiled_ebm.energies.landscapes import AckleyModel, HimmelblauModel
from compiled_ebm.energies.mixture import GaussianMixtureModel
from compiled_ebm.energies.neural import MLPModel
from compiled_ebm.energies.registry import BUILTIN_ENERGIES, BuiltinEnergy
from compiled_ebm.energies.separable import DoubleWellModel, HarmonicModel, RastriginModel, StyblinskiTangModel

__all__ = [
    "BUILTIN_ENERGIES",
    "AckleyModel",
    "BananaModel",
    "BaseModel",
    "BoothModel",
    "BuiltinEnergy",
    "DoubleWellModel",
    "FunnelModel",
    "GaussianMixtureModel",
    "GaussianModel",
    "HarmonicModel",
    "HimmelblauModel",
    "MLPModel",
    "RastriginModel",
    "RosenbrockModel",
    "StyblinskiTangModel",
]
