// The kernels without Python, against attention in double precision, over every level that this processor runs. Built
// under the sanitizers by native/sanitize.sh: each tensor has exactly its size, so that one element too far is seen.
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <vector>

#include "attention.h"

using namespace longspan;

namespace {

std::mt19937 engine(1);
i64 between(i64 lo, i64 hi) { return std::uniform_int_distribution<i64>(lo, hi)(engine); }
bool flip() { return between(0, 1); }
float normal(float deviation) { return std::normal_distribution<float>(0, deviation)(engine); }

bf16 round_bf16(float x) {
  std::uint32_t bits;
  std::memcpy(&bits, &x, 4);
  return static_cast<bf16>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}
float widen(bf16 x) {
  const std::uint32_t bits = static_cast<std::uint32_t>(x) << 16;
  float f;
  std::memcpy(&f, &bits, 4);
  return f;
}

struct Tensor {
  std::vector<float> f;
  std::vector<bf16> h;
  Tensor(i64 n, float deviation) : f(n), h(n) {
    for (i64 i = 0; i < n; ++i) f[i] = widen(h[i] = round_bf16(normal(deviation)));
  }
  const void* data(Type type) const { return type == Type::f32 ? static_cast<const void*>(f.data()) : h.data(); }
};

double score(const Attention& p, const Tensor& q, const Tensor& k, i64 qat, i64 kat) {
  double s = 0;
  for (i64 d = 0; d < p.dim; ++d) s += static_cast<double>(q.f[qat + d]) * k.f[kat + d];
  s *= p.scale;
  return p.softcap > 0 ? p.softcap * std::tanh(s / p.softcap) : s;
}

bool trial(const Level& level, bool decoding) {
  Attention p;
  p.type = p.kv_type = flip() ? Type::f32 : Type::bf16;
  p.batch = between(1, 3);
  p.kv_heads = between(1, 2);
  p.heads = p.kv_heads * between(1, 5);
  p.queries = decoding ? between(1, 3) : between(1, 150);
  p.keys = between(1, decoding ? 700 : 300);
  p.dim = between(1, 80);
  p.vdim = between(1, 80);
  p.causal = flip();
  p.window = flip() ? 0 : between(1, 100);
  p.scale = 0.3f;
  p.softcap = flip() ? 0 : 5;
  p.degree = 6;
  p.halves = flip();
  p.workers = static_cast<int>(between(1, 3));
  const float spread = flip() ? 1 : 30;
  const Tensor q(p.batch * p.heads * p.queries * p.dim, spread), k(p.batch * p.kv_heads * p.keys * p.dim, 1),
      v(p.batch * p.kv_heads * p.keys * p.vdim, 1);
  p.q = {q.data(p.type), p.heads * p.queries * p.dim, p.queries * p.dim, p.dim};
  p.k = {k.data(p.type), p.kv_heads * p.keys * p.dim, p.keys * p.dim, p.dim};
  p.v = {v.data(p.type), p.kv_heads * p.keys * p.vdim, p.keys * p.vdim, p.vdim};
  p.outs = {nullptr, p.heads * p.queries * p.vdim, p.queries * p.vdim, p.vdim};
  std::vector<i64> starts(p.batch), lengths(p.batch);
  for (i64 b = 0; b < p.batch; ++b) {
    lengths[b] = between(0, p.keys);
    starts[b] = between(0, lengths[b]);
  }
  if (flip()) p.starts = starts.data(), p.lengths = lengths.data();
  std::vector<float> sinks(p.heads);
  for (float& s : sinks) s = normal(2);
  if (flip()) p.sinks = sinks.data();
  std::vector<std::uint8_t> layout;
  if (!decoding && flip()) {
    p.block = 64;
    p.layout_row = (p.keys + 63) / 64;
    p.layout_head = p.layout_row * ((p.queries + 63) / 64);
    layout.resize(p.layout_head * p.heads);
    for (auto& x : layout) x = flip();
    p.layout = layout.data();
  }
  const i64 n = p.batch * p.heads * p.queries;
  std::vector<float> out(n * p.vdim), lse(n);
  std::vector<bf16> out16(n * p.vdim);
  p.out = p.type == Type::f32 ? static_cast<void*>(out.data()) : out16.data();
  p.lse = lse.data();
  if (decoding) decode(level, p);
  else forward(level, p);

  const double allowed = p.type == Type::f32 ? 1e-4 : 0.02;
  for (i64 b = 0; b < p.batch; ++b)
    for (i64 h = 0; h < p.heads; ++h)
      for (i64 i = 0; i < p.queries; ++i) {
        const i64 row = (b * p.heads + h) * p.queries + i;
        const i64 kv = (b * p.kv_heads + h / (p.heads / p.kv_heads)) * p.keys;
        const Range r = visible(p, b, i);
        double m = p.sinks ? sinks[h] : -INFINITY;
        std::vector<double> s(p.keys, -INFINITY);
        for (i64 j = r.lo; j < r.hi; ++j)
          if (in_layout(p, b, h, i, j / TILE)) {
            s[j] = score(p, q, k, row * p.dim, (kv + j) * p.dim);
            m = std::max(m, s[j]);
          }
        double sum = p.sinks ? std::exp(sinks[h] - m) : 0;
        std::vector<double> o(p.vdim);
        for (i64 j = 0; j < p.keys && m != -INFINITY; ++j) {
          const double w = std::exp(s[j] - m);
          sum += w;
          for (i64 d = 0; d < p.vdim; ++d) o[d] += w * v.f[(kv + j) * p.vdim + d];
        }
        for (i64 d = 0; d < p.vdim; ++d) {
          const double want = sum == 0 ? 0 : o[d] / sum;
          const double got = p.type == Type::f32 ? out[row * p.vdim + d] : widen(out16[row * p.vdim + d]);
          if (!(std::abs(want - got) < allowed)) {
            std::printf("%s %s: row %ld of sequence %ld, head %ld: %g, expected %g\n", level.name, decoding ? "decode" : "forward", (long)i, (long)b, (long)h,
                        got, want);
            return false;
          }
        }
        const double want = sum == 0 ? -INFINITY : m + std::log(sum);
        if (!(want == lse[row] || std::abs(want - lse[row]) < 1e-4 * (1 + std::abs(want)))) {
          std::printf("%s: lse %g, expected %g\n", level.name, lse[row], want);
          return false;
        }
      }
  return true;
}

}  // namespace

int main(int argc, char** argv) {
  const int trials = argc > 1 ? std::atoi(argv[1]) : 100;
  int passed = 0, failed = 0;
  for (int l = 0; l < level_count(); ++l)
    for (int t = 0; t < trials; ++t) ++(trial(*level_at(l), t % 2) ? passed : failed);
  std::printf("%d passed, %d failed\n", passed, failed);
  return failed != 0;
}
