"""Torch's decompositions without SymPy, which takes 0.3 s to import and which none of them needs here."""

from __future__ import annotations

import builtins
import functools
import sys
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

__all__ = ["without_sympy"]


@contextmanager
def without_sympy() -> Iterator[None]:
    """Within the block, torch's type promotion of Python numbers and tensors does not import SymPy.

    The function that does (torch 2.13) only asks whether an argument is an expression of SymPy, and nothing can be
    before SymPy was imported. What stands for it meanwhile is the same code, so that other threads may call it too.
    """
    original: Any = getattr(torch._prims_common, "elementwise_dtypes", None)
    if "sympy" in sys.modules or not isinstance(original, types.FunctionType):
        yield
        return
    torch._prims_common.elementwise_dtypes = _importing_nothing(original)
    try:
        yield
    finally:
        torch._prims_common.elementwise_dtypes = original


@functools.cache
def _importing_nothing(function: types.FunctionType) -> Callable[..., Any]:
    own = {**vars(builtins), "__import__": _import}
    made = types.FunctionType(function.__code__, {**function.__globals__, "__builtins__": own}, function.__name__)
    made.__kwdefaults__ = function.__kwdefaults__
    return made


def _import(name: str, *args: Any, **kwargs: Any) -> Any:
    if name == "sympy" and name not in sys.modules:
        return types.SimpleNamespace(Basic=_Nothing)
    return builtins.__import__(name, *args, **kwargs)


class _Nothing:
    """Of which there is no instance."""
