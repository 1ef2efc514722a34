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
// chains whose draws are kept; then the rounds of each repetition
extern "C" __attribute__((visibility("default"))) void chain_loop(
    const long long* numbers, void* const* arrays, const long long* ids, long long* next, const real* hyper,
    real* keep_x, real* keep_energy, void* scratch) {
    const long long first_step = numbers[1], n_steps = numbers[2], n_hyper = numbers[3], n_tiles = numbers[4];
    const long long thin = numbers[5], until_kept = numbers[6], n_kept_chains = numbers[7];
    const uint32_t normals_stream = 0u << 24, uniforms_stream = 1u << 24;
    const PhiloxKeys keys = philox_keys((uint64_t)numbers[0]);
    R* const __restrict at = (R*)__builtin_assume_aligned(scratch, VECTOR_BYTES);
    I* const __restrict iat = (I*)(at + 0);
    (void)iat; (void)uniforms_stream; (void)normals_stream; (void)hyper; (void)n_hyper; (void)first_step;
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
            // the sampler's own: alive = failed_at == ALIVE
            const M e123 = ieq(failed_at, iset(-1LL));
            // the transition's own: x = state.x - hyper.step_size * grad + hyper.noise_std * noise.normals
            const R e17 = step_size * grad_0;
            const R e21 = x_0 - e17;
            const R e25 = noise_std * normals_0;
            const R e29 = e21 + e25;
            // the sampler's own: finite = torch.isfinite(new.x).all() & torch.isfinite(new.energy)
            const R e108 = e29 * rset((real)0.0);
            // the transition's own: x = state.x - hyper.step_size * grad + hyper.noise_std * noise.normals
            const R e18 = step_size * grad_1;
            const R e22 = x_1 - e18;
            const R e26 = noise_std * normals_1;
            const R e30 = e22 + e26;
            // the sampler's own: finite = torch.isfinite(new.x).all() & torch.isfinite(new.energy)
            const R e109 = e30 * rset((real)0.0);
            const R e112 = e108 + e109;
            // the transition's own: x = state.x - hyper.step_size * grad + hyper.noise_std * noise.normals
            const R e19 = step_size * grad_2;
            const R e23 = x_2 - e19;
            const R e27 = noise_std * normals_2;
            const R e31 = e23 + e27;
            // the sampler's own: finite = torch.isfinite(new.x).all() & torch.isfinite(new.energy)
            const R e110 = e31 * rset((real)0.0);
            const R e113 = e112 + e110;
            // the transition's own: x = state.x - hyper.step_size * grad + hyper.noise_std * noise.normals
            const R e20 = step_size * grad_3;
            const R e24 = x_3 - e20;
            const R e28 = noise_std * normals_3;
            const R e32 = e24 + e28;
            // the sampler's own: finite = torch.isfinite(new.x).all() & torch.isfinite(new.energy)
            const R e111 = e32 * rset((real)0.0);
            const R e114 = e113 + e111;
            const M e115 = req(e114, rset((real)0.0));
            // test_fused.py, in valley: return (100.0 * (x[:, 1:] - x[:, :-1].square()).square() + (1 - x[:, :-1]).square()).sum(-1)
            const R e33 = e29 * e29;
            const R e36 = e30 - e33;
            const R e39 = e36 * e36;
            const R e43 = e39 * rset((real)100.0);
            const R e47 = rset((real)1.0) - e29;
            const R e50 = e47 * e47;
            const R e53 = e43 + e50;
            const R e34 = e30 * e30;
            const R e37 = e31 - e34;
            const R e40 = e37 * e37;
            const R e44 = e40 * rset((real)100.0);
            const R e48 = rset((real)1.0) - e30;
            const R e51 = e48 * e48;
            const R e54 = e44 + e51;
            const R e56 = e53 + e54;
            const R e35 = e31 * e31;
            const R e38 = e32 - e35;
            const R e41 = e38 * e38;
            const R e45 = e41 * rset((real)100.0);
            const R e49 = rset((real)1.0) - e31;
            const R e52 = e49 * e49;
            const R e55 = e45 + e52;
            const R e57 = e56 + e55;
            // the sampler's own: finite = torch.isfinite(new.x).all() & torch.isfinite(new.energy)
            const M e120 = risfinite(e57);
            const M e121 = mand(e115, e120);
            // the sampler's own: return kept, torch.where(alive & ~finite, step, failed_at)
            const M e134 = mnot(e121);
            const M e135 = mand(e123, e134);
            const I e136 = isel(e135, step_index, failed_at);
            // the sampler's own: moves = alive & finite
            const M e124 = mand(e123, e121);
            // test_fused.py, in valley: return (100.0 * (x[:, 1:] - x[:, :-1].square()).square() + (1 - x[:, :-1]).square()).sum(-1)
            const R e59 = e47 * rset((real)2.0);
            const R e62 = r_neg(e59);
            const R e70 = rset((real)200.0) * e36;
            const R e73 = r_neg(e70);
            const R e76 = e29 * rset((real)2.0);
            const R e79 = e73 * e76;
            // autograd's own: the sum of a gradient's parts
            const R e82 = e62 + e79;
            // the sampler's own: kept = type(state)(*(torch.where(moves, after, before) for after, before in zip(new, state, strict=True)))
            const R e130 = rsel(e124, e82, grad_0);
            // test_fused.py, in valley: return (100.0 * (x[:, 1:] - x[:, :-1].square()).square() + (1 - x[:, :-1]).square()).sum(-1)
            const R e60 = e48 * rset((real)2.0);
            const R e63 = r_neg(e60);
            const R e71 = rset((real)200.0) * e37;
            const R e74 = r_neg(e71);
            const R e77 = e30 * rset((real)2.0);
            const R e80 = e74 * e77;
            // autograd's own: the sum of a gradient's parts
            const R e83 = e63 + e80;
            const R e85 = e83 + e70;
            // the sampler's own: kept = type(state)(*(torch.where(moves, after, before) for after, before in zip(new, state, strict=True)))
            const R e131 = rsel(e124, e85, grad_1);
            // test_fused.py, in valley: return (100.0 * (x[:, 1:] - x[:, :-1].square()).square() + (1 - x[:, :-1]).square()).sum(-1)
            const R e61 = e49 * rset((real)2.0);
            const R e64 = r_neg(e61);
            const R e72 = rset((real)200.0) * e38;
            const R e75 = r_neg(e72);
            const R e78 = e31 * rset((real)2.0);
            const R e81 = e75 * e78;
            // autograd's own: the sum of a gradient's parts
            const R e84 = e64 + e81;
            const R e86 = e84 + e71;
            // the sampler's own: kept = type(state)(*(torch.where(moves, after, before) for after, before in zip(new, state, strict=True)))
            const R e132 = rsel(e124, e86, grad_2);
            const R e133 = rsel(e124, e72, grad_3);
            const R e129 = rsel(e124, e57, energy);
            const R e125 = rsel(e124, e29, x_0);
            const R e126 = rsel(e124, e30, x_1);
            const R e127 = rsel(e124, e31, x_2);
            const R e128 = rsel(e124, e32, x_3);
            // the state for the next step
            const R x_0_next = e125;
            const R x_1_next = e126;
            const R x_2_next = e127;
            const R x_3_next = e128;
            const R energy_next = e129;
            const R grad_0_next = e130;
            const R grad_1_next = e131;
            const R grad_2_next = e132;
            const R grad_3_next = e133;
            const I failed_at_next = e136;
            x_0 = x_0_next;
            x_1 = x_1_next;
            x_2 = x_2_next;
            x_3 = x_3_next;
            energy = energy_next;
            grad_0 = grad_0_next;
            grad_1 = grad_1_next;
            grad_2 = grad_2_next;
            grad_3 = grad_3_next;
            failed_at = failed_at_next;
            if (thin && --until == 0) {
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
