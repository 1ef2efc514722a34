using namespace lanes;



// Once a launch and tile, so not worth the compiler's time to inline.
#define ONCE static __attribute__((noinline))
ONCE R take_real(const real* p, long stride) {
    alignas(VECTOR_BYTES) real v[W];
    for (int l = 0; l < W; ++l) v[l] = p[l * stride];
    return rload(v);
}
ONCE I take_int(const long long* p, long stride) {
    long long v[W];
    for (int l = 0; l < W; ++l) v[l] = p[l * stride];
    return iload(v);
}
[[maybe_unused]] ONCE M take_mask(const long long* p, long stride) { return i_to_m(take_int(p, stride)); }
[[maybe_unused]] ONCE void keep_real(real* p, long stride, long left, R v) {
    alignas(VECTOR_BYTES) real t[W];
    rstore(t, v);
    for (long l = 0; l < W && l < left; ++l) p[l * stride] = t[l];
}
[[maybe_unused]] ONCE void give_real(real* p, long stride, R v) { keep_real(p, stride, W, v); }
ONCE void give_int(long long* p, long stride, I v) {
    long long t[W];
    istore(t, v);
    for (int l = 0; l < W; ++l) p[l * stride] = t[l];
}

[[maybe_unused]] ONCE M all_finite(const R* values, long n) {
    R nothing = rset(0);
    for (long i = 0; i < n; ++i) nothing += values[i] * rset(0);
    return req(nothing, rset(0));
}
// The new values where the chains move, else those of the last check: which is now.
[[maybe_unused]] ONCE void settle(R* now, R* last, long n, M moves) {
    for (long i = 0; i < n; ++i) now[i] = last[i] = rsel(moves, now[i], last[i]);
}
[[maybe_unused]] ONCE void settle_ints(I* now, I* last, long n, M moves) {
    for (long i = 0; i < n; ++i) now[i] = last[i] = isel(moves, now[i], last[i]);
}
template <class V> ONCE void copy_all(V* to, const V* from, long n) {
    for (long i = 0; i < n; ++i) to[i] = from[i];
}
// The energy of a tile's chains at x.
static __attribute__((noinline)) R energy_of(
    const long long* numbers, void* const* arrays, void* const* kwargs, const long long tile, const R* x,
    R* const __restrict at) {

    I* const __restrict iat = (I*)(at + 0);
    (void)iat; (void)numbers; (void)arrays; (void)kwargs; (void)tile; (void)x;
    const R input_0_0 = x[0];
    const R input_0_1 = x[1];
    const R input_0_2 = x[2];
    const R input_0_3 = x[3];
    // test_fused.py, in valley: return (100.0 * (x[:, 1:] - x[:, :-1].square()).square() + (1 - x[:, :-1]).square()).sum(-1)
    const R e5 = input_0_0 * input_0_0;
    const R e8 = input_0_1 - e5;
    const R e11 = e8 * e8;
    const R e15 = e11 * rset((real)100.0);
    const R e19 = rset((real)1.0) - input_0_0;
    const R e22 = e19 * e19;
    const R e25 = e15 + e22;
    const R e6 = input_0_1 * input_0_1;
    const R e9 = input_0_2 - e6;
    const R e12 = e9 * e9;
    const R e16 = e12 * rset((real)100.0);
    const R e20 = rset((real)1.0) - input_0_1;
    const R e23 = e20 * e20;
    const R e26 = e16 + e23;
    const R e28 = e25 + e26;
    const R e7 = input_0_2 * input_0_2;
    const R e10 = input_0_3 - e7;
    const R e13 = e10 * e10;
    const R e17 = e13 * rset((real)100.0);
    const R e21 = rset((real)1.0) - input_0_2;
    const R e24 = e21 * e21;
    const R e27 = e17 + e24;
    const R e29 = e28 + e27;
    return e29;
}

