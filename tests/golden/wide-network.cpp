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
    const real* const c6 = (const real*)arrays[8];
    const real* const w0 = (const real*)arrays[9];
    const real* const w1 = (const real*)arrays[10];
    const real* const w2 = (const real*)arrays[11];
    const real* const w3 = (const real*)arrays[12];
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
            const R e4362 = h0_0 * s2_0;
            const R e4363 = h0_0 * s2_1;
            const R e4364 = h0_0 * s2_2;
            const R e4365 = h0_0 * s2_3;
            const R e4366 = h0_0 * s2_4;
            const R e4367 = h0_0 * s2_5;
            const R e4368 = h0_0 * s2_6;
            const R e4369 = h0_0 * s2_7;
            const R e4370 = h0_0 * s2_8;
            const R e4371 = h0_0 * s2_9;
            const R e4372 = h0_0 * s2_10;
            const R e4373 = h0_0 * s2_11;
            const R e4374 = s0_0 - e4362;
            const R e4375 = s0_1 - e4363;
            const R e4376 = s0_2 - e4364;
            const R e4377 = s0_3 - e4365;
            const R e4378 = s0_4 - e4366;
            const R e4379 = s0_5 - e4367;
            const R e4380 = s0_6 - e4368;
            const R e4381 = s0_7 - e4369;
            const R e4382 = s0_8 - e4370;
            const R e4383 = s0_9 - e4371;
            const R e4384 = s0_10 - e4372;
            const R e4385 = s0_11 - e4373;
            const R e4386 = h1_0 * z0_0;
            const R e4387 = h1_0 * z0_1;
            const R e4388 = h1_0 * z0_2;
            const R e4389 = h1_0 * z0_3;
            const R e4390 = h1_0 * z0_4;
            const R e4391 = h1_0 * z0_5;
            const R e4392 = h1_0 * z0_6;
            const R e4393 = h1_0 * z0_7;
            const R e4394 = h1_0 * z0_8;
            const R e4395 = h1_0 * z0_9;
            const R e4396 = h1_0 * z0_10;
            const R e4397 = h1_0 * z0_11;
            const R e4398 = e4374 + e4386;
            at[219] = e4398;
            const R e4399 = e4375 + e4387;
            at[220] = e4399;
            const R e4400 = e4376 + e4388;
            at[221] = e4400;
            const R e4401 = e4377 + e4389;
            at[222] = e4401;
            const R e4402 = e4378 + e4390;
            at[223] = e4402;
            const R e4403 = e4379 + e4391;
            at[224] = e4403;
            const R e4404 = e4380 + e4392;
            at[225] = e4404;
            const R e4405 = e4381 + e4393;
            at[226] = e4405;
            const R e4406 = e4382 + e4394;
            at[227] = e4406;
            const R e4407 = e4383 + e4395;
            at[228] = e4407;
            const R e4408 = e4384 + e4396;
            at[229] = e4408;
            const R e4409 = e4385 + e4397;
            at[230] = e4409;
            // test_fused.py, in wide_network: return WIDE(x).squeeze(-1) + x.square().sum(-1)
            const R e4693 = e4398 * e4398;
            const R e4694 = e4399 * e4399;
            const R e4695 = e4400 * e4400;
            const R e4696 = e4401 * e4401;
            const R e4697 = e4402 * e4402;
            const R e4698 = e4403 * e4403;
            const R e4699 = e4404 * e4404;
            const R e4700 = e4405 * e4405;
            const R e4701 = e4406 * e4406;
            const R e4702 = e4407 * e4407;
            const R e4703 = e4408 * e4408;
            const R e4704 = e4409 * e4409;
            const R e4705 = ((((((((((e4693 + e4694) + e4695) + e4696) + e4697) + e4698) + e4699) + e4700) + e4701) + e4702) + e4703) + e4704;
            const R e4708 = e4398 * rset((real)0x1.0000000000000p+1);
            const R e4709 = e4399 * rset((real)0x1.0000000000000p+1);
            const R e4710 = e4400 * rset((real)0x1.0000000000000p+1);
            const R e4711 = e4401 * rset((real)0x1.0000000000000p+1);
            const R e4712 = e4402 * rset((real)0x1.0000000000000p+1);
            const R e4713 = e4403 * rset((real)0x1.0000000000000p+1);
            const R e4714 = e4404 * rset((real)0x1.0000000000000p+1);
            const R e4715 = e4405 * rset((real)0x1.0000000000000p+1);
            const R e4716 = e4406 * rset((real)0x1.0000000000000p+1);
            const R e4717 = e4407 * rset((real)0x1.0000000000000p+1);
            const R e4718 = e4408 * rset((real)0x1.0000000000000p+1);
            const R e4719 = e4409 * rset((real)0x1.0000000000000p+1);
            // test_fused.py, in build: return ce.build_sampler(energy, transition or ce.Langevin(0.01), event, **options)
            const M e5061 = risfinite(e4398);
            const M e5062 = risfinite(e4399);
            const M e5063 = risfinite(e4400);
            const M e5064 = risfinite(e4401);
            const M e5065 = risfinite(e4402);
            const M e5066 = risfinite(e4403);
            const M e5067 = risfinite(e4404);
            const M e5068 = risfinite(e4405);
            const M e5069 = risfinite(e4406);
            const M e5070 = risfinite(e4407);
            const M e5071 = risfinite(e4408);
            const M e5072 = risfinite(e4409);
            const M e5073 = mnot(e5061);
            const M e5074 = mnot(e5062);
            const M e5075 = mnot(e5063);
            const M e5076 = mnot(e5064);
            const M e5077 = mnot(e5065);
            const M e5078 = mnot(e5066);
            const M e5079 = mnot(e5067);
            const M e5080 = mnot(e5068);
            const M e5081 = mnot(e5069);
            const M e5082 = mnot(e5070);
            const M e5083 = mnot(e5071);
            const M e5084 = mnot(e5072);
            const M e5085 = mor((mor((mor((mor((mor((mor((mor((mor((mor((mor((mor(e5073, e5074)), e5075)), e5076)), e5077)), e5078)), e5079)), e5080)), e5081)), e5082)), e5083)), e5084);
            const M e5086 = mnot(e5085);
            const M e5093 = ieq(f0_0, iset(-1LL));
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
                const R v4451 = at[i] + rset(c0[i]);
                const R v4491 = r_tanh(v4451);
                at[i] = v4491;
                const R v4880 = v4491 * v4491;
                const R v4920 = rset((real)0x1.0000000000000p+0) - v4880;
                at[73 + i] = v4920;
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
            R e4691 = rset(0);
            for (long i = 0; i < 40; ++i) {
                // test_fused.py, in wide_network: return WIDE(x).squeeze(-1) + x.square().sum(-1)
                const R v4571 = at[146 + i] + rset(c1[i]);
                const R v4611 = r_tanh(v4571);
                const R v4651 = v4611 * rset(c5[i]);
                const R v4720 = v4611 * v4611;
                const R v4760 = rset((real)0x1.0000000000000p+0) - v4720;
                const R v4800 = rset(c6[i]) * v4760;
                at[146 + i] = v4800;
                e4691 = e4691 + v4651;
            }
            const R e4692 = e4691 + rset(c2[0]);
            const R e4706 = e4692 + e4705;
            // test_fused.py, in build: return ce.build_sampler(energy, transition or ce.Langevin(0.01), event, **options)
            const M e5090 = risfinite(e4706);
            const M e5091 = mand(e5086, e5090);
            const M e5094 = mand(e5093, e5091);
            const R e5095 = rsel(e5094, e4398, s0_0);
            const R e5096 = rsel(e5094, e4399, s0_1);
            const R e5097 = rsel(e5094, e4400, s0_2);
            const R e5098 = rsel(e5094, e4401, s0_3);
            const R e5099 = rsel(e5094, e4402, s0_4);
            const R e5100 = rsel(e5094, e4403, s0_5);
            const R e5101 = rsel(e5094, e4404, s0_6);
            const R e5102 = rsel(e5094, e4405, s0_7);
            const R e5103 = rsel(e5094, e4406, s0_8);
            const R e5104 = rsel(e5094, e4407, s0_9);
            const R e5105 = rsel(e5094, e4408, s0_10);
            const R e5106 = rsel(e5094, e4409, s0_11);
            const R e5107 = rsel(e5094, e4706, s1_0);
            const M e5120 = mnot(e5091);
            const M e5121 = mand(e5093, e5120);
            const I e5122 = isel(e5121, t0_0, f0_0);
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
                const R v4960 = at[i] * at[73 + i];
                at[73 + i] = v4960;
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
            const R e5012 = e4708 + at[146];
            const R e5013 = e4709 + at[147];
            const R e5014 = e4710 + at[148];
            const R e5015 = e4711 + at[149];
            const R e5016 = e4712 + at[150];
            const R e5017 = e4713 + at[151];
            const R e5018 = e4714 + at[152];
            const R e5019 = e4715 + at[153];
            const R e5020 = e4716 + at[154];
            const R e5021 = e4717 + at[155];
            const R e5022 = e4718 + at[156];
            const R e5023 = e4719 + at[157];
            // test_fused.py, in build: return ce.build_sampler(energy, transition or ce.Langevin(0.01), event, **options)
            const R e5108 = rsel(e5094, e5012, s2_0);
            const R e5109 = rsel(e5094, e5013, s2_1);
            const R e5110 = rsel(e5094, e5014, s2_2);
            const R e5111 = rsel(e5094, e5015, s2_3);
            const R e5112 = rsel(e5094, e5016, s2_4);
            const R e5113 = rsel(e5094, e5017, s2_5);
            const R e5114 = rsel(e5094, e5018, s2_6);
            const R e5115 = rsel(e5094, e5019, s2_7);
            const R e5116 = rsel(e5094, e5020, s2_8);
            const R e5117 = rsel(e5094, e5021, s2_9);
            const R e5118 = rsel(e5094, e5022, s2_10);
            const R e5119 = rsel(e5094, e5023, s2_11);
            const R n0 = e5095;
            const R n1 = e5096;
            const R n2 = e5097;
            const R n3 = e5098;
            const R n4 = e5099;
            const R n5 = e5100;
            const R n6 = e5101;
            const R n7 = e5102;
            const R n8 = e5103;
            const R n9 = e5104;
            const R n10 = e5105;
            const R n11 = e5106;
            const R n12 = e5107;
            const R n13 = e5108;
            const R n14 = e5109;
            const R n15 = e5110;
            const R n16 = e5111;
            const R n17 = e5112;
            const R n18 = e5113;
            const R n19 = e5114;
            const R n20 = e5115;
            const R n21 = e5116;
            const R n22 = e5117;
            const R n23 = e5118;
            const R n24 = e5119;
            const I n25 = e5122;
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
