"""Seconds of building with nothing kept on disk, and again with what the first has left there."""

from __future__ import annotations

import os
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from compiled_ebm.backends.fused.toolchain import unloaded
from compiled_ebm.backends.inductor import forgotten
from compiled_ebm.laboratory.timing import Contender

__all__ = ["BuildTimes", "build_times", "empty_caches"]

_FOLDERS = ("COMPILED_EBM_CACHE", "TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR")

C = TypeVar("C", bound=Contender)
_alone = threading.RLock()
"""The environment's variables are the process's: one thread at a time."""
BuildTimes = tuple[float, float]
"""Cold and warm, seconds."""


def build_times(make: Callable[[], C]) -> tuple[C, BuildTimes]:
    """Build twice, the second time from what the first has kept; the second contender, ready to run, and both times.

    Imports that the first build of ours brings are part of it; the peers' own imports, and JAX's translation of the
    energy, are not. JAX and the loops keep nothing, and compile twice.
    """
    with _alone, empty_caches():
        cold = make().build()
        contender = make()
        with unloaded(), forgotten():
            warm = contender.build()
    return contender, (cold, warm)


@contextmanager
def empty_caches() -> Iterator[None]:
    """Within it nothing compiled before is found, on disk or loaded; what is compiled is removed at its end."""
    before = {name: os.environ.get(name) for name in _FOLDERS}
    with (
        tempfile.TemporaryDirectory(prefix="compiled_ebm_", ignore_cleanup_errors=True) as folder,
        unloaded(),
        forgotten(),
    ):
        try:
            for name in _FOLDERS:
                os.environ[name] = os.path.join(folder, name.lower())
            _forget()
            yield
        finally:
            for name, value in before.items():
                os.environ.pop(name, None)
                if value is not None:
                    os.environ[name] = value
            _forget()


def _forget() -> None:
    """What Inductor remembers of its folder, if it has been imported."""
    inductor = sys.modules.get("torch._inductor.utils")
    if inductor is not None:
        inductor.clear_caches()
