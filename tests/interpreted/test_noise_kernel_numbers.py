"""The numbers that the noise kernel and its device functions give, against ``rng.py``."""

from __future__ import annotations

import pytest
import torch
import triton
import triton.language as tl
from torch import Tensor

from compiled_ebm import rng
from compiled_ebm.backends import noise_kernel as kernels
from compiled_ebm.backends.noise_kernel import fill_noise
from compiled_ebm.backends.triton_noise import words
from compiled_ebm.transitions.base import NoiseDraw

N = 37
IDS = {
    "low": torch.arange(N) + 1,
    "across 2^32": torch.arange(N) + 2**32 - 20,
    "high": torch.arange(N) + 2**63 - N,
}
SEEDS = (1, 2**31, 2**32 - 1, 2**63 - 1, 2**63 + 5, 2**64 - 1)
STEPS = (1, 2**31, 2**32 - 1)
COUNTS = [(1, 0), (2, 0), (3, 0), (4, 1), (6, 0), (7, 3), (64, 5), (0, 4), (130, 0)]


def signed(seed: int) -> Tensor:
    return torch.tensor(seed - (1 << 64) if seed >= 1 << 63 else seed)


def filled(
    seed: Tensor, step: Tensor, ids: Tensor, counts: tuple[int, int], dtype: torch.dtype = torch.float32
) -> NoiseDraw:
    """With a row of sentinels behind each buffer, which must be there afterwards."""
    n = len(ids)
    whole = [torch.full((n + 1, count), 7.0, dtype=dtype) for count in counts]
    buffers = NoiseDraw(*(t[:n] for t in whole))
    fill_noise(seed, step, ids, buffers, fast=False)()
    assert all(bool((t[n] == 7.0).all()) for t in whole)
    return buffers


@triton.jit
def words_kernel(
    seed_pointer, step_pointer, ids, out, STREAM: tl.constexpr, N_CHAINS: tl.constexpr, BLOCKS: tl.constexpr
):
    chain = tl.load(ids + tl.arange(0, N_CHAINS))
    block = tl.arange(0, BLOCKS)[None, :]
    low, high = chain.to(tl.uint32)[:, None], (chain >> 32).to(tl.uint32)[:, None]
    place = out + tl.arange(0, N_CHAINS)[:, None] * BLOCKS + block
    four = words(tl.load(seed_pointer), STREAM, block, tl.load(step_pointer), low, high)
    for k in tl.static_range(4):
        tl.store(place + k * N_CHAINS * BLOCKS, four[k].to(tl.int64))


@pytest.mark.parametrize("seed", SEEDS, ids=hex)
@pytest.mark.parametrize("ids", IDS)
@pytest.mark.parametrize("step", STEPS, ids=hex)
def test_words_are_bit_for_bit_those_of_the_specification(seed: int, ids: str, step: int) -> None:
    """Blocks 0 to 7, in two streams: every word of the counter and the key is non-zero somewhere."""
    chains, key, at = IDS[ids][:32], signed(seed), torch.tensor(step)
    for stream in (rng.Stream.TRANSITION_UNIFORM, rng.Stream.RESAMPLING):
        got = torch.zeros(4, 32, 8, dtype=torch.int64)
        words_kernel[(1,)](key, at, chains, got, STREAM=int(stream), N_CHAINS=32, BLOCKS=8)
        assert torch.equal(got, torch.stack(rng.words(key, at, chains, 8, int(stream))))


