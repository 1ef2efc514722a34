"""Curved targets with exact answers: Rosenbrock's valley, Neal's funnel, Haario's banana."""

import math

import torch

from compiled_ebm.energies.base import BaseModel
from compiled_ebm.energies.checks import count, known_dim, number, points, standard_normals


class RosenbrockModel(BaseModel):
    """Rosenbrock function: a curved, narrow valley.

        E(x) = Σᵢ₌₁ᵈ⁻¹ [ b (xᵢ₊₁ - xᵢ²)² + (a - xᵢ)² ]

    In two dimensions x₁ ~ N(a, 1/2) and x₂ | x₁ ~ N(x₁², 1/(2b)), and the exact answers follow; in more dimensions
    none is known, and the methods raise.

    Args:
        a: Where the valley's minimum lies, at (a, a²) in two dimensions. Default 1.
        b: Steepness of its walls, > 0. Default 100.
        dtype, device: As for `BaseModel`.

    Raises:
        TypeError, ValueError: An argument is not a number in its range; from `forward`, positions that are not [n, d]
            with d >= 2; from the exact answers, a dimension other than 2.

    Source: TorchEBM 0.8, `RosenbrockModel`.

    Example:
        >>> import torch
        >>> RosenbrockModel()(torch.tensor([[1.0, 1.0], [0.0, 1.0]]))
        tensor([  0., 101.])
    """

    def __init__(
        self,
        a: float = 1.0,
        b: float = 100.0,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__(dtype=dtype, device=device)
        self.a = number("a", a)
        self.b = number("b", b, minimum=0.0)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Energies [n] of positions [n, d], d >= 2."""
        x = points("RosenbrockModel", x, at_least=2)
        here, following = x[:, :-1], x[:, 1:]
        return ((self.a - here).pow(2) + self.b * (following - here.pow(2)).pow(2)).sum(dim=-1)

    def exact_mean(self, dim: int | None = None) -> torch.Tensor:
        """(a, a² + 1/2), float64; for dim = 2 only."""
        known_dim("RosenbrockModel", dim, 2)
        return torch.tensor([self.a, self.a**2 + 0.5], dtype=torch.float64, device="cpu")

    def exact_cov(self, dim: int | None = None) -> torch.Tensor:
        """[[1/2, a], [a, 2a² + 1/2 + 1/(2b)]], float64; for dim = 2 only."""
        known_dim("RosenbrockModel", dim, 2)
        last = 2 * self.a**2 + 0.5 + 0.5 / self.b
        return torch.tensor([[0.5, self.a], [self.a, last]], dtype=torch.float64, device="cpu")

    def log_normalizer(self, dim: int | None = None) -> float:
        """log Z = log(π / √b); for dim = 2 only."""
        known_dim("RosenbrockModel", dim, 2)
        return math.log(math.pi) - 0.5 * math.log(self.b)

    def exact_sample(self, n: int, seed: int, dim: int | None = None) -> torch.Tensor:
        """Independent draws [n, 2]; for dim = 2 only."""
        normals = standard_normals(n, known_dim("RosenbrockModel", dim, 2), seed) * math.sqrt(0.5)
        x1 = self.a + normals[:, 0]
        x2 = x1.square() + normals[:, 1] / math.sqrt(self.b)
        return torch.stack([x1, x2], dim=-1).to(device=self.device, dtype=self.dtype)


class FunnelModel(BaseModel):
    """Neal's funnel: the first coordinate sets the scale of all others, from e^(-3s/2) at the neck to e^(3s/2).

        v = x₁ ~ N(0, s²),  xᵢ | v ~ N(0, eᵛ) for i >= 2
        E(x) = v²/(2s²) + (d-1) v/2 + 1/2 Σᵢ₌₂ᵈ (xᵢ e^(-v/2))²

    Every position is scaled before it is squared: e^(-v) alone would overflow float16 at v = -11, within the funnel.

    Args:
        dim: d >= 2. Default 10.
        scale: s > 0, the standard deviation of v. Default 3.
        dtype, device: As for `BaseModel`.

    Raises:
        TypeError, ValueError: An argument is not a number in its range; from `forward`, positions not [n, dim].

    Source: R. Neal, Slice sampling, Annals of Statistics 31 (2003), section 8.

    Example:
        >>> import torch
        >>> model = FunnelModel(dim=3, scale=1.0)
        >>> model(torch.tensor([[0.0, 1.0, 2.0], [1.0, 0.0, 0.0]]))
        tensor([2.5000, 1.5000])
    """

    def __init__(
        self,
        dim: int = 10,
        scale: float = 3.0,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__(dtype=dtype, device=device)
        self.dim = count("dim", dim, minimum=2)
        self.scale = number("scale", scale, minimum=0.0)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Energies [n] of positions [n, dim]."""
        x = points("FunnelModel", x, self.dim)
        neck = x[:, :1]
        scaled = x[:, 1:] * torch.exp(-0.5 * neck)
        v = neck.squeeze(-1)
        return 0.5 * (v / self.scale).pow(2) + 0.5 * (self.dim - 1) * v + 0.5 * scaled.pow(2).sum(dim=-1)

    def exact_mean(self, dim: int | None = None) -> torch.Tensor:
        """0 [dim], float64."""
        return torch.zeros(known_dim("FunnelModel", dim, self.dim), dtype=torch.float64, device="cpu")

    def exact_cov(self, dim: int | None = None) -> torch.Tensor:
        """Diagonal: s² for v, E[eᵛ] = e^(s²/2) for the others, float64 [dim, dim].

        The others have heavy tails: for s = 3 the average of their squares over a finite run stays far below this.
        """
        dim = known_dim("FunnelModel", dim, self.dim)
        variances = torch.full((dim,), math.exp(0.5 * self.scale**2), dtype=torch.float64, device="cpu")
        variances[0] = self.scale**2
        return torch.diag(variances)

    def log_normalizer(self, dim: int | None = None) -> float:
        """log Z = d/2 log 2π + log s."""
        return 0.5 * known_dim("FunnelModel", dim, self.dim) * math.log(2 * math.pi) + math.log(self.scale)

    def exact_sample(self, n: int, seed: int, dim: int | None = None) -> torch.Tensor:
        """Independent draws [n, dim]."""
        draws = standard_normals(n, known_dim("FunnelModel", dim, self.dim), seed)
        draws[:, 0] *= self.scale
        draws[:, 1:] *= torch.exp(0.5 * draws[:, :1])
        return draws.to(device=self.device, dtype=self.dtype)


class BananaModel(BaseModel):
    """Haario's banana: a Gaussian, long in its first coordinate, bent along a parabola.

        y₁ ~ N(0, s²),  yᵢ ~ N(0, 1) for i >= 2
        x₁ = y₁,  x₂ = y₂ - c (y₁² - s²),  xᵢ = yᵢ for i >= 3
        E(x) = x₁²/(2s²) + 1/2 (x₂ + c (x₁² - s²))² + 1/2 Σᵢ₌₃ᵈ xᵢ²

    The bend keeps volumes, so that Z is that of the Gaussian. Mean 0; variances s², 1 + 2 c² s⁴, 1, …; no two
    coordinates are correlated, although x₂ depends on x₁.

    Args:
        dim: d >= 2. Default 2.
        scale: s > 0, the standard deviation of x₁. Default 10.
        curvature: c, the bend; 0 is the Gaussian. Default 0.03, Haario's moderate twist (0.1 is his strong one).
        dtype, device: As for `BaseModel`.

    Raises:
        TypeError, ValueError: An argument is not a number in its range; from `forward`, positions not [n, dim].

    Source: H. Haario, E. Saksman, J. Tamminen, Adaptive proposal distribution for random walk Metropolis algorithm,
    Computational Statistics 14 (1999).

    Example:
        >>> import torch
        >>> BananaModel(scale=2.0, curvature=0.5)(torch.tensor([[2.0, 1.0], [0.0, 2.0]]))
        tensor([1., 0.])
    """

    def __init__(
        self,
        dim: int = 2,
        scale: float = 10.0,
        curvature: float = 0.03,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__(dtype=dtype, device=device)
        self.dim = count("dim", dim, minimum=2)
        self.scale = number("scale", scale, minimum=0.0)
        self.curvature = number("curvature", curvature)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Energies [n] of positions [n, dim]."""
        x = points("BananaModel", x, self.dim)
        along = x[:, 0]
        across = x[:, 1] + self.curvature * (along.pow(2) - self.scale**2)
        energy = 0.5 * (along / self.scale).pow(2) + 0.5 * across.pow(2)
        if self.dim > 2:
            energy = energy + 0.5 * x[:, 2:].pow(2).sum(dim=-1)
        return energy

    def exact_mean(self, dim: int | None = None) -> torch.Tensor:
        """0 [dim], float64."""
        return torch.zeros(known_dim("BananaModel", dim, self.dim), dtype=torch.float64, device="cpu")

    def exact_cov(self, dim: int | None = None) -> torch.Tensor:
        """Diagonal: s², 1 + 2 c² s⁴, 1, …, float64 [dim, dim]."""
        variances = torch.ones(known_dim("BananaModel", dim, self.dim), dtype=torch.float64, device="cpu")
        variances[0] = self.scale**2
        variances[1] = 1.0 + 2.0 * self.curvature**2 * self.scale**4
        return torch.diag(variances)

    def log_normalizer(self, dim: int | None = None) -> float:
        """log Z = d/2 log 2π + log s."""
        return 0.5 * known_dim("BananaModel", dim, self.dim) * math.log(2 * math.pi) + math.log(self.scale)

    def exact_sample(self, n: int, seed: int, dim: int | None = None) -> torch.Tensor:
        """Independent draws [n, dim]."""
        draws = standard_normals(n, known_dim("BananaModel", dim, self.dim), seed)
        draws[:, 0] *= self.scale
        draws[:, 1] -= self.curvature * (draws[:, 0].square() - self.scale**2)
        return draws.to(device=self.device, dtype=self.dtype)
