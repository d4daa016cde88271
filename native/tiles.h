// AMX: eight tiles, each 16 rows of 64 bytes, and one instruction that multiplies two of them onto a third. B as
// products.h packs it is what the instruction reads: a tile's row holds 16 columns of 2 bf16 or 4 bytes each.
//
// EMULATED_TILES computes the same without AMX, for the tests: few machines have it.
#pragma once
#include "products.h"

namespace longspan::LEVEL {
namespace {

constexpr i64 SIDE = 16;   // rows of a tile, and columns of 32 bits
constexpr i64 WIDE = 64;   // bytes of a row

#if defined(EMULATED_TILES)
alignas(64) thread_local char tiles[8][SIDE][WIDE];

struct Tiles {
  Tiles() { __builtin_memset(tiles, 0, sizeof tiles); }
  ~Tiles() { __builtin_memset(tiles, 255, sizeof tiles); }  // whoever reads them now gets NaN
};

template <int T>
INLINE void tile_zero() {
  __builtin_memset(tiles[T], 0, sizeof tiles[T]);
}
template <int T>
INLINE void tile_load(const void* from, i64 stride) {
  for (i64 r = 0; r < SIDE; ++r) __builtin_memcpy(tiles[T][r], (const char*)from + r * stride, WIDE);
}
template <int T>
INLINE void tile_store(void* to, i64 stride) {
  for (i64 r = 0; r < SIDE; ++r) __builtin_memcpy((char*)to + r * stride, tiles[T][r], WIDE);
}
// C, A, B: numbers of tiles. Sum: what C holds; X, Y: what A and B hold.
template <int C, int A, int B, class Sum, class X, class Y>
INLINE void tile_multiply() {
  constexpr i64 many = sizeof(Sum) / sizeof(X);
  Sum c[SIDE][SIDE];
  X a[SIDE][SIDE * many];
  Y b[SIDE][SIDE * many];
  __builtin_memcpy(c, tiles[C], sizeof c);
  __builtin_memcpy(a, tiles[A], sizeof a);
  __builtin_memcpy(b, tiles[B], sizeof b);
  for (i64 m = 0; m < SIDE; ++m)
    for (i64 k = 0; k < SIDE; ++k)
      for (i64 n = 0; n < SIDE; ++n)
        for (i64 i = 0; i < many; ++i) {
          if constexpr (sizeof(X) == 2) c[m][n] += float_of(a[m][k * many + i]) * float_of(b[k][n * many + i]);
          else c[m][n] += a[m][k * many + i] * b[k][n * many + i];
        }
  __builtin_memcpy(tiles[C], c, sizeof c);
}
template <int C, int A, int B>
INLINE void tile_bf16() {
  tile_multiply<C, A, B, float, bf16, bf16>();
}
template <int C, int A, int B>
INLINE void tile_s8u8() {
  tile_multiply<C, A, B, std::int32_t, std::int8_t, std::uint8_t>();
}
template <int C, int A, int B>
INLINE void tile_u8s8() {
  tile_multiply<C, A, B, std::int32_t, std::uint8_t, std::int8_t>();
}
#else
// Whole tiles for as long as this lives. Others (torch) set them to what they need, and a thread without tiles in use
// is cheaper to switch.
struct Tiles {
  Tiles() {
    struct {
      std::uint8_t palette = 1, start_row = 0, reserved[14] = {};
      std::uint16_t bytes[16] = {WIDE, WIDE, WIDE, WIDE, WIDE, WIDE, WIDE, WIDE};
      std::uint8_t rows[16] = {SIDE, SIDE, SIDE, SIDE, SIDE, SIDE, SIDE, SIDE};
    } shape;
    asm volatile("ldtilecfg %0" ::"m"(shape));
  }
  ~Tiles() { asm volatile("tilerelease" ::: "memory"); }
};

// Not the compiler's intrinsics: they take no constants of a template, and GCC 12's say nothing of the memory they read.
template <int T>
INLINE void tile_zero() {
  asm volatile("tilezero %%tmm%c0" ::"i"(T));
}
template <int T>
INLINE void tile_load(const void* from, i64 stride) {
  asm volatile("tileloadd (%0,%1,1), %%tmm%c2" ::"r"(from), "r"(stride), "i"(T) : "memory");
}
template <int T>
INLINE void tile_store(void* to, i64 stride) {
  asm volatile("tilestored %%tmm%c2, (%0,%1,1)" ::"r"(to), "r"(stride), "i"(T) : "memory");
}
template <int C, int A, int B>
INLINE void tile_bf16() {
  asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(C), "i"(A), "i"(B));
}
template <int C, int A, int B>
INLINE void tile_s8u8() {
  asm volatile("tdpbsud %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(C), "i"(A), "i"(B));
}
template <int C, int A, int B>
INLINE void tile_u8s8() {
  asm volatile("tdpbusd %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(C), "i"(A), "i"(B));
}
#endif

// Tiles 0 1 / 2 3 are 32 rows and 32 columns of C, 4 and 5 rows of A, 6 and 7 columns of B; with WIDTH 1 there are 16
// columns. `multiply` stands for an instruction.
#define EACH_TILE(multiply)          \
  multiply<0, 4, 6>();               \
  multiply<2, 5, 6>();               \
  if constexpr (WIDTH == 2) {        \
    multiply<1, 4, 7>();             \
    multiply<3, 5, 7>();             \
  }

template <int WIDTH>
INLINE void load_c(const float* c, i64 ldc) {
  tile_load<0>(c, 4 * ldc), tile_load<2>(c + SIDE * ldc, 4 * ldc);
  if constexpr (WIDTH == 2) tile_load<1>(c + SIDE, 4 * ldc), tile_load<3>(c + SIDE * ldc + SIDE, 4 * ldc);
}
template <int WIDTH>
INLINE void zero_c() {
  tile_zero<0>(), tile_zero<2>();
  if constexpr (WIDTH == 2) tile_zero<1>(), tile_zero<3>();
}
template <int WIDTH>
INLINE void store_c(void* c, i64 ldc) {
  char *top = (char*)c, *bottom = top + SIDE * 4 * ldc;
  tile_store<0>(top, 4 * ldc), tile_store<2>(bottom, 4 * ldc);
  if constexpr (WIDTH == 2) tile_store<1>(top + WIDE, 4 * ldc), tile_store<3>(bottom + WIDE, 4 * ldc);
}
template <int WIDTH>
INLINE void load_ab(const void* a, i64 lda, const void* b, i64 ldb) {  // in bytes
  tile_load<4>(a, lda), tile_load<6>(b, ldb);
  tile_load<5>((const char*)a + SIDE * lda, lda);
  if constexpr (WIDTH == 2) tile_load<7>((const char*)b + WIDE, ldb);
}

template <int WIDTH>
INLINE void block_bf16(const bf16* a, i64 lda, const bf16* const* b, int tiles, i64 ldb, i64 at, int steps, float* c,
                       i64 ldc, bool add) {
  if (add) load_c<WIDTH>(c, ldc);
  else zero_c<WIDTH>();
  for (int t = 0; t < tiles; ++t)
    for (int k = 0; k < steps; k += SIDE, a += 2 * SIDE) {
      load_ab<WIDTH>(a, 2 * lda, b[t] + at + k * ldb, 2 * ldb);
      EACH_TILE(tile_bf16)
    }
  store_c<WIDTH>(c, ldc);
}

// As products.h has it for every type; rows is a multiple of ROWS, steps of SIDE.
template <>
void product<bf16>(i64 rows, i64 n, const bf16* a, i64 lda, const bf16* const* b, int tiles, i64 ldb, int steps,
                   float* c, i64 ldc, bool add) {
  for (i64 col = 0; col < n; col += 2 * SIDE)
    for (i64 r = 0; r < rows; r += ROWS) {
      const bf16* from = a + r * lda;
      float* to = c + r * ldc + col;
      if (col + 2 * SIDE <= n) block_bf16<2>(from, lda, b, tiles, ldb, col * 2, steps, to, ldc, add);
      else block_bf16<1>(from, lda, b, tiles, ldb, col * 2, steps, to, ldc, add);
    }
}

// As products.h has it; lda is a multiple of WIDE.
INLINE void product_i8(i64 rows, const std::int8_t* a, i64 lda, const float* a_scale, const std::int32_t* sum,
                       const std::uint8_t* b, const float* b_scale, float* c, i64 ldc) {
  constexpr int WIDTH = 2;
  alignas(64) std::int32_t total[ROWS][2 * SIDE];
  for (i64 col = 0; col < TILE; col += 2 * SIDE)
    for (i64 r = 0; r < rows; r += ROWS) {
      zero_c<WIDTH>();
      for (i64 k = 0; k < lda; k += WIDE) {
        load_ab<WIDTH>(a + r * lda + k, lda, b + k * TILE + col * 4, TILE * 4);
        EACH_TILE(tile_s8u8)
      }
      store_c<WIDTH>(total, 2 * SIDE);
      const vf scale[2] = {get<vf>(b_scale + col), get<vf>(b_scale + col + W)};
      for (i64 i = 0; i < ROWS; ++i)
#pragma GCC unroll 2
        for (int j = 0; j < 2; ++j)
          put(c + (r + i) * ldc + col + j * W,
              __builtin_convertvector(get<vi>(total[i] + j * W) - 128 * sum[r + i], vf) * (scale[j] * a_scale[r + i]));
    }
}

// Upper bytes of the weights and lower ones, 16 rows of each, take the places of 32 rows.
template <int WIDTH>
INLINE void block_weighted(const std::uint8_t* weights, i64 plane, const std::int8_t* const* v, int tiles, i64 col,
                           i64 n, const float* factor, float* o) {
  alignas(64) std::int32_t total[2 * SIDE][WIDTH * SIDE];
  zero_c<WIDTH>();
  for (int t = 0; t < tiles; ++t) {
    tile_load<4>(weights + t * TILE, 2 * plane), tile_load<5>(weights + plane + t * TILE, 2 * plane);
    tile_load<6>(v[t] + col * 4, 4 * n);
    if constexpr (WIDTH == 2) tile_load<7>(v[t] + (col + SIDE) * 4, 4 * n);
    EACH_TILE(tile_u8s8)
  }
  store_c<WIDTH>(total, WIDTH * SIDE);
  for (i64 i = 0; i < SIDE; ++i)
#pragma GCC unroll 2
    for (int j = 0; j < WIDTH; ++j) {
      float* to = o + i * n + col + j * W;
      const vf high = __builtin_convertvector(get<vi>(total[i] + j * W), vf);
      const vf low = __builtin_convertvector(get<vi>(total[SIDE + i] + j * W), vf);
      put(to, get<vf>(to) + (high * 256.f + low) * factor[i]);
    }
}

void weighted_i8(i64 rows, const std::uint8_t* weights, i64 plane, const std::int8_t* const* v, int tiles, i64 n,
                 const float* factor, float* o) {
  for (i64 r = 0; r < rows; r += SIDE)
    for (i64 col = 0; col < n; col += 2 * SIDE) {
      const std::uint8_t* from = weights + r * 2 * plane;
      if (col + 2 * SIDE <= n) block_weighted<2>(from, plane, v, tiles, col, n, factor + r, o + r * n);
      else block_weighted<1>(from, plane, v, tiles, col, n, factor + r, o + r * n);
    }
}

#undef EACH_TILE

}  // namespace
}  // namespace longspan::LEVEL
