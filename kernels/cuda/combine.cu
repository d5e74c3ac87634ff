// From the blocks' partial sums to the loss, its terms and the weight: one block.
#include "common.cuh"

namespace liftplace {
namespace {

struct CombineArgs {
  const float* partial;  // (blocks, 3): coarse, deviation, fine
  const float* weight;   // w on the device, or null
  float* loss;
  float* terms;
  int64_t blocks;
  float count;  // elements
  bool adaptive;
  float fixed, scale;
  bool with_coarse, with_fine;
};

__global__ void __launch_bounds__(1024) combine_kernel(CombineArgs a) {
  float2* scratch = reinterpret_cast<float2*>(shared_memory);
  float2 pair = {0.0f, 0.0f}, fine = {0.0f, 0.0f};
  for (int64_t i = threadIdx.x; i < a.blocks; i += blockDim.x) {
    pair = {pair.x + a.partial[3 * i], pair.y + a.partial[3 * i + 1]};
    fine.x += a.partial[3 * i + 2];
  }
  pair = block_sum(pair, scratch);
  fine = block_sum(fine, scratch);
  if (threadIdx.x != 0) return;
  const float given = a.weight != nullptr ? *a.weight : a.fixed;
  *a.loss = combine_terms(pair.x / a.count, pair.y / a.count, fine.x / a.count, a.adaptive, given,
                          a.scale, a.with_coarse, a.with_fine, a.terms);
}

}  // namespace
}  // namespace liftplace

extern "C" int liftplace_combine(const float* partial, const float* weight, float* loss,
                                 float* terms, int64_t blocks, int64_t count, int adaptive,
                                 float fixed, float scale, int with_coarse, int with_fine,
                                 int threads, int shared, void* stream) {
  using namespace liftplace;
  const CombineArgs args = {partial, weight, loss, terms, blocks, static_cast<float>(count),
                            adaptive != 0, fixed, scale, with_coarse != 0, with_fine != 0};
  return launch(combine_kernel, 1, threads, shared, stream, args);
}

// What the library was compiled from (build.py), or nothing; in quotes by two macros.
#ifndef LIFTPLACE_DIGEST
#define LIFTPLACE_DIGEST
#endif
#define LIFTPLACE_QUOTE(x) #x
#define LIFTPLACE_QUOTED(x) LIFTPLACE_QUOTE(x)
extern "C" const char* liftplace_digest() { return LIFTPLACE_QUOTED(LIFTPLACE_DIGEST); }

// What a launcher's return value means.
extern "C" const char* liftplace_error(int error) {
  return cudaGetErrorString(static_cast<cudaError_t>(error));
}
