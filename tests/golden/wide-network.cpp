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
    real* const x_array = (real*)arrays[0];
    real* const energy_array = (real*)arrays[1];
    real* const grad_array = (real*)arrays[2];
    long long* const failed_at_array = (long long*)arrays[3];
    const real* const WIDE_0_bias = (const real*)arrays[4];
    const real* const WIDE_2_bias = (const real*)arrays[5];
    const real* const WIDE_4_bias = (const real*)arrays[6];
    const real* const WIDE_4_weight_t = (const real*)arrays[7];
    const real* const WIDE_4_weight = (const real*)arrays[8];
    const real* const WIDE_0_weight_t_packed = (const real*)arrays[9];
    const real* const WIDE_2_weight_t_packed = (const real*)arrays[10];
    const real* const WIDE_2_weight_packed = (const real*)arrays[11];
    const real* const WIDE_0_weight_packed = (const real*)arrays[12];
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
        long long until = until_kept, slot = 0;
        for (long long s = 0; s < n_steps; ++s) {
            const uint32_t step = (uint32_t)(first_step + s);
            (void)step;
            const I step_index = iset(first_step + s);
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
            const R e4362 = step_size * grad_0;
            const R e4363 = step_size * grad_1;
            const R e4364 = step_size * grad_2;
            const R e4365 = step_size * grad_3;
            const R e4366 = step_size * grad_4;
            const R e4367 = step_size * grad_5;
            const R e4368 = step_size * grad_6;
            const R e4369 = step_size * grad_7;
            const R e4370 = step_size * grad_8;
            const R e4371 = step_size * grad_9;
            const R e4372 = step_size * grad_10;
            const R e4373 = step_size * grad_11;
            const R e4374 = x_0 - e4362;
            const R e4375 = x_1 - e4363;
            const R e4376 = x_2 - e4364;
            const R e4377 = x_3 - e4365;
            const R e4378 = x_4 - e4366;
            const R e4379 = x_5 - e4367;
            const R e4380 = x_6 - e4368;
            const R e4381 = x_7 - e4369;
            const R e4382 = x_8 - e4370;
            const R e4383 = x_9 - e4371;
            const R e4384 = x_10 - e4372;
            const R e4385 = x_11 - e4373;
            const R e4386 = noise_std * normals_0;
            const R e4387 = noise_std * normals_1;
            const R e4388 = noise_std * normals_2;
            const R e4389 = noise_std * normals_3;
            const R e4390 = noise_std * normals_4;
            const R e4391 = noise_std * normals_5;
            const R e4392 = noise_std * normals_6;
            const R e4393 = noise_std * normals_7;
            const R e4394 = noise_std * normals_8;
            const R e4395 = noise_std * normals_9;
            const R e4396 = noise_std * normals_10;
            const R e4397 = noise_std * normals_11;
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
            const R e4708 = e4398 * rset((real)2.0);
            const R e4709 = e4399 * rset((real)2.0);
            const R e4710 = e4400 * rset((real)2.0);
            const R e4711 = e4401 * rset((real)2.0);
            const R e4712 = e4402 * rset((real)2.0);
            const R e4713 = e4403 * rset((real)2.0);
            const R e4714 = e4404 * rset((real)2.0);
            const R e4715 = e4405 * rset((real)2.0);
            const R e4716 = e4406 * rset((real)2.0);
            const R e4717 = e4407 * rset((real)2.0);
            const R e4718 = e4408 * rset((real)2.0);
            const R e4719 = e4409 * rset((real)2.0);
            // the sampler's own: finite = torch.isfinite(new.x).all() & torch.isfinite(new.energy)
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
            // the sampler's own: alive = failed_at == ALIVE
            const M e5093 = ieq(failed_at, iset(-1LL));
            // test_fused.py, in wide_network: return WIDE(x).squeeze(-1) + x.square().sum(-1)
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
                const R v4451 = at[i] + rset(WIDE_0_bias[i]);
                const R v4491 = r_tanh(v4451);
                at[i] = v4491;
                const R v4880 = v4491 * v4491;
                const R v4920 = rset((real)1.0) - v4880;
                at[73 + i] = v4920;
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
            R e4691 = rset(0);
            for (long i = 0; i < 40; ++i) {
                // test_fused.py, in wide_network: return WIDE(x).squeeze(-1) + x.square().sum(-1)
                const R v4571 = at[146 + i] + rset(WIDE_2_bias[i]);
                const R v4611 = r_tanh(v4571);
                const R v4651 = v4611 * rset(WIDE_4_weight_t[i]);
                const R v4720 = v4611 * v4611;
                const R v4760 = rset((real)1.0) - v4720;
                const R v4800 = rset(WIDE_4_weight[i]) * v4760;
                at[146 + i] = v4800;
                e4691 = e4691 + v4651;
            }
            const R e4692 = e4691 + rset(WIDE_4_bias[0]);
            const R e4706 = e4692 + e4705;
            // the sampler's own: finite = torch.isfinite(new.x).all() & torch.isfinite(new.energy)
            const M e5090 = risfinite(e4706);
            const M e5091 = mand(e5086, e5090);
            // the sampler's own: moves = alive & finite
            const M e5094 = mand(e5093, e5091);
            // the sampler's own: kept = type(state)(*(torch.where(moves, after, before) for after, before in zip(new, state, strict=True)))
            const R e5095 = rsel(e5094, e4398, x_0);
            const R e5096 = rsel(e5094, e4399, x_1);
            const R e5097 = rsel(e5094, e4400, x_2);
            const R e5098 = rsel(e5094, e4401, x_3);
            const R e5099 = rsel(e5094, e4402, x_4);
            const R e5100 = rsel(e5094, e4403, x_5);
            const R e5101 = rsel(e5094, e4404, x_6);
            const R e5102 = rsel(e5094, e4405, x_7);
            const R e5103 = rsel(e5094, e4406, x_8);
            const R e5104 = rsel(e5094, e4407, x_9);
            const R e5105 = rsel(e5094, e4408, x_10);
            const R e5106 = rsel(e5094, e4409, x_11);
            const R e5107 = rsel(e5094, e4706, energy);
            // the sampler's own: return kept, torch.where(alive & ~finite, step, failed_at)
            const M e5120 = mnot(e5091);
            const M e5121 = mand(e5093, e5120);
            const I e5122 = isel(e5121, step_index, failed_at);
            // test_fused.py, in wide_network: return WIDE(x).squeeze(-1) + x.square().sum(-1)
            for (long b = 0; b < 4; ++b) {
                R sum[10];
                for (int j = 0; j < 10; ++j) sum[j] = rset(0);
                const real* w = WIDE_2_weight_packed + b * 400;
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
                const real* w = WIDE_0_weight_packed + b * 480;
                for (long k = 0; k < 40; ++k) {
                    const R h = at[73 + k];
                    LANES_UNROLL
                    for (int j = 0; j < 12; ++j) sum[j] += h * rset(w[k * 12 + j]);
                }
                LANES_UNROLL
                for (int j = 0; j < 12; ++j) at[146 + (12 * b + j)] = sum[j];
            }
            // autograd's own: the sum of a gradient's parts
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
            // the sampler's own: kept = type(state)(*(torch.where(moves, after, before) for after, before in zip(new, state, strict=True)))
            const R e5108 = rsel(e5094, e5012, grad_0);
            const R e5109 = rsel(e5094, e5013, grad_1);
            const R e5110 = rsel(e5094, e5014, grad_2);
            const R e5111 = rsel(e5094, e5015, grad_3);
            const R e5112 = rsel(e5094, e5016, grad_4);
            const R e5113 = rsel(e5094, e5017, grad_5);
            const R e5114 = rsel(e5094, e5018, grad_6);
            const R e5115 = rsel(e5094, e5019, grad_7);
            const R e5116 = rsel(e5094, e5020, grad_8);
            const R e5117 = rsel(e5094, e5021, grad_9);
            const R e5118 = rsel(e5094, e5022, grad_10);
            const R e5119 = rsel(e5094, e5023, grad_11);
            // the state for the next step
            const R x_0_next = e5095;
            const R x_1_next = e5096;
            const R x_2_next = e5097;
            const R x_3_next = e5098;
            const R x_4_next = e5099;
            const R x_5_next = e5100;
            const R x_6_next = e5101;
            const R x_7_next = e5102;
            const R x_8_next = e5103;
            const R x_9_next = e5104;
            const R x_10_next = e5105;
            const R x_11_next = e5106;
            const R energy_next = e5107;
            const R grad_0_next = e5108;
            const R grad_1_next = e5109;
            const R grad_2_next = e5110;
            const R grad_3_next = e5111;
            const R grad_4_next = e5112;
            const R grad_5_next = e5113;
            const R grad_6_next = e5114;
            const R grad_7_next = e5115;
            const R grad_8_next = e5116;
            const R grad_9_next = e5117;
            const R grad_10_next = e5118;
            const R grad_11_next = e5119;
            const I failed_at_next = e5122;
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
            failed_at = failed_at_next;
            if (thin && --until == 0) {
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
