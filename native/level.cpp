// The arithmetic of one level. CMake compiles this file once for each, with LEVEL as the namespace.
#include "simd.h"
#include "products.h"
#include "forward.h"
#include "decode.h"
#include "backward.h"
#include "step.h"

namespace longspan::LEVEL {
namespace {

template <int DEGREE>
void exp2_all(const float* x, float* y, i64 n) {
  for (i64 i = 0; i < n; i += W) {
    float in[W] = {}, out[W];
    const i64 here = min_of(W, n - i);
    for (i64 j = 0; j < here; ++j) in[j] = x[i + j];
    put(out, exp2_of<DEGREE>(get<vf>(in)));
    for (i64 j = 0; j < here; ++j) y[i + j] = out[j];
  }
}

void exp2(const float* x, float* y, i64 n, int degree) {
  switch (degree) {
    case 2: return exp2_all<2>(x, y, n);
    case 3: return exp2_all<3>(x, y, n);
    case 4: return exp2_all<4>(x, y, n);
    case 5: return exp2_all<5>(x, y, n);
    case 6: return exp2_all<6>(x, y, n);
    default: return exp2_all<0>(x, y, n);
  }
}

float round(const float* x, i64 n, std::int8_t* q) {
  alignas(64) float row[MAX_DIM];
  alignas(64) std::int8_t rounded[MAX_DIM];
  const i64 padded = round_up(n, W);
  convert<float>(x, row, n, padded);
  std::int32_t sum;
  const float scale = round_i8(row, padded, rounded, sum);
  for (i64 d = 0; d < n; ++d) q[d] = rounded[d];
  return scale;
}

#if defined(TILES)
constexpr bool BY_TILES = true;
#else
constexpr bool BY_TILES = false;
#endif

#define TEXT_(x) #x
#define TEXT(x) TEXT_(x)

}  // namespace

extern const Level level;
const Level level = {TEXT(LEVEL), HALVES, BYTES, BY_TILES, pack, attend_scratch, attend, decode_scratch, decode_tile,
                     backward_scratch, backward_pack, backward_queries, backward_keys, exp2, norm, gate, round, prepare, linear};

}  // namespace longspan::LEVEL
