// Plans: which tiles there are, in which order and on which worker they run. The arithmetic is in level.cpp.
#include "attention.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <memory>
#include <mutex>
#include <new>
#include <tuple>
#include <utility>
#include <vector>

namespace longspan {
namespace {

// Memory that outlives a call, so that a step of decoding allocates nothing. Big buffers are given back at once.
class Buffer {
 public:
  explicit Buffer(std::size_t bytes) : bytes_(bytes) {
    if (bytes <= KEPT && !held_by_this_thread) {
      Kept& kept = kept_();
      if (kept.bytes < bytes) {
        std::free(kept.data);
        kept.data = allocate(kept.bytes = std::max<std::size_t>(bytes, 1 << 20));
      }
      data_ = kept.data;
      kept_here_ = held_by_this_thread = true;
    } else {
      data_ = allocate(bytes);
    }
  }
  ~Buffer() {
    if (kept_here_) held_by_this_thread = false;
    else std::free(data_);
  }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  char* data() const { return static_cast<char*>(data_); }

 private:
  static constexpr std::size_t KEPT = 64 << 20;
  struct Kept {
    void* data = nullptr;
    std::size_t bytes = 0;
    ~Kept() { std::free(data); }
  };
  static Kept& kept_() {
    thread_local Kept kept;
    return kept;
  }
  static inline thread_local bool held_by_this_thread = false;
  static void* allocate(std::size_t bytes) {
    void* data = std::aligned_alloc(64, (bytes + 63) / 64 * 64);
    if (!data) throw std::bad_alloc();
    return data;
  }
  std::size_t bytes_;
  void* data_ = nullptr;
  bool kept_here_ = false;
};

template <class F>
void on_workers(int workers, F& task) {
  parallel(workers, [](void* context, int worker) { (*static_cast<F*>(context))(worker); }, &task);
}

std::size_t align(std::size_t bytes) { return (bytes + 127) / 128 * 128; }

// The key tiles that queries first .. first + rows see.
Range tiles_of(const Attention& p, i64 b, i64 first, i64 rows) {
  i64 lo = p.keys, hi = 0;
  for (i64 i = first; i < first + rows; ++i) {
    const Range r = visible(p, b, i);
    if (r.lo < r.hi) lo = std::min(lo, r.lo), hi = std::max(hi, r.hi);
  }
  return lo < hi ? Range{lo / TILE, (hi + TILE - 1) / TILE} : Range{0, 0};
}

std::vector<Item> plan(const Attention& p) {
  std::vector<Item> items;
  for (i64 b = 0; b < p.batch; ++b)
    for (i64 h = 0; h < p.heads; ++h)
      for (i64 first = 0; first < p.queries; first += TILE) {
        Item item{b, h, first, std::min(TILE, p.queries - first), {}, 0};
        item.tiles = tiles_of(p, b, first, item.rows);
        for (i64 t = item.tiles.lo; t < item.tiles.hi; ++t) item.work += in_layout(p, b, h, first, t);
        items.push_back(item);
      }
  if (p.longest_first)  // stable: heads that share keys stay together among items of the same size
    std::stable_sort(items.begin(), items.end(), [](const Item& a, const Item& b) { return a.work > b.work; });
  return items;
}

}  // namespace

Counters forward(const Level& level, const Attention& p) {
  const std::vector<Item> items = plan(p);
  Packed packed;
  packed.halves = p.halves && level.bf16_products && p.kv_type != Type::f32;
  packed.bytes = level.int8_products && p.kv_type == Type::i8;
  const std::size_t size = packed.halves ? 2 : 4;
  packed.tiles = (p.keys + TILE - 1) / TILE;
  packed.dim = round_up(p.dim, packed.bytes && level.tiles ? 64 : 32);
  packed.vdim = round_up(p.vdim, 16);
  packed.k_bytes = packed.bytes ? TILE * (packed.dim + sizeof(float)) : TILE * packed.dim * size;
  const bool bytes = packed.bytes && !packed.halves;
  packed.v_bytes = bytes ? TILE * (packed.vdim + sizeof(float)) : TILE * packed.vdim * size;
  std::vector<float> v_most;
  for (i64 i = 0; bytes && i < p.batch * p.kv_heads; ++i) {
    const Range keys = keys_of(p, i / p.kv_heads);
    const float* scale = p.v_scale.at(i / p.kv_heads, i % p.kv_heads);
    float most = 0;
    for (i64 key = keys.lo; key < keys.hi; ++key)
      if (std::isfinite(scale[key])) most = std::max(most, std::abs(scale[key]));
    v_most.push_back(most);
  }
  packed.v_most = v_most.data();
  const i64 all = p.batch * p.kv_heads * packed.tiles;
  const std::size_t k_bytes = align(all * packed.k_bytes), v_bytes = align(all * packed.v_bytes);
  const std::size_t scratch = align(level.attend_scratch(p, packed));
  const Buffer buffer(k_bytes + v_bytes + scratch * p.workers);
  packed.k = buffer.data();
  packed.v = packed.k + k_bytes;

  // Which tiles anything reads: a window near the end of a long cache leaves most of it alone.
  std::vector<Range> read(p.batch, Range{packed.tiles, 0});
  for (const Item& item : items)
    if (item.work) read[item.b] = {std::min(read[item.b].lo, item.tiles.lo), std::max(read[item.b].hi, item.tiles.hi)};

  std::vector<Counters> counters(p.workers);
  std::atomic<i64> next_tile{0}, next_item{0};
  auto pack = [&](int) {
    for (i64 i; (i = next_tile++) < all;) {
      const i64 tile = i % packed.tiles, head = i / packed.tiles % p.kv_heads, b = i / packed.tiles / p.kv_heads;
      if (tile >= read[b].lo && tile < read[b].hi) level.pack(p, packed, b, head, tile);
    }
  };
  auto attend = [&](int worker) {
    char* mine = packed.v + v_bytes + scratch * worker;
    for (i64 i; (i = next_item++) < static_cast<i64>(items.size());) {
      level.attend(p, packed, items[i], mine, counters[worker]);
      counters[worker].tiles += items[i].work;
    }
  };
  on_workers(p.workers, pack);
  on_workers(p.workers, attend);

  Counters sum;
  for (const Counters& c : counters) {
    sum.grown += c.grown, sum.skipped += c.skipped, sum.all_tiles += c.tiles;
    sum.tiles = std::max(sum.tiles, c.tiles);
  }
  return sum;
}

void backward(const Level& level, Backward p) {
  const Attention& a = p.attention;
  const std::vector<Item> items = plan(a);
  std::size_t floats = 0;
  for (auto [side, heads, tokens, width] : {std::tuple{&p.q, a.heads, a.queries, a.dim}, {&p.k, a.kv_heads, a.keys, a.dim},
                                            {&p.v, a.kv_heads, a.keys, a.vdim}, {&p.grad, a.heads, a.queries, a.vdim}}) {
    side->heads = heads, side->tiles = (tokens + TILE - 1) / TILE, side->width = width, side->dim = round_up(width, 16);
    floats += 2 * side->floats(a.batch);
  }
  const std::size_t scratch = align(level.backward_scratch(p));
  const Buffer buffer(align(sizeof(float) * floats) + scratch * a.workers);
  float* at = reinterpret_cast<float*>(buffer.data());
  char* const room = buffer.data() + align(sizeof(float) * floats);
  std::vector<std::pair<const Side*, i64>> pack;  // what there is to pack: a side, and a number of head and tile
  for (Side* side : {&p.q, &p.k, &p.v, &p.grad}) {
    side->rows = at, side->columns = at += side->floats(a.batch);
    at += side->floats(a.batch);
    for (i64 i = 0; i < a.batch * side->heads * side->tiles; ++i) pack.emplace_back(side, i);
  }
  std::vector<Range> tiles(a.batch * p.q.tiles);
  for (const Item& item : items)
    if (!item.h) tiles[item.b * p.q.tiles + item.first / TILE] = item.tiles;

  std::atomic<i64> next_pack{0}, next_item{0}, next_keys{0};
  auto pack_sides = [&](int) {
    for (i64 n; (n = next_pack++) < static_cast<i64>(pack.size());) {
      const auto [side, i] = pack[n];
      const i64 b = i / side->tiles / side->heads;
      const bool keys = side == &p.k || side == &p.v;
      level.backward_pack(*side, keys ? keys_of(a, b) : Range{0, a.queries}, b, i / side->tiles % side->heads, i % side->tiles);
    }
  };
  auto queries = [&](int worker) {
    for (i64 i; (i = next_item++) < static_cast<i64>(items.size());)
      level.backward_queries(p, items[i], room + scratch * worker);
  };
  const i64 all = a.batch * a.kv_heads * p.k.tiles, heads = a.batch * a.kv_heads;
  auto keys = [&](int worker) {  // the first tiles first: causality lets most queries see them
    for (i64 i; (i = next_keys++) < all;)
      level.backward_keys(p, tiles.data(), i % heads / a.kv_heads, i % a.kv_heads, i / heads, room + scratch * worker);
  };
  on_workers(a.workers, pack_sides);
  on_workers(a.workers, queries);
  on_workers(a.workers, keys);
}

// LeanAttention (2405.10480): all tiles of all heads and sequences form one line, cut into equal stretches, one a
// worker. Each tile leaves its (maximum, sum, output); whoever finishes the last tile of a head merges them. Tiles are
// merged in their order, never per stretch, so that the result does not depend on the number of workers.
Counters decode(const Level& level, const Attention& p) {
  struct Head {
    i64 first_tile;  // on the line
    Range keys;
  };
  const i64 rows = p.heads / p.kv_heads * p.queries, heads = p.batch * p.kv_heads;
  std::vector<Head> line(heads + 1);
  i64 tiles = 0;
  for (i64 b = 0; b < p.batch; ++b) {
    Range keys{p.keys, 0};
    for (i64 i = 0; i < p.queries; ++i) {
      const Range r = visible(p, b, i);
      if (r.lo < r.hi) keys = {std::min(keys.lo, r.lo), std::max(keys.hi, r.hi)};
    }
    if (keys.lo >= keys.hi) keys = {0, 0};
    for (i64 h = 0; h < p.kv_heads; ++h) {
      line[b * p.kv_heads + h] = {tiles, keys};
      tiles += (keys.hi - keys.lo + DECODE_TILE - 1) / DECODE_TILE;
    }
  }
  line[heads].first_tile = tiles;

  const std::size_t one = align(sizeof(float) * rows * (2 + p.vdim));
  const std::size_t scratch = align(level.decode_scratch(p));
  const Buffer buffer(one * tiles + scratch * p.workers);
  const auto partial = [&](i64 tile) {
    float* m = reinterpret_cast<float*>(buffer.data() + one * tile);
    return Partial{m, m + rows, m + 2 * rows};
  };

  const auto merge = [&](i64 head) {
    const i64 b = head / p.kv_heads, kv_head = head % p.kv_heads, group = p.heads / p.kv_heads;
    const i64 lo = line[head].first_tile, hi = line[head + 1].first_tile;
    float o[MAX_DIM];
    for (i64 r = 0; r < rows; ++r) {
      const i64 h = kv_head * group + r / p.queries, i = r % p.queries;
      const float sink = p.sinks ? p.sinks[h] * 1.44269504f : -INFINITY;
      float m = sink;
      for (i64 t = lo; t < hi; ++t) m = std::max(m, partial(t).m[r]);
      float sum = p.sinks ? std::exp2(sink - m) : 0.f;
      std::fill(o, o + p.vdim, 0.f);
      for (i64 t = lo; t < hi; ++t) {
        const Partial part = partial(t);
        // a tile without a visible key adds nothing, but NaN in it must show
        const float weight = part.m[r] == -INFINITY ? 1.f : std::exp2(part.m[r] - m);
        sum += weight * part.l[r];
        const float* from = part.o + r * p.vdim;
        for (i64 d = 0; d < p.vdim; ++d) o[d] += weight * from[d];
      }
      const float inverse = sum == 0.f ? 0.f : 1.f / sum;
      const i64 at = b * p.outs.batch + h * p.outs.head + i * p.outs.token;
      if (p.type == Type::f32) {
        float* to = static_cast<float*>(p.out) + at;
        for (i64 d = 0; d < p.vdim; ++d) to[d] = o[d] * inverse;
      } else {
        bf16* to = static_cast<bf16*>(p.out) + at;
        for (i64 d = 0; d < p.vdim; ++d) {
          const float x = o[d] * inverse;
          std::uint32_t bits;
          __builtin_memcpy(&bits, &x, 4);
          to[d] = x != x ? 0x7fc0 : static_cast<bf16>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
        }
      }
      if (p.lse) p.lse[(b * p.heads + h) * p.queries + i] = m == -INFINITY && sum == 0.f ? m : m * 0.693147181f + std::log(sum);
    }
  };

  const std::unique_ptr<std::atomic<i64>[]> left(new std::atomic<i64>[heads]);
  for (i64 head = 0; head < heads; ++head) left[head] = line[head + 1].first_tile - line[head].first_tile;
  Counters sum;
  sum.all_tiles = tiles;
  const int workers = static_cast<int>(std::max<i64>(1, std::min<i64>(p.workers, tiles)));
  sum.tiles = (tiles + workers - 1) / workers;
  auto stretch = [&](int worker) {
    const i64 begin = tiles * worker / workers, end = tiles * (worker + 1) / workers;
    i64 head = 0;
    for (i64 t = begin; t < end; ++t) {
      while (line[head + 1].first_tile <= t) ++head;
      const i64 key = line[head].keys.lo + (t - line[head].first_tile) * DECODE_TILE;
      level.decode_tile(p, head / p.kv_heads, head % p.kv_heads, key, std::min(key + DECODE_TILE, line[head].keys.hi),
                        partial(t), buffer.data() + one * tiles + scratch * worker);
      if (--left[head] == 0) merge(head);
    }
  };
  on_workers(workers, stretch);
  for (i64 head = 0; head < heads; ++head)
    if (line[head].first_tile == line[head + 1].first_tile) merge(head);  // nothing to see: zeros
  return sum;
}

}  // namespace longspan
