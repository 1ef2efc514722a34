"""A traced graph as a function of JAX."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
import torch
from jax import lax
from torch import Tensor, fx

from compiled_ebm.chaingraph import ChainGraph
from compiled_ebm.errors import UnsupportedEnergyError
from compiled_ebm.laboratory.jax_operations import OPERATIONS, dtype_of
from compiled_ebm.loopgraph import loop_of
from compiled_ebm.sourcelines import line_of_node

__all__ = ["array_of", "chain_function"]


def chain_function(graph: ChainGraph, others: Mapping[str, Callable[..., Any]] | None = None) -> Callable[..., Any]:
    """The traced body of one chain, with the captured tensors as they are now.

    Args:
        graph: What was traced.
        others: Operations beside those of ATen, by name.

    Raises:
        UnsupportedEnergyError: An operation has no form in JAX; names it and its line.
    """
    known = OPERATIONS if others is None else {**OPERATIONS, **others}
    for module in graph.body.modules():
        if isinstance(module, fx.GraphModule):
            for node in module.graph.nodes:
                if node.op == "call_function" and node.target is not operator.getitem:
                    _operation(node, known)
    constants = [array_of(tensor) for tensor in graph.constants(())]
    body = _function(graph.body, known)
    return lambda *given: body(*given, *constants)


def array_of(tensor: Tensor) -> Any:
    """The same values in JAX."""
    held = tensor.detach().cpu()
    numbers = np.array((held.float() if held.dtype == torch.bfloat16 else held).numpy())
    return jnp.asarray(numbers).astype(dtype_of(tensor))


def _function(module: fx.GraphModule, known: Mapping[str, Callable[..., Any]]) -> Callable[..., Any]:
    def call(*given: Any) -> Any:
        values: dict[fx.Node, Any] = {}
        inputs = iter(given)
        for node in module.graph.nodes:
            if node.op == "placeholder":
                values[node] = next(inputs)
            elif node.op == "get_attr":
                held: Any = operator.attrgetter(str(node.target))(module)
                values[node] = array_of(held)
            elif node.op == "output":
                return fx.node.map_arg(node.args[0], values.__getitem__)
            else:
                values[node] = _evaluated(node, values, known)
        raise AssertionError("a graph without an output")

    return call


def _evaluated(node: fx.Node, values: dict[fx.Node, Any], known: Mapping[str, Callable[..., Any]]) -> Any:
    given: Any = fx.node.map_arg((node.args, node.kwargs), values.__getitem__)
    args, kwargs = given
    loop = loop_of(node)
    if loop is not None:
        round_of, held = _function(loop.body, known), args[loop.n_carry :]
        return lax.fori_loop(0, loop.rounds, lambda _, carry: tuple(round_of(*carry, *held)), args[: loop.n_carry])
    if node.target is operator.getitem:
        return args[0][args[1]]
    try:
        return _cast(_operation(node, known)(*args, **kwargs), node.meta["val"])
    except Exception as error:
        if isinstance(error, UnsupportedEnergyError):
            raise
        told = f"{type(error).__name__}: {str(error)[:200]}"
        raise UnsupportedEnergyError(f"jax: {node.target} at {line_of_node(node)}: {told}") from error


def _operation(node: fx.Node, known: Mapping[str, Callable[..., Any]]) -> Callable[..., Any]:
    name = str(node.target).removeprefix("aten.")
    found = known.get(name) or known.get(name.rpartition(".")[0])
    if found is None:
        raise UnsupportedEnergyError(f"jax: no form of {node.target} at {line_of_node(node)}")
    return found


def _cast(result: Any, value: Any) -> Any:
    """In the dtype that the traced operation gives."""
    if isinstance(value, Tensor):
        return jnp.asarray(result).astype(dtype_of(value))
    return [_cast(part, v) if isinstance(v, Tensor) else part for part, v in zip(result, value, strict=True)]
