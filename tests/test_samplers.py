"""``LangevinDynamics`` against TorchEBM 0.8: signature, shapes, diagnostics, drift, schedulers, training."""

from __future__ import annotations

import copy
import inspect
import itertools
import pickle
import signal
import warnings

import pytest
import torch
from torch import Tensor, nn

import compiled_ebm as ce

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    torchebm = pytest.importorskip("torchebm")
    from torchebm.core import BaseModel as TorchEbmModel
    from torchebm.core import CosineScheduler, DoubleWellModel, LinearScheduler
    from torchebm.losses import ContrastiveDivergence
    from torchebm.samplers import LangevinDynamics as Reference


class Net(TorchEbmModel):
    """A torchebm model with weights."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(2, 16), nn.SiLU(), nn.Linear(16, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x).squeeze(-1) + 0.5 * x.square().sum(-1)


def dynamics(model: object = None, **options: object) -> ce.LangevinDynamics:
    options.setdefault("backend", "eager")
    return ce.LangevinDynamics(ce.DoubleWellModel() if model is None else model, **options)


def test_arguments_and_defaults_are_torchebms() -> None:
    for name in ("__init__", "sample"):
        theirs = inspect.signature(getattr(Reference, name)).parameters
        ours = inspect.signature(getattr(ce.LangevinDynamics, name)).parameters
        assert [n for n in ours if n != "backend"] == list(theirs)
        assert {n: p.default for n, p in ours.items() if n != "backend"} == {n: p.default for n, p in theirs.items()}


@pytest.mark.parametrize(("n_steps", "thin"), [(12, 1), (12, 5), (7, 7), (0, 1), (3, 10)])
@pytest.mark.parametrize("event", [(2,), (3, 4)])
@pytest.mark.parametrize("n_samples", [1, 6])
def test_shapes_are_torchebms(n_steps: int, thin: int, event: tuple[int, ...], n_samples: int) -> None:
    def energy(x: Tensor) -> Tensor:
        return 0.5 * x.square().flatten(1).sum(1)

    class Model(TorchEbmModel):
        def forward(self, x: Tensor) -> Tensor:
            return energy(x)

    ask = {"dim": event, "n_steps": n_steps, "n_samples": n_samples, "thin": thin, "return_diagnostics": True}
    for trajectory in (False, True):
        ours, our_diag = dynamics(energy).sample(**ask, return_trajectory=trajectory)
        theirs, their_diag = Reference(Model()).sample(**ask, return_trajectory=trajectory)
        assert ours.shape == theirs.shape and ours.dtype == theirs.dtype
        assert {k: v.shape for k, v in our_diag.items()} == {k: v.shape for k, v in their_diag.items()}


def test_last_position_is_the_end_of_the_trajectory() -> None:
    generator = torch.Generator().manual_seed(3)
    last = dynamics().sample(dim=2, n_samples=5, n_steps=9, generator=generator)
    path = dynamics().sample(dim=2, n_samples=5, n_steps=9, return_trajectory=True, generator=generator.manual_seed(3))
    assert torch.equal(path[:, -1], last)


def test_diagnostics_are_those_of_the_kept_positions() -> None:
    model = ce.DoubleWellModel()
    path, diag = dynamics(model).sample(
        dim=3, n_samples=50, n_steps=8, thin=2, return_trajectory=True, return_diagnostics=True
    )
    torch.testing.assert_close(diag["mean"], path.mean(0))
    torch.testing.assert_close(diag["var"], path.var(0, unbiased=False))
    torch.testing.assert_close(diag["energy"], torch.stack([model(path[:, k]).mean() for k in range(4)]))


def test_drift_agrees_with_torchebm() -> None:
    """At a noise scale of 1e-12 twenty steps are gradient descent in both."""
    torch.manual_seed(0)
    for model in (DoubleWellModel(), Net()):
        x = torch.randn(64, 2)
        theirs = Reference(model, step_size=0.01, noise_scale=1e-12).sample(x=x.clone(), n_steps=20)
        ours = dynamics(model, step_size=0.01, noise_scale=1e-12).sample(x=x, n_steps=20)
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


def test_drift_control_fails() -> None:
    """One per cent in the step size is seen by the comparison above."""
    x = torch.randn(64, 2, generator=torch.Generator().manual_seed(0))
    theirs = Reference(DoubleWellModel(), step_size=0.01, noise_scale=1e-12).sample(x=x.clone(), n_steps=20)
    ours = dynamics(step_size=0.0101, noise_scale=1e-12).sample(x=x, n_steps=20)
    assert not torch.allclose(ours, theirs, rtol=1e-5, atol=1e-6)


def test_noise_has_torchebms_scale() -> None:
    """After one step from 0 on a flat energy the standard deviation is s sqrt(2 eta), within 5 standard errors."""
    x = torch.zeros(50_000, 2)
    sample = dynamics(lambda x: 0.0 * x.sum(-1), step_size=0.02, noise_scale=0.7)
    moved = sample.sample(x=x, n_steps=1, generator=torch.Generator().manual_seed(1))
    expected = 0.7 * (2 * 0.02) ** 0.5
    assert abs(moved.std().item() - expected) < 5 * expected / (2 * moved.numel()) ** 0.5
    assert abs(moved.std().item() - 1.05 * expected) > 5 * expected / (2 * moved.numel()) ** 0.5


def test_seeds() -> None:
    sampler = dynamics()
    torch.manual_seed(5)
    first, second = sampler.sample(dim=2, n_samples=4), sampler.sample(dim=2, n_samples=4)
    torch.manual_seed(5)
    assert torch.equal(sampler.sample(dim=2, n_samples=4), first)
    assert not torch.equal(first, second)


def test_input_is_not_changed_and_output_is_detached() -> None:
    model = Net()
    x = torch.randn(8, 2, requires_grad=True)
    before = x.detach().clone()
    out = dynamics(model).sample(x=x, n_steps=5)
    assert torch.equal(x, before) and not out.requires_grad
    assert all(p.grad is None for p in model.parameters())


def test_torchebm_schedulers_and_ours() -> None:
    model, schedules = ce.HarmonicModel(), ce.schedules
    theirs = dynamics(model, step_size=CosineScheduler(0.1, 0.001, 30), noise_scale=LinearScheduler(1.0, 0.1, 30))
    ours = dynamics(model, step_size=schedules.Cosine(0.1, 0.001, 30), noise_scale=schedules.Linear(1.0, 0.1, 30))
    outs = [
        s.sample(dim=2, n_samples=9, n_steps=30, generator=torch.Generator().manual_seed(2)) for s in (theirs, ours)
    ]
    torch.testing.assert_close(*outs)


def test_reset_schedulers() -> None:
    sampler = dynamics(ce.HarmonicModel(), step_size=ce.schedules.Linear(0.1, 0.0001, 100))
    start = sampler.get_scheduled_value("step_size")
    sampler.sample(dim=2, n_samples=2, n_steps=40)
    later = sampler.get_scheduled_value("step_size")
    sampler.sample(dim=2, n_samples=2, n_steps=10, reset_schedulers=False)
    assert start > later > sampler.get_scheduled_value("step_size")
    sampler.reset_schedulers()
    assert sampler.get_scheduled_value("step_size") == start == 0.1


def test_schedulers_are_read_as_torchebms_are() -> None:
    """A number and a schedule as views that follow the sampler's steps; TorchEBM's own scheduler as it is."""
    own = LinearScheduler(1.0, 0.5, 10)
    sampler = ce.LangevinDynamics(
        ce.HarmonicModel(), step_size=ce.schedules.Linear(0.1, 0.05, 10), noise_scale=own, backend="eager"
    )
    theirs = torchebm.samplers.LangevinDynamics(torchebm.core.HarmonicModel(), LinearScheduler(0.1, 0.05, 10), own)
    ours = sampler.schedulers["step_size"]
    assert sampler.get_schedulers().keys() == theirs.get_schedulers().keys()
    assert sampler.schedulers["noise_scale"] is own
    sampler.sample(dim=2, n_steps=4)
    theirs.sample(dim=2, n_steps=4)
    for name in ("get_value", "current_value", "start_value", "step_count"):
        got, wanted = (getattr(s, name) for s in (ours, theirs.schedulers["step_size"]))
        assert (got() if callable(got) else got) == pytest.approx(wanted() if callable(wanted) else wanted)
    assert ce.LangevinDynamics(ce.HarmonicModel(), 0.1).schedulers["step_size"].get_value() == 0.1
    with pytest.raises(TypeError):
        sampler.schedulers["step_size"] = 0.2


def test_register_scheduler_never_rebuilds() -> None:
    sampler = dynamics(step_size=0.01)
    sampler.sample(dim=2, n_samples=2, n_steps=2)
    sampler.register_scheduler("step_size", ce.schedules.Exponential(0.1, 0.9))
    sampler.register_scheduler("noise_scale", 0.5)
    sampler.sample(dim=2, n_samples=2, n_steps=2)
    (built,) = sampler._samplers.values()
    assert built._builds.count == 1
    assert sampler.get_scheduled_value("noise_scale") == 0.5
    with pytest.raises(ValueError, match="step_size"):
        sampler.register_scheduler("step_size", -1.0)
    sampler.reset_schedulers()
    assert sampler.get_scheduled_value("step_size") == 0.1
    with pytest.raises(KeyError, match="step_size, noise_scale"):
        sampler.register_scheduler("temperature", 1.0)


def test_contrastive_divergence_trains() -> None:
    """torchebm's CD-10 with our sampler: weights are live, nothing is rebuilt, data gets a lower energy than noise."""
    torch.manual_seed(0)
    model = Net()
    sampler = dynamics(model, step_size=0.05)
    loss = ContrastiveDivergence(model=model, sampler=sampler, k_steps=10)
    optimiser = torch.optim.Adam(model.parameters(), 0.05)
    data = torch.tensor([1.5, -1.0]) + 0.1 * torch.randn(256, 2)
    for _ in range(60):
        optimiser.zero_grad()
        value, negatives = loss(data)
        value.backward()
        optimiser.step()
    (built,) = sampler._samplers.values()
    assert built._builds.count == 1
    assert negatives.shape == data.shape
    with torch.no_grad():
        assert model(data).mean() < model(torch.randn(256, 2)).mean() - 1.0


