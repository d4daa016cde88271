// The arithmetic of a model's layers: products of a matrix with vectors, RMSNorm, SwiGLU's gate.
//
// fp32 and bf16 matrices are read as torch keeps them, row by row. int8 ones are packed: blocks of 16 rows, four columns
// of each side by side as VNNI's dot product wants them, with a scale for every row and 64 columns. Both are read once
// for a few tokens; for many, the products of int8 are as fast as a matrix product can be, the others are not.
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
        alignas(64) float row[GROUP];
        convert<float>(x + d, row, max_of(0, min_of(GROUP, n - d)), GROUP);
        std::int32_t sum;
        to.scale[(t * to.ld + d) / GROUP] = round_i8(row, GROUP, to.x8 + t * to.ld + d, sum);
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

// W sums of rows from `row` on, where the matrix has so many.
INLINE void put_sums(const Linear& m, i64 row, vf sums, float* y, bool add) {
  float* to = y + row;
  if (row + W <= m.out) {
    if (m.bias) sums += get<vf>(m.bias + row);
    put(to, add ? sums + get<vf>(to) : sums);
  } else {
    for (i64 i = 0; i < m.out - row; ++i) to[i] = sums[i] + (m.bias ? m.bias[row + i] : 0) + (add ? to[i] : 0);
  }
}

// T tokens times R vectors of W rows each, from `row` on; C sums of each take turns where T and R alone are too few to
// keep the units busy.
template <int T, int R, int C>
INLINE void int8_block(const Linear& m, i64 row, const Input& in, i64 first, float* y, i64 ldy, bool add) {
  const i64 groups = (m.in + GROUP - 1) / GROUP;
  const std::uint8_t* w[R];
  const float* scale[R];
#pragma GCC unroll 4
  for (int r = 0; r < R; ++r) {
    const i64 at = row + r * W;
    w[r] = (const std::uint8_t*)m.w + at / BLOCK * BLOCK * groups * GROUP + at % BLOCK * 4;
    scale[r] = m.scale + at / BLOCK * BLOCK * groups + at % BLOCK;
  }
  vf total[T][R] = {};
  for (i64 g = 0; g < groups; ++g) {
    vi sum[T][R][C];
#pragma GCC unroll 8
    for (int t = 0; t < T; ++t)
#pragma GCC unroll 4
      for (int r = 0; r < R; ++r)
#pragma GCC unroll 2
        for (int c = 0; c < C; ++c) sum[t][r][c] = c ? vi{} : vi{} + in.sum[(first + t) * in.ld / GROUP + g];
#pragma GCC unroll 4
    for (i64 d = 0; d < GROUP; d += 4 * C)
#pragma GCC unroll 2
      for (int c = 0; c < C; ++c) {
        const i64 column = g * GROUP + d + 4 * c;
        if constexpr (R == 1) __builtin_prefetch(w[0] + column * BLOCK + 4096);  // few tokens wait for memory
#pragma GCC unroll 8
        for (int t = 0; t < T; ++t)
#pragma GCC unroll 4
          for (int r = 0; r < R; ++r)
            sum[t][r][c] = dot4(sum[t][r][c], w[r] + column * BLOCK, in.x8 + (first + t) * in.ld + column);
      }
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r) {
      const vf s = get<vf>(scale[r] + g * BLOCK);
#pragma GCC unroll 8
      for (int t = 0; t < T; ++t) {
        vi all = sum[t][r][0];
#pragma GCC unroll 2
        for (int c = 1; c < C; ++c) all += sum[t][r][c];
        total[t][r] += __builtin_convertvector(all, vf) * (s * in.scale[(first + t) * in.ld / GROUP + g]);
      }
    }
  }
  for (int t = 0; t < T; ++t)
    for (int r = 0; r < R; ++r) put_sums(m, row + r * W, total[t][r], y + (first + t) * ldy, add);
}

#if defined(TILES)
// SIDE tokens times the rows of a block. A group of columns is one product of tiles: its sums leave them to be scaled.
INLINE void tile_block(const Linear& m, i64 row, const Input& in, i64 first, float* y, i64 ldy, bool add) {
  const i64 groups = (m.in + GROUP - 1) / GROUP;
  const std::uint8_t* w = (const std::uint8_t*)m.w + row * groups * GROUP;
  const float* scale = m.scale + row * groups;
  alignas(64) std::int32_t sum[2][SIDE][SIDE];
  vf total[SIDE] = {};
  for (i64 g = 0; g < groups; ++g) {
    tile_zero<0>();
    tile_load<1>(in.x8 + first * in.ld + g * GROUP, in.ld);
    tile_load<2>(w + g * GROUP * BLOCK, WIDE);
    tile_s8u8<0, 1, 2>();
    tile_store<0>(sum[g % 2], WIDE);
    const vf s = get<vf>(scale + g * BLOCK);
#pragma GCC unroll 16
    for (i64 t = 0; t < SIDE; ++t) {
      const i64 at = (first + t) * in.ld / GROUP + g;
      total[t] += __builtin_convertvector(get<vi>(sum[g % 2][t]) + in.sum[at], vf) * (s * in.scale[at]);
    }
  }
  for (i64 t = 0; t < SIDE; ++t) put_sums(m, row, total[t], y + (first + t) * ldy, add);
}
#endif

// The last few tokens, or all where there are few.
INLINE void int8_few(const Linear& m, i64 row, const Input& in, i64 t, i64 tokens, float* y, i64 ldy, bool add) {
  for (; t + 4 <= tokens; t += 4) int8_block<4, 1, 2>(m, row, in, t, y, ldy, add);
  for (; t < tokens; ++t) int8_block<1, 1, 2>(m, row, in, t, y, ldy, add);
}

void int8_rows(const Linear& m, i64 lo, i64 hi, const Input& in, i64 tokens, float* y, i64 ldy, bool add) {
  constexpr i64 MANY = LANES == 16 ? 6 : 4;  // tokens; two vectors of sums for each are what registers hold
  const i64 end = round_up(hi, BLOCK);
  i64 first = 0;
#if defined(TILES)
  first = tokens / SIDE * SIDE;
  if (first) {
    const Tiles tiles;
    for (i64 row = lo; row < end; row += BLOCK)
      for (i64 t = 0; t < first; t += SIDE) tile_block(m, row, in, t, y, ldy, add);
  }
#endif
  const i64 many = first + (tokens - first) / MANY * MANY;
  i64 row = lo;
  for (; many > first && row + 2 * W <= end; row += 2 * W) {
    for (i64 t = first; t < many; t += MANY) int8_block<MANY, 2, 1>(m, row, in, t, y, ldy, add);
    int8_few(m, row, in, many, tokens, y, ldy, add);
    int8_few(m, row + W, in, many, tokens, y, ldy, add);
  }
  for (; row < end; row += W) int8_few(m, row, in, first, tokens, y, ldy, add);
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
