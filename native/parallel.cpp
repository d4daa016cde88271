// Threads. With OpenMP these are torch's own: its runtime is already loaded and takes both our regions and torch's, so
// that no second pool competes for the cores. A forked child must not touch a pool whose threads stayed in the parent:
// there, threads are made for each call.
#include <thread>
#include <vector>

#include "attention.h"

#ifndef _WIN32
#include <pthread.h>
#endif

namespace longspan {
namespace {

std::atomic<bool> forked{false};

#ifndef _WIN32
const int watching = pthread_atfork(nullptr, nullptr, [] { forked = true; });
#endif

void plain_threads(int workers, void (*task)(void*, int), void* context) {
  std::vector<std::thread> threads;
  threads.reserve(workers);
  int started = 1;
  try {
    for (; started < workers; ++started) threads.emplace_back(task, context, started);
  } catch (...) {  // no more threads to be had: this one does their work
  }
  task(context, 0);
  for (int i = started; i < workers; ++i) task(context, i);
  for (auto& thread : threads) thread.join();
}

}  // namespace

void parallel(int workers, void (*task)(void*, int), void* context) {
  if (workers <= 1) return task(context, 0);
#ifdef _OPENMP
  if (!forked) {
// Not one iteration a thread: a runtime may give fewer threads than asked for, and all tasks must run.
#pragma omp parallel for num_threads(workers) schedule(static, 1)
    for (int i = 0; i < workers; ++i) task(context, i);
    return;
  }
#endif
  plain_threads(workers, task, context);
}

}  // namespace longspan
