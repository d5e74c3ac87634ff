// What every kernel shares: elements of any dtype, four at a time, and sums over a warp and a block.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <mutex>
#include <set>
#include <utility>

#include "../cpu/fit.h"

extern __shared__ uint4 shared_memory[];

namespace liftplace {

constexpr uint32_t kAll = 0xffffffffu;   // the lanes of a warp
constexpr int kScratchWords = 256;       // at the start of shared memory, for reductions
constexpr int kMaxWarps = 32;            // of a block
constexpr int kSharedUnasked = 48 * 1024;  // bytes that every kernel may have

enum Dtype { kFloat32, kBfloat16, kFloat16 };

// A dtype is known at run time: one branch that all threads take alike costs less than nine
// compilations of every kernel.
struct Source {
  const void* data;
  int dtype;
};

__device__ inline int lane() { return threadIdx.x & 31; }
__device__ inline int warp() { return threadIdx.x >> 5; }
__device__ inline int warps() { return blockDim.x >> 5; }

// x, of which the compiler no longer knows where it came from: it computes addresses again that it
// would keep in registers from one use of x to the next.
__device__ inline uint32_t fresh(uint32_t x) {
  asm volatile("" : "+r"(x));
  return x;
}

// Elements offset .. offset + count - 1 as they lie in memory; count past 4 is 4, below 1 none.
// `aligned`: every quad of the tensor is whole and lies on 16 (8) bytes.
__device__ inline uint4 load_quad(const Source& x, int64_t offset, int64_t count, bool aligned) {
  uint4 raw = {0, 0, 0, 0};
  if (count <= 0) return raw;
  if (x.dtype == kFloat32) {
    const uint32_t* p = static_cast<const uint32_t*>(x.data) + offset;
    if (aligned) return *reinterpret_cast<const uint4*>(p);
    raw.x = p[0];
    if (count > 1) raw.y = p[1];
    if (count > 2) raw.z = p[2];
    if (count > 3) raw.w = p[3];
    return raw;
  }
  const uint16_t* p = static_cast<const uint16_t*>(x.data) + offset;
  if (aligned) {
    const uint2 half = *reinterpret_cast<const uint2*>(p);
    return {half.x, half.y, 0, 0};
  }
  raw.x = p[0];
  if (count > 1) raw.x |= static_cast<uint32_t>(p[1]) << 16;
  if (count > 2) raw.y = p[2];
  if (count > 3) raw.y |= static_cast<uint32_t>(p[3]) << 16;
  return raw;
}

__device__ inline float half_to_float(uint32_t bits, int dtype) {
  const uint16_t half = static_cast<uint16_t>(bits);
  return dtype == kBfloat16 ? __uint_as_float(bits << 16) : __half2float(__ushort_as_half(half));
}

__device__ inline float4 to_floats(const uint4& raw, int dtype) {
  if (dtype == kFloat32) {
    return {__uint_as_float(raw.x), __uint_as_float(raw.y), __uint_as_float(raw.z),
            __uint_as_float(raw.w)};
  }
  return {half_to_float(raw.x & 0xffff, dtype), half_to_float(raw.x >> 16, dtype),
          half_to_float(raw.y & 0xffff, dtype), half_to_float(raw.y >> 16, dtype)};
}

__device__ inline float load_element(const Source& x, int64_t offset) {
  if (x.dtype == kFloat32) return static_cast<const float*>(x.data)[offset];
  return half_to_float(static_cast<const uint16_t*>(x.data)[offset], x.dtype);
}

__device__ inline uint32_t from_float(float x, int dtype) {
  if (dtype == kBfloat16) return __bfloat16_as_ushort(__float2bfloat16_rn(x));
  return __half_as_ushort(__float2half_rn(x));
}

__device__ inline void store_quad(void* out, int dtype, int64_t offset, int64_t count,
                                  bool aligned, const float (&x)[4]) {
  if (dtype == kFloat32) {
    float* p = static_cast<float*>(out) + offset;
    if (aligned) {
      *reinterpret_cast<float4*>(p) = {x[0], x[1], x[2], x[3]};
      return;
    }
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      if (i < count) p[i] = x[i];
    }
    return;
  }
  uint16_t* p = static_cast<uint16_t*>(out) + offset;
  if (aligned) {
    *reinterpret_cast<uint2*>(p) = {from_float(x[0], dtype) | from_float(x[1], dtype) << 16,
                                    from_float(x[2], dtype) | from_float(x[3], dtype) << 16};
    return;
  }
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    if (i < count) p[i] = static_cast<uint16_t>(from_float(x[i], dtype));
  }
}

// Sums are taken in an order that the launch fixes, so that two runs give the same bits.
template <typename T>
__device__ inline T warp_sum(T x) {
#pragma unroll
  for (int other = 16; other > 0; other >>= 1) x += __shfl_xor_sync(kAll, x, other);
  return x;
}

__device__ inline uint32_t warp_inclusive_scan(uint32_t x) {
#pragma unroll
  for (int below = 1; below < 32; below <<= 1) {
    const uint32_t other = __shfl_up_sync(kAll, x, below);
    if (lane() >= below) x += other;
  }
  return x;
}

// The sum of x over the block, in every thread.
__device__ inline float2 block_sum(float2 x, float2* scratch) {
  x = {warp_sum(x.x), warp_sum(x.y)};
  if (lane() == 0) scratch[warp()] = x;
  __syncthreads();
  x = lane() < warps() ? scratch[lane()] : float2{0.0f, 0.0f};
  __syncthreads();
  return {warp_sum(x.x), warp_sum(x.y)};
}

// Let a kernel have all the shared memory that a block of the current device may have. Once for
// each kernel and device, and never less: were the limit set for every launch, one host thread
// would lower it between another's setting and launching.
inline cudaError_t allow_shared(const void* kernel) {
  static std::mutex mutex;
  static std::set<std::pair<int, const void*>> allowed;
  int device = 0, most = 0;
  cudaError_t error = cudaGetDevice(&device);
  if (error != cudaSuccess) return error;
  const std::lock_guard<std::mutex> lock(mutex);
  if (allowed.count({device, kernel}) > 0) return cudaSuccess;
  error = cudaDeviceGetAttribute(&most, cudaDevAttrMaxSharedMemoryPerBlockOptin, device);
  if (error != cudaSuccess) return error;
  error = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, most);
  if (error == cudaSuccess) allowed.insert({device, kernel});
  return error;
}

// Launch on a stream; cudaError_t.
template <typename... Args>
int launch(void (*kernel)(Args...), int64_t blocks, int threads, int shared, void* stream,
           const Args&... args) {
  if (shared > kSharedUnasked) {
    const cudaError_t error = allow_shared(reinterpret_cast<const void*>(kernel));
    if (error != cudaSuccess) return error;
  }
  cudaLaunchConfig_t config = {};
  config.gridDim = dim3(static_cast<unsigned>(blocks));
  config.blockDim = dim3(static_cast<unsigned>(threads));
  config.dynamicSmemBytes = shared;
  config.stream = static_cast<cudaStream_t>(stream);
  return cudaLaunchKernelEx(&config, kernel, args...);
}

}  // namespace liftplace
