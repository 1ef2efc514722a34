"""The fused backend's operation table: every operation, forward and through its gradient, against eager and torch."""

import functools
import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import hypothesis
import hypothesis.strategies as st
import pytest
import torch
import torch.nn.functional as F
from agreement import (
    N_STEPS,
    ROUNDING,
    SEED,
    Energy,
    N,
    after,
    both,
    check_energy,
    check_group,
    disagreement,
    eager_after,
    fused_like,
    groups,
    operations_of,
    samplers_of,
    starts,
)
from cases import fixed
from operation_cases import Operation, energy_of, parts_of
from torch import Tensor, fx, nn

import benchmarks.models as workloads
import compiled_ebm as ce
from compiled_ebm import rng
from compiled_ebm.backends.fused import lower, plan
from compiled_ebm.backends.fused.cpp import emitter
from compiled_ebm.backends.fused.fold import fold_constants
from compiled_ebm.backends.fused.lower import lower_move
from compiled_ebm.backends.fused.program import Role
from compiled_ebm.backends.fused.reference import interpret
from compiled_ebm.energies.registry import BUILTIN_ENERGIES
from compiled_ebm.recorder import core_decomposition, record
from compiled_ebm.trace import ALIVE, ChainProgram

slow = pytest.mark.slow


# -- every operation ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("group", groups())
def test_negative_control_each_operation_moves_its_chains(group: str) -> None:
    """Its gradient is there, and an error of a thousandth in it would be seen."""
    dtype = torch.float32
    state = eager_after(group, dtype, 1)
    own = state.carried[1] - 0.1 * state.positions
    allowed = ROUNDING * torch.finfo(dtype).eps * (1 + state.carried[1].abs())
    for name, part in parts_of(operations_of(group, dtype)).items():
        assert float((own[:, part].abs() / allowed[:, part]).max()) > 1000, name


@pytest.mark.parametrize("group", groups())
def test_each_operation_agrees_with_eager(group: str) -> None:
    """After one step and after ten, on the same noise; each operation on elements of its own."""
    check_group(group, torch.float32, samplers_of(group, torch.float32)[1])


IN_DOUBLE = ("choices",)
"""Groups that are traced in float64 too in the quick tests; each trace takes seconds."""


@pytest.mark.parametrize("group", groups(IN_DOUBLE))
def test_each_operation_agrees_in_double(group: str) -> None:
    check_group(group, torch.float64, samplers_of(group, torch.float64)[1])