// numbers: seed, first_step, n_steps, n_hyper, n_tiles, thin (0: keep nothing), steps until the next kept draw,
// chains whose draws are kept; then the rounds of each repetition. Below the limit of the spread energies are finite.
extern "C" __attribute__((visibility("default"))) void chain_loop(
    const long long* numbers, void* const* arrays, void* const* kwargs, void* const* energy_arrays, const real* limit,
    const long long* ids, long long* next, const real* hyper, real* keep_x, real* keep_energy, void* scratch) {
    const long long first_step = numbers[1], n_steps = numbers[2], n_hyper = numbers[3], n_tiles = numbers[4];
    const long long thin = numbers[5], until_kept = numbers[6], n_kept_chains = numbers[7];
    const uint32_t normals_stream = 0u << 24, uniforms_stream = 1u << 24;
    const PhiloxKeys keys = philox_keys((uint64_t)numbers[0]);
    R* const __restrict at = (R*)__builtin_assume_aligned(scratch, VECTOR_BYTES);
    I* const __restrict iat = (I*)(at + 18);
    (void)iat; (void)uniforms_stream; (void)normals_stream; (void)hyper; (void)n_hyper; (void)first_step;
    (void)kwargs; (void)energy_arrays; (void)limit;
    real* const x_array = (real*)arrays[0];
    real* const energy_array = (real*)arrays[1];
    real* const grad_array = (real*)arrays[2];
    long long* const failed_at_array = (long long*)arrays[3];
    for (;;) {
        const long long tile = __atomic_fetch_add(next, 1, __ATOMIC_RELAXED);
        if (tile >= n_tiles) return;
        const ChainWords words = chain_words(ids + tile * W);
        const long left = (long)(n_kept_chains - tile * W);
        (void)words; (void)left;
        real* const x_tile = x_array + tile * (W * 4L);
        R x_0 = take_real(x_tile + 0, 4);
        R x_1 = take_real(x_tile + 1, 4);
        R x_2 = take_real(x_tile + 2, 4);
        R x_3 = take_real(x_tile + 3, 4);
        real* const energy_tile = energy_array + tile * (W * 1L);
        R energy = take_real(energy_tile + 0, 1);
        real* const grad_tile = grad_array + tile * (W * 4L);
        R grad_0 = take_real(grad_tile + 0, 4);
        R grad_1 = take_real(grad_tile + 1, 4);
        R grad_2 = take_real(grad_tile + 2, 4);
        R grad_3 = take_real(grad_tile + 3, 4);
        long long* const failed_at_tile = failed_at_array + tile * (W * 1L);
        I failed_at = take_int(failed_at_tile + 0, 1);
        R spread;
        long long until = until_kept, slot = 0;
        long long careful = 0, patience = 0;
        at[0] = x_0;
        at[1] = x_1;
        at[2] = x_2;
        at[3] = x_3;
        at[4] = energy;
        at[5] = grad_0;
        at[6] = grad_1;
        at[7] = grad_2;
        at[8] = grad_3;
        copy_all(at + 9, at + 0, 4);
        copy_all(at + 13, at + 4, 1);
        copy_all(at + 14, at + 5, 4);
        for (long long from = 0, end; from < n_steps; from = end) {
            // draws of chains that no longer move are those of the last check
            const bool single = careful || (thin && many(ine(failed_at, iset(-1LL))));
            end = from + (single ? 1 : 64);
            if (end > n_steps) end = n_steps;
            const bool exact = end - from == 1;
            const long long until_before = until, slot_before = slot;
            spread = rset(0);
            for (long long s = from; s < end; ++s) {
                const uint32_t step = (uint32_t)(first_step + s);
                (void)step;
                const R step_size = rset(hyper[s * n_hyper + 0]);
                const R noise_std = rset(hyper[s * n_hyper + 1]);
                // this step's normals
                R zb0[4];
                normals4(keys, words, 0u | normals_stream, step, zb0);
                const R normals_0 = zb0[0];
                const R normals_1 = zb0[1];
                const R normals_2 = zb0[2];
                const R normals_3 = zb0[3];
                // the transition's own: x = state.x - hyper.step_size * grad + hyper.noise_std * noise.normals
                const R e17 = step_size * grad_0;
                const R e21 = x_0 - e17;
                const R e25 = noise_std * normals_0;
                const R e29 = e21 + e25;
                // the sampler's own: how far the chain has gone since the last check
                const R e93 = e29 * e29;
                // the transition's own: x = state.x - hyper.step_size * grad + hyper.noise_std * noise.normals
                const R e18 = step_size * grad_1;
                const R e22 = x_1 - e18;
                const R e26 = noise_std * normals_1;
                const R e30 = e22 + e26;
                // the sampler's own: how far the chain has gone since the last check
                const R e94 = e30 * e30;
                const R e97 = e93 + e94;
                // the transition's own: x = state.x - hyper.step_size * grad + hyper.noise_std * noise.normals
                const R e19 = step_size * grad_2;
                const R e23 = x_2 - e19;
                const R e27 = noise_std * normals_2;
                const R e31 = e23 + e27;
                // the sampler's own: how far the chain has gone since the last check
                const R e95 = e31 * e31;
                const R e98 = e97 + e95;
                // the transition's own: x = state.x - hyper.step_size * grad + hyper.noise_std * noise.normals
                const R e20 = step_size * grad_3;
                const R e24 = x_3 - e20;
                const R e28 = noise_std * normals_3;
                const R e32 = e24 + e28;
                // the sampler's own: how far the chain has gone since the last check
                const R e96 = e32 * e32;
                const R e99 = e98 + e96;
                const R e101 = spread + e99;
                // test_fused.py, in valley: return (100.0 * (x[:, 1:] - x[:, :-1].square()).square() + (1 - x[:, :-1]).square()).sum(-1)
                const R e48 = rset((real)1.0) - e30;
                const R e60 = e48 * rset((real)2.0);
                const R e63 = r_neg(e60);
                const R e34 = e30 * e30;
                const R e37 = e31 - e34;
                const R e83 = rset((real)-400.0) * e37;
                const R e86 = e83 * e30;
                // autograd's own: the sum of a gradient's parts
                const R e89 = e63 + e86;
                // test_fused.py, in valley: return (100.0 * (x[:, 1:] - x[:, :-1].square()).square() + (1 - x[:, :-1]).square()).sum(-1)
                const R e33 = e29 * e29;
                const R e36 = e30 - e33;
                const R e70 = rset((real)200.0) * e36;
                // autograd's own: the sum of a gradient's parts
                const R e91 = e89 + e70;
                // test_fused.py, in valley: return (100.0 * (x[:, 1:] - x[:, :-1].square()).square() + (1 - x[:, :-1]).square()).sum(-1)
                const R e49 = rset((real)1.0) - e31;
                const R e61 = e49 * rset((real)2.0);
                const R e64 = r_neg(e61);
                const R e35 = e31 * e31;
                const R e38 = e32 - e35;
                const R e84 = rset((real)-400.0) * e38;
                const R e87 = e84 * e31;
                // autograd's own: the sum of a gradient's parts
                const R e90 = e64 + e87;
                // test_fused.py, in valley: return (100.0 * (x[:, 1:] - x[:, :-1].square()).square() + (1 - x[:, :-1]).square()).sum(-1)
                const R e71 = rset((real)200.0) * e37;
                // autograd's own: the sum of a gradient's parts
                const R e92 = e90 + e71;
                // test_fused.py, in valley: return (100.0 * (x[:, 1:] - x[:, :-1].square()).square() + (1 - x[:, :-1]).square()).sum(-1)
                const R e47 = rset((real)1.0) - e29;
                const R e59 = e47 * rset((real)2.0);
                const R e62 = r_neg(e59);
                const R e82 = rset((real)-400.0) * e36;
                const R e85 = e82 * e29;
                // autograd's own: the sum of a gradient's parts
                const R e88 = e62 + e85;
                // test_fused.py, in valley: return (100.0 * (x[:, 1:] - x[:, :-1].square()).square() + (1 - x[:, :-1]).square()).sum(-1)
                const R e72 = rset((real)200.0) * e38;
                // the state for the next step
                const R x_0_next = e29;
                const R x_1_next = e30;
                const R x_2_next = e31;
                const R x_3_next = e32;
                const R grad_0_next = e88;
                const R grad_1_next = e91;
                const R grad_2_next = e92;
                const R grad_3_next = e72;
                const R spread_next = e101;
                x_0 = x_0_next;
                x_1 = x_1_next;
                x_2 = x_2_next;
                x_3 = x_3_next;
                grad_0 = grad_0_next;
                grad_1 = grad_1_next;
                grad_2 = grad_2_next;
                grad_3 = grad_3_next;
                spread = spread_next;
                if (thin && !exact && --until == 0) {
                    at[0] = x_0;
                    at[1] = x_1;
                    at[2] = x_2;
                    at[3] = x_3;
                    energy = energy_of(numbers + 0, energy_arrays, kwargs, tile, at + 0, (R*)(iat + 0));
                keep_real(keep_x + (slot * n_kept_chains + tile * W) * 4L + 0, 4, left, x_0);
                keep_real(keep_x + (slot * n_kept_chains + tile * W) * 4L + 1, 4, left, x_1);
                keep_real(keep_x + (slot * n_kept_chains + tile * W) * 4L + 2, 4, left, x_2);
                keep_real(keep_x + (slot * n_kept_chains + tile * W) * 4L + 3, 4, left, x_3);
                keep_real(keep_energy + (slot * n_kept_chains + tile * W) * 1L + 0, 1, left, energy);
                    until = thin;
                    ++slot;
                }
            }
            // is everything finite, and was it all the way?
            at[0] = x_0;
            at[1] = x_1;
            at[2] = x_2;
            at[3] = x_3;
            at[4] = energy;
            at[5] = grad_0;
            at[6] = grad_1;
            at[7] = grad_2;
            at[8] = grad_3;
            at[4] = energy_of(numbers + 0, energy_arrays, kwargs, tile, at + 0, (R*)(iat + 0));
            const M alive = ieq(failed_at, iset(-1LL));
            const M fine = mand(all_finite(at + 0, 4), risfinite(at[4]));
            if (!exact && many(mand(alive, mnot(mand(fine, rle(spread, rset(limit[0]))))))) {
                // somewhere on the way a chain failed, or went where its energy may not be finite: again, step by step
                copy_all(at + 0, at + 9, 4);
                copy_all(at + 4, at + 13, 1);
                copy_all(at + 5, at + 14, 4);
                x_0 = at[0];
                x_1 = at[1];
                x_2 = at[2];
                x_3 = at[3];
                energy = at[4];
                grad_0 = at[5];
                grad_1 = at[6];
                grad_2 = at[7];
                grad_3 = at[8];
                patience = patience ? 2 * patience : 64;
                if (patience > 64 * 64) patience = 64 * 64;
                careful = patience;
                until = until_before;
                slot = slot_before;
                end = from;
                continue;
            }
            const M moves = mand(alive, fine);
            settle(at + 0, at + 9, 4, moves);
            settle(at + 4, at + 13, 1, moves);
            settle(at + 5, at + 14, 4, moves);
            x_0 = at[0];
            x_1 = at[1];
            x_2 = at[2];
            x_3 = at[3];
            energy = at[4];
            grad_0 = at[5];
            grad_1 = at[6];
            grad_2 = at[7];
            grad_3 = at[8];
            failed_at = isel(mand(alive, mnot(fine)), iset(first_step + end - 1), failed_at);
            if (careful) --careful;
            else patience /= 2;
            if (thin && exact && --until == 0) {
                keep_real(keep_x + (slot * n_kept_chains + tile * W) * 4L + 0, 4, left, x_0);
                keep_real(keep_x + (slot * n_kept_chains + tile * W) * 4L + 1, 4, left, x_1);
                keep_real(keep_x + (slot * n_kept_chains + tile * W) * 4L + 2, 4, left, x_2);
                keep_real(keep_x + (slot * n_kept_chains + tile * W) * 4L + 3, 4, left, x_3);
                keep_real(keep_energy + (slot * n_kept_chains + tile * W) * 1L + 0, 1, left, energy);
                until = thin;
                ++slot;
            }
        }
        give_real(x_tile + 0, 4, x_0);
        give_real(x_tile + 1, 4, x_1);
        give_real(x_tile + 2, 4, x_2);
        give_real(x_tile + 3, 4, x_3);
        give_real(energy_tile + 0, 1, energy);
        give_real(grad_tile + 0, 4, grad_0);
        give_real(grad_tile + 1, 4, grad_1);
        give_real(grad_tile + 2, 4, grad_2);
        give_real(grad_tile + 3, 4, grad_3);
        give_int(failed_at_tile + 0, 1, failed_at);
    }
}
