"""`BaseModel`: the class that the energies of this package share, and that users subclass."""

import inspect
from abc import ABC, abstractmethod
from collections.abc import Mapping
from itertools import chain
from typing import Any

import torch
from torch import nn

from compiled_ebm.energies.checks import complaint


class BaseModel(nn.Module, ABC):
    r"""An energy E(x), the negative log of an unnormalised density.

        p(x) = exp(-E(x)) / Z

    Subclasses write `forward`. `gradient` has a default by automatic differentiation; a subclass that overrides it is
    sampled with its own gradient.

    Args:
        dtype: Floating-point type of the model's tensors. Default `torch.float32`.
        device: Where the model's tensors lie. Default: torch's current default device.

    Raises:
        TypeError: An argument that no constructor in the class's line of inheritance takes; `dtype` is not a dtype.
        ValueError: `dtype` is not a floating-point type; `device` does not name a device.

    Source: the interface is TorchEBM 0.8's `torchebm.core.BaseModel`.

    Example:
        >>> import torch
        >>> class Ring(BaseModel):
        ...     def forward(self, x):
        ...         return (x.norm(dim=-1) - 2.0).pow(2)
        >>> Ring().gradient(torch.tensor([[3.0, 0.0]]))
        tensor([[2., 0.]])
    """

    _placement: torch.Tensor

    def __init__(
        self,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str | int | None = None,
        *args: object,
        **kwargs: object,
    ) -> None:
        if args or kwargs:
            raise TypeError(_unexpected_arguments(type(self), args, kwargs))
        super().__init__()
        if not isinstance(dtype, torch.dtype):
            got = f"{dtype!r} ({type(dtype).__name__})"
            raise TypeError(complaint("dtype", "a torch.dtype", got, "Pass e.g. torch.float32."))
        if not dtype.is_floating_point:
            raise ValueError(complaint("dtype", "a floating-point type", dtype, "Pass e.g. torch.float32."))
        try:
            place = None if device is None else torch.device(device)
        except (RuntimeError, TypeError) as error:
            remedy = f"Pass e.g. 'cpu' or 'cuda'. ({error})"
            raise ValueError(complaint("device", "the name of a torch device", repr(device), remedy)) from error
        # Holds nothing, but `.to()` moves and casts it, so that a model without tensors knows its device and dtype.
        self.register_buffer("_placement", torch.empty(0, dtype=dtype, device=place), persistent=False)

    @property
    def device(self) -> torch.device:
        """Device of the first floating-point parameter or buffer; of the constructor's argument if there is none."""
        return self._leading_tensor().device

    @property
    def dtype(self) -> torch.dtype:
        """Type of the first floating-point parameter or buffer; the constructor's argument if there is none."""
        return self._leading_tensor().dtype

    def _leading_tensor(self) -> torch.Tensor:
        placement = self._placement
        for tensor in chain(self.parameters(), self.buffers()):
            if tensor is not placement and tensor.is_floating_point():
                return tensor
        return placement

    # `*args: Any, **kwargs: Any` lets a subclass take x alone, or any conditioning beside it, and type-check.
    @abstractmethod
    def forward(self, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        """Energy of every chain.

        Args:
            x: Positions [n, *event].
            args, kwargs: Conditioning of the subclass's own, such as labels; samplers pass their `model_kwargs`.

        Returns:
            Energies [n].
        """

    def gradient(self, x: torch.Tensor, model_kwargs: Mapping[str, Any] | None = None) -> torch.Tensor:
        """Gradient of the energy with respect to the positions; the score is its negative.

        Works under `torch.no_grad()` and `torch.inference_mode()`, and leaves `.grad` of the parameters alone.

        Args:
            x: Positions [n, *event], floating point, on the model's device.
            model_kwargs: Keyword arguments for `forward`. Default: none.

        Returns:
            ∇E [n, *event], of x's dtype, detached.

        Raises:
            ValueError: x has no batch dimension or is not floating point; the energy has the wrong shape, or does not
                depend on x.

        Example:
            >>> import torch
            >>> from compiled_ebm.energies import HarmonicModel
            >>> HarmonicModel(k=3.0).gradient(torch.tensor([[1.0, -2.0]]))
            tensor([[ 3., -6.]])
        """
        name = type(self).__name__
        if x.ndim == 0 or not x.is_floating_point():
            got = f"shape {tuple(x.shape)}, {x.dtype}"
            remedy = "Add the batch dimension, or convert with .float()."
            raise ValueError(complaint(f"{name}.gradient: x", "floating-point [n, *event]", got, remedy))
        with torch.inference_mode(False), torch.enable_grad():
            # An inference tensor cannot be differentiated, a copy of it can.
            position = (x.clone() if x.is_inference() else x.detach()).requires_grad_(True)
            energy = self.forward(position, **(model_kwargs or {}))
            if not isinstance(energy, torch.Tensor) or energy.shape != position.shape[:1]:
                got = f"shape {tuple(energy.shape)}" if isinstance(energy, torch.Tensor) else type(energy).__name__
                remedy = "Return one number a chain: sum over the event dimensions, or squeeze(-1) a last layer."
                raise ValueError(complaint(f"{name}.forward", f"energies of shape ({x.shape[0]},)", got, remedy))
            gradient = None
            if energy.requires_grad:
                (gradient,) = torch.autograd.grad(energy, position, torch.ones_like(energy), allow_unused=True)
        if gradient is None:
            got = "one that does not depend on it, as far as autograd can see"
            remedy = "Compute it from x by differentiable operations (no detach, .data, .item or NumPy in between)."
            raise ValueError(complaint(f"{name}.forward", "an energy that depends on x", got, remedy))
        return gradient.detach()


def _unexpected_arguments(cls: type, args: tuple[object, ...], kwargs: Mapping[str, object]) -> str:
    """Says which constructor arguments nobody took, and which there are, over the class's line of inheritance."""
    known: dict[str, None] = {}
    for owner in cls.__mro__:
        if "__init__" in vars(owner):
            parameters = list(inspect.signature(vars(owner)["__init__"]).parameters.values())[1:]
            known.update({p.name: None for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)})
        if owner is BaseModel:
            break
    extra = [f"{len(args)} positional too many"] if args else []
    got = ", ".join(extra + [repr(name) for name in kwargs])
    return complaint(f"{cls.__name__}: arguments", ", ".join(known), got, "Check the spelling, or drop it.")
