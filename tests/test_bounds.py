"""Distances within which an energy is surely finite: bounds hold, and say enough."""

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from cases import fixed, seeded, silu_mlp
from operation_cases import GROUPS, energy_of
from torch import Tensor, nn

import compiled_ebm as ce
from compiled_ebm.backends.fused.bounds import intervals
from compiled_ebm.backends.fused.bounds.intervals import DOUBLE, RULES, SINGLE, Precision, Rule
from compiled_ebm.backends.fused.bounds.reach import CANDIDATES, Reach
from compiled_ebm.backends.fused.bounds.rows import REDUCTIONS, dot
from compiled_ebm.backends.fused.lower import lower_init
from compiled_ebm.backends.fused.lowered import Lowered
from compiled_ebm.backends.fused.program import (
    Carry,
    Input,
    Kind,
    Literal,
    Pointwise,
    Role,
    TileProgram,
    is_constant,
)
from compiled_ebm.backends.fused.pruning import pruned
from compiled_ebm.backends.fused.reference import OPERATIONS, interpret
from compiled_ebm.energies.registry import BUILTIN_ENERGIES

Energy = Callable[[Tensor], Tensor]
N_POSITIONS = 600
FAR = 1e18


# -- energies ----------------------------------------------------------------------------------------------------------


FEATURES, LABELLED, CENTRES, WEIGHTS = fixed(4, 20, seed=2), fixed(4, 9, seed=3), fixed(6, 4, seed=4), fixed(4, seed=1)


def logistic_regression(x: Tensor) -> Tensor:
    return F.softplus(x @ FEATURES).sum(-1) + 0.5 * x.square().sum(-1)


def cross_entropy(x: Tensor) -> Tensor:
    logits = x @ LABELLED
    return F.binary_cross_entropy_with_logits(logits, torch.ones_like(logits), reduction="none").sum(-1)


def phi4(x: Tensor) -> Tensor:
    return (0.5 * (x - x.roll(1, -1)).square() + 0.25 * x.pow(4)).sum(-1)


def mixture(x: Tensor) -> Tensor:
    return -torch.logsumexp(-(x[:, None] - CENTRES).square().sum(-1), -1)


def two_modes(x: Tensor) -> Tensor:
    return -torch.logaddexp(-(x - 1).square().sum(-1), x[:, 1] - (x + 1).square().sum(-1))


def lennard_jones(x: Tensor) -> Tensor:
    return 1 / (x[:, 0] - x[:, 1]).square().pow(3)


def hard_wall(x: Tensor) -> Tensor:
    return torch.where(x > 0.5, math.inf, x**2).sum(-1)


def gated(x: Tensor) -> Tensor:
    return (torch.where(x > 1, x.log(), x - 1) + torch.where(x < -2, (-x).rsqrt(), x.tanh())).sum(-1)


def of_four(energy: Energy, x: Tensor) -> Tensor:
    return energy(torch.cat([x, x], -1))


def activation(name: str) -> Callable[[], nn.Module]:
    return lambda: ce.MLPModel(4, (5, 6), name, seed=0, confinement=1.0)


FUNCTIONS: dict[str, tuple[Callable[[], Energy], float]] = {
    "logistic regression": (lambda: logistic_regression, FAR),
    "cross entropy": (lambda: cross_entropy, FAR),
    "phi4": (lambda: phi4, 1e6),
    "student": (lambda: lambda x: torch.log1p(x.square()).sum(-1), FAR),
    "mixture": (lambda: mixture, FAR),
    "two modes": (lambda: two_modes, FAR),
    "softmax": (lambda: lambda x: (x * x.softmax(-1)).sum(-1), FAR),
    "log softmax": (lambda: lambda x: -x.log_softmax(-1)[:, 0], FAR),
    "log sum of products": (lambda: lambda x: torch.logsumexp(x * WEIGHTS, -1), 1e6),
    "silu network": (lambda: functools.partial(of_four, seeded(silu_mlp)), FAR),
    **{f"{name} network": (activation(name), FAR) for name in ("tanh", "gelu", "softplus", "elu", "relu")},
    "lennard jones": (lambda: lennard_jones, 0.0),
    "log": (lambda: lambda x: x.log().sum(-1), 0.0),
    "log of square": (lambda: lambda x: x.square().log().sum(-1), 0.0),
    "hard wall": (lambda: hard_wall, 0.0),
    "root": (lambda: lambda x: (x.square() + 1).sqrt().sum(-1), FAR),
    "norm": (lambda: lambda x: x.norm(dim=-1), FAR),
    "exp": (lambda: lambda x: x.exp().sum(-1), 80.0),
    "fourth power": (lambda: lambda x: x.pow(4).sum(-1), 1e6),
    "where": (lambda: lambda x: torch.where(x > 0, x**2, -x).sum(-1), FAR),
    "gated": (lambda: gated, FAR),
    "quotient": (lambda: lambda x: (1 / (1 + x.square())).sum(-1), FAR),
}


