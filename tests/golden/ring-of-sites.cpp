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
    const R input_0_4 = x[4];
    const R input_0_5 = x[5];
    const R input_0_6 = x[6];
    const R input_0_7 = x[7];
    const R input_0_8 = x[8];
    const R input_0_9 = x[9];
    const R input_0_10 = x[10];
    const R input_0_11 = x[11];
    const R input_0_12 = x[12];
    const R input_0_13 = x[13];
    const R input_0_14 = x[14];
    const R input_0_15 = x[15];
    const R input_0_16 = x[16];
    const R input_0_17 = x[17];
    const R input_0_18 = x[18];
    const R input_0_19 = x[19];
    const R input_0_20 = x[20];
    const R input_0_21 = x[21];
    const R input_0_22 = x[22];
    const R input_0_23 = x[23];
    const R input_0_24 = x[24];
    const R input_0_25 = x[25];
    const R input_0_26 = x[26];
    const R input_0_27 = x[27];
    const R input_0_28 = x[28];
    const R input_0_29 = x[29];
    const R input_0_30 = x[30];
    const R input_0_31 = x[31];
    const R input_0_32 = x[32];
    const R input_0_33 = x[33];
    const R input_0_34 = x[34];
    const R input_0_35 = x[35];
    const R input_0_36 = x[36];
    const R input_0_37 = x[37];
    const R input_0_38 = x[38];
    const R input_0_39 = x[39];
    const R input_0_40 = x[40];
    const R input_0_41 = x[41];
    const R input_0_42 = x[42];
    const R input_0_43 = x[43];
    const R input_0_44 = x[44];
    const R input_0_45 = x[45];
    const R input_0_46 = x[46];
    const R input_0_47 = x[47];
    // test_fused.py, in ring_of_sites: return (x.roll(1, -1) - x).square().sum(-1) + x.pow(4).sum(-1)
    const R e49 = input_0_47 - input_0_0;
    const R e97 = e49 * e49;
    const R e50 = input_0_0 - input_0_1;
    const R e98 = e50 * e50;
    const R e51 = input_0_1 - input_0_2;
    const R e99 = e51 * e51;
    const R e52 = input_0_2 - input_0_3;
    const R e100 = e52 * e52;
    const R e53 = input_0_3 - input_0_4;
    const R e101 = e53 * e53;
    const R e54 = input_0_4 - input_0_5;
    const R e102 = e54 * e54;
    const R e55 = input_0_5 - input_0_6;
    const R e103 = e55 * e55;
    const R e56 = input_0_6 - input_0_7;
    const R e104 = e56 * e56;
    const R e57 = input_0_7 - input_0_8;
    const R e105 = e57 * e57;
    const R e58 = input_0_8 - input_0_9;
    const R e106 = e58 * e58;
    const R e59 = input_0_9 - input_0_10;
    const R e107 = e59 * e59;
    const R e60 = input_0_10 - input_0_11;
    const R e108 = e60 * e60;
    const R e61 = input_0_11 - input_0_12;
    const R e109 = e61 * e61;
    const R e62 = input_0_12 - input_0_13;
    const R e110 = e62 * e62;
    const R e63 = input_0_13 - input_0_14;
    const R e111 = e63 * e63;
    const R e64 = input_0_14 - input_0_15;
    const R e112 = e64 * e64;
    const R e65 = input_0_15 - input_0_16;
    const R e113 = e65 * e65;
    const R e66 = input_0_16 - input_0_17;
    const R e114 = e66 * e66;
    const R e67 = input_0_17 - input_0_18;
    const R e115 = e67 * e67;
    const R e68 = input_0_18 - input_0_19;
    const R e116 = e68 * e68;
    const R e69 = input_0_19 - input_0_20;
    const R e117 = e69 * e69;
    const R e70 = input_0_20 - input_0_21;
    const R e118 = e70 * e70;
    const R e71 = input_0_21 - input_0_22;
    const R e119 = e71 * e71;
    const R e72 = input_0_22 - input_0_23;
    const R e120 = e72 * e72;
    const R e73 = input_0_23 - input_0_24;
    const R e121 = e73 * e73;
    const R e74 = input_0_24 - input_0_25;
    const R e122 = e74 * e74;
    const R e75 = input_0_25 - input_0_26;
    const R e123 = e75 * e75;
    const R e76 = input_0_26 - input_0_27;
    const R e124 = e76 * e76;
    const R e77 = input_0_27 - input_0_28;
    const R e125 = e77 * e77;
    const R e78 = input_0_28 - input_0_29;
    const R e126 = e78 * e78;
    const R e79 = input_0_29 - input_0_30;
    const R e127 = e79 * e79;
    const R e80 = input_0_30 - input_0_31;
    const R e128 = e80 * e80;
    const R e81 = input_0_31 - input_0_32;
    const R e129 = e81 * e81;
    const R e82 = input_0_32 - input_0_33;
    const R e130 = e82 * e82;
    const R e83 = input_0_33 - input_0_34;
    const R e131 = e83 * e83;
    const R e84 = input_0_34 - input_0_35;
    const R e132 = e84 * e84;
    const R e85 = input_0_35 - input_0_36;
    const R e133 = e85 * e85;
    const R e86 = input_0_36 - input_0_37;
    const R e134 = e86 * e86;
    const R e87 = input_0_37 - input_0_38;
    const R e135 = e87 * e87;
    const R e88 = input_0_38 - input_0_39;
    const R e136 = e88 * e88;
    const R e89 = input_0_39 - input_0_40;
    const R e137 = e89 * e89;
    const R e90 = input_0_40 - input_0_41;
    const R e138 = e90 * e90;
    const R e91 = input_0_41 - input_0_42;
    const R e139 = e91 * e91;
    const R e92 = input_0_42 - input_0_43;
    const R e140 = e92 * e92;
    const R e93 = input_0_43 - input_0_44;
    const R e141 = e93 * e93;
    const R e94 = input_0_44 - input_0_45;
    const R e142 = e94 * e94;
    const R e95 = input_0_45 - input_0_46;
    const R e143 = e95 * e95;
    const R e96 = input_0_46 - input_0_47;
    const R e144 = e96 * e96;
    const R e145 = ((((((((((((((((((((((((((((((((((((((((((((((e97 + e98) + e99) + e100) + e101) + e102) + e103) + e104) + e105) + e106) + e107) + e108) + e109) + e110) + e111) + e112) + e113) + e114) + e115) + e116) + e117) + e118) + e119) + e120) + e121) + e122) + e123) + e124) + e125) + e126) + e127) + e128) + e129) + e130) + e131) + e132) + e133) + e134) + e135) + e136) + e137) + e138) + e139) + e140) + e141) + e142) + e143) + e144;
    const R e146 = input_0_0 * input_0_0;
    const R e194 = e146 * e146;
    const R e147 = input_0_1 * input_0_1;
    const R e195 = e147 * e147;
    const R e148 = input_0_2 * input_0_2;
    const R e196 = e148 * e148;
    const R e149 = input_0_3 * input_0_3;
    const R e197 = e149 * e149;
    const R e150 = input_0_4 * input_0_4;
    const R e198 = e150 * e150;
    const R e151 = input_0_5 * input_0_5;
    const R e199 = e151 * e151;
    const R e152 = input_0_6 * input_0_6;
    const R e200 = e152 * e152;
    const R e153 = input_0_7 * input_0_7;
    const R e201 = e153 * e153;
    const R e154 = input_0_8 * input_0_8;
    const R e202 = e154 * e154;
    const R e155 = input_0_9 * input_0_9;
    const R e203 = e155 * e155;
    const R e156 = input_0_10 * input_0_10;
    const R e204 = e156 * e156;
    const R e157 = input_0_11 * input_0_11;
    const R e205 = e157 * e157;
    const R e158 = input_0_12 * input_0_12;
    const R e206 = e158 * e158;
    const R e159 = input_0_13 * input_0_13;
    const R e207 = e159 * e159;
    const R e160 = input_0_14 * input_0_14;
    const R e208 = e160 * e160;
    const R e161 = input_0_15 * input_0_15;
    const R e209 = e161 * e161;
    const R e162 = input_0_16 * input_0_16;
    const R e210 = e162 * e162;
    const R e163 = input_0_17 * input_0_17;
    const R e211 = e163 * e163;
    const R e164 = input_0_18 * input_0_18;
    const R e212 = e164 * e164;
    const R e165 = input_0_19 * input_0_19;
    const R e213 = e165 * e165;
    const R e166 = input_0_20 * input_0_20;
    const R e214 = e166 * e166;
    const R e167 = input_0_21 * input_0_21;
    const R e215 = e167 * e167;
    const R e168 = input_0_22 * input_0_22;
    const R e216 = e168 * e168;
    const R e169 = input_0_23 * input_0_23;
    const R e217 = e169 * e169;
    const R e170 = input_0_24 * input_0_24;
    const R e218 = e170 * e170;
    const R e171 = input_0_25 * input_0_25;
    const R e219 = e171 * e171;
    const R e172 = input_0_26 * input_0_26;
    const R e220 = e172 * e172;
    const R e173 = input_0_27 * input_0_27;
    const R e221 = e173 * e173;
    const R e174 = input_0_28 * input_0_28;
    const R e222 = e174 * e174;
    const R e175 = input_0_29 * input_0_29;
    const R e223 = e175 * e175;
    const R e176 = input_0_30 * input_0_30;
    const R e224 = e176 * e176;
    const R e177 = input_0_31 * input_0_31;
    const R e225 = e177 * e177;
    const R e178 = input_0_32 * input_0_32;
    const R e226 = e178 * e178;
    const R e179 = input_0_33 * input_0_33;
    const R e227 = e179 * e179;
    const R e180 = input_0_34 * input_0_34;
    const R e228 = e180 * e180;
    const R e181 = input_0_35 * input_0_35;
    const R e229 = e181 * e181;
    const R e182 = input_0_36 * input_0_36;
    const R e230 = e182 * e182;
    const R e183 = input_0_37 * input_0_37;
    const R e231 = e183 * e183;
    const R e184 = input_0_38 * input_0_38;
    const R e232 = e184 * e184;
    const R e185 = input_0_39 * input_0_39;
    const R e233 = e185 * e185;
    const R e186 = input_0_40 * input_0_40;
    const R e234 = e186 * e186;
    const R e187 = input_0_41 * input_0_41;
    const R e235 = e187 * e187;
    const R e188 = input_0_42 * input_0_42;
    const R e236 = e188 * e188;
    const R e189 = input_0_43 * input_0_43;
    const R e237 = e189 * e189;
    const R e190 = input_0_44 * input_0_44;
    const R e238 = e190 * e190;
    const R e191 = input_0_45 * input_0_45;
    const R e239 = e191 * e191;
    const R e192 = input_0_46 * input_0_46;
    const R e240 = e192 * e192;
    const R e193 = input_0_47 * input_0_47;
    const R e241 = e193 * e193;
    const R e242 = ((((((((((((((((((((((((((((((((((((((((((((((e194 + e195) + e196) + e197) + e198) + e199) + e200) + e201) + e202) + e203) + e204) + e205) + e206) + e207) + e208) + e209) + e210) + e211) + e212) + e213) + e214) + e215) + e216) + e217) + e218) + e219) + e220) + e221) + e222) + e223) + e224) + e225) + e226) + e227) + e228) + e229) + e230) + e231) + e232) + e233) + e234) + e235) + e236) + e237) + e238) + e239) + e240) + e241;
    const R e243 = e145 + e242;
    return e243;
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
    I* const __restrict iat = (I*)(at + 294);
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
        real* const x_tile = x_array + tile * (W * 48L);
        R x_0 = take_real(x_tile + 0, 48);
        R x_1 = take_real(x_tile + 1, 48);
        R x_2 = take_real(x_tile + 2, 48);
        R x_3 = take_real(x_tile + 3, 48);
        R x_4 = take_real(x_tile + 4, 48);
        R x_5 = take_real(x_tile + 5, 48);
        R x_6 = take_real(x_tile + 6, 48);
        R x_7 = take_real(x_tile + 7, 48);
        R x_8 = take_real(x_tile + 8, 48);
        R x_9 = take_real(x_tile + 9, 48);
        R x_10 = take_real(x_tile + 10, 48);
        R x_11 = take_real(x_tile + 11, 48);
        R x_12 = take_real(x_tile + 12, 48);
        R x_13 = take_real(x_tile + 13, 48);
        R x_14 = take_real(x_tile + 14, 48);
        R x_15 = take_real(x_tile + 15, 48);
        R x_16 = take_real(x_tile + 16, 48);
        R x_17 = take_real(x_tile + 17, 48);
        R x_18 = take_real(x_tile + 18, 48);
        R x_19 = take_real(x_tile + 19, 48);
        R x_20 = take_real(x_tile + 20, 48);
        R x_21 = take_real(x_tile + 21, 48);
        R x_22 = take_real(x_tile + 22, 48);
        R x_23 = take_real(x_tile + 23, 48);
        R x_24 = take_real(x_tile + 24, 48);
        R x_25 = take_real(x_tile + 25, 48);
        R x_26 = take_real(x_tile + 26, 48);
        R x_27 = take_real(x_tile + 27, 48);
        R x_28 = take_real(x_tile + 28, 48);
        R x_29 = take_real(x_tile + 29, 48);
        R x_30 = take_real(x_tile + 30, 48);
        R x_31 = take_real(x_tile + 31, 48);
        R x_32 = take_real(x_tile + 32, 48);
        R x_33 = take_real(x_tile + 33, 48);
        R x_34 = take_real(x_tile + 34, 48);
        R x_35 = take_real(x_tile + 35, 48);
        R x_36 = take_real(x_tile + 36, 48);
        R x_37 = take_real(x_tile + 37, 48);
        R x_38 = take_real(x_tile + 38, 48);
        R x_39 = take_real(x_tile + 39, 48);
        R x_40 = take_real(x_tile + 40, 48);
        R x_41 = take_real(x_tile + 41, 48);
        R x_42 = take_real(x_tile + 42, 48);
        R x_43 = take_real(x_tile + 43, 48);
        R x_44 = take_real(x_tile + 44, 48);
        R x_45 = take_real(x_tile + 45, 48);
        R x_46 = take_real(x_tile + 46, 48);
        R x_47 = take_real(x_tile + 47, 48);
        real* const energy_tile = energy_array + tile * (W * 1L);
        R energy = take_real(energy_tile + 0, 1);
        real* const grad_tile = grad_array + tile * (W * 48L);
        R grad_0 = take_real(grad_tile + 0, 48);
        R grad_1 = take_real(grad_tile + 1, 48);
        R grad_2 = take_real(grad_tile + 2, 48);
        R grad_3 = take_real(grad_tile + 3, 48);
        R grad_4 = take_real(grad_tile + 4, 48);
        R grad_5 = take_real(grad_tile + 5, 48);
        R grad_6 = take_real(grad_tile + 6, 48);
        R grad_7 = take_real(grad_tile + 7, 48);
        R grad_8 = take_real(grad_tile + 8, 48);
        R grad_9 = take_real(grad_tile + 9, 48);
        R grad_10 = take_real(grad_tile + 10, 48);
        R grad_11 = take_real(grad_tile + 11, 48);
        R grad_12 = take_real(grad_tile + 12, 48);
        R grad_13 = take_real(grad_tile + 13, 48);
        R grad_14 = take_real(grad_tile + 14, 48);
        R grad_15 = take_real(grad_tile + 15, 48);
        R grad_16 = take_real(grad_tile + 16, 48);
        R grad_17 = take_real(grad_tile + 17, 48);
        R grad_18 = take_real(grad_tile + 18, 48);
        R grad_19 = take_real(grad_tile + 19, 48);
        R grad_20 = take_real(grad_tile + 20, 48);
        R grad_21 = take_real(grad_tile + 21, 48);
        R grad_22 = take_real(grad_tile + 22, 48);
        R grad_23 = take_real(grad_tile + 23, 48);
        R grad_24 = take_real(grad_tile + 24, 48);
        R grad_25 = take_real(grad_tile + 25, 48);
        R grad_26 = take_real(grad_tile + 26, 48);
        R grad_27 = take_real(grad_tile + 27, 48);
        R grad_28 = take_real(grad_tile + 28, 48);
        R grad_29 = take_real(grad_tile + 29, 48);
        R grad_30 = take_real(grad_tile + 30, 48);
        R grad_31 = take_real(grad_tile + 31, 48);
        R grad_32 = take_real(grad_tile + 32, 48);
        R grad_33 = take_real(grad_tile + 33, 48);
        R grad_34 = take_real(grad_tile + 34, 48);
        R grad_35 = take_real(grad_tile + 35, 48);
        R grad_36 = take_real(grad_tile + 36, 48);
        R grad_37 = take_real(grad_tile + 37, 48);
        R grad_38 = take_real(grad_tile + 38, 48);
        R grad_39 = take_real(grad_tile + 39, 48);
        R grad_40 = take_real(grad_tile + 40, 48);
        R grad_41 = take_real(grad_tile + 41, 48);
        R grad_42 = take_real(grad_tile + 42, 48);
        R grad_43 = take_real(grad_tile + 43, 48);
        R grad_44 = take_real(grad_tile + 44, 48);
        R grad_45 = take_real(grad_tile + 45, 48);
        R grad_46 = take_real(grad_tile + 46, 48);
        R grad_47 = take_real(grad_tile + 47, 48);
        long long* const failed_at_tile = failed_at_array + tile * (W * 1L);
        I failed_at = take_int(failed_at_tile + 0, 1);
        R spread;
        long long until = until_kept, slot = 0;
        long long careful = 0, patience = 0;
        at[0] = x_0;
        at[1] = x_1;
        at[2] = x_2;
        at[3] = x_3;
        at[4] = x_4;
        at[5] = x_5;
        at[6] = x_6;
        at[7] = x_7;
        at[8] = x_8;
        at[9] = x_9;
        at[10] = x_10;
        at[11] = x_11;
        at[12] = x_12;
        at[13] = x_13;
        at[14] = x_14;
        at[15] = x_15;
        at[16] = x_16;
        at[17] = x_17;
        at[18] = x_18;
        at[19] = x_19;
        at[20] = x_20;
        at[21] = x_21;
        at[22] = x_22;
        at[23] = x_23;
        at[24] = x_24;
        at[25] = x_25;
        at[26] = x_26;
        at[27] = x_27;
        at[28] = x_28;
        at[29] = x_29;
        at[30] = x_30;
        at[31] = x_31;
        at[32] = x_32;
        at[33] = x_33;
        at[34] = x_34;
        at[35] = x_35;
        at[36] = x_36;
        at[37] = x_37;
        at[38] = x_38;
        at[39] = x_39;
        at[40] = x_40;
        at[41] = x_41;
        at[42] = x_42;
        at[43] = x_43;
        at[44] = x_44;
        at[45] = x_45;
        at[46] = x_46;
        at[47] = x_47;
        at[73] = energy;
        at[74] = grad_0;
        at[75] = grad_1;
        at[76] = grad_2;
        at[77] = grad_3;
        at[78] = grad_4;
        at[79] = grad_5;
        at[80] = grad_6;
        at[81] = grad_7;
        at[82] = grad_8;
        at[83] = grad_9;
        at[84] = grad_10;
        at[85] = grad_11;
        at[86] = grad_12;
        at[87] = grad_13;
        at[88] = grad_14;
        at[89] = grad_15;
        at[90] = grad_16;
        at[91] = grad_17;
        at[92] = grad_18;
        at[93] = grad_19;
        at[94] = grad_20;
        at[95] = grad_21;
        at[96] = grad_22;
        at[97] = grad_23;
        at[98] = grad_24;
        at[99] = grad_25;
        at[100] = grad_26;
        at[101] = grad_27;
        at[102] = grad_28;
        at[103] = grad_29;
        at[104] = grad_30;
        at[105] = grad_31;
        at[106] = grad_32;
        at[107] = grad_33;
        at[108] = grad_34;
        at[109] = grad_35;
        at[110] = grad_36;
        at[111] = grad_37;
        at[112] = grad_38;
        at[113] = grad_39;
        at[114] = grad_40;
        at[115] = grad_41;
        at[116] = grad_42;
        at[117] = grad_43;
        at[118] = grad_44;
        at[119] = grad_45;
        at[120] = grad_46;
        at[121] = grad_47;
        copy_all(at + 147, at + 0, 48);
        copy_all(at + 220, at + 73, 1);
        copy_all(at + 221, at + 74, 48);
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
                R zb12[4];
                normals4(keys, words, 3u | normals_stream, step, zb12);
                const R normals_12 = zb12[0];
                const R normals_13 = zb12[1];
                const R normals_14 = zb12[2];
                const R normals_15 = zb12[3];
                R zb16[4];
                normals4(keys, words, 4u | normals_stream, step, zb16);
                const R normals_16 = zb16[0];
                const R normals_17 = zb16[1];
                const R normals_18 = zb16[2];
                const R normals_19 = zb16[3];
                R zb20[4];
                normals4(keys, words, 5u | normals_stream, step, zb20);
                const R normals_20 = zb20[0];
                const R normals_21 = zb20[1];
                const R normals_22 = zb20[2];
                const R normals_23 = zb20[3];
                R zb24[4];
                normals4(keys, words, 6u | normals_stream, step, zb24);
                const R normals_24 = zb24[0];
                const R normals_25 = zb24[1];
                const R normals_26 = zb24[2];
                const R normals_27 = zb24[3];
                R zb28[4];
                normals4(keys, words, 7u | normals_stream, step, zb28);
                const R normals_28 = zb28[0];
                const R normals_29 = zb28[1];
                const R normals_30 = zb28[2];
                const R normals_31 = zb28[3];
                R zb32[4];
                normals4(keys, words, 8u | normals_stream, step, zb32);
                const R normals_32 = zb32[0];
                const R normals_33 = zb32[1];
                const R normals_34 = zb32[2];
                const R normals_35 = zb32[3];
                R zb36[4];
                normals4(keys, words, 9u | normals_stream, step, zb36);
                const R normals_36 = zb36[0];
                const R normals_37 = zb36[1];
                const R normals_38 = zb36[2];
                const R normals_39 = zb36[3];
                R zb40[4];
                normals4(keys, words, 10u | normals_stream, step, zb40);
                const R normals_40 = zb40[0];
                const R normals_41 = zb40[1];
                const R normals_42 = zb40[2];
                const R normals_43 = zb40[3];
                R zb44[4];
                normals4(keys, words, 11u | normals_stream, step, zb44);
                const R normals_44 = zb44[0];
                const R normals_45 = zb44[1];
                const R normals_46 = zb44[2];
                const R normals_47 = zb44[3];
                // the transition's own: x = state.x - hyper.step_size * grad + hyper.noise_std * noise.normals
                const R e149 = step_size * grad_0;
                const R e197 = x_0 - e149;
                const R e245 = noise_std * normals_0;
                const R e293 = e197 + e245;
                // test_fused.py, in ring_of_sites: return (x.roll(1, -1) - x).square().sum(-1) + x.pow(4).sum(-1)
                const R e438 = e293 * e293;
                // the transition's own: x = state.x - hyper.step_size * grad + hyper.noise_std * noise.normals
                const R e150 = step_size * grad_1;
                const R e198 = x_1 - e150;
                const R e246 = noise_std * normals_1;
                const R e294 = e198 + e246;
                // test_fused.py, in ring_of_sites: return (x.roll(1, -1) - x).square().sum(-1) + x.pow(4).sum(-1)
                const R e439 = e294 * e294;
                // the transition's own: x = state.x - hyper.step_size * grad + hyper.noise_std * noise.normals
                const R e151 = step_size * grad_2;
                const R e199 = x_2 - e151;
                const R e247 = noise_std * normals_2;
                const R e295 = e199 + e247;
                // test_fused.py, in ring_of_sites: return (x.roll(1, -1) - x).square().sum(-1) + x.pow(4).sum(-1)
                const R e440 = e295 * e295;
                // the transition's own: x = state.x - hyper.step_size * grad + hyper.noise_std * noise.normals
                const R e152 = step_size * grad_3;
                const R e200 = x_3 - e152;
                const R e248 = noise_std * normals_3;
                const R e296 = e200 + e248;
                // test_fused.py, in ring_of_sites: return (x.roll(1, -1) - x).square().sum(-1) + x.pow(4).sum(-1)
                const R e441 = e296 * e296;
                // the transition's own: x = state.x - hyper.step_size * grad + hyper.noise_std * noise.normals
                const R e153 = step_size * grad_4;
                const R e201 = x_4 - e153;
                const R e249 = noise_std * normals_4;
                const R e297 = e201 + e249;
                // test_fused.py, in ring_of_sites: return (x.roll(1, -1) - x).square().sum(-1) + x.pow(4).sum(-1)
                const R e442 = e297 * e297;
                // the transition's own: x = state.x - hyper.step_size * grad + hyper.noise_std * noise.normals
                const R e154 = step_size * grad_5;
                const R e202 = x_5 - e154;
                const R e250 = noise_std * normals_5;
                const R e298 = e202 + e250;
                // test_fused.py, in ring_of_sites: return (x.roll(1, -1) - x).square().sum(-1) + x.pow(4).sum(-1)
                const R e443 = e298 * e298;
                // the transition's own: x = state.x - hyper.step_size * grad + hyper.noise_std * noise.normals
                const R e155 = step_size * grad_6;
                const R e203 = x_6 - e155;
                const R e251 = noise_std * normals_6;
                const R e299 = e203 + e251;
                // test_fused.py, in ring_of_sites: return (x.roll(1, -1) - x).square().sum(-1) + x.pow(4).sum(-1)
                const R e444 = e299 * e299;
                // the transition's own: x = state.x - hyper.step_size * grad + hyper.noise_std * noise.normals
                const R e156 = step_size * grad_7;
                const R e204 = x_7 - e156;
                const R e252 = noise_std * normals_7;
                const R e300 = e204 + e252;
                // test_fused.py, in ring_of_sites: return (x.roll(1, -1) - x).square().sum(-1) + x.pow(4).sum(-1)
                const R e445 = e300 * e300;
                // the transition's own: x = state.x - hyper.step_size * grad + hyper.noise_std * noise.normals
                const R e157 = step_size * grad_8;
                const R e205 = x_8 - e157;
                const R e253 = noise_std * normals_8;
                const R e301 = e205 + e253;
                // test_fused.py, in ring_of_sites: return (x.roll(1, -1) - x).square().sum(-1) + x.pow(4).sum(-1)
                const R e446 = e301 * e301;
                // the transition's own: x = state.x - hyper.step_size * grad + hyper.noise_std * noise.normals
                const R e158 = step_size * grad_9;
                const R e206 = x_9 - e158;
                const R e254 = noise_std * normals_9;
                const R e302 = e206 + e254;
                // test_fused.py, in ring_of_sites: return (x.roll(1, -1) - x).square().sum(-1) + x.pow(4).sum(-1)
                const R e447 = e302 * e302;
                // the transition's own: x = state.x - hyper.step_size * grad + hyper.noise_std * noise.normals
                const R e159 = step_size * grad_10;
                const R e207 = x_10 - e159;
                const R e255 = noise_std * normals_10;
                const R e303 = e207 + e255;
                // test_fused.py, in ring_of_sites: return (x.roll(1, -1) - x).square().sum(-1) + x.pow(4).sum(-1)
                const R e448 = e303 * e303;
                // the transition's own: x = state.x - hyper.step_size * grad + hyper.noise_std * noise.normals
                const R e160 = step_size * grad_11;
                const R e208 = x_11 - e160;
                const R e256 = noise_std * normals_11;
                const R e304 = e208 + e256;
                // test_fused.py, in ring_of_sites: return (x.roll(1, -1) - x).square().sum(-1) + x.pow(4).sum(-1)
                const R e449 = e304 * e304;
                // the transition's own: x = state.x - hyper.step_size * grad + hyper.noise_std * noise.normals
                const R e161 = step_size * grad_12;
                const R e209 = x_12 - e161;
                const R e257 = noise_std * normals_12;
                const R e305 = e209 + e257;
                // test_fused.py, in ring_of_sites: return (x.roll(1, -1) - x).square().sum(-1) + x.pow(4).sum(-1)
                const R e450 = e305 * e305;
                // the transition's own: x = state.x - hyper.step_size * grad + hyper.noise_std * noise.normals
                const R e162 = step_size * grad_13;
                const R e210 = x_13 - e162;
                const R e258 = noise_std * normals_13;
                const R e306 = e210 + e258;
                // test_fused.py, in ring_of_sites: return (x.roll(1, -1) - x).square().sum(-1) + x.pow(4).sum(-1)
                const R e451 = e306 * e306;
                // the transition's own: x = state.x - hyper.step_size * grad + hyper.noise_std * noise.normals
                const R e163 = step_size * grad_14;
                const R e211 = x_14 - e163;
                const R e259 = noise_std * normals_14;
                const R e307 = e211 + e259;
                // test_fused.py, in ring_of_sites: return (x.roll(1, -1) - x).square().sum(-1) + x.pow(4).sum(-1)
                const R e452 = e307 * e307;
                // the transition's own: x = state.x - hyper.step_size * grad + hyper.noise_std * noise.normals
                const R e164 = step_size * grad_15;
                const R e212 = x_15 - e164;
                const R e260 = noise_std * normals_15;
                const R e308 = e212 + e260;
                // test_fused.py, in ring_of_sites: return (x.roll(1, -1) - x).square().sum(-1) + x.pow(4).sum(-1)
                const R e453 = e308 * e308;
                // the transition's own: x = state.x - hyper.step_size * grad + hyper.noise_std * noise.normals
                const R e165 = step_size * grad_16;
                const R e213 = x_16 - e165;
                const R e261 = noise_std * normals_16;
                const R e309 = e213 + e261;
                // test_fused.py, in ring_of_sites: return (x.roll(1, -1) - x).square().sum(-1) + x.pow(4).sum(-1)
                const R e454 = e309 * e309;
                // the transition's own: x = state.x - hyper.step_size * grad + hyper.noise_std * noise.normals
                const R e166 = step_size * grad_17;
                const R e214 = x_17 - e166;
                const R e262 = noise_std * normals_17;
                const R e310 = e214 + e262;
                // test_fused.py, in ring_of_sites: return (x.roll(1, -1) - x).square().sum(-1) + x.pow(4).sum(-1)
                const R e455 = e310 * e310;
                // the transition's own: x = state.x - hyper.step_size * grad + hyper.noise_std * noise.normals
                const R e167 = step_size * grad_18;
                const R e215 = x_18 - e167;
                const R e263 = noise_std * normals_18;
                const R e311 = e215 + e263;
                // test_fused.py, in ring_of_sites: return (x.roll(1, -1) - x).square().sum(-1) + x.pow(4).sum(-1)
                const R e456 = e311 * e311;
                // the transition's own: x = state.x - hyper.step_size * grad + hyper.noise_std * noise.normals
                const R e168 = step_size * grad_19;
                const R e216 = x_19 - e168;
                const R e264 = noise_std * normals_19;
                const R e312 = e216 + e264;
                // test_fused.py, in ring_of_sites: return (x.roll(1, -1) - x).square().sum(-1) + x.pow(4).sum(-1)
                const R e457 = e312 * e312;
                // the transition's own: x = state.x - hyper.step_size * grad + hyper.noise_std * noise.normals
                const R e169 = step_size * grad_20;
                const R e217 = x_20 - e169;
                const R e265 = noise_std * normals_20;
                const R e313 = e217 + e265;
                // test_fused.py, in ring_of_sites: return (x.roll(1, -1) - x).square().sum(-1) + x.pow(4).sum(-1)
                const R e458 = e313 * e313;
                // the transition's own: x = state.x - hyper.step_size * grad + hyper.noise_std * noise.normals
                const R e170 = step_size * grad_21;
                const R e218 = x_21 - e170;
                const R e266 = noise_std * normals_21;
                const R e314 = e218 + e266;
                // test_fused.py, in ring_of_sites: return (x.roll(1, -1) - x).square().sum(-1) + x.pow(4).sum(-1)
                const R e459 = e314 * e314;
                // the transition's own: x = state.x - hyper.step_size * grad + hyper.noise_std * noise.normals
                const R e171 = step_size * grad_22;
                const R e219 = x_22 - e171;
                const R e267 = noise_std * normals_22;
                const R e315 = e219 + e267;
                // test_fused.py, in ring_of_sites: return (x.roll(1, -1) - x).square().sum(-1) + x.pow(4).sum(-1)
                const R e460 = e315 * e315;
                // the transition's own: x = state.x - hyper.step_size * grad + hyper.noise_std * noise.normals
                const R e172 = step_size * grad_23;
                const R e220 = x_23 - e172;
                const R e268 = noise_std * normals_23;
                const R e316 = e220 + e268;
                // test_fused.py, in ring_of_sites: return (x.roll(1, -1) - x).square().sum(-1) + x.pow(4).sum(-1)
                const R e461 = e316 * e316;
                // the transition's own: x = state.x - hyper.step_size * grad + hyper.noise_std * noise.normals
                const R e173 = step_size * grad_24;
                const R e221 = x_24 - e173;
                const R e269 = noise_std * normals_24;
                const R e317 = e221 + e269;
                // test_fused.py, in ring_of_sites: return (x.roll(1, -1) - x).square().sum(-1) + x.pow(4).sum(-1)
                const R e462 = e317 * e317;
                // the transition's own: x = state.x - hyper.step_size * grad + hyper.noise_std * noise.normals
                const R e174 = step_size * grad_25;
                const R e222 = x_25 - e174;
                const R e270 = noise_std * normals_25;
                const R e318 = e222 + e270;
                // test_fused.py, in ring_of_sites: return (x.roll(1, -1) - x).square().sum(-1) + x.pow(4).sum(-1)
                const R e463 = e318 * e318;
                // the transition's own: x = state.x - hyper.step_size * grad + hyper.noise_std * noise.normals
                const R e175 = step_size * grad_26;
                const R e223 = x_26 - e175;
                const R e271 = noise_std * normals_26;
                const R e319 = e223 + e271;
                // test_fused.py, in ring_of_sites: return (x.roll(1, -1) - x).square().sum(-1) + x.pow(4).sum(-1)
                const R e464 = e319 * e319;
                // the transition's own: x = state.x - hyper.step_size * grad + hyper.noise_std * noise.normals
                const R e176 = step_size * grad_27;
                const R e224 = x_27 - e176;
                const R e272 = noise_std * normals_27;
                const R e320 = e224 + e272;
                // test_fused.py, in ring_of_sites: return (x.roll(1, -1) - x).square().sum(-1) + x.pow(4).sum(-1)
                const R e465 = e320 * e320;
                // the transition's own: x = state.x - hyper.step_size * grad + hyper.noise_std * noise.normals
                const R e177 = step_size * grad_28;
                const R e225 = x_28 - e177;
                const R e273 = noise_std * normals_28;
                const R e321 = e225 + e273;
                // test_fused.py, in ring_of_sites: return (x.roll(1, -1) - x).square().sum(-1) + x.pow(4).sum(-1)
                const R e466 = e321 * e321;
                // the transition's own: x = state.x - hyper.step_size * grad + hyper.noise_std * noise.normals
                const R e178 = step_size * grad_29;
                const R e226 = x_29 - e178;
                const R e274 = noise_std * normals_29;
                const R e322 = e226 + e274;
                // test_fused.py, in ring_of_sites: return (x.roll(1, -1) - x).square().sum(-1) + x.pow(4).sum(-1)
                const R e467 = e322 * e322;
                // the transition's own: x = state.x - hyper.step_size * grad + hyper.noise_std * noise.normals
                const R e179 = step_size * grad_30;
                const R e227 = x_30 - e179;
                const R e275 = noise_std * normals_30;
                const R e323 = e227 + e275;
                // test_fused.py, in ring_of_sites: return (x.roll(1, -1) - x).square().sum(-1) + x.pow(4).sum(-1)
                const R e468 = e323 * e323;
                // the transition's own: x = state.x - hyper.step_size * grad + hyper.noise_std * noise.normals
                const R e180 = step_size * grad_31;
                const R e228 = x_31 - e180;
                const R e276 = noise_std * normals_31;
                const R e324 = e228 + e276;
                // test_fused.py, in ring_of_sites: return (x.roll(1, -1) - x).square().sum(-1) + x.pow(4).sum(-1)
                const R e469 = e324 * e324;
                // the transition's own: x = state.x - hyper.step_size * grad + hyper.noise_std * noise.normals
                const R e181 = step_size * grad_32;
                const R e229 = x_32 - e181;
                const R e277 = noise_std * normals_32;
                const R e325 = e229 + e277;
                // test_fused.py, in ring_of_sites: return (x.roll(1, -1) - x).square().sum(-1) + x.pow(4).sum(-1)
                const R e470 = e325 * e325;
                // the transition's own: x = state.x - hyper.step_size * grad + hyper.noise_std * noise.normals
                const R e182 = step_size * grad_33;
                const R e230 = x_33 - e182;
                const R e278 = noise_std * normals_33;
                const R e326 = e230 + e278;
                // test_fused.py, in ring_of_sites: return (x.roll(1, -1) - x).square().sum(-1) + x.pow(4).sum(-1)
                const R e471 = e326 * e326;
                // the transition's own: x = state.x - hyper.step_size * grad + hyper.noise_std * noise.normals
                const R e183 = step_size * grad_34;
                const R e231 = x_34 - e183;
                const R e279 = noise_std * normals_34;
                const R e327 = e231 + e279;
                // test_fused.py, in ring_of_sites: return (x.roll(1, -1) - x).square().sum(-1) + x.pow(4).sum(-1)
                const R e472 = e327 * e327;
                // the transition's own: x = state.x - hyper.step_size * grad + hyper.noise_std * noise.normals
                const R e184 = step_size * grad_35;
                const R e232 = x_35 - e184;
                const R e280 = noise_std * normals_35;
                const R e328 = e232 + e280;
                // test_fused.py, in ring_of_sites: return (x.roll(1, -1) - x).square().sum(-1) + x.pow(4).sum(-1)
                const R e473 = e328 * e328;
                // the transition's own: x = state.x - hyper.step_size * grad + hyper.noise_std * noise.normals
                const R e185 = step_size * grad_36;
                const R e233 = x_36 - e185;
                const R e281 = noise_std * normals_36;
                const R e329 = e233 + e281;
                // test_fused.py, in ring_of_sites: return (x.roll(1, -1) - x).square().sum(-1) + x.pow(4).sum(-1)
                const R e474 = e329 * e329;
                // the transition's own: x = state.x - hyper.step_size * grad + hyper.noise_std * noise.normals
                const R e186 = step_size * grad_37;
                const R e234 = x_37 - e186;
                const R e282 = noise_std * normals_37;
                const R e330 = e234 + e282;
                // test_fused.py, in ring_of_sites: return (x.roll(1, -1) - x).square().sum(-1) + x.pow(4).sum(-1)
                const R e475 = e330 * e330;
                // the transition's own: x = state.x - hyper.step_size * grad + hyper.noise_std * noise.normals
                const R e187 = step_size * grad_38;
                const R e235 = x_38 - e187;
                const R e283 = noise_std * normals_38;
                const R e331 = e235 + e283;
                // test_fused.py, in ring_of_sites: return (x.roll(1, -1) - x).square().sum(-1) + x.pow(4).sum(-1)
                const R e476 = e331 * e331;
                // the transition's own: x = state.x - hyper.step_size * grad + hyper.noise_std * noise.normals
                const R e188 = step_size * grad_39;
                const R e236 = x_39 - e188;
                const R e284 = noise_std * normals_39;
                const R e332 = e236 + e284;
                // test_fused.py, in ring_of_sites: return (x.roll(1, -1) - x).square().sum(-1) + x.pow(4).sum(-1)
                const R e477 = e332 * e332;
                // the transition's own: x = state.x - hyper.step_size * grad + hyper.noise_std * noise.normals
                const R e189 = step_size * grad_40;
                const R e237 = x_40 - e189;
                const R e285 = noise_std * normals_40;
                const R e333 = e237 + e285;
                // test_fused.py, in ring_of_sites: return (x.roll(1, -1) - x).square().sum(-1) + x.pow(4).sum(-1)
                const R e478 = e333 * e333;
                // the transition's own: x = state.x - hyper.step_size * grad + hyper.noise_std * noise.normals
                const R e190 = step_size * grad_41;
                const R e238 = x_41 - e190;
                const R e286 = noise_std * normals_41;
                const R e334 = e238 + e286;
                // test_fused.py, in ring_of_sites: return (x.roll(1, -1) - x).square().sum(-1) + x.pow(4).sum(-1)
                const R e479 = e334 * e334;
                // the transition's own: x = state.x - hyper.step_size * grad + hyper.noise_std * noise.normals
                const R e191 = step_size * grad_42;
                const R e239 = x_42 - e191;
                const R e287 = noise_std * normals_42;
                const R e335 = e239 + e287;
                // test_fused.py, in ring_of_sites: return (x.roll(1, -1) - x).square().sum(-1) + x.pow(4).sum(-1)
                const R e480 = e335 * e335;
                // the transition's own: x = state.x - hyper.step_size * grad + hyper.noise_std * noise.normals
                const R e192 = step_size * grad_43;
                const R e240 = x_43 - e192;
                const R e288 = noise_std * normals_43;
                const R e336 = e240 + e288;
                // test_fused.py, in ring_of_sites: return (x.roll(1, -1) - x).square().sum(-1) + x.pow(4).sum(-1)
                const R e481 = e336 * e336;
                // the transition's own: x = state.x - hyper.step_size * grad + hyper.noise_std * noise.normals
                const R e193 = step_size * grad_44;
                const R e241 = x_44 - e193;
                const R e289 = noise_std * normals_44;
                const R e337 = e241 + e289;
                // test_fused.py, in ring_of_sites: return (x.roll(1, -1) - x).square().sum(-1) + x.pow(4).sum(-1)
                const R e482 = e337 * e337;
                // the transition's own: x = state.x - hyper.step_size * grad + hyper.noise_std * noise.normals
                const R e194 = step_size * grad_45;
                const R e242 = x_45 - e194;
                const R e290 = noise_std * normals_45;
                const R e338 = e242 + e290;
                // test_fused.py, in ring_of_sites: return (x.roll(1, -1) - x).square().sum(-1) + x.pow(4).sum(-1)
                const R e483 = e338 * e338;
                // the transition's own: x = state.x - hyper.step_size * grad + hyper.noise_std * noise.normals
                const R e195 = step_size * grad_46;
                const R e243 = x_46 - e195;
                const R e291 = noise_std * normals_46;
                const R e339 = e243 + e291;
                // test_fused.py, in ring_of_sites: return (x.roll(1, -1) - x).square().sum(-1) + x.pow(4).sum(-1)
                const R e484 = e339 * e339;
                // the transition's own: x = state.x - hyper.step_size * grad + hyper.noise_std * noise.normals
                const R e196 = step_size * grad_47;
                const R e244 = x_47 - e196;
                const R e292 = noise_std * normals_47;
                const R e340 = e244 + e292;
                // test_fused.py, in ring_of_sites: return (x.roll(1, -1) - x).square().sum(-1) + x.pow(4).sum(-1)
                const R e485 = e340 * e340;
                // the sampler's own: how far the chain has gone since the last check
                const R e827 = ((((((((((((((((((((((((((((((((((((((((((((((e438 + e439) + e440) + e441) + e442) + e443) + e444) + e445) + e446) + e447) + e448) + e449) + e450) + e451) + e452) + e453) + e454) + e455) + e456) + e457) + e458) + e459) + e460) + e461) + e462) + e463) + e464) + e465) + e466) + e467) + e468) + e469) + e470) + e471) + e472) + e473) + e474) + e475) + e476) + e477) + e478) + e479) + e480) + e481) + e482) + e483) + e484) + e485;
                const R e829 = spread + e827;
                // test_fused.py, in ring_of_sites: return (x.roll(1, -1) - x).square().sum(-1) + x.pow(4).sum(-1)
                const R e537 = e293 * e438;
                const R e586 = e537 * rset((real)4.0);
                const R e341 = e340 - e293;
                const R e635 = e341 * rset((real)2.0);
                // autograd's own: the sum of a gradient's parts
                const R e731 = e586 - e635;
                // test_fused.py, in ring_of_sites: return (x.roll(1, -1) - x).square().sum(-1) + x.pow(4).sum(-1)
                const R e342 = e293 - e294;
                const R e636 = e342 * rset((real)2.0);
                // autograd's own: the sum of a gradient's parts
                const R e779 = e731 + e636;
                // test_fused.py, in ring_of_sites: return (x.roll(1, -1) - x).square().sum(-1) + x.pow(4).sum(-1)
                const R e538 = e294 * e439;
                const R e587 = e538 * rset((real)4.0);
                // autograd's own: the sum of a gradient's parts
                const R e732 = e587 - e636;
                // test_fused.py, in ring_of_sites: return (x.roll(1, -1) - x).square().sum(-1) + x.pow(4).sum(-1)
                const R e343 = e294 - e295;
                const R e637 = e343 * rset((real)2.0);
                // autograd's own: the sum of a gradient's parts
                const R e780 = e732 + e637;
                // test_fused.py, in ring_of_sites: return (x.roll(1, -1) - x).square().sum(-1) + x.pow(4).sum(-1)
                const R e539 = e295 * e440;
                const R e588 = e539 * rset((real)4.0);
                // autograd's own: the sum of a gradient's parts
                const R e733 = e588 - e637;
                // test_fused.py, in ring_of_sites: return (x.roll(1, -1) - x).square().sum(-1) + x.pow(4).sum(-1)
                const R e344 = e295 - e296;
                const R e638 = e344 * rset((real)2.0);
                // autograd's own: the sum of a gradient's parts
                const R e781 = e733 + e638;
                // test_fused.py, in ring_of_sites: return (x.roll(1, -1) - x).square().sum(-1) + x.pow(4).sum(-1)
                const R e540 = e296 * e441;
                const R e589 = e540 * rset((real)4.0);
                // autograd's own: the sum of a gradient's parts
                const R e734 = e589 - e638;
                // test_fused.py, in ring_of_sites: return (x.roll(1, -1) - x).square().sum(-1) + x.pow(4).sum(-1)
                const R e345 = e296 - e297;
                const R e639 = e345 * rset((real)2.0);
                // autograd's own: the sum of a gradient's parts
                const R e782 = e734 + e639;
                // test_fused.py, in ring_of_sites: return (x.roll(1, -1) - x).square().sum(-1) + x.pow(4).sum(-1)
                const R e541 = e297 * e442;
                const R e590 = e541 * rset((real)4.0);
                // autograd's own: the sum of a gradient's parts
                const R e735 = e590 - e639;
                // test_fused.py, in ring_of_sites: return (x.roll(1, -1) - x).square().sum(-1) + x.pow(4).sum(-1)
                const R e346 = e297 - e298;
                const R e640 = e346 * rset((real)2.0);
                // autograd's own: the sum of a gradient's parts
                const R e783 = e735 + e640;
                // test_fused.py, in ring_of_sites: return (x.roll(1, -1) - x).square().sum(-1) + x.pow(4).sum(-1)
                const R e542 = e298 * e443;
                const R e591 = e542 * rset((real)4.0);
                // autograd's own: the sum of a gradient's parts
                const R e736 = e591 - e640;
                // test_fused.py, in ring_of_sites: return (x.roll(1, -1) - x).square().sum(-1) + x.pow(4).sum(-1)
                const R e347 = e298 - e299;
                const R e641 = e347 * rset((real)2.0);
                // autograd's own: the sum of a gradient's parts
                const R e784 = e736 + e641;
                // test_fused.py, in ring_of_sites: return (x.roll(1, -1) - x).square().sum(-1) + x.pow(4).sum(-1)
                const R e543 = e299 * e444;
                const R e592 = e543 * rset((real)4.0);
                // autograd's own: the sum of a gradient's parts
                const R e737 = e592 - e641;
                // test_fused.py, in ring_of_sites: return (x.roll(1, -1) - x).square().sum(-1) + x.pow(4).sum(-1)
                const R e348 = e299 - e300;
                const R e642 = e348 * rset((real)2.0);
                // autograd's own: the sum of a gradient's parts
                const R e785 = e737 + e642;
                // test_fused.py, in ring_of_sites: return (x.roll(1, -1) - x).square().sum(-1) + x.pow(4).sum(-1)
                const R e544 = e300 * e445;
                const R e593 = e544 * rset((real)4.0);
                // autograd's own: the sum of a gradient's parts
                const R e738 = e593 - e642;
                // test_fused.py, in ring_of_sites: return (x.roll(1, -1) - x).square().sum(-1) + x.pow(4).sum(-1)
                const R e349 = e300 - e301;
                const R e643 = e349 * rset((real)2.0);
                // autograd's own: the sum of a gradient's parts
                const R e786 = e738 + e643;
                // test_fused.py, in ring_of_sites: return (x.roll(1, -1) - x).square().sum(-1) + x.pow(4).sum(-1)
                const R e545 = e301 * e446;
                const R e594 = e545 * rset((real)4.0);
                // autograd's own: the sum of a gradient's parts
                const R e739 = e594 - e643;
                // test_fused.py, in ring_of_sites: return (x.roll(1, -1) - x).square().sum(-1) + x.pow(4).sum(-1)
                const R e350 = e301 - e302;
                const R e644 = e350 * rset((real)2.0);
                // autograd's own: the sum of a gradient's parts
                const R e787 = e739 + e644;
                // test_fused.py, in ring_of_sites: return (x.roll(1, -1) - x).square().sum(-1) + x.pow(4).sum(-1)
                const R e546 = e302 * e447;
                const R e595 = e546 * rset((real)4.0);
                // autograd's own: the sum of a gradient's parts
                const R e740 = e595 - e644;
                // test_fused.py, in ring_of_sites: return (x.roll(1, -1) - x).square().sum(-1) + x.pow(4).sum(-1)
                const R e351 = e302 - e303;
                const R e645 = e351 * rset((real)2.0);
                // autograd's own: the sum of a gradient's parts
                const R e788 = e740 + e645;
                // test_fused.py, in ring_of_sites: return (x.roll(1, -1) - x).square().sum(-1) + x.pow(4).sum(-1)
                const R e547 = e303 * e448;
                const R e596 = e547 * rset((real)4.0);
                // autograd's own: the sum of a gradient's parts
                const R e741 = e596 - e645;
                // test_fused.py, in ring_of_sites: return (x.roll(1, -1) - x).square().sum(-1) + x.pow(4).sum(-1)
                const R e352 = e303 - e304;
                const R e646 = e352 * rset((real)2.0);
                // autograd's own: the sum of a gradient's parts
                const R e789 = e741 + e646;
                // test_fused.py, in ring_of_sites: return (x.roll(1, -1) - x).square().sum(-1) + x.pow(4).sum(-1)
                const R e548 = e304 * e449;
                const R e597 = e548 * rset((real)4.0);
                // autograd's own: the sum of a gradient's parts
                const R e742 = e597 - e646;
                // test_fused.py, in ring_of_sites: return (x.roll(1, -1) - x).square().sum(-1) + x.pow(4).sum(-1)
                const R e353 = e304 - e305;
                const R e647 = e353 * rset((real)2.0);
                // autograd's own: the sum of a gradient's parts
                const R e790 = e742 + e647;
                // test_fused.py, in ring_of_sites: return (x.roll(1, -1) - x).square().sum(-1) + x.pow(4).sum(-1)
                const R e549 = e305 * e450;
                const R e598 = e549 * rset((real)4.0);
                // autograd's own: the sum of a gradient's parts
                const R e743 = e598 - e647;
                // test_fused.py, in ring_of_sites: return (x.roll(1, -1) - x).square().sum(-1) + x.pow(4).sum(-1)
                const R e354 = e305 - e306;
                const R e648 = e354 * rset((real)2.0);
                // autograd's own: the sum of a gradient's parts
                const R e791 = e743 + e648;
                // test_fused.py, in ring_of_sites: return (x.roll(1, -1) - x).square().sum(-1) + x.pow(4).sum(-1)
                const R e550 = e306 * e451;
                const R e599 = e550 * rset((real)4.0);
                // autograd's own: the sum of a gradient's parts
                const R e744 = e599 - e648;
                // test_fused.py, in ring_of_sites: return (x.roll(1, -1) - x).square().sum(-1) + x.pow(4).sum(-1)
                const R e355 = e306 - e307;
                const R e649 = e355 * rset((real)2.0);
                // autograd's own: the sum of a gradient's parts
                const R e792 = e744 + e649;
                // test_fused.py, in ring_of_sites: return (x.roll(1, -1) - x).square().sum(-1) + x.pow(4).sum(-1)
                const R e551 = e307 * e452;
                const R e600 = e551 * rset((real)4.0);
                // autograd's own: the sum of a gradient's parts
                const R e745 = e600 - e649;
                // test_fused.py, in ring_of_sites: return (x.roll(1, -1) - x).square().sum(-1) + x.pow(4).sum(-1)
                const R e356 = e307 - e308;
                const R e650 = e356 * rset((real)2.0);
                // autograd's own: the sum of a gradient's parts
                const R e793 = e745 + e650;
                // test_fused.py, in ring_of_sites: return (x.roll(1, -1) - x).square().sum(-1) + x.pow(4).sum(-1)
                const R e552 = e308 * e453;
                const R e601 = e552 * rset((real)4.0);
                // autograd's own: the sum of a gradient's parts
                const R e746 = e601 - e650;
                // test_fused.py, in ring_of_sites: return (x.roll(1, -1) - x).square().sum(-1) + x.pow(4).sum(-1)
                const R e357 = e308 - e309;
                const R e651 = e357 * rset((real)2.0);
                // autograd's own: the sum of a gradient's parts
                const R e794 = e746 + e651;
                // test_fused.py, in ring_of_sites: return (x.roll(1, -1) - x).square().sum(-1) + x.pow(4).sum(-1)
                const R e553 = e309 * e454;
                const R e602 = e553 * rset((real)4.0);
                // autograd's own: the sum of a gradient's parts
                const R e747 = e602 - e651;
                // test_fused.py, in ring_of_sites: return (x.roll(1, -1) - x).square().sum(-1) + x.pow(4).sum(-1)
                const R e358 = e309 - e310;
                const R e652 = e358 * rset((real)2.0);
                // autograd's own: the sum of a gradient's parts
                const R e795 = e747 + e652;
                // test_fused.py, in ring_of_sites: return (x.roll(1, -1) - x).square().sum(-1) + x.pow(4).sum(-1)
                const R e554 = e310 * e455;
                const R e603 = e554 * rset((real)4.0);
                // autograd's own: the sum of a gradient's parts
                const R e748 = e603 - e652;
                // test_fused.py, in ring_of_sites: return (x.roll(1, -1) - x).square().sum(-1) + x.pow(4).sum(-1)
                const R e359 = e310 - e311;
                const R e653 = e359 * rset((real)2.0);
                // autograd's own: the sum of a gradient's parts
                const R e796 = e748 + e653;
                // test_fused.py, in ring_of_sites: return (x.roll(1, -1) - x).square().sum(-1) + x.pow(4).sum(-1)
                const R e555 = e311 * e456;
                const R e604 = e555 * rset((real)4.0);
                // autograd's own: the sum of a gradient's parts
                const R e749 = e604 - e653;
                // test_fused.py, in ring_of_sites: return (x.roll(1, -1) - x).square().sum(-1) + x.pow(4).sum(-1)
                const R e360 = e311 - e312;
                const R e654 = e360 * rset((real)2.0);
                // autograd's own: the sum of a gradient's parts
                const R e797 = e749 + e654;
                // test_fused.py, in ring_of_sites: return (x.roll(1, -1) - x).square().sum(-1) + x.pow(4).sum(-1)
                const R e556 = e312 * e457;
                const R e605 = e556 * rset((real)4.0);
                // autograd's own: the sum of a gradient's parts
                const R e750 = e605 - e654;
                // test_fused.py, in ring_of_sites: return (x.roll(1, -1) - x).square().sum(-1) + x.pow(4).sum(-1)
                const R e361 = e312 - e313;
                const R e655 = e361 * rset((real)2.0);
                // autograd's own: the sum of a gradient's parts
                const R e798 = e750 + e655;
                // test_fused.py, in ring_of_sites: return (x.roll(1, -1) - x).square().sum(-1) + x.pow(4).sum(-1)
                const R e557 = e313 * e458;
                const R e606 = e557 * rset((real)4.0);
                // autograd's own: the sum of a gradient's parts
                const R e751 = e606 - e655;
                // test_fused.py, in ring_of_sites: return (x.roll(1, -1) - x).square().sum(-1) + x.pow(4).sum(-1)
                const R e362 = e313 - e314;
                const R e656 = e362 * rset((real)2.0);
                // autograd's own: the sum of a gradient's parts
                const R e799 = e751 + e656;
                // test_fused.py, in ring_of_sites: return (x.roll(1, -1) - x).square().sum(-1) + x.pow(4).sum(-1)
                const R e558 = e314 * e459;
                const R e607 = e558 * rset((real)4.0);
                // autograd's own: the sum of a gradient's parts
                const R e752 = e607 - e656;
                // test_fused.py, in ring_of_sites: return (x.roll(1, -1) - x).square().sum(-1) + x.pow(4).sum(-1)
                const R e363 = e314 - e315;
                const R e657 = e363 * rset((real)2.0);
                // autograd's own: the sum of a gradient's parts
                const R e800 = e752 + e657;
                // test_fused.py, in ring_of_sites: return (x.roll(1, -1) - x).square().sum(-1) + x.pow(4).sum(-1)
                const R e559 = e315 * e460;
                const R e608 = e559 * rset((real)4.0);
                // autograd's own: the sum of a gradient's parts
                const R e753 = e608 - e657;
                // test_fused.py, in ring_of_sites: return (x.roll(1, -1) - x).square().sum(-1) + x.pow(4).sum(-1)
                const R e364 = e315 - e316;
                const R e658 = e364 * rset((real)2.0);
                // autograd's own: the sum of a gradient's parts
                const R e801 = e753 + e658;
                // test_fused.py, in ring_of_sites: return (x.roll(1, -1) - x).square().sum(-1) + x.pow(4).sum(-1)
                const R e560 = e316 * e461;
                const R e609 = e560 * rset((real)4.0);
                // autograd's own: the sum of a gradient's parts
                const R e754 = e609 - e658;
                // test_fused.py, in ring_of_sites: return (x.roll(1, -1) - x).square().sum(-1) + x.pow(4).sum(-1)
                const R e365 = e316 - e317;
                const R e659 = e365 * rset((real)2.0);
                // autograd's own: the sum of a gradient's parts
                const R e802 = e754 + e659;
                // test_fused.py, in ring_of_sites: return (x.roll(1, -1) - x).square().sum(-1) + x.pow(4).sum(-1)
                const R e561 = e317 * e462;
                const R e610 = e561 * rset((real)4.0);
                // autograd's own: the sum of a gradient's parts
                const R e755 = e610 - e659;
                // test_fused.py, in ring_of_sites: return (x.roll(1, -1) - x).square().sum(-1) + x.pow(4).sum(-1)
                const R e366 = e317 - e318;
                const R e660 = e366 * rset((real)2.0);
                // autograd's own: the sum of a gradient's parts
                const R e803 = e755 + e660;
                // test_fused.py, in ring_of_sites: return (x.roll(1, -1) - x).square().sum(-1) + x.pow(4).sum(-1)
                const R e562 = e318 * e463;
                const R e611 = e562 * rset((real)4.0);
                // autograd's own: the sum of a gradient's parts
                const R e756 = e611 - e660;
                // test_fused.py, in ring_of_sites: return (x.roll(1, -1) - x).square().sum(-1) + x.pow(4).sum(-1)
                const R e367 = e318 - e319;
                const R e661 = e367 * rset((real)2.0);
                // autograd's own: the sum of a gradient's parts
                const R e804 = e756 + e661;
                // test_fused.py, in ring_of_sites: return (x.roll(1, -1) - x).square().sum(-1) + x.pow(4).sum(-1)
                const R e563 = e319 * e464;
                const R e612 = e563 * rset((real)4.0);
                // autograd's own: the sum of a gradient's parts
                const R e757 = e612 - e661;
                // test_fused.py, in ring_of_sites: return (x.roll(1, -1) - x).square().sum(-1) + x.pow(4).sum(-1)
                const R e368 = e319 - e320;
                const R e662 = e368 * rset((real)2.0);
                // autograd's own: the sum of a gradient's parts
                const R e805 = e757 + e662;
                // test_fused.py, in ring_of_sites: return (x.roll(1, -1) - x).square().sum(-1) + x.pow(4).sum(-1)
                const R e564 = e320 * e465;
                const R e613 = e564 * rset((real)4.0);
                // autograd's own: the sum of a gradient's parts
                const R e758 = e613 - e662;
                // test_fused.py, in ring_of_sites: return (x.roll(1, -1) - x).square().sum(-1) + x.pow(4).sum(-1)
                const R e369 = e320 - e321;
                const R e663 = e369 * rset((real)2.0);
                // autograd's own: the sum of a gradient's parts
                const R e806 = e758 + e663;
                // test_fused.py, in ring_of_sites: return (x.roll(1, -1) - x).square().sum(-1) + x.pow(4).sum(-1)
                const R e565 = e321 * e466;
                const R e614 = e565 * rset((real)4.0);
                // autograd's own: the sum of a gradient's parts
                const R e759 = e614 - e663;
                // test_fused.py, in ring_of_sites: return (x.roll(1, -1) - x).square().sum(-1) + x.pow(4).sum(-1)
                const R e370 = e321 - e322;
                const R e664 = e370 * rset((real)2.0);
                // autograd's own: the sum of a gradient's parts
                const R e807 = e759 + e664;
                // test_fused.py, in ring_of_sites: return (x.roll(1, -1) - x).square().sum(-1) + x.pow(4).sum(-1)
                const R e566 = e322 * e467;
                const R e615 = e566 * rset((real)4.0);
                // autograd's own: the sum of a gradient's parts
                const R e760 = e615 - e664;
                // test_fused.py, in ring_of_sites: return (x.roll(1, -1) - x).square().sum(-1) + x.pow(4).sum(-1)
                const R e371 = e322 - e323;
                const R e665 = e371 * rset((real)2.0);
                // autograd's own: the sum of a gradient's parts
                const R e808 = e760 + e665;
                // test_fused.py, in ring_of_sites: return (x.roll(1, -1) - x).square().sum(-1) + x.pow(4).sum(-1)
                const R e567 = e323 * e468;
                const R e616 = e567 * rset((real)4.0);
                // autograd's own: the sum of a gradient's parts
                const R e761 = e616 - e665;
                // test_fused.py, in ring_of_sites: return (x.roll(1, -1) - x).square().sum(-1) + x.pow(4).sum(-1)
                const R e372 = e323 - e324;
                const R e666 = e372 * rset((real)2.0);
                // autograd's own: the sum of a gradient's parts
                const R e809 = e761 + e666;
                // test_fused.py, in ring_of_sites: return (x.roll(1, -1) - x).square().sum(-1) + x.pow(4).sum(-1)
                const R e568 = e324 * e469;
                const R e617 = e568 * rset((real)4.0);
                // autograd's own: the sum of a gradient's parts
                const R e762 = e617 - e666;
                // test_fused.py, in ring_of_sites: return (x.roll(1, -1) - x).square().sum(-1) + x.pow(4).sum(-1)
                const R e373 = e324 - e325;
                const R e667 = e373 * rset((real)2.0);
                // autograd's own: the sum of a gradient's parts
                const R e810 = e762 + e667;
                // test_fused.py, in ring_of_sites: return (x.roll(1, -1) - x).square().sum(-1) + x.pow(4).sum(-1)
                const R e569 = e325 * e470;
                const R e618 = e569 * rset((real)4.0);
                // autograd's own: the sum of a gradient's parts
                const R e763 = e618 - e667;
                // test_fused.py, in ring_of_sites: return (x.roll(1, -1) - x).square().sum(-1) + x.pow(4).sum(-1)
                const R e374 = e325 - e326;
                const R e668 = e374 * rset((real)2.0);
                // autograd's own: the sum of a gradient's parts
                const R e811 = e763 + e668;
                // test_fused.py, in ring_of_sites: return (x.roll(1, -1) - x).square().sum(-1) + x.pow(4).sum(-1)
                const R e570 = e326 * e471;
                const R e619 = e570 * rset((real)4.0);
                // autograd's own: the sum of a gradient's parts
                const R e764 = e619 - e668;
                // test_fused.py, in ring_of_sites: return (x.roll(1, -1) - x).square().sum(-1) + x.pow(4).sum(-1)
                const R e375 = e326 - e327;
                const R e669 = e375 * rset((real)2.0);
                // autograd's own: the sum of a gradient's parts
                const R e812 = e764 + e669;
                // test_fused.py, in ring_of_sites: return (x.roll(1, -1) - x).square().sum(-1) + x.pow(4).sum(-1)
                const R e571 = e327 * e472;
                const R e620 = e571 * rset((real)4.0);
                // autograd's own: the sum of a gradient's parts
                const R e765 = e620 - e669;
                // test_fused.py, in ring_of_sites: return (x.roll(1, -1) - x).square().sum(-1) + x.pow(4).sum(-1)
                const R e376 = e327 - e328;
                const R e670 = e376 * rset((real)2.0);
                // autograd's own: the sum of a gradient's parts
                const R e813 = e765 + e670;
                // test_fused.py, in ring_of_sites: return (x.roll(1, -1) - x).square().sum(-1) + x.pow(4).sum(-1)
                const R e572 = e328 * e473;
                const R e621 = e572 * rset((real)4.0);
                // autograd's own: the sum of a gradient's parts
                const R e766 = e621 - e670;
                // test_fused.py, in ring_of_sites: return (x.roll(1, -1) - x).square().sum(-1) + x.pow(4).sum(-1)
                const R e377 = e328 - e329;
                const R e671 = e377 * rset((real)2.0);
                // autograd's own: the sum of a gradient's parts
                const R e814 = e766 + e671;
                // test_fused.py, in ring_of_sites: return (x.roll(1, -1) - x).square().sum(-1) + x.pow(4).sum(-1)
                const R e573 = e329 * e474;
                const R e622 = e573 * rset((real)4.0);
                // autograd's own: the sum of a gradient's parts
                const R e767 = e622 - e671;
                // test_fused.py, in ring_of_sites: return (x.roll(1, -1) - x).square().sum(-1) + x.pow(4).sum(-1)
                const R e378 = e329 - e330;
                const R e672 = e378 * rset((real)2.0);
                // autograd's own: the sum of a gradient's parts
                const R e815 = e767 + e672;
                // test_fused.py, in ring_of_sites: return (x.roll(1, -1) - x).square().sum(-1) + x.pow(4).sum(-1)
                const R e574 = e330 * e475;
                const R e623 = e574 * rset((real)4.0);
                // autograd's own: the sum of a gradient's parts
                const R e768 = e623 - e672;
                // test_fused.py, in ring_of_sites: return (x.roll(1, -1) - x).square().sum(-1) + x.pow(4).sum(-1)
                const R e379 = e330 - e331;
                const R e673 = e379 * rset((real)2.0);
                // autograd's own: the sum of a gradient's parts
                const R e816 = e768 + e673;
                // test_fused.py, in ring_of_sites: return (x.roll(1, -1) - x).square().sum(-1) + x.pow(4).sum(-1)
                const R e575 = e331 * e476;
                const R e624 = e575 * rset((real)4.0);
                // autograd's own: the sum of a gradient's parts
                const R e769 = e624 - e673;
                // test_fused.py, in ring_of_sites: return (x.roll(1, -1) - x).square().sum(-1) + x.pow(4).sum(-1)
                const R e380 = e331 - e332;
                const R e674 = e380 * rset((real)2.0);
                // autograd's own: the sum of a gradient's parts
                const R e817 = e769 + e674;
                // test_fused.py, in ring_of_sites: return (x.roll(1, -1) - x).square().sum(-1) + x.pow(4).sum(-1)
                const R e576 = e332 * e477;
                const R e625 = e576 * rset((real)4.0);
                // autograd's own: the sum of a gradient's parts
                const R e770 = e625 - e674;
                // test_fused.py, in ring_of_sites: return (x.roll(1, -1) - x).square().sum(-1) + x.pow(4).sum(-1)
                const R e381 = e332 - e333;
                const R e675 = e381 * rset((real)2.0);
                // autograd's own: the sum of a gradient's parts
                const R e818 = e770 + e675;
                // test_fused.py, in ring_of_sites: return (x.roll(1, -1) - x).square().sum(-1) + x.pow(4).sum(-1)
                const R e577 = e333 * e478;
                const R e626 = e577 * rset((real)4.0);
                // autograd's own: the sum of a gradient's parts
                const R e771 = e626 - e675;
                // test_fused.py, in ring_of_sites: return (x.roll(1, -1) - x).square().sum(-1) + x.pow(4).sum(-1)
                const R e382 = e333 - e334;
                const R e676 = e382 * rset((real)2.0);
                // autograd's own: the sum of a gradient's parts
                const R e819 = e771 + e676;
                // test_fused.py, in ring_of_sites: return (x.roll(1, -1) - x).square().sum(-1) + x.pow(4).sum(-1)
                const R e578 = e334 * e479;
                const R e627 = e578 * rset((real)4.0);
                // autograd's own: the sum of a gradient's parts
                const R e772 = e627 - e676;
                // test_fused.py, in ring_of_sites: return (x.roll(1, -1) - x).square().sum(-1) + x.pow(4).sum(-1)
                const R e383 = e334 - e335;
                const R e677 = e383 * rset((real)2.0);
                // autograd's own: the sum of a gradient's parts
                const R e820 = e772 + e677;
                // test_fused.py, in ring_of_sites: return (x.roll(1, -1) - x).square().sum(-1) + x.pow(4).sum(-1)
                const R e579 = e335 * e480;
                const R e628 = e579 * rset((real)4.0);
                // autograd's own: the sum of a gradient's parts
                const R e773 = e628 - e677;
                // test_fused.py, in ring_of_sites: return (x.roll(1, -1) - x).square().sum(-1) + x.pow(4).sum(-1)
                const R e384 = e335 - e336;
                const R e678 = e384 * rset((real)2.0);
                // autograd's own: the sum of a gradient's parts
                const R e821 = e773 + e678;
                // test_fused.py, in ring_of_sites: return (x.roll(1, -1) - x).square().sum(-1) + x.pow(4).sum(-1)
                const R e580 = e336 * e481;
                const R e629 = e580 * rset((real)4.0);
                // autograd's own: the sum of a gradient's parts
                const R e774 = e629 - e678;
                // test_fused.py, in ring_of_sites: return (x.roll(1, -1) - x).square().sum(-1) + x.pow(4).sum(-1)
                const R e385 = e336 - e337;
                const R e679 = e385 * rset((real)2.0);
                // autograd's own: the sum of a gradient's parts
                const R e822 = e774 + e679;
                // test_fused.py, in ring_of_sites: return (x.roll(1, -1) - x).square().sum(-1) + x.pow(4).sum(-1)
                const R e581 = e337 * e482;
                const R e630 = e581 * rset((real)4.0);
                // autograd's own: the sum of a gradient's parts
                const R e775 = e630 - e679;
                // test_fused.py, in ring_of_sites: return (x.roll(1, -1) - x).square().sum(-1) + x.pow(4).sum(-1)
                const R e386 = e337 - e338;
                const R e680 = e386 * rset((real)2.0);
                // autograd's own: the sum of a gradient's parts
                const R e823 = e775 + e680;
                // test_fused.py, in ring_of_sites: return (x.roll(1, -1) - x).square().sum(-1) + x.pow(4).sum(-1)
                const R e582 = e338 * e483;
                const R e631 = e582 * rset((real)4.0);
                // autograd's own: the sum of a gradient's parts
                const R e776 = e631 - e680;
                // test_fused.py, in ring_of_sites: return (x.roll(1, -1) - x).square().sum(-1) + x.pow(4).sum(-1)
                const R e387 = e338 - e339;
                const R e681 = e387 * rset((real)2.0);
                // autograd's own: the sum of a gradient's parts
                const R e824 = e776 + e681;
                // test_fused.py, in ring_of_sites: return (x.roll(1, -1) - x).square().sum(-1) + x.pow(4).sum(-1)
                const R e583 = e339 * e484;
                const R e632 = e583 * rset((real)4.0);
                // autograd's own: the sum of a gradient's parts
                const R e777 = e632 - e681;
                // test_fused.py, in ring_of_sites: return (x.roll(1, -1) - x).square().sum(-1) + x.pow(4).sum(-1)
                const R e388 = e339 - e340;
                const R e682 = e388 * rset((real)2.0);
                // autograd's own: the sum of a gradient's parts
                const R e825 = e777 + e682;
                // test_fused.py, in ring_of_sites: return (x.roll(1, -1) - x).square().sum(-1) + x.pow(4).sum(-1)
                const R e584 = e340 * e485;
                const R e633 = e584 * rset((real)4.0);
                // autograd's own: the sum of a gradient's parts
                const R e778 = e633 - e682;
                const R e826 = e778 + e635;
                // the state for the next step
                const R x_0_next = e293;
                const R x_1_next = e294;
                const R x_2_next = e295;
                const R x_3_next = e296;
                const R x_4_next = e297;
                const R x_5_next = e298;
                const R x_6_next = e299;
                const R x_7_next = e300;
                const R x_8_next = e301;
                const R x_9_next = e302;
                const R x_10_next = e303;
                const R x_11_next = e304;
                const R x_12_next = e305;
                const R x_13_next = e306;
                const R x_14_next = e307;
                const R x_15_next = e308;
                const R x_16_next = e309;
                const R x_17_next = e310;
                const R x_18_next = e311;
                const R x_19_next = e312;
                const R x_20_next = e313;
                const R x_21_next = e314;
                const R x_22_next = e315;
                const R x_23_next = e316;
                const R x_24_next = e317;
                const R x_25_next = e318;
                const R x_26_next = e319;
                const R x_27_next = e320;
                const R x_28_next = e321;
                const R x_29_next = e322;
                const R x_30_next = e323;
                const R x_31_next = e324;
                const R x_32_next = e325;
                const R x_33_next = e326;
                const R x_34_next = e327;
                const R x_35_next = e328;
                const R x_36_next = e329;
                const R x_37_next = e330;
                const R x_38_next = e331;
                const R x_39_next = e332;
                const R x_40_next = e333;
                const R x_41_next = e334;
                const R x_42_next = e335;
                const R x_43_next = e336;
                const R x_44_next = e337;
                const R x_45_next = e338;
                const R x_46_next = e339;
                const R x_47_next = e340;
                const R grad_0_next = e779;
                const R grad_1_next = e780;
                const R grad_2_next = e781;
                const R grad_3_next = e782;
                const R grad_4_next = e783;
                const R grad_5_next = e784;
                const R grad_6_next = e785;
                const R grad_7_next = e786;
                const R grad_8_next = e787;
                const R grad_9_next = e788;
                const R grad_10_next = e789;
                const R grad_11_next = e790;
                const R grad_12_next = e791;
                const R grad_13_next = e792;
                const R grad_14_next = e793;
                const R grad_15_next = e794;
                const R grad_16_next = e795;
                const R grad_17_next = e796;
                const R grad_18_next = e797;
                const R grad_19_next = e798;
                const R grad_20_next = e799;
                const R grad_21_next = e800;
                const R grad_22_next = e801;
                const R grad_23_next = e802;
                const R grad_24_next = e803;
                const R grad_25_next = e804;
                const R grad_26_next = e805;
                const R grad_27_next = e806;
                const R grad_28_next = e807;
                const R grad_29_next = e808;
                const R grad_30_next = e809;
                const R grad_31_next = e810;
                const R grad_32_next = e811;
                const R grad_33_next = e812;
                const R grad_34_next = e813;
                const R grad_35_next = e814;
                const R grad_36_next = e815;
                const R grad_37_next = e816;
                const R grad_38_next = e817;
                const R grad_39_next = e818;
                const R grad_40_next = e819;
                const R grad_41_next = e820;
                const R grad_42_next = e821;
                const R grad_43_next = e822;
                const R grad_44_next = e823;
                const R grad_45_next = e824;
                const R grad_46_next = e825;
                const R grad_47_next = e826;
                const R spread_next = e829;
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
                x_12 = x_12_next;
                x_13 = x_13_next;
                x_14 = x_14_next;
                x_15 = x_15_next;
                x_16 = x_16_next;
                x_17 = x_17_next;
                x_18 = x_18_next;
                x_19 = x_19_next;
                x_20 = x_20_next;
                x_21 = x_21_next;
                x_22 = x_22_next;
                x_23 = x_23_next;
                x_24 = x_24_next;
                x_25 = x_25_next;
                x_26 = x_26_next;
                x_27 = x_27_next;
                x_28 = x_28_next;
                x_29 = x_29_next;
                x_30 = x_30_next;
                x_31 = x_31_next;
                x_32 = x_32_next;
                x_33 = x_33_next;
                x_34 = x_34_next;
                x_35 = x_35_next;
                x_36 = x_36_next;
                x_37 = x_37_next;
                x_38 = x_38_next;
                x_39 = x_39_next;
                x_40 = x_40_next;
                x_41 = x_41_next;
                x_42 = x_42_next;
                x_43 = x_43_next;
                x_44 = x_44_next;
                x_45 = x_45_next;
                x_46 = x_46_next;
                x_47 = x_47_next;
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
                grad_12 = grad_12_next;
                grad_13 = grad_13_next;
                grad_14 = grad_14_next;
                grad_15 = grad_15_next;
                grad_16 = grad_16_next;
                grad_17 = grad_17_next;
                grad_18 = grad_18_next;
                grad_19 = grad_19_next;
                grad_20 = grad_20_next;
                grad_21 = grad_21_next;
                grad_22 = grad_22_next;
                grad_23 = grad_23_next;
                grad_24 = grad_24_next;
                grad_25 = grad_25_next;
                grad_26 = grad_26_next;
                grad_27 = grad_27_next;
                grad_28 = grad_28_next;
                grad_29 = grad_29_next;
                grad_30 = grad_30_next;
                grad_31 = grad_31_next;
                grad_32 = grad_32_next;
                grad_33 = grad_33_next;
                grad_34 = grad_34_next;
                grad_35 = grad_35_next;
                grad_36 = grad_36_next;
                grad_37 = grad_37_next;
                grad_38 = grad_38_next;
                grad_39 = grad_39_next;
                grad_40 = grad_40_next;
                grad_41 = grad_41_next;
                grad_42 = grad_42_next;
                grad_43 = grad_43_next;
                grad_44 = grad_44_next;
                grad_45 = grad_45_next;
                grad_46 = grad_46_next;
                grad_47 = grad_47_next;
                spread = spread_next;
                if (thin && !exact && --until == 0) {
                    at[0] = x_0;
                    at[1] = x_1;
                    at[2] = x_2;
                    at[3] = x_3;
                    at[4] = x_4;
                    at[5] = x_5;
                    at[6] = x_6;
                    at[7] = x_7;
                    at[8] = x_8;
                    at[9] = x_9;
                    at[10] = x_10;
                    at[11] = x_11;
                    at[12] = x_12;
                    at[13] = x_13;
                    at[14] = x_14;
                    at[15] = x_15;
                    at[16] = x_16;
                    at[17] = x_17;
                    at[18] = x_18;
                    at[19] = x_19;
                    at[20] = x_20;
                    at[21] = x_21;
                    at[22] = x_22;
                    at[23] = x_23;
                    at[24] = x_24;
                    at[25] = x_25;
                    at[26] = x_26;
                    at[27] = x_27;
                    at[28] = x_28;
                    at[29] = x_29;
                    at[30] = x_30;
                    at[31] = x_31;
                    at[32] = x_32;
                    at[33] = x_33;
                    at[34] = x_34;
                    at[35] = x_35;
                    at[36] = x_36;
                    at[37] = x_37;
                    at[38] = x_38;
                    at[39] = x_39;
                    at[40] = x_40;
                    at[41] = x_41;
                    at[42] = x_42;
                    at[43] = x_43;
                    at[44] = x_44;
                    at[45] = x_45;
                    at[46] = x_46;
                    at[47] = x_47;
                    energy = energy_of(numbers + 0, energy_arrays, kwargs, tile, at + 0, (R*)(iat + 0));
                keep_real(keep_x + (slot * n_kept_chains + tile * W) * 48L + 0, 48, left, x_0);
                keep_real(keep_x + (slot * n_kept_chains + tile * W) * 48L + 1, 48, left, x_1);
                keep_real(keep_x + (slot * n_kept_chains + tile * W) * 48L + 2, 48, left, x_2);
                keep_real(keep_x + (slot * n_kept_chains + tile * W) * 48L + 3, 48, left, x_3);
                keep_real(keep_x + (slot * n_kept_chains + tile * W) * 48L + 4, 48, left, x_4);
                keep_real(keep_x + (slot * n_kept_chains + tile * W) * 48L + 5, 48, left, x_5);
                keep_real(keep_x + (slot * n_kept_chains + tile * W) * 48L + 6, 48, left, x_6);
                keep_real(keep_x + (slot * n_kept_chains + tile * W) * 48L + 7, 48, left, x_7);
                keep_real(keep_x + (slot * n_kept_chains + tile * W) * 48L + 8, 48, left, x_8);
                keep_real(keep_x + (slot * n_kept_chains + tile * W) * 48L + 9, 48, left, x_9);
                keep_real(keep_x + (slot * n_kept_chains + tile * W) * 48L + 10, 48, left, x_10);
                keep_real(keep_x + (slot * n_kept_chains + tile * W) * 48L + 11, 48, left, x_11);
                keep_real(keep_x + (slot * n_kept_chains + tile * W) * 48L + 12, 48, left, x_12);
                keep_real(keep_x + (slot * n_kept_chains + tile * W) * 48L + 13, 48, left, x_13);
                keep_real(keep_x + (slot * n_kept_chains + tile * W) * 48L + 14, 48, left, x_14);
                keep_real(keep_x + (slot * n_kept_chains + tile * W) * 48L + 15, 48, left, x_15);
                keep_real(keep_x + (slot * n_kept_chains + tile * W) * 48L + 16, 48, left, x_16);
                keep_real(keep_x + (slot * n_kept_chains + tile * W) * 48L + 17, 48, left, x_17);
                keep_real(keep_x + (slot * n_kept_chains + tile * W) * 48L + 18, 48, left, x_18);
                keep_real(keep_x + (slot * n_kept_chains + tile * W) * 48L + 19, 48, left, x_19);
                keep_real(keep_x + (slot * n_kept_chains + tile * W) * 48L + 20, 48, left, x_20);
                keep_real(keep_x + (slot * n_kept_chains + tile * W) * 48L + 21, 48, left, x_21);
                keep_real(keep_x + (slot * n_kept_chains + tile * W) * 48L + 22, 48, left, x_22);
                keep_real(keep_x + (slot * n_kept_chains + tile * W) * 48L + 23, 48, left, x_23);
                keep_real(keep_x + (slot * n_kept_chains + tile * W) * 48L + 24, 48, left, x_24);
                keep_real(keep_x + (slot * n_kept_chains + tile * W) * 48L + 25, 48, left, x_25);
                keep_real(keep_x + (slot * n_kept_chains + tile * W) * 48L + 26, 48, left, x_26);
                keep_real(keep_x + (slot * n_kept_chains + tile * W) * 48L + 27, 48, left, x_27);
                keep_real(keep_x + (slot * n_kept_chains + tile * W) * 48L + 28, 48, left, x_28);
                keep_real(keep_x + (slot * n_kept_chains + tile * W) * 48L + 29, 48, left, x_29);
                keep_real(keep_x + (slot * n_kept_chains + tile * W) * 48L + 30, 48, left, x_30);
                keep_real(keep_x + (slot * n_kept_chains + tile * W) * 48L + 31, 48, left, x_31);
                keep_real(keep_x + (slot * n_kept_chains + tile * W) * 48L + 32, 48, left, x_32);
                keep_real(keep_x + (slot * n_kept_chains + tile * W) * 48L + 33, 48, left, x_33);
                keep_real(keep_x + (slot * n_kept_chains + tile * W) * 48L + 34, 48, left, x_34);
                keep_real(keep_x + (slot * n_kept_chains + tile * W) * 48L + 35, 48, left, x_35);
                keep_real(keep_x + (slot * n_kept_chains + tile * W) * 48L + 36, 48, left, x_36);
                keep_real(keep_x + (slot * n_kept_chains + tile * W) * 48L + 37, 48, left, x_37);
                keep_real(keep_x + (slot * n_kept_chains + tile * W) * 48L + 38, 48, left, x_38);
                keep_real(keep_x + (slot * n_kept_chains + tile * W) * 48L + 39, 48, left, x_39);
                keep_real(keep_x + (slot * n_kept_chains + tile * W) * 48L + 40, 48, left, x_40);
                keep_real(keep_x + (slot * n_kept_chains + tile * W) * 48L + 41, 48, left, x_41);
                keep_real(keep_x + (slot * n_kept_chains + tile * W) * 48L + 42, 48, left, x_42);
                keep_real(keep_x + (slot * n_kept_chains + tile * W) * 48L + 43, 48, left, x_43);
                keep_real(keep_x + (slot * n_kept_chains + tile * W) * 48L + 44, 48, left, x_44);
                keep_real(keep_x + (slot * n_kept_chains + tile * W) * 48L + 45, 48, left, x_45);
                keep_real(keep_x + (slot * n_kept_chains + tile * W) * 48L + 46, 48, left, x_46);
                keep_real(keep_x + (slot * n_kept_chains + tile * W) * 48L + 47, 48, left, x_47);
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
            at[4] = x_4;
            at[5] = x_5;
            at[6] = x_6;
            at[7] = x_7;
            at[8] = x_8;
            at[9] = x_9;
            at[10] = x_10;
            at[11] = x_11;
            at[12] = x_12;
            at[13] = x_13;
            at[14] = x_14;
            at[15] = x_15;
            at[16] = x_16;
            at[17] = x_17;
            at[18] = x_18;
            at[19] = x_19;
            at[20] = x_20;
            at[21] = x_21;
            at[22] = x_22;
            at[23] = x_23;
            at[24] = x_24;
            at[25] = x_25;
            at[26] = x_26;
            at[27] = x_27;
            at[28] = x_28;
            at[29] = x_29;
            at[30] = x_30;
            at[31] = x_31;
            at[32] = x_32;
            at[33] = x_33;
            at[34] = x_34;
            at[35] = x_35;
            at[36] = x_36;
            at[37] = x_37;
            at[38] = x_38;
            at[39] = x_39;
            at[40] = x_40;
            at[41] = x_41;
            at[42] = x_42;
            at[43] = x_43;
            at[44] = x_44;
            at[45] = x_45;
            at[46] = x_46;
            at[47] = x_47;
            at[73] = energy;
            at[74] = grad_0;
            at[75] = grad_1;
            at[76] = grad_2;
            at[77] = grad_3;
            at[78] = grad_4;
            at[79] = grad_5;
            at[80] = grad_6;
            at[81] = grad_7;
            at[82] = grad_8;
            at[83] = grad_9;
            at[84] = grad_10;
            at[85] = grad_11;
            at[86] = grad_12;
            at[87] = grad_13;
            at[88] = grad_14;
            at[89] = grad_15;
            at[90] = grad_16;
            at[91] = grad_17;
            at[92] = grad_18;
            at[93] = grad_19;
            at[94] = grad_20;
            at[95] = grad_21;
            at[96] = grad_22;
            at[97] = grad_23;
            at[98] = grad_24;
            at[99] = grad_25;
            at[100] = grad_26;
            at[101] = grad_27;
            at[102] = grad_28;
            at[103] = grad_29;
            at[104] = grad_30;
            at[105] = grad_31;
            at[106] = grad_32;
            at[107] = grad_33;
            at[108] = grad_34;
            at[109] = grad_35;
            at[110] = grad_36;
            at[111] = grad_37;
            at[112] = grad_38;
            at[113] = grad_39;
            at[114] = grad_40;
            at[115] = grad_41;
            at[116] = grad_42;
            at[117] = grad_43;
            at[118] = grad_44;
            at[119] = grad_45;
            at[120] = grad_46;
            at[121] = grad_47;
            at[73] = energy_of(numbers + 0, energy_arrays, kwargs, tile, at + 0, (R*)(iat + 0));
            const M alive = ieq(failed_at, iset(-1LL));
            const M fine = mand(all_finite(at + 0, 48), risfinite(at[73]));
            if (!exact && many(mand(alive, mnot(mand(fine, rle(spread, rset(limit[0]))))))) {
                // somewhere on the way a chain failed, or went where its energy may not be finite: again, step by step
                copy_all(at + 0, at + 147, 48);
                copy_all(at + 73, at + 220, 1);
                copy_all(at + 74, at + 221, 48);
                x_0 = at[0];
                x_1 = at[1];
                x_2 = at[2];
                x_3 = at[3];
                x_4 = at[4];
                x_5 = at[5];
                x_6 = at[6];
                x_7 = at[7];
                x_8 = at[8];
                x_9 = at[9];
                x_10 = at[10];
                x_11 = at[11];
                x_12 = at[12];
                x_13 = at[13];
                x_14 = at[14];
                x_15 = at[15];
                x_16 = at[16];
                x_17 = at[17];
                x_18 = at[18];
                x_19 = at[19];
                x_20 = at[20];
                x_21 = at[21];
                x_22 = at[22];
                x_23 = at[23];
                x_24 = at[24];
                x_25 = at[25];
                x_26 = at[26];
                x_27 = at[27];
                x_28 = at[28];
                x_29 = at[29];
                x_30 = at[30];
                x_31 = at[31];
                x_32 = at[32];
                x_33 = at[33];
                x_34 = at[34];
                x_35 = at[35];
                x_36 = at[36];
                x_37 = at[37];
                x_38 = at[38];
                x_39 = at[39];
                x_40 = at[40];
                x_41 = at[41];
                x_42 = at[42];
                x_43 = at[43];
                x_44 = at[44];
                x_45 = at[45];
                x_46 = at[46];
                x_47 = at[47];
                energy = at[73];
                grad_0 = at[74];
                grad_1 = at[75];
                grad_2 = at[76];
                grad_3 = at[77];
                grad_4 = at[78];
                grad_5 = at[79];
                grad_6 = at[80];
                grad_7 = at[81];
                grad_8 = at[82];
                grad_9 = at[83];
                grad_10 = at[84];
                grad_11 = at[85];
                grad_12 = at[86];
                grad_13 = at[87];
                grad_14 = at[88];
                grad_15 = at[89];
                grad_16 = at[90];
                grad_17 = at[91];
                grad_18 = at[92];
                grad_19 = at[93];
                grad_20 = at[94];
                grad_21 = at[95];
                grad_22 = at[96];
                grad_23 = at[97];
                grad_24 = at[98];
                grad_25 = at[99];
                grad_26 = at[100];
                grad_27 = at[101];
                grad_28 = at[102];
                grad_29 = at[103];
                grad_30 = at[104];
                grad_31 = at[105];
                grad_32 = at[106];
                grad_33 = at[107];
                grad_34 = at[108];
                grad_35 = at[109];
                grad_36 = at[110];
                grad_37 = at[111];
                grad_38 = at[112];
                grad_39 = at[113];
                grad_40 = at[114];
                grad_41 = at[115];
                grad_42 = at[116];
                grad_43 = at[117];
                grad_44 = at[118];
                grad_45 = at[119];
                grad_46 = at[120];
                grad_47 = at[121];
                patience = patience ? 2 * patience : 64;
                if (patience > 64 * 64) patience = 64 * 64;
                careful = patience;
                until = until_before;
                slot = slot_before;
                end = from;
                continue;
            }
            const M moves = mand(alive, fine);
            settle(at + 0, at + 147, 48, moves);
            settle(at + 73, at + 220, 1, moves);
            settle(at + 74, at + 221, 48, moves);
            x_0 = at[0];
            x_1 = at[1];
            x_2 = at[2];
            x_3 = at[3];
            x_4 = at[4];
            x_5 = at[5];
            x_6 = at[6];
            x_7 = at[7];
            x_8 = at[8];
            x_9 = at[9];
            x_10 = at[10];
            x_11 = at[11];
            x_12 = at[12];
            x_13 = at[13];
            x_14 = at[14];
            x_15 = at[15];
            x_16 = at[16];
            x_17 = at[17];
            x_18 = at[18];
            x_19 = at[19];
            x_20 = at[20];
            x_21 = at[21];
            x_22 = at[22];
            x_23 = at[23];
            x_24 = at[24];
            x_25 = at[25];
            x_26 = at[26];
            x_27 = at[27];
            x_28 = at[28];
            x_29 = at[29];
            x_30 = at[30];
            x_31 = at[31];
            x_32 = at[32];
            x_33 = at[33];
            x_34 = at[34];
            x_35 = at[35];
            x_36 = at[36];
            x_37 = at[37];
            x_38 = at[38];
            x_39 = at[39];
            x_40 = at[40];
            x_41 = at[41];
            x_42 = at[42];
            x_43 = at[43];
            x_44 = at[44];
            x_45 = at[45];
            x_46 = at[46];
            x_47 = at[47];
            energy = at[73];
            grad_0 = at[74];
            grad_1 = at[75];
            grad_2 = at[76];
            grad_3 = at[77];
            grad_4 = at[78];
            grad_5 = at[79];
            grad_6 = at[80];
            grad_7 = at[81];
            grad_8 = at[82];
            grad_9 = at[83];
            grad_10 = at[84];
            grad_11 = at[85];
            grad_12 = at[86];
            grad_13 = at[87];
            grad_14 = at[88];
            grad_15 = at[89];
            grad_16 = at[90];
            grad_17 = at[91];
            grad_18 = at[92];
            grad_19 = at[93];
            grad_20 = at[94];
            grad_21 = at[95];
            grad_22 = at[96];
            grad_23 = at[97];
            grad_24 = at[98];
            grad_25 = at[99];
            grad_26 = at[100];
            grad_27 = at[101];
            grad_28 = at[102];
            grad_29 = at[103];
            grad_30 = at[104];
            grad_31 = at[105];
            grad_32 = at[106];
            grad_33 = at[107];
            grad_34 = at[108];
            grad_35 = at[109];
            grad_36 = at[110];
            grad_37 = at[111];
            grad_38 = at[112];
            grad_39 = at[113];
            grad_40 = at[114];
            grad_41 = at[115];
            grad_42 = at[116];
            grad_43 = at[117];
            grad_44 = at[118];
            grad_45 = at[119];
            grad_46 = at[120];
            grad_47 = at[121];
            failed_at = isel(mand(alive, mnot(fine)), iset(first_step + end - 1), failed_at);
            if (careful) --careful;
            else patience /= 2;
            if (thin && exact && --until == 0) {
                keep_real(keep_x + (slot * n_kept_chains + tile * W) * 48L + 0, 48, left, x_0);
                keep_real(keep_x + (slot * n_kept_chains + tile * W) * 48L + 1, 48, left, x_1);
                keep_real(keep_x + (slot * n_kept_chains + tile * W) * 48L + 2, 48, left, x_2);
                keep_real(keep_x + (slot * n_kept_chains + tile * W) * 48L + 3, 48, left, x_3);
                keep_real(keep_x + (slot * n_kept_chains + tile * W) * 48L + 4, 48, left, x_4);
                keep_real(keep_x + (slot * n_kept_chains + tile * W) * 48L + 5, 48, left, x_5);
                keep_real(keep_x + (slot * n_kept_chains + tile * W) * 48L + 6, 48, left, x_6);
                keep_real(keep_x + (slot * n_kept_chains + tile * W) * 48L + 7, 48, left, x_7);
                keep_real(keep_x + (slot * n_kept_chains + tile * W) * 48L + 8, 48, left, x_8);
                keep_real(keep_x + (slot * n_kept_chains + tile * W) * 48L + 9, 48, left, x_9);
                keep_real(keep_x + (slot * n_kept_chains + tile * W) * 48L + 10, 48, left, x_10);
                keep_real(keep_x + (slot * n_kept_chains + tile * W) * 48L + 11, 48, left, x_11);
                keep_real(keep_x + (slot * n_kept_chains + tile * W) * 48L + 12, 48, left, x_12);
                keep_real(keep_x + (slot * n_kept_chains + tile * W) * 48L + 13, 48, left, x_13);
                keep_real(keep_x + (slot * n_kept_chains + tile * W) * 48L + 14, 48, left, x_14);
                keep_real(keep_x + (slot * n_kept_chains + tile * W) * 48L + 15, 48, left, x_15);
                keep_real(keep_x + (slot * n_kept_chains + tile * W) * 48L + 16, 48, left, x_16);
                keep_real(keep_x + (slot * n_kept_chains + tile * W) * 48L + 17, 48, left, x_17);
                keep_real(keep_x + (slot * n_kept_chains + tile * W) * 48L + 18, 48, left, x_18);
                keep_real(keep_x + (slot * n_kept_chains + tile * W) * 48L + 19, 48, left, x_19);
                keep_real(keep_x + (slot * n_kept_chains + tile * W) * 48L + 20, 48, left, x_20);
                keep_real(keep_x + (slot * n_kept_chains + tile * W) * 48L + 21, 48, left, x_21);
                keep_real(keep_x + (slot * n_kept_chains + tile * W) * 48L + 22, 48, left, x_22);
                keep_real(keep_x + (slot * n_kept_chains + tile * W) * 48L + 23, 48, left, x_23);
                keep_real(keep_x + (slot * n_kept_chains + tile * W) * 48L + 24, 48, left, x_24);
                keep_real(keep_x + (slot * n_kept_chains + tile * W) * 48L + 25, 48, left, x_25);
                keep_real(keep_x + (slot * n_kept_chains + tile * W) * 48L + 26, 48, left, x_26);
                keep_real(keep_x + (slot * n_kept_chains + tile * W) * 48L + 27, 48, left, x_27);
                keep_real(keep_x + (slot * n_kept_chains + tile * W) * 48L + 28, 48, left, x_28);
                keep_real(keep_x + (slot * n_kept_chains + tile * W) * 48L + 29, 48, left, x_29);
                keep_real(keep_x + (slot * n_kept_chains + tile * W) * 48L + 30, 48, left, x_30);
                keep_real(keep_x + (slot * n_kept_chains + tile * W) * 48L + 31, 48, left, x_31);
                keep_real(keep_x + (slot * n_kept_chains + tile * W) * 48L + 32, 48, left, x_32);
                keep_real(keep_x + (slot * n_kept_chains + tile * W) * 48L + 33, 48, left, x_33);
                keep_real(keep_x + (slot * n_kept_chains + tile * W) * 48L + 34, 48, left, x_34);
                keep_real(keep_x + (slot * n_kept_chains + tile * W) * 48L + 35, 48, left, x_35);
                keep_real(keep_x + (slot * n_kept_chains + tile * W) * 48L + 36, 48, left, x_36);
                keep_real(keep_x + (slot * n_kept_chains + tile * W) * 48L + 37, 48, left, x_37);
                keep_real(keep_x + (slot * n_kept_chains + tile * W) * 48L + 38, 48, left, x_38);
                keep_real(keep_x + (slot * n_kept_chains + tile * W) * 48L + 39, 48, left, x_39);
                keep_real(keep_x + (slot * n_kept_chains + tile * W) * 48L + 40, 48, left, x_40);
                keep_real(keep_x + (slot * n_kept_chains + tile * W) * 48L + 41, 48, left, x_41);
                keep_real(keep_x + (slot * n_kept_chains + tile * W) * 48L + 42, 48, left, x_42);
                keep_real(keep_x + (slot * n_kept_chains + tile * W) * 48L + 43, 48, left, x_43);
                keep_real(keep_x + (slot * n_kept_chains + tile * W) * 48L + 44, 48, left, x_44);
                keep_real(keep_x + (slot * n_kept_chains + tile * W) * 48L + 45, 48, left, x_45);
                keep_real(keep_x + (slot * n_kept_chains + tile * W) * 48L + 46, 48, left, x_46);
                keep_real(keep_x + (slot * n_kept_chains + tile * W) * 48L + 47, 48, left, x_47);
                keep_real(keep_energy + (slot * n_kept_chains + tile * W) * 1L + 0, 1, left, energy);
                until = thin;
                ++slot;
            }
        }
        give_real(x_tile + 0, 48, x_0);
        give_real(x_tile + 1, 48, x_1);
        give_real(x_tile + 2, 48, x_2);
        give_real(x_tile + 3, 48, x_3);
        give_real(x_tile + 4, 48, x_4);
        give_real(x_tile + 5, 48, x_5);
        give_real(x_tile + 6, 48, x_6);
        give_real(x_tile + 7, 48, x_7);
        give_real(x_tile + 8, 48, x_8);
        give_real(x_tile + 9, 48, x_9);
        give_real(x_tile + 10, 48, x_10);
        give_real(x_tile + 11, 48, x_11);
        give_real(x_tile + 12, 48, x_12);
        give_real(x_tile + 13, 48, x_13);
        give_real(x_tile + 14, 48, x_14);
        give_real(x_tile + 15, 48, x_15);
        give_real(x_tile + 16, 48, x_16);
        give_real(x_tile + 17, 48, x_17);
        give_real(x_tile + 18, 48, x_18);
        give_real(x_tile + 19, 48, x_19);
        give_real(x_tile + 20, 48, x_20);
        give_real(x_tile + 21, 48, x_21);
        give_real(x_tile + 22, 48, x_22);
        give_real(x_tile + 23, 48, x_23);
        give_real(x_tile + 24, 48, x_24);
        give_real(x_tile + 25, 48, x_25);
        give_real(x_tile + 26, 48, x_26);
        give_real(x_tile + 27, 48, x_27);
        give_real(x_tile + 28, 48, x_28);
        give_real(x_tile + 29, 48, x_29);
        give_real(x_tile + 30, 48, x_30);
        give_real(x_tile + 31, 48, x_31);
        give_real(x_tile + 32, 48, x_32);
        give_real(x_tile + 33, 48, x_33);
        give_real(x_tile + 34, 48, x_34);
        give_real(x_tile + 35, 48, x_35);
        give_real(x_tile + 36, 48, x_36);
        give_real(x_tile + 37, 48, x_37);
        give_real(x_tile + 38, 48, x_38);
        give_real(x_tile + 39, 48, x_39);
        give_real(x_tile + 40, 48, x_40);
        give_real(x_tile + 41, 48, x_41);
        give_real(x_tile + 42, 48, x_42);
        give_real(x_tile + 43, 48, x_43);
        give_real(x_tile + 44, 48, x_44);
        give_real(x_tile + 45, 48, x_45);
        give_real(x_tile + 46, 48, x_46);
        give_real(x_tile + 47, 48, x_47);
        give_real(energy_tile + 0, 1, energy);
        give_real(grad_tile + 0, 48, grad_0);
        give_real(grad_tile + 1, 48, grad_1);
        give_real(grad_tile + 2, 48, grad_2);
        give_real(grad_tile + 3, 48, grad_3);
        give_real(grad_tile + 4, 48, grad_4);
        give_real(grad_tile + 5, 48, grad_5);
        give_real(grad_tile + 6, 48, grad_6);
        give_real(grad_tile + 7, 48, grad_7);
        give_real(grad_tile + 8, 48, grad_8);
        give_real(grad_tile + 9, 48, grad_9);
        give_real(grad_tile + 10, 48, grad_10);
        give_real(grad_tile + 11, 48, grad_11);
        give_real(grad_tile + 12, 48, grad_12);
        give_real(grad_tile + 13, 48, grad_13);
        give_real(grad_tile + 14, 48, grad_14);
        give_real(grad_tile + 15, 48, grad_15);
        give_real(grad_tile + 16, 48, grad_16);
        give_real(grad_tile + 17, 48, grad_17);
        give_real(grad_tile + 18, 48, grad_18);
        give_real(grad_tile + 19, 48, grad_19);
        give_real(grad_tile + 20, 48, grad_20);
        give_real(grad_tile + 21, 48, grad_21);
        give_real(grad_tile + 22, 48, grad_22);
        give_real(grad_tile + 23, 48, grad_23);
        give_real(grad_tile + 24, 48, grad_24);
        give_real(grad_tile + 25, 48, grad_25);
        give_real(grad_tile + 26, 48, grad_26);
        give_real(grad_tile + 27, 48, grad_27);
        give_real(grad_tile + 28, 48, grad_28);
        give_real(grad_tile + 29, 48, grad_29);
        give_real(grad_tile + 30, 48, grad_30);
        give_real(grad_tile + 31, 48, grad_31);
        give_real(grad_tile + 32, 48, grad_32);
        give_real(grad_tile + 33, 48, grad_33);
        give_real(grad_tile + 34, 48, grad_34);
        give_real(grad_tile + 35, 48, grad_35);
        give_real(grad_tile + 36, 48, grad_36);
        give_real(grad_tile + 37, 48, grad_37);
        give_real(grad_tile + 38, 48, grad_38);
        give_real(grad_tile + 39, 48, grad_39);
        give_real(grad_tile + 40, 48, grad_40);
        give_real(grad_tile + 41, 48, grad_41);
        give_real(grad_tile + 42, 48, grad_42);
        give_real(grad_tile + 43, 48, grad_43);
        give_real(grad_tile + 44, 48, grad_44);
        give_real(grad_tile + 45, 48, grad_45);
        give_real(grad_tile + 46, 48, grad_46);
        give_real(grad_tile + 47, 48, grad_47);
        give_int(failed_at_tile + 0, 1, failed_at);
    }
}
