"""The energies that the backends are tested on, and what the tests of several files share."""

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import compiled_ebm as ce
from compiled_ebm import rng

SEED = 1234


def fixed(*shape: int, seed: int = 0, scale: float = 1.0) -> Tensor:
    """Normal float32 numbers that depend on the arguments alone: torch's own differ between processors by rounding."""
    drawn = torch.randn(*shape, generator=torch.Generator().manual_seed(seed))
    return scale * (1024 * drawn).round() / 1024


def seeded(make: Callable[[], nn.Module], seed: int = 0) -> nn.Module:
    """The module in eval mode, its weights drawn from a fixed seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return make().eval()


class Squeezed(nn.Module):
    """E(x) = net(x) + |x|^2 / 2, the net's last layer one unit wide."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x).squeeze(-1) + 0.5 * x.flatten(1).square().sum(-1)


def silu_mlp() -> nn.Module:
    return Squeezed(nn.Sequential(nn.Linear(8, 32), nn.SiLU(), nn.Linear(32, 16), nn.SiLU(), nn.Linear(16, 1)))


def conv_net() -> nn.Module:
    return Squeezed(nn.Sequential(nn.Conv2d(1, 4, 3, stride=2), nn.Softplus(), nn.Flatten(), nn.Linear(36, 1)))


def layer_norm() -> nn.Module:
    return Squeezed(nn.Sequential(nn.Linear(4, 16), nn.LayerNorm(16), nn.GELU(), nn.Linear(16, 1)))


class Attention(nn.Module):
    """Tokens that attend to each other through ``nn.MultiheadAttention``."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        seen, _ = self.attention(x, x, x, need_weights=False)
        return (seen * x).sum((1, 2)) + 0.5 * x.square().sum((1, 2))


def causal_attention(x: Tensor) -> Tensor:
    """``scaled_dot_product_attention`` itself."""
    return F.scaled_dot_product_attention(x, 2 * x, x, is_causal=True).square().sum((1, 2)) + x.square().sum((1, 2))


def no_batching_rule(x: Tensor) -> Tensor:
    """``histc`` cannot be mapped over chains (torch 2.13); it changes nothing here."""
    return x.square().sum(-1) + 0.0 * torch.histc(x.detach(), 4).sum()


def in_place(x: Tensor) -> Tensor:
    y = x * 1.0
    y[:, 0] = y[:, 0] * 2.0
    y[..., 1:3].mul_(0.5).add_(x[..., :2])
    y += x.sin()
    total = torch.zeros_like(x[:, 0])
    for i in range(x.shape[1]):
        total += y[:, i].square()
    return total


BONDS = torch.tensor([[0, 1], [2, 3], [5, 7], [5, 6]])


def lattice(x: Tensor) -> Tensor:
    """phi^4 on a 2x4 torus with extra bonds between some sites, by roll, flip and integer indices with repeats."""
    hops = (x - x.roll(1, 2)).square() + (x * x.flip(1)).sin()
    sites = x.flatten(1)
    bonds = sites[:, BONDS[:, 0]] * sites[:, BONDS[:, 1]]
    return (0.5 * hops + 0.25 * x.pow(4)).sum((1, 2)) + 0.3 * bonds.sum(-1) + x[:, 1:, ::2].cos().sum((1, 2))


GLOBAL_SHIFT = torch.tensor([0.1, -0.2, 0.3, 0.5])


def closure() -> Callable[[Tensor], Tensor]:
    matrix, held = fixed(4, 4, seed=6, scale=0.3), {"bias": [fixed(4, seed=7)]}

    def energy(x: Tensor) -> Tensor:
        hidden = torch.tanh(x @ matrix + held["bias"][0])
        return (hidden - GLOBAL_SHIFT).square().sum(-1) + 0.5 * x.square().sum(-1)

    return energy


class OwnGradient(nn.Module):
    """Its ``gradient`` is not that of its energy, so that a backend which does not use it is found out."""

    def __init__(self) -> None:
        super().__init__()
        self.centre = nn.Parameter(torch.tensor([0.5, -0.5, 1.0, 0.0]))

    def forward(self, x: Tensor) -> Tensor:
        return 0.5 * (x - self.centre).square().sum(-1)

    def gradient(self, x: Tensor) -> Tensor:
        return 3.0 * torch.tanh(x - self.centre)


class CubicOldStyle(torch.autograd.Function):
    """sum |x|^3 with a gradient half as long as the true one; forward and context in one."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.abs().pow(3).sum(-1)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return grad.unsqueeze(-1) * 1.5 * x * x.abs()


class CubicNewStyle(torch.autograd.Function):
    """The same, with ``setup_context``."""

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return x.abs().pow(3).sum(-1)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return grad.unsqueeze(-1) * 1.5 * x * x.abs()


