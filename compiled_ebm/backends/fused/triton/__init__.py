"""The Triton emitter: a tile program becomes one kernel for a CUDA device."""
