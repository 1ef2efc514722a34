"""Small energies that exercise the operations of the fused backend, forward and through their gradients.

Each is ``f(x [n, *event]) -> [n, ...]``; its energy is a sum of f's elements with fixed weights that all differ, so
that no two elements can be mistaken for each other, and a weak confinement.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from cases import fixed, seeded
from torch import Tensor, distributions, nn


class Operation(NamedTuple):
    """A function of x ``[n, *event]``, and how far out its chains begin."""

    name: str
    function: Callable[[Tensor], Tensor]
    event: tuple[int, ...] = (3,)
    scale: float = 1.0

    @property
    def numel(self) -> int:
        return math.prod(self.event)


GROUPS: dict[str, list[Operation]] = {}
LONG = (
    *("network modules", "more images", "images", "distributions", "movements"),
    *("sorts", "factorisations", "indexing", "softmaxes"),
    *("circular", "special", "activations", "norms", "networks", "rounding"),
)
"""Groups left to the slow tests: each takes seconds to trace and to compile."""


def group(name: str, *given: tuple[Any, ...]) -> None:
    """Operations that share a kernel."""
    GROUPS[name] = [Operation(*g) for g in given]


def inside(x: Tensor) -> Tensor:
    """Into (-0.9, 0.9)."""
    return 0.9 * torch.tanh(x)


def above(x: Tensor) -> Tensor:
    """Beyond 0.3."""
    return 0.3 + F.softplus(x)


# -- pointwise ---------------------------------------------------------------------------------------------------------

group(
    "exponentials",
    ("exp", lambda x: inside(x).exp()),
    ("exp2", lambda x: torch.exp2(inside(x))),
    ("expm1", lambda x: torch.expm1(inside(x))),
    ("log", lambda x: above(x).log(), (5,)),
    ("log2", lambda x: above(x).log2()),
    ("log10", lambda x: above(x).log10()),
    ("log1p", lambda x: torch.log1p(inside(x))),
    ("sqrt", lambda x: above(x).sqrt(), ()),
    ("rsqrt", lambda x: above(x).rsqrt()),
    ("reciprocal", lambda x: above(x).reciprocal(), (1,)),
    ("logit", lambda x: torch.logit(0.1 + 0.8 * torch.sigmoid(x))),
    ("logit eps", lambda x: torch.logit(torch.sigmoid(3 * x), eps=0.1)),
    ("xlogy", lambda x: torch.xlogy(x, above(x.flip(-1)))),
    ("logaddexp", lambda x: torch.logaddexp(x[:, :2], x[:, 1:])),
    ("logaddexp2", lambda x: torch.logaddexp2(x[:, :2], x[:, 1:])),
    ("softplus beta", lambda x: F.softplus(x, beta=3.0, threshold=2.0)),
    ("softplus by hand", lambda x: torch.where(x > 20, x, torch.log1p(torch.exp(x)))),
    ("log1p of exp of -abs", lambda x: torch.log1p(torch.exp(-x.abs())) + x.clamp(min=0)),
    ("differences", lambda x: (x.sin() + -(x.roll(1, -1).square())) * (-x - -x.cos())),
    ("scaled twice", lambda x: 0.5 * (x.flip(-1) * (2.0 * (x * -4.0))) + (x.sin() * 0.25) * 3.0),
)
group(
    "circular",
    ("sin", torch.sin, (1,)),
    ("cos", torch.cos, ()),
    ("tan", lambda x: torch.tan(inside(x))),
    ("asin", lambda x: torch.asin(inside(x))),
    ("acos", lambda x: torch.acos(inside(x))),
    ("atan", torch.atan, (5,)),
    ("atan2", lambda x: torch.atan2(x[:, :2], 1 + x[:, 1:].square())),
    ("sinc", lambda x: torch.sinc(above(x))),
    ("sinh", lambda x: torch.sinh(inside(x))),
    ("cosh", lambda x: torch.cosh(inside(x))),
    ("tanh", torch.tanh),
    ("asinh", torch.asinh),
    ("acosh", lambda x: torch.acosh(1.5 + x.square())),
    ("atanh", lambda x: torch.atanh(inside(x))),
    ("hypot", lambda x: torch.hypot(x[:, :2], 1 + x[:, 1:])),
)
group(
    "special",
    ("erf", torch.erf),
    ("erfc", torch.erfc),
    ("erfinv-free cdf", lambda x: torch.special.ndtr(x)),
    ("log_ndtr near", lambda x: torch.special.ndtr(inside(x)).log()),
    ("erfinv", lambda x: torch.erfinv(inside(x))),
    ("ndtri", lambda x: torch.special.ndtri(0.1 + 0.8 * torch.sigmoid(x))),
    ("icdf", lambda x: distributions.Normal(0.1, 1.2, validate_args=False).icdf(0.001 + 0.9 * torch.sigmoid(5 * x))),
    ("log_ndtr", lambda x: torch.special.log_ndtr(3 * x)),
    ("erfcx", lambda x: torch.special.erfcx(x)),
    ("xlog1py", lambda x: torch.special.xlog1py(x, above(x.flip(-1)))),
    ("lgamma", lambda x: torch.lgamma(above(x))),
    ("digamma", lambda x: torch.digamma(above(x))),
    ("trigamma", lambda x: torch.polygamma(1, above(x).detach()) * x),
    ("polygamma 0", lambda x: torch.polygamma(0, above(x))),
    ("lgamma constant", lambda x: x * torch.lgamma(POSITIVE)),
    ("gammaln constant", lambda x: x * torch.special.gammaln(POSITIVE)),
    ("entr", lambda x: torch.special.entr(above(x))),
    ("pow 0.5", lambda x: above(x) ** 0.5),
    ("pow -0.5", lambda x: above(x) ** -0.5),
    ("pow 2", lambda x: x**2, (33,)),
    ("pow 3", lambda x: x**3, (1,)),
    ("pow 4", lambda x: torch.pow(x, 4), (5,)),
    ("pow -2", lambda x: above(x) ** -2),
    ("pow 7", lambda x: inside(x) ** 7),
    ("pow 2.5", lambda x: above(x) ** 2.5),
    ("pow 12", lambda x: inside(x) ** 12),
    ("pow of constants", lambda x: above(x) ** POSITIVE),
    ("pow of tensors", lambda x: above(x) ** x.flip(-1)),
    ("pow of a number", lambda x: 1.7**x),
    ("square", torch.square, ()),
    ("cbrt", lambda x: x.sign() * (x.abs() + 0.1) ** (1 / 3)),
)
POSITIVE = torch.tensor([0.5, 1.25, 3.0])
group(
    "rounding",
    ("floor", lambda x: torch.floor(3 * x) * x),
    ("ceil", lambda x: torch.ceil(3 * x) * x),
    ("trunc", lambda x: torch.trunc(3 * x) * x),
    ("fix", lambda x: torch.fix(3 * x) * x),
    ("round", lambda x: torch.round(3 * x) * x, (5,)),
    ("round decimals", lambda x: torch.round(x, decimals=1) * x),
    ("frac", lambda x: torch.frac(3 * x) * x),
    ("sign", lambda x: torch.sign(x) * x.square()),
    ("sgn", lambda x: torch.sgn(x) * x.square()),
    ("signbit", lambda x: torch.signbit(x) * x.square()),
    ("heaviside", lambda x: torch.heaviside(x.detach(), HALF) * x),
    ("copysign", lambda x: torch.copysign(x[:, :2], x[:, 1:])),
    ("abs", torch.abs, (1,)),
    ("neg", lambda x: -x.square(), ()),
    ("fmod", lambda x: torch.fmod(3 * x, 0.7) * x),
    ("remainder", lambda x: torch.remainder(3 * x, 0.7) * x),
    ("remainder of tensors", lambda x: torch.remainder(3 * x[:, :2], above(x[:, 1:]))),
    ("floor_divide", lambda x: torch.floor_divide(3 * x.detach(), 0.7) * x),
    ("div floor", lambda x: torch.div(3 * x.detach(), 0.7, rounding_mode="floor") * x),
    ("div trunc", lambda x: torch.div(3 * x.detach(), 0.7, rounding_mode="trunc") * x),
    ("positive", lambda x: (+x).square()),
    ("deg2rad", lambda x: torch.deg2rad(60 * x) * x),
    ("rad2deg", lambda x: torch.rad2deg(x) * x),
)
HALF = torch.tensor(0.5)
group(
    "choices",
    ("where", lambda x: torch.where(x > 0.2, x.square(), -x)),
    ("where scalar", lambda x: torch.where(x.abs() < 1, x.square(), 1.0)),
    ("where chained", lambda x: torch.where(x > 1, 2 * x, torch.where(x < -1, x**3, x.square()))),
    ("clamp", lambda x: x.clamp(-0.5, 0.7) * x, (5,)),
    ("clamp min", lambda x: x.clamp_min(0.1).square(), ()),
    ("clamp max", lambda x: x.clamp(max=0.1).square(), (1,)),
    ("clamp tensors", lambda x: torch.clamp(x, -POSITIVE, POSITIVE) * x),
    ("maximum", lambda x: torch.maximum(x[:, :2], x[:, 1:].square())),
    ("minimum", lambda x: torch.minimum(x[:, :2], x[:, 1:].square())),
    ("fmax", lambda x: torch.fmax(x[:, :2], x[:, 1:].square())),
    ("fmin", lambda x: torch.fmin(x[:, :2], x[:, 1:].square())),
    ("masked_fill", lambda x: x.square().masked_fill(x > 0.5, -0.3) + x),
    ("isnan", lambda x: torch.where(torch.isnan((x.detach() - 0.3).sqrt()), x, x.square())),
    ("isinf", lambda x: torch.where(torch.isinf(1 / (x.detach().clamp(0.2) - 0.2)), x, x.square())),
    ("isfinite", lambda x: torch.where(torch.isfinite((x.detach() - 0.3).log()), x, x.square())),
    ("nan_to_num", lambda x: torch.nan_to_num((x.detach() - 0.3).log(), nan=0.5, posinf=2.0, neginf=-2.0) * x),
    ("isclose", lambda x: torch.where(torch.isclose(x, x.square(), atol=0.3), x, x.square())),
    ("lerp", lambda x: torch.lerp(x[:, :2], x[:, 1:], torch.sigmoid(x[:, :2]))),
    ("lerp number", lambda x: torch.lerp(x[:, :2], x[:, 1:].square(), 0.3)),
    ("addcmul", lambda x: torch.addcmul(x[:, :2], x[:, 1:], x[:, :2], value=0.7)),
    ("addcdiv", lambda x: torch.addcdiv(x[:, :2], x[:, 1:], above(x[:, :2]), value=0.7)),
    ("add alpha", lambda x: torch.add(x[:, :2], x[:, 1:].square(), alpha=0.3)),
    ("sub alpha", lambda x: torch.sub(x[:, :2], x[:, 1:].square(), alpha=0.3)),
    ("rsub", lambda x: torch.rsub(x.square(), 2.0, alpha=1.5)),
    ("div", lambda x: x[:, :2] / above(x[:, 1:])),
    ("div number", lambda x: x.square() / 3.0 + x / 4.0),
)
group(
    "logic",
    ("comparisons", lambda x: ((x > 0.1).float() + (x <= 0.5) * 2.0 + (x >= -0.4) + (x < 0.9)) * x),
    ("equal", lambda x: (x.round() == 1.0) * x + (x.round() != 0.0) * x.square()),
    ("and or not", lambda x: (((x > 0) & (x < 1)) | ~(x > -0.5)) * x.square()),
    ("xor", lambda x: ((x > 0) ^ (x.square() > 0.4)) * x),
    ("logical", lambda x: torch.logical_or(torch.logical_and(x > 0, x < 1), torch.logical_not(x)) * x),
    ("logical_xor", lambda x: torch.logical_xor(x > 0, x < 1) * x),
    ("any all", lambda x: (x > 0.5).any(-1, keepdim=True) * x + (x > -0.5).all(-1, keepdim=True) * x.square(), (5,)),
    ("any of all", lambda x: torch.where((x > 0.7).any(1), x[:, 0], x[:, 1].square()), (33,)),
    ("integers", lambda x: ((4 * x).long() * 3 - 2 + (2 * x).int()) * x),
    ("integer floor_divide", lambda x: ((9 * x).long() // 4) * x),
    ("integer remainder", lambda x: ((9 * x).long() % 4) * x),
    ("integer trunc", lambda x: torch.div((9 * x).long(), 4, rounding_mode="trunc") * x),
    ("integer fmod", lambda x: torch.fmod((9 * x).long(), 4) * x),
    ("integer bits", lambda x: (((9 * x).long() & 6) + ((5 * x).long() | 3) + ((7 * x).long() ^ 5)) * x),
    ("integer not", lambda x: (~(9 * x).long()) * x),
    ("integer shifts", lambda x: (((9 * x).abs().long() << 2) + ((99 * x).long() >> 3)) * x * 0.1),
    ("integer comparisons", lambda x: (((3 * x).long() > 1).long() - ((3 * x).long() == 0).long()) * x),
    ("integer min max", lambda x: torch.maximum((3 * x).long(), (x.square()).long()).clamp(-2, 2) * x),
    ("integer abs neg", lambda x: ((4 * x).long().abs() - (-(3 * x).long())) * x),
    ("integer pow", lambda x: (2 * x).long() ** 3 * x * 0.1),
    ("integer sums", lambda x: (3 * x).long().sum(-1, keepdim=True) * x + (3 * x).long().prod(-1, keepdim=True) * x),
    ("integer extremes", lambda x: ((3 * x).long().amax(-1) - (3 * x).long().amin(-1)) * x[:, 0], (5,)),
    ("integer cumsum", lambda x: (3 * x).long().cumsum(-1) * x, (5,)),
    ("count", lambda x: (x > 0).sum(-1) * x[:, 0] + torch.count_nonzero(x > 0.3, -1) * x[:, 1], (5,)),
    ("parity", lambda x: torch.where((3 * x).floor().long().remainder(2).bool(), x, -x)),
    ("integer mean", lambda x: (3 * x).long().to(x).mean(-1) * x[:, 0]),
    ("boolean min max", lambda x: torch.maximum(x > 0, x > 0.5) * x + torch.minimum(x < 0, x < 0.5) * x.square()),
)

# -- activations -------------------------------------------------------------------------------------------------------


def prelu() -> nn.Module:
    module = nn.PReLU(3)
    with torch.no_grad():
        module.weight.copy_(torch.tensor([0.1, 0.4, -0.2]))
    return module


group(
    "activations",
    ("ReLU", nn.ReLU(), (5,)),
    ("ReLU6", lambda x: F.relu6(4 * x)),
    ("LeakyReLU", nn.LeakyReLU(0.2)),
    ("ELU", nn.ELU(0.7)),
    ("CELU", nn.CELU(0.6)),
    ("SELU", nn.SELU(), (33,)),
    ("GELU", nn.GELU()),
    ("GELU tanh", nn.GELU("tanh")),
    ("SiLU", nn.SiLU(), (1,)),
    ("Mish", nn.Mish()),
    ("Softplus", nn.Softplus()),
    ("Softplus far", lambda x: F.softplus(12 * x) * 0.1),
    ("Softsign", nn.Softsign()),
    ("Softshrink", nn.Softshrink(0.3)),
    ("Hardshrink", nn.Hardshrink(0.3)),
    ("Tanhshrink", nn.Tanhshrink()),
    ("Hardtanh", nn.Hardtanh(-0.5, 0.8)),
    ("Hardsigmoid", lambda x: F.hardsigmoid(2 * x)),
    ("Hardswish", lambda x: F.hardswish(2 * x)),
    ("LogSigmoid", nn.LogSigmoid()),
    ("Sigmoid", nn.Sigmoid()),
    ("Tanh", nn.Tanh()),
    ("Threshold", nn.Threshold(0.1, -0.4)),
    ("PReLU", lambda x: PRELU(x)),
    ("GLU", nn.GLU(), (4,)),
    ("Dropout", nn.Dropout(0.5).eval()),
)
PRELU = prelu()
group(
    "softmaxes",
    ("Softmax", nn.Softmax(-1), (5,)),
    ("Softmin", nn.Softmin(-1), (3,)),
    ("LogSoftmax", nn.LogSoftmax(-1), (33,)),
    ("softmax of rows", lambda x: torch.softmax(x, 1), (3, 5)),
    ("log_softmax of one", lambda x: torch.log_softmax(x, -1) + x, (1,)),
    ("Softmax2d", nn.Softmax2d(), (2, 3, 4)),
    ("logsumexp", lambda x: torch.logsumexp(x, -1), (5,)),
    ("logsumexp of two", lambda x: torch.logsumexp(x, (1, 2)), (2, 3)),
    ("logcumsumexp", lambda x: torch.logcumsumexp(x, -1), (5,)),
    ("cross_entropy", lambda x: F.cross_entropy(x, torch.full((len(x),), 2), reduction="none"), (5,)),
    ("nll", lambda x: F.nll_loss(F.log_softmax(x, -1), torch.full((len(x),), 1), reduction="none"), (3,)),
    ("binary_cross_entropy_with_logits", lambda x: bce_logits(x), (3,)),
    ("binary_cross_entropy", lambda x: F.binary_cross_entropy(x.sigmoid(), 0.3 + 0 * x, reduction="none"), (3,)),
    ("smooth_l1", lambda x: F.smooth_l1_loss(x, x.flip(-1) * 0.3, reduction="none"), (3,)),
    ("huber", lambda x: F.huber_loss(x, x.flip(-1) * 0.3, reduction="none", delta=0.4), (3,)),
    ("mse", lambda x: F.mse_loss(x, x.flip(-1) * 0.3, reduction="none"), (3,)),
    ("l1", lambda x: F.l1_loss(x, x.flip(-1) * 0.3, reduction="none"), (3,)),
    ("soft_margin", lambda x: F.soft_margin_loss(x, x.sign().detach(), reduction="none"), (3,)),
    ("kl_div", lambda x: F.kl_div(F.log_softmax(x, -1), F.softmax(x.flip(-1), -1), reduction="none"), (3,)),
)


TARGET = torch.tensor([0.0, 1.0, 0.3])


def bce_logits(x: Tensor) -> Tensor:
    target = TARGET.expand_as(x)
    return F.binary_cross_entropy_with_logits(x, target, reduction="none")


# -- reductions --------------------------------------------------------------------------------------------------------

group(
    "reductions",
    ("sum", lambda x: x.square().sum(-1), (33,)),
    ("sum of three", lambda x: x.square().sum((1, 2, 3)), (2, 3, 4)),
    ("sum kept", lambda x: x / above(x).sum((1, 3), keepdim=True), (2, 3, 4)),
    ("mean", lambda x: x.mean(-1).square(), (5,)),
    ("mean of rows", lambda x: x.mean(1).square(), (3, 5)),
    ("amax", lambda x: x.amax(-1).square(), (5,)),
    ("amin", lambda x: x.amin((1, 2)), (3, 5)),
    ("aminmax", lambda x: torch.aminmax(x, dim=-1)[1] - torch.aminmax(x, dim=-1)[0], (5,)),
    ("max with place", lambda x: x.max(-1)[0].square(), (5,)),
    ("min with place", lambda x: x.min(1).values, (3, 5)),
    ("max place used", lambda x: x.max(-1).indices * x[:, 0], (5,)),
    ("prod", lambda x: (1 + 0.3 * x).prod(-1), (5,)),
    ("prod of one", lambda x: (1 + 0.3 * x).prod(-1), (1,)),
    ("var", lambda x: x.var(-1), (5,)),
    ("var population", lambda x: x.var((1, 2), correction=0), (3, 5)),
    ("std", lambda x: x.std(-1), (5,)),
    ("std_mean", lambda x: torch.std_mean(x, -1)[0] * torch.std_mean(x, -1)[1], (5,)),
    ("var_mean", lambda x: torch.var_mean(x, -1)[0] * torch.var_mean(x, -1)[1], (5,)),
    ("cumsum", lambda x: x.cumsum(-1).square(), (5,)),
    ("cumsum of rows", lambda x: x.cumsum(1).square(), (3, 5)),
    ("cumprod", lambda x: (1 + 0.3 * x).cumprod(-1), (5,)),
    ("diff", lambda x: torch.diff(x, dim=-1).square(), (5,)),
    ("trapezoid", lambda x: torch.trapezoid(x.square(), dx=0.3), (5,)),
    ("nansum", lambda x: torch.nansum(x.square(), -1), (5,)),
)
group(
    "norms",
    ("norm 1", lambda x: torch.linalg.vector_norm(x, 1, -1), (5,)),
    ("norm 2", lambda x: x.norm(dim=-1), (33,)),
    ("norm 3", lambda x: torch.linalg.vector_norm(x, 3, -1), (5,)),
    ("norm 2.5", lambda x: torch.linalg.vector_norm(x, 2.5, -1), (5,)),
    ("norm inf", lambda x: torch.linalg.vector_norm(x, math.inf, -1), (5,)),
    ("norm -inf", lambda x: torch.linalg.vector_norm(x, -math.inf, -1), (5,)),
    ("norm 0", lambda x: torch.linalg.vector_norm(x.detach(), 0, -1) * x[:, 0], (5,)),
    ("frobenius", lambda x: torch.linalg.matrix_norm(x), (3, 5)),
    ("normalize", lambda x: F.normalize(x, dim=-1), (5,)),
    ("cosine_similarity", lambda x: F.cosine_similarity(x[:, 0], x[:, 1], dim=-1), (3, 5)),
    ("pairwise_distance", lambda x: F.pairwise_distance(x[:, 0], x[:, 1]), (3, 5)),
    ("cdist", lambda x: torch.cdist(x, CENTRES.expand(len(x), -1, -1)), (3, 5)),
    (
        "cdist of products",
        lambda x: torch.cdist(x, CENTRES.expand(len(x), -1, -1), compute_mode="use_mm_for_euclid_dist"),
        (3, 5),
    ),
    ("pdist", lambda x: torch.stack([F.pdist(row) for row in x.unbind(0)]).sin(), (4, 3)),
    ("LayerNorm", lambda x: LAYER_NORM(x), (3, 5)),
    ("LayerNorm plain", nn.LayerNorm((3, 4), elementwise_affine=False), (2, 3, 4)),
    ("GroupNorm", lambda x: GROUP_NORM(x), (4, 5)),
    ("InstanceNorm", lambda x: F.instance_norm(x), (3, 5)),
    ("BatchNorm evaluated", lambda x: BATCH_NORM(x), (3, 5)),
    ("RMSNorm", nn.RMSNorm(5), (3, 5)),
    ("local response", lambda x: F.local_response_norm(x, 3), (4, 5)),
)
CENTRES = fixed(4, 5, seed=3)


def affine_norm(make: Callable[[], nn.Module]) -> nn.Module:
    module = seeded(make, 1)
    with torch.no_grad():
        for k, tensor in enumerate((module.weight, module.bias)):
            tensor.copy_(0.5 * k + fixed(*tensor.shape, seed=11 + k))
    return module


LAYER_NORM = affine_norm(lambda: nn.LayerNorm(5))
GROUP_NORM = affine_norm(lambda: nn.GroupNorm(2, 4))
BATCH_NORM = affine_norm(lambda: nn.BatchNorm1d(3))

# -- products ----------------------------------------------------------------------------------------------------------

# Arguments of sin stay near 1: an argument of 100 has 100 times the rounding error of its sine, and how the terms of a
# product are summed differs from one processor to the next.
MATRIX, WIDE, TALL = (
    fixed(5, 5, seed=21, scale=0.4),
    fixed(33, 33, seed=22, scale=0.2),
    fixed(5, 33, seed=23, scale=0.3),
)
LOWER = MATRIX.tril() * 0.75 + 2 * torch.eye(5)

group(
    "products",
    ("linear", lambda x: F.linear(x, MATRIX, MATRIX[0]).square(), (5,)),
    ("linear wide", lambda x: torch.tanh(x @ WIDE), (33,)),
    ("linear of rows", lambda x: torch.sin(x @ TALL), (3, 5)),
    ("linear of one", lambda x: torch.sin(x * TALL[0]).square().sum(-1), (1,)),
    ("mv", lambda x: torch.stack([MATRIX @ row for row in x.unbind(0)]).square(), (5,)),
    ("mm", lambda x: torch.stack([row @ MATRIX for row in x.unbind(0)]).square(), (3, 5)),
    ("mm of itself", lambda x: torch.stack([0.2 * row @ row.T for row in x.unbind(0)]).sin(), (3, 5)),
    ("addmm", lambda x: torch.addmm(MATRIX[0], x, MATRIX, beta=0.3, alpha=0.5).square(), (5,)),
    ("addmv", lambda x: torch.stack([torch.addmv(r, MATRIX, r, beta=0.5, alpha=2.0) for r in x.unbind(0)]).sin(), (5,)),
    ("dot", lambda x: torch.stack([row.dot(row.flip(0).sin()) for row in x.unbind(0)]), (5,)),
    ("bmm", lambda x: torch.bmm(0.2 * x, x.mT).sin(), (3, 5)),
    ("baddbmm", lambda x: torch.baddbmm(x, x, MATRIX.expand(len(x), 5, 5), beta=0.5, alpha=0.2).sin(), (3, 5)),
    ("matmul of constants", lambda x: (MATRIX[:, :3] @ x).sin(), (3, 5)),
    ("einsum", lambda x: (0.2 * torch.einsum("nij,nik,jk->ni", x, x, MATRIX)).sin(), (3, 5)),
    ("einsum quadratic", lambda x: torch.einsum("ni,ij,nj->n", x, MATRIX, x), (5,)),
    ("outer", lambda x: x.unsqueeze(-1) * x.unsqueeze(-2).sin(), (5,)),
    ("inner", lambda x: torch.inner(x, MATRIX).sin(), (5,)),
    ("tensordot", lambda x: torch.tensordot(x, MATRIX, dims=([2], [0])).sin(), (3, 5)),
    ("Bilinear", lambda x: BILINEAR(x, x.sin()), (3,)),
    ("kron", lambda x: torch.kron(x, CENTRES[:1, :2]).sin(), (3,)),
    ("cross", lambda x: torch.linalg.cross(x, x.roll(1, -1).sin(), dim=-1), (3,)),
    ("vecdot", lambda x: torch.linalg.vecdot(x, x.sin()), (5,)),
    ("trace", lambda x: torch.einsum("nii->n", x.square()), (3, 3)),
    ("solve_triangular", lambda x: solve_lower(x), (5,)),
    ("solve_triangular transposed", lambda x: torch.linalg.solve_triangular(LOWER.T, x, upper=True).sin(), (5, 3)),
    ("cholesky_solve", lambda x: torch.cholesky_solve(x.unsqueeze(-1), LOWER).sin(), (5,)),
    ("matrix_power", lambda x: torch.linalg.matrix_power(0.3 * x, 3), (3, 3)),
)
BILINEAR = seeded(lambda: nn.Bilinear(3, 3, 4), 3)


def solve_lower(x: Tensor) -> Tensor:
    return torch.linalg.solve_triangular(LOWER, x.unsqueeze(-1), upper=False).squeeze(-1).sin()


def positive_definite(x: Tensor) -> Tensor:
    """``[n, k, k]``, with eigenvalues of 1 and more."""
    return torch.eye(x.shape[-1]).to(x) + 0.3 * x @ x.mT


def invertible(x: Tensor) -> Tensor:
    """``[n, k, k]``, whose rows LU has to exchange."""
    return 0.3 * x + 2 * torch.eye(x.shape[-1]).to(x).flip(-1)


group(
    "factorisations",
    ("cholesky", lambda x: torch.linalg.cholesky(positive_definite(x)), (3, 3)),
    ("cholesky upper", lambda x: torch.linalg.cholesky(positive_definite(x), upper=True), (2, 3, 3)),
    ("cholesky of one", lambda x: torch.linalg.cholesky(positive_definite(x)), (1, 1)),
    ("logdet", lambda x: torch.logdet(positive_definite(x)), (5, 5)),
    ("slogdet", lambda x: torch.linalg.slogdet(invertible(x))[1], (3, 3)),
    ("slogdet transposed", lambda x: torch.linalg.slogdet(invertible(x).mT)[1] * x[:, 0, 0], (3, 3)),
    ("det", lambda x: torch.linalg.det(invertible(x)), (3, 3)),
    ("det transposed", lambda x: torch.linalg.det(invertible(x).mT) * 0.1, (2, 4, 4)),
    ("det of singular matrices", lambda x: torch.linalg.det((x > 0).to(x.dtype)) * x[:, 0, 0], (3, 3)),
    ("det of one", lambda x: torch.linalg.det(invertible(x)).square(), (1, 1)),
    ("inv", lambda x: torch.linalg.inv(invertible(x)).sin(), (3, 3)),
    ("inverse of two", lambda x: torch.inverse(invertible(x)).sin(), (2, 2)),
    ("solve", lambda x: torch.linalg.solve(invertible(x), x).sin(), (3, 3)),
    ("solve a vector", lambda x: torch.linalg.solve(invertible(x), x[:, 0]).sin(), (4, 4)),
    ("solve from the right", lambda x: torch.linalg.solve(invertible(x), x[:, :2], left=False).sin(), (3, 3)),
    ("solve by constants", lambda x: torch.linalg.solve(LOWER.T @ LOWER, x).sin(), (5, 3)),
    ("lu_factor", lambda x: torch.linalg.lu_solve(*torch.linalg.lu_factor(invertible(x).detach()), x).sin(), (3, 3)),
    ("x in a covariance", lambda x: normal_of(x), (3, 3)),
)


def normal_of(x: Tensor) -> Tensor:
    scatter = positive_definite(x)
    return distributions.MultivariateNormal(x[:, 0], covariance_matrix=scatter, validate_args=False).log_prob(x[:, 1])


# -- order -------------------------------------------------------------------------------------------------------------

SPREAD = torch.tensor([0.7, -1.3, 2.1, 0.4, -0.6])
group(
    "sorts",
    ("sort", lambda x: x.sort(-1).values.sin() * SPREAD, (5,)),
    ("sort of many", lambda x: x.sort(-1).values.cumsum(-1).sin(), (33,)),
    ("sort of one", lambda x: x.sort(-1).values.sin(), (1,)),
    ("sort down", lambda x: x.sort(-1, descending=True).values.sin() * SPREAD, (5,)),
    ("sort of columns", lambda x: x.sort(1).values.cumsum(1).sin(), (5, 3)),
    ("sort of equals", lambda x: x.clamp(-0.1, 0.1).sort(dim=-1, stable=True).values * SPREAD, (5,)),
    ("argsort", lambda x: x.gather(1, x.sin().argsort(-1)) * SPREAD, (5,)),
    ("argsort of integers", lambda x: (9 * x).long().argsort(dim=-1, stable=True) * x, (5,)),
    ("ranks", lambda x: x.argsort(-1).argsort(-1) * x, (5,)),
    ("topk", lambda x: x.topk(2, -1).values.sin() * SPREAD[:2], (5,)),
    ("topk smallest", lambda x: x.topk(3, 1, largest=False).values.cumsum(1).sin(), (5, 2)),
    ("topk places", lambda x: x.topk(2, -1).indices * x[:, :2], (5,)),
    ("kthvalue", lambda x: x.kthvalue(2, -1).values.sin(), (5,)),
    ("kthvalue kept", lambda x: x.kthvalue(2, 1, keepdim=True).values * x, (5, 2)),
    ("median", lambda x: x.median(-1).values.sin(), (4,)),
    ("median of rows", lambda x: x.median(-1).values.sin(), (3, 5)),
    ("quantile", lambda x: torch.quantile(x, 0.3, dim=-1).sin(), (5,)),
    ("cummax", lambda x: x.cummax(-1).values.sin(), (5,)),
    ("cummin", lambda x: x.cummin(1).values.cumsum(-1).sin(), (4, 2)),
    ("cummax places", lambda x: x.cummax(-1).indices * x, (5,)),
)

# -- movement ----------------------------------------------------------------------------------------------------------

INDEX = torch.tensor([2, 0, 0, 4])
GATHER = torch.tensor([[4, 0, 1], [2, 2, 3], [0, 1, 1]])

group(
    "movements",
    ("slice", lambda x: x[:, 1:4:2].square(), (5,)),
    ("select", lambda x: x[:, -1].square() * x[:, 0], (5,)),
    ("cat", lambda x: torch.cat([x, x.sin(), CENTRES[0].expand(len(x), 5)], -1).square(), (5,)),
    ("stack", lambda x: torch.stack([x, x.cos()], 1).square(), (5,)),
    ("roll", lambda x: x.roll(2, -1) * x, (5,)),
    ("roll two", lambda x: x.roll((1, -1), (1, 2)) * x, (3, 5)),
    ("flip", lambda x: x.flip(-1) * x.cos(), (5,)),
    ("fliplr", lambda x: x.flip((1, 2)) * x.cos(), (2, 3, 4)),
    ("rot90", lambda x: torch.rot90(x, 1, (1, 2)).square(), (2, 3)),
    ("transpose", lambda x: x.transpose(1, 2) @ x, (3, 5)),
    ("permute", lambda x: x.permute(0, 3, 1, 2).reshape(len(x), -1).cumsum(-1), (2, 3, 4)),
    ("reshape", lambda x: x.view(len(x), 4, 6).sum(1).square(), (2, 3, 4)),
    ("squeeze", lambda x: x.unsqueeze(1).squeeze(1).square(), (1,)),
    ("expand", lambda x: (x.unsqueeze(1).expand(-1, 4, -1) - CENTRES).square(), (5,)),
    ("repeat", lambda x: (0.3 * x).repeat(1, 3).cumsum(-1).sin(), (3,)),
    ("tile", lambda x: x.tile(2, 2).cumsum(-1).sin()[: len(x)], (3,)),
    ("repeat_interleave", lambda x: x.repeat_interleave(2, -1).cumsum(-1).sin(), (3,)),
    ("unfold", lambda x: x.unfold(1, 3, 1).prod(-1), (5,)),
    ("overlapping unfold", lambda x: x.unfold(1, 2, 1).sum(-1).square(), (5,)),
    ("diagonal", lambda x: x.diagonal(dim1=1, dim2=2).square(), (3, 3)),
    ("diag_embed", lambda x: torch.diag_embed(x).sin() + x.unsqueeze(-1), (3,)),
    ("tril triu", lambda x: x.tril().sum(1).sin() + x.triu(1).sum(2).cos(), (3, 3)),
    ("pad", lambda x: F.pad(x, (2, 1), value=0.5).square(), (5,)),
    ("pad reflect", lambda x: F.pad(x, (2, 1), mode="reflect").square(), (3, 5)),
    ("pad replicate", lambda x: F.pad(x, (2, 1), mode="replicate").square(), (3, 5)),
    ("pad circular", lambda x: F.pad(x, (2, 1), mode="circular").square(), (3, 5)),
    ("split", lambda x: torch.prod(torch.stack(x.split(2, -1)), 0), (4,)),
    ("chunk", lambda x: x.chunk(2, -1)[0] * x.chunk(2, -1)[1].sin(), (4,)),
    ("unbind", lambda x: x.unbind(1)[1] * x.unbind(1)[0].sin(), (3,)),
    ("meshgrid", lambda x: torch.cartesian_prod(torch.arange(2.0), torch.arange(3.0)).sum() * x, (3,)),
    ("movedim", lambda x: x.movedim(1, 3).square().cumsum(-1), (2, 3, 4)),
    ("swapaxes", lambda x: x.swapaxes(1, 2).cumsum(-1).sin(), (3, 5)),
    ("unflatten", lambda x: x.unflatten(-1, (2, 2)).sum(-1).square(), (4,)),
    ("pixel_shuffle", lambda x: F.pixel_shuffle(x, 2).cumsum(-1).sin(), (4, 2, 2)),
    ("hstack", lambda x: torch.hstack([x, x.sin()]).cumsum(-1).sin(), (3,)),
    ("tensor_split", lambda x: x.tensor_split(2, -1)[1].square(), (5,)),
    ("narrow", lambda x: x.narrow(-1, 1, 2).square(), (5,)),
    ("as_strided", lambda x: torch.as_strided(x.contiguous(), (len(x), 3, 3), (x.shape[1], 1, 1)).prod(-1), (5,)),
)


def written(x: Tensor) -> Tensor:
    y = x * 1.0
    y[:, 1] = y[:, 0] * 2.0
    y[:, 2:4] += x[:, :2].sin()
    y.mul_(0.5).clamp_(max=0.9)
    y[:, INDEX[:2]] = x[:, 3:5]
    return y.square()


def masked_write(x: Tensor) -> Tensor:
    y = x.clone()
    y.masked_fill_(x > 0.5, 0.25)
    return y.square() + x


group(
    "indexing",
    ("index", lambda x: x[:, INDEX].square(), (5,)),
    ("index literal", lambda x: x[:, [3, 1]].square(), (5,)),
    ("index two", lambda x: x[:, INDEX[:3], [1, 1, 0]].square(), (5, 2)),
    ("index negative", lambda x: x[:, torch.tensor([-1, -2, 0])].square(), (5,)),
    ("index mask", lambda x: x[:, torch.tensor([True, False, True])].square(), (3,)),
    ("index_select", lambda x: x.index_select(1, INDEX).square(), (5,)),
    ("take_along_dim", lambda x: torch.take_along_dim(x, GATHER.expand(len(x), 3, 3), 2).square(), (3, 5)),
    ("gather", lambda x: x.gather(2, GATHER.expand(len(x), 3, 3)).square(), (3, 5)),
    (
        "gather first",
        lambda x: x.gather(
            1,
            GATHER[1:2].expand(
                len(x),
                3,
            )
            % 3,
        ).square(),
        (3,),
    ),
    ("argmax gather", lambda x: x.gather(1, x.argmax(-1, keepdim=True)).square(), (5,)),
    ("argmin gather", lambda x: x.sin().gather(2, x.argmin(-1, keepdim=True)).square(), (3, 5)),
    ("argmax of all", lambda x: x.flatten(1).argmax(1) * x.sum((1, 2)), (3, 2)),
    ("scatter", lambda x: torch.zeros(len(x), 6).to(x).scatter(1, INDEX_ONCE.expand(len(x), 3), x).cumsum(-1).sin()),
    ("scatter number", lambda x: x.scatter(1, INDEX_ONCE[1:2].expand(len(x), 1), 0.5).square()),
    ("scatter_add", lambda x: torch.zeros(len(x), 5).to(x).scatter_add(1, INDEX.expand(len(x), 4), x).square(), (4,)),
    (
        "scatter_reduce sum",
        lambda x: torch.zeros(len(x), 5).to(x).scatter_reduce(1, INDEX.expand(len(x), 4), x, "sum").square(),
        (4,),
    ),
    ("index_add", lambda x: x.index_add(1, INDEX, x[:, :4].sin()).square(), (5,)),
    ("index_add alpha", lambda x: x.index_add(1, INDEX, x[:, :4].sin(), alpha=0.3).square(), (5,)),
    ("index_copy", lambda x: x.index_copy(1, INDEX_ONCE, x[:, :3].sin()).square(), (5,)),
    ("index_fill", lambda x: x.index_fill(1, INDEX_ONCE, 0.3).square(), (5,)),
    ("index_put", lambda x: x.index_put((torch.arange(len(x))[:, None], INDEX), x[:, :4].sin(), accumulate=True), (5,)),
    ("select_scatter", lambda x: torch.select_scatter(x, x[:, 0].sin(), 1, 2).square(), (5,)),
    ("slice_scatter", lambda x: torch.slice_scatter(x, x[:, :2].sin(), 1, 1, 5, 2).square(), (5,)),
    ("diagonal_scatter", lambda x: torch.diagonal_scatter(x, x[:, 0].sin(), 0, 1, 2).square(), (3, 3)),
    ("masked_select constant", lambda x: x[:, POSITIVE > 1].square(), (3,)),
    ("masked_scatter like", masked_write, (5,)),
    ("written in place", written, (5,)),
    ("embedding constant", lambda x: (F.embedding(INDEX, CENTRES.T) * x.unsqueeze(1)).sin(), (4,)),
    ("embedding by chain", lambda x: F.embedding((x[:, 0] > 0).long() + (x[:, 1] > 0), CENTRES) * x, (5,)),
    ("one_hot", lambda x: (INDEX.unsqueeze(-1) == torch.arange(5)).to(x).mul(x.unsqueeze(1)).sin(), (5,)),
    ("index by chain", lambda x: CENTRES.to(x)[(3 * x[:, 0].sigmoid()).long()] * x.sin(), (5,)),
    ("index by chain and constants", lambda x: CENTRES.to(x)[(x[:, :1] > 0).long() - 1, INDEX] * x[:, :4], (5,)),
    ("integer clamp", lambda x: (4 * x).long().clamp(-0.5, 2.5) * x, (5,)),
    (
        "integer ones",
        lambda x: torch.div(torch.ones_like(x, dtype=torch.int64) + 6, 2, rounding_mode="floor") * x,
        (5,),
    ),
    ("integer sign", lambda x: ((4 * x).long().sign() & 3) * x, (5,)),
    ("bucketize like", lambda x: (x.unsqueeze(-1).detach() > POSITIVE).sum(-1) * x, (5,)),
    ("searchsorted", lambda x: torch.searchsorted(POSITIVE, x.detach().contiguous()) * x, (5,)),
)
INDEX_ONCE = torch.tensor([4, 0, 2])

# -- models ------------------------------------------------------------------------------------------------------------


class LSTMCell(nn.Module):
    """Two steps over a sequence, written by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.inputs, self.hidden = nn.Linear(3, 16), nn.Linear(4, 16)

    def forward(self, x: Tensor) -> Tensor:
        h = c = x.new_zeros(len(x), 4)
        for token in x.unbind(1):
            i, f, g, o = (self.inputs(token) + self.hidden(h)).chunk(4, -1)
            c = f.sigmoid() * c + i.sigmoid() * g.tanh()
            h = o.sigmoid() * c.tanh()
        return h


