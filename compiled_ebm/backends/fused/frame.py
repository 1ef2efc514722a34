"""The function around a generated step: load a vector of chains, loop over steps, keep draws, store the chains."""

from __future__ import annotations

__all__ = ["CHECKED_LOOP", "ENERGY", "FRAME", "PLAIN_LOOP", "SEGMENT"]

SEGMENT = 64
"""Steps between two checks at most: a check costs about as much as one or two."""

FRAME = """\
using namespace lanes;

{tables}

// Once a launch and tile, so not worth the compiler's time to inline.
#define ONCE static __attribute__((noinline))
ONCE R take_real(const real* p, long stride) {{
    alignas(VECTOR_BYTES) real v[W];
    for (int l = 0; l < W; ++l) v[l] = p[l * stride];
    return rload(v);
}}
ONCE I take_int(const long long* p, long stride) {{
    long long v[W];
    for (int l = 0; l < W; ++l) v[l] = p[l * stride];
    return iload(v);
}}
[[maybe_unused]] ONCE M take_mask(const long long* p, long stride) {{ return i_to_m(take_int(p, stride)); }}
[[maybe_unused]] ONCE void keep_real(real* p, long stride, long left, R v) {{
    alignas(VECTOR_BYTES) real t[W];
    rstore(t, v);
    for (long l = 0; l < W && l < left; ++l) p[l * stride] = t[l];
}}
[[maybe_unused]] ONCE void give_real(real* p, long stride, R v) {{ keep_real(p, stride, W, v); }}
ONCE void give_int(long long* p, long stride, I v) {{
    long long t[W];
    istore(t, v);
    for (int l = 0; l < W; ++l) p[l * stride] = t[l];
}}

[[maybe_unused]] ONCE M all_finite(const R* values, long n) {{
    R nothing = rset(0);
    for (long i = 0; i < n; ++i) nothing += values[i] * rset(0);
    return req(nothing, rset(0));
}}
// The new values where the chains move, else those of the last check: which is now.
[[maybe_unused]] ONCE void settle(R* now, R* last, long n, M moves) {{
    for (long i = 0; i < n; ++i) now[i] = last[i] = rsel(moves, now[i], last[i]);
}}
[[maybe_unused]] ONCE void settle_ints(I* now, I* last, long n, M moves) {{
    for (long i = 0; i < n; ++i) now[i] = last[i] = isel(moves, now[i], last[i]);
}}
template <class V> ONCE void copy_all(V* to, const V* from, long n) {{
    for (long i = 0; i < n; ++i) to[i] = from[i];
}}
{energy}
// numbers: seed, first_step, n_steps, n_hyper, n_tiles, thin (0: keep nothing), steps until the next kept draw,
// chains whose draws are kept; then the rounds of each repetition. Below the limit of the spread energies are finite.
extern "C" __attribute__((visibility("default"))) void chain_loop(
    const long long* numbers, void* const* arrays, void* const* kwargs, void* const* energy_arrays, const real* limit,
    const long long* ids, long long* next, const real* hyper, real* keep_x, real* keep_energy, void* scratch) {{
    const long long first_step = numbers[1], n_steps = numbers[2], n_hyper = numbers[3], n_tiles = numbers[4];
    const long long thin = numbers[5], until_kept = numbers[6], n_kept_chains = numbers[7];
    const uint32_t normals_stream = 0u << 24, uniforms_stream = 1u << 24;
    const PhiloxKeys keys = philox_keys((uint64_t)numbers[0]);
    R* const __restrict at = (R*)__builtin_assume_aligned(scratch, VECTOR_BYTES);
    I* const __restrict iat = (I*)(at + {scratch});
    (void)iat; (void)uniforms_stream; (void)normals_stream; (void)hyper; (void)n_hyper; (void)first_step;
    (void)kwargs; (void)energy_arrays; (void)limit;
{head}
    for (;;) {{
        const long long tile = __atomic_fetch_add(next, 1, __ATOMIC_RELAXED);
        if (tile >= n_tiles) return;
        const ChainWords words = chain_words(ids + tile * W);
        const long left = (long)(n_kept_chains - tile * W);
        (void)words; (void)left;
{load}
        long long until = until_kept, slot = 0;
{loop}
{store}
    }}
}}
"""
"""To be filled in with the parts that belong to one program."""

PLAIN_LOOP = """\
        for (long long s = 0; s < n_steps; ++s) {{
            const uint32_t step = (uint32_t)(first_step + s);
            (void)step;
{begin}
{step}
            if (thin && --until == 0) {{
{keep}
                until = thin;
                ++slot;
            }}
        }}"""
"""Every step in the same way."""

CHECKED_LOOP = """\
        long long careful = 0, patience = 0;
{save}
        for (long long from = 0, end; from < n_steps; from = end) {{
            // draws of chains that no longer move are those of the last check
            const bool single = careful || (thin && many(ine({failed_at}, iset(-1LL))));
            end = from + (single ? 1 : {segment});
            if (end > n_steps) end = n_steps;
            const bool exact = end - from == 1;
            const long long until_before = until, slot_before = slot;
            {spread} = rset(0);
            for (long long s = from; s < end; ++s) {{
                const uint32_t step = (uint32_t)(first_step + s);
                (void)step;
{begin}
{step}
                if (thin && !exact && --until == 0) {{
{evaluate}
{keep}
                    until = thin;
                    ++slot;
                }}
            }}
            // is everything finite, and was it all the way?
{park}
{energy}
            const M alive = ieq({failed_at}, iset(-1LL));
            const M fine = mand(all_finite(at + {x}, {n_x}), risfinite(at[{energy_at}]));
            if (!exact && many(mand(alive, mnot(mand(fine, rle({spread}, rset(limit[0]))))))) {{
                // somewhere on the way a chain failed, or went where its energy may not be finite: again, step by step
{retake}
                patience = patience ? 2 * patience : {segment};
                if (patience > 64 * {segment}) patience = 64 * {segment};
                careful = patience;
                until = until_before;
                slot = slot_before;
                end = from;
                continue;
            }}
            const M moves = mand(alive, fine);
{settle}
            {failed_at} = isel(mand(alive, mnot(fine)), iset(first_step + end - 1), {failed_at});
            if (careful) --careful;
            else patience /= 2;
            if (thin && exact && --until == 0) {{
{keep}
                until = thin;
                ++slot;
            }}
        }}"""
"""Segments of steps, with the quarantine at the end of each."""

ENERGY = """\
// The energy of a tile's chains at x.
static __attribute__((noinline)) R energy_of(
    const long long* numbers, void* const* arrays, void* const* kwargs, const long long tile, const R* x,
    R* const __restrict at) {{
{tables}
    I* const __restrict iat = (I*)(at + {scratch});
    (void)iat; (void)numbers; (void)arrays; (void)kwargs; (void)tile; (void)x;
{head}
{step}
    return {result};
}}
"""
"""For steps that do without."""
