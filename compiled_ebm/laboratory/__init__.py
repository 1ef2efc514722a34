"""The laboratory: backends and peers side by side."""

from compiled_ebm.laboratory.compare import compare
from compiled_ebm.laboratory.report import Comparison, Entry

__all__ = ["Comparison", "Entry", "compare"]
