"""Mixture of Gaussians."""

import math
from numbers import Real

import torch

from compiled_ebm.energies.base import BaseModel
from compiled_ebm.energies.checks import (
    ArrayLike,
    complaint,
    covariance_factor,
    known_dim,
    number,
    points,
    real_tensor,
    standard_normals,
)


class GaussianMixtureModel(BaseModel):
    """Mixture of Gaussians, normalised: E is -log p, and log Z is 0.

        E(x) = -log Σₖ wₖ N(x; μₖ, Σₖ)

    by log-sum-exp, so that it stays finite far from every component. The buffers are

        means     [K, d]
        whiteners [K, 1] or [K, d], inverse scales; [K, d, d] with `covs`, Wₖ such that Σₖ⁻¹ = Wₖ Wₖᵀ
        log_coefs [K], log wₖ + log |det Wₖ| - d/2 log 2π

    computed in float64 and rounded to `dtype` once; the exact answers are those of the rounded buffers. `forward`
    computes in the dtype of x, and subtracts the means before it scales: nothing cancels for means far from 0.

    Args:
        means: μₖ [K, d].
        covs: Σₖ [K, d, d], symmetric positive definite. Give this or `scales`.
        scales: Standard deviations: one number, [K], or [K, d] for one per coordinate.
        weights: wₖ [K], positive; they are divided by their sum. Default: equal.
        dtype, device: As for `BaseModel`.

    Raises:
        TypeError: An argument is not an array of real numbers.
        ValueError: Shapes that do not fit, entries that are not finite or out of range, both or neither of `covs` and
            `scales`.

    Source: C. Bishop, Pattern Recognition and Machine Learning (2006), section 2.3.9.

    Example:
        >>> import torch
        >>> model = GaussianMixtureModel(means=[[-2.0], [2.0]], scales=0.5, weights=[3, 1])
        >>> round(float(model.exact_mean()), 4), round(float(model.exact_cov()), 4)
        (-1.0, 3.25)
    """

    means: torch.Tensor
    whiteners: torch.Tensor
    log_coefs: torch.Tensor

    def __init__(
        self,
        means: ArrayLike,
        covs: ArrayLike | None = None,
        scales: ArrayLike | float | None = None,
        weights: ArrayLike | None = None,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__(dtype=dtype, device=device)
        centres = real_tensor("means", means, ndims=(2,), layout="[K, d]")
        n_components, dim = centres.shape
        if (covs is None) == (scales is None):
            got = "neither" if covs is None else "both"
            raise ValueError(complaint("covs, scales", "one of the two", got, "scales=1.0 gives unit Gaussians."))
        self.diagonal = covs is None
        if covs is None:
            whiteners = 1.0 / _component_scales(scales, n_components, dim)
            log_det = whiteners.log().expand(n_components, dim).sum(dim=-1)
        else:
            spreads = real_tensor("covs", covs, ndims=(3,), layout="[K, d, d]")
            _require_shape("covs", spreads, (n_components, dim, dim))
            factors = torch.stack([covariance_factor(f"covs[{k}]", cov) for k, cov in enumerate(spreads)])
            identity = torch.eye(dim, dtype=torch.float64, device="cpu").expand_as(factors)
            whiteners = torch.linalg.solve_triangular(factors, identity, upper=False).mT.contiguous()
            log_det = -factors.diagonal(dim1=-2, dim2=-1).log().sum(dim=-1)
        log_coefs = _log_weights(weights, n_components) + log_det - 0.5 * dim * math.log(2 * math.pi)
        place, kind = self.device, self.dtype
        self.register_buffer("means", centres.to(device=place, dtype=kind))
        self.register_buffer("whiteners", whiteners.to(device=place, dtype=kind))
        self.register_buffer("log_coefs", log_coefs.to(device=place, dtype=kind))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Energies [n] of positions [n, d]."""
        x = points("GaussianMixtureModel", x, self.means.shape[1])
        # Components first: one product a component, [n, d] @ [d, d], with no copy of its matrix for every chain.
        delta = x - self.means.to(x.dtype).unsqueeze(1)
        whiteners = self.whiteners.to(x.dtype)
        white = delta * whiteners.unsqueeze(1) if self.diagonal else torch.bmm(delta, whiteners)
        log_densities = self.log_coefs.to(x.dtype).unsqueeze(1) - 0.5 * white.pow(2).sum(dim=-1)
        return -torch.logsumexp(log_densities, dim=0)

    def exact_mean(self, dim: int | None = None) -> torch.Tensor:
        """Σₖ wₖ μₖ [d], float64."""
        known_dim("GaussianMixtureModel", dim, self.means.shape[1])
        return self._log_masses().softmax(dim=0) @ self._exact(self.means)

    def exact_cov(self, dim: int | None = None) -> torch.Tensor:
        """Σₖ wₖ (Σₖ + (μₖ - μ)(μₖ - μ)ᵀ) [d, d], float64."""
        weights = self._log_masses().softmax(dim=0)
        offsets = self._exact(self.means) - self.exact_mean(dim)
        roots = self._covariance_roots()
        within = (weights[:, None, None] * (roots.mT @ roots)).sum(dim=0)
        return within + (weights[:, None] * offsets).mT @ offsets

    def log_normalizer(self, dim: int | None = None) -> float:
        """log Z: 0, up to the rounding of the buffers."""
        known_dim("GaussianMixtureModel", dim, self.means.shape[1])
        return float(self._log_masses().logsumexp(dim=0))

    def exact_sample(self, n: int, seed: int, dim: int | None = None) -> torch.Tensor:
        """Independent draws [n, d], in random order of the components."""
        dim = known_dim("GaussianMixtureModel", dim, self.means.shape[1])
        # The component comes from an extra normal through its distribution function: one stream of numbers suffices.
        normals = standard_normals(n, dim + 1, seed)
        edges = self._log_masses().softmax(dim=0).cumsum(dim=0)
        component = torch.searchsorted(edges[:-1].contiguous(), torch.special.ndtr(normals[:, 0]).contiguous())
        draws, means, roots = normals[:, 1:].clone(), self._exact(self.means), self._covariance_roots()
        for k in range(means.shape[0]):
            mine = component == k
            draws[mine] = means[k] + draws[mine] @ roots[k]
        return draws.to(device=self.device, dtype=self.dtype)

    @staticmethod
    def _exact(buffer: torch.Tensor) -> torch.Tensor:
        return buffer.detach().to(device="cpu", dtype=torch.float64)

    def _covariance_roots(self) -> torch.Tensor:
        """Rₖ = Wₖ⁻¹ [K, d, d], so that RₖᵀRₖ = Σₖ and z Rₖ has that covariance."""
        whiteners = self._exact(self.whiteners)
        if self.diagonal:
            return torch.diag_embed((1.0 / whiteners).expand_as(self.means))
        roots: torch.Tensor = torch.linalg.inv(whiteners)
        return roots

    def _log_masses(self) -> torch.Tensor:
        """log of the integral of every component [K]: log wₖ, up to the rounding of the buffers."""
        n_components, dim = self.means.shape
        whiteners = self._exact(self.whiteners)
        if self.diagonal:
            log_det = whiteners.log().expand(n_components, dim).sum(dim=-1)
        else:
            log_det = torch.linalg.slogdet(whiteners).logabsdet
        return self._exact(self.log_coefs) - log_det + 0.5 * dim * math.log(2 * math.pi)


def _require_shape(argument: str, tensor: torch.Tensor, shape: tuple[int, ...]) -> None:
    if tuple(tensor.shape) != shape:
        got = f"shape {tuple(tensor.shape)}"
        raise ValueError(complaint(argument, f"shape {list(shape)}", got, "Give one entry a row of means."))


def _component_scales(scales: object, n_components: int, dim: int) -> torch.Tensor:
    """Standard deviations [K, 1] or [K, d], float64."""
    if isinstance(scales, Real):
        return torch.full((n_components, 1), number("scales", scales, minimum=0.0), dtype=torch.float64, device="cpu")
    tensor = real_tensor("scales", scales, ndims=(0, 1, 2), layout="[], [K] or [K, d]")
    if tensor.ndim == 0:
        tensor = tensor.expand(n_components)
    _require_shape("scales", tensor, (n_components,) if tensor.ndim == 1 else (n_components, dim))
    _require_positive("scales", tensor)
    return tensor.reshape(n_components, -1)


def _log_weights(weights: ArrayLike | None, n_components: int) -> torch.Tensor:
    if weights is None:
        return torch.full((n_components,), -math.log(n_components), dtype=torch.float64, device="cpu")
    tensor = real_tensor("weights", weights, ndims=(1,), layout="[K]")
    _require_shape("weights", tensor, (n_components,))
    _require_positive("weights", tensor)
    return (tensor / tensor.sum()).log()


def _require_positive(argument: str, tensor: torch.Tensor) -> None:
    if not bool((tensor > 0).all()):
        remedy = "Drop a component that has none."
        raise ValueError(complaint(argument, "entries > 0", f"{float(tensor.min()):g}", remedy))