@pytest.mark.parametrize("counts", COUNTS, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("ids", IDS)
def test_buffers_hold_the_specified_numbers(counts: tuple[int, int], dtype: torch.dtype, ids: str) -> None:
    """Uniforms exactly; normals up to the rounding of numpy's logarithm, sine and cosine."""
    chains, seed, step = IDS[ids], signed(2**64 - 3), torch.tensor(2**32 - 2)
    got = filled(seed, step, chains, counts, dtype)
    want = rng.normals(seed, step, chains, counts[0], dtype=dtype)
    assert float((got.normals - want).abs().max() if counts[0] else 0) < 1e-6
    assert torch.equal(got.uniforms, rng.uniforms(seed, step, chains, counts[1], dtype=dtype))


def test_the_last_draw_block() -> None:
    """Of 2^24 a chain: the stream's tag stands right above it."""
    block = (1 << 24) - 1

    @triton.jit
    def last(out, BLOCK: tl.constexpr):
        at = tl.zeros([1], tl.int32) + BLOCK
        low = tl.zeros([1], tl.uint32) + 5
        four = words(tl.full([], 3, tl.int64), 1, at, tl.full([], 9, tl.int64), low, low)
        for k in tl.static_range(4):
            tl.store(out + k + tl.zeros([1], tl.int32), four[k].to(tl.int64))

    got = torch.zeros(4, dtype=torch.int64)
    last[(1,)](got, BLOCK=block)
    c0 = torch.tensor(block | 1 << 24)
    want = rng.philox4x32((torch.tensor(3), torch.tensor(0)), (c0, torch.tensor(9), torch.tensor(5), torch.tensor(5)))
    assert got.tolist() == [int(w) for w in want]


def test_64_bit_indices_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chosen where 32 bits do not reach; forced here."""
    seed, step = torch.tensor(5), torch.tensor(6)
    want = filled(seed, step, IDS["high"], (7, 3))
    assert kernels.constants(7, 3, N, fast=False)["INDEX"] == tl.int32
    assert kernels.constants(784, 0, 10**7, fast=True)["INDEX"] == tl.int64
    assert kernels.constants(1, 0, 1 << 29, fast=True)["INDEX"] == tl.int64
    narrow = kernels.constants
    monkeypatch.setattr(kernels, "constants", lambda *a, **k: {**narrow(*a, **k), "INDEX": tl.int64})
    got = filled(seed, step, IDS["high"], (7, 3))
    assert torch.equal(got.normals, want.normals) and torch.equal(got.uniforms, want.uniforms)


def test_the_step_is_read_when_it_is_drawn() -> None:
    """As a captured launch must: the graph advances the step between two replays."""
    seed, step, ids = torch.tensor(5), torch.tensor(6), IDS["low"]
    buffers = NoiseDraw(torch.zeros(N, 2), torch.zeros(N, 0))
    fill = fill_noise(seed, step, ids, buffers, fast=False)
    for _ in range(3):
        fill()
        assert float((buffers.normals - rng.normals(seed, step, ids, 2)).abs().max()) < 1e-6
        step.add_(1)
    seed.add_(1)
    ids = ids.clone()
    fill()
    assert float((buffers.normals - rng.normals(seed, step, ids, 2)).abs().max()) < 1e-6


def test_chains_do_not_depend_on_the_batch() -> None:
    seed, step, ids = torch.tensor(5), torch.tensor(6), torch.arange(300)
    whole = filled(seed, step, ids, (6, 1))
    for first, stop in ((0, 1), (17, 18), (100, 300)):
        part = filled(seed, step, ids[first:stop].clone(), (6, 1))
        assert torch.equal(part.normals, whole.normals[first:stop])
        assert torch.equal(part.uniforms, whole.uniforms[first:stop])


@pytest.mark.parametrize("what", ["seed", "seed's high half", "step", "ids", "ids' high half", "stream"])
def test_negative_control_other_coordinates_give_other_numbers(what: str) -> None:
    seed, step, ids = torch.tensor(5), torch.tensor(6), IDS["low"]
    want = filled(seed, step, ids, (4, 4))
    if what == "stream":
        unit = rng.uniforms(seed, step, ids, 4, rng.Stream.TRANSITION)
        assert not bool((want.uniforms == unit).any())
        return
    others = {
        "seed": (seed + 1, step, ids),
        "seed's high half": (seed + 2**32, step, ids),
        "step": (seed, step + 1, ids),
        "ids": (seed, step, ids + N),
        "ids' high half": (seed, step, ids + 2**32),
    }
    got = filled(*others[what], (4, 4))
    assert not bool((got.normals == want.normals).any()) and not bool((got.uniforms == want.uniforms).any())


def test_wrong_buffers_are_refused() -> None:
    seed, step, ids = torch.tensor(5), torch.tensor(6), IDS["low"]
    none = torch.zeros(N, 0)
    with pytest.raises(TypeError, match="normals: expected one of .*float32.* with fast=True, got torch.float64"):
        fill_noise(seed, step, ids, NoiseDraw(none.double(), none), fast=True)
    with pytest.raises(ValueError, match="normals: expected a contiguous buffer"):
        fill_noise(seed, step, ids, NoiseDraw(torch.zeros(4, N).t(), none), fast=False)
