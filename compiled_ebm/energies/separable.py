"""Energies that are a sum over coordinates: every coordinate is independent, and its moments are one integral away."""

import math
from abc import abstractmethod

import torch

from compiled_ebm.energies.base import BaseModel
from compiled_ebm.energies.checks import batch, known_dim, number, standard_normals
from compiled_ebm.energies.quadrature import NEGLIGIBLE_HEIGHT, Marginal, integrate


class SeparableModel(BaseModel):
    """E(x) = Σᵢ u(xᵢ) over all entries of the event, whatever its shape. `dim` is the number of entries."""

    @abstractmethod
    def marginal(self) -> Marginal:
        """log Z, mean and variance of one coordinate."""

    def _coordinates(self, x: torch.Tensor) -> torch.Tensor:
        return batch(type(self).__name__, x).flatten(1)

    def _coordinate_energy(self, x: torch.Tensor) -> torch.Tensor:
        return self.forward(x.unsqueeze(-1))

    def exact_mean(self, dim: int | None = None) -> torch.Tensor:
        """Mean [dim] of exp(-E)/Z, float64."""
        dim = known_dim(type(self).__name__, dim, None)
        return torch.full((dim,), self.marginal().mean, dtype=torch.float64, device="cpu")

    def exact_cov(self, dim: int | None = None) -> torch.Tensor:
        """Covariance [dim, dim] of exp(-E)/Z, float64: diagonal, as the coordinates are independent."""
        dim = known_dim(type(self).__name__, dim, None)
        return self.marginal().variance * torch.eye(dim, dtype=torch.float64, device="cpu")

    def log_normalizer(self, dim: int | None = None) -> float:
        """log Z = log ∫ exp(-E(x)) dx in `dim` dimensions."""
        return known_dim(type(self).__name__, dim, None) * self.marginal().log_z


class HarmonicModel(SeparableModel):
    """Harmonic oscillator: an isotropic Gaussian of variance 1/k about the origin.

        E(x) = k/2 Σᵢ xᵢ²

    Args:
        k: Spring constant, > 0. Default 1.
        dtype, device: As for `BaseModel`.

    Raises:
        TypeError, ValueError: k is not a positive finite number.

    Source: TorchEBM 0.8, `HarmonicModel`.

    Example:
        >>> import torch
        >>> HarmonicModel(k=2.0)(torch.tensor([[1.0, 2.0]]))
        tensor([5.])
    """

    def __init__(
        self, k: float = 1.0, dtype: torch.dtype = torch.float32, device: torch.device | str | None = None
    ) -> None:
        super().__init__(dtype=dtype, device=device)
        self.k = number("k", k, minimum=0.0)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Energies [n] of positions [n, *event]."""
        return 0.5 * self.k * self._coordinates(x).pow(2).sum(dim=-1)

    def marginal(self) -> Marginal:
        """A normal coordinate: closed form."""
        return Marginal(0.5 * math.log(2 * math.pi / self.k), 0.0, 1.0 / self.k)

    def exact_sample(self, n: int, seed: int, dim: int | None = None) -> torch.Tensor:
        """Independent draws [n, dim]."""
        normals = standard_normals(n, known_dim("HarmonicModel", dim, None), seed)
        return (normals / math.sqrt(self.k)).to(device=self.device, dtype=self.dtype)


class DoubleWellModel(SeparableModel):
    """Double well: in every coordinate two wells at ±b, and a barrier of height `barrier_height`·b⁴ at 0 between them.

        E(x) = h Σᵢ (xᵢ² - b²)²

    Args:
        barrier_height: h > 0. Default 2.
        b: Position of the wells, >= 0. Default 1.
        dtype, device: As for `BaseModel`.

    Raises:
        TypeError, ValueError: An argument is not a number in its range.

    Moments by quadrature; the mean is 0 by symmetry.

    Source: TorchEBM 0.8, `DoubleWellModel`.

    Example:
        >>> import torch
        >>> DoubleWellModel()(torch.tensor([[0.0, 1.0], [2.0, -1.0]]))
        tensor([ 2., 18.])
    """

    def __init__(
        self,
        barrier_height: float = 2.0,
        b: float = 1.0,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__(dtype=dtype, device=device)
        self.barrier_height = number("barrier_height", barrier_height, minimum=0.0)
        self.b = number("b", b, minimum=0.0, strict=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Energies [n] of positions [n, *event]."""
        return self.barrier_height * (self._coordinates(x).pow(2) - self.b**2).pow(2).sum(dim=-1)

    def marginal(self) -> Marginal:
        """By quadrature up to where the energy is negligible."""
        reach = math.sqrt(self.b**2 + math.sqrt(NEGLIGIBLE_HEIGHT / self.barrier_height))
        return integrate("DoubleWellModel", self._coordinate_energy, -reach, reach)._replace(mean=0.0)


class RastriginModel(SeparableModel):
    """Rastrigin function: a paraboloid with ripples of height 2a and period 1; minimum 0 at the origin.

        E(x) = a d + Σᵢ (xᵢ² - a cos(2π xᵢ))

    Args:
        a: Amplitude of the ripples, >= 0. Default 10.
        dtype, device: As for `BaseModel`.

    Raises:
        TypeError, ValueError: a is not a finite number >= 0.

    Moments by quadrature; the mean is 0 by symmetry.

    Source: TorchEBM 0.8, `RastriginModel`.

    Example:
        >>> import torch
        >>> RastriginModel()(torch.tensor([[0.0, 0.0], [1.0, 0.5]]))
        tensor([ 0.0000, 21.2500])
    """

    def __init__(
        self, a: float = 10.0, dtype: torch.dtype = torch.float32, device: torch.device | str | None = None
    ) -> None:
        super().__init__(dtype=dtype, device=device)
        self.a = number("a", a, minimum=0.0, strict=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Energies [n] of positions [n, *event]."""
        x = self._coordinates(x)
        return self.a * x.shape[-1] + (x.pow(2) - self.a * torch.cos(2 * math.pi * x)).sum(dim=-1)

    def marginal(self) -> Marginal:
        """By quadrature: E >= x², so that the energy is negligible beyond the square root of its height."""
        reach = math.sqrt(NEGLIGIBLE_HEIGHT)
        return integrate("RastriginModel", self._coordinate_energy, -reach, reach)._replace(mean=0.0)


class StyblinskiTangModel(SeparableModel):
    """Styblinski-Tang function: in every coordinate a deep well at -2.9035 and a shallower one at 2.7468.

        E(x) = 1/2 Σᵢ (xᵢ⁴ - 16 xᵢ² + 5 xᵢ)

    Args:
        dtype, device: As for `BaseModel`.

    Moments by quadrature.

    Source: TorchEBM 0.8, `StyblinskiTangModel`.

    Example:
        >>> import torch
        >>> StyblinskiTangModel()(torch.tensor([[1.0, -2.0]]))
        tensor([-34.])
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Energies [n] of positions [n, *event]."""
        x = self._coordinates(x)
        return 0.5 * (x.pow(4) - 16 * x.pow(2) + 5 * x).sum(dim=-1)

    def marginal(self) -> Marginal:
        """By quadrature on [-8, 8], at whose ends E is over 1,500."""
        return integrate("StyblinskiTangModel", self._coordinate_energy, -8.0, 8.0)
