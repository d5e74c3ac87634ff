// The scheduler: see cuda_runtime.h.
#include "cuda_runtime.h"

#include <setjmp.h>
#include <sys/mman.h>
#include <ucontext.h>

#include <algorithm>
#include <cstdio>
#include <map>
#include <memory>
#include <numeric>
#include <random>
#include <vector>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#else  // without the address sanitizer nobody needs to know
#define ASAN_POISON_MEMORY_REGION(p, n) ((void)(p), (void)(n))
#define ASAN_UNPOISON_MEMORY_REGION(p, n) ((void)(p), (void)(n))
#define __sanitizer_start_switch_fiber(save, stack, size) ((void)(save), (void)(stack), (void)(size))
#define __sanitizer_finish_switch_fiber(saved, stack, size) ((void)(saved))
#endif

Index threadIdx, blockIdx, blockDim;
uint4 shared_memory[emulation::kMaxShared / sizeof(uint4)];

namespace emulation {

namespace {

constexpr size_t kStack = 256 * 1024;
constexpr int kMaxThreads = 1024;

enum class State { kReady, kBlock, kWarp, kDone };

struct Coroutine {
  ucontext_t context;  // where it starts
  jmp_buf place;       // where it goes on: unlike swapcontext, a jump asks nothing of the kernel
  bool started;
  State state;
};

struct Warp {
  uint64_t slots[2][32];  // by turns: a lane may be one operation ahead of what others still read
  uint32_t turn[32];
};

jmp_buf scheduler;
const void* scheduler_stack = nullptr;
size_t scheduler_stack_size = 0;
Coroutine threads[kMaxThreads];
Warp warp_of[kMaxThreads / 32];
const std::function<void()>* body;
std::mt19937_64 random_order(0);
std::map<const void*, int> shared_limits;
int times_limited = 0;

char* stacks() {
  static char* memory = static_cast<char*>(mmap(nullptr, kStack * kMaxThreads,
                                                PROT_READ | PROT_WRITE,
                                                MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
  return memory;
}

// Not inlined: what a jump comes back to must hold no variables of the loops around it.
[[gnu::noinline]] void switch_to_thread(unsigned i) {
  threadIdx.x = i;
  void* saved = nullptr;
  __sanitizer_start_switch_fiber(&saved, stacks() + i * kStack, kStack);
  if (_setjmp(scheduler) == 0) {
    if (threads[i].started) _longjmp(threads[i].place, 1);
    threads[i].started = true;
    setcontext(&threads[i].context);
  }
  __sanitizer_finish_switch_fiber(saved, nullptr, nullptr);
}

[[gnu::noinline]] void switch_to_scheduler(State state) {
  Coroutine& self = threads[threadIdx.x];
  self.state = state;
  void* saved = nullptr;
  __sanitizer_start_switch_fiber(state == State::kDone ? nullptr : &saved, scheduler_stack,
                                 scheduler_stack_size);
  if (_setjmp(self.place) == 0) _longjmp(scheduler, 1);
  __sanitizer_finish_switch_fiber(saved, nullptr, nullptr);
}

void start() {
  __sanitizer_finish_switch_fiber(nullptr, &scheduler_stack, &scheduler_stack_size);
  (*body)();
  switch_to_scheduler(State::kDone);
}

bool all_are(State state) {
  return std::all_of(threads, threads + blockDim.x,
                     [&](const Coroutine& thread) { return thread.state == state; });
}

// Lets the block go if all of it waits, and every warp that waits as a whole; false for neither.
bool release() {
  const unsigned n = blockDim.x;
  if (all_are(State::kBlock)) {
    for (unsigned i = 0; i < n; ++i) threads[i].state = State::kReady;
    return true;
  }
  bool released = false;
  for (Coroutine* warp = threads; warp < threads + n; warp += 32) {
    if (!std::all_of(warp, warp + 32, [](auto& lane) { return lane.state == State::kWarp; })) {
      continue;
    }
    released = true;
    for (unsigned i = 0; i < 32; ++i) warp[i].state = State::kReady;
  }
  return released;
}

// Runs the ready threads of the warps in `awake`, one bit each; false if there were none.
bool run_ready(const std::vector<unsigned>& order, uint64_t awake) {
  bool ran = false;
  for (unsigned i : order) {
    if (threads[i].state != State::kReady || (awake >> (i / 32) & 1) == 0) continue;
    ran = true;
    switch_to_thread(i);
  }
  return ran;
}

[[gnu::noinline]] void prepare(unsigned i) {
  Coroutine& thread = threads[i];
  thread.started = false;
  thread.state = State::kReady;
  getcontext(&thread.context);
  thread.context.uc_stack.ss_sp = stacks() + i * kStack;
  thread.context.uc_stack.ss_size = kStack;
  thread.context.uc_link = nullptr;
  makecontext(&thread.context, start, 0);
}

bool run_block(std::vector<unsigned>& order) {
  const unsigned n = blockDim.x;
  std::memset(warp_of, 0, sizeof warp_of);
  for (unsigned i = 0; i < n; ++i) prepare(i);
  uint64_t awake = ~0ull;
  while (!all_are(State::kDone)) {
    std::shuffle(order.begin(), order.end(), random_order);
    // Half of the warps sleep for a while, so that the others run ahead to the next barrier.
    if (random_order() % 16 == 0) awake = random_order();
    const bool ran = run_ready(order, awake) || run_ready(order, ~0ull);
    if (!release() && !ran) {
      std::fprintf(stderr, "emulation: threads of block %u wait at different places\n", blockIdx.x);
      return false;
    }
  }
  return true;
}

}  // namespace

void block_barrier() { switch_to_scheduler(State::kBlock); }

uint64_t* warp_slots() {
  Warp& warp = warp_of[threadIdx.x / 32];
  return warp.slots[++warp.turn[threadIdx.x & 31] & 1];
}

void warp_barrier() { switch_to_scheduler(State::kWarp); }

uint64_t read_slot(int lane) {
  const Warp& warp = warp_of[threadIdx.x / 32];
  return warp.slots[warp.turn[threadIdx.x & 31] & 1][lane];
}

cudaError_t limit_shared(const void* kernel, int bytes) {
  if (bytes < 0 || bytes > kMaxShared) return cudaErrorInvalidValue;
  shared_limits[kernel] = bytes;
  ++times_limited;
  return cudaSuccess;
}

int shared_limit(const void* kernel) {
  const auto found = shared_limits.find(kernel);
  return found == shared_limits.end() ? kSharedUnasked : found->second;
}

cudaError_t run(const cudaLaunchConfig_t& config, const std::function<void()>& kernel) {
  const unsigned n = config.blockDim.x, blocks = config.gridDim.x;
  if (n == 0 || n > kMaxThreads || blocks == 0) return cudaErrorInvalidConfiguration;
  if (n % 32 != 0) return cudaErrorNotSupported;  // CUDA takes it; nothing here asks for it
  const size_t bytes = config.dynamicSmemBytes;
  body = &kernel;
  blockDim.x = n;
  std::vector<unsigned> order(n), blocks_order(blocks);
  std::iota(order.begin(), order.end(), 0u);
  std::iota(blocks_order.begin(), blocks_order.end(), 0u);
  std::shuffle(blocks_order.begin(), blocks_order.end(), random_order);
  bool ok = true;
  for (unsigned i : blocks_order) {
    blockIdx.x = i;
    ASAN_UNPOISON_MEMORY_REGION(shared_memory, sizeof shared_memory);
    std::memset(shared_memory, 0xff, sizeof shared_memory);
    ASAN_POISON_MEMORY_REGION(reinterpret_cast<char*>(shared_memory) + bytes,
                              sizeof shared_memory - bytes);
    if (!(ok = run_block(order))) break;
  }
  ASAN_UNPOISON_MEMORY_REGION(shared_memory, sizeof shared_memory);
  return ok ? cudaSuccess : cudaErrorLaunchFailure;
}

}  // namespace emulation

// How often a kernel was given more shared memory, so far.
extern "C" int emulation_times_limited() { return emulation::times_limited; }

extern "C" void emulation_seed(uint64_t seed) { emulation::random_order.seed(seed); }