def potential(x: Tensor) -> Tensor:
    return x.cos().sum(-1) + 0.25 * x.square().sum(-1).square()


def squared_score(x: Tensor) -> Tensor:
    """|grad u|^2 / 2 + u, the inner gradient by ``torch.autograd.grad``."""
    with torch.enable_grad():
        inner = x if x.requires_grad else x.detach().requires_grad_()
        u = potential(inner)
        (score,) = torch.autograd.grad(u.sum(), inner, create_graph=True)
        return 0.5 * score.square().sum(-1) + u


def squared_score_functional(x: Tensor) -> Tensor:
    """The same by ``torch.func``, with the trace of the Hessian in it."""
    u = torch.func.vmap(torch.func.grad(lambda row: potential(row.unsqueeze(0)).squeeze(0)))(x)
    return 0.5 * u.square().sum(-1) + potential(x)


def scalar_chain(x: Tensor) -> Tensor:
    return 0.25 * x.pow(4) - x.square() + 0.3 * x


def gaussian() -> ce.GaussianModel:
    root = fixed(4, 4, seed=8, scale=0.5)
    return ce.GaussianModel(fixed(4, seed=9), root @ root.T + torch.eye(4))


def mixture() -> ce.GaussianMixtureModel:
    return ce.GaussianMixtureModel([[-2.0, 0.0], [1.0, 3.0], [2.0, -1.0]], scales=[0.7, 1.0, 1.5], weights=[1, 2, 5])


@dataclass(frozen=True)
class Case:
    """An energy, the shape of one chain, and a step size at which ten steps amplify no rounding error."""

    name: str
    make: Callable[[], Callable[[Tensor], Tensor]]
    event: tuple[int, ...]
    step_size: float

    def x0(self, n: int) -> Tensor:
        """``[n, *event]`` normal positions, float32; row i does not depend on n."""
        numel = max(1, math.prod(self.event))
        zero = torch.tensor(0)
        return rng.normals(torch.tensor(99), zero, torch.arange(n), numel, 77).reshape(n, *self.event)


# Few different event sizes: the noise of one size is compiled once for all energies.
CASES = [
    Case("harmonic", ce.HarmonicModel, (2,), 0.01),
    Case("gaussian", gaussian, (4,), 0.01),
    Case("double-well", ce.DoubleWellModel, (2,), 2e-3),
    Case("rosenbrock", lambda: ce.RosenbrockModel(1.0, 10.0), (4,), 1e-4),
    Case("rastrigin", ce.RastriginModel, (4,), 1e-4),
    Case("mixture", mixture, (2,), 0.01),
    Case("funnel", lambda: ce.FunnelModel(dim=4), (4,), 1e-3),
    Case("mlp", lambda: ce.MLPModel(2, (64,), seed=5), (2,), 0.01),
    Case("mlp-silu", lambda: seeded(silu_mlp, 1), (8,), 0.01),
    Case("conv", lambda: seeded(conv_net, 2), (1, 8, 8), 0.01),
    Case("layer-norm", lambda: seeded(layer_norm, 3), (4,), 0.01),
    Case("attention", lambda: seeded(Attention, 4), (2, 4), 0.01),
    Case("in-place", lambda: in_place, (4,), 5e-3),
    Case("lattice", lambda: lattice, (2, 4), 5e-3),
    Case("closure", closure, (4,), 0.01),
    Case("own-gradient", OwnGradient, (4,), 0.01),
    Case("function-old-style", lambda: lambda x: CubicOldStyle.apply(x), (4,), 0.01),
    Case("function-new-style", lambda: lambda x: CubicNewStyle.apply(x), (4,), 0.01),
    Case("squared-score", lambda: squared_score, (2,), 2e-3),
    Case("squared-score-functional", lambda: squared_score_functional, (2,), 2e-3),
    Case("scalar-chain", lambda: scalar_chain, (), 0.01),
]
BY_NAME = {case.name: case for case in CASES}
EVERYDAY = (
    "mlp",
    "double-well",
    "mixture",
    "lattice",
    "attention",
    "in-place",
    "own-gradient",
    "squared-score",
    "scalar-chain",
)
"""One of each kind: what is tested without the slow tests too."""


def case_params(quick: tuple[str, ...] = EVERYDAY) -> list[Any]:
    """All cases, those not named in ``quick`` marked slow."""
    return [pytest.param(c, id=c.name, marks=() if c.name in quick else pytest.mark.slow) for c in CASES]


DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)


def carry_of(dtype: torch.dtype) -> torch.dtype:
    """The dtype in which a sampler of this dtype carries positions."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def sampler_of(case: Case, backend: str, dtype: torch.dtype = torch.float32, **options: Any) -> ce.Sampler:
    """A Langevin sampler of the case; ``options`` are Langevin's."""
    options.setdefault("step_size", case.step_size)
    return ce.build_sampler(case.make(), ce.Langevin(**options), case.event, backend=backend, dtype=dtype)


