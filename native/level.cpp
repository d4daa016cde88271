// The arithmetic of one level. CMake compiles this file once for each, with LEVEL as the namespace.
#include "simd.h"
#include "products.h"
#include "forward.h"
#include "decode.h"
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

#define TEXT_(x) #x
#define TEXT(x) TEXT_(x)

}  // namespace

extern const Level level;
const Level level = {TEXT(LEVEL), HALVES, pack, attend_scratch, attend, decode_scratch, decode_tile, exp2,
                     norm, gate, prepare, linear};

}  // namespace longspan::LEVEL
