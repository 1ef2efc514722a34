"""A fully connected network as an energy."""

from collections.abc import Callable, Sequence

import torch
from torch import nn

from compiled_ebm.energies.base import BaseModel
from compiled_ebm.energies.checks import complaint, count, number, points

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "elu": nn.ELU,
    "gelu": nn.GELU,
    "leaky_relu": nn.LeakyReLU,
    "relu": nn.ReLU,
    "selu": nn.SELU,
    "sigmoid": nn.Sigmoid,
    "silu": nn.SiLU,
    "softplus": nn.Softplus,
    "tanh": nn.Tanh,
}


class MLPModel(BaseModel):
    """Fully connected network from a position to one number, with an optional confining term.

        E(x) = MLP(x) + c/2 |x|²,  MLP: d -> hidden... -> 1, an activation after every hidden layer

    A network of its own grows linearly at most (for all activations below) and falls without bound in some directions,
    so that exp(-E) has no finite integral, and chains drift away. Any `confinement` c > 0 makes it a proper density:
    the quadratic term wins far out. c = 0, the default, is the bare network, for training and for speed comparisons.

    Args:
        dim: d >= 1. Default 2.
        hidden: Widths of the hidden layers, each >= 1; an int is one layer. Default (64,).
        activation: "elu", "gelu", "leaky_relu", "relu", "selu", "sigmoid", "silu", "softplus", "tanh", or a class of
            nn.Module (or any function without arguments that makes one). Default "selu".
        seed: Seed of the initial weights, which are then the same on every device and for every dtype, up to its
            rounding; torch's global generator is left as it was. Default None: drawn from torch's global generator.
        confinement: c >= 0. Default 0.
        dtype, device: As for `BaseModel`.

    Raises:
        TypeError: An argument of the wrong kind.
        ValueError: A number out of its range, an unknown activation; from `forward`, positions that are not [n, dim].

    Source: the network of TorchEBM's parallel-sampling guide; weights by `nn.Linear`'s default.

    Example:
        >>> import torch
        >>> model = MLPModel(2, hidden=(64,), seed=0, confinement=1.0)
        >>> model(torch.zeros(5, 2)).shape
        torch.Size([5])
    """

    def __init__(
        self,
        dim: int = 2,
        hidden: int | Sequence[int] = (64,),
        activation: str | Callable[[], nn.Module] = "selu",
        seed: int | None = None,
        confinement: float = 0.0,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__(dtype=dtype, device=device)
        self.dim = count("dim", dim)
        if isinstance(hidden, str) or not isinstance(hidden, int | Sequence):
            got = f"{hidden!r} ({type(hidden).__name__})"
            raise TypeError(complaint("hidden", "a sequence of integers >= 1", got, "Pass e.g. (64, 64)."))
        widths = (hidden,) if isinstance(hidden, int) else tuple(hidden)
        self.hidden = tuple(count(f"hidden[{i}]", width) for i, width in enumerate(widths))
        self.confinement = number("confinement", confinement, minimum=0.0, strict=False)
        if seed is not None:
            seed = count("seed", seed, minimum=0)
        make_activation = _activation(activation)
        place, kind = self.device, self.dtype
        # Initialised in float32 on the CPU whatever the target, so that a seed means one network.
        with torch.random.fork_rng(devices=[], enabled=seed is not None):
            if seed is not None:
                torch.default_generator.manual_seed(seed)
            layers: list[nn.Module] = []
            width = self.dim
            for following in self.hidden:
                layers += [nn.Linear(width, following, device="cpu", dtype=torch.float32), make_activation()]
                width = following
            layers.append(nn.Linear(width, 1, device="cpu", dtype=torch.float32))
        self.net = nn.Sequential(*layers).to(device=place, dtype=kind)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Energies [n] of positions [n, dim]."""
        x = points("MLPModel", x, self.dim)
        energy: torch.Tensor = self.net(x).squeeze(-1)
        if self.confinement > 0:
            energy = energy + 0.5 * self.confinement * x.pow(2).sum(dim=-1)
        return energy


def _activation(activation: object) -> Callable[[], nn.Module]:
    """A maker of fresh activation layers."""
    names = ", ".join(ACTIVATIONS)
    if isinstance(activation, str):
        if activation.lower() not in ACTIVATIONS:
            remedy = "Or pass a class of nn.Module."
            raise ValueError(complaint("activation", f"one of {names}", repr(activation), remedy))
        return ACTIVATIONS[activation.lower()]
    expected = f"one of {names}, or a class of nn.Module"
    if isinstance(activation, nn.Module) or not callable(activation):
        got = f"{activation!r} ({type(activation).__name__})"
        raise TypeError(complaint("activation", expected, got, "Pass the class, such as torch.nn.SELU."))

    def make() -> nn.Module:
        layer = activation()
        if not isinstance(layer, nn.Module):
            got = f"a function that gives {type(layer).__name__}"
            raise TypeError(complaint("activation", expected, got, "Pass a class of nn.Module."))
        return layer

    return make
