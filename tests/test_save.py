"""Draws on their way out: saved and read back, summarised, plotted."""

import contextlib
import doctest
import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from compiled_ebm.draws import plot, save, summary
from compiled_ebm.draws.save import SUFFIXES, check_save, load_draws, save_draws
from compiled_ebm.draws.summary import QUANTILES, summarise, summary_table

DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16]
METADATA = {"seed": "7", "energy": "mine:energy", "transition": "Langevin(step_size=0.1) η"}


def example(dtype: torch.dtype = torch.float32) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        "draws": torch.randn(5, 4, 2, 3, generator=generator, dtype=torch.float64).to(dtype),
        "energy": torch.randn(5, generator=generator),
        "failed_at": torch.tensor([-1, -1, 3, -1, 0]),
    }


# --- save and load ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_round_trip(tmp_path: Path, suffix: str, dtype: torch.dtype) -> None:
    path = tmp_path / f"draws{suffix}"
    arrays = example(dtype)
    save_draws(path, arrays, METADATA)
    loaded = load_draws(path)
    assert loaded.metadata == METADATA
    assert list(loaded.arrays) == list(arrays) or suffix == ".safetensors"  # which sorts by size of the type
    for name, tensor in arrays.items():
        assert loaded.arrays[name].dtype == tensor.dtype
        assert torch.equal(loaded.arrays[name], tensor)
    assert os.listdir(tmp_path) == [path.name]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_round_trip_of_strided_shared_and_empty_tensors(tmp_path: Path, suffix: str) -> None:
    whole = torch.arange(24.0).reshape(2, 6, 2)
    arrays = {"draws": whole[:, :4], "again": whole, "none": whole[:, :0], "one": torch.tensor(3.0, requires_grad=True)}
    save_draws(tmp_path / f"d{suffix}", arrays, {})
    loaded, metadata = load_draws(tmp_path / f"d{suffix}")
    assert metadata == {}
    assert all(torch.equal(loaded[name], tensor) for name, tensor in arrays.items())


def test_npz_is_readable_by_numpy_alone(tmp_path: Path) -> None:
    save_draws(tmp_path / "d.npz", example(torch.bfloat16), METADATA)
    with np.load(tmp_path / "d.npz", allow_pickle=False) as file:
        assert file["draws"].dtype == np.float32
        np.testing.assert_array_equal(file["draws"], example(torch.bfloat16)["draws"].float().numpy())
        assert file["metadata"].shape == ()
        assert json.loads(str(file["metadata"])) == METADATA | {"bfloat16_as_float32": "draws"}


def test_same_contents_give_the_same_bytes(tmp_path: Path) -> None:
    for name in "ab":  # not so for safetensors, which shuffles its metadata
        save_draws(tmp_path / f"{name}.npz", example(), METADATA)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


def break_writing(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    """Both writers get as far as half a file."""

    def savez(file: object, **arrays: object) -> None:
        file.write(b"half")
        raise error

    def save_file(tensors: object, path: Path, metadata: object) -> None:
        path.write_bytes(b"half")
        raise error

    monkeypatch.setattr(np, "savez", savez)
    monkeypatch.setattr("safetensors.torch.save_file", save_file)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt(), RuntimeError("bug")], ids=repr)
