"""The energies that the workloads sample: torch modules, `forward: [n, *event] -> [n]`, weights fixed by a seed."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def _normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """torch's default initialisation, drawn from `seed`; the global generator is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield


class MLP(nn.Module):
    """E(x) = W_L·act(… act(W_1 x + b_1)) + b_L, for widths `sizes` (the last is 1)."""

    def __init__(self, sizes: tuple[int, ...], activation: type[nn.Module] = nn.SELU, seed: int = 0) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        with _seeded(seed):
            for wide_in, wide_out in zip(sizes, sizes[1:], strict=False):
                layers += [nn.Linear(wide_in, wide_out), activation()]
        self.net = nn.Sequential(*layers[:-1])

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.net(x)
        return out.squeeze(-1)


class GaussianMixture(nn.Module):
    """E(x) = −log Σ_k w_k exp(−|x − μ_k|² / 2σ²): components on a ring of the plane."""

    means: Tensor
    log_weights: Tensor

    def __init__(self, components: int = 8, radius: float = 3.0, sigma: float = 0.6) -> None:
        super().__init__()
        angle = torch.arange(components, dtype=torch.float64) * (2 * math.pi / components)
        means = radius * torch.stack([angle.cos(), angle.sin()], dim=1)
        weights = torch.arange(1, components + 1, dtype=torch.float64)
        self.register_buffer("means", means.float())
        self.register_buffer("log_weights", (weights / weights.sum()).log().float())
        self.precision = 1.0 / sigma**2

    def forward(self, x: Tensor) -> Tensor:
        squared = (x.unsqueeze(-2) - self.means).square().sum(-1)
        return -torch.logsumexp(self.log_weights - 0.5 * self.precision * squared, dim=-1)


class DoubleWell(nn.Module):
    """E(x) = h Σ_i (x_i² − b²)²."""

    def __init__(self, barrier_height: float = 2.0, b: float = 1.0) -> None:
        super().__init__()
        self.barrier_height, self.b = barrier_height, b

    def forward(self, x: Tensor) -> Tensor:
        return self.barrier_height * (x.square() - self.b**2).square().sum(-1)


class Rosenbrock(nn.Module):
    """E(x) = Σ_i b (x_{i+1} − x_i²)² + (a − x_i)²."""

    def __init__(self, a: float = 1.0, b: float = 100.0) -> None:
        super().__init__()
        self.a, self.b = a, b

    def forward(self, x: Tensor) -> Tensor:
        head, tail = x[..., :-1], x[..., 1:]
        return (self.b * (tail - head.square()).square() + (self.a - head).square()).sum(-1)


class Gaussian(nn.Module):
    """E(x) = ½ (x − μ)ᵀ Σ⁻¹ (x − μ), Σ full with eigenvalues of 0.5 to about 4.5."""

    mean: Tensor
    cov: Tensor
    precision: Tensor

    def __init__(self, dim: int = 100, seed: int = 0) -> None:
        super().__init__()
        factor = _normal(dim, dim, seed=seed)
        cov = factor @ factor.T / dim + 0.5 * torch.eye(dim, dtype=torch.float64)
        self.register_buffer("mean", _normal(dim, seed=seed + 1).float())
        self.register_buffer("cov", cov.float())
        self.register_buffer("precision", torch.linalg.inv(cov).float())

    def forward(self, x: Tensor) -> Tensor:
        delta = x - self.mean
        return 0.5 * (delta * (delta @ self.precision)).sum(-1)


class LogisticPosterior(nn.Module):
    """E(w) = Σ_j [softplus(f_jᵀw) − y_j f_jᵀw] + |w|²/2: Bayesian logistic regression, unit normal prior."""

    features: Tensor
    labels: Tensor

    def __init__(self, data: int = 1000, features: int = 25, seed: int = 0) -> None:
        super().__init__()
        table = _normal(data, features, seed=seed)
        table[:, 0] = 1.0
        probability = torch.sigmoid(table @ _normal(features, seed=seed + 1))
        uniform = torch.rand(data, dtype=torch.float64, generator=torch.Generator().manual_seed(seed + 2))
        self.register_buffer("features", table.float())
        self.register_buffer("labels", (uniform < probability).float())

    def forward(self, x: Tensor) -> Tensor:
        logits = x @ self.features.T
        return (F.softplus(logits) - self.labels * logits).sum(-1) + 0.5 * x.square().sum(-1)


