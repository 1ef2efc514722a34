"""Settings that every test shares."""

import os
from collections.abc import Iterator

import pytest

try:  # a GPU machine may have no more than pytest: the tests marked cuda need nothing else
    from hypothesis import settings
except ModuleNotFoundError:
    settings = None

# Before torch is imported: Inductor's pool of compile workers goes on starting for tens of seconds on few cores.
os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")

if settings is not None:
    settings.register_profile("compiled_ebm", deadline=None, derandomize=True)
    settings.load_profile("compiled_ebm")


def pytest_configure(config: pytest.Config) -> None:
    """Warnings are errors, but for those that torch gives itself: of Inductor's imports, and of every CUDA device."""
    for line in (
        r"ignore:`torch\.jit\.script:DeprecationWarning",
        "ignore:TensorFloat32 tensor cores:UserWarning",  # at the first torch.compile on a card that has them
        "ignore:Synchronization debug mode is a prototype:UserWarning",
    ):
        config.addinivalue_line("filterwarnings", line)
    # A test that is named runs, though the default of -m in pyproject.toml leaves slow ones out.
    if config.option.markexpr == "not slow" and all("::" in argument for argument in config.args):
        config.option.markexpr = ""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what is marked ``cuda`` where there is no CUDA device."""
    import torch

    if torch.cuda.is_available():
        return
    skip = pytest.mark.skip(reason="needs a CUDA device")
    for item in items:
        if item.get_closest_marker("cuda"):
            item.add_marker(skip)


@pytest.fixture(autouse=True, scope="session")
def _kernel_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Generated kernels are compiled afresh in every session, and leave nothing behind."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COMPILED_EBM_CACHE", str(tmp_path_factory.mktemp("kernels")))
        yield


@pytest.fixture(autouse=True)
def _fixed_weights() -> None:
    """Modules that a test makes have the same weights at every run, whichever tests ran before."""
    import torch

    torch.manual_seed(0)
