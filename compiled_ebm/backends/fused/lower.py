"""Lowering: the traced step of one chain becomes a tile program, shared by every emitter."""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx
from torch.utils._pytree import tree_flatten, tree_leaves, tree_map, tree_unflatten

from compiled_ebm.backends.fused.elements import Elements, Value, kind_of
from compiled_ebm.backends.fused.names import input_names
from compiled_ebm.backends.fused.operations import MOVES, ROWS, Unsupported, as_value
from compiled_ebm.backends.fused.program import Kind, Role, TileProgram, is_transpose
from compiled_ebm.backends.fused.pruning import pruned
from compiled_ebm.backends.fused.quadratics import merge_products
from compiled_ebm.backends.fused.unguarded import moves_of, results_of
from compiled_ebm.errors import UnsupportedEnergyError
from compiled_ebm.loopgraph import Rounds, loop_of
from compiled_ebm.recorder import Recording, record
from compiled_ebm.sourcelines import line_of_node
from compiled_ebm.trace import ChainProgram

__all__ = ["lower_energy", "lower_init", "lower_move"]

_MOST_ELEMENTS = 4_000_000
"""Element numbers in all: beyond, lowering would take seconds, and no tile fits a cache anyway."""
_WATCHING = "the sampler's own: how far the chain has gone since the last check"
_VECTOR_BYTES = 64
"""Of one element for all chains of a tile."""


def lower_move(program: ChainProgram, with_energy: bool, constants: Sequence[Tensor]) -> TileProgram:
    """The tile program of the transition alone: no chain is quarantined, all that is noticed is how far they went.

    Args:
        program: The chain program.
        with_energy: Whether the new energy is computed. Otherwise it stays what it was.
        constants: What the step gets of the captured tensors. Integers among them that are used as indices are taken
            as they are now, and listed in ``frozen``.

    Raises:
        UnsupportedEnergyError: An operation that no emitter has, with the user's line.
    """
    body = moves_of(program.step.body, len(program.state_shapes), with_energy)

    def watched(elements: Elements, outputs: list[Value]) -> list[Value]:
        x = outputs[0].moved(outputs[0].ids.reshape(-1))
        elements.origin = _WATCHING
        total = elements.reduce("sum", Kind.REAL, elements.pointwise("mul", Kind.REAL, x, x))
        if with_energy:  # times zero: NaN where it is not finite
            nothing = elements.pointwise("mul", Kind.REAL, outputs[1], elements.literal(0.0, Kind.REAL))
            total = elements.pointwise("add", Kind.REAL, total, nothing)
        before = elements.input(Role.SPREAD, 0, "spread", (), Kind.REAL)
        return [*outputs, elements.pointwise("add", Kind.REAL, before, total)]

    return _lower(program, body, _step_roles(program), constants, input_names(program), watched)


def lower_energy(program: ChainProgram, constants: Sequence[Tensor]) -> TileProgram:
    """The tile program of the energy of x: the only output."""
    body = results_of(program.init.body, lambda results: [results[1]])
    return _lower(program, body, _init_roles(program), constants, {}, writes=False)


def _step_roles(program: ChainProgram) -> list[tuple[Role, int]]:
    return _numbered(
        (Role.STATE, len(program.state_shapes)),
        (Role.FAILED, 1),
        (Role.CHAIN_KWARG, len(program.kwargs.per_chain)),
        (Role.NORMALS, 1),
        (Role.UNIFORMS, 1),
        (Role.STEP, 1),
        (Role.HYPER, len(program.transition.hyper_table(0, 1))),
        (Role.CONSTANT, program.step.n_constants),
    )


def lower_init(program: ChainProgram, constants: Sequence[Tensor]) -> TileProgram:
    """The tile program of ``program.init``: new state leaves for old x."""
    return _lower(program, program.init.body, _init_roles(program), constants, {})


