// A loop over pieces on several threads.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <system_error>
#include <thread>
#include <vector>

namespace liftplace {

// Calls work(thread, first, last) for pieces of [0, count), which the threads, this one included,
// take as they get to them. Threads of the call's own and not a pool: they cost some 20 us, and a
// pool does not survive a fork, which data loaders rely on.
template <typename Work>
void parallel_for(int64_t count, int64_t piece, int threads, Work work) {
  std::atomic<int64_t> next{0};
  const auto run = [&](int thread) {
    for (int64_t first; (first = next.fetch_add(piece)) < count;)
      work(thread, first, std::min(first + piece, count));
  };
  std::vector<std::thread> others;
  try {
    for (int thread = 1; thread < threads; ++thread) others.emplace_back(run, thread);
  } catch (const std::system_error&) {
    // The system has no thread left: those that started do all the work.
  }
  run(0);
  for (std::thread& other : others) other.join();
}

}  // namespace liftplace
