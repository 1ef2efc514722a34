"""Tracing: what is refused and how, which tensors and constants are live, and when that rebuilds."""

import functools
import math
import threading
import types
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from cases import (
    DTYPES,
    Case,
    builds,
    case_params,
    causal_attention,
    same_bits,
    same_state,
    shared_sampler,
    traced_energy,
)
from torch import Tensor, nn

import compiled_ebm as ce

DRIFT = ce.Langevin(step_size=0.05, noise_scale=0.0)
EVENT = (3,)


def build(energy: Callable[..., Tensor], **options: Any) -> ce.Sampler:
    options.setdefault("backend", "eager")
    return ce.build_sampler(energy, DRIFT, options.pop("event_shape", EVENT), **options)


def points(n: int = 16, seed: int = 3) -> Tensor:
    return torch.randn(n, *EVENT, generator=torch.Generator().manual_seed(seed))


class Net(nn.Module):
    """|x|^2 / 2 plus a small network that may have layers which are no function of one chain."""

    def __init__(self, *middle: nn.Module) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), *middle, nn.Linear(8, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x).squeeze(-1) + 0.5 * x.square().sum(-1)


# -- refusals --------------------------------------------------------------------------------------------------------


def random_in_energy(x: Tensor) -> Tensor:
    return (x + torch.randn_like(x)).square().sum(-1)


def reseeded_random(x: Tensor) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return (x + torch.randn(3, generator=generator)).square().sum(-1)


def functional_dropout(x: Tensor) -> Tensor:
    return F.dropout(x, 0.5).square().sum(-1)


def numpy_random(x: Tensor) -> Tensor:
    return x.square().sum(-1) * float(np.random.rand())


def branch_on_the_batch(x: Tensor) -> Tensor:
    if x.sum() > 0:
        return x.square().sum(-1)
    return 2 * x.square().sum(-1)


def branch_never_taken(x: Tensor) -> Tensor:
    if x.square().sum() > 1e6:
        return x.square().sum(-1)
    return 2 * x.square().sum(-1)


def item_in_energy(x: Tensor) -> Tensor:
    return x.square().sum(-1) * x[0, 0].item()


def item_unused(x: Tensor) -> Tensor:
    x.sum().item()
    return x.square().sum(-1)


def mask_by_x(x: Tensor) -> Tensor:
    return x.square().sum(-1) + 0.0 * x[x > 0].mean()


def assignment_by_x(x: Tensor) -> Tensor:
    y = x * 1.0
    y[x < 0] = x[x < 0].flip(0)
    return y.square().sum(-1)


def nonzero_of_x(x: Tensor) -> Tensor:
    return x.square().sum(-1) + 0.0 * x.nonzero().sum()


def through_numpy(x: Tensor) -> Tensor:
    return x.square().sum(-1) + torch.from_numpy(np.square(x.detach().numpy()).sum(-1))


def fails(x: Tensor) -> Tensor:
    raise KeyError("no such thing")


def wrong_inner_shape(x: Tensor) -> Tensor:
    return (x @ torch.ones(7, 7)).sum(-1)


def gradient_through_numpy(x: Tensor) -> Tensor:
    return 2 * torch.tensor(x.tolist())