def program_of(energy: Energy, event: Sequence[int]) -> tuple[TileProgram, Callable[[], list[Tensor]]]:
    """The tile program of the energy alone, and its constants as they are."""
    sampler = ce.build_sampler(energy, ce.Langevin(step_size=1e-3), tuple(event), backend="eager")
    chain, _ = sampler._builds.get({}, 4)
    lowered = Lowered(functools.partial(lower_init, chain), chain.init, [])
    outputs = (lowered.program.outputs[1],)
    program = replace(lowered.program, outputs=outputs, nodes=tuple(pruned(lowered.program.nodes, outputs)))
    return program, lambda: lowered.constants(chain.init.constants([]))


@functools.cache
def function_program(name: str) -> tuple[TileProgram, Callable[[], list[Tensor]]]:
    return program_of(FUNCTIONS[name][0](), (4,))


@functools.cache
def builtin_program(name: str) -> tuple[TileProgram, Callable[[], list[Tensor]]]:
    factory, event = BUILTIN_ENERGIES[name]
    return program_of(factory(), event)


# -- what is finite ----------------------------------------------------------------------------------------------------


def positions(numel: int, bound: float, dtype: torch.dtype) -> Tensor:
    """``[numel, n]`` within the bound: uniform, corners, of every magnitude, with zeros, alike."""
    random = torch.Generator().manual_seed(0)
    shape = (numel, N_POSITIONS)
    uniform = 2 * torch.rand(shape, generator=random, dtype=torch.float64) - 1
    parts = [uniform, uniform.sign(), uniform.sign() * 10 ** (-40 * torch.rand(shape, generator=random))]
    parts.append(torch.where(torch.rand(shape, generator=random) < 0.5, 0.0, uniform))
    parts.append(uniform[:1].expand(shape))
    least = (
        torch.tensor(bound).to(dtype).double() if torch.tensor(bound).to(dtype) <= bound else torch.tensor(0.99 * bound)
    )
    return (bound * torch.cat(parts, 1)).clamp(-least, least).to(dtype)


def infinite_values(program: TileProgram, constants: Sequence[Tensor], x: Tensor) -> list[str]:
    """Operations with a result that is not finite, and that the outputs need: not the other branch of a selection."""
    inputs = {(Role.STATE, 0): x, (Role.FAILED, 0): torch.zeros(1, dtype=torch.int64)}
    for node in program.inputs():
        if node.role is Role.CONSTANT:
            inputs[Role.CONSTANT, node.position] = constants[node.position].detach().reshape(-1)
        elif node.role is Role.STATE and node.position:
            inputs[Role.STATE, node.position] = torch.zeros(node.size)
    made = [node for node in program.nodes if node.size and not isinstance(node, Carry)]
    values = interpret(replace(program, outputs=tuple(node.ids for node in made)), inputs)
    total = max(node.first + node.size for node in made)
    needed = torch.zeros((total, x.shape[1]), dtype=torch.int32)
    for ids in program.outputs:
        needed[ids] = 1
    masks = {node.first: value for node, value in zip(made, values, strict=True)}
    owner = program.owner()
    found = []
    for node, value in zip(made[::-1], values[::-1], strict=True):
        own = needed[node.first : node.first + node.size] > 0
        fixed_number = isinstance(node, Literal) or is_constant(node)
        if node.kind is Kind.REAL and not fixed_number and bool((~value.isfinite() & own).any()):
            found.append(node.op if isinstance(node, Pointwise) else type(node).__name__)
        selects = isinstance(node, Pointwise) and node.op == "rsel"
        for k, ids in enumerate(node.operands()):
            wanted = own
            if selects and k:
                test = node.operands()[0]
                rows = [masks[program.nodes[owner[e]].first][e - program.nodes[owner[e]].first] for e in test]
                wanted = own & (torch.stack(rows) == (k == 1))
            if not isinstance(node, Pointwise):
                wanted = own.any(0).expand(ids.size, -1)
            needed.index_add_(0, torch.from_numpy(ids.reshape(-1)), wanted.to(torch.int32))
    return found