def _init_roles(program: ChainProgram) -> list[tuple[Role, int]]:
    return _numbered(
        (Role.STATE, 1),
        (Role.CHAIN_KWARG, len(program.kwargs.per_chain)),
        (Role.STEP, 1),
        (Role.CONSTANT, program.init.n_constants),
    )


def _numbered(*counts: tuple[Role, int]) -> list[tuple[Role, int]]:
    return [(role, i) for role, count in counts for i in range(count)]


def _lower(
    program: ChainProgram,
    body: fx.GraphModule,
    roles: Sequence[tuple[Role, int]],
    constants: Sequence[Tensor],
    names: Mapping[tuple[Role, int], str],
    finished: Callable[[Elements, list[Value]], list[Value]] = lambda _, outputs: outputs,
    writes: bool = True,
) -> TileProgram:
    elements = Elements()
    placeholders = [node for node in body.graph.nodes if node.op == "placeholder"]
    inputs: list[Value] = []
    equal: list[tuple[int, int]] = []
    transposed: list[tuple[int, int]] = []
    own = (n.meta["val"].numel() for n, (role, _) in zip(placeholders, roles, strict=True) if not role.uniform)
    _check_fits(sum(own), "in state and noise alone")
    for node, (role, position) in zip(placeholders, roles, strict=True):
        example = node.meta["val"]
        twin, mirror = _twins(constants, position) if role is Role.CONSTANT else (None, None)
        if twin is not None:
            equal.append((twin, position))
            inputs.append(inputs[roles.index((role, twin))])
        elif mirror is not None:
            transposed.append((mirror, position))
            whole = inputs[roles.index((role, mirror))]
            inputs.append(whole.moved(whole.ids.mT))
        else:
            name = names.get((role, position), node.name)
            inputs.append(elements.input(role, position, name, example.shape, kind_of(example.dtype)))
    if writes:
        for position, shape in enumerate(program.state_shapes):  # leaves that are written and not read
            if (Role.STATE, position) not in roles:
                elements.input(Role.STATE, position, f"state_{position}", shape, Kind.REAL)
        if (Role.FAILED, 0) not in roles:
            elements.input(Role.FAILED, 0, "failed_at", (), Kind.INT)
    views = {position for _, position in (*equal, *transposed)}
    firsts = {
        int(value.ids.reshape(-1)[0]): position
        for value, (role, position) in zip(inputs, roles, strict=True)
        if role is Role.CONSTANT and value.ids.numel() and position not in views
    }
    lowering = _Lowering(elements, constants, firsts)
    results = finished(elements, [as_value(elements, out) for out in lowering.run(_recording(body), inputs)])
    outputs = [value.ids.reshape(-1).numpy() for value in results]
    return TileProgram(
        nodes=tuple(pruned(merge_products(pruned(elements.nodes, outputs), outputs), outputs)),
        outputs=tuple(np.ascontiguousarray(ids) for ids in outputs),
        real_bits=64 if any(_is_double(node) for node in body.graph.nodes) else 32,
        frozen=tuple(lowering.frozen.items()),
        equal=tuple(equal),
        transposed=tuple(transposed),
    )


def _recording(module: fx.GraphModule) -> Recording:
    return Recording(module.graph, dict(module.named_buffers()))


def _twins(constants: Sequence[Tensor], position: int) -> tuple[int | None, int | None]:
    """Earlier constants that are views of the same memory: with the same elements in the same places, or transposed."""
    this, mirror = constants[position], None
    for k, other in enumerate(constants[:position]):
        views = this.numel() > 0 and this.data_ptr() == other.data_ptr() and this.dtype == other.dtype
        if views and this.shape == other.shape and torch.equal(this, other):
            return k, None
        if mirror is None and is_transpose(other, this):
            mirror = k
    return None, mirror


def _is_double(node: fx.Node) -> bool:
    value = node.meta.get("val")
    return isinstance(value, Tensor) and value.dtype == torch.float64


