"""What a function does to tensors, recorded: the ATen operations that it runs, below autograd and torch.func.

The function runs once, on real tensors. Torch's own ``make_fx`` does the same for many more purposes, and spends one to
three seconds on imports (TorchDynamo, Inductor, SymPy) that a fused kernel, which compiles in 0.3, has no use for.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx
from torch.fx.node import map_aggregate
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only
from torch.utils.weak import WeakIdKeyDictionary

from compiled_ebm import sourcelines
from compiled_ebm.promotion import light_decompositions
from compiled_ebm.zerotensors import with_memory

__all__ = ["Decompose", "HostReadError", "Recording", "core_decomposition", "described", "record"]

Decompose = Callable[[Any], Callable[..., Any] | None]
"""The function that stands for an operation in a recording, or None for the operation itself."""


class HostReadError(RuntimeError):
    """Python asked for the value of a tensor that depends on the inputs: data-dependent control flow."""


@dataclass(frozen=True, eq=False)
class Recording:
    """The operations of a function.

    ``graph`` has a placeholder for each input and a ``get_attr`` node for each tensor that the function took from
    elsewhere, which is in ``held`` under the node's target. ``meta["val"]`` of a node is its result without data
    (on the device "meta"), ``meta["stack_trace"]`` the user's line.
    """

    graph: fx.Graph
    held: dict[str, Tensor] = field(default_factory=dict)

    def replay(self, *inputs: Tensor) -> Any:
        """Run the operations again, each under its line."""
        values: dict[fx.Node, Any] = {}
        given = iter(inputs)
        for node in self.graph.nodes:
            if node.op == "placeholder":
                values[node] = next(given)
            elif node.op == "get_attr":
                values[node] = self.held[node.target]
            elif node.op == "output":
                return fx.map_arg(node.args[0], values.__getitem__)
            else:
                args, kwargs = fx.map_arg((node.args, node.kwargs), values.__getitem__)
                with sourcelines.labelled(node.meta.get("stack_trace")):
                    values[node] = node.target(*args, **kwargs)
        raise AssertionError("a graph without output")

    def hold(self, name: str, tensor: Tensor, meta: Mapping[str, Any]) -> fx.Node:
        """A new node that stands for a tensor, where the graph inserts."""
        self.held[name] = tensor
        node = self.graph.create_node("get_attr", name)
        node.meta = {**meta, "val": described(tensor)}
        return node


def record(
    function: Callable[..., Any], example: Sequence[Tensor], decompose: Decompose = lambda op: None
) -> Recording:
    """Run ``function`` on ``example`` and record it.

    Args:
        function: Takes and returns tensors. What it reads from elsewhere is held by the recording.
        example: The inputs.
        decompose: For an operation, what is to be recorded in its place.

    Raises:
        HostReadError: The function takes a value out of a tensor that depends on the inputs or on a held tensor.
    """
    recorder = _Recorder(decompose)
    inputs = [recorder.input(tensor, k) for k, tensor in enumerate(example)]
    cached = torch.is_autocast_cache_enabled()
    torch.set_autocast_cache_enabled(False)  # the cache would hand out tensors that were made before
    try:
        with light_decompositions(), recorder:
            result = function(*inputs)
    finally:
        torch.set_autocast_cache_enabled(cached)
    recorder.output(result)
    return recorder.recording


def described(tensor: Tensor) -> Tensor | None:
    """Shape, strides and dtype of a tensor, without its data; None for a sparse one."""
    if tensor.layout is not torch.strided:
        return None
    return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device="meta")


class _Known(NamedTuple):
    """What a recorder knows of a tensor."""

    node: fx.Node
    is_variable: bool
    """Whether it was computed from the inputs or from held tensors."""
    is_held: bool = False


class _Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    def __init__(self, decompose: Decompose) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.recording = Recording(fx.Graph())
        self._decompose = decompose
        self._known: Any = WeakIdKeyDictionary()
        """Weak, for a step over many chains makes many large tensors."""
        self._written: dict[int, Any] = {}
        """Memory that variable values were written to, kept so that its address stays its own."""

    def input(self, tensor: Tensor, number: int) -> Tensor:
        """A placeholder for an input; the tensor to call the function with, told from a held one by its identity."""
        own = tensor.detach()
        self._know(own, self.recording.graph.placeholder(f"input_{number}"), variable=True)
        return own

    def output(self, result: Any) -> None:
        self.recording.graph.output(tree_map_only(Tensor, self._node, result))

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Torch would import TorchDynamo to keep it out of the next method, which no compiled function calls."""
        return False

    def __torch_dispatch__(
        self, func: Any, types: Sequence[Any], args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if any(t.__torch_dispatch__ is not Tensor.__torch_dispatch__ for t in types):
            return NotImplemented  # a subclass that says itself what it does to tensors
        kwargs = kwargs or {}
        for tensor in _tensors(args, kwargs):
            if type(tensor) not in _PLAIN:  # torch makes another object of each result, which would be unknown here
                raise RuntimeError(  # a TypeError would be the operator's word for "not with these operands"
                    f"expected plain tensors in {func}, got a {type(tensor).__name__}; "
                    "use tensor.as_subclass(torch.Tensor)"
                )
        with torch._C.DisableTorchFunction():
            inside = self._decompose(func) or _composite(func)
            if inside is not None:
                with self:
                    result = inside(*args, **kwargs)
                if result is not NotImplemented:
                    return result
            return self._run(with_memory(func), tuple(args), kwargs)

    def _run(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if torch.Tag.data_dependent_output in func.tags:
            if any(map(self._is_variable, _tensors(args, kwargs))):
                raise HostReadError(f"{func} of a tensor with data-dependent values")
            return func(*args, **kwargs)
        fresh = func is _aten.lift_fresh.default
        if fresh:
            func = _aten.lift_fresh_copy.default  # what is written into the result shall not change the held tensor
        variable = any(self._is_variable(t) or (self._is_held(t) and not fresh) for t in _tensors(args, kwargs))
        named = map_aggregate((args, kwargs), lambda leaf: self._node(leaf) if isinstance(leaf, Tensor) else leaf)
        out = func(*args, **kwargs)
        graph = self.recording.graph
        node = graph.create_node("call_function", func, *named, name=func.overloadpacket.__name__)
        node.meta = _labels()
        if variable and func._schema.is_mutable:
            self._note_writes(func, args, kwargs)
        if isinstance(out, Tensor):
            self._know(out, node, variable)
        elif isinstance(out, (tuple, list)):
            node.meta["val"] = tuple(described(t) if isinstance(t, Tensor) else t for t in out)
            for k, part in enumerate(out):
                if isinstance(part, Tensor):
                    item = graph.create_node("call_function", operator.getitem, (node, k))
                    item.meta = _labels()
                    self._know(part, item, variable)
        return out

    def _node(self, tensor: Tensor) -> fx.Node:
        known: _Known | None = self._known.get(tensor)
        if known is None:
            name = f"held_{len(self.recording.held)}"
            known = _Known(self.recording.hold(name, tensor, _labels()), is_variable=False, is_held=True)
            self._known[tensor] = known
        return known.node

    def _know(self, tensor: Tensor, node: fx.Node, variable: bool) -> None:
        node.meta["val"] = described(tensor)
        self._known[tensor] = _Known(node, variable or self._is_variable(tensor))

    def _is_variable(self, tensor: Tensor) -> bool:
        known: _Known | None = self._known.get(tensor)
        if known is not None and known.is_variable:
            return True
        return bool(self._written) and _address(tensor) in self._written

    def _is_held(self, tensor: Tensor) -> bool:
        known: _Known | None = self._known.get(tensor)
        return known is None or known.is_held

    def _note_writes(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        for k, argument in enumerate(func._schema.arguments):
            if argument.alias_info is not None and argument.alias_info.is_write:
                for tensor in _tensors(args[k] if k < len(args) else kwargs.get(argument.name)):
                    self._written[_address(tensor)] = tensor.untyped_storage()


def _tensors(*arguments: Any) -> list[Tensor]:
    found: list[Tensor] = []
    map_aggregate(arguments, lambda leaf: found.append(leaf) if isinstance(leaf, Tensor) else None)
    return found


def _address(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)


def _labels() -> dict[str, Any]:
    line = sourcelines.current_label()
    return {} if line is None else {"stack_trace": line}


_aten: Any = torch.ops.aten
_PLAIN = (Tensor, torch.nn.Parameter)
_COMPOSITE = torch._C.DispatchKey.CompositeImplicitAutograd


@functools.cache
def _composite(op: Any) -> Callable[..., Any] | None:
    """Operations that autograd takes apart reach a recorder whole where it was left out, as in inference mode."""
    if torch._C._dispatch_has_kernel_for_dispatch_key(op.name(), "CPU"):
        return None  # a kernel of its own, which eager execution calls too
    return op.decompose if _is_composite(op) else None


def _is_composite(op: Any) -> bool:
    return _COMPOSITE in op.py_kernels or torch._C._dispatch_has_kernel_for_dispatch_key(op.name(), _COMPOSITE)


@functools.cache
def core_decomposition(op: Any) -> Callable[..., Any] | None:
    """What an operation is in terms of the core ATen set; None if it belongs to it.

    As ``torch._decomp.core_aten_decompositions()``, which goes through every operation there is, for one. ``linspace``
    stays torch's own, whose rounding its decomposition does not have.
    """
    if op is _aten.linspace.default:
        return None
    found: Callable[..., Any] | None = _core_table().get(op)
    unsafe = op is _aten.native_batch_norm.default or torch.Tag.maybe_aliasing_or_mutating in op.tags
    if found is None and _is_composite(op) and not unsafe:
        pure = not op._schema.is_mutable and all(a.alias_info is None for a in op._schema.arguments)
        found = op.decompose if pure else None
    return found


@functools.cache
def _core_table() -> Mapping[Any, Callable[..., Any]]:
    return torch._decomp._core_aten_decompositions_post_autograd()
