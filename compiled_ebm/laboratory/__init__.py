"""The laboratory: backends and peers side by side."""

from compiled_ebm.laboratory.compare import compare
from compiled_ebm.laboratory.report import Comparison, Entry
from compiled_ebm.laboratory.tune import Point, Tuning, tune

__all__ = ["Comparison", "Entry", "Point", "Tuning", "compare", "tune"]
