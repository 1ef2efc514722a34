"""Randomness: known answers, an independent Philox, the counter's layout, and what the normals are worth."""

import math
import struct
from collections.abc import Callable

import pytest
import scipy.special
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from compiled_ebm import rng
from compiled_ebm.rng import Stream

MASK = 0xFFFFFFFF
EPS = torch.finfo(torch.float32).eps
SIGMAS = 5.0
TWO_SIDED = 2 * scipy.stats.norm.sf(SIGMAS)
"""The probability of a deviation beyond five standard errors: 5.7e-7."""

# Random123 1.14, tests/kat_vectors: philox 4x32 10; counter, key, answer
KNOWN_ANSWERS = [
    ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
]


def from_hex(text: str) -> tuple[int, ...]:
    return tuple(int(word, 16) for word in text.split())


def python_philox(key: tuple[int, ...], counter: tuple[int, ...]) -> tuple[int, ...]:
    """Salmon et al. 2011, figure 2 and table 2, in Python integers of any size."""
    (k0, k1), (r0, l0, r1, l1) = key, counter
    for _ in range(10):
        high0, low0 = divmod(r0 * 0xD2511F53, 1 << 32)
        high1, low1 = divmod(r1 * 0xCD9E8D57, 1 << 32)
        r0, l0, r1, l1 = high1 ^ l0 ^ k0, low1, high0 ^ l1 ^ k1, low0
        k0, k1 = (k0 + 0x9E3779B9) % (1 << 32), (k1 + 0xBB67AE85) % (1 << 32)
    return r0, l0, r1, l1


def python_words(seed: int, step: int, chain: int, block: int, stream: int) -> tuple[int, ...]:
    """One block of words at documented coordinates; the seed counts modulo 2^64."""
    key = (seed & MASK, seed >> 32 & MASK)
    return python_philox(key, (stream << 24 | block, step & MASK, chain & MASK, chain >> 32))


