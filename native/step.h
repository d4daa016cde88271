// The arithmetic of a model's layers: products of a matrix with vectors, RMSNorm, SwiGLU's and GeGLU's gate.
//
// fp32 and bf16 matrices are read as torch keeps them, row by row. int8 ones are packed: blocks of 16 rows, four columns
// of each side by side as VNNI's dot product wants them, with a scale for every row and 64 columns. int4 ones are packed
// likewise, two columns that are 32 apart in a byte, with a scale and a least number, both fp16 in 32 bits, for every row
// and 32 columns (GGUF's Q4_1). All are read once for a few tokens; for many, the products of int8 and int4 are as fast
// as a matrix product can be, the others are not.
#pragma once
#include "decode.h"

namespace longspan::LEVEL {
namespace {

constexpr i64 BLOCK = 16;                     // rows side by side
constexpr i64 GROUP = group_of(Type::i8);     // columns with one scale
constexpr i64 FEW = group_of(Type::i4);

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

// g = silu(g) * u, or gelu(g) * u with GELU's approximation by tanh. Both are x / (1 + e^-p) of some p.
void gate(float* g, const float* u, i64 n, bool gelu) {
  constexpr float SLOPE = 1.5957691216f;  // 2 sqrt(2 / pi)
  for (i64 d = 0; d < n; d += W) {
    float in[W] = {}, up[W] = {};
    const i64 here = min_of(W, n - d);
    __builtin_memcpy(in, g + d, 4 * here);
    __builtin_memcpy(up, u + d, 4 * here);
    const vf x = get<vf>(in);
    vf power = x * -LOG2E;
    if (gelu) power *= SLOPE + SLOPE * 0.044715f * x * x;
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
    } else if (weights != Type::f32) {
      const i64 group = group_of(weights);
      for (i64 d = 0; d < to.ld; d += group) {
        alignas(64) float row[GROUP];
        convert<float>(x + d, row, max_of(0, min_of(group, n - d)), group);
        std::int32_t sum;
        const i64 at = (t * to.ld + d) / group;
        to.scale[at] = round_i8(row, group, to.x8 + t * to.ld + d, sum);
        to.sum[at] = -128 * sum;
        to.real_sum[at] = to.scale[at] * sum;
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

// BLOCK rows as bytes, as step.cpp's int8 matrices lie: a byte u is worth scale * u + least. int8 ones have no `least`:
// their Input.sum takes back the 128 in every byte.
struct Bytes {
  const std::uint8_t* w;
  const float *scale, *least;
};

Bytes bytes_of(const Linear& m, i64 row) {
  const i64 block = row / BLOCK * BLOCK, groups = (m.in + GROUP - 1) / GROUP;
  return {(const std::uint8_t*)m.w + block * groups * GROUP, (const float*)m.scale + block * groups, nullptr};
}

// A group's sums of products with x, whose own sum they know, as a part of the result. Few tokens and many must come to the
// same numbers: a guessed token is to be what it is alone.
INLINE void add_group(vf& total, vi sum, vf scale, float x_scale) {
  total += __builtin_convertvector(sum, vf) * (scale * x_scale);
}
INLINE void add_group(vf& total, vi sum, vf scale, vf least, float x_scale, float x_sum) {
  add_group(total, sum, scale, x_scale);
  total += least * x_sum;
}

// T tokens times R vectors of W rows each, from `row` on, of which `from` has the blocks; C sums of each take turns where
// T and R alone are too few to keep the units busy. G columns have one scale, and where that is FEW, a least number.
template <i64 G, int T, int R, int C>
INLINE void byte_block(const Linear& m, const Bytes* from, i64 row, const Input& in, i64 first, float* y, i64 ldy, bool add) {
  const i64 groups = (m.in + G - 1) / G;
  const std::uint8_t* w[R];
  const float *scale[R], *least[R];
#pragma GCC unroll 4
  for (int r = 0; r < R; ++r) {
    const i64 at = row % BLOCK + r * W;
    const Bytes& block = from[at / BLOCK];
    w[r] = block.w + at % BLOCK * 4, scale[r] = block.scale + at % BLOCK;
    if constexpr (G == FEW) least[r] = block.least + at % BLOCK;
  }
  vf total[T][R] = {};
  for (i64 g = 0; g < groups; ++g) {
    vi sum[T][R][C];
#pragma GCC unroll 8
    for (int t = 0; t < T; ++t)
#pragma GCC unroll 4
      for (int r = 0; r < R; ++r)
#pragma GCC unroll 2
        for (int c = 0; c < C; ++c) sum[t][r][c] = c || G == FEW ? vi{} : vi{} + in.sum[(first + t) * in.ld / G + g];
#pragma GCC unroll 4
    for (i64 d = 0; d < G; d += 4 * C)
#pragma GCC unroll 2
      for (int c = 0; c < C; ++c) {
        const i64 column = g * G + d + 4 * c;
        if constexpr (R == 1) __builtin_prefetch(w[0] + column * BLOCK + 4096);  // few tokens wait for memory
#pragma GCC unroll 8
        for (int t = 0; t < T; ++t)
#pragma GCC unroll 4
          for (int r = 0; r < R; ++r)
            sum[t][r][c] = dot4(sum[t][r][c], get<vu>(w[r] + column * BLOCK), in.x8 + (first + t) * in.ld + column);
      }
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r) {
      const vf s = get<vf>(scale[r] + g * BLOCK);
#pragma GCC unroll 8
      for (int t = 0; t < T; ++t) {
        const i64 at = (first + t) * in.ld / G + g;
        vi all = sum[t][r][0];
#pragma GCC unroll 2
        for (int c = 1; c < C; ++c) all += sum[t][r][c];
        if constexpr (G == FEW) add_group(total[t][r], all, s, get<vf>(least[r] + g * BLOCK), in.scale[at], in.real_sum[at]);
        else add_group(total[t][r], all, s, in.scale[at]);
      }
    }
  }
  for (int t = 0; t < T; ++t)
    for (int r = 0; r < R; ++r) put_sums(m, row + r * W, total[t][r], y + (first + t) * ldy, add);
}

#if defined(TILES)
// SIDE tokens times the rows of a block. A group of columns is one product of tiles: its sums leave them to be scaled.
// Where FEW columns are a group, each has a tile of its own, with zeros for the other FEW of GROUP.
template <i64 G>
INLINE void tile_block(const Linear& m, const Bytes& from, i64 row, const Input& in, i64 first, float* y, i64 ldy, bool add) {
  const i64 groups = (m.in + G - 1) / G;
  alignas(64) std::int32_t sum[2][SIDE][SIDE];
  vf total[SIDE] = {};
  for (i64 g = 0; g < groups; ++g) {
    tile_zero<0>();
    tile_load<1>(in.x8 + first * in.ld + g * G / GROUP * GROUP, in.ld);
    tile_load<2>(from.w + g * GROUP * BLOCK, WIDE);
    tile_s8u8<0, 1, 2>();
    tile_store<0>(sum[g % 2], WIDE);
    const vf s = get<vf>(from.scale + g * BLOCK);
    vf least{};
    if constexpr (G == FEW) least = get<vf>(from.least + g * BLOCK);
#pragma GCC unroll 16
    for (i64 t = 0; t < SIDE; ++t) {
      const i64 at = (first + t) * in.ld / G + g;
      if constexpr (G == FEW) add_group(total[t], get<vi>(sum[g % 2][t]), s, least, in.scale[at], in.real_sum[at]);
      else add_group(total[t], get<vi>(sum[g % 2][t]) + in.sum[at], s, in.scale[at]);
    }
  }
  for (i64 t = 0; t < SIDE; ++t) put_sums(m, row, total[t], y + (first + t) * ldy, add);
}
#endif

constexpr i64 MANY = LANES == 16 ? 6 : 4;       // tokens; two vectors of sums for each are what registers hold
constexpr i64 ROWS_OF_MANY = 2 * W > BLOCK ? 2 * W : BLOCK;

// The last few tokens, or all where there are few, times W rows.
template <i64 G>
INLINE void byte_few(const Linear& m, const Bytes& from, i64 row, const Input& in, i64 t, i64 tokens, float* y, i64 ldy, bool add) {
  for (; t + 4 <= tokens; t += 4) byte_block<G, 4, 1, 2>(m, &from, row, in, t, y, ldy, add);
  for (; t < tokens; ++t) byte_block<G, 1, 1, 2>(m, &from, row, in, t, y, ldy, add);
}

// MANY tokens or more times ROWS_OF_MANY rows.
template <i64 G>
INLINE void byte_many(const Linear& m, const Bytes* from, i64 row, const Input& in, i64 t, i64 tokens, float* y, i64 ldy, bool add) {
  const i64 many = t + (tokens - t) / MANY * MANY;
  for (i64 r = row; r < row + ROWS_OF_MANY; r += 2 * W) {
    for (i64 i = t; i < many; i += MANY) byte_block<G, MANY, 2, 1>(m, from, r, in, i, y, ldy, add);
    byte_few<G>(m, from[(r - row) / BLOCK], r, in, many, tokens, y, ldy, add);
    byte_few<G>(m, from[(r + W - row) / BLOCK], r + W, in, many, tokens, y, ldy, add);
  }
}

void int8_rows(const Linear& m, i64 lo, i64 hi, const Input& in, i64 tokens, float* y, i64 ldy, bool add) {
  const i64 end = round_up(hi, BLOCK);
  i64 first = 0, row = lo;
#if defined(TILES)
  first = tokens / SIDE * SIDE;
  if (first) {
    const Tiles tiles;
    for (i64 r = lo; r < end; r += BLOCK)
      for (i64 t = 0; t < first; t += SIDE) tile_block<GROUP>(m, bytes_of(m, r), r, in, t, y, ldy, add);
  }
#endif
  for (; tokens - first >= MANY && row + ROWS_OF_MANY <= end; row += ROWS_OF_MANY) {
    Bytes from[ROWS_OF_MANY / BLOCK];
    for (i64 block = 0; block < ROWS_OF_MANY / BLOCK; ++block) from[block] = bytes_of(m, row + block * BLOCK);
    byte_many<GROUP>(m, from, row, in, first, tokens, y, ldy, add);
  }
  for (; row < end; row += W) byte_few<GROUP>(m, bytes_of(m, row), row, in, first, tokens, y, ldy, add);
}

// fp16 in the lower 16 bits of each.
INLINE vf from_half(vu x) { return (vf)((x & 0x7fffu) << 13 | (x & 0x8000u) << 16) * 0x1p112f; }

// `width` columns of an int4 matrix from `column` on, of the W rows from `row` on: quads, and scales with least numbers.
struct Nibbles {
  const std::uint8_t* w;
  const std::uint32_t* scale;
  Nibbles(const Linear& m, i64 row, i64 column) {
    const i64 group = row / BLOCK * ((m.in + GROUP - 1) / GROUP) + column / GROUP;
    w = (const std::uint8_t*)m.w + group * (GROUP / 2) * BLOCK + row % BLOCK * 4;
    scale = (const std::uint32_t*)m.scale + group * (GROUP / FEW) * BLOCK + row % BLOCK;
  }
  // Four columns of a group from 4 * quad on in the lower halves of bytes; those FEW further in the upper ones.
  vu at(i64 group, i64 quad) const { return get<vu>(w + (group * QUADS + quad) * BLOCK * 4); }
  static constexpr i64 QUADS = GROUP / 8;
  static constexpr std::uint32_t LOWER = 0x0f0f0f0f;
};

// The columns that are multiplied before their sums go to y: of so many there is room as bytes.
constexpr i64 COLUMNS = 768;
struct Slab {
  Linear m;
  Input in;
  bool add;
  Slab(const Linear& whole, const Input& x, i64 column, bool add) : m(whole), add(add || column) {
    m.in = min_of(COLUMNS, whole.in - column);
    if (column) m.bias = nullptr;
    in = {x.x, x.x16, x.x8 + column, x.scale + column / FEW, x.sum + column / FEW, x.real_sum + column / FEW, x.ld};
  }
};

// T tokens times W rows, of which every byte is read once.
template <int T>
INLINE void int4_block(const Slab& slab, const Nibbles& from, i64 row, i64 first, float* y, i64 ldy) {
  const Input& in = slab.in;
  vf total[T] = {};
  for (i64 g = 0; g < (slab.m.in + GROUP - 1) / GROUP; ++g) {
    vi sum[T][2] = {};
#pragma GCC unroll 8
    for (i64 quad = 0; quad < Nibbles::QUADS; ++quad) {
      const vu both = from.at(g, quad);
      __builtin_prefetch(from.w + (g * Nibbles::QUADS + quad) * BLOCK * 4 + 4096);
#pragma GCC unroll 8
      for (int t = 0; t < T; ++t) {
        const std::int8_t* x = in.x8 + (first + t) * in.ld + g * GROUP + 4 * quad;
        sum[t][0] = dot4(sum[t][0], both & Nibbles::LOWER, x);
        sum[t][1] = dot4(sum[t][1], both >> 4 & Nibbles::LOWER, x + FEW);
      }
    }
#pragma GCC unroll 2
    for (int half = 0; half < 2; ++half) {
      const vu both = get<vu>(from.scale + (2 * g + half) * BLOCK);
      const vf scale = from_half(both), least = from_half(both >> 16);
#pragma GCC unroll 8
      for (int t = 0; t < T; ++t) {
        const i64 at = (first + t) * in.ld / FEW + 2 * g + half;
        add_group(total[t], sum[t][half], scale, least, in.scale[at], in.real_sum[at]);
      }
    }
  }
  for (int t = 0; t < T; ++t) put_sums(slab.m, row, total[t], y + (first + t) * ldy, slab.add);
}

// Blocks of rows as bytes: what many tokens multiply.
struct Unpacked {
  alignas(64) std::uint8_t w[ROWS_OF_MANY * COLUMNS];
  alignas(64) float scale[ROWS_OF_MANY * COLUMNS / FEW], least[ROWS_OF_MANY * COLUMNS / FEW];

  // `columns` of a matrix from `column` on, of the rows from `row` on, become `block` of those here. TILED, every FEW of
  // them take the room of GROUP.
  template <bool TILED>
  Bytes fill(const Linear& m, i64 row, i64 column, i64 columns, i64 block) {
    std::uint8_t* bytes = w + block * BLOCK * COLUMNS;
    float *scales = scale + block * BLOCK * COLUMNS / FEW, *leasts = least + block * BLOCK * COLUMNS / FEW;
    for (i64 part = 0; part < BLOCK; part += W) {
      const Nibbles from(m, row + part, column);
      for (i64 g = 0; g < (columns + GROUP - 1) / GROUP; ++g) {
        std::uint8_t* to = bytes + g * (TILED ? 2 : 1) * GROUP * BLOCK + part * 4;
        for (i64 quad = 0; quad < Nibbles::QUADS; ++quad) {
          const vu both = from.at(g, quad);
          const auto put_quad = [&](i64 quads, vu x) { put(to + (quads * Nibbles::QUADS + quad) * BLOCK * 4, x); };
          put_quad(0, both & Nibbles::LOWER);
          put_quad(TILED ? 3 : 1, both >> 4 & Nibbles::LOWER);
          if constexpr (TILED) put_quad(1, vu{}), put_quad(2, vu{});
        }
        for (int half = 0; half < 2; ++half) {
          const vu both = get<vu>(from.scale + (2 * g + half) * BLOCK);
          put(scales + (2 * g + half) * BLOCK + part, from_half(both));
          put(leasts + (2 * g + half) * BLOCK + part, from_half(both >> 16));
        }
      }
    }
    return {bytes, scales, leasts};
  }
};

void int4_rows(const Linear& m, i64 lo, i64 hi, const Input& in, i64 tokens, float* y, i64 ldy, bool add) {
#if defined(TILES)
  const i64 tiled = tokens / SIDE * SIDE;
#else
  constexpr i64 tiled = 0;
#endif
  const i64 end = round_up(hi, BLOCK);
  const i64 stop = tokens - tiled >= MANY ? lo + (end - lo) / ROWS_OF_MANY * ROWS_OF_MANY : lo;
  for (i64 column = 0; column < m.in && (tiled || stop > lo); column += COLUMNS) {
    Unpacked unpacked;
    const Slab slab(m, in, column, add);
#if defined(TILES)
    if (tiled) {
      const Tiles tiles;
      for (i64 row = lo; row < end; row += BLOCK) {
        const Bytes from = unpacked.fill<true>(m, row, column, slab.m.in, 0);
        for (i64 t = 0; t < tiled; t += SIDE) tile_block<FEW>(slab.m, from, row, slab.in, t, y, ldy, slab.add);
      }
    }
#endif
    for (i64 row = lo; row < stop; row += ROWS_OF_MANY) {
      Bytes from[ROWS_OF_MANY / BLOCK];
      for (i64 block = 0; block < ROWS_OF_MANY / BLOCK; ++block)
        from[block] = unpacked.fill<false>(m, row + block * BLOCK, column, slab.m.in, block);
      byte_many<FEW>(slab.m, from, row, slab.in, tiled, tokens, y, ldy, slab.add);
    }
  }
  for (i64 row = stop; row < end; row += W)
    for (i64 column = 0; column < m.in; column += COLUMNS) {
      const Slab slab(m, in, column, add);
      const Nibbles from(m, row, column);
      i64 t = tiled;
      for (; t + 4 <= tokens; t += 4) int4_block<4>(slab, from, row, t, y, ldy);
      for (; t < tokens; ++t) int4_block<1>(slab, from, row, t, y, ldy);
    }
}

void linear(const Linear& m, i64 lo, i64 hi, const Input& in, i64 tokens, float* y, i64 ldy, bool add) {
  switch (m.kind()) {
    case Type::f32: return plain_rows<float>(m, lo, hi, in, tokens, y, ldy, add);
    case Type::bf16: return plain_rows<bf16>(m, lo, hi, in, tokens, y, ldy, add);
    case Type::i8: return int8_rows(m, lo, hi, in, tokens, y, ldy, add);
    case Type::i4: return int4_rows(m, lo, hi, in, tokens, y, ldy, add);
  }
}

}  // namespace
}  // namespace longspan::LEVEL
