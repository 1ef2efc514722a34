"""The C++ emitter: a tile program becomes the source of one kernel."""

from compiled_ebm.backends.fused.cpp.emitter import Kernel, emit

__all__ = ["Kernel", "emit"]