def python_normals(seed: int, step: int, chain: int, n: int, stream: int) -> list[float]:
    numbers: list[float] = []
    for block in range(-(-n // 4)):
        u = [(w + 0.5) / 2**32 for w in python_words(seed, step, chain, block, stream)]
        for radial, angular in (u[:2], u[2:]):
            radius = math.sqrt(-2 * math.log(radial))
            numbers += [radius * math.cos(2 * math.pi * angular), radius * math.sin(2 * math.pi * angular)]
    return numbers[:n]


def signed(value: int) -> Tensor:
    return torch.tensor(value - (1 << 64) if value >= 1 << 63 else value)


@pytest.mark.parametrize(("counter", "key", "answer"), KNOWN_ANSWERS, ids=["zero", "ones", "pi"])
def test_known_answers(counter: str, key: str, answer: str) -> None:
    got = rng.philox4x32(
        tuple(torch.tensor(word) for word in from_hex(key)), tuple(torch.tensor(word) for word in from_hex(counter))
    )
    assert tuple(int(word) for word in got) == from_hex(answer)
    assert python_philox(from_hex(key), from_hex(counter)) == from_hex(answer)


word32 = st.integers(0, MASK)
seeds = st.integers(0, 2**64 - 1) | st.sampled_from([0, 1, 2**31, 2**32 - 1, 2**32, 2**63 - 1, 2**63, 2**64 - 1])
steps = st.integers(0, 2**32 - 1)
chains = st.integers(0, 2**63 - 1) | st.sampled_from([0, 2**31, 2**32 - 1, 2**32, 2**62, 2**63 - 1])
streams = st.sampled_from(list(Stream)) | st.integers(0, 127)


@given(st.tuples(word32, word32), st.tuples(word32, word32, word32, word32))
def test_philox_against_python(key: tuple[int, int], counter: tuple[int, int, int, int]) -> None:
    got = rng.philox4x32(tuple(map(torch.tensor, key)), tuple(map(torch.tensor, counter)))
    assert tuple(int(word) for word in got) == python_philox(key, counter)


@given(seeds, steps, st.lists(chains, min_size=1, max_size=4), st.integers(0, 9), streams)
def test_words_are_at_the_documented_coordinates(
    seed: int, step: int, ids: list[int], n_blocks: int, stream: int
) -> None:
    got = rng.words(signed(seed), torch.tensor(step), torch.tensor(ids), n_blocks, stream)
    assert all(word.shape == (len(ids), n_blocks) and word.dtype == torch.int64 for word in got)
    for i, chain in enumerate(ids):
        for block in range(n_blocks):
            assert tuple(int(w[i, block]) for w in got) == python_words(seed, step, chain, block, stream)


@given(seeds, steps, chains, st.integers(0, 11), streams)
def test_numbers_of_any_count_against_python(seed: int, step: int, chain: int, n: int, stream: int) -> None:
    where = (signed(seed), torch.tensor(step), torch.tensor([chain]), n, stream)
    u = rng.uniforms(*where, dtype=torch.float64)
    z = rng.normals(*where, dtype=torch.float64)
    exact = [(w + 0.5) / 2**32 for b in range(-(-n // 4)) for w in python_words(seed, step, chain, b, stream)]
    assert u[0].tolist() == exact[:n]  # 33 bits: float64 holds them
    # libm and ATen agree to a few units in the last place; the angle differs by its rounding, at most 2 pi eps
    assert z.shape == (1, n)
    assert torch.allclose(
        z[0], torch.tensor(python_normals(seed, step, chain, n, stream), dtype=torch.float64), 0, 1e-13
    )


def test_the_last_block_carries_all_bits_of_stream_and_block() -> None:
    """2^24 blocks are too many to draw here: the layout's edge is checked on the counter word."""
    seen: list[Tensor] = []

    def spy(key: object, counter: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        seen.extend(counter)
        return counter

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rng, "philox4x32", spy)
        rng.words(torch.tensor(0), torch.tensor(5), torch.tensor([(3 << 32) + 7]), 1 << 24, 0xAB)
    assert int(seen[0][0, -1]) == 0xABFFFFFF and int(seen[0][0, 0]) == 0xAB000000
    assert [int(word) for word in seen[1:]] == [5, 7, 3]
    assert rng.MAX_NUMBERS == 4 << 24


@pytest.mark.parametrize("n_blocks", [-1, (1 << 24) + 1])
def test_blocks_out_of_range_are_refused(n_blocks: int) -> None:
    zero = torch.tensor(0)
    with pytest.raises(ValueError, match=r"n_blocks: expected 0 to 2\*\*24"):
        rng.words(zero, zero, torch.tensor([0]), n_blocks, 0)


def test_streams_never_share_a_counter() -> None:
    zero, ids = torch.tensor(0), torch.arange(500)
    drawn = [
        tuple(w.tolist()) for s in range(256) for w in torch.stack(rng.words(zero, zero, ids[:20], 3, s), -1)[:, 0]
    ]
    assert len(set(drawn)) == len(drawn)
    assert len(set(Stream)) == len(Stream.__members__) and all(0 <= tag < 256 for tag in Stream)


# -- the same bits however the work is cut ---------------------------------------------------------------------------

N_CHAINS, N_NUMBERS = 203, 7


def everything(seed: Tensor, step: Tensor, ids: Tensor) -> tuple[Tensor, ...]:
    words = torch.stack(rng.words(seed, step, ids, 2, Stream.RESAMPLING), -1)
    return words, rng.uniforms(seed, step, ids, N_NUMBERS), rng.normals(seed, step, ids, N_NUMBERS)


@pytest.mark.parametrize("size", [1, 2, 3, 5, 16, 64, 100, 202])
def test_bits_do_not_depend_on_the_chunking(size: int) -> None:
    seed, step, ids = signed(2**63 + 12345), torch.tensor(77), torch.arange(N_CHAINS) + 2**33 - 100
    whole = everything(seed, step, ids)
    parts = [everything(seed, step, ids[i : i + size]) for i in range(0, N_CHAINS, size)]
    for name, all_, chunks in zip(("words", "uniforms", "normals"), whole, zip(*parts, strict=True), strict=True):
        assert torch.equal(all_, torch.cat(chunks)), name


def test_bits_do_not_depend_on_strides_order_or_layout() -> None:
    seed, step, ids = torch.tensor(3), torch.tensor(4), torch.arange(64) + 2**40
    want = everything(seed, step, ids)
    spread = torch.stack([ids, ids], 1)[:, 0]
    assert not spread.is_contiguous()
    for other in (everything(seed, step, spread), [t.flip(0) for t in everything(seed, step, ids.flip(0))]):
        assert all(torch.equal(a, b) for a, b in zip(want, other, strict=True))
    square = everything(seed, step, ids.reshape(8, 8))
    assert all(torch.equal(a, b.flatten(0, 1)) for a, b in zip(want, square, strict=True))
    steps = everything(seed, torch.full((64,), 4), ids)
    assert all(torch.equal(a, b) for a, b in zip(want, steps, strict=True))


def test_a_longer_draw_begins_with_the_shorter() -> None:
    seed, step, ids = torch.tensor(3), torch.tensor(4), torch.arange(9)
    for draw in (rng.uniforms, rng.normals):
        longest = draw(seed, step, ids, 13)
        assert all(torch.equal(longest[:, :n], draw(seed, step, ids, n)) for n in range(14))


def test_bits_under_vmap() -> None:
    seed, step, ids = signed(2**64 - 5), torch.tensor(2**32 - 1), torch.arange(N_CHAINS) + 2**62
    mapped = torch.vmap(lambda chain: everything(seed, step, chain))(ids)
    for name, a, b in zip(("words", "uniforms", "normals"), everything(seed, step, ids), mapped, strict=True):
        assert torch.equal(a, b), name


def radius_bound(radius: Tensor) -> Tensor:
    """Largest error of a float32 sqrt(-2 ln u) near ``radius``.

    u is rounded twice (to float32, and after the half is added): eps in all, so r^2 is off by 2 eps, plus a unit or
    two of its own for the logarithm and the square root. Where r^2 is itself below that, r is off by sqrt(2 eps).
    """
    return torch.minimum(EPS / radius, torch.full_like(radius, math.sqrt(2 * EPS))) + 2 * EPS * radius


def box_muller_bound(radius: Tensor) -> Tensor:
    """The same for r cos a and r sin a: the angle (up to pi) is rounded twice, the functions and the product once."""
    return radius_bound(radius) + radius * EPS * (math.pi + 2)


def exact_radius(words: tuple[Tensor, ...]) -> Tensor:
    """sqrt(-2 ln u) behind every number, ``[*chain.shape, 4 * blocks]``, float64."""
    radii = [torch.sqrt(-2 * torch.log((w.double() + 0.5) / 2**32)) for w in (words[0], words[2])]
    return torch.stack([radii[0], radii[0], radii[1], radii[1]], -1).flatten(-2)


@pytest.mark.slow
def test_bits_inside_torch_compile() -> None:
    """Words and uniforms bit for bit; a compiler's log, sin and cos may differ from ATen's by rounding."""
    seed, step, ids = signed(2**63 + 9), torch.tensor(1000), torch.arange(N_CHAINS) + 2**33 - 100
    compiled = torch.compile(everything, fullgraph=True, dynamic=False)
    words, u, z = compiled(seed, step, ids)
    want_words, want_u, want_z = everything(seed, step, ids)
    assert torch.equal(words, want_words)
    assert torch.equal(u, want_u)
    radius = exact_radius(rng.words(seed, step, ids, 2, Stream.TRANSITION))[:, :N_NUMBERS]
    assert bool(((z - want_z).abs() <= 2 * box_muller_bound(radius)).all())


# -- the floating-point edge -----------------------------------------------------------------------------------------


def of_words(radial: int, angular: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """The two normals that Box-Muller makes of two given words, through the public function."""
    fixed = [torch.tensor([[w]]) for w in (radial, angular, radial, angular)]
    zero = torch.tensor(0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rng, "words", lambda *args, **kwargs: tuple(fixed))
        return rng.normals(zero, zero, torch.tensor([0]), 2, dtype=dtype)[0]


EDGE_WORDS = [0, 1, 2, 2**24, 2**31 - 1, 2**31, 2**31 + 1, 2**32 - 129, 2**32 - 128, 2**32 - 2, 2**32 - 1]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("angular", EDGE_WORDS)
@pytest.mark.parametrize("radial", EDGE_WORDS)
def test_every_edge_word_gives_a_finite_normal(radial: int, angular: int, dtype: torch.dtype) -> None:
    z = of_words(radial, angular, dtype).double()
    radius = math.sqrt(-2 * math.log((radial + 0.5) / 2**32))
    angle = 2 * math.pi * (angular + 0.5) / 2**32
    bound = float(box_muller_bound(torch.tensor(radius, dtype=torch.float64))) if dtype == torch.float32 else 2e-9
    assert bool(torch.isfinite(z).all())
    assert abs(float(z[0]) - radius * math.cos(angle)) <= bound
    assert abs(float(z[1]) - radius * math.sin(angle)) <= bound


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_reach(dtype: torch.dtype) -> None:
    """The smallest word reaches sqrt(66 ln 2) = 6.76 standard deviations; 24 bits would end at 5.9."""
    assert float(of_words(0, 0, dtype)[0]) == pytest.approx(math.sqrt(66 * math.log(2)), rel=1e-6)
    assert 5.9 > math.sqrt(50 * math.log(2)) < float(of_words(0, 0, dtype)[0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_uniforms_are_never_zero_and_never_above_one(dtype: torch.dtype) -> None:
    fixed = [torch.tensor([[w]]) for w in (0, 2**32 - 1, 2**32 - 129, 2**31)]
    zero = torch.tensor(0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rng, "words", lambda *args, **kwargs: tuple(fixed))
        lowest, highest, below, middle = rng.uniforms(zero, zero, torch.tensor([0]), 4, dtype=dtype)[0].tolist()
    assert lowest == 2.0**-33
    assert highest == (1.0 if dtype == torch.float32 else 1 - 2.0**-33)
    assert below < 1 and middle == pytest.approx(0.5, rel=EPS)


def test_normals_against_float64() -> None:
    """Two million float32 normals within the error bound of their arithmetic, and float64 within its own."""
    seed, step, ids = torch.tensor(1), torch.tensor(2), torch.arange(250_000)
    z32, z64 = (rng.normals(seed, step, ids, 8, dtype=dtype) for dtype in (torch.float32, torch.float64))
    radius = exact_radius(rng.words(seed, step, ids, 2, Stream.TRANSITION))
    error = (z32 - z64).abs()
    assert bool((error <= box_muller_bound(radius)).all())
    usual = radius > 0.01
    assert float(error[usual].max()) < 30 * EPS  # nowhere near a step of the bound that only tiny radii need
    assert float(error.mean()) < 2 * EPS


# -- statistics ------------------------------------------------------------------------------------------------------

SAMPLE = 10_000_000


def poisson_bounds(mean: float) -> tuple[float, float]:
    tail = TWO_SIDED / 2
    return float(scipy.stats.poisson.ppf(tail, mean)), float(scipy.stats.poisson.isf(tail, mean))


def complaints(z: Tensor) -> list[str]:
    """Statistics of ``z`` further than five standard errors (p < 5.7e-7) from those of independent N(0, 1)."""
    z = z.flatten().sort().values.double()
    n, found = z.numel(), []
    moments = {
        "mean": (z.mean(), 0.0, 1.0),
        "second": (z.square().mean(), 1.0, 2.0),
        "third": (z.pow(3).mean(), 0.0, 15.0),
        "fourth": (z.pow(4).mean(), 3.0, 96.0),
    }
    for name, (value, expected, variance) in moments.items():
        if abs(float(value) - expected) > SIGMAS * math.sqrt(variance / n):
            found.append(name)
    for cut in (1.0, 2.0, 3.0, 4.0, 4.5, 5.0):
        below, not_above = (int(torch.searchsorted(z, c)) for c in (-cut, cut))
        low, high = poisson_bounds(n * scipy.stats.norm.sf(cut))
        for side, count in (("below", below), ("above", n - not_above)):
            if not low <= count <= high:
                found.append(f"{side} {cut}: {count} not in [{low}, {high}]")
    cdf = torch.special.ndtr(z)
    ranks = torch.arange(n + 1, dtype=torch.float64) / n
    distance = max(float((cdf - ranks[:-1]).max()), float((ranks[1:] - cdf).max()))
    if distance * math.sqrt(n) > scipy.special.kolmogi(TWO_SIDED):
        found.append(f"Kolmogorov-Smirnov {distance:.3g}")
    return found


def test_ten_million_normals() -> None:
    z = rng.normals(torch.tensor(2024), torch.tensor(0), torch.arange(SAMPLE // 8), 8)
    assert complaints(z) == []


def short_words(n: int) -> Tensor:
    """A flawed generator: Box-Muller with the top 10 bits of each word, which ends at 3.9 sigma."""
    w = rng.words(torch.tensor(2024), torch.tensor(0), torch.arange(n // 4), 1, Stream.TRANSITION)
    parts = [((x >> 22).double() + 0.5) / 2**10 for x in w]
    pairs = [torch.sqrt(-2 * torch.log(r)) * torch.exp(2j * math.pi * a) for r, a in (parts[:2], parts[2:])]
    return torch.view_as_real(torch.stack(pairs))


@pytest.mark.parametrize(
    ("flawed", "caught_by"),
    [
        (lambda z: z * 1.006, "second"),
        (lambda z: z + 0.006, "mean"),
        (lambda z: torch.where(torch.arange(z.numel()) % 100 == 0, z.abs(), z), "Kolmogorov-Smirnov"),
        (lambda z: short_words(z.numel()), "above 4"),
        (lambda z: z.clamp(-3.9, 3.9), "below 4"),
    ],
    ids=["scale", "shift", "asymmetry", "10-bit words", "clamped"],
)
def test_negative_control_flawed_normals_are_caught(flawed: Callable[[Tensor], Tensor], caught_by: str) -> None:
    z = rng.normals(torch.tensor(2024), torch.tensor(0), torch.arange(SAMPLE // 40), 8).flatten()
    assert complaints(z) == []
    assert any(what.startswith(caught_by) for what in complaints(flawed(z)))


def correlations(a: Tensor, b: Tensor) -> list[float]:
    """Of values and of squares, in standard errors."""
    a, b = a.flatten().double(), b.flatten().double()
    squares = (a.square() - 1) / math.sqrt(2), (b.square() - 1) / math.sqrt(2)
    return [abs(float((x * y).mean())) * math.sqrt(a.numel()) for x, y in ((a, b), squares)]


NEIGHBOURS: dict[str, Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]] = {
    "seed+1": lambda seed, step, ids: (seed + 1, step, ids),
    "seed+2^32": lambda seed, step, ids: (seed + 2**32, step, ids),
    "seed high bit": lambda seed, step, ids: (seed ^ -(2**63), step, ids),
    "step+1": lambda seed, step, ids: (seed, step + 1, ids),
    "chain+1": lambda seed, step, ids: (seed, step, ids + 1),
    "chain+2^32": lambda seed, step, ids: (seed, step, ids + 2**32),
    "seed+1, step-1": lambda seed, step, ids: (seed + 1, step - 1, ids),
    "step+1, chain-1": lambda seed, step, ids: (seed, step + 1, ids - 1),
}


PAIRS = 400_000
"""A correlation of 0.008 would show."""
HERE = torch.tensor(42), torch.tensor(7), 2 * torch.arange(PAIRS // 4) + 10


@pytest.mark.parametrize("name", NEIGHBOURS)
def test_neighbours_are_uncorrelated(name: str) -> None:
    assert max(correlations(rng.normals(*HERE, 4), rng.normals(*NEIGHBOURS[name](*HERE), 4))) < SIGMAS


def test_the_numbers_of_one_step_and_of_two_streams_are_uncorrelated() -> None:
    z = rng.normals(*HERE, 8)
    for shift in range(1, 8):
        assert max(correlations(z, z.roll(shift, 1))) < SIGMAS
    for stream in (Stream.INITIALISATION, Stream.RESAMPLING):
        assert max(correlations(z, rng.normals(*HERE, 8, stream=stream))) < SIGMAS


def test_negative_control_correlated_neighbours_are_caught() -> None:
    z, other = rng.normals(*HERE, 4), rng.normals(*NEIGHBOURS["seed+1"](*HERE), 4)
    assert correlations(z, 0.02 * z + math.sqrt(1 - 0.02**2) * other)[0] > SIGMAS
    assert correlations(z, z.abs() * other.sign())[1] > SIGMAS


@settings(max_examples=30)
@given(seeds, st.integers(0, 2**32 - 2), st.integers(0, 2**63 - 2))
def test_flipping_one_coordinate_flips_half_of_the_bits(seed: int, step: int, chain: int) -> None:
    """1024 output bits, so 512 +- 16: five standard errors are 80."""
    ids = torch.tensor([chain])

    def bits(seed: int, step: int, ids: Tensor) -> int:
        drawn = rng.words(signed(seed % 2**64), torch.tensor(step), ids, 8, Stream.TRANSITION)
        return int.from_bytes(b"".join(struct.pack("<I", int(w)) for word in drawn for w in word[0]), "little")

    here = bits(seed, step, ids)
    for there in (bits(seed + 1, step, ids), bits(seed, step + 1, ids), bits(seed, step, ids + 1)):
        assert abs((here ^ there).bit_count() - 512) < 80


def test_torchs_own_generator_is_left_alone() -> None:
    before = torch.get_rng_state()
    a = everything(torch.tensor(1), torch.tensor(2), torch.arange(10))
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(999)
    assert all(
        torch.equal(x, y)
        for x, y in zip(a, everything(torch.tensor(1), torch.tensor(2), torch.arange(10)), strict=True)
    )
