"""Adaptation across chains: step size, diagonal and trajectory length, found in a warm-up before sampling."""

from compiled_ebm.adaptation.warmup import WarmupResult, adaptable, warm_up

__all__ = ["WarmupResult", "adaptable", "warm_up"]