def attend(x: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(x, x.sin(), x.cos())


def attend_causally(x: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(x, x.sin(), x.cos(), is_causal=True)


MIX = torch.tensor([0.2, 0.5, 0.3])


def normal_mixture(x: Tensor) -> Tensor:
    parts = distributions.Independent(
        distributions.Normal(CENTRES[:3], 0.5 + POSITIVE[:, None].expand(3, 5), validate_args=False),
        1,
        validate_args=False,
    )
    mixture = distributions.MixtureSameFamily(
        distributions.Categorical(MIX, validate_args=False), parts, validate_args=False
    )
    return mixture.log_prob(x)


group(
    "distributions",
    ("Normal", lambda x: distributions.Normal(0.3, 0.8, validate_args=False).log_prob(x)),
    ("Laplace", lambda x: distributions.Laplace(0.3, 0.8, validate_args=False).log_prob(x)),
    ("StudentT", lambda x: distributions.StudentT(3.5, 0.3, 0.8, validate_args=False).log_prob(x)),
    ("Gumbel", lambda x: distributions.Gumbel(0.3, 0.8, validate_args=False).log_prob(x)),
    ("Cauchy", lambda x: distributions.Cauchy(0.3, 0.8, validate_args=False).log_prob(x)),
    ("Gamma", lambda x: distributions.Gamma(POSITIVE, 0.8, validate_args=False).log_prob(above(x))),
    ("Beta", lambda x: distributions.Beta(POSITIVE, 1.7, validate_args=False).log_prob(0.1 + 0.8 * x.sigmoid())),
    ("LogNormal", lambda x: distributions.LogNormal(0.1, 0.8, validate_args=False).log_prob(above(x))),
    ("Exponential", lambda x: distributions.Exponential(above(x), validate_args=False).log_prob(above(x).square())),
    ("HalfNormal", lambda x: distributions.HalfNormal(0.8, validate_args=False).log_prob(above(x))),
    ("Weibull", lambda x: distributions.Weibull(0.8, 1.3, validate_args=False).log_prob(above(x))),
    ("VonMises free", lambda x: 0.7 * torch.cos(x - 0.4)),
    ("Dirichlet", lambda x: distributions.Dirichlet(POSITIVE, validate_args=False).log_prob(x.softmax(-1))),
    ("Poisson", lambda x: distributions.Poisson(above(x), validate_args=False).log_prob(POSITIVE.round())),
    ("Bernoulli", lambda x: distributions.Bernoulli(logits=x, validate_args=False).log_prob(MIX)),
    ("Categorical", lambda x: distributions.Categorical(logits=x, validate_args=False).log_prob(torch.tensor(1))),
    ("MultivariateNormal", lambda x: multivariate(x), (5,)),
    ("MixtureSameFamily", normal_mixture, (5,)),
    (
        "kl of normals",
        lambda x: distributions.kl_divergence(
            distributions.Normal(x, above(x), validate_args=False), distributions.Normal(0.1, 1.2, validate_args=False)
        ),
    ),
)


def multivariate(x: Tensor) -> Tensor:
    return distributions.MultivariateNormal(MATRIX[0], scale_tril=LOWER, validate_args=False).log_prob(x)


group(
    "networks",
    ("attention", attend, (3, 4)),
    ("causal attention", attend_causally, (3, 4)),
    ("LSTM cell", lambda x: LSTM(x), (2, 3)),
    ("GRUCell", lambda x: GRU_CELL(x), (3,)),
    ("MLP", lambda x: MLP(x), (5,)),
)
group(
    "network modules",
    ("MultiheadAttention", lambda x: MULTIHEAD(x, x, x, need_weights=False)[0], (3, 4)),
    ("LSTMCell", lambda x: LSTM_CELL(x)[0], (3,)),
    ("GRU", lambda x: GRU(x)[0], (2, 3)),
    ("RNN", lambda x: RNN(x)[0], (2, 3)),
    ("Transformer layer", lambda x: TRANSFORMER(x), (3, 4)),
)
MULTIHEAD = seeded(lambda: nn.MultiheadAttention(4, 2, batch_first=True), 4)
LSTM, LSTM_CELL = seeded(LSTMCell, 5), seeded(lambda: nn.LSTMCell(3, 4), 6)
GRU_CELL = seeded(lambda: nn.GRUCell(3, 4), 7)
GRU = seeded(lambda: nn.GRU(3, 4, batch_first=True), 8)
RNN = seeded(lambda: nn.RNN(3, 4, batch_first=True), 8)
MLP = seeded(lambda: nn.Sequential(nn.Linear(5, 33), nn.SELU(), nn.Linear(33, 17), nn.GELU(), nn.Linear(17, 1)), 9)
TRANSFORMER = seeded(lambda: nn.TransformerEncoderLayer(4, 2, 8, batch_first=True, dropout=0.0), 10)

group(
    "images",
    ("conv2d", lambda x: F.conv2d(x, KERNEL2, KERNEL2[:, 0, 0, 0], padding=1).sin(), (2, 4, 4)),
    ("avg_pool1d", lambda x: F.avg_pool1d(x, 2).square(), (3, 6)),
    ("avg_pool2d", lambda x: F.avg_pool2d(x, 2).square(), (2, 4, 4)),
    ("adaptive_avg_pool", lambda x: F.adaptive_avg_pool2d(x, 1).square(), (2, 4, 4)),
    ("max_pool1d", lambda x: F.max_pool1d(x, 2).square(), (3, 6)),
    ("upsample nearest", lambda x: F.interpolate(0.3 * x, scale_factor=2, mode="nearest").cumsum(-1).sin(), (1, 3, 3)),
)
group(
    "more images",
    ("conv1d", lambda x: F.conv1d(x, KERNEL1, stride=2, padding=1).sin(), (3, 7)),
    ("conv2d strided", lambda x: F.conv2d(x, KERNEL2, stride=2, padding=1).sin(), (2, 5, 4)),
    ("conv2d grouped", lambda x: F.conv2d(x, KERNEL2[:, :1], groups=2, dilation=2).sin(), (2, 6, 5)),
    ("conv_transpose2d", lambda x: F.conv_transpose2d(x, KERNEL2[:2], stride=2, padding=1).sin(), (2, 3, 3)),
    ("max_pool2d", lambda x: F.max_pool2d(x, 2).square(), (2, 4, 4)),
    ("upsample bilinear", lambda x: F.interpolate(x, scale_factor=2, mode="bilinear").sin(), (1, 3, 3)),
)
KERNEL1, KERNEL2 = fixed(4, 3, 3, seed=31, scale=0.3), fixed(4, 2, 3, 3, seed=32, scale=0.3)


# -- energies ----------------------------------------------------------------------------------------------------------


def energy_of(operations: list[Operation]) -> Callable[[Tensor], Tensor]:
    """One energy ``[n, sum of sizes] -> [n]``, each operation on elements of its own, so that none hides another's."""
    weights = [0.4 + torch.rand(128, generator=torch.Generator().manual_seed(k)) for k in range(len(operations))]

    def energy(x: Tensor) -> Tensor:
        total, first = 0.05 * x.square().sum(-1), 0
        for operation, weight in zip(operations, weights, strict=True):
            part = x[:, first : first + operation.numel].reshape(len(x), *operation.event)
            out = operation.function(part).reshape(len(x), -1)
            total = total + (out * weight[: out.shape[1]]).sum(-1)
            first += operation.numel
        return total

    return energy


def parts_of(operations: list[Operation]) -> dict[str, slice]:
    """Where each operation's elements are."""
    parts, first = {}, 0
    for operation in operations:
        parts[operation.name] = slice(first, first + operation.numel)
        first += operation.numel
    return parts
