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

// numbers: seed, first_step, n_steps, n_hyper, n_tiles, thin (0: keep nothing), steps until the next kept draw,
// chains whose draws are kept
extern "C" __attribute__((visibility("default"))) void chain_loop(
    const long long* numbers, void* const* arrays, const long long* ids, long long* next, const real* hyper,
    real* keep_x, real* keep_energy, void* scratch) {
    const long long first_step = numbers[1], n_steps = numbers[2], n_hyper = numbers[3], n_tiles = numbers[4];
    const long long thin = numbers[5], until_kept = numbers[6], n_kept_chains = numbers[7];
    const uint32_t normals_stream = 0u << 24, uniforms_stream = 1u << 24;
    const PhiloxKeys keys = philox_keys((uint64_t)numbers[0]);
    R* const __restrict at = (R*)__builtin_assume_aligned(scratch, VECTOR_BYTES);
    I* const __restrict iat = (I*)(at + 231);
    (void)iat; (void)uniforms_stream; (void)normals_stream; (void)hyper; (void)n_hyper; (void)first_step;
    real* const p_s0 = (real*)arrays[0];
    real* const p_s1 = (real*)arrays[1];
    real* const p_s2 = (real*)arrays[2];
    long long* const p_f0 = (long long*)arrays[3];
    const real* const c0 = (const real*)arrays[4];
    const real* const c1 = (const real*)arrays[5];
    const real* const c2 = (const real*)arrays[6];
    const real* const c5 = (const real*)arrays[7];
    const real* const w0 = (const real*)arrays[8];
    const real* const w1 = (const real*)arrays[9];
    const real* const w2 = (const real*)arrays[10];
    const real* const w3 = (const real*)arrays[11];
    for (;;) {
        const long long tile = __atomic_fetch_add(next, 1, __ATOMIC_RELAXED);
        if (tile >= n_tiles) return;
        const ChainWords words = chain_words(ids + tile * W);
        const long left = (long)(n_kept_chains - tile * W);
        (void)words; (void)left;
        real* const x_s0 = p_s0 + tile * (W * 12L);
        R s0_0 = take_real(x_s0 + 0, 12);
        R s0_1 = take_real(x_s0 + 1, 12);
        R s0_2 = take_real(x_s0 + 2, 12);
        R s0_3 = take_real(x_s0 + 3, 12);
        R s0_4 = take_real(x_s0 + 4, 12);
        R s0_5 = take_real(x_s0 + 5, 12);
        R s0_6 = take_real(x_s0 + 6, 12);
        R s0_7 = take_real(x_s0 + 7, 12);
        R s0_8 = take_real(x_s0 + 8, 12);
        R s0_9 = take_real(x_s0 + 9, 12);
        R s0_10 = take_real(x_s0 + 10, 12);
        R s0_11 = take_real(x_s0 + 11, 12);
        real* const x_s1 = p_s1 + tile * (W * 1L);
        R s1_0 = take_real(x_s1 + 0, 1);
        real* const x_s2 = p_s2 + tile * (W * 12L);
        R s2_0 = take_real(x_s2 + 0, 12);
        R s2_1 = take_real(x_s2 + 1, 12);
        R s2_2 = take_real(x_s2 + 2, 12);
        R s2_3 = take_real(x_s2 + 3, 12);
        R s2_4 = take_real(x_s2 + 4, 12);
        R s2_5 = take_real(x_s2 + 5, 12);
        R s2_6 = take_real(x_s2 + 6, 12);
        R s2_7 = take_real(x_s2 + 7, 12);
        R s2_8 = take_real(x_s2 + 8, 12);
        R s2_9 = take_real(x_s2 + 9, 12);
        R s2_10 = take_real(x_s2 + 10, 12);
        R s2_11 = take_real(x_s2 + 11, 12);
        long long* const x_f0 = p_f0 + tile * (W * 1L);
        I f0_0 = take_int(x_f0 + 0, 1);
        long long until = until_kept, slot = 0;
        for (long long s = 0; s < n_steps; ++s) {
            const uint32_t step = (uint32_t)(first_step + s);
            (void)step;
            const I t0_0 = iset(first_step + s);
            const R h0_0 = rset(hyper[s * n_hyper + 0]);
            const R h1_0 = rset(hyper[s * n_hyper + 1]);
            R zb0[4];
            normals4(keys, words, 0u | normals_stream, step, zb0);
            const R z0_0 = zb0[0];
            const R z0_1 = zb0[1];
            const R z0_2 = zb0[2];
            const R z0_3 = zb0[3];
            R zb4[4];
            normals4(keys, words, 1u | normals_stream, step, zb4);
            const R z0_4 = zb4[0];
            const R z0_5 = zb4[1];
            const R z0_6 = zb4[2];
            const R z0_7 = zb4[3];
            R zb8[4];
            normals4(keys, words, 2u | normals_stream, step, zb8);
            const R z0_8 = zb8[0];
            const R z0_9 = zb8[1];
            const R z0_10 = zb8[2];
            const R z0_11 = zb8[3];
            // test_fused.py, in build: return ce.build_sampler(energy, transition or ce.Langevin(0.01), event, **options)
            const R e2242 = h0_0 * s2_0;
            const R e2243 = h0_0 * s2_1;
            const R e2244 = h0_0 * s2_2;
            const R e2245 = h0_0 * s2_3;
            const R e2246 = h0_0 * s2_4;
            const R e2247 = h0_0 * s2_5;
            const R e2248 = h0_0 * s2_6;
            const R e2249 = h0_0 * s2_7;
            const R e2250 = h0_0 * s2_8;
            const R e2251 = h0_0 * s2_9;
            const R e2252 = h0_0 * s2_10;
            const R e2253 = h0_0 * s2_11;
            const R e2254 = s0_0 - e2242;
            const R e2255 = s0_1 - e2243;
            const R e2256 = s0_2 - e2244;
            const R e2257 = s0_3 - e2245;
            const R e2258 = s0_4 - e2246;
            const R e2259 = s0_5 - e2247;
            const R e2260 = s0_6 - e2248;
            const R e2261 = s0_7 - e2249;
            const R e2262 = s0_8 - e2250;
            const R e2263 = s0_9 - e2251;
            const R e2264 = s0_10 - e2252;
            const R e2265 = s0_11 - e2253;
            const R e2266 = h1_0 * z0_0;
            const R e2267 = h1_0 * z0_1;
            const R e2268 = h1_0 * z0_2;
            const R e2269 = h1_0 * z0_3;
            const R e2270 = h1_0 * z0_4;
            const R e2271 = h1_0 * z0_5;
            const R e2272 = h1_0 * z0_6;
            const R e2273 = h1_0 * z0_7;
            const R e2274 = h1_0 * z0_8;
            const R e2275 = h1_0 * z0_9;
            const R e2276 = h1_0 * z0_10;
            const R e2277 = h1_0 * z0_11;
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
            const R e2588 = e2278 * rset((real)0x1.0000000000000p+1);
            const R e2589 = e2279 * rset((real)0x1.0000000000000p+1);
            const R e2590 = e2280 * rset((real)0x1.0000000000000p+1);
            const R e2591 = e2281 * rset((real)0x1.0000000000000p+1);
            const R e2592 = e2282 * rset((real)0x1.0000000000000p+1);
            const R e2593 = e2283 * rset((real)0x1.0000000000000p+1);
            const R e2594 = e2284 * rset((real)0x1.0000000000000p+1);
            const R e2595 = e2285 * rset((real)0x1.0000000000000p+1);
            const R e2596 = e2286 * rset((real)0x1.0000000000000p+1);
            const R e2597 = e2287 * rset((real)0x1.0000000000000p+1);
            const R e2598 = e2288 * rset((real)0x1.0000000000000p+1);
            const R e2599 = e2289 * rset((real)0x1.0000000000000p+1);
            // test_fused.py, in build: return ce.build_sampler(energy, transition or ce.Langevin(0.01), event, **options)
            const R e2966 = e2278 * rset((real)0x0.0p+0);
            const R e2967 = e2279 * rset((real)0x0.0p+0);
            const R e2968 = e2280 * rset((real)0x0.0p+0);
            const R e2969 = e2281 * rset((real)0x0.0p+0);
            const R e2970 = e2282 * rset((real)0x0.0p+0);
            const R e2971 = e2283 * rset((real)0x0.0p+0);
            const R e2972 = e2284 * rset((real)0x0.0p+0);
            const R e2973 = e2285 * rset((real)0x0.0p+0);
            const R e2974 = e2286 * rset((real)0x0.0p+0);
            const R e2975 = e2287 * rset((real)0x0.0p+0);
            const R e2976 = e2288 * rset((real)0x0.0p+0);
            const R e2977 = e2289 * rset((real)0x0.0p+0);
            const R e2978 = ((((((((((e2966 + e2967) + e2968) + e2969) + e2970) + e2971) + e2972) + e2973) + e2974) + e2975) + e2976) + e2977;
            const M e2979 = req(e2978, rset((real)0x0.0p+0));
            const M e2987 = ieq(f0_0, iset(-1LL));
            // test_fused.py, in wide_network: return WIDE(x).squeeze(-1) + x.square().sum(-1)
            for (long b = 0; b < 4; ++b) {
                R sum[10];
                for (int j = 0; j < 10; ++j) sum[j] = rset(0);
                const real* w = w0 + b * 120;
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
                const R v2331 = at[i] + rset(c0[i]);
                const R v2371 = r_tanh(v2331);
                at[i] = v2371;
                const R v2760 = v2371 * v2371;
                const R v2800 = rset((real)0x1.0000000000000p+0) - v2760;
                at[73 + i] = v2800;
            }
            for (long b = 0; b < 4; ++b) {
                R sum[10];
                for (int j = 0; j < 10; ++j) sum[j] = rset(0);
                const real* w = w1 + b * 400;
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
                const R v2451 = at[146 + i] + rset(c1[i]);
                const R v2491 = r_tanh(v2451);
                const R v2531 = v2491 * rset(c5[i]);
                const R v2600 = v2491 * v2491;
                const R v2640 = rset((real)0x1.0000000000000p+0) - v2600;
                const R v2680 = rset(c5[i]) * v2640;
                at[146 + i] = v2680;
                e2571 = e2571 + v2531;
            }
            const R e2572 = e2571 + rset(c2[0]);
            const R e2586 = e2572 + e2585;
            // test_fused.py, in build: return ce.build_sampler(energy, transition or ce.Langevin(0.01), event, **options)
            const M e2984 = risfinite(e2586);
            const M e2985 = mand(e2979, e2984);
            const M e2988 = mand(e2987, e2985);
            const R e2989 = rsel(e2988, e2278, s0_0);
            const R e2990 = rsel(e2988, e2279, s0_1);
            const R e2991 = rsel(e2988, e2280, s0_2);
            const R e2992 = rsel(e2988, e2281, s0_3);
            const R e2993 = rsel(e2988, e2282, s0_4);
            const R e2994 = rsel(e2988, e2283, s0_5);
            const R e2995 = rsel(e2988, e2284, s0_6);
            const R e2996 = rsel(e2988, e2285, s0_7);
            const R e2997 = rsel(e2988, e2286, s0_8);
            const R e2998 = rsel(e2988, e2287, s0_9);
            const R e2999 = rsel(e2988, e2288, s0_10);
            const R e3000 = rsel(e2988, e2289, s0_11);
            const R e3001 = rsel(e2988, e2586, s1_0);
            const M e3014 = mnot(e2985);
            const M e3015 = mand(e2987, e3014);
            const I e3016 = isel(e3015, t0_0, f0_0);
            // test_fused.py, in wide_network: return WIDE(x).squeeze(-1) + x.square().sum(-1)
            for (long b = 0; b < 4; ++b) {
                R sum[10];
                for (int j = 0; j < 10; ++j) sum[j] = rset(0);
                const real* w = w2 + b * 400;
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
                const real* w = w3 + b * 480;
                for (long k = 0; k < 40; ++k) {
                    const R h = at[73 + k];
                    LANES_UNROLL
                    for (int j = 0; j < 12; ++j) sum[j] += h * rset(w[k * 12 + j]);
                }
                LANES_UNROLL
                for (int j = 0; j < 12; ++j) at[146 + (12 * b + j)] = sum[j];
            }
            // a line outside the energy's own source
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
            // test_fused.py, in build: return ce.build_sampler(energy, transition or ce.Langevin(0.01), event, **options)
            const R e3002 = rsel(e2988, e2892, s2_0);
            const R e3003 = rsel(e2988, e2893, s2_1);
            const R e3004 = rsel(e2988, e2894, s2_2);
            const R e3005 = rsel(e2988, e2895, s2_3);
            const R e3006 = rsel(e2988, e2896, s2_4);
            const R e3007 = rsel(e2988, e2897, s2_5);
            const R e3008 = rsel(e2988, e2898, s2_6);
            const R e3009 = rsel(e2988, e2899, s2_7);
            const R e3010 = rsel(e2988, e2900, s2_8);
            const R e3011 = rsel(e2988, e2901, s2_9);
            const R e3012 = rsel(e2988, e2902, s2_10);
            const R e3013 = rsel(e2988, e2903, s2_11);
            const R n0 = e2989;
            const R n1 = e2990;
            const R n2 = e2991;
            const R n3 = e2992;
            const R n4 = e2993;
            const R n5 = e2994;
            const R n6 = e2995;
            const R n7 = e2996;
            const R n8 = e2997;
            const R n9 = e2998;
            const R n10 = e2999;
            const R n11 = e3000;
            const R n12 = e3001;
            const R n13 = e3002;
            const R n14 = e3003;
            const R n15 = e3004;
            const R n16 = e3005;
            const R n17 = e3006;
            const R n18 = e3007;
            const R n19 = e3008;
            const R n20 = e3009;
            const R n21 = e3010;
            const R n22 = e3011;
            const R n23 = e3012;
            const R n24 = e3013;
            const I n25 = e3016;
            s0_0 = n0;
            s0_1 = n1;
            s0_2 = n2;
            s0_3 = n3;
            s0_4 = n4;
            s0_5 = n5;
            s0_6 = n6;
            s0_7 = n7;
            s0_8 = n8;
            s0_9 = n9;
            s0_10 = n10;
            s0_11 = n11;
            s1_0 = n12;
            s2_0 = n13;
            s2_1 = n14;
            s2_2 = n15;
            s2_3 = n16;
            s2_4 = n17;
            s2_5 = n18;
            s2_6 = n19;
            s2_7 = n20;
            s2_8 = n21;
            s2_9 = n22;
            s2_10 = n23;
            s2_11 = n24;
            f0_0 = n25;
            if (thin && --until == 0) {
                keep_real(keep_x + (slot * n_kept_chains + tile * W) * 12L + 0, 12, left, s0_0);
                keep_real(keep_x + (slot * n_kept_chains + tile * W) * 12L + 1, 12, left, s0_1);
                keep_real(keep_x + (slot * n_kept_chains + tile * W) * 12L + 2, 12, left, s0_2);
                keep_real(keep_x + (slot * n_kept_chains + tile * W) * 12L + 3, 12, left, s0_3);
                keep_real(keep_x + (slot * n_kept_chains + tile * W) * 12L + 4, 12, left, s0_4);
                keep_real(keep_x + (slot * n_kept_chains + tile * W) * 12L + 5, 12, left, s0_5);
                keep_real(keep_x + (slot * n_kept_chains + tile * W) * 12L + 6, 12, left, s0_6);
                keep_real(keep_x + (slot * n_kept_chains + tile * W) * 12L + 7, 12, left, s0_7);
                keep_real(keep_x + (slot * n_kept_chains + tile * W) * 12L + 8, 12, left, s0_8);
                keep_real(keep_x + (slot * n_kept_chains + tile * W) * 12L + 9, 12, left, s0_9);
                keep_real(keep_x + (slot * n_kept_chains + tile * W) * 12L + 10, 12, left, s0_10);
                keep_real(keep_x + (slot * n_kept_chains + tile * W) * 12L + 11, 12, left, s0_11);
                keep_real(keep_energy + (slot * n_kept_chains + tile * W) * 1L + 0, 1, left, s1_0);
                until = thin;
                ++slot;
            }
        }
        give_real(x_s0 + 0, 12, s0_0);
        give_real(x_s0 + 1, 12, s0_1);
        give_real(x_s0 + 2, 12, s0_2);
        give_real(x_s0 + 3, 12, s0_3);
        give_real(x_s0 + 4, 12, s0_4);
        give_real(x_s0 + 5, 12, s0_5);
        give_real(x_s0 + 6, 12, s0_6);
        give_real(x_s0 + 7, 12, s0_7);
        give_real(x_s0 + 8, 12, s0_8);
        give_real(x_s0 + 9, 12, s0_9);
        give_real(x_s0 + 10, 12, s0_10);
        give_real(x_s0 + 11, 12, s0_11);
        give_real(x_s1 + 0, 1, s1_0);
        give_real(x_s2 + 0, 12, s2_0);
        give_real(x_s2 + 1, 12, s2_1);
        give_real(x_s2 + 2, 12, s2_2);
        give_real(x_s2 + 3, 12, s2_3);
        give_real(x_s2 + 4, 12, s2_4);
        give_real(x_s2 + 5, 12, s2_5);
        give_real(x_s2 + 6, 12, s2_6);
        give_real(x_s2 + 7, 12, s2_7);
        give_real(x_s2 + 8, 12, s2_8);
        give_real(x_s2 + 9, 12, s2_9);
        give_real(x_s2 + 10, 12, s2_10);
        give_real(x_s2 + 11, 12, s2_11);
        give_int(x_f0 + 0, 1, f0_0);
    }
}
