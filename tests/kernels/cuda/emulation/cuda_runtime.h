// Enough of CUDA for g++ to compile the kernels as they stand and to run them on the CPU.
//
// A block's threads are coroutines that run one at a time and are switched at barriers, shuffles
// and votes, in an order that is shuffled each time by a seed; half of the warps sleep for a while,
// so that warps drift apart as far as barriers let them. Blocks run one after the other, in
// shuffled order too. What a program may not do ends the launch with an error: threads at
// different barriers, a thread that leaves while others wait for it, a lane that sits out a warp
// operation. Shared memory is poisoned with NaN before each block, and an access past what the
// launch asked for is an error of the address sanitizer where that is on. It proves logic, not the
// absence of races between barriers beyond what shuffled orders show.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>
#include <tuple>
#include <utility>

#define __global__
#define __device__
#define __host__
#define __shared__
#define __launch_bounds__(...)

struct dim3 {
  unsigned x, y, z;
  dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};
struct alignas(8) uint2 { uint32_t x, y; };
struct alignas(16) uint4 { uint32_t x, y, z, w; };
struct alignas(8) float2 { float x, y; };
struct alignas(16) float4 { float x, y, z, w; };

using cudaStream_t = struct Stream*;
using cudaError_t = int;
constexpr cudaError_t cudaSuccess = 0, cudaErrorInvalidValue = 1, cudaErrorInvalidConfiguration = 9,
                      cudaErrorLaunchFailure = 719, cudaErrorNotSupported = 801;
inline const char* cudaGetErrorString(cudaError_t error) {
  switch (error) {
    case cudaErrorInvalidValue: return "invalid argument";
    case cudaErrorInvalidConfiguration: return "invalid configuration argument";
    case cudaErrorNotSupported: return "operation not supported";
    default: return "unspecified launch failure";
  }
}

struct cudaLaunchConfig_t {
  dim3 gridDim, blockDim;
  size_t dynamicSmemBytes = 0;
  cudaStream_t stream = nullptr;
};

struct Index { unsigned x; };
extern Index threadIdx, blockIdx, blockDim;

namespace emulation {

constexpr int kMaxShared = 227 * 1024, kSharedUnasked = 48 * 1024;

// Sets the most shared memory that a kernel may have, and counts how often.
cudaError_t limit_shared(const void* kernel, int bytes);
int shared_limit(const void* kernel);

cudaError_t run(const cudaLaunchConfig_t& config, const std::function<void()>& kernel);
void block_barrier();
void warp_barrier();          // of all 32 lanes
uint64_t* warp_slots();       // 32 of them, this warp's; a barrier after writing one's own
uint64_t read_slot(int lane);

template <typename T>
T exchange(T x, int lane) {
  uint64_t bits = 0;
  std::memcpy(&bits, &x, sizeof x);
  warp_slots()[threadIdx.x & 31] = bits;
  warp_barrier();
  bits = read_slot(lane);
  std::memcpy(&x, &bits, sizeof x);
  return x;
}

template <typename F>
uint32_t reduce(uint32_t x, F f) {
  warp_slots()[threadIdx.x & 31] = x;
  warp_barrier();
  uint32_t result = static_cast<uint32_t>(read_slot(0));
  for (int i = 1; i < 32; ++i) result = f(result, static_cast<uint32_t>(read_slot(i)));
  return result;
}

}  // namespace emulation

using std::max;
using std::min;
inline uint32_t min(int a, uint32_t b) { return std::min<uint32_t>(a, b); }

inline void __syncthreads() { emulation::block_barrier(); }
template <typename T>
T __shfl_xor_sync(uint32_t, T x, int mask) {
  return emulation::exchange(x, (threadIdx.x & 31) ^ mask);
}
template <typename T>
T __shfl_up_sync(uint32_t, T x, int delta) {
  const int lane = threadIdx.x & 31;
  return emulation::exchange(x, lane < delta ? lane : lane - delta);
}
template <typename T>
T __shfl_sync(uint32_t, T x, int lane) {
  return emulation::exchange(x, lane);
}
inline uint32_t __reduce_min_sync(uint32_t, uint32_t x) {
  return emulation::reduce(x, [](uint32_t a, uint32_t b) { return std::min(a, b); });
}
inline uint32_t __reduce_max_sync(uint32_t, uint32_t x) {
  return emulation::reduce(x, [](uint32_t a, uint32_t b) { return std::max(a, b); });
}

inline uint32_t atomicAdd(uint32_t* p, uint32_t x) { return std::exchange(*p, *p + x); }
inline uint32_t atomicMin(uint32_t* p, uint32_t x) { return std::exchange(*p, std::min(*p, x)); }
inline uint32_t atomicMax(uint32_t* p, uint32_t x) { return std::exchange(*p, std::max(*p, x)); }

inline int __clz(uint32_t x) { return x == 0 ? 32 : __builtin_clz(x); }
inline uint32_t __umulhi(uint32_t a, uint32_t b) { return static_cast<uint64_t>(a) * b >> 32; }
template <typename T>
T __ldg(const T* p) {
  return *p;
}
inline float __fdividef(float a, float b) { return a / b; }
inline float __uint_as_float(uint32_t bits) {
  float x;
  std::memcpy(&x, &bits, sizeof x);
  return x;
}

constexpr int cudaFuncAttributeMaxDynamicSharedMemorySize = 8;
constexpr int cudaDevAttrMaxSharedMemoryPerBlockOptin = 97;
inline cudaError_t cudaGetDevice(int* device) { return *device = 0, cudaSuccess; }
inline cudaError_t cudaDeviceGetAttribute(int* value, int, int) {
  return *value = emulation::kMaxShared, cudaSuccess;
}
inline cudaError_t cudaFuncSetAttribute(const void* kernel, int, int bytes) {
  return emulation::limit_shared(kernel, bytes);
}
template <typename... P, typename... A>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* config, void (*kernel)(P...), A&&... args) {
  const int limit = emulation::shared_limit(reinterpret_cast<const void*>(kernel));
  if (config->dynamicSmemBytes > static_cast<size_t>(limit)) return cudaErrorInvalidValue;
  const std::tuple<P...> copies(args...);
  return emulation::run(*config, [&] { std::apply(kernel, copies); });
}
