// What the kernels compute, as plain data: Python fills it, attention.cpp plans it, each level carries it out.
#pragma once
#include <atomic>
#include <cstddef>
#include <cstdint>

namespace longspan {

using i64 = std::int64_t;
using bf16 = std::uint16_t;  // the upper half of a float

constexpr i64 TILE = 64;          // keys in a packed tile, queries in a work item
constexpr i64 STEP = 4;           // key tiles between two updates of the online softmax
constexpr i64 DECODE_TILE = 256;  // keys in a tile of decoding (LeanAttention's LeanTile)
constexpr i64 MAX_DIM = 256;

enum class Type : int { f32 = 0, bf16 = 1, i8 = 2, i4 = 3 };

// A tensor [batch, head, token, dim] with the elements of dim next to each other; strides count elements.
struct View {
  const void* data = nullptr;
  i64 batch = 0, head = 0, token = 0;
};

// Of int8 keys or values: one for each token [batch, head, token], tokens next to each other.
struct Scales {
  const float* data = nullptr;
  i64 batch = 0, head = 0;
  const float* at(i64 b, i64 h) const { return data + b * batch + h * head; }
};

struct Attention {
  View q, k, v;          // queries [B, H, Nq, D], keys [B, Hkv, Nk, D], values [B, Hkv, Nk, Dv]
  void* out = nullptr;   // [B, H, Nq, Dv] by `outs`, of the queries' type
  View outs;             // strides only
  float* lse = nullptr;  // [B, H, Nq], contiguous, natural logarithm
  Type type = Type::f32, kv_type = Type::f32;
  Scales k_scale, v_scale;  // int8 only; queries are then rounded to int8, too, with a scale for each
  i64 batch = 0, heads = 0, kv_heads = 0, queries = 0, keys = 0, dim = 0, vdim = 0;
  bool causal = false;
  i64 window = 0;  // 0: no window
  float scale = 1, softcap = 0;
  const float* sinks = nullptr;                       // [H]
  const i64 *starts = nullptr, *lengths = nullptr;    // [B]: sequence b has keys starts[b] .. lengths[b]
  const std::uint8_t* layout = nullptr;               // [B or 1, H or 1, query blocks, key blocks]
  i64 layout_batch = 0, layout_head = 0, layout_row = 0, block = 0;
  int degree = 3;        // of the polynomial for 2^x; 0 uses the C library's exp2f
  float threshold = 8;   // a row is rescaled when its maximum grew by more than this, in powers of two
  bool longest_first = true;
  bool halves = false;  // multiply bf16 as they are, where the level can
  int workers = 1;
};

struct Counters {
  i64 grown = 0;    // how often the maximum of a row grew after its first step
  i64 skipped = 0;  // in how many of these the row was not rescaled
  i64 tiles = 0;    // key tiles computed (for decoding: by the busiest worker)
  i64 all_tiles = 0;
};

struct Range {
  i64 lo, hi;
};

static inline i64 min_of(i64 a, i64 b) { return a < b ? a : b; }
static inline i64 max_of(i64 a, i64 b) { return a > b ? a : b; }
static inline i64 round_up(i64 a, i64 b) { return (a + b - 1) / b * b; }

static inline Range keys_of(const Attention& p, i64 b) {
  const i64 hi = p.lengths ? p.lengths[b] : p.keys;
  return {p.starts ? min_of(p.starts[b], hi) : 0, hi};
}

// The keys that query i of sequence b sees; queries end where their sequence ends.
static inline Range visible(const Attention& p, i64 b, i64 i) {
  Range r = keys_of(p, b);
  const i64 at = r.hi - p.queries + i;
  if (p.window) {
    r.lo = max_of(r.lo, at - p.window + 1);
    if (!p.causal) r.hi = min_of(r.hi, at + p.window);
  }
  if (p.causal) r.hi = min_of(r.hi, at + 1);
  return r.hi > r.lo ? r : Range{0, 0};
}

// The work of one query tile: rows first .. first + rows of one head, against the key tiles of `range`.
struct Item {
  i64 b, h, first, rows;
  Range tiles;
  i64 work;  // key tiles that the layout leaves
};

static inline bool in_layout(const Attention& p, i64 b, i64 h, i64 query, i64 tile) {
  if (!p.layout) return true;
  return p.layout[b * p.layout_batch + h * p.layout_head + query / p.block * p.layout_row + tile * TILE / p.block];
}

// Where packed keys and values lie: both as float, both as bf16, or keys as int8 and values as int8 or bf16. The scales
// of int8 ones lie behind them.
struct Packed {
  bool halves = false, bytes = false;
  const float* v_most = nullptr;  // the largest scale of a head's int8 values [batch, kv heads]
  char *k = nullptr, *v = nullptr;
  i64 tiles = 0;            // per sequence and head
  i64 dim = 0, vdim = 0;    // padded
  i64 k_bytes = 0, v_bytes = 0;  // of one tile
};

// One of the tensors that the backward multiplies, as fp32 in tiles of TILE tokens: [batch][head][tile][TILE][dim], and
// transposed, [dim][TILE]; dim is the width of a vector, padded with zeros.
struct Side {
  View view;
  Type type = Type::f32;
  i64 heads = 0, tiles = 0, width = 0, dim = 0;
  float *rows = nullptr, *columns = nullptr;
  i64 floats(i64 batch) const { return batch * heads * tiles * TILE * dim; }
  float* row(i64 b, i64 head, i64 tile) const { return rows + ((b * heads + head) * tiles + tile) * TILE * dim; }
  float* column(i64 b, i64 head, i64 tile) const { return columns + ((b * heads + head) * tiles + tile) * TILE * dim; }
};

// The gradients of `attention` by queries, keys and values, fp32 and contiguous, from that by its output.
struct Backward {
  Attention attention;    // with lse, as the forward pass left it
  Side q, k, v, grad;     // grad: by the output
  const float* inner = nullptr;  // [B, H, Nq]: grad . out
  float *dq = nullptr, *dk = nullptr, *dv = nullptr;
};

// A partial result of decoding: one tile of keys for all rows (heads of a group × queries) of a KV head.
struct Partial {
  float *m, *l, *o;  // [rows], [rows], [rows, vdim]
};

// A matrix [out, in] of a model: fp32 or bf16 row by row, or int8 or int4 as step.h says, with `scale` a row and group.
struct Linear {
  const void *w, *scale;
  const float* bias;
  i64 out, in, type;
  [[gnu::always_inline]] Type kind() const { return static_cast<Type>(type); }
};

// Columns of a matrix that share a scale; the vectors that meet it are rounded to int8 in groups of as many.
[[gnu::always_inline]] constexpr i64 group_of(Type type) { return type == Type::i4 ? 32 : 64; }

// One layer; Python writes these structures as rows of 64-bit numbers.
struct Block {
  Linear q, k, v, o, gate, up, down;
  const float *attention_norm, *mlp_norm;
  const float *after_attention, *after_mlp, *q_norm, *k_norm;  // norms that may be missing, as may
  const float *cos, *sin;                                      // [positions, rotary]
  i64 window;                                                  // 0: none
};

// One layer's cache [batch, kv heads, tokens, dim], and the scales [batch, kv heads, tokens] where it is int8.
struct Cached {
  void *k, *v;
  i64 batch, head, token;
  float *k_scale, *v_scale;
  i64 scale_batch, scale_head;
};

// Vectors [tokens, ld] in every form that products read.
struct Input {
  float* x;
  bf16* x16;
  std::int8_t* x8;
  float* scale;       // of a group in x8
  std::int32_t* sum;  // for int8 matrices: -128 times that of a group in x8
  float* real_sum;    // for int4 ones: that of a group in x8, times its scale
  i64 ld;
};

// The next `tokens` tokens of every sequence of a batch through a Llama-like model.
struct Step {
  const Block* blocks = nullptr;
  const Cached* cache = nullptr;
  i64 layers = 0;
  Linear head{};
  const float* norm = nullptr;
  const void* embedding = nullptr;                 // [vocabulary, hidden] of `type`
  const i64 *ids = nullptr, *starts = nullptr;     // [batch, tokens]; [batch], may be missing
  i64 batch = 0, tokens = 0, past = 0, keep = 0;   // columns in the cache before; last positions to score
  i64 hidden = 0, heads = 0, kv_heads = 0, dim = 0, inner = 0, rotary = 0;
  float eps = 0, scale = 1, softcap = 0;           // the last two of attention; 0: no cap
  float embedding_scale = 1;
  bool gelu = false;                               // by tanh; else SiLU
  Type type = Type::f32, cached = Type::f32;       // of the embedding; of keys and values
  float* logits = nullptr;                         // [batch, keep, vocabulary]
  int workers = 1;
};

struct Level {
  const char* name;
  bool bf16_products, int8_products;  // can multiply these as they are; otherwise they become fp32
  bool tiles;                         // by AMX
  // forward
  void (*pack)(const Attention&, const Packed&, i64 b, i64 kv_head, i64 tile);
  std::size_t (*attend_scratch)(const Attention&, const Packed&);
  void (*attend)(const Attention&, const Packed&, const Item&, char* scratch, Counters&);
  // decoding
  std::size_t (*decode_scratch)(const Attention&);
  void (*decode_tile)(const Attention&, i64 b, i64 kv_head, i64 begin, i64 end, const Partial&, char* scratch);
  // the gradient; backward_pack: the tokens outside of `real` are zeros
  std::size_t (*backward_scratch)(const Backward&);
  void (*backward_pack)(const Side&, Range real, i64 b, i64 head, i64 tile);
  void (*backward_queries)(const Backward&, const Item&, char* scratch);
  void (*backward_keys)(const Backward&, const Range* tiles, i64 b, i64 kv_head, i64 tile, char* scratch);
  // 2^x of n floats with a polynomial of a degree
  void (*exp2)(const float* x, float* y, i64 n, int degree);
  // a step of a model
  void (*norm)(const float* x, const float* weight, i64 n, float eps, float* y);
  void (*gate)(float* g, const float* u, i64 n, bool gelu);  // g = silu(g) * u, or gelu(g) * u
  float (*round)(const float* x, i64 n, std::int8_t* q);  // to int8: x = q * the result
  void (*prepare)(Type weights, const Input&, i64 tokens, i64 n);
  void (*linear)(const Linear&, i64 lo, i64 hi, const Input&, i64 tokens, float* y, i64 ldy, bool add);
};

// Levels that this build has and this processor runs, slowest first.
int level_count();
const Level* level_at(int i);
bool bf16_products_pay(const Level&);  // whether the forward pass gains from multiplying bf16 as they are

Counters forward(const Level&, const Attention&);
Counters decode(const Level&, const Attention&);
void backward(const Level&, Backward);
void step(const Level&, const Step&);

// Several matrices of one type over the same vectors x [tokens, in]: y[i] [tokens, out of i].
void products(const Level&, const Linear* matrices, float* const* y, i64 count, const float* x, i64 tokens, int workers);

// Calls task(0) .. task(workers - 1), each on a thread of its own.
void parallel(int workers, void (*task)(void* context, int worker), void* context);

}  // namespace longspan
