"""Transitions: one MCMC move a file."""

from compiled_ebm.transitions.base import Noise, NoiseDraw, Target, Transition
from compiled_ebm.transitions.langevin import Langevin

__all__ = ["Langevin", "Noise", "NoiseDraw", "Target", "Transition"]