def test_failure_in_the_middle_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str, error: BaseException
) -> None:
    path = tmp_path / f"d{suffix}"
    break_writing(monkeypatch, error)
    with pytest.raises(type(error)):
        save_draws(path, example(), METADATA)
    assert os.listdir(tmp_path) == []
    path.write_bytes(b"old")
    with pytest.raises(type(error)):
        save_draws(path, example(), METADATA)
    assert os.listdir(tmp_path) == [path.name]
    assert path.read_bytes() == b"old"


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_full_disk_is_an_oserror(tmp_path: Path, suffix: str) -> None:
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(OSError, match="(?i)too large"):
            save_draws(tmp_path / f"d{suffix}", {"x": torch.zeros(10_000)}, {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert os.listdir(tmp_path) == []


def test_overwrites_and_writes_through_links(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    link = tmp_path / "d.npz"
    link.symlink_to(tmp_path / "elsewhere" / "real.npz")
    for value in (1.0, 2.0):
        save_draws(link, {"x": torch.tensor(value)}, {})
    assert link.is_symlink()
    assert load_draws(tmp_path / "elsewhere" / "real.npz").arrays["x"] == 2.0


def test_permissions_are_those_of_any_new_file(tmp_path: Path) -> None:
    for suffix in SUFFIXES:
        save_draws(tmp_path / f"d{suffix}", example(), {})
        (tmp_path / "plain").write_text("")
        assert (tmp_path / f"d{suffix}").stat().st_mode & 0o777 == (tmp_path / "plain").stat().st_mode & 0o777


@pytest.mark.parametrize(
    ("arrays", "metadata", "error", "words"),
    [
        ({"metadata": torch.zeros(1)}, {}, ValueError, "metadata"),
        ({"x": [1.0]}, {}, TypeError, "x.*list"),
        ({}, {"seed": 1}, TypeError, "seed.*int"),
    ],
)
def test_wrong_contents(tmp_path: Path, arrays: dict, metadata: dict, error: type, words: str) -> None:
    with pytest.raises(error, match=words):
        save_draws(tmp_path / "d.npz", arrays, metadata)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("name", ["d.csv", "d", "d.npz.gz", "d.NPZ", ".npz"])
def test_unknown_suffix(tmp_path: Path, name: str) -> None:
    for call in (check_save, load_draws, lambda path: save_draws(path, {}, {})):
        with pytest.raises(ValueError, match="ends in .npz or .safetensors"):
            call(tmp_path / name)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("contents", [b"", b"not an archive", b"PK\x03\x04 cut off"])
def test_damaged_file(tmp_path: Path, suffix: str, contents: bytes) -> None:
    (tmp_path / f"d{suffix}").write_bytes(contents)
    with pytest.raises(ValueError, match=f"d{suffix}: expected a file that save_draws wrote"):
        load_draws(tmp_path / f"d{suffix}")


def test_foreign_npz_and_pickles_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "other.npz", x=np.zeros(3))
    np.savez(tmp_path / "pickle.npz", metadata=np.array([object()], dtype=object))
    for name in ("other.npz", "pickle.npz"):
        with pytest.raises(ValueError, match="expected a file that save_draws wrote"):
            load_draws(tmp_path / name)


def test_missing_file(tmp_path: Path) -> None:
    for suffix in SUFFIXES:
        with pytest.raises(FileNotFoundError):
            load_draws(tmp_path / f"no{suffix}")


def test_check_leaves_no_trace(tmp_path: Path) -> None:
    check_save(tmp_path / "d.npz")
    check_save(tmp_path / "d.safetensors")
    assert os.listdir(tmp_path) == []
    (tmp_path / "folder.npz").mkdir()
    for wrong, words in ((tmp_path / "folder.npz", "got a directory"), (tmp_path / "no" / "d.npz", "create it first")):
        with pytest.raises(ValueError, match=words):
            check_save(wrong)


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a directory in which even root can't write")
def test_check_finds_an_unwritable_directory() -> None:
    with pytest.raises(ValueError, match="expected a writable directory, got '/proc'"):
        check_save("/proc/d.npz")


def test_safetensors_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("safetensors", "safetensors.torch"):
        monkeypatch.setitem(sys.modules, module, None)
    save_draws(tmp_path / "d.npz", example(), {})
    for call in (check_save, load_draws, lambda path: save_draws(path, {}, {})):
        with pytest.raises(ImportError, match="pip install safetensors"):
            call(tmp_path / "d.safetensors")


# --- summary ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("event_shape", [(), (3,), (2, 3)], ids=str)
def test_summary_against_numpy(dtype: torch.dtype, event_shape: tuple[int, ...]) -> None:
    draws = torch.randn(50, 7, *event_shape, generator=torch.Generator().manual_seed(1)).to(dtype)
    energy = torch.arange(50.0)
    found = summarise(draws, energy, torch.full((50,), -1))
    reference = draws.double().flatten(0, 1).reshape(350, -1).numpy()
    assert (found.n_chains, found.n_failed, found.n_kept, found.n_dims) == (50, 0, 7, reference.shape[1])
    assert found.mean_energy == pytest.approx(24.5)
    for d, row in enumerate(found.dimensions):
        assert row.mean == pytest.approx(reference[:, d].mean(), abs=1e-12)
        assert row.std == pytest.approx(reference[:, d].std(ddof=1), rel=1e-12)
        assert row.quantiles == pytest.approx(tuple(np.quantile(reference[:, d], QUANTILES)), rel=1e-6)


def test_summary_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    draws = torch.randn(101, 6, 2, dtype=torch.float64)
    alive = torch.full((101,), -1)
    alive[::3] = 5
    whole = summarise(draws, torch.zeros(101), alive)
    monkeypatch.setattr(summary, "_CHUNK", 20)
    parts = summarise(draws, torch.zeros(101), alive)
    for a, b in zip(whole.dimensions, parts.dimensions, strict=True):
        assert a.quantiles == b.quantiles
        assert (a.mean, a.std) == pytest.approx((b.mean, b.std), rel=1e-12)


def test_quantiles_of_a_subset_see_every_draw_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(summary, "_MAX_SORTED", 5000)
    monkeypatch.setattr(summary, "_CHUNK", 777)
    # the second draw of each chain is far away: a stride of 2 or 4 would see all of it or none
    draws = torch.rand(5000, 4, 1)
    draws[:, 1] += 10
    row = summarise(draws, torch.zeros(5000), torch.full((5000,), -1)).dimensions[0]
    assert row.mean == pytest.approx(float(draws.double().mean()))
    assert row.quantiles == pytest.approx(tuple(np.quantile(draws.numpy(), QUANTILES)), abs=0.05)


def test_ten_million_values() -> None:
    x = torch.linspace(-1, 1, 20_000_001).flip(0).reshape(-1, 1, 1)  # beyond torch.quantile's 2^24
    row = summarise(x, torch.zeros(1).expand(len(x)), torch.full((1,), -1).expand(len(x))).dimensions[0]
    assert row.mean == pytest.approx(0, abs=1e-7)
    assert row.std == pytest.approx(3**-0.5, rel=1e-6)
    assert row.quantiles == pytest.approx((-0.9, 0.0, 0.9), abs=1e-6)


def test_failed_chains_are_left_out() -> None:
    draws = torch.tensor([1.0, 1e30, 3.0]).reshape(3, 1, 1)
    found = summarise(draws, torch.tensor([1.0, torch.inf, 5.0]), torch.tensor([-1, 7, -1]))
    assert (found.n_chains, found.n_failed) == (2, 1)
    assert (found.dimensions[0].mean, found.mean_energy) == (2.0, 3.0)
    nothing = summarise(draws, torch.zeros(3), torch.zeros(3, dtype=torch.int64))
    assert (nothing.n_chains, nothing.dimensions) == (0, ())
    assert render(nothing) == ["0 chains, last positions; 3 failed chains left out"]


def render(found: summary.DrawsSummary) -> list[str]:
    from rich.console import Console

    console = Console(width=100, color_system=None, no_color=True)
    with console.capture() as capture:
        console.print(summary_table(found))
    return [line.rstrip() for line in capture.get().splitlines()]


def test_table_shows_the_first_dimensions() -> None:
    found = summarise(torch.ones(4, 3, 1, 28, 28), torch.zeros(4), torch.full((4,), -1))
    lines = render(found)
    assert lines[0] == "4 chains, 3 draws each"
    assert lines[1].split() == ["mean", "std", "5%", "50%", "95%"]
    assert lines[3].split() == ["x[0,0,0]", "1", "0", "1", "1", "1"]
    assert lines[-2].startswith("x[0,0,9]")
    assert lines[-1] == "and 774 more"


def test_single_value_has_no_spread() -> None:
    row = summarise(torch.ones(1, 1, 1), torch.zeros(1), torch.tensor([-1])).dimensions[0]
    assert np.isnan(row.std)
    assert row.quantiles == (1.0, 1.0, 1.0)


# --- plot -------------------------------------------------------------------------------------------------------------


def bowl(x: torch.Tensor) -> torch.Tensor:
    return 0.5 * x.square().sum(-1)


@pytest.mark.parametrize("event_shape", [(), (1,), (2,), (4,), (1, 28, 28)], ids=str)
@pytest.mark.parametrize("n", [1, 300])
def test_plot_of_every_shape(tmp_path: Path, event_shape: tuple[int, ...], n: int) -> None:
    x = torch.randn(n, *event_shape, generator=torch.Generator().manual_seed(0))
    plot.density_plot(tmp_path / "p.png", x, bowl, name="bowl")
    assert os.listdir(tmp_path) == ["p.png"]
    assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")


def figure_of(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, *args: object, **kwargs: object) -> object:
    figures = []
    make = plot._figure
    monkeypatch.setattr(plot, "_figure", lambda: figures.append(make()) or figures[-1])
    plot.density_plot(tmp_path / "p.svg", *args, **kwargs)
    return figures[0]


def test_plane_has_density_contours_and_labels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.randn(20_000, 2, generator=torch.Generator().manual_seed(0))
    x[0] = 1e6  # one outlier changes nothing
    figure = figure_of(monkeypatch, tmp_path, x, bowl, name="bowl")
    axes, bar = figure.axes
    assert figure.get_suptitle() == "bowl: 20,000 draws"
    assert (axes.get_xlabel(), axes.get_ylabel(), bar.get_ylabel()) == ("x[0]", "x[1]", "density of the draws")
    low, high = axes.get_xlim()
    assert -5 < low < -2.5 and 2.5 < high < 5
    mesh, contours = axes.collections
    values = mesh.get_array()
    area = (high - low) * (axes.get_ylim()[1] - axes.get_ylim()[0]) / values.size
    assert float(values.sum()) * area == pytest.approx(1.0)
    # 2E is chi-squared with two degrees of freedom: a share p lies below E = -log(1 - p)
    assert contours.levels == pytest.approx(-np.log1p(-np.array([0.1, 0.5, 0.9, 0.99])), rel=0.1)


def test_energy_that_is_not_finite_everywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.rand(1000, 2) + 0.1
    figure = figure_of(monkeypatch, tmp_path, x, lambda x: -x.log().sum(-1))
    assert len(figure.axes[0].collections) == 2
    figure = figure_of(monkeypatch, tmp_path, x, lambda x: x.sum(-1) * torch.nan)
    assert len(figure.axes[0].collections) == 1


def test_marginals_name_what_they_show(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    figure = figure_of(monkeypatch, tmp_path, torch.randn(50, 3, 3))
    assert [axes.get_xlabel() for axes in figure.axes] == [f"x[{i},{j}]" for i in (0, 1) for j in range(3)]
    assert figure.get_suptitle() == "50 draws, the first 6 of 9 dimensions"


def test_plot_failing_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from matplotlib.figure import Figure

    def savefig(self: object, path: Path, **options: object) -> None:
        path.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(Figure, "savefig", savefig)
    with contextlib.suppress(KeyboardInterrupt):
        plot.density_plot(tmp_path / "p.png", torch.randn(5, 2))
    assert os.listdir(tmp_path) == []


def test_plot_checks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("p.png", "p.PDF", "p.svg"):
        plot.check_plot(tmp_path / name)
    for name in ("p.bmp2", "p", "no/p.png"):
        with pytest.raises(ValueError, match="expected"):
            plot.check_plot(tmp_path / name)
    with pytest.raises(ValueError, match="at least one position"):
        plot.density_plot(tmp_path / "p.png", torch.zeros(0, 2))
    assert os.listdir(tmp_path) == []
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match="pip install matplotlib"):
        plot.check_plot(tmp_path / "p.png")


@pytest.mark.parametrize("module", [save, summary, plot])
def test_doctests(module: object) -> None:
    assert doctest.testmod(module).failed == 0
