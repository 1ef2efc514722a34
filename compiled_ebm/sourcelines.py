"""Where in the user's source an operation stands: the innermost frame that is neither torch's nor ours."""

from __future__ import annotations

import functools
import inspect
import linecache
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor, fx
from torch.overrides import TorchFunctionMode

__all__ = ["SourceRecorder", "current_label", "labelled", "line_of_error", "line_of_node"]

_LIBRARY_ROOTS = (str(Path(torch.__file__).parent), str(Path(__file__).parent))
_HOST_READS = (Tensor.numpy, Tensor.tolist, Tensor.__array__)
_EXAMPLE_ENERGIES = str(Path(__file__).parent / "energies")
_TRANSITIONS = str(Path(__file__).parent / "transitions")
_TRACE = str(Path(__file__).parent / "trace.py")
_GRADIENT_SUM = "autograd's own: the sum of a gradient's parts"


@functools.cache
def _is_user_file(filename: str) -> bool:
    if filename.startswith(_EXAMPLE_ENERGIES):  # the energies we ship are user code to the tracer
        return True
    return not filename.startswith((*_LIBRARY_ROOTS, "<")) and not filename.endswith("contextlib.py")


def _format(filename: str, line: int, name: str) -> str:
    text = linecache.getline(filename, line).strip()
    return f"{filename}:{line}, in {name}" + (f": {text}" if text else "")


def _current_line() -> str:
    """The innermost line of the user's below the tracer; where there is none, whose own line it is."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        code = frame.f_code
        if _is_user_file(code.co_filename):
            return _format(code.co_filename, frame.f_lineno, code.co_name)
        if code.co_filename.startswith(_TRANSITIONS):
            return _own_line("transition", frame)
        if code.co_filename == _TRACE:
            return _own_line("sampler", frame)
        frame = frame.f_back
    return "an unknown line"


def _own_line(whose: str, frame: FrameType) -> str:
    """Without a number: a line of ours."""
    text = linecache.getline(frame.f_code.co_filename, frame.f_lineno).strip()
    return f"the {whose}'s own: {text or frame.f_code.co_name}"


def line_of_error(error: BaseException) -> str:
    """The user's line that raised ``error``: ``file:line, in function: text``."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if _is_user_file(f.filename)]
    return _format(frames[-1].filename, frames[-1].lineno or 0, frames[-1].name) if frames else "unknown line"


def line_of_definition(energy: object) -> str | None:
    """Where the energy is written: ``file:line, in name``."""
    function = inspect.unwrap(energy) if callable(energy) else energy
    function = getattr(function, "func", function)  # a partial's
    if not inspect.isroutine(function):
        function = getattr(type(function), "forward", None) or type(function).__call__
    code = getattr(inspect.unwrap(function), "__code__", None)
    return None if code is None else _format(code.co_filename, code.co_firstlineno, code.co_name)


def line_of_node(node: fx.Node) -> str:
    """The user's line that a traced node came from."""
    return str(node.meta.get("stack_trace") or "a line outside the energy's own source")


class _Current:
    """The line that operations belong to which are recorded now.

    Of all threads, for torch runs the backward of CUDA operations in threads of its own; one thread traces at a time.
    """

    label: str | None = None


def current_label() -> str | None:
    """The line that an operation belongs to which is recorded now."""
    return _Current.label


@contextmanager
def labelled(line: str | None) -> Iterator[None]:
    """Within the block, operations that are recorded belong to ``line``."""
    before, _Current.label = _Current.label, line
    try:
        yield
    finally:
        _Current.label = before


class SourceRecorder(TorchFunctionMode):
    """Labels each operation of a trace with the user's line, and the operations of its backward with the same."""

    def __init__(self) -> None:
        super().__init__()
        self._seen: set[Any] = set()
        self.host_reads: list[str] = []
        """Lines at which Python took values out of a tensor."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        line = _current_line()
        if func in _HOST_READS and line not in self.host_reads:
            self.host_reads.append(line)
        with labelled(line):
            out = func(*args, **(kwargs or {}))
        for result in out if isinstance(out, (tuple, list)) else (out,):
            if isinstance(result, Tensor) and result.grad_fn is not None:
                self._label_backward(result.grad_fn, line)
        return out

    def _label_backward(self, grad_fn: Any, line: str) -> None:
        pending = [grad_fn]
        while pending:
            node = pending.pop()
            if node is None or node in self._seen:
                continue
            self._seen.add(node)

            def enter(*_: Any) -> None:
                _Current.label = line

            def leave(*_: Any) -> None:
                _Current.label = _GRADIENT_SUM  # what the engine does between two nodes

            node.register_prehook(enter)
            node.register_hook(leave)
            pending.extend(parent for parent, _ in node.next_functions)
