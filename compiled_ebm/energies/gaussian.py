"""Energies that are quadratic: a Gaussian with any mean and covariance, and the Booth function."""

import math

import torch

from compiled_ebm.energies.base import BaseModel
from compiled_ebm.energies.checks import (
    ArrayLike,
    complaint,
    covariance_factor,
    known_dim,
    points,
    real_tensor,
    standard_normals,
)


class GaussianModel(BaseModel):
    """Gaussian distribution.

        E(x) = 1/2 (x - μ)ᵀ Σ⁻¹ (x - μ)

    The buffers are `mean` and `cov_inv`, as in TorchEBM. The inverse is taken in float64 and rounded to `dtype` once;
    the exact answers are those of the rounded matrix, which is the density that is sampled. `forward` computes in the
    dtype of x.

    Args:
        mean: μ [d].
        cov: Σ [d, d], symmetric and positive definite.
        dtype, device: As for `BaseModel`.

    Raises:
        TypeError: mean or cov is not an array of real numbers.
        ValueError: Shapes that do not fit, entries that are not finite, a matrix that is not symmetric or not positive
            definite.

    Source: TorchEBM 0.8, `GaussianModel`.

    Example:
        >>> import torch
        >>> model = GaussianModel(mean=[1.0, 0.0], cov=[[1.0, 0.0], [0.0, 4.0]])
        >>> model(torch.tensor([[1.0, 2.0]])), model.exact_mean()
        (tensor([0.5000]), tensor([1., 0.], dtype=torch.float64))
    """

    mean: torch.Tensor
    cov_inv: torch.Tensor

    def __init__(
        self,
        mean: ArrayLike,
        cov: ArrayLike,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__(dtype=dtype, device=device)
        centre = real_tensor("mean", mean, ndims=(1,), layout="[d]")
        spread = real_tensor("cov", cov, ndims=(2,), layout="[d, d]")
        dim = centre.shape[0]
        if spread.shape != (dim, dim):
            remedy = "mean and cov must be of the same dimension."
            raise ValueError(complaint("cov", f"shape [{dim}, {dim}]", f"shape {tuple(spread.shape)}", remedy))
        inverse = torch.cholesky_inverse(covariance_factor("cov", spread))
        place, kind = self.device, self.dtype
        self.register_buffer("mean", centre.to(device=place, dtype=kind))
        self.register_buffer("cov_inv", inverse.to(device=place, dtype=kind))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Energies [n] of positions [n, d]."""
        x = points("GaussianModel", x, self.mean.shape[0])
        delta = x - self.mean.to(x.dtype)
        return 0.5 * ((delta @ self.cov_inv.to(x.dtype)) * delta).sum(dim=-1)

    def exact_mean(self, dim: int | None = None) -> torch.Tensor:
        """μ [d], float64."""
        known_dim("GaussianModel", dim, self.mean.shape[0])
        return self.mean.detach().to(device="cpu", dtype=torch.float64, copy=True)

    def exact_cov(self, dim: int | None = None) -> torch.Tensor:
        """Σ [d, d], float64."""
        known_dim("GaussianModel", dim, self.mean.shape[0])
        return torch.cholesky_inverse(self._precision_factor())

    def log_normalizer(self, dim: int | None = None) -> float:
        """log Z = d/2 log 2π + 1/2 log det Σ."""
        dim = known_dim("GaussianModel", dim, self.mean.shape[0])
        return 0.5 * dim * math.log(2 * math.pi) - float(self._precision_factor().diagonal().log().sum())

    def exact_sample(self, n: int, seed: int, dim: int | None = None) -> torch.Tensor:
        """Independent draws [n, d]."""
        dim = known_dim("GaussianModel", dim, self.mean.shape[0])
        # Σ⁻¹ = L Lᵀ, so that z L⁻¹ has covariance L⁻ᵀ L⁻¹ = Σ.
        normals = standard_normals(n, dim, seed)
        draws: torch.Tensor = torch.linalg.solve_triangular(self._precision_factor(), normals, upper=False, left=False)
        return (draws + self.exact_mean()).to(device=self.device, dtype=self.dtype)

    def _precision_factor(self) -> torch.Tensor:
        precision = self.cov_inv.detach().to(device="cpu", dtype=torch.float64)
        factor: torch.Tensor = torch.linalg.cholesky((precision + precision.mT) / 2)
        return factor


class BoothModel(BaseModel):
    """Booth function, in two dimensions: a Gaussian about (1, 3) with covariance [[5, -4], [-4, 5]] / 18.

        E(x) = (x₁ + 2 x₂ - 7)² + (2 x₁ + x₂ - 5)²

    Args:
        dtype, device: As for `BaseModel`.

    Raises:
        ValueError: From `forward`, positions that are not [n, 2].

    Source: TorchEBM 0.8, `BoothModel`. E = |A x - c|² with A = [[1, 2], [2, 1]], c = (7, 5) gives the exact answers:
    mean A⁻¹ c, covariance (2 AᵀA)⁻¹, Z = π / |det A|.

    Example:
        >>> import torch
        >>> BoothModel()(torch.tensor([[1.0, 3.0], [0.0, 0.0]]))
        tensor([ 0., 74.])
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Energies [n] of positions [n, 2]."""
        x1, x2 = points("BoothModel", x, 2).unbind(dim=-1)
        return (x1 + 2 * x2 - 7).pow(2) + (2 * x1 + x2 - 5).pow(2)

    def exact_mean(self, dim: int | None = None) -> torch.Tensor:
        """(1, 3), float64."""
        known_dim("BoothModel", dim, 2)
        return torch.tensor([1.0, 3.0], dtype=torch.float64, device="cpu")

    def exact_cov(self, dim: int | None = None) -> torch.Tensor:
        """[[5, -4], [-4, 5]] / 18, float64."""
        known_dim("BoothModel", dim, 2)
        return torch.tensor([[5.0, -4.0], [-4.0, 5.0]], dtype=torch.float64, device="cpu") / 18

    def log_normalizer(self, dim: int | None = None) -> float:
        """log Z = log(π/3)."""
        known_dim("BoothModel", dim, 2)
        return math.log(math.pi / 3)

    def exact_sample(self, n: int, seed: int, dim: int | None = None) -> torch.Tensor:
        """Independent draws [n, 2]."""
        normals = standard_normals(n, known_dim("BoothModel", dim, 2), seed)
        draws: torch.Tensor = self.exact_mean() + normals @ torch.linalg.cholesky(self.exact_cov()).mT
        return draws.to(device=self.device, dtype=self.dtype)
