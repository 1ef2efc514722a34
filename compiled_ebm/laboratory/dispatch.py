"""How many operations a loop hands from Python to the device for a step."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode

__all__ = ["operations_per_step"]

_FEW, _MORE = 2, 4


def operations_per_step(steps: Callable[[int], object]) -> float:
    """Of a function that does that many steps: each is a launch on a GPU, and a call of a kernel on a CPU."""
    few, more = (_count(steps, n) for n in (_FEW, _MORE))
    return (more - few) / (_MORE - _FEW)


def _count(steps: Callable[[int], object], n: int) -> int:
    with _Counter() as counter:
        steps(n)
    return int(counter.count)


class _Counter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.count = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        self.count += not bool(func.is_view)
        return func(*args, **(kwargs or {}))
