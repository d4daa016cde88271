// The arithmetic of a decoding step: products of a matrix with one or a few vectors, RMSNorm, SwiGLU's gate.
//
// fp32 and bf16 matrices are read as torch keeps them, row by row. int8 ones are packed: blocks of 16 rows, four columns
// of each side by side as VNNI's dot product wants them, with a scale for every row and 64 columns. Both are read once
// for all tokens of the step.
#pragma once
#include "decode.h"

namespace longspan::LEVEL {
namespace {

constexpr i64 BLOCK = 16;  // rows of an int8 block
constexpr i64 GROUP = 64;  // columns with one scale

void norm(const float* x, const float* weight, i64 n, float eps, float* y) {
  vf sum = vf{};
  i64 d = 0;
  for (; d + W <= n; d += W) sum += get<vf>(x + d) * get<vf>(x + d);
  float total = sum_of(sum);
  for (i64 r = d; r < n; ++r) total += x[r] * x[r];
  const float factor = 1 / ::sqrtf(total / n + eps);
  for (d = 0; d + W <= n; d += W) put(y + d, get<vf>(x + d) * factor * get<vf>(weight + d));
  for (; d < n; ++d) y[d] = x[d] * factor * weight[d];
}

// g = silu(g) * u
void gate(float* g, const float* u, i64 n) {
  for (i64 d = 0; d < n; d += W) {
    float in[W] = {}, up[W] = {};
    const i64 here = min_of(W, n - d);
    __builtin_memcpy(in, g + d, 4 * here);
    __builtin_memcpy(up, u + d, 4 * here);
    const vf x = get<vf>(in);
    vf power = x * -LOG2E;
    power = power > all(126.f) ? all(126.f) : power;
    put(in, x / (1.f + exp2_of<6>(power)) * get<vf>(up));
    __builtin_memcpy(g + d, in, 4 * here);
  }
}

// The vectors x [tokens, n] as the products want them; `ld` apart, zeros behind n.
void prepare(Type weights, const Input& to, i64 tokens, i64 n) {
  for (i64 t = 0; t < tokens; ++t) {
    const float* x = to.x + t * to.ld;
    if (weights == Type::bf16) {
      for (i64 d = 0; d < to.ld; d += W) put(to.x16 + t * to.ld + d, d + W <= n ? to_bf16(get<vf>(x + d)) : vh{});
      for (i64 d = n / W * W; d < n; ++d) to.x16[t * to.ld + d] = bf16_of(x[d]);
    } else if (weights == Type::i8) {
      for (i64 d = 0; d < to.ld; d += GROUP) {
        float most = 0;
        const i64 here = max_of(0, min_of(GROUP, n - d));
        for (i64 i = 0; i < here; ++i) { const float size = x[d + i] < 0 ? -x[d + i] : x[d + i]; most = most >= size ? most : size; }
        const float inverse = most > 0 ? 127 / most : 0;
        std::int32_t sum = 0;
        for (i64 i = 0; i < GROUP; ++i) {
          const float y = i < here ? x[d + i] * inverse : 0;
          const std::int32_t q = y == y ? (std::int32_t)((y + 12582912.f) - 12582912.f) : 0;
          to.x8[t * to.ld + d + i] = (std::int8_t)q;
          sum += q;
        }
        to.scale[(t * to.ld + d) / GROUP] = most == most && most < INFINITY ? most / 127 : NAN;
        to.sum[(t * to.ld + d) / GROUP] = -128 * sum;
      }
    }
  }
}

// Rows lo .. hi of a matrix times every vector: y[t][row] (+)= w[row] . x[t] + bias[row].
template <class K>
void plain_rows(const Linear& m, i64 lo, i64 hi, const Input& in, i64 tokens, float* y, i64 ldy, bool add) {
  const K* w = (const K*)m.w;
  i64 row = lo;
  for (; row + W <= hi; row += W) {
    const K* from = w + row * m.in;
    for (i64 t = 0; t < tokens; ++t) {
      vf s = dots<K>(in.x + t * in.ld, in.x16 + t * in.ld, from, m.in, m.in);
      float* to = y + t * ldy + row;
      if (m.bias) s += get<vf>(m.bias + row);
      if (add) s += get<vf>(to);
      put(to, s);
    }
  }
  for (; row < hi; ++row)
    for (i64 t = 0; t < tokens; ++t) {
      float s = m.bias ? m.bias[row] : 0;
      for (i64 d = 0; d < m.in; ++d)
        s += load_one(w[row * m.in + d]) * (sizeof(K) == 2 ? float_of(in.x16[t * in.ld + d]) : in.x[t * in.ld + d]);
      y[t * ldy + row] = add ? y[t * ldy + row] + s : s;
    }
}

// The lanes of one int8 block that a vector holds, times four columns of one token.
INLINE vi dot4(vi sum, const std::uint8_t* w, const std::int8_t* x) {
#if defined(__AVX512VNNI__)
  return (vi)_mm512_dpbusd_epi32((__m512i)sum, get<__m512i>(w), _mm512_set1_epi32(get<int>(x)));
#else
  const vu bytes = get<vu>(w);
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) sum += (vi)((bytes >> (8 * i)) & 255u) * (std::int32_t)x[i];
  return sum;
#endif
}

template <int T>
INLINE void int8_block(const Linear& m, i64 row, const Input& in, i64 first, float* y, i64 ldy, bool add) {
  const i64 groups = (m.in + GROUP - 1) / GROUP;
  const std::uint8_t* w = (const std::uint8_t*)m.w + row * groups * GROUP;
  const float* scale = m.scale + row * groups;
  for (i64 half = 0; half < BLOCK; half += W) {
    vf total[T] = {};
    for (i64 g = 0; g < groups; ++g) {
      vi sum[T][2] = {};
      const std::uint8_t* from = w + g * GROUP * BLOCK + half * 4;
#pragma GCC unroll 8
      for (i64 d = 0; d < GROUP; d += 8) {
        __builtin_prefetch(from + d * BLOCK + 4096);
        __builtin_prefetch(from + (d + 4) * BLOCK + 4096);
#pragma GCC unroll 4
        for (int t = 0; t < T; ++t) {
          const std::int8_t* x = in.x8 + (first + t) * in.ld + g * GROUP + d;
          sum[t][0] = dot4(sum[t][0], from + d * BLOCK, x);
          sum[t][1] = dot4(sum[t][1], from + (d + 4) * BLOCK, x + 4);
        }
      }
      const vf s = get<vf>(scale + g * BLOCK + half);
#pragma GCC unroll 4
      for (int t = 0; t < T; ++t) {
        const i64 at = ((first + t) * in.ld) / GROUP + g;
        total[t] += __builtin_convertvector(sum[t][0] + sum[t][1] + in.sum[at], vf) * (s * in.scale[at]);
      }
    }
    for (int t = 0; t < T; ++t)
      for (i64 i = 0; i < min_of(W, m.out - row - half); ++i) {
        float* to = y + (first + t) * ldy + row + half + i;
        *to = total[t][i] + (m.bias ? m.bias[row + half + i] : 0) + (add ? *to : 0);
      }
  }
}

void int8_rows(const Linear& m, i64 lo, i64 hi, const Input& in, i64 tokens, float* y, i64 ldy, bool add) {
  for (i64 row = lo; row < hi; row += BLOCK) {
    i64 t = 0;
    for (; t + 4 <= tokens; t += 4) int8_block<4>(m, row, in, t, y, ldy, add);
    for (; t < tokens; ++t) int8_block<1>(m, row, in, t, y, ldy, add);
  }
}

void linear(Type weights, const Linear& m, i64 lo, i64 hi, const Input& in, i64 tokens, float* y, i64 ldy, bool add) {
  switch (weights) {
    case Type::f32: return plain_rows<float>(m, lo, hi, in, tokens, y, ldy, add);
    case Type::bf16: return plain_rows<bf16>(m, lo, hi, in, tokens, y, ldy, add);
    case Type::i8: return int8_rows(m, lo, hi, in, tokens, y, ldy, add);
  }
}

}  // namespace
}  // namespace longspan::LEVEL
