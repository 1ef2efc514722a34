"""The energies that have a name, for the command line and the benchmarks."""

import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from compiled_ebm.energies.base import BaseModel
from compiled_ebm.energies.curved import BananaModel, FunnelModel, RosenbrockModel
from compiled_ebm.energies.gaussian import BoothModel, GaussianModel
from compiled_ebm.energies.landscapes import AckleyModel, HimmelblauModel
from compiled_ebm.energies.mixture import GaussianMixtureModel
from compiled_ebm.energies.neural import MLPModel
from compiled_ebm.energies.separable import DoubleWellModel, HarmonicModel, RastriginModel, StyblinskiTangModel


class BuiltinEnergy(NamedTuple):
    """A named energy: `factory(dtype=..., device=...)`, both optional, makes it; it is sampled in `event_shape`."""

    factory: Callable[..., BaseModel]
    event_shape: tuple[int, ...]


_N_MODES = 8
_RADIUS = 4.0  # neighbouring modes are then 3.06 apart: six standard deviations of 0.5
_RING = tuple(
    (_RADIUS * math.cos(2 * math.pi * k / _N_MODES), _RADIUS * math.sin(2 * math.pi * k / _N_MODES))
    for k in range(_N_MODES)
)

#: Name to energy. The networks have fixed weights, so that a name means one density.
#:
#:     >>> factory, event_shape = BUILTIN_ENERGIES["mlp"]
#:     >>> factory(), event_shape
BUILTIN_ENERGIES: dict[str, BuiltinEnergy] = {
    "mlp": BuiltinEnergy(partial(MLPModel, 2, (64,), "selu", seed=0, confinement=1.0), (2,)),
    "gaussian": BuiltinEnergy(partial(GaussianModel, mean=(1.0, -1.0), cov=((1.0, 0.6), (0.6, 1.5))), (2,)),
    "double-well": BuiltinEnergy(DoubleWellModel, (2,)),
    "harmonic": BuiltinEnergy(HarmonicModel, (2,)),
    "rosenbrock": BuiltinEnergy(RosenbrockModel, (2,)),
    "ackley": BuiltinEnergy(AckleyModel, (2,)),
    "rastrigin": BuiltinEnergy(RastriginModel, (2,)),
    "himmelblau": BuiltinEnergy(HimmelblauModel, (2,)),
    "booth": BuiltinEnergy(BoothModel, (2,)),
    "styblinski-tang": BuiltinEnergy(StyblinskiTangModel, (2,)),
    "mixture": BuiltinEnergy(partial(GaussianMixtureModel, means=_RING, scales=0.5), (2,)),
    "funnel": BuiltinEnergy(FunnelModel, (10,)),
    "banana": BuiltinEnergy(BananaModel, (2,)),
}