class _Lowering:
    """Goes through a graph node by node, and through the decomposition of each that has no row."""

    def __init__(self, elements: Elements, constants: Sequence[Tensor], firsts: Mapping[int, int]) -> None:
        self._elements = elements
        self._constants = constants
        self._firsts = firsts
        """The position of a constant by the number of its first element."""
        self.frozen: dict[int, NDArray[np.int64]] = {}
        """Constants that have been taken as indices."""

    def run(self, recording: Recording, inputs: Sequence[Any], origin: str | None = None) -> Any:
        """The graph's results; ``origin`` stands for the user's line where the nodes do not know it themselves."""
        values: dict[fx.Node, Any] = {}
        given = iter(inputs)
        for node in recording.graph.nodes:
            if node.op == "placeholder":
                values[node] = next(given)
                continue
            if node.op == "get_attr":
                values[node] = recording.held[node.target]
                continue
            args, kwargs = fx.map_arg((node.args, node.kwargs), values.__getitem__)
            if node.op == "output":
                return args[0]
            self._elements.origin = origin or line_of_node(node)
            loop = loop_of(node)
            values[node] = self._repeated(loop, args) if loop is not None else self._call(node, args, dict(kwargs))
            _check_fits(self._elements.size, f"by {self._elements.origin}")
        raise AssertionError("a graph without output")

    def _call(self, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        elements, target, origin = self._elements, node.target, self._elements.origin
        if target is operator.getitem:
            return args[0][args[1]]
        if not any(isinstance(leaf, Value) for leaf in tree_leaves((args, kwargs))):
            kwargs.pop("pin_memory", None)
            made = target(*args, **kwargs)  # type: ignore[operator]
            return made.zero_() if target in _UNINITIALISED else made
        try:
            args = self._with_indices(target, args)
            if target in MOVES:
                return _moved(elements, node, args, kwargs)
            if target in _BY_LAYOUT:
                kwargs["contiguous"] = node.args[0].meta["val"].is_contiguous()  # type: ignore[union-attr]
            if target in ROWS:
                return ROWS[target](elements, *args, **kwargs)
            inner, inputs = _decomposed(node, args, kwargs)
            if any(part.target is target for part in inner.graph.nodes):  # into itself and a cast
                raise Unsupported
        except Unsupported as error:
            what = f"{target} ({error})" if str(error) else str(target)
            raise UnsupportedEnergyError(
                f"energy: the fused backend has no code for {what} at {origin}; "
                "use backend='inductor' or 'auto', or write it with other operations"
            ) from error
        return self.run(inner, inputs, origin)

    def _repeated(self, loop: Rounds, given: Sequence[Any]) -> list[Value]:
        carry = self._elements.open(loop.rounds, [as_value(self._elements, v) for v in given[: loop.n_carry]])
        new = self.run(_recording(loop.body), [*carry, *given[loop.n_carry :]])
        return self._elements.close([as_value(self._elements, v) for v in new])

    def _with_indices(self, target: Any, args: tuple[Any, ...]) -> tuple[Any, ...]:
        """Captured integer tensors in the place of an index become what they hold."""
        places = _INDEX_ARGUMENTS.get(target, ())
        return tuple(tree_map(self._known, arg) if k in places else arg for k, arg in enumerate(args))

    def _known(self, leaf: Any) -> Any:
        if not isinstance(leaf, Value) or not leaf.ids.numel():
            return leaf
        numbers = self._elements.literal_values(leaf.ids)
        if numbers is not None:
            return torch.from_numpy(numbers).to(torch.int64).reshape(leaf.shape)
        first = max((start for start in self._firsts if start <= int(leaf.ids.min())), default=None)
        if first is None:
            return leaf
        position = self._firsts[first]
        held = self._constants[position].detach().cpu().reshape(-1)
        offsets = leaf.ids - first
        if held.dtype.is_floating_point or int(offsets.max()) >= held.numel():
            return leaf
        self.frozen[position] = held.to(torch.int64).numpy().copy()
        return held[offsets]


def _check_fits(n_elements: int, where: str) -> None:
    if n_elements > _MOST_ELEMENTS:
        raise UnsupportedEnergyError(
            f"energy: expected at most {_MOST_ELEMENTS:,} values a chain-step in the fused backend, got {n_elements:,} "
            f"{where}: {_VECTOR_BYTES * n_elements / 2**20:,.0f} MiB for one tile of chains, which no cache holds; use "
            "backend='inductor' or 'auto', or a smaller event_shape"
        )


def _moved(elements: Elements, node: fx.Node, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """A movement operation: on element numbers, the operation itself."""
    value, move = as_value(elements, args[0]), node.target
    if move in (aten.view.default, aten._unsafe_view.default):
        move = aten.reshape.default
    if move is aten.as_strided.default:
        value = _laid_out(value, node.args[0].meta["val"])  # type: ignore[union-attr]
    moved = move(value.ids, *args[1:], **{k: v for k, v in kwargs.items() if k != "memory_format"})  # type: ignore[operator]
    return [value.moved(part) for part in moved] if isinstance(moved, (list, tuple)) else value.moved(moved)


def _laid_out(value: Value, example: Tensor) -> Value:
    """The value whose element numbers lie in memory as the elements of ``example`` do."""
    ids = torch.empty_strided(example.shape, example.stride(), dtype=torch.int64)
    return value.moved(ids.copy_(value.ids))


def _decomposed(node: fx.Node, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[Recording, list[Any]]:
    """A node that has no row as a graph of nodes that have one, and that graph's inputs."""
    table = _decompositions()
    if node.target not in table:
        raise Unsupported
    nodes, spec = tree_flatten((node.args, dict(node.kwargs)))
    places = [k for k, leaf in enumerate(nodes) if isinstance(leaf, fx.Node) and isinstance(leaf.meta["val"], Tensor)]
    given = tree_leaves((args, dict(kwargs)), is_leaf=lambda leaf: isinstance(leaf, Value))
    examples = [_example(nodes[k].meta["val"]) for k in places]

    def call(*tensors: Tensor) -> Any:
        leaves = list(nodes)
        for k, tensor in zip(places, tensors, strict=True):
            leaves[k] = tensor
        own_args, own_kwargs = tree_unflatten(leaves, spec)
        return node.target(*own_args, **own_kwargs)  # type: ignore[operator]

    with torch.no_grad():
        recording = record(call, examples, table.get)
    return recording, [given[k] for k in places]


def _example(value: Tensor) -> Tensor:
    return torch.empty_strided(value.shape, value.stride(), dtype=value.dtype).zero_()


@functools.cache
def _decompositions() -> dict[Any, Callable[..., Any]]:
    """Of every operation that has no row."""
    table: dict[Any, Callable[..., Any]] = torch._decomp.decomposition_table
    return {op: function for op, function in table.items() if op not in ROWS and op not in MOVES}


aten: Any = torch.ops.aten
_INDEX_ARGUMENTS: dict[Any, tuple[int, ...]] = {
    aten.index.Tensor: (1,),
    aten._unsafe_index.Tensor: (1,),
    aten.index_select.default: (2,),
    aten.embedding.default: (1,),
    aten.gather.default: (2,),
    aten.index_put.default: (1,),
    aten._unsafe_index_put.default: (1,),
    aten.scatter.src: (2,),
    aten.scatter.value: (2,),
    aten.scatter_add.default: (2,),
    aten.scatter_reduce.two: (2,),
    aten.index_add.default: (2,),
}
_UNINITIALISED = (
    *(aten.empty.memory_format, aten.empty_strided.default, aten.empty_permuted.default),
    *(aten.empty_like.default, aten.new_empty.default, aten.new_empty_strided.default),
)
"""What they find in memory is overwritten before it is read, and must not decide which literals there are."""
_BY_LAYOUT = (aten._linalg_det.default, aten._linalg_slogdet.default)
"""Whose further results depend on how the first operand lies in memory."""
