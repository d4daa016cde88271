// Which of the compiled levels this processor can run. Nothing here, or called before this, uses more than the base
// instructions of the architecture.
#if defined(__x86_64__) && defined(__linux__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

#include "attention.h"

namespace longspan {
namespace portable { extern const Level level; }
namespace avx2 { extern const Level level; }
namespace avx512 { extern const Level level; }
namespace avx512_bf16 { extern const Level level; }
namespace amx { extern const Level level; }
namespace emulated_amx { extern const Level level; }

namespace {

#ifdef HAVE_amx
// Whether the processor multiplies tiles of bf16 and int8. Linux lets a process use them that has asked for it.
bool amx_here() {
  constexpr unsigned BF16 = 1u << 22, TILE = 1u << 24, INT8 = 1u << 25;
  constexpr long REQUEST_PERMISSION = 0x1023, TILE_DATA = 18;
  unsigned a, b, c, d;
  return __get_cpuid_count(7, 0, &a, &b, &c, &d) && (~d & (BF16 | TILE | INT8)) == 0 &&
         syscall(SYS_arch_prctl, REQUEST_PERMISSION, TILE_DATA) == 0;
}
#endif

struct Levels {
  const Level* found[8];
  int count = 0;
  Levels() {
    found[count++] = &portable::level;
#if defined(__x86_64__)
    __builtin_cpu_init();
#ifdef HAVE_avx2
    if (!(__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))) return;
    found[count++] = &avx2::level;
#endif
#ifdef HAVE_avx512
    if (!(__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
          __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq")))
      return;
    found[count++] = &avx512::level;
#endif
#ifdef HAVE_avx512_bf16
    if (!(__builtin_cpu_supports("avx512bf16") && __builtin_cpu_supports("avx512vnni"))) return;  // none has one alone
#ifdef HAVE_emulated_amx
    found[count++] = &emulated_amx::level;
#endif
    found[count++] = &avx512_bf16::level;
#endif
#ifdef HAVE_amx
    if (amx_here()) found[count++] = &amx::level;
#endif
#endif
  }
};

const Levels& levels() {
  static const Levels all;
  return all;
}

}  // namespace

int level_count() { return levels().count; }
const Level* level_at(int i) { return levels().found[i]; }

// Intel's cores start a bf16 dot product every other cycle, half the rate of two fused multiply-adds in fp32 (Emerald
// Rapids: 88 against 173 GFLOP/s a core). AMD's documents say every cycle, twice their rate of fp32. AMX has eight times
// that of fp32 by its documents.
bool bf16_products_pay([[maybe_unused]] const Level& level) {
#if defined(__x86_64__)
  return level.tiles || !__builtin_cpu_is("intel");
#else
  return true;
#endif
}

}  // namespace longspan
