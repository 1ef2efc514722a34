"""Argument checks of the energies. Every message says: argument, expected, got, what to do."""

import math
from collections.abc import Sequence
from numbers import Integral, Real
from typing import TypeAlias

import torch

#: What the models take for vectors and matrices: a tensor, an array, or nested sequences of numbers.
ArrayLike: TypeAlias = torch.Tensor | Sequence[float] | Sequence[Sequence[float]] | Sequence[Sequence[Sequence[float]]]


def complaint(argument: str, expected: str, got: object, remedy: str) -> str:
    """The one form of every error message here."""
    return f"{argument}: expected {expected}, got {got}. {remedy}"


def number(argument: str, value: object, *, minimum: float | None = None, strict: bool = True) -> float:
    """A finite real number, above `minimum` (or equal to it when not `strict`), as a float."""
    bound = "" if minimum is None else f" {'>' if strict else '>='} {minimum:g}"
    expected = f"a finite real number{bound}"
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(complaint(argument, expected, f"{value!r} ({type(value).__name__})", "Pass a Python float."))
    result = float(value)
    if not math.isfinite(result) or (minimum is not None and (result <= minimum if strict else result < minimum)):
        raise ValueError(complaint(argument, expected, repr(value), "Choose a value in that range."))
    return result


def count(argument: str, value: object, *, minimum: int = 1) -> int:
    """An integer that is at least `minimum`."""
    expected = f"an integer >= {minimum}"
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(complaint(argument, expected, f"{value!r} ({type(value).__name__})", "Pass a Python int."))
    if value < minimum:
        raise ValueError(complaint(argument, expected, repr(value), "Choose a larger value."))
    return int(value)


def real_tensor(argument: str, value: object, *, ndims: tuple[int, ...], layout: str) -> torch.Tensor:
    """A finite real array with one of the allowed numbers of dimensions and no empty one, in float64 on the CPU.

    Derived quantities (inverses, determinants) are computed from it and rounded to the model's dtype once, at the end.
    """
    try:
        tensor = torch.as_tensor(value, device="cpu")
        if not isinstance(value, torch.Tensor) and tensor.dtype == torch.get_default_dtype():
            tensor = torch.as_tensor(value, device="cpu", dtype=torch.float64)  # lists of Python floats lose no digits
    except (TypeError, ValueError, RuntimeError) as error:
        got = f"{type(value).__name__} ({error})"
        raise TypeError(complaint(argument, f"numbers of shape {layout}", got, "Pass a tensor.")) from error
    if tensor.is_complex() or tensor.dtype == torch.bool:
        raise TypeError(complaint(argument, "real numbers", f"dtype {tensor.dtype}", "Pass a floating-point tensor."))
    if tensor.ndim not in ndims or tensor.numel() == 0:
        got = f"shape {tuple(tensor.shape)}"
        raise ValueError(complaint(argument, f"shape {layout}, not empty", got, "Reshape it, or check its source."))
    result = tensor.detach().to(dtype=torch.float64)
    if not bool(torch.isfinite(result).all()):
        n_bad = int((~torch.isfinite(result)).sum())
        raise ValueError(complaint(argument, "finite numbers", f"{n_bad} NaN or infinite entries", "Remove them."))
    return result


def covariance_factor(argument: str, cov: torch.Tensor) -> torch.Tensor:
    """Lower Cholesky factor of a float64 covariance matrix [d, d], or a ValueError that says what is wrong with it.

    Asymmetry up to 1e-5 of the largest entry is taken as rounding (of a float32 estimate) and averaged away.
    """
    remedy = "Pass a symmetric positive definite matrix, e.g. A @ A.T + eps * eye(d)."
    asymmetry = float((cov - cov.mT).abs().max())
    if asymmetry > 1e-5 * float(cov.abs().max()):
        raise ValueError(complaint(argument, "a symmetric matrix", f"entries that differ by {asymmetry:g}", remedy))
    cov = (cov + cov.mT) / 2
    eigenvalues = torch.linalg.eigvalsh(cov)
    smallest, largest = float(eigenvalues[0]), float(eigenvalues[-1])
    # Below this the smallest eigenvalue is rounding error of the largest, and its inverse is noise.
    if smallest <= cov.shape[-1] * torch.finfo(torch.float64).eps * largest or largest <= 0:
        got = f"eigenvalues from {smallest:g} to {largest:g}"
        raise ValueError(complaint(argument, "a positive definite matrix", got, remedy))
    factor: torch.Tensor = torch.linalg.cholesky(cov)
    return factor


def batch(owner: str, x: torch.Tensor) -> torch.Tensor:
    """x as [n, *event]: one position [d] is a batch of one chain, as in TorchEBM."""
    if x.ndim == 0:
        raise ValueError(complaint(f"{owner}: x", "positions of shape [n, *event]", "a 0-d tensor", "Add dimensions."))
    return x.unsqueeze(0) if x.ndim == 1 else x


def points(owner: str, x: torch.Tensor, dim: int | None = None, *, at_least: int = 1) -> torch.Tensor:
    """x as [n, d], with d equal to `dim` where the model fixes it and at least `at_least` else."""
    x = batch(owner, x)
    if x.ndim != 2 or (dim is not None and x.shape[1] != dim) or x.shape[1] < at_least:
        size = f"d >= {at_least}" if dim is None else str(dim)
        remedy = "Pass positions of that event shape, or build the model for the dimension you have."
        raise ValueError(complaint(f"{owner}: x", f"shape [n, {size}]", f"shape {tuple(x.shape)}", remedy))
    return x


def known_dim(owner: str, dim: int | None, own: int | None) -> int:
    """The dimension that an exact answer is asked for: the model's own, else the argument."""
    if dim is None:
        if own is None:
            remedy = "This energy takes any dimension: say which."
            raise ValueError(complaint(f"{owner}: dim", "an integer >= 1", "None", remedy))
        return own
    dim = count(f"{owner}: dim", dim)
    if own is not None and dim != own:
        raise ValueError(complaint(f"{owner}: dim", f"{own} or None", dim, "The exact answer is for that dimension."))
    return dim


def standard_normals(n: int, dim: int, seed: int) -> torch.Tensor:
    """Independent standard normals [n, dim], float64 on the CPU, a function of `seed` alone."""
    generator = torch.Generator(device="cpu").manual_seed(count("seed", seed, minimum=0))
    return torch.randn(count("n", n), dim, generator=generator, dtype=torch.float64, device="cpu")