@pytest.fixture
def loops(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every node of more than one element becomes a loop."""
    monkeypatch.setattr("compiled_ebm.backends.fused.groups.UNROLLED_TERMS", 1)
    monkeypatch.setattr(emitter, "plan", functools.partial(plan.plan, straight_line=0, small=1))


QUICK_LOOPS = ("logic",)


@pytest.mark.parametrize("group", groups(QUICK_LOOPS))
def test_each_operation_agrees_as_loops(group: str, loops: None) -> None:
    dtype = torch.float32
    sampler = fused_like(samplers_of(group, dtype)[0], energy_of(operations_of(group, dtype)))
    check_group(group, dtype, sampler)
    assert not sampler._builds.get({}, N)[1]._step.kernel.plan.straight_line


@pytest.mark.parametrize("group", groups())
def test_each_operation_as_the_interpreter_sees_it(group: str) -> None:
    check_interpreter(group, torch.float32)


@pytest.mark.parametrize("group", groups(IN_DOUBLE))
def test_each_operation_as_the_interpreter_sees_it_in_double(group: str) -> None:
    check_interpreter(group, torch.float64)


def check_interpreter(group: str, dtype: torch.dtype) -> None:
    """The lowered program, interpreted, against the traced step."""
    sampler, operations = samplers_of(group, dtype)[0], operations_of(group, dtype)
    program, _ = sampler._builds.get({}, N)
    wanted, got = interpreted(program, starts(sampler.event_shape[0], dtype, 2))
    allowed = ROUNDING * torch.finfo(dtype).eps
    for name, part in parts_of(operations).items():
        for leaf in (0, 2):
            ours, theirs = got[leaf][:, part], wanted[leaf][:, part]
            assert float(((ours - theirs).abs() / (1 + theirs.abs())).max()) <= allowed, (name, leaf)
    assert float(((got[1] - wanted[1]).abs() / (len(operations) + wanted[1].abs())).max()) <= allowed
    assert torch.equal(got[3], wanted[3])


def interpreted(program: ChainProgram, x0: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    """One step by the traced program, chain by chain, and by the interpreter of the tile program: ``[n, elements]``.

    No chain fails, so that the quarantine that the traced program has and the other has not changes nothing.
    """
    n, dtype = len(x0), program.carry_dtype
    constants = program.step.constants([])
    tile = fold_constants(lower_move(program, True, constants), program.step.n_constants)
    zero, uniforms = torch.tensor(0), torch.zeros(0, dtype=dtype)
    held = program.init.constants([])
    leaves = [program.init.body(row, zero, *held)[:-1] for row in x0]
    noise = rng.normals(torch.tensor(SEED), zero, torch.arange(n), x0[0].numel(), dtype=dtype).reshape(x0.shape)
    hyper = [table[0].to(dtype) for table in program.transition.hyper_table(0, 1)]
    failed = torch.full((n,), ALIVE)
    wanted = [program.step.body(*leaves[k], failed[k], noise[k], uniforms, zero, *hyper, *constants) for k in range(n)]
    chain = {(Role.STATE, k): torch.stack(leaf) for k, leaf in enumerate(zip(*leaves, strict=True))}
    chain |= {(Role.FAILED, 0): failed, (Role.NORMALS, 0): noise}
    every = tile.constants(list(constants))
    shared = {
        (Role.STEP, 0): zero,
        (Role.SPREAD, 0): torch.zeros((), dtype=dtype),
        **{(Role.HYPER, k): h for k, h in enumerate(hyper)},
    }
    inputs = {}
    for node in tile.program.inputs():
        key = (node.role, node.position)
        if key in chain:
            inputs[key] = chain[key].reshape(n, -1).T
        else:
            inputs[key] = (every[node.position] if node.role is Role.CONSTANT else shared[key]).reshape(-1)
    stacked = [torch.stack(leaf).reshape(n, -1) for leaf in zip(*wanted, strict=True)]
    *leaves_after, spread = [leaf.T for leaf in interpret(tile.program, inputs)]
    torch.testing.assert_close(spread, leaves_after[0].square().sum(1, keepdim=True))
    return stacked, leaves_after


SHAPES = [(), (1,), (3,), (5,), (33,), (3, 5), (2, 3, 4)]


def any_shape(x: Tensor) -> Tensor:
    """Elementwise, along the last dimension, and over all, of positions of any shape."""
    flat = x.reshape(len(x), -1)
    weights = torch.linspace(0.5, 1.5, flat.shape[1], dtype=x.dtype)
    total = (F.softplus(flat) * weights).sum(-1) + 0.1 * flat.square().mean(-1).exp().log1p()
    if x.ndim > 1:
        total = total + (x.softmax(-1) * x.cumsum(-1)).flatten(1).sum(-1) + x.flip(-1).roll(1, -1).flatten(1)[:, 0]
    return total + torch.logsumexp(flat * weights, -1) + (flat @ torch.outer(weights, weights).tril()).tanh().sum(-1)


@pytest.mark.parametrize("event", [pytest.param(e, marks=slow if e in SHAPES[2:6:3] else ()) for e in SHAPES], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, pytest.param(torch.float64, marks=slow)], ids=str)
def test_shapes_of_positions(event: tuple[int, ...], dtype: torch.dtype, request: pytest.FixtureRequest) -> None:
    """As single statements and as loops."""
    eager, straight = both(any_shape, event, 0.01, dtype=dtype)
    x0 = starts(math.prod(event), dtype).reshape(-1, *event)
    theirs, ours = after(eager, x0, N_STEPS), after(straight, x0, N_STEPS)
    request.getfixturevalue("loops")
    looped = after(fused_like(eager, any_shape, 0.01, dtype=dtype), x0, N_STEPS)
    for state in (ours, looped):
        assert float(disagreement(state, theirs, torch.finfo(dtype).eps).max()) <= 1
        check_energy(state, theirs, torch.finfo(dtype).eps, size=3.0)


# -- random expressions ------------------------------------------------------------------------------------------------

Graph = tuple[Any, ...]
"""("x",), or an operation's name and its operands."""


def soft(x: Tensor) -> Tensor:
    """Into (-4, 4)."""
    return x / (1 + 0.25 * x.abs())


MIXING = fixed(7, 7, seed=40, scale=0.5).double()
UNARY: dict[str, Callable[[Tensor], Tensor]] = {
    "exp": lambda x: (0.5 * soft(x)).exp(),
    "expm1": lambda x: torch.expm1(0.5 * soft(x)),
    "log": lambda x: (0.1 + x.square()).log(),
    "log1p": lambda x: torch.log1p(x.abs()),
    "sqrt": lambda x: (0.1 + x.square()).sqrt(),
    "rsqrt": lambda x: (0.1 + x.square()).rsqrt(),
    "sin": torch.sin,
    "cos": torch.cos,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "atan": torch.atan,
    "asinh": torch.asinh,
    "erf": torch.erf,
    "softplus": F.softplus,
    "silu": F.silu,
    "gelu": F.gelu,
    "elu": F.elu,
    "relu": F.relu,
    "hardtanh": F.hardtanh,
    "abs": torch.abs,
    "neg": torch.neg,
    "square": torch.square,
    "cube": lambda x: soft(x) ** 3,
    "floor": lambda x: torch.floor(x) + 0.1 * x,
    "round": lambda x: torch.round(x) * 0.5 + 0.1 * x,
    "sign": lambda x: torch.sign(x) + 0.1 * x,
    "integers": lambda x: ((3 * x).long() % 5 - (x > 0).long()) * x,
    "clamp": lambda x: x.clamp(-1, 1.5),
    "reciprocal": lambda x: 1 / (1 + x.square()),
    "roll": lambda x: x.roll(1, -1),
    "flip": lambda x: x.flip(-1),
    "cumsum": lambda x: x.cumsum(-1),
    "softmax": lambda x: x.softmax(-1),
    "log_softmax": lambda x: x.log_softmax(-1),
    "logsumexp": lambda x: x.logsumexp(-1, keepdim=True) + 0 * x,
    "mean": lambda x: x - x.mean(-1, keepdim=True),
    "amax": lambda x: x.amax(-1, keepdim=True) - x,
    "amin": lambda x: x.amin(-1, keepdim=True) * x,
    "prod": lambda x: (1 + 0.2 * soft(x)).prod(-1, keepdim=True) * x,
    "norm": lambda x: x / (0.1 + x.square().sum(-1, keepdim=True).sqrt()),
    "layer_norm": lambda x: (x - x.mean(-1, keepdim=True)) * (x.var(-1, keepdim=True, correction=0) + 0.1).rsqrt(),
    "argmax": lambda x: x.gather(-1, x.argmax(-1, keepdim=True)) * x,
    "linear": lambda x: x @ MIXING[: x.shape[-1], : x.shape[-1]].to(x),
    "wide linear": lambda x: torch.tanh(x @ MIXING[: x.shape[-1]].to(x)).sum(-1, keepdim=True) * x,
    "sorted pairs": lambda x: torch.cat([x[..., 1:], x[..., :1]], -1).maximum(x),
    "index": lambda x: x[..., [0] * (x.shape[-1] - 1) + [x.shape[-1] - 1]],
    "scatter": lambda x: torch.zeros_like(x).index_add(-1, torch.arange(x.shape[-1]) // 2, x),
    "pad": lambda x: F.pad(x[..., 1:], (0, 1), value=0.5),
    "outer": lambda x: (x.unsqueeze(-1) * x.sin().unsqueeze(-2)).sum(-1),
}
BINARY: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "add": torch.add,
    "sub": torch.sub,
    "mul": torch.mul,
    "div": lambda x, y: x / (0.5 + y.square()),
    "maximum": torch.maximum,
    "minimum": torch.minimum,
    "where": lambda x, y: torch.where(x > 0.3, x, y),
    "masked": lambda x, y: x.masked_fill((y < 0) & (x > -1), 0.25),
    "atan2": lambda x, y: torch.atan2(x, 1 + y.square()),
    "hypot": lambda x, y: torch.hypot(x, 1 + y),
    "pow": lambda x, y: (0.3 + x.abs()) ** torch.tanh(y),
    "dot": lambda x, y: (x * y).sum(-1, keepdim=True) + x,
    "logaddexp": torch.logaddexp,
    "cross": lambda x, y: torch.matmul(x.unsqueeze(-1), y.unsqueeze(-2)).tanh().sum(-2),
}


def graphs(depth: int = 6) -> st.SearchStrategy[Graph]:
    """Expressions of at most this depth."""
    leaf: st.SearchStrategy[Graph] = st.just(("x",))
    found = leaf
    for _ in range(depth):
        found = st.one_of(
            leaf,
            st.tuples(st.sampled_from(sorted(UNARY)), found),
            st.tuples(st.sampled_from(sorted(BINARY)), found, found),
        )
    return found.filter(lambda graph: graph != ("x",))


def evaluate(graph: Graph, x: Tensor) -> Tensor:
    """The expression at x ``[n, d]``; what goes on is kept between -4 and 4."""
    if graph == ("x",):
        return x
    operands = [soft(evaluate(part, x)) for part in graph[1:]]
    return (UNARY[graph[0]] if len(operands) == 1 else BINARY[graph[0]])(*operands)


@hypothesis.settings(max_examples=15)
@hypothesis.given(graph=graphs(), size=st.integers(1, 7))
def test_random_expressions_interpreted(graph: Graph, size: int) -> None:
    check_expression(graph, size)


@slow
@hypothesis.settings(max_examples=200)
@hypothesis.given(graph=graphs(), size=st.integers(1, 7))
def test_many_random_expressions_interpreted(graph: Graph, size: int) -> None:
    check_expression(graph, size)


def check_expression(graph: Graph, size: int) -> None:
    """Value and gradient of random expressions in float64: the interpreted tile program against autograd."""

    def value(x: Tensor) -> Tensor:
        return evaluate(graph, x.unsqueeze(0)).square().sum()

    def value_and_gradient(x: Tensor) -> tuple[Tensor, Tensor]:
        gradient, found = torch.func.grad_and_value(value)(x)
        return found, gradient

    x = starts(size, torch.float64, 5)
    recording = record(torch.func.functionalize(value_and_gradient, remove="mutations"), [x[0]], core_decomposition)
    traced = fx.GraphModule(recording.held, recording.graph)
    program: Any = SimpleNamespace(state_shapes=())
    tile = lower._lower(program, traced, [(Role.STATE, 0)], [], {})
    got = interpret(tile, {(Role.STATE, 0): x.T, (Role.FAILED, 0): torch.zeros(1, len(x), dtype=torch.int64)})
    for k, row in enumerate(x):
        for ours, theirs in zip(got, value_and_gradient(row), strict=True):
            torch.testing.assert_close(ours[:, k], theirs.reshape(-1), rtol=1e-9, atol=1e-9, equal_nan=True)


@hypothesis.settings(max_examples=1, phases=(hypothesis.Phase.generate,))
@hypothesis.given(
    given=st.lists(st.tuples(graphs(), st.integers(1, 7)), min_size=4, max_size=4),
    dtype=st.sampled_from((torch.float64,)),
    straight=st.booleans(),
)
def test_random_expressions_compiled(given: list[tuple[Graph, int]], dtype: torch.dtype, straight: bool) -> None:
    """Several in one kernel, each on elements of its own; in float64, in which a kink is never in doubt."""
    operations = [
        Operation(f"{k}: {graph}", functools.partial(evaluate, graph), (size,)) for k, (graph, size) in enumerate(given)
    ]
    with patch.object(
        emitter, "plan", plan.plan if straight else functools.partial(plan.plan, straight_line=0, small=1)
    ):
        eager, fused = both(energy_of(operations), (sum(o.numel for o in operations),), dtype=dtype)
        x0 = starts(eager.event_shape[0], dtype)
        found = disagreement(after(fused, x0, 3), after(eager, x0, 3), 1e5 * torch.finfo(dtype).eps).amax((0, 1))
    assert not [name for name, part in parts_of(operations).items() if not float(found[part].max()) <= 1]


# -- outside the table -------------------------------------------------------------------------------------------------


def eigenvalues(x: Tensor) -> Tensor:
    matrix = x.unsqueeze(-1) * x.unsqueeze(-2) + torch.eye(3)
    return torch.linalg.eigvalsh(matrix).sum(-1) + x.square().sum(-1)


def bessel(x: Tensor) -> Tensor:
    heights = torch.special.i0(x)
    return heights.sum(-1) + x.square().sum(-1)


@pytest.mark.parametrize(
    ("energy", "operation", "line"),
    [
        (eigenvalues, "_linalg_eigh", "torch.linalg.eigvalsh(matrix)"),
        (bessel, "i0", "heights = torch.special.i0(x)"),
    ],
)
def test_an_operation_outside_the_table_is_named_with_the_users_line(energy: Energy, operation: str, line: str) -> None:
    sampler = ce.build_sampler(energy, ce.Langevin(step_size=0.01), (3,), backend="fused")
    with pytest.raises(ce.UnsupportedEnergyError) as error:
        sampler.run(sampler.init(n_chains=4, seed=0), 2)
    assert operation in str(error.value) and line in str(error.value) and __file__ in str(error.value)


# -- energies ----------------------------------------------------------------------------------------------------------

ENERGIES: dict[str, tuple[Callable[[], Energy], tuple[int, ...]]] = {
    **{name: (builtin.factory, builtin.event_shape) for name, builtin in BUILTIN_ENERGIES.items()},
    "workload mlp": (lambda: workloads.MLP((2, 64, 1)), (2,)),
    "workload wide mlp": (lambda: workloads.MLP((8, 256, 1), nn.SiLU), (8,)),
    "workload mixture": (workloads.GaussianMixture, (2,)),
    "workload double-well": (workloads.DoubleWell, (100,)),
    "workload rosenbrock": (workloads.Rosenbrock, (10,)),
    "workload gaussian": (workloads.Gaussian, (100,)),
    "workload logistic": (workloads.LogisticPosterior, (25,)),
    "workload phi4": (workloads.Phi4, (16, 16)),
    "workload lennard-jones": (workloads.LennardJones, (13, 3)),
    "workload attention": (workloads.AttentionEBM, (8, 32)),
    "workload convolutions": (lambda: workloads.ConvEBM(4), (1, 28, 28)),
}
SLOW_ENERGIES = (
    *("workload convolutions", "workload attention", "workload wide mlp"),
    *("harmonic", "ackley", "himmelblau", "booth", "styblinski-tang", "banana"),
)


@pytest.mark.parametrize("name", [pytest.param(name, marks=slow if name in SLOW_ENERGIES else ()) for name in ENERGIES])
@pytest.mark.parametrize("dtype", [torch.float32, pytest.param(torch.float64, marks=slow)], ids=str)
def test_every_energy_agrees_with_eager(name: str, dtype: torch.dtype) -> None:
    make, event = ENERGIES[name]
    eager, fused = both(make(), event, 1e-4, dtype=dtype)
    x0 = starts(math.prod(event), dtype).reshape(-1, *event)
    if event == (13, 3):
        x0 = 1.1 * workloads.icosahedron().to(x0) + 0.02 * x0
    ours, theirs = after(fused, x0, N_STEPS), after(eager, x0, N_STEPS)
    assert torch.equal(ours.failed_at, theirs.failed_at) and ours.n_failed == 0
    eps = torch.finfo(dtype).eps
    for a, b in zip((ours.positions, *ours.carried), (theirs.positions, *theirs.carried), strict=True):
        assert float((a - b).abs().max()) <= ROUNDING * eps * (1 + float(b.abs().max()))


# -- other dtypes ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("compute_dtype", [torch.bfloat16, torch.float16], ids=str)
def test_half_precision_builds_and_is_near(compute_dtype: torch.dtype) -> None:
    """Lanes are never narrower than float32: a half type is as good as float32, from weights rounded to it."""
    make, event = ENERGIES["workload mlp"]
    fused = ce.build_sampler(make(), ce.Langevin(step_size=1e-3), event, backend="fused", compute_dtype=compute_dtype)
    eager = ce.build_sampler(make(), ce.Langevin(step_size=1e-3), event, backend="eager")
    x0 = starts(2, torch.float32)
    ours, theirs = after(fused, x0, N_STEPS), after(eager, x0, N_STEPS)
    assert float((ours.positions - theirs.positions).abs().max()) < 0.01
    assert float((ours.carried[1] - theirs.carried[1]).abs().max()) < 0.1


# -- what the energy holds, changed ------------------------------------------------------------------------------------


def changed_in_place(energy: Energy, event: tuple[int, ...], change: Callable[[], None]) -> None:
    eager, fused = both(energy, event, 0.01)
    x0 = starts(math.prod(event), torch.float32).reshape(-1, *event)
    before = after(fused, x0, 3)
    change()
    ours, theirs = after(fused, x0, 3), after(eager, x0, 3)
    assert float(disagreement(ours, theirs, torch.finfo(torch.float32).eps).max()) <= 1
    assert float((ours.positions - before.positions).abs().max()) > 1e-3
    assert fused._builds.count == 1


def test_weights_changed_in_place_are_live() -> None:
    module = workloads.MLP((3, 16, 1))

    def change() -> None:
        with torch.no_grad():
            module.net[0].weight.mul_(-1.5)
            module.net[2].bias.add_(1.0)

    changed_in_place(lambda x: module(x) + 0.5 * x.square().sum(-1), (3,), change)


def test_matrices_of_triangular_solves_are_live() -> None:
    lower_triangle = (fixed(4, 4, seed=50) * 0.3).tril() + 2 * torch.eye(4)

    def energy(x: Tensor) -> Tensor:
        return torch.linalg.solve_triangular(lower_triangle, x.unsqueeze(-1), upper=False).square().sum((1, 2))

    changed_in_place(energy, (4,), lambda: lower_triangle.diagonal().mul_(0.3).sum())  # type: ignore[arg-type,return-value]


@pytest.mark.parametrize("how", ["index", "gather", "index_add", "embedding"])
def test_index_tensors_changed_in_place_are_noticed(how: str) -> None:
    index, table = torch.tensor([0, 2, 1]), fixed(5, 3, seed=51)

    def energy(x: Tensor) -> Tensor:
        found = {
            "index": lambda: x[:, index] * table[0],
            "gather": lambda: x.gather(1, index.expand(len(x), 3)) * table[1],
            "index_add": lambda: x.index_add(1, index, table[2] * x.sin()),
            "embedding": lambda: F.embedding(index, table) * x.unsqueeze(1),
        }[how]()
        return 3 * found.square().flatten(1).sum(-1)

    def change() -> None:
        index.copy_(torch.tensor([1, 0, 0]))

    changed_in_place(energy, (3,), change)


@pytest.mark.parametrize("width", [3, 120])
def test_a_keyword_argument_that_is_not_read_and_one_whose_elements_loops_read(width: int) -> None:
    def energy(x: Tensor, ahead: Tensor, pull: Tensor) -> Tensor:
        del ahead
        return (x - pull.repeat(1, width // 3)).square().sum(-1)

    kwargs = {"ahead": torch.ones(N, 5), "pull": torch.arange(3.0 * N).reshape(N, 3) / N}
    eager, fused = both(energy, (width,), 0.01, model_kwargs=kwargs)
    x0 = starts(width, torch.float32)
    ours, theirs = (s.run(s.init(x0, seed=1), N_STEPS).state for s in (fused, eager))
    assert float(disagreement(ours, theirs, torch.finfo(torch.float32).eps).max()) <= 1


def test_keyword_arguments_of_each_chain() -> None:
    """Labels that choose rows of a table, numbers, and a shared matrix."""
    table = fixed(5, 4, seed=52)

    def energy(x: Tensor, label: Tensor, pull: Tensor, matrix: Tensor) -> Tensor:
        chosen = F.embedding(label, table) + (label.unsqueeze(-1) == torch.arange(4)) * 0.5
        return pull * (x @ matrix - chosen).square().sum(-1) + torch.where(label > 2, x.sin().sum(-1), 0.0)

    kwargs = {
        "label": torch.arange(N) % 5,
        "pull": 0.5 + torch.arange(N) / N,
        "matrix": fixed(4, 4, seed=53),
    }
    eager, fused = both(energy, (4,), 0.01, model_kwargs=kwargs)
    x0 = starts(4, torch.float32)
    for _ in range(2):
        ours, theirs = (s.run(s.init(x0, seed=1), N_STEPS).state for s in (fused, eager))
        assert float(disagreement(ours, theirs, torch.finfo(torch.float32).eps).max()) <= 1
        kwargs["label"].copy_((torch.arange(N) + 2) % 5)