class WrongGradient(nn.Module):
    def __init__(self, gradient: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.own = gradient

    def forward(self, x: Tensor) -> Tensor:
        return x.square().sum(-1)

    def gradient(self, x: Tensor) -> Any:
        return self.own(x)


def in_eval(module: nn.Module) -> nn.Module:
    return module.eval()


# Name: (energy, what the message must say, the source line that it must quote or None where there is none to quote).
Refusal = tuple[Callable[[], Callable[..., Tensor]], tuple[str, ...], str | None]
REFUSED: dict[str, Refusal] = {
    "dropout module": (lambda: Net(nn.Dropout(0.5)), ("random", "model.eval()"), "self.layers(x)"),
    "dropout function": (lambda: functional_dropout, ("random", "model.eval()"), "F.dropout(x, 0.5)"),
    "randn": (lambda: random_in_energy, ("random", "randn", "model_kwargs"), "torch.randn_like(x)"),
    "randn, same every call": (lambda: reseeded_random, ("random draw aten.randn",), "generator=generator)"),
    "numpy random": (lambda: numpy_random, ("random",), None),
    "branch taken": (lambda: branch_on_the_batch, ("control flow on data", "torch.where"), "if x.sum() > 0:"),
    "branch not taken": (
        lambda: branch_never_taken,
        ("control flow on data", "torch.where"),
        "if x.square().sum() > 1e6:",
    ),
    "item": (lambda: item_in_energy, ("Python value was taken from a tensor",), "x[0, 0].item()"),
    "item unused": (lambda: item_unused, ("Python value was taken from a tensor",), "x.sum().item()"),
    "boolean mask": (lambda: mask_by_x, ("aten.mean", "depends on", "torch.where"), "x[x > 0].mean()"),
    "boolean mask, assigned": (lambda: assignment_by_x, ("aten.flip", "torch.where"), "x[x < 0].flip(0)"),
    "nonzero": (lambda: nonzero_of_x, ("aten.nonzero", "depends on"), "x.nonzero().sum()"),
    "NumPy": (lambda: through_numpy, ("energy:",), "x.detach().numpy()"),
    "BatchNorm": (lambda: Net(nn.BatchNorm1d(8)), ("couples chains", "BatchNorm1d(8", "model.eval()"), None),
    "BatchNorm without statistics": (
        lambda: Net(nn.BatchNorm1d(8, track_running_stats=False)).eval(),
        ("couples chains", "BatchNorm1d(8"),
        None,
    ),
    "batch mean": (lambda: lambda x: (x - x.mean(0)).square().sum(-1), ("couples chains", "first dimension"), None),
    "batch size": (lambda: lambda x: x.square().sum(-1) / len(x), ("couples chains",), None),
    "softmax over chains": (lambda: lambda x: x.softmax(0).square().sum(-1), ("couples chains",), None),
    "chains shifted": (lambda: lambda x: (x * x.roll(1, 0)).sum(-1), ("couples chains",), None),
    "column": (
        lambda: lambda x: x.square().sum(-1, keepdim=True),
        ("expected output shape [11]", "got [11, 1]", "add .squeeze(-1)"),
        None,
    ),
    "scalar": (lambda: lambda x: x.square().sum(), ("expected output shape [11]", "got []", "sum over every"), None),
    "not reduced": (lambda: lambda x: x.square(), ("expected output shape [11]", "got [11, 3]"), None),
    "integer": (lambda: lambda x: x.square().sum(-1).long(), ("floating-point output", "torch.int64"), None),
    "boolean": (lambda: lambda x: x.sum(-1) > 0, ("floating-point output", "torch.bool"), None),
    "float": (lambda: lambda x: 1.0, ("expected a tensor of shape [11]", "got float"), None),
    "constant": (lambda: lambda x: torch.ones(len(x)), ("depends on x",), None),
    "detached": (lambda: lambda x: x.detach().square().sum(-1), ("depends on x", ".detach()"), None),
    "raises": (lambda: fails, ("KeyError", "no such thing"), 'raise KeyError("no such thing")'),
    "shapes clash": (lambda: wrong_inner_shape, ("RuntimeError", "event_shape=(3,)"), "x @ torch.ones(7, 7)"),
    "missing argument": (lambda: lambda x, y: x.sum(-1) * y, ("TypeError", "'y'", "model_kwargs"), None),
    "gradient of wrong shape": (
        lambda: WrongGradient(lambda x: x.sum(-1)),
        ("gradient: expected the shape of the positions [11, 3]", "got [11]"),
        None,
    ),
    "gradient through NumPy": (
        lambda: WrongGradient(gradient_through_numpy),
        ("its gradient", "values out of tensors"),
        "x.tolist()",
    ),
    "gradient no tensor": (lambda: WrongGradient(lambda x: 3.0), ("gradient: expected the shape", "got float"), None),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_with_its_own_message(name: str) -> None:
    energy, words, line = REFUSED[name]
    with pytest.raises(ce.UnsupportedEnergyError) as caught:
        build(energy())
    message = str(caught.value)
    assert message.startswith(("energy: ", "gradient: "))
    assert all(word in message for word in words), message
    if line is not None:
        assert line in message and "test_trace.py:" in message, message


def test_messages_are_each_their_own() -> None:
    """No two kinds of mistake get the same words: the part before the details differs."""
    kinds = {}
    for name in ("randn", "branch not taken", "boolean mask", "batch mean", "column", "integer", "constant", "raises"):
        with pytest.raises(ce.UnsupportedEnergyError) as caught:
            build(REFUSED[name][0]())
        kinds[name] = " ".join(str(caught.value).split()[:5])
    assert len(set(kinds.values())) == len(kinds), kinds


COUPLED: dict[str, Callable[[Tensor], Tensor]] = {
    "mean": lambda x: (x - x.mean(0)).square().sum(-1),
    "softmax": lambda x: x.softmax(0).square().sum(-1),
    "cumulative": lambda x: x.cumsum(0).square().sum(-1),
}


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", COUPLED)
def test_coupled_chains_are_found_in_every_dtype(name: str, dtype: torch.dtype) -> None:
    with pytest.raises(ce.UnsupportedEnergyError, match="couples chains"):
        build(COUPLED[name], dtype=dtype)


ACCEPTED: dict[str, Callable[[], Callable[..., Tensor]]] = {
    "dropout in eval": lambda: in_eval(Net(nn.Dropout(0.5))),
    "BatchNorm in eval": lambda: in_eval(Net(nn.BatchNorm1d(8))),
    "dropout with p=0": lambda: Net(nn.Dropout(0.0)),
    "LayerNorm in train": lambda: Net(nn.LayerNorm(8)),
    "GroupNorm in train": lambda: Net(nn.GroupNorm(2, 8)),
    "masked by where": lambda: lambda x: torch.where(x > 0, x.square(), x.abs()).sum(-1),
    "assignment through a mask": lambda: lambda x: x.masked_fill(x < 0, 0.0).square().sum(-1),
    "flat regions": lambda: lambda x: F.relu(x.abs() - 10.0).sum(-1),
    "branch on a shape": lambda: lambda x: x.square().sum(-1) if x.shape[-1] == 3 else x.sum(-1),
    "branch on a constant": lambda: lambda x, power=2.0: x.abs().pow(power).sum(-1) if power else x.sum(-1),
    "causal attention": lambda: lambda x: causal_attention(x.unsqueeze(-1)),
    "NaN outside its domain": lambda: lambda x: -torch.log(1 - x.square()).sum(-1),
}


@pytest.mark.parametrize("name", ACCEPTED)
def test_negative_control_these_are_not_refused(name: str) -> None:
    energy = ACCEPTED[name]()
    x = points()
    with torch.no_grad():
        want = energy(x)
    assert torch.allclose(traced_energy(build(energy), x), want, rtol=1e-5, equal_nan=True)


def test_distributions_may_check_their_values() -> None:
    """``log_prob`` and the constructors ask for a value of the whole batch and raise; here it is each chain's own."""

    def energy(x: Tensor) -> Tensor:
        scale = torch.distributions.HalfNormal(2.0).log_prob(x[:, 0])
        rest = torch.distributions.Normal(x[:, :1], x[:, 1:2].exp()).log_prob(x[:, 2:]).sum(-1)
        covariance = torch.eye(2) * (1 + x[:, :1, None].square())
        return -torch.distributions.MultivariateNormal(torch.zeros(2), covariance).log_prob(x[:, 1:]) - scale - rest

    x = points()
    x[:, 0] = x[:, 0].abs()
    with torch.no_grad():
        assert torch.allclose(traced_energy(build(energy), x), energy(x), rtol=1e-5)


@pytest.mark.parametrize("backend", ["eager", "fused", pytest.param("inductor", marks=pytest.mark.slow)])
def test_a_chain_outside_a_support_fails_alone(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.distributions.Distribution, "_validate_args", True)  # a compile of the user's ends it
    sampler = build(lambda x: -torch.distributions.Exponential(1.0).log_prob(x).sum(-1), backend=backend)
    x = points().abs() + 0.5
    x[3, 1] = -0.25
    with pytest.warns(ce.NonFiniteChainWarning):
        state = sampler.run(sampler.init(x, seed=1), 1).state
    inside = torch.arange(len(x)) != 3
    assert torch.equal(state.failed_at >= 0, ~inside)
    assert torch.equal(state.x[3], x[3]) and (state.x != x)[inside].all()
    assert torch.distributions.Distribution._validate_args


def test_tensors_of_numbers_are_rounded_as_torch_rounds_them() -> None:
    """The decomposition of linspace differs in the last places of float32, which float64 would show."""

    def energy(x: Tensor) -> Tensor:
        return (torch.linspace(-1, 1, 20) * x).sin().sum(-1) + (torch.logspace(-1, 1, 20) * x).cos().sum(-1)

    samplers = [
        ce.build_sampler(energy, ce.Langevin(0.01), 20, dtype=torch.float64, backend=b) for b in ("eager", "fused")
    ]
    ours, theirs = (s.run(s.init(n_chains=8, seed=1), 3).state for s in samplers)
    assert torch.allclose(ours.positions, theirs.positions, rtol=0, atol=1e-12)


@pytest.mark.parametrize("backend", ["eager", "fused"])
def test_one_hot_labels_of_chains(backend: str) -> None:
    labels, weights = torch.arange(16) % 3, torch.arange(9.0).reshape(3, 3)

    def energy(x: Tensor, y: Tensor) -> Tensor:
        return (F.one_hot(y, 3).to(x) @ weights * x).sum(-1) + x.square().sum(-1)

    sampler = build(energy, backend=backend, model_kwargs={"y": labels})
    x = points()
    state = sampler.run(sampler.init(x), 0).state
    assert torch.allclose(state.carried[1], weights[labels] + 2 * x)


def test_positions_must_be_floating() -> None:
    with pytest.raises(TypeError, match="dtype: expected one of"):
        build(lambda x: x.sum(-1), dtype=torch.int64)
    with pytest.raises(TypeError, match=r"x0: expected a floating-point dtype, got torch.int64"):
        build(lambda x: x.square().sum(-1)).init(torch.ones(4, 3, dtype=torch.int64))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"event_shape": (3.0,)}, TypeError, "event_shape: expected a tuple of integers"),
        ({"event_shape": (0,)}, ValueError, "event_shape: expected sizes of at least 1"),
        ({"event_shape": "3"}, TypeError, "event_shape: expected a tuple of integers"),
        ({"backend": "cuda"}, ValueError, "backend: expected one of auto, fused, inductor"),
        ({"dtype": "float32"}, TypeError, "dtype: expected one of torch.float32"),
        ({"compute_dtype": torch.int8}, TypeError, "compute_dtype: expected one of torch.float32"),
        ({"device": "no such"}, ValueError, "device: expected a device such as 'cpu'"),
        ({"device": "meta"}, ValueError, "device: expected 'cpu' or 'cuda', got 'meta'"),
        ({"model_kwargs": [1]}, TypeError, "model_kwargs: expected a mapping"),
    ],
)
def test_arguments_of_build_sampler(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        build(lambda x: x.square().sum(-1), **options)


def test_energy_and_transition_must_be_what_they_say() -> None:
    with pytest.raises(TypeError, match="energy: expected a callable"):
        build(torch.ones(3))
    for transition in (ce.Langevin, 0.1):
        with pytest.raises(TypeError, match="transition: expected a transition such as"):
            ce.build_sampler(lambda x: x.sum(-1), transition, EVENT)


# -- the traced program is the energy --------------------------------------------------------------------------------


@pytest.mark.parametrize("case", case_params())
def test_the_traced_program_gives_energy_and_gradient(case: Case) -> None:
    """float64, against the user's own code on the whole batch; what the compiled backends start from."""
    sampler = shared_sampler(case.name, "eager", torch.float64)
    state = sampler.run(sampler.init(n_chains=16, seed=5), 0).state
    program, _ = sampler._builds.get({}, 16)
    x, energy, grad, failed_at = program.init.batched()(state.positions, torch.tensor(0), *program.init.constants([]))
    assert torch.equal(x, state.positions) and bool((failed_at == -1).all())
    for got, want in ((energy, state.carried[0]), (grad, state.carried[1])):
        assert torch.allclose(got, want, rtol=1e-12, atol=1e-12 * float(want.abs().max()))


def through(mask: Tensor, y: Tensor, chosen: Callable[[Tensor], Tensor]) -> None:
    y[mask] = chosen(mask)


IN_PLACE: dict[str, Callable[[Tensor, Tensor], Any]] = {
    "column": lambda x, y: y[:, 0].copy_(2 * x[:, 1]),
    "fill": lambda x, y: y[:, 1].fill_(0.5),
    "slice": lambda x, y: y[..., 1:3].mul_(x[:, :2]),
    "strided slice": lambda x, y: y[:, ::2].add_(x[:, :2]),
    "transposed": lambda x, y: y.t()[0].add_(1.0),
    "whole": lambda x, y: y.mul_(x.sin()).sub_(1.0),
    "integer indices": lambda x, y: y.__setitem__((slice(None), [0, 2]), x[:, [1, 1]]),
    "clamped": lambda x, y: y[:, 1:].clamp_(-0.5, 0.5),
    "masked": lambda x, y: y.masked_fill_(y < 0, 0.25),
    "number by a mask": lambda x, y: y.__setitem__(y < 0, 0.25),
    "chosen by a mask": lambda x, y: through(x > 0, y, lambda m: x[m].exp() * x[m] + y[m].sin()),
    "scaled by a mask": lambda x, y: through(y < 0, y, lambda m: y[m].mul_(3.0)),
    "logarithm by a mask": lambda x, y: through(x > 0.1, y, lambda m: torch.log(x[m] - 0.1)),
    "sums by a mask": lambda x, y: y.add_(torch.stack([r[r > 0].square().sum() for r in x.unbind(0)]).unsqueeze(-1)),
    "index_add": lambda x, y: y.index_add_(1, torch.tensor([0, 2]), x[:, :2]),
}


@pytest.mark.parametrize("name", IN_PLACE)
def test_in_place_operations_on_intermediates(name: str) -> None:
    def energy(x: Tensor) -> Tensor:
        y = x * 1.5
        IN_PLACE[name](x, y)
        return (y * x.cos()).square().sum(-1)

    sampler = build(energy, dtype=torch.float64)
    x = points().double()
    state = sampler.run(sampler.init(x), 0).state
    program, _ = sampler._builds.get({}, len(x))
    _, traced, gradient, _ = program.init.batched()(x, torch.tensor(0), *program.init.constants([]))
    assert torch.allclose(traced, energy(x), rtol=1e-12)
    assert torch.allclose(gradient, state.carried[1], rtol=1e-12, atol=1e-12)


def test_constant_masks_are_indices_and_live() -> None:
    mask = torch.tensor([True, False, True])

    def energy(x: Tensor) -> Tensor:
        y = x * 1.0
        y[:, ~mask] = 0.5
        return x[:, mask].square().sum(-1) + 2.0 * y.pow(4).sum(-1)

    sampler = build(energy)
    state = assert_follows(sampler, energy, sampler.init(points()))
    mask.copy_(torch.tensor([False, True, True]))
    state = assert_follows(sampler, energy, state)
    mask.copy_(torch.tensor([False, False, True]))
    assert_follows(sampler, energy, state)
    assert builds(sampler) == 3  # a mask's values decide the shapes
    assert "mask" in sampler.explain()


# -- what is live ----------------------------------------------------------------------------------------------------


def assert_follows(sampler: ce.Sampler, energy: Callable[[Tensor], Tensor], state: ce.ChainState) -> ce.ChainState:
    """Traced program, carried energy and carried gradient are those of the energy as it is now."""
    x = state.positions.detach().clone().requires_grad_()
    want = energy(x)
    (gradient,) = torch.autograd.grad(want.sum(), x)
    assert torch.allclose(traced_energy(sampler, x.detach()), want.detach(), rtol=1e-5)
    assert torch.allclose(sampler.run(state, 0).state.energy, want.detach(), rtol=1e-5)
    moved = sampler.run(state, 1).state
    assert torch.allclose(moved.positions, x.detach() - DRIFT.step_size * gradient, rtol=1e-5, atol=1e-6)
    return moved


class Held(nn.Module):
    """Holds a tensor or a constant in every way that a module can."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 1)
        self.register_buffer("shift", torch.full((3,), 0.5))
        self.plain = torch.full((3,), 0.25)
        self.listed = [torch.full((3,), 0.1), torch.full((3,), -0.2)]
        self.options = {"scale": 1.0, "tensors": {"a": torch.ones(3)}}
        self.k = 1.0
        self.power: float | None = None

    def forward(self, x: Tensor) -> Tensor:
        y = x - self.shift - self.plain * self.listed[0] + self.listed[1] * self.options["tensors"]["a"]
        e = self.linear(y).squeeze(-1) + 0.5 * self.k * self.options["scale"] * y.square().sum(-1)
        return e if self.power is None else e + y.abs().pow(self.power).sum(-1)


def optimizer_step(m: Held) -> None:
    optimizer = torch.optim.SGD(m.parameters(), lr=0.5)
    (m(points()).mean() ** 2).backward()
    optimizer.step()
    optimizer.zero_grad()


def set_data(m: Held) -> None:
    m.linear.weight.data = torch.full((1, 3), 0.75)


def load_state(m: Held) -> None:
    m.load_state_dict({k: v + 1.0 for k, v in m.state_dict().items()})


IN_PLACE_CHANGES: dict[str, Callable[[Held], Any]] = {
    "optimizer step": optimizer_step,
    ".data set": set_data,
    "load_state_dict": load_state,
    "buffer": lambda m: m.shift.add_(1.0),
    "plain attribute": lambda m: m.plain.mul_(-3.0),
    "in a list": lambda m: m.listed[1].fill_(2.0),
    "in a nested dict": lambda m: m.options["tensors"]["a"].fill_(-2.0),
}


@functools.cache
def held() -> tuple[Held, ce.Sampler]:
    """One for all changes that must not rebuild."""
    energy = Held()
    return energy, build(energy)


@pytest.mark.parametrize("name", IN_PLACE_CHANGES)
def test_changed_in_place_is_live_without_a_rebuild(name: str) -> None:
    energy, sampler = held()
    state = assert_follows(sampler, energy, sampler.init(points()))
    before = state.energy.clone()
    IN_PLACE_CHANGES[name](energy)
    assert not torch.allclose(energy(state.positions).detach(), before)  # the change is one that shows
    assert_follows(sampler, energy, state)
    assert builds(sampler) == 1
    assert "rebuilt" not in sampler.explain()


def replace_parameter(m: Held) -> None:
    m.linear.weight = nn.Parameter(torch.full((1, 3), 2.0))


def replace_submodule(m: Held) -> None:
    m.linear = nn.Linear(3, 1)


def replace_list(m: Held) -> None:
    m.listed = [torch.full((3,), 3.0), torch.full((3,), -3.0)]


def set_k(m: Held) -> None:
    m.k = 2.0


def set_power(m: Held) -> None:
    m.power = 1.5


REPLACEMENTS: dict[str, tuple[Callable[[Held], Any], str]] = {
    "parameter": (replace_parameter, "weight"),
    "submodule": (replace_submodule, "linear"),
    "buffer": (lambda m: m.register_buffer("shift", torch.full((3,), 7.0)), "shift"),
    "plain attribute": (lambda m: setattr(m, "plain", torch.full((3,), 7.0)), "plain"),
    "list element": (lambda m: m.listed.__setitem__(0, torch.full((3,), 7.0)), "listed"),
    "list": (replace_list, "listed"),
    "dict element": (lambda m: m.options["tensors"].__setitem__("a", torch.full((3,), 7.0)), "tensors"),
    "constant": (set_k, "k 1.0 became 2.0"),
    "constant in a dict": (lambda m: m.options.__setitem__("scale", 3.0), "scale"),
    "None became a number": (set_power, "power"),
}


@pytest.mark.parametrize("name", REPLACEMENTS)
def test_replaced_rebuilds_once_and_is_reported(name: str) -> None:
    energy, (change, reported) = Held(), REPLACEMENTS[name]
    sampler = build(energy)
    state = assert_follows(sampler, energy, sampler.init(points()))
    assert "rebuilt" not in sampler.explain()
    change(energy)
    state = assert_follows(sampler, energy, state)
    assert builds(sampler) == 2
    reports = [line for line in sampler.explain().splitlines() if "rebuilt because" in line]
    assert len(reports) == 1 and reported in reports[0]
    assert_follows(sampler, energy, state)
    assert builds(sampler) == 2


class Growing(nn.Module):
    """Goes over whatever its containers hold."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(3, 3)])
        self.terms: list[Callable[[Tensor], Tensor]] = [torch.tanh]
        self.scales = {"first": 1.0}

    def forward(self, x: Tensor) -> Tensor:
        y = x
        for layer in self.layers:
            y = layer(y)
        total = y.square().sum(-1)
        for term in self.terms:
            total = total + term(x).square().sum(-1)
        return self.last(total * sum(self.scales.values()))

    def last(self, energy: Tensor) -> Tensor:
        return energy


def double_last(m: Growing) -> None:
    m.last = lambda energy: 2.0 * energy  # type: ignore[method-assign]


GROWTH: dict[str, tuple[Callable[[Growing], Any], str]] = {
    "a layer in a ModuleList": (lambda m: m.layers.append(nn.Linear(3, 3)), "layers"),
    "a term in a list": (lambda m: m.terms.append(torch.sin), "terms"),
    "a term less": (lambda m: m.terms.clear(), "terms"),
    "an entry in a dict": (lambda m: m.scales.__setitem__("second", 2.0), "scales"),
    "a method of the instance": (double_last, "__dict__"),
    "a forward hook": (lambda m: m.layers[0].register_forward_hook(lambda _, __, out: out + 1.0), "_forward_hooks"),
    "a forward pre-hook": (
        lambda m: m.layers[0].register_forward_pre_hook(lambda _, given: (given[0] * 2.0,)),
        "_forward_pre_hooks",
    ),
}


@pytest.mark.parametrize("name", GROWTH)
def test_a_changed_structure_rebuilds_once(name: str) -> None:
    energy, (change, reported) = Growing(), GROWTH[name]
    sampler = build(energy)
    state = assert_follows(sampler, energy, sampler.init(points()))
    change(energy)
    state = assert_follows(sampler, energy, state)
    assert builds(sampler) == 2 and reported in sampler.explain()
    assert_follows(sampler, energy, state)
    assert builds(sampler) == 2


def test_a_method_of_the_class_replaced_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    energy = Growing()
    sampler = build(energy)
    state = assert_follows(sampler, energy, sampler.init(points()))
    monkeypatch.setattr(Growing, "last", lambda self, energy: 3.0 * energy)
    assert_follows(sampler, energy, state)
    assert builds(sampler) == 2


class Slotted:
    __slots__ = ("k", "matrix")

    def __init__(self) -> None:
        self.matrix, self.k = torch.eye(3), 1.0

    def __call__(self, x: Tensor) -> Tensor:
        return self.k * (x @ self.matrix).square().sum(-1)


def test_slots_are_seen() -> None:
    energy = Slotted()
    sampler = build(energy)
    state = assert_follows(sampler, energy, sampler.init(points()))
    energy.matrix.mul_(2.0)
    state = assert_follows(sampler, energy, state)
    assert builds(sampler) == 1
    energy.k = 2.0
    state = assert_follows(sampler, energy, state)
    assert builds(sampler) == 2
    energy.matrix = torch.full((3, 3), 0.5)
    assert_follows(sampler, energy, state)
    assert builds(sampler) == 3
    assert build(energy, dtype=torch.float64).init(points()).positions.dtype == torch.float64
    assert energy.matrix.dtype == torch.float32


CONFIG = types.ModuleType("config_of_the_user")
CONFIG.SCALE, CONFIG.MATRIX = 1.0, torch.eye(3)  # type: ignore[attr-defined]


def uses_a_module(x: Tensor) -> Tensor:
    scaled: Tensor = CONFIG.SCALE * (x @ CONFIG.MATRIX).square().sum(-1)
    return scaled


def test_what_a_module_of_the_user_holds_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    sampler = build(uses_a_module)
    state = assert_follows(sampler, uses_a_module, sampler.init(points()))
    CONFIG.MATRIX.mul_(1.25)
    state = assert_follows(sampler, uses_a_module, state)
    assert builds(sampler) == 1
    monkeypatch.setattr(CONFIG, "SCALE", 3.0)
    assert_follows(sampler, uses_a_module, state)
    assert builds(sampler) == 2


def test_retyped_parameters_rebuild() -> None:
    energy = Held()
    sampler = build(energy)
    state = sampler.run(sampler.init(points()), 1).state
    energy.to(torch.float64)
    moved = sampler.run(state, 1).state
    assert builds(sampler) == 2 and "now torch.float64" in sampler.explain()
    assert moved.x.dtype == torch.float32
    with torch.no_grad():
        assert torch.allclose(moved.energy, energy(moved.positions.double()).float(), rtol=1e-5)
    sampler.run(moved, 1)
    assert builds(sampler) == 2


def test_a_changed_shape_rebuilds() -> None:
    weights = nn.Parameter(torch.ones(3, 2))

    def energy(x: Tensor) -> Tensor:
        return (x @ weights).square().sum(-1)

    sampler = build(energy)
    state = assert_follows(sampler, energy, sampler.init(points()))
    weights.data = torch.ones(3, 5)
    assert_follows(sampler, energy, state)
    assert builds(sampler) == 2


GLOBAL_MATRIX = torch.eye(3)
GLOBAL_FACTOR = 1.0


def uses_globals(x: Tensor) -> Tensor:
    return GLOBAL_FACTOR * (x @ GLOBAL_MATRIX).square().sum(-1)


def test_globals_are_live(monkeypatch: pytest.MonkeyPatch) -> None:
    sampler = build(uses_globals)
    state = assert_follows(sampler, uses_globals, sampler.init(points()))
    monkeypatch.setitem(uses_globals.__globals__, "GLOBAL_MATRIX", 2 * torch.eye(3))
    state = assert_follows(sampler, uses_globals, state)
    assert builds(sampler) == 2
    uses_globals.__globals__["GLOBAL_MATRIX"].mul_(-1.5)
    state = assert_follows(sampler, uses_globals, state)
    assert builds(sampler) == 2
    monkeypatch.setitem(uses_globals.__globals__, "GLOBAL_FACTOR", 0.5)
    assert_follows(sampler, uses_globals, state)
    assert builds(sampler) == 3


def test_closures_are_live() -> None:
    matrix, factor = torch.eye(3), 1.0

    def inner(y: Tensor) -> Tensor:
        return factor * y.square().sum(-1)

    def energy(x: Tensor) -> Tensor:
        return inner(x @ matrix)

    sampler = build(energy)
    state = assert_follows(sampler, energy, sampler.init(points()))
    matrix.add_(0.5)
    state = assert_follows(sampler, energy, state)
    assert builds(sampler) == 1
    matrix = torch.full((3, 3), 0.3)
    state = assert_follows(sampler, energy, state)
    assert builds(sampler) == 2 and "matrix replaced" in sampler.explain()
    factor = 2.0
    state = assert_follows(sampler, energy, state)
    assert builds(sampler) == 3 and "factor 1.0 became 2.0" in sampler.explain()


def test_a_rebound_function_is_noticed() -> None:
    activation = torch.tanh

    def energy(x: Tensor) -> Tensor:
        return activation(x).square().sum(-1) + 0.1 * x.square().sum(-1)

    sampler = build(energy)
    state = assert_follows(sampler, energy, sampler.init(points()))
    activation = torch.sin
    assert_follows(sampler, energy, state)
    assert builds(sampler) == 2


class Plain:
    """A plain object: callable, or with a method that is the energy."""

    def __init__(self) -> None:
        self.matrix = torch.eye(3)
        self.k = 1.0

    def method(self, x: Tensor) -> Tensor:
        return self.k * (x @ self.matrix).square().sum(-1)

    __call__ = method


def quadratic(matrix: Tensor, x: Tensor, *, shift: Tensor) -> Tensor:
    return (x @ matrix - shift).square().sum(-1)


DEFAULT = torch.eye(3) * 1.5


def with_defaults(x: Tensor, matrix: Tensor = DEFAULT) -> Tensor:
    return (x @ matrix).square().sum(-1)


def holders() -> dict[str, tuple[Callable[[Tensor], Tensor], Tensor]]:
    plain = Plain()
    partial = functools.partial(quadratic, torch.eye(3), shift=torch.ones(3))
    in_tuple = (torch.eye(3), torch.ones(3))
    return {
        "object": (plain, plain.matrix),
        "bound method": (plain.method, plain.matrix),
        "partial, positional": (partial, partial.args[0]),
        "partial, keyword": (partial, partial.keywords["shift"]),
        "tuple": (lambda x: (x @ in_tuple[0]).square().sum(-1), in_tuple[0]),
        "default argument": (with_defaults, with_defaults.__defaults__[0]),
        "nested function": (functools.partial(lambda f, x: f(x), plain.method), plain.matrix),
    }


@pytest.mark.parametrize("name", holders())
def test_tensors_are_live_wherever_they_are_held(name: str) -> None:
    energy, tensor = holders()[name]
    sampler = build(energy)
    state = assert_follows(sampler, energy, sampler.init(points()))
    tensor.mul_(1.5).add_(0.1)
    assert_follows(sampler, energy, state)
    assert builds(sampler) == 1


@pytest.mark.parametrize("name", holders())
def test_tensors_are_cast_wherever_they_are_held(name: str) -> None:
    """A float64 sampler of a float32 energy: as a module's parameters are, so is what a function holds."""
    energy, tensor = holders()[name]
    sampler = build(energy, dtype=torch.float64)
    x = points()
    state = sampler.run(sampler.init(x), 0).state
    assert torch.allclose(state.energy, energy(x).double(), rtol=1e-5)
    assert tensor.dtype == torch.float32


def test_a_constant_of_a_plain_object_rebuilds() -> None:
    energy = Plain()
    sampler = build(energy.method)
    state = assert_follows(sampler, energy, sampler.init(points()))
    energy.k = 3.0
    assert_follows(sampler, energy, state)
    assert builds(sampler) == 2


# -- counters and other state of the energy --------------------------------------------------------------------------


class Counting(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.calls = 0
        self.weight = nn.Parameter(torch.ones(3))

    def forward(self, x: Tensor, y: Tensor | float = 0.0) -> Tensor:
        self.calls += 1
        return (x * self.weight).square().sum(-1) + y


@pytest.mark.parametrize("per_chain", [False, True], ids=["alone", "with per-chain kwargs"])
def test_a_counter_in_forward_does_not_rebuild(per_chain: bool) -> None:
    energy = Counting()
    kwargs = {"y": torch.arange(16.0)} if per_chain else None
    sampler = build(energy, model_kwargs=kwargs)
    state = sampler.init(points())
    counted = energy.calls
    for _ in range(4):
        state = sampler.run(state, 2, model_kwargs=kwargs).state
    assert energy.calls > counted  # the control: the counter did change
    assert builds(sampler) == 1
    assert "rebuilt" not in sampler.explain()


class Epochs:
    """A number that first does not matter, then does: a curriculum."""

    def __init__(self) -> None:
        self.epoch = 0

    def __call__(self, x: Tensor) -> Tensor:
        return x.square().sum(-1) * max(1.0, float(self.epoch - 1))


def test_a_number_that_matters_later_is_noticed_then() -> None:
    energy = Epochs()
    sampler = build(energy)
    state = sampler.init(points())
    for epoch, expected in enumerate([1, 1, 1, 2, 3]):
        energy.epoch = epoch
        state = assert_follows(sampler, energy, state)
        assert builds(sampler) == expected


class Mutating(nn.Module):
    """Keeps statistics of what it is called with, as normalisation layers do."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))
        self.register_buffer("largest", torch.zeros(3))

    def forward(self, x: Tensor) -> Tensor:
        self.calls.add_(1)
        self.largest.copy_(torch.maximum(self.largest, x.detach().abs().amax(0)))
        return x.square().sum(-1)


def test_buffers_that_the_energy_changes_are_left_alone() -> None:
    energy = Mutating()
    sampler = build(energy, backend="inductor")
    assert float(energy.calls) == 0 and not energy.largest.any()
    assert "changes Mutating.calls in place" in sampler.explain()
    sampler = build(energy)
    assert float(energy.calls) == 0 and not energy.largest.any()
    result = sampler.run(sampler.init(points()), 3)
    assert torch.allclose(result.state.energy, result.state.x.square().sum(-1), rtol=1e-6)
    assert float(energy.calls) == 0 and not energy.largest.any()
    assert "changes Mutating.calls in place" in sampler.explain()


def test_training_beside_sampling_leaves_gradients_alone() -> None:
    energy = Held()
    energy(points()).sum().backward()
    before = {name: p.grad.clone() for name, p in energy.named_parameters()}
    sampler = build(energy)
    x0 = points().requires_grad_()
    state = sampler.run(sampler.init(x0), 3).state
    assert not state.x.requires_grad and state.x.grad_fn is None and x0.grad is None
    for name, p in energy.named_parameters():
        assert p.requires_grad and torch.equal(p.grad, before[name])
    energy.requires_grad_(False)
    frozen = sampler.run(sampler.init(x0), 3).state
    assert same_state(state, frozen) and builds(sampler) == 1


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode], ids=["no_grad", "inference_mode"])
def test_inside_and_outside_grad_modes_alike(mode: Callable[[], Any]) -> None:
    energy = ce.MLPModel(3, (8,), seed=0)
    outside = build(energy)
    want = outside.run(outside.init(points()), 4).state
    with mode():
        inside = build(energy)
        got = inside.run(inside.init(points()), 2).state
        halves = outside.run(outside.init(points()), 2).state
    assert same_state(inside.run(got, 2).state, want)
    assert same_state(outside.run(halves, 2).state, want)


def test_an_own_gradient_may_use_autograd() -> None:
    """A user's ``gradient`` written the plain way, without ``enable_grad`` around it."""

    def gradient(x: Tensor) -> Tensor:
        x = x.detach().requires_grad_()
        return torch.autograd.grad(x.pow(4).sum(), x)[0]

    energy = WrongGradient(gradient)
    x = points()
    for context in (torch.enable_grad, torch.no_grad):
        with context():
            sampler = build(energy)
            moved = sampler.run(sampler.init(x), 1).state.positions
        assert torch.allclose(moved, x - DRIFT.step_size * 4 * x.pow(3), rtol=1e-5, atol=1e-6)


# -- model_kwargs ----------------------------------------------------------------------------------------------------


def conditional(x: Tensor, centre: Tensor, weight: Tensor | None = None, power: float = 2.0) -> Tensor:
    e = (x - centre).abs().pow(power)
    return (e if weight is None else e * weight).sum(-1)


def test_kwargs_per_chain_and_shared() -> None:
    x, centres, weight = points(6), points(6, seed=8), torch.tensor([1.0, 2.0, 3.0])
    kwargs = {"centre": centres, "weight": weight}
    sampler = build(conditional, model_kwargs=kwargs)
    state = sampler.run(sampler.init(x), 1).state
    assert torch.allclose(state.positions, x - 0.05 * 2 * weight * (x - centres), atol=1e-6)
    assert torch.allclose(traced_energy(sampler, x, kwargs), conditional(x, **kwargs))
    for i in range(6):  # every chain its own centre, the weight for all of them
        alone = sampler.run(
            sampler.init(x[i : i + 1]), 1, model_kwargs={"centre": centres[i : i + 1], "weight": weight}
        )
        assert torch.allclose(alone.state.positions[0], state.positions[i], atol=1e-6)
    shared = {"centre": torch.ones(3), "weight": weight}
    together = sampler.run(sampler.init(x), 1, model_kwargs=shared).state
    assert torch.allclose(together.positions, x - 0.05 * 2 * weight * (x - 1.0), atol=1e-6)


def test_kwargs_are_live_and_refresh_what_the_state_carries() -> None:
    x = points(6)
    sampler = build(conditional, model_kwargs={"centre": torch.zeros(6, 3)})
    state = sampler.run(sampler.init(x), 1).state
    for kwargs in (
        {"centre": points(6, seed=9)},
        {"centre": points(6, seed=10)},
        {"centre": torch.full((3,), 2.0)},
        {"centre": torch.zeros(6, 3), "power": 4.0},
        {"centre": torch.zeros(6, 3), "power": 3.0},
        {"centre": torch.zeros(6, 3)},
    ):
        before = state.positions
        kept = sampler.run(state, 0, model_kwargs=kwargs).state
        assert torch.allclose(kept.energy, conditional(before, **kwargs), rtol=1e-5)
        moved = sampler.run(state, 1, model_kwargs=kwargs).state
        want = before.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(conditional(want, **kwargs).sum(), want)
        assert torch.allclose(moved.positions, before - 0.05 * gradient, atol=1e-5)
        state = moved
    assert builds(sampler) == 4  # per chain, shared, and one for each other power


def test_integer_labels_choose_by_chain() -> None:
    table = nn.Embedding(4, 3)

    def energy(x: Tensor, y: Tensor) -> Tensor:
        return (x - table(y)).square().sum(-1)

    x, y = points(8), torch.arange(8) % 4
    sampler = build(energy, model_kwargs={"y": y}, dtype=torch.float64)
    state = sampler.run(sampler.init(x), 1).state
    with torch.no_grad():
        want = x - 0.05 * 2 * (x - table(y))
    assert torch.allclose(state.x.float(), want, atol=1e-6)
    assert torch.allclose(traced_energy(sampler, x, {"y": y}).float(), energy(x, y).detach(), rtol=1e-6)


@pytest.mark.parametrize("backend", ["eager", "auto"])
@pytest.mark.parametrize("late", [False, True], ids=["in the probe", "after the probe"])
def test_a_label_out_of_range_is_told_by_name(backend: str, late: bool) -> None:
    centres = torch.nn.Embedding(5, 3)
    y = torch.zeros(30, dtype=torch.int64)
    y[25 if late else 2] = 7
    good = {"y": y.clamp(max=4), "weight": 2.0}

    def energy(x: Tensor, y: Tensor, weight: float) -> Tensor:
        return weight * (x - centres(y)).square().sum(-1)

    sampler = build(energy, backend=backend, model_kwargs={"y": y, "weight": 2.0})
    state = sampler.init(n_chains=30, seed=0)
    told = r"IndexError.*model_kwargs for 30 chains: y \[30\] int64 from 0 to 7 \(per chain\); weight=2.0"
    with pytest.raises(ce.UnsupportedEnergyError, match=told):
        sampler.run(state, 1)
    went_on = sampler.run(state, 1, model_kwargs=good).state
    with pytest.raises(ce.UnsupportedEnergyError, match=told):
        sampler.run(state, 1)
    assert torch.equal(sampler.run(state, 1, model_kwargs=good).state.positions, went_on.positions)


@pytest.mark.parametrize("shape", [(9,), (9, 1), (11,)])
def test_kwargs_with_the_wrong_first_dimension_are_told_by_name(shape: tuple[int, ...]) -> None:
    kwargs = {"y": torch.ones(shape), "scale": torch.ones(10)}
    sampler = build(lambda x, y, scale: scale * x.square().sum(-1) * y, model_kwargs=kwargs)
    told = (
        rf"model_kwargs for 10 chains: y \[{', '.join(map(str, shape))}\] float32 \(shared by all chains, as "
        rf"{shape[0]} is not 10\); scale \[10\] float32 \(per chain\)"
    )
    with pytest.raises(ce.UnsupportedEnergyError, match=told):
        sampler.run(sampler.init(n_chains=10), 1)


def test_kwargs_with_the_wrong_names_are_refused() -> None:
    sampler = build(conditional, model_kwargs={"centre": torch.zeros(3)})
    with pytest.raises(ce.UnsupportedEnergyError, match="unexpected keyword argument 'center'"):
        sampler.run(sampler.init(points()), 1, model_kwargs={"center": torch.zeros(3)})
    with pytest.raises(TypeError, match="model_kwargs: expected a mapping"):
        sampler.run(sampler.init(points()), 1, model_kwargs=3)


# -- states and samplers ---------------------------------------------------------------------------------------------


def test_a_state_of_another_sampler_is_evaluated_afresh() -> None:
    """Annealing from one energy to the next, none of which holds a tensor."""
    first, second = build(lambda x: x.square().sum(-1)), build(lambda x: x.pow(4).sum(-1))
    state = first.run(first.init(points()), 1).state
    assert torch.allclose(second.run(state, 0).state.energy, state.positions.pow(4).sum(-1), rtol=1e-5)
    moved = second.run(state, 1).state.positions
    assert torch.allclose(moved, state.positions - 0.05 * 4 * state.positions.pow(3), atol=1e-5)


def test_the_transition_may_change_values_but_not_structure() -> None:
    sampler = build(lambda x: x.square().sum(-1))
    x = points()
    sampler.transition = ce.Langevin(step_size=0.1, noise_scale=0.0)
    assert torch.allclose(sampler.run(sampler.init(x), 1).state.positions, 0.8 * x, rtol=1e-6)
    assert builds(sampler) == 1
    with pytest.raises(ValueError, match="transition: expected one that differs"):
        sampler.transition = ce.Langevin(step_size=0.1, clamp=(-1, 1))


def test_compute_dtype_is_what_the_energy_sees() -> None:
    seen: list[torch.dtype] = []

    class Spy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.full((3,), 1 / 3))

        def forward(self, x: Tensor) -> Tensor:
            seen.extend([x.dtype, self.weight.dtype])
            return (x * self.weight).square().sum(-1)

    energy = Spy()
    for dtype, compute, expected in (
        (torch.float32, None, torch.float32),
        (torch.float32, torch.float64, torch.float64),
        (torch.float32, torch.bfloat16, torch.bfloat16),
        (torch.bfloat16, None, torch.bfloat16),
        (torch.float16, torch.float32, torch.float32),
    ):
        seen.clear()
        sampler = build(energy, dtype=dtype, compute_dtype=compute)
        state = sampler.run(sampler.init(points()), 1).state
        assert set(seen) == {expected}
        assert state.x.dtype == dtype and state.positions.dtype == torch.float32
        assert state.energy.dtype == torch.float32
    assert energy.weight.dtype == torch.float32


def test_first_positions_do_not_depend_on_the_energy_or_backend() -> None:
    sampler, other = build(lambda x: x.square().sum(-1)), build(lambda x: x.pow(4).sum(-1))
    a, b = sampler.init(n_chains=1000, seed=7), other.init(n_chains=600, seed=7, first_chain=400)
    assert same_bits(a.positions[400:], b.positions)
    assert abs(float(a.positions.mean())) < 5 / math.sqrt(3000)
    assert abs(float(a.positions.var()) - 1) < 5 * math.sqrt(2 / 3000)
    assert not torch.equal(a.positions, sampler.init(n_chains=1000, seed=8).positions)


# -- the user's own objects -------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_build_in_another_thread_touches_nothing() -> None:
    """The energy's tensors are cast for a bfloat16 sampler while a float32 one, and the user, work with them."""
    weight = torch.full((3,), 1 / 3)

    def energy(x: Tensor) -> Tensor:
        return (weight * x * x).sum(-1)

    sampler = build(energy, backend="eager")
    state = sampler.init(points())
    want, stop, seen = sampler.run(state, 100).state, threading.Event(), set()

    def others() -> None:
        while not stop.is_set():
            build(energy, backend="eager", dtype=torch.bfloat16)

    worker = threading.Thread(target=others)
    worker.start()
    try:
        for _ in range(5):
            seen.add(weight.dtype)
            assert torch.equal(sampler.run(state, 100).state.positions, want.positions)
    finally:
        stop.set()
        worker.join()
    assert seen == {torch.float32}


def test_refusals_without_an_operation_name_the_energy() -> None:
    def coupled_without_a_name(x: Tensor) -> Tensor:
        return (x - x.mean(0)).square().sum(-1)

    with pytest.raises(ce.UnsupportedEnergyError, match=r"test_trace\.py:\d+, in coupled_without_a_name"):
        build(coupled_without_a_name)


@pytest.mark.parametrize("backend", [pytest.param("eager", marks=pytest.mark.slow), "fused"])
def test_what_torch_compile_has_wrapped_is_an_energy(backend: str) -> None:
    matrix = torch.eye(3)

    def plain(x: Tensor) -> Tensor:
        return (x @ matrix).square().sum(-1)

    module = Growing()
    for compiled, energy in ((torch.compile(plain), plain), (torch.compile(module), module)):
        sampler, reference = build(compiled, backend=backend), build(energy, backend="eager")
        got, want = (s.run(s.init(points()), 3).state.positions for s in (sampler, reference))
        assert torch.allclose(got, want, atol=1e-6)
    sampler = build(torch.compile(plain), backend=backend)
    before = sampler.run(sampler.init(points()), 0).state.energy
    matrix.mul_(2.0)
    assert torch.allclose(sampler.run(sampler.init(points()), 0).state.energy, 4 * before, rtol=1e-5)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_scripted_modules_are_refused_by_name() -> None:
    scripted = torch.jit.trace(nn.Sequential(nn.Linear(3, 1), nn.Flatten(0)), torch.randn(4, 3))
    with pytest.raises(ce.UnsupportedEnergyError, match=r"torch\.jit.*pass the module"):
        build(scripted)


def test_modules_are_found_however_deep_they_are_nested() -> None:
    inner = nn.Linear(3, 1)
    net: nn.Module = inner
    for _ in range(20):
        net = nn.Sequential(net)
    sampler = build(lambda x: net(x).squeeze(-1) + x.square().sum(-1), dtype=torch.float64)
    before = sampler.run(sampler.init(points()), 0).state.energy
    inner.bias = nn.Parameter(inner.bias.detach() + 2)
    assert torch.allclose(sampler.run(sampler.init(points()), 0).state.energy, before + 2)


@pytest.mark.parametrize("backend", ["eager", "fused"])
def test_a_mask_that_chooses_little_after_a_step_downhill(backend: str) -> None:
    def energy(x: Tensor) -> Tensor:
        y = x.clone()
        mask = y > 0.3
        y[mask] = y[mask].exp()
        return y.square().sum(-1) + x.square().sum(-1)

    sampler = ce.build_sampler(energy, ce.Langevin(0.05), (5,), backend=backend)
    x = torch.randn(16, 5, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(sampler.run(sampler.init(x), 0).state.energy, energy(x))


@pytest.mark.parametrize("backend", ["eager", "fused"])
def test_autocast_around_a_build_or_a_run_changes_nothing(backend: str) -> None:
    net = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 1))

    def energy(x: Tensor) -> Tensor:
        return net(x).squeeze(-1) + x.square().sum(-1)

    sampler = build(energy, backend=backend)
    state = sampler.init(points())
    want = sampler.run(state, 3).state.positions
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(sampler.run(state, 3).state.positions, want)
        other = build(energy, backend=backend)
    assert torch.equal(other.run(state, 3).state.positions, want)


@pytest.mark.parametrize("backend", ["eager", "fused"])
def test_forward_mode_makes_zeros_that_torch_keeps_no_memory_for(backend: str) -> None:
    def energy(x: Tensor) -> Tensor:
        curvature = torch.func.vmap(torch.func.hessian(lambda row: row.pow(4).sum()))(x)
        return curvature.diagonal(dim1=-2, dim2=-1).sum(-1)

    sampler = build(energy, backend=backend)
    found = sampler.run(sampler.init(points()), 0).state.energy
    assert torch.allclose(found, 12 * points().square().sum(-1))


def test_positions_beyond_the_range_of_half_precision_are_told() -> None:
    sampler = ce.build_sampler(
        lambda x: -x.sum(-1), ce.Langevin(1000.0), (2,), dtype=torch.float16, compute_dtype=torch.float32
    )
    with pytest.warns(ce.NonFiniteChainWarning, match="beyond the range of torch.float16"):
        sampler.run(sampler.init(n_chains=5), 100)
