"""Bounds of everything that a tile program computes, and how far from the origin its results are surely finite."""

from compiled_ebm.backends.fused.bounds.reach import CANDIDATES, Reach

__all__ = ["CANDIDATES", "Reach"]