def test_conditioning() -> None:
    """``y`` and ``model_kwargs`` of one row per chain go to their chain."""

    def energy(x: Tensor, y: Tensor) -> Tensor:
        return 50.0 * (x - y.unsqueeze(-1)).square().sum(-1)

    y = torch.arange(6.0)
    for given in ({"y": y}, {"model_kwargs": {"y": y}}):
        out = dynamics(energy, step_size=0.005).sample(x=torch.zeros(6, 2), n_steps=200, **given)
        assert (out - y[:, None]).abs().max() < 5 * 0.1 * 1.2
    with pytest.raises(ValueError, match="give it once"):
        dynamics(energy).sample(dim=2, n_samples=6, y=y, model_kwargs={"y": y})


def test_dtype_and_to() -> None:
    sampler = dynamics(Net())
    assert sampler.dtype == torch.float32 and sampler.device == torch.device("cpu")
    moved = sampler.to(torch.float64)
    assert moved is sampler and sampler.dtype == torch.float64
    assert sampler.sample(dim=2, n_samples=3, n_steps=2).dtype == torch.float64
    holder = nn.ModuleDict({"sampler": sampler}).to(torch.float32)
    assert holder["sampler"].dtype == torch.float32
    assert dynamics(dtype=torch.bfloat16).sample(dim=2, n_samples=3, n_steps=2).dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"step_size": -0.1}, "step_size"),
        ({"step_size": 0.0}, "step_size"),
        ({"step_size": float("nan")}, "step_size"),
        ({"step_size": "big"}, "step_size"),
        ({"noise_scale": -1.0}, "noise_scale"),
        ({"clamp": (1.0, -1.0)}, "clamp"),
        ({"clamp": (1.0, 1.0)}, "clamp"),
        ({"clamp": 3.0}, "clamp"),
        ({"backend": "warp"}, "backend"),
        ({"dtype": torch.int32}, "dtype"),
        ({"integrator": "heun"}, "integrator"),
        ({"device": "cuda:99"}, "device|CUDA"),
    ],
)
def test_constructor_refuses(options: dict[str, object], message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        dynamics(**options).sample(dim=2)


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        ({"dim": 2, "thin": 0}, "thin"),
        ({"dim": 2, "n_steps": -1}, "n_steps"),
        ({"dim": 2, "n_steps": 1.5}, "n_steps"),
        ({"dim": 2, "n_samples": 0}, "n_samples"),
        ({"dim": -2}, "dim"),
        ({"dim": 2.0}, "dim"),
        ({}, "dim"),
        ({"x": torch.zeros(3, 2, dtype=torch.int64)}, "x: expected a floating-point"),
        ({"x": torch.full((3, 2), float("nan"))}, "finite"),
        ({"x": [[0.0, 0.0]]}, "x: expected a tensor"),
        ({"x": torch.zeros(())}, "x: expected shape"),
        ({"dim": 2, "model_kwargs": [1]}, "model_kwargs"),
        ({"dim": 2, "generator": 3}, "generator"),
    ],
)
def test_sample_refuses(ask: dict[str, object], message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        dynamics().sample(**ask)


def test_wrong_event_is_refused_with_the_users_line() -> None:
    with pytest.raises(ce.UnsupportedEnergyError, match=r"\[11, 3\].*test_samplers.py"):
        dynamics(Net()).sample(x=torch.zeros(5, 3))


def test_another_event_shape_than_before_is_told_where_the_energy_fails() -> None:
    sampler = dynamics(Net())
    sampler.sample(dim=2, n_steps=1)
    with pytest.raises(
        ce.UnsupportedEnergyError, match=r"^x: expected event shape \(2,\), as .*, got \(3,\); energy: "
    ):
        sampler.sample(x=torch.zeros(5, 3))
    with pytest.raises(ce.UnsupportedEnergyError, match=r"^dim: expected event shape \(2,\), as .*, got \(4,\); "):
        sampler.sample(dim=4)


def test_decay_has_no_effect_and_says_so() -> None:
    with pytest.warns(UserWarning, match="decay"):
        sampler = dynamics(decay=0.5)
    seeds = [torch.Generator().manual_seed(1) for _ in range(2)]
    outs = [s.sample(dim=2, n_samples=3, generator=g) for s, g in zip((sampler, dynamics()), seeds, strict=True)]
    assert torch.equal(*outs)


def test_model_must_be_callable() -> None:
    with pytest.raises(TypeError, match="model"):
        ce.LangevinDynamics(3.0)


def test_source_is_the_code_of_each_event_shape() -> None:
    sampler = dynamics()
    assert sampler.source == ""
    sampler.sample(dim=2, n_steps=1)
    one = sampler.source
    assert one.startswith("# event shape (2,)\n") and "torch.ops.aten" in one
    sampler.sample(dim=3, n_steps=1)
    assert sampler.source.startswith(one) and "# event shape (3,)\n" in sampler.source


def test_copies_and_pickles_go_on_by_themselves() -> None:
    sampler = ce.LangevinDynamics(ce.HarmonicModel(), 0.01, backend="eager")
    torch.manual_seed(3)
    want = sampler.sample(dim=2, n_steps=4, n_samples=5)
    for other in (copy.deepcopy(sampler), pickle.loads(pickle.dumps(sampler))):
        torch.manual_seed(3)
        assert torch.equal(other.sample(dim=2, n_steps=4, n_samples=5), want)


def test_ctrl_c_reaches_the_loop_around_a_call(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = itertools.count()

    def energy(x: Tensor) -> Tensor:
        if next(calls) == 300:
            signal.raise_signal(signal.SIGINT)
        return x.square().sum(-1)

    sampler = ce.LangevinDynamics(energy, 0.01, backend="eager")
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            sampler.sample(dim=2, n_steps=100_000)
    finally:
        signal.signal(signal.SIGINT, previous)
