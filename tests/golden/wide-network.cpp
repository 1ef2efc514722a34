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
    I* const __restrict iat = (I*)(at + 281);
    (void)iat; (void)uniforms_stream; (void)normals_stream; (void)hyper; (void)n_hyper; (void)first_step;
    (void)kwargs; (void)energy_arrays; (void)limit;
    real* const x_array = (real*)arrays[0];
    real* const energy_array = (real*)arrays[1];
    real* const grad_array = (real*)arrays[2];
    long long* const failed_at_array = (long long*)arrays[3];
    const real* const WIDE_0_bias = (const real*)arrays[4];
    const real* const WIDE_2_bias = (const real*)arrays[5];
    const real* const WIDE_4_bias = (const real*)arrays[6];
    const real* const WIDE_4_weight_t = (const real*)arrays[7];
    const real* const WIDE_0_weight_t_packed = (const real*)arrays[8];
    const real* const WIDE_2_weight_t_packed = (const real*)arrays[9];
    const real* const WIDE_2_weight_t_packed_v2 = (const real*)arrays[10];
    const real* const WIDE_0_weight_t_packed_v2 = (const real*)arrays[11];
    for (;;) {
        const long long tile = __atomic_fetch_add(next, 1, __ATOMIC_RELAXED);
        if (tile >= n_tiles) return;
        const ChainWords words = chain_words(ids + tile * W);
        const long left = (long)(n_kept_chains - tile * W);
        (void)words; (void)left;
        real* const x_tile = x_array + tile * (W * 12L);
        R x_0 = take_real(x_tile + 0, 12);
        R x_1 = take_real(x_tile + 1, 12);
        R x_2 = take_real(x_tile + 2, 12);
        R x_3 = take_real(x_tile + 3, 12);
        R x_4 = take_real(x_tile + 4, 12);
        R x_5 = take_real(x_tile + 5, 12);
        R x_6 = take_real(x_tile + 6, 12);
        R x_7 = take_real(x_tile + 7, 12);
        R x_8 = take_real(x_tile + 8, 12);
        R x_9 = take_real(x_tile + 9, 12);
        R x_10 = take_real(x_tile + 10, 12);
        R x_11 = take_real(x_tile + 11, 12);
        real* const energy_tile = energy_array + tile * (W * 1L);
        R energy = take_real(energy_tile + 0, 1);
        real* const grad_tile = grad_array + tile * (W * 12L);
        R grad_0 = take_real(grad_tile + 0, 12);
        R grad_1 = take_real(grad_tile + 1, 12);
        R grad_2 = take_real(grad_tile + 2, 12);
        R grad_3 = take_real(grad_tile + 3, 12);
        R grad_4 = take_real(grad_tile + 4, 12);
        R grad_5 = take_real(grad_tile + 5, 12);
        R grad_6 = take_real(grad_tile + 6, 12);
        R grad_7 = take_real(grad_tile + 7, 12);
        R grad_8 = take_real(grad_tile + 8, 12);
        R grad_9 = take_real(grad_tile + 9, 12);
        R grad_10 = take_real(grad_tile + 10, 12);
        R grad_11 = take_real(grad_tile + 11, 12);
        long long* const failed_at_tile = failed_at_array + tile * (W * 1L);
        I failed_at = take_int(failed_at_tile + 0, 1);
        R spread;
        long long until = until_kept, slot = 0;
        long long careful = 0, patience = 0;
        at[231] = x_0;
        at[232] = x_1;
        at[233] = x_2;
        at[234] = x_3;
        at[235] = x_4;
        at[236] = x_5;
        at[237] = x_6;
        at[238] = x_7;
        at[239] = x_8;
        at[240] = x_9;
        at[241] = x_10;
        at[242] = x_11;
        at[243] = energy;
        at[244] = grad_0;
        at[245] = grad_1;
        at[246] = grad_2;
        at[247] = grad_3;
        at[248] = grad_4;
        at[249] = grad_5;
        at[250] = grad_6;
        at[251] = grad_7;
        at[252] = grad_8;
        at[253] = grad_9;
        at[254] = grad_10;
        at[255] = grad_11;
        copy_all(at + 256, at + 231, 12);
        copy_all(at + 268, at + 243, 1);
        copy_all(at + 269, at + 244, 12);
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
                R zb4[4];
                normals4(keys, words, 1u | normals_stream, step, zb4);
                const R normals_4 = zb4[0];
                const R normals_5 = zb4[1];
                const R normals_6 = zb4[2];
                const R normals_7 = zb4[3];
                R zb8[4];
                normals4(keys, words, 2u | normals_stream, step, zb8);
                const R normals_8 = zb8[0];
                const R normals_9 = zb8[1];
                const R normals_10 = zb8[2];
                const R normals_11 = zb8[3];
                // the transition's own: x = state.x - hyper.step_size * grad + hyper.noise_std * noise.normals
                const R e2242 = step_size * grad_0;
                const R e2243 = step_size * grad_1;
                const R e2244 = step_size * grad_2;
                const R e2245 = step_size * grad_3;
                const R e2246 = step_size * grad_4;
                const R e2247 = step_size * grad_5;
                const R e2248 = step_size * grad_6;
                const R e2249 = step_size * grad_7;
                const R e2250 = step_size * grad_8;
                const R e2251 = step_size * grad_9;
                const R e2252 = step_size * grad_10;
                const R e2253 = step_size * grad_11;
                const R e2254 = x_0 - e2242;
                const R e2255 = x_1 - e2243;
                const R e2256 = x_2 - e2244;
                const R e2257 = x_3 - e2245;
                const R e2258 = x_4 - e2246;
                const R e2259 = x_5 - e2247;
                const R e2260 = x_6 - e2248;
                const R e2261 = x_7 - e2249;
                const R e2262 = x_8 - e2250;
                const R e2263 = x_9 - e2251;
                const R e2264 = x_10 - e2252;
                const R e2265 = x_11 - e2253;
                const R e2266 = noise_std * normals_0;
                const R e2267 = noise_std * normals_1;
                const R e2268 = noise_std * normals_2;
                const R e2269 = noise_std * normals_3;
                const R e2270 = noise_std * normals_4;
                const R e2271 = noise_std * normals_5;
                const R e2272 = noise_std * normals_6;
                const R e2273 = noise_std * normals_7;
                const R e2274 = noise_std * normals_8;
                const R e2275 = noise_std * normals_9;
                const R e2276 = noise_std * normals_10;
                const R e2277 = noise_std * normals_11;
                const R e2278 = e2254 + e2266;
                at[219] = e2278;
                const R e2279 = e2255 + e2267;
                at[220] = e2279;
                const R e2280 = e2256 + e2268;
                at[221] = e2280;
                const R e2281 = e2257 + e2269;
                at[222] = e2281;
                const R e2282 = e2258 + e2270;
                at[223] = e2282;
                const R e2283 = e2259 + e2271;
                at[224] = e2283;
                const R e2284 = e2260 + e2272;
                at[225] = e2284;
                const R e2285 = e2261 + e2273;
                at[226] = e2285;
                const R e2286 = e2262 + e2274;
                at[227] = e2286;
                const R e2287 = e2263 + e2275;
                at[228] = e2287;
                const R e2288 = e2264 + e2276;
                at[229] = e2288;
                const R e2289 = e2265 + e2277;
                at[230] = e2289;
                // test_fused.py, in wide_network: return WIDE(x).squeeze(-1) + x.square().sum(-1)
                const R e2573 = e2278 * e2278;
                const R e2574 = e2279 * e2279;
                const R e2575 = e2280 * e2280;
                const R e2576 = e2281 * e2281;
                const R e2577 = e2282 * e2282;
                const R e2578 = e2283 * e2283;
                const R e2579 = e2284 * e2284;
                const R e2580 = e2285 * e2285;
                const R e2581 = e2286 * e2286;
                const R e2582 = e2287 * e2287;
                const R e2583 = e2288 * e2288;
                const R e2584 = e2289 * e2289;
                const R e2585 = ((((((((((e2573 + e2574) + e2575) + e2576) + e2577) + e2578) + e2579) + e2580) + e2581) + e2582) + e2583) + e2584;
                const R e2588 = e2278 * rset((real)2.0);
                const R e2589 = e2279 * rset((real)2.0);
                const R e2590 = e2280 * rset((real)2.0);
                const R e2591 = e2281 * rset((real)2.0);
                const R e2592 = e2282 * rset((real)2.0);
                const R e2593 = e2283 * rset((real)2.0);
                const R e2594 = e2284 * rset((real)2.0);
                const R e2595 = e2285 * rset((real)2.0);
                const R e2596 = e2286 * rset((real)2.0);
                const R e2597 = e2287 * rset((real)2.0);
                const R e2598 = e2288 * rset((real)2.0);
                const R e2599 = e2289 * rset((real)2.0);
                for (long b = 0; b < 4; ++b) {
                    R sum[10];
                    for (int j = 0; j < 10; ++j) sum[j] = rset(0);
                    const real* w = WIDE_0_weight_t_packed + b * 120;
                    for (long k = 0; k < 12; ++k) {
                        const R h = at[219 + k];
                        LANES_UNROLL
                        for (int j = 0; j < 10; ++j) sum[j] += h * rset(w[k * 10 + j]);
                    }
                    LANES_UNROLL
                    for (int j = 0; j < 10; ++j) at[0 + (10 * b + j)] = sum[j];
                }
                for (long i = 0; i < 40; ++i) {
                    // test_fused.py, in wide_network: return WIDE(x).squeeze(-1) + x.square().sum(-1)
                    const R v2331 = at[i] + rset(WIDE_0_bias[i]);
                    const R v2371 = r_tanh(v2331);
                    at[i] = v2371;
                    const R v2760 = v2371 * v2371;
                    const R v2800 = rset((real)1.0) - v2760;
                    at[73 + i] = v2800;
                }
                for (long b = 0; b < 4; ++b) {
                    R sum[10];
                    for (int j = 0; j < 10; ++j) sum[j] = rset(0);
                    const real* w = WIDE_2_weight_t_packed + b * 400;
                    for (long k = 0; k < 40; ++k) {
                        const R h = at[k];
                        LANES_UNROLL
                        for (int j = 0; j < 10; ++j) sum[j] += h * rset(w[k * 10 + j]);
                    }
                    LANES_UNROLL
                    for (int j = 0; j < 10; ++j) at[146 + (10 * b + j)] = sum[j];
                }
                R e2571 = rset(0);
                for (long i = 0; i < 40; ++i) {
                    // test_fused.py, in wide_network: return WIDE(x).squeeze(-1) + x.square().sum(-1)
                    const R v2451 = at[146 + i] + rset(WIDE_2_bias[i]);
                    const R v2491 = r_tanh(v2451);
                    const R v2531 = v2491 * rset(WIDE_4_weight_t[i]);
                    const R v2600 = v2491 * v2491;
                    const R v2640 = rset((real)1.0) - v2600;
                    const R v2680 = rset(WIDE_4_weight_t[i]) * v2640;
                    at[146 + i] = v2680;
                    e2571 = e2571 + v2531;
                }
                const R e2572 = e2571 + rset(WIDE_4_bias[0]);
                const R e2586 = e2572 + e2585;
                // the sampler's own: how far the chain has gone since the last check
                const R e2905 = e2586 * rset((real)0.0);
                const R e2906 = e2585 + e2905;
                const R e2908 = spread + e2906;
                // test_fused.py, in wide_network: return WIDE(x).squeeze(-1) + x.square().sum(-1)
                for (long b = 0; b < 4; ++b) {
                    R sum[10];
                    for (int j = 0; j < 10; ++j) sum[j] = rset(0);
                    const real* w = WIDE_2_weight_t_packed_v2 + b * 400;
                    for (long k = 0; k < 40; ++k) {
                        const R h = at[146 + k];
                        LANES_UNROLL
                        for (int j = 0; j < 10; ++j) sum[j] += h * rset(w[k * 10 + j]);
                    }
                    LANES_UNROLL
                    for (int j = 0; j < 10; ++j) at[0 + (10 * b + j)] = sum[j];
                }
                for (long i = 0; i < 40; ++i) {
                    // test_fused.py, in wide_network: return WIDE(x).squeeze(-1) + x.square().sum(-1)
                    const R v2840 = at[i] * at[73 + i];
                    at[73 + i] = v2840;
                }
                for (long b = 0; b < 1; ++b) {
                    R sum[12];
                    for (int j = 0; j < 12; ++j) sum[j] = rset(0);
                    const real* w = WIDE_0_weight_t_packed_v2 + b * 480;
                    for (long k = 0; k < 40; ++k) {
                        const R h = at[73 + k];
                        LANES_UNROLL
                        for (int j = 0; j < 12; ++j) sum[j] += h * rset(w[k * 12 + j]);
                    }
                    LANES_UNROLL
                    for (int j = 0; j < 12; ++j) at[146 + (12 * b + j)] = sum[j];
                }
                // autograd's own: the sum of a gradient's parts
                const R e2892 = e2588 + at[146];
                const R e2893 = e2589 + at[147];
                const R e2894 = e2590 + at[148];
                const R e2895 = e2591 + at[149];
                const R e2896 = e2592 + at[150];
                const R e2897 = e2593 + at[151];
                const R e2898 = e2594 + at[152];
                const R e2899 = e2595 + at[153];
                const R e2900 = e2596 + at[154];
                const R e2901 = e2597 + at[155];
                const R e2902 = e2598 + at[156];
                const R e2903 = e2599 + at[157];
                // the state for the next step
                const R x_0_next = e2278;
                const R x_1_next = e2279;
                const R x_2_next = e2280;
                const R x_3_next = e2281;
                const R x_4_next = e2282;
                const R x_5_next = e2283;
                const R x_6_next = e2284;
                const R x_7_next = e2285;
                const R x_8_next = e2286;
                const R x_9_next = e2287;
                const R x_10_next = e2288;
                const R x_11_next = e2289;
                const R energy_next = e2586;
                const R grad_0_next = e2892;
                const R grad_1_next = e2893;
                const R grad_2_next = e2894;
                const R grad_3_next = e2895;
                const R grad_4_next = e2896;
                const R grad_5_next = e2897;
                const R grad_6_next = e2898;
                const R grad_7_next = e2899;
                const R grad_8_next = e2900;
                const R grad_9_next = e2901;
                const R grad_10_next = e2902;
                const R grad_11_next = e2903;
                const R spread_next = e2908;
                x_0 = x_0_next;
                x_1 = x_1_next;
                x_2 = x_2_next;
                x_3 = x_3_next;
                x_4 = x_4_next;
                x_5 = x_5_next;
                x_6 = x_6_next;
                x_7 = x_7_next;
                x_8 = x_8_next;
                x_9 = x_9_next;
                x_10 = x_10_next;
                x_11 = x_11_next;
                energy = energy_next;
                grad_0 = grad_0_next;
                grad_1 = grad_1_next;
                grad_2 = grad_2_next;
                grad_3 = grad_3_next;
                grad_4 = grad_4_next;
                grad_5 = grad_5_next;
                grad_6 = grad_6_next;
                grad_7 = grad_7_next;
                grad_8 = grad_8_next;
                grad_9 = grad_9_next;
                grad_10 = grad_10_next;
                grad_11 = grad_11_next;
                spread = spread_next;
                if (thin && !exact && --until == 0) {

                keep_real(keep_x + (slot * n_kept_chains + tile * W) * 12L + 0, 12, left, x_0);
                keep_real(keep_x + (slot * n_kept_chains + tile * W) * 12L + 1, 12, left, x_1);
                keep_real(keep_x + (slot * n_kept_chains + tile * W) * 12L + 2, 12, left, x_2);
                keep_real(keep_x + (slot * n_kept_chains + tile * W) * 12L + 3, 12, left, x_3);
                keep_real(keep_x + (slot * n_kept_chains + tile * W) * 12L + 4, 12, left, x_4);
                keep_real(keep_x + (slot * n_kept_chains + tile * W) * 12L + 5, 12, left, x_5);
                keep_real(keep_x + (slot * n_kept_chains + tile * W) * 12L + 6, 12, left, x_6);
                keep_real(keep_x + (slot * n_kept_chains + tile * W) * 12L + 7, 12, left, x_7);
                keep_real(keep_x + (slot * n_kept_chains + tile * W) * 12L + 8, 12, left, x_8);
                keep_real(keep_x + (slot * n_kept_chains + tile * W) * 12L + 9, 12, left, x_9);
                keep_real(keep_x + (slot * n_kept_chains + tile * W) * 12L + 10, 12, left, x_10);
                keep_real(keep_x + (slot * n_kept_chains + tile * W) * 12L + 11, 12, left, x_11);
                keep_real(keep_energy + (slot * n_kept_chains + tile * W) * 1L + 0, 1, left, energy);
                    until = thin;
                    ++slot;
                }
            }
            // is everything finite, and was it all the way?
            at[231] = x_0;
            at[232] = x_1;
            at[233] = x_2;
            at[234] = x_3;
            at[235] = x_4;
            at[236] = x_5;
            at[237] = x_6;
            at[238] = x_7;
            at[239] = x_8;
            at[240] = x_9;
            at[241] = x_10;
            at[242] = x_11;
            at[243] = energy;
            at[244] = grad_0;
            at[245] = grad_1;
            at[246] = grad_2;
            at[247] = grad_3;
            at[248] = grad_4;
            at[249] = grad_5;
            at[250] = grad_6;
            at[251] = grad_7;
            at[252] = grad_8;
            at[253] = grad_9;
            at[254] = grad_10;
            at[255] = grad_11;

            const M alive = ieq(failed_at, iset(-1LL));
            const M fine = mand(all_finite(at + 231, 12), risfinite(at[243]));
            if (!exact && many(mand(alive, mnot(mand(fine, rle(spread, rset(limit[0]))))))) {
                // somewhere on the way a chain failed, or went where its energy may not be finite: again, step by step
                copy_all(at + 231, at + 256, 12);
                copy_all(at + 243, at + 268, 1);
                copy_all(at + 244, at + 269, 12);
                x_0 = at[231];
                x_1 = at[232];
                x_2 = at[233];
                x_3 = at[234];
                x_4 = at[235];
                x_5 = at[236];
                x_6 = at[237];
                x_7 = at[238];
                x_8 = at[239];
                x_9 = at[240];
                x_10 = at[241];
                x_11 = at[242];
                energy = at[243];
                grad_0 = at[244];
                grad_1 = at[245];
                grad_2 = at[246];
                grad_3 = at[247];
                grad_4 = at[248];
                grad_5 = at[249];
                grad_6 = at[250];
                grad_7 = at[251];
                grad_8 = at[252];
                grad_9 = at[253];
                grad_10 = at[254];
                grad_11 = at[255];
                patience = patience ? 2 * patience : 64;
                if (patience > 64 * 64) patience = 64 * 64;
                careful = patience;
                until = until_before;
                slot = slot_before;
                end = from;
                continue;
            }
            const M moves = mand(alive, fine);
            settle(at + 231, at + 256, 12, moves);
            settle(at + 243, at + 268, 1, moves);
            settle(at + 244, at + 269, 12, moves);
            x_0 = at[231];
            x_1 = at[232];
            x_2 = at[233];
            x_3 = at[234];
            x_4 = at[235];
            x_5 = at[236];
            x_6 = at[237];
            x_7 = at[238];
            x_8 = at[239];
            x_9 = at[240];
            x_10 = at[241];
            x_11 = at[242];
            energy = at[243];
            grad_0 = at[244];
            grad_1 = at[245];
            grad_2 = at[246];
            grad_3 = at[247];
            grad_4 = at[248];
            grad_5 = at[249];
            grad_6 = at[250];
            grad_7 = at[251];
            grad_8 = at[252];
            grad_9 = at[253];
            grad_10 = at[254];
            grad_11 = at[255];
            failed_at = isel(mand(alive, mnot(fine)), iset(first_step + end - 1), failed_at);
            if (careful) --careful;
            else patience /= 2;
            if (thin && exact && --until == 0) {
                keep_real(keep_x + (slot * n_kept_chains + tile * W) * 12L + 0, 12, left, x_0);
                keep_real(keep_x + (slot * n_kept_chains + tile * W) * 12L + 1, 12, left, x_1);
                keep_real(keep_x + (slot * n_kept_chains + tile * W) * 12L + 2, 12, left, x_2);
                keep_real(keep_x + (slot * n_kept_chains + tile * W) * 12L + 3, 12, left, x_3);
                keep_real(keep_x + (slot * n_kept_chains + tile * W) * 12L + 4, 12, left, x_4);
                keep_real(keep_x + (slot * n_kept_chains + tile * W) * 12L + 5, 12, left, x_5);
                keep_real(keep_x + (slot * n_kept_chains + tile * W) * 12L + 6, 12, left, x_6);
                keep_real(keep_x + (slot * n_kept_chains + tile * W) * 12L + 7, 12, left, x_7);
                keep_real(keep_x + (slot * n_kept_chains + tile * W) * 12L + 8, 12, left, x_8);
                keep_real(keep_x + (slot * n_kept_chains + tile * W) * 12L + 9, 12, left, x_9);
                keep_real(keep_x + (slot * n_kept_chains + tile * W) * 12L + 10, 12, left, x_10);
                keep_real(keep_x + (slot * n_kept_chains + tile * W) * 12L + 11, 12, left, x_11);
                keep_real(keep_energy + (slot * n_kept_chains + tile * W) * 1L + 0, 1, left, energy);
                until = thin;
                ++slot;
            }
        }
        give_real(x_tile + 0, 12, x_0);
        give_real(x_tile + 1, 12, x_1);
        give_real(x_tile + 2, 12, x_2);
        give_real(x_tile + 3, 12, x_3);
        give_real(x_tile + 4, 12, x_4);
        give_real(x_tile + 5, 12, x_5);
        give_real(x_tile + 6, 12, x_6);
        give_real(x_tile + 7, 12, x_7);
        give_real(x_tile + 8, 12, x_8);
        give_real(x_tile + 9, 12, x_9);
        give_real(x_tile + 10, 12, x_10);
        give_real(x_tile + 11, 12, x_11);
        give_real(energy_tile + 0, 1, energy);
        give_real(grad_tile + 0, 12, grad_0);
        give_real(grad_tile + 1, 12, grad_1);
        give_real(grad_tile + 2, 12, grad_2);
        give_real(grad_tile + 3, 12, grad_3);
        give_real(grad_tile + 4, 12, grad_4);
        give_real(grad_tile + 5, 12, grad_5);
        give_real(grad_tile + 6, 12, grad_6);
        give_real(grad_tile + 7, 12, grad_7);
        give_real(grad_tile + 8, 12, grad_8);
        give_real(grad_tile + 9, 12, grad_9);
        give_real(grad_tile + 10, 12, grad_10);
        give_real(grad_tile + 11, 12, grad_11);
        give_int(failed_at_tile + 0, 1, failed_at);
    }
}