class Phi4(nn.Module):
    """E(φ) = Σ_sites ½ Σ_axes (φ(s+1) − φ(s))² + ½ m² φ² + λ φ⁴ on a periodic square lattice."""

    def __init__(self, mass_squared: float = -1.0, coupling: float = 0.5) -> None:
        super().__init__()
        self.mass_squared, self.coupling = mass_squared, coupling

    def forward(self, x: Tensor) -> Tensor:
        right, down = torch.roll(x, -1, dims=-1), torch.roll(x, -1, dims=-2)
        kinetic = 0.5 * ((right - x).square() + (down - x).square())
        squared = x.square()
        return (kinetic + 0.5 * self.mass_squared * squared + self.coupling * squared.square()).sum((-2, -1))


class LennardJones(nn.Module):
    """E(x) = 4ε Σ_{i<j} (r_ij⁻¹² − r_ij⁻⁶) + ½ k Σ_i |x_i|²: a cluster of atoms in a harmonic trap."""

    first: Tensor
    second: Tensor

    def __init__(self, atoms: int = 13, epsilon: float = 1.0, trap: float = 1.0) -> None:
        super().__init__()
        pairs = torch.triu_indices(atoms, atoms, offset=1)
        self.register_buffer("first", pairs[0])
        self.register_buffer("second", pairs[1])
        self.epsilon, self.trap = epsilon, trap

    def forward(self, x: Tensor) -> Tensor:
        difference = x[..., self.first, :] - x[..., self.second, :]
        inverse6 = 1.0 / difference.square().sum(-1) ** 3
        pair_energy = 4.0 * self.epsilon * (inverse6 * inverse6 - inverse6).sum(-1)
        return pair_energy + 0.5 * self.trap * x.square().sum((-2, -1))


def icosahedron() -> Tensor:
    """The 13-atom Lennard-Jones minimum, nearly: a centre and 12 vertices, pairs at 1.08σ and more, `[13, 3]`."""
    golden = (1 + math.sqrt(5)) / 2
    signs = [(1.0, golden), (1.0, -golden), (-1.0, golden), (-1.0, -golden)]
    vertices = [v for a, b in signs for v in ((0.0, a, b), (a, b, 0.0), (b, 0.0, a))]
    shell = torch.tensor(vertices, dtype=torch.float64)
    shell *= 1.08 / shell[0].norm()
    return torch.cat([torch.zeros(1, 3, dtype=torch.float64), shell]).float()


class ConvEBM(nn.Module):
    """A small image energy: two strided convolutions, a linear read-out and |x|²/2, `[n, 1, 28, 28] -> [n]`."""

    def __init__(self, channels: int = 16, seed: int = 0) -> None:
        super().__init__()
        with _seeded(seed):
            self.net = nn.Sequential(
                nn.Conv2d(1, channels, 3, stride=2, padding=1),
                nn.SiLU(),
                nn.Conv2d(channels, 2 * channels, 3, stride=2, padding=1),
                nn.SiLU(),
                nn.Flatten(-3),
                nn.Linear(2 * channels * 49, 1),
            )

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.net(x)
        return out.squeeze(-1) + 0.5 * x.square().sum((-3, -2, -1))


class AttentionEBM(nn.Module):
    """Layer norm, self-attention, a SiLU read-out and |x|²/2 over a set of tokens, `[n, tokens, width] -> [n]`."""

    def __init__(self, width: int = 32, heads: int = 4, seed: int = 0) -> None:
        super().__init__()
        self.heads = heads
        with _seeded(seed):
            self.norm = nn.LayerNorm(width)
            self.qkv = nn.Linear(width, 3 * width)
            self.mix = nn.Linear(width, width)
            self.read = nn.Linear(width, 1)

    def forward(self, x: Tensor) -> Tensor:
        split = self.qkv(self.norm(x)).unflatten(-1, (3, self.heads, -1))
        query, key, value = (part.transpose(-3, -2) for part in split.unbind(-3))
        attended = F.scaled_dot_product_attention(query, key, value).transpose(-3, -2).flatten(-2)
        out: Tensor = self.read(F.silu(x + self.mix(attended)))
        return out.sum((-2, -1)) + 0.5 * x.square().sum((-2, -1))
