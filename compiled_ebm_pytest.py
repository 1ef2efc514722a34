"""The pytest plugin: the fixture ``sampler_benchmark``.

pytest imports every plugin that is installed, whatever the suite. This one is no part of the package, so that suites
that do not ask for the fixture do not wait for torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from compiled_ebm.laboratory.sampler_benchmark import SamplerBenchmark

__all__ = ["sampler_benchmark"]


@pytest.fixture
def sampler_benchmark(request: pytest.FixtureRequest) -> SamplerBenchmark:
    """Times a sampler of compiled_ebm under pytest-benchmark, and checks its first steps against eager.

    ``sampler_benchmark(energy, transition, n_chains=..., n_steps=..., min_speedup_vs="eager")``
    """
    if not request.config.pluginmanager.hasplugin("benchmark"):
        pytest.fail("sampler_benchmark needs pytest-benchmark: pip install pytest-benchmark", pytrace=False)
    from compiled_ebm.laboratory.sampler_benchmark import SamplerBenchmark

    return SamplerBenchmark(request.getfixturevalue("benchmark"))
