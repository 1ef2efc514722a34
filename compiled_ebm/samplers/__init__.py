"""TorchEBM-shaped samplers: its names, arguments, defaults and shapes over the compiled run loop."""

from compiled_ebm.samplers.descent import GradientDescentSampler, NesterovSampler
from compiled_ebm.samplers.hamiltonian import HamiltonianMonteCarlo
from compiled_ebm.samplers.langevin import LangevinDynamics

__all__ = ["GradientDescentSampler", "HamiltonianMonteCarlo", "LangevinDynamics", "NesterovSampler"]
