"""Test functions of optimisation that are sampled as energies: no exact moments."""

import math

import torch

from compiled_ebm.energies.base import BaseModel
from compiled_ebm.energies.checks import batch, number, points


class AckleyModel(BaseModel):
    """Ackley function: a funnel towards the origin in a field of ripples; minimum 0 at the origin.

        E(x) = -a exp(-b √(Σᵢ xᵢ² / d)) - exp(Σᵢ cos(c xᵢ) / d) + a + e

    E is bounded by a + e far out, so that exp(-E) has no finite integral: chains wander off in the end. It serves to
    compare gradients and descents; to sample it, confine it.

    At the origin the first term is the tip of a cone and has no derivative; the gradient there is 0, the middle of the
    subgradients (TorchEBM gives NaN). The square root is taken where the sum is above 0 only, by `torch.where` before
    and after it, as the derivative of √ at 0 is infinite and 0 · ∞ would be NaN.

    Args:
        a: Depth of the funnel, > 0. Default 20.
        b: Rate of its slope, > 0. Default 0.2.
        c: Wave number of the ripples, >= 0. Default 2π.
        dtype, device: As for `BaseModel`.

    Raises:
        TypeError, ValueError: An argument is not a number in its range.

    Source: TorchEBM 0.8, `AckleyModel`.

    Example:
        >>> import torch
        >>> model = AckleyModel(dtype=torch.float64)
        >>> x = torch.tensor([[0.0, 0.0], [1.0, 1.0]], dtype=torch.float64)
        >>> model(x).round(decimals=4), model.gradient(x)[0]
        (tensor([0.0000, 3.6254], dtype=torch.float64), tensor([0., 0.], dtype=torch.float64))
    """

    def __init__(
        self,
        a: float = 20.0,
        b: float = 0.2,
        c: float = 2 * math.pi,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__(dtype=dtype, device=device)
        self.a = number("a", a, minimum=0.0)
        self.b = number("b", b, minimum=0.0)
        self.c = number("c", c, minimum=0.0, strict=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Energies [n] of positions [n, *event]; d counts all entries of the event."""
        x = batch("AckleyModel", x).flatten(1)
        square = x.pow(2).mean(dim=-1)
        away = square > 0
        distance = torch.where(away, torch.where(away, square, 1.0).sqrt(), 0.0)
        ripples = torch.cos(self.c * x).mean(dim=-1)
        return -self.a * torch.exp(-self.b * distance) - torch.exp(ripples) + self.a + math.e


class HimmelblauModel(BaseModel):
    """Himmelblau function, in two dimensions: four wells of energy 0, one of them at (3, 2).

        E(x) = (x₁² + x₂ - 11)² + (x₁ + x₂² - 7)²

    Args:
        dtype, device: As for `BaseModel`.

    Raises:
        ValueError: From `forward`, positions that are not [n, 2].

    Source: TorchEBM 0.8, `HimmelblauModel`.

    Example:
        >>> import torch
        >>> HimmelblauModel()(torch.tensor([[3.0, 2.0], [0.0, 0.0]]))
        tensor([  0., 170.])
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Energies [n] of positions [n, 2]."""
        x1, x2 = points("HimmelblauModel", x, 2).unbind(dim=-1)
        return (x1.pow(2) + x2 - 11).pow(2) + (x1 + x2.pow(2) - 7).pow(2)
