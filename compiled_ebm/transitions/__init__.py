"""Transitions: one MCMC move a file."""

from compiled_ebm.transitions.barker import Barker
from compiled_ebm.transitions.base import Noise, NoiseDraw, Target, Transition
from compiled_ebm.transitions.descent import GradientDescent, Nesterov
from compiled_ebm.transitions.hmc import HMC
from compiled_ebm.transitions.langevin import Langevin
from compiled_ebm.transitions.mala import MALA
from compiled_ebm.transitions.preconditioned import PreconditionedLangevin
from compiled_ebm.transitions.random_walk import RandomWalk
from compiled_ebm.transitions.replica_exchange import ReplicaExchange
from compiled_ebm.transitions.underdamped import UnderdampedLangevin

__all__ = [
    "Barker",
    "GradientDescent",
    "HMC",
    "Langevin",
    "MALA",
    "Nesterov",
    "Noise",
    "NoiseDraw",
    "PreconditionedLangevin",
    "RandomWalk",
    "ReplicaExchange",
    "Target",
    "Transition",
    "UnderdampedLangevin",
]