def check(program: TileProgram, constants: Sequence[Tensor], least: float = 0.0) -> float:
    """The reach, after a search for values that are not finite within it."""
    reach = Reach(program)(constants)
    assert reach == 0.0 or reach >= least
    if reach:
        x = next(node for node in program.inputs() if node.role is Role.STATE and node.position == 0)
        dtype = torch.float64 if program.real_bits == 64 else torch.float32
        assert infinite_values(program, constants, positions(x.size, reach, dtype)) == []
    return reach


@pytest.mark.parametrize("name", BUILTIN_ENERGIES)
def test_builtin_energies_are_finite_far_out(name: str) -> None:
    program, constants = builtin_program(name)
    least = 30.0 if name == "funnel" else 1e6
    assert check(program, constants()) >= least
    assert check(replace(program, real_bits=64), constants()) >= least


@pytest.mark.parametrize("name", FUNCTIONS)
def test_energies_are_finite_within_their_reach(name: str) -> None:
    program, constants = function_program(name)
    expected = FUNCTIONS[name][1]
    assert check(program, constants()) == expected
    wide = check(replace(program, real_bits=64), constants())
    assert (wide > 0) == (expected > 0) and wide >= expected


@pytest.mark.slow
@pytest.mark.parametrize("group", GROUPS)
def test_every_operation_is_finite_within_its_reach(group: str) -> None:
    for operation in GROUPS[group]:
        program, constants = program_of(energy_of([operation]), (operation.numel,))
        check(program, constants())
        check(replace(program, real_bits=64), constants())


def test_a_decided_condition_leaves_the_wall_out() -> None:
    program, constants = program_of(lambda x: torch.where(x > 20, math.inf, x**2).sum(-1), (3,))
    assert check(program, constants()) == 10.0


def test_functions_of_other_inputs_are_not_shown() -> None:
    program, constants = function_program("fourth power")
    nodes = [replace(n, role=Role.CHAIN_KWARG) if isinstance(n, Input) else n for n in program.nodes]
    assert Reach(replace(program, nodes=tuple(nodes)))(constants()) == 0.0


def test_loops_are_not_shown() -> None:
    program, constants = builtin_program("harmonic")
    carried = Carry(10_000, 1, Kind.REAL, start=program.outputs[0], next=program.outputs[0])
    looped = replace(program, nodes=(*program.nodes, carried), outputs=(carried.ids,))
    assert Reach(looped)(constants()) == 0.0


# -- negative controls -------------------------------------------------------------------------------------------------


def test_negative_control_a_wrong_rule_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(RULES, "exp", Rule(lambda a: np.zeros_like(a) + [[[0.0]], [[1.0]]]))
    program, constants = function_program("exp")
    assert Reach(program)(constants()) == FAR
    with pytest.raises(AssertionError, match="exp"):
        check(program, constants())