@functools.cache
def shared_sampler(name: str, backend: str, dtype: torch.dtype = torch.float32) -> ce.Sampler:
    """One sampler for all tests of all files that only run it, so that it is traced and compiled once."""
    return sampler_of(BY_NAME[name], backend, dtype)


def builds(sampler: ce.Sampler) -> int:
    """How often the sampler was traced."""
    return sampler._builds.count


def noise(seed: int, step: int, ids: Tensor, event: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """The normals of one step of these chains, ``[n, *event]``."""
    numel = max(1, math.prod(event))
    z = rng.normals(torch.tensor(seed), torch.tensor(step), ids, numel, dtype=dtype)
    return z.reshape(len(ids), *event)


class Reference:
    """Langevin written down by hand, in float64, with the float32 noise of the sampler under test where it has such.

    After :meth:`run`, ``x`` holds the positions and ``work`` the largest sum over steps of |step_size * gradient| that
    any element has seen: what rounding errors of the gradient are relative to.
    """

    def __init__(self, case: Case, noise_dtype: torch.dtype = torch.float64) -> None:
        self.case = case
        self.energy = case.make()
        if isinstance(self.energy, nn.Module):
            self.energy.double()
        self.noise_dtype = noise_dtype
        self.gradient_factor = 1.0
        self.work = 0.0
        self.x = torch.empty(0)

    def gradient(self, x: Tensor) -> Tensor:
        """dE/dx of every chain."""
        if hasattr(self.energy, "gradient"):
            return self.energy.gradient(x).detach()
        x = x.detach().requires_grad_()
        (grad,) = torch.autograd.grad(self.energy(x).sum(), x)
        return grad

    def run(self, x0: Tensor, n_steps: int, seed: int = SEED) -> Tensor:
        """Positions ``[n, *event]`` after ``n_steps``."""
        x, eta = x0.double(), self.case.step_size
        ids = torch.arange(len(x0))
        work = torch.zeros_like(x)
        with closures_in_double(self.energy):
            for step in range(n_steps):
                move = self.gradient_factor * eta * self.gradient(x)
                work += move.abs()
                x = x - move + math.sqrt(2 * eta) * noise(seed, step, ids, self.case.event, self.noise_dtype).double()
        self.work, self.x = float(work.max()), x
        return x

    def tolerance(self, dtype: torch.dtype, n_steps: int) -> float:
        """Largest deviation that rounding explains, from the machine epsilons alone.

        The gradient is good to 8 units of the energy's dtype, relative to the largest move; the carried position is
        rounded about once a step.
        """
        carried = torch.finfo(carry_of(dtype)).eps * n_steps * float(self.x.abs().max())
        return 8 * torch.finfo(dtype).eps * self.work + carried


class closures_in_double:
    """Within the block, tensors that a plain function reaches are float64: the sampler does so by itself."""

    def __init__(self, energy: Callable[..., Tensor]) -> None:
        from compiled_ebm import captures

        slots = captures.find_slots(energy)
        self._context = captures.substituted(slots, lambda t: t.double() if t.dtype.is_floating_point else t)

    def __enter__(self) -> None:
        self._context.__enter__()

    def __exit__(self, *error: Any) -> None:
        self._context.__exit__(*error)


def traced_energy(sampler: ce.Sampler, x: Tensor, model_kwargs: dict[str, Any] | None = None) -> Tensor:
    """E(x) by the sampler's traced program, which the compiled backends start from, interpreted."""
    kwargs = model_kwargs or {}
    program, _ = sampler._builds.get(kwargs, len(x))
    constants = program.init.constants([kwargs[name] for name in program.kwargs.shared])
    chain = [kwargs[name] for name in program.kwargs.per_chain]
    return program.init.batched()(x.to(program.carry_dtype), *chain, torch.tensor(0), *constants)[1]


def same_bits(a: Tensor, b: Tensor) -> bool:
    """Equal in every bit, NaN included."""
    integers = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
    kind = integers[a.element_size()]
    return (
        a.dtype == b.dtype and a.shape == b.shape and torch.equal(a.contiguous().view(kind), b.contiguous().view(kind))
    )


def same_state(a: ce.ChainState, b: ce.ChainState) -> bool:
    """Positions, energies, gradients, failures, ids, seed and step all equal, bit for bit."""
    leaves = zip((a.positions, *a.carried), (b.positions, *b.carried), strict=True)
    return (
        all(same_bits(x, y) for x, y in leaves)
        and torch.equal(a.failed_at, b.failed_at)
        and torch.equal(a.chain_ids, b.chain_ids)
        and (a.seed, a.step) == (b.seed, b.step)
    )
