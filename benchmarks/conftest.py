"""Settings that must be in the environment before torch is imported."""

import os

# Inductor's worker pool goes on starting for tens of seconds after a compile and would share the timed cores.
os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")