def test_negative_control_without_branches_networks_are_not_finite(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("compiled_ebm.backends.fused.bounds.reach.narrowed", lambda nodes: list(nodes))
    program, constants = builtin_program("mlp")
    assert Reach(program)(constants()) < 1e4


def test_negative_control_without_order_mixtures_are_not_finite(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("compiled_ebm.backends.fused.bounds.order.Order._has_maxima", lambda _: False)
    program, constants = builtin_program("mixture")
    assert Reach(program)(constants()) < 10


# -- constants ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("factor", [1e30, math.inf, math.nan])
def test_large_weights_shorten_the_reach(factor: float) -> None:
    program, constants = builtin_program("mlp")
    reach, weights = Reach(program), constants()
    near = reach([factor * w for w in weights])
    assert near < reach(weights) and (near == 0.0 or math.isfinite(factor))
    check(program, [factor * w for w in weights])


def test_one_bad_weight_is_enough() -> None:
    program, constants = builtin_program("mlp")
    for k in (node.position for node in program.inputs() if node.role is Role.CONSTANT):
        weights = constants()
        weights[k] = weights[k].reshape(-1).clone()
        weights[k][-1] = math.nan
        assert Reach(program)(weights) == 0.0


def test_products_of_matrices_see_their_weights() -> None:
    program, constants = program_of(ce.MLPModel(16, (32, 32), "selu", seed=0), (16,))
    reach, weights = Reach(program), constants()
    assert check(program, weights) == FAR
    assert reach([1e9 * w for w in weights]) < 1e12
    weights[-1] = weights[-1] * math.inf
    positions_read = {node.position for node in program.inputs() if node.role is Role.CONSTANT}
    for k in positions_read:
        bad = constants()
        bad[k] = bad[k] * math.nan
        assert reach(bad) == 0.0


def test_tiny_divisors_are_not_shown() -> None:
    scale = torch.tensor([1e-39])
    program, constants = program_of(lambda x: (x.square() + scale).rsqrt().sum(-1), (2,))
    assert Reach(program)(constants()) == 0.0


# -- rules -------------------------------------------------------------------------------------------------------------

N_INTERVALS, N_POINTS = 3000, 12
_MASKS = ("mand", "mor", "mxor", "mnot", "m_to_r", "m_to_i")
_BINARY = (
    *("add sub mul div max min fmax fmin pow hypot fmod remainder copysign atan2 at_most at_least square".split()),
    *("req rne rlt rle rgt rge ieq ine ilt ile igt ige iadd isub imul imax imin iand ior ixor".split()),
    *("idiv_floor idiv_trunc imod_floor mand mor mxor".split()),
)


def random_intervals(random: np.random.Generator, n: int, kind: str) -> np.ndarray:
    """``[2, 1, n]``, ends exact in float32: points, around 0, far out, tiny, of one sign."""
    if kind == "mask":
        return np.sort(random.integers(0, 2, (2, 1, n)), axis=0).astype(np.float64)
    if kind == "int":
        return np.sort(random.integers(-50, 50, (2, 1, n)), axis=0).astype(np.float64)
    size = 10.0 ** np.where(random.random((2, 1, n)) < 0.7, random.uniform(-2, 2, (2, 1, n)), 0)
    size *= 10.0 ** np.where(random.random((1, 1, n)) < 0.15, random.uniform(-35, 18, (1, 1, n)), 0)
    ends = size * random.choice([-1.0, 1.0], (2, 1, n))
    ends = np.where(random.random((1, 1, n)) < 0.3, np.abs(ends), ends)
    ends = np.where(random.random((2, 1, n)) < 0.1, random.choice([0.0, 1.0, -1.0, 2.0], (2, 1, n)), ends)
    ends[1] = np.where(random.random((1, n)) < 0.2, ends[0], ends[1])
    return np.sort(ends.astype(np.float32).astype(np.float64), axis=0)


def random_points(random: np.random.Generator, bounds: np.ndarray, kind: str) -> np.ndarray:
    low, high = bounds[0], bounds[1]
    points = low + (high - low) * random.random((N_POINTS, bounds.shape[2]))
    points = np.where(random.random(points.shape) < 0.3, np.where(random.random(points.shape) < 0.5, low, high), points)
    points = np.round(points) if kind != "real" else points
    points = points.astype(np.float32).astype(np.float64)
    return np.clip(points, low, high)


def kind_of(op: str, place: int) -> str:
    selects = {"rsel": "real", "isel": "int", "msel": "mask"}
    if op in selects:
        return "mask" if place == 0 else selects[op]
    if op in _MASKS:
        return "mask"
    return "int" if op[0] == "i" and op not in ("isfinite", "isinf", "isnan") else "real"


def evaluated(op: str, args: Sequence[np.ndarray], dtype: torch.dtype) -> np.ndarray:
    kinds = {"real": dtype, "int": torch.int64, "mask": torch.bool}
    given = [torch.from_numpy(a).to(kinds[kind_of(op, k)]) for k, a in enumerate(args)]
    if "_to_" in op:
        return given[0].to({"r": dtype, "i": torch.int64, "m": torch.bool}[op[-1]]).double().numpy()
    if op in ("at_most", "at_least"):
        return given[0].double().numpy()
    if op == "softplus":  # the interpreter's overflows in float64 between 709 and its threshold
        return torch.logaddexp(given[0], torch.zeros_like(given[0])).double().numpy()
    return OPERATIONS["mul" if op == "square" else op](*given).double().numpy()


def outside(op: str, precision: Precision, dtype: torch.dtype) -> tuple[int, int]:
    """How many results are outside of their bounds, and how many bounds say anything."""
    random = np.random.default_rng(sum(op.encode()))
    arity = 3 if op.endswith("sel") else 2 if op in _BINARY else 1
    kinds = [kind_of(op, k) for k in range(arity)]
    bounds = [random_intervals(random, N_INTERVALS, kind) for kind in kinds]
    if op in ("asin", "acos", "atanh"):
        bounds = [b / np.maximum(1.0, np.abs(b).max(0)) for b in bounds]
        bounds = [b.astype(np.float32).astype(np.float64) for b in bounds]
    if op == "log1p_unit":
        bounds = [np.sort(np.abs(b) / np.maximum(1.0, np.abs(b).max(0)), axis=0) for b in bounds]
    if op == "pow":
        bounds[1] = np.where(random.random((1, 1, N_INTERVALS)) < 0.7, np.round(bounds[1].clip(-9, 9)), bounds[1])
        bounds[1][1] = bounds[1][0]
    if op == "square":
        bounds[1] = bounds[0]
    given = [b[:1] if np.array_equal(b[0], b[1]) else b for b in bounds]
    points = [random_points(random, b, kind) for b, kind in zip(bounds, kinds, strict=True)]
    points = [points[0], points[0]] if op == "square" else points
    with np.errstate(all="ignore"):
        result = RULES[op].bounds(*given)
        result = intervals.rounded(result, precision) if RULES[op].rounds else result
        result = intervals.flushed(result, precision)
        shown = (np.abs(result) < precision.limit).all(0)[0]
        value = evaluated(op, points, dtype)
        inside = (value >= result[0]) & (value <= result[1])
    if op in ("at_most", "at_least"):
        inside |= (points[0] > points[1]) if op == "at_most" else (points[0] < points[1])
    if op.startswith("idiv") or op == "imod_floor":
        inside |= points[1] == 0
    return int((~inside & shown).sum()), int(shown.sum())


_UNDEFINED_BY_ZERO = ("idiv_floor", "idiv_trunc", "imod_floor")


@pytest.mark.parametrize("op", [op for op in RULES if op not in _UNDEFINED_BY_ZERO])
def test_results_lie_within_their_bounds(op: str) -> None:
    assert outside(op, SINGLE, torch.float32)[0] == 0
    wrong, shown = outside(op, DOUBLE, torch.float64)
    assert wrong == 0
    assert shown > 0.1 * N_INTERVALS


@pytest.mark.parametrize("op", ["add", "mul", "exp", "tanh"])
def test_negative_control_without_margins_results_lie_outside(op: str) -> None:
    assert outside(op, replace(SINGLE, rounding=0.0), torch.float32)[0] > 0


def test_every_rule_is_of_an_operation() -> None:
    made_here = {"square", "at_most", "at_least"}
    assert {op for op in RULES if "_to_" not in op} - OPERATIONS.keys() == made_here
    assert OPERATIONS.keys() - RULES.keys() == {"tan", "erfinv", "ndtri", "trigamma"}


@pytest.mark.parametrize("op", REDUCTIONS)
@pytest.mark.parametrize("terms", [3, 40])
def test_reductions_lie_within_their_bounds(op: str, terms: int) -> None:
    random = np.random.default_rng(terms)
    kind = "mask" if op in ("all", "any") else "real"
    bounds = random_intervals(random, 200 * terms, kind)
    rows = [random_points(random, bounds, kind).reshape(N_POINTS, 200, terms) for _ in range(3)]
    with np.errstate(all="ignore"):
        result = REDUCTIONS[op](bounds.reshape(2, 1, 200, terms), SINGLE)
    shown = (np.abs(result) < SINGLE.limit).all(0)[0]
    assert shown.any()
    functions: dict[str, Any] = {"max": "amax", "min": "amin"}
    for points in rows:
        given = torch.from_numpy(points).to(torch.bool if kind == "mask" else torch.float32)
        value = getattr(given, functions.get(op, op))(-1).double().numpy()
        assert ((value >= result[0]) & (value <= result[1]) | ~shown).all()


@pytest.mark.parametrize("known", ["left", "right", "neither"])
def test_products_lie_within_their_bounds(known: str) -> None:
    random = np.random.default_rng(5)
    left, right = random.normal(size=(2, 1, 3, 50)), random.normal(size=(2, 1, 50, 7))
    ends = [np.sort(side.astype(np.float32).astype(np.float64), axis=0) for side in (left, right)]
    given = [e[:1].astype(np.float32) if known == name else e for e, name in zip(ends, ("left", "right"), strict=True)]
    result = dot(given[0], given[1], SINGLE)[:, 0]
    for _ in range(50):
        a, b = (e[0, 0] + (e[-1, 0] - e[0, 0]) * random.choice([0.0, 0.5, 1.0], e[0, 0].shape) for e in given)
        value = (torch.from_numpy(a).float() @ torch.from_numpy(b).float()).double().numpy()
        assert ((value >= result[0]) & (value <= result[1])).all()


def test_sums_whose_parts_overflow_are_not_shown() -> None:
    parts = np.array([3e38, 3e38, -3e38, -3e38])[None, None, None] * np.ones((2, 1, 1, 1))
    assert np.isnan(REDUCTIONS["sum"](parts, SINGLE)).all()


def test_candidates_fall() -> None:
    for batches in CANDIDATES.values():
        distances = [d for batch in batches for d in batch]
        assert distances == sorted(distances, reverse=True)
