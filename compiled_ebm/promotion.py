"""Torch's decompositions without the imports that they bring along: SymPy and TorchDynamo, one to three seconds."""

from __future__ import annotations

import builtins
import functools
import sys
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

__all__ = ["light_decompositions"]

_KEPT = "__dynamo_disable"
"""Where ``torch._disable_dynamo`` keeps what a function is to be called by."""


@contextmanager
def light_decompositions() -> Iterator[None]:
    """Within the block, decompositions that torch has in Python import neither SymPy nor TorchDynamo.

    Their type promotion (torch 2.13) imports SymPy to ask whether an argument is an expression of it, and TorchDynamo
    to be left out of what it compiles. Before either was imported, nothing can be an expression or be compiled. What
    stands for the functions meanwhile is the same code, so that other threads may call them too.
    """
    promote: Any = getattr(torch._prims_common, "elementwise_dtypes", None)
    lacks_sympy = "sympy" not in sys.modules and isinstance(promote, types.FunctionType)
    every = () if "torch._dynamo" in sys.modules else _guarded_functions()
    guarded = [function for function in every if not hasattr(function, _KEPT)]
    if lacks_sympy:
        torch._prims_common.elementwise_dtypes = _importing_nothing(promote)
    for function in guarded:
        setattr(function, _KEPT, function)
    try:
        yield
    finally:
        for function in guarded:
            delattr(function, _KEPT)
        if lacks_sympy:
            torch._prims_common.elementwise_dtypes = promote


@functools.cache
def _guarded_functions() -> tuple[Any, ...]:
    """What ``torch._disable_dynamo`` has wrapped, of all decompositions."""
    disable: Any = torch._compile._disable_dynamo
    guard = disable(lambda: None).__code__
    found: list[Any] = []
    functions = [*torch._decomp.decomposition_table.values(), *vars(torch._refs).values()]
    for function in functions:
        current: Any = function
        while isinstance(current, types.FunctionType) and hasattr(current, "__wrapped__"):
            if current.__code__ is guard:
                found.append(current.__wrapped__)
            current = current.__wrapped__
    return tuple(dict.fromkeys(found))


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
