// Backward of LIFT and PLACE: one streaming pass over student, teacher and group numbers.
#include "common.cuh"

namespace liftplace {
namespace {

struct BackwardArgs {
  Source student, teacher;
  const void* group;  // or null: one group a row
  const float* coef;
  const float* terms;
  Source grad_out;
  void* grad;
  int64_t rows, n, groups;
  int64_t tiles, tile;  // blocks of a row and their elements
  bool wide, aligned;
  float scale;  // over the number of elements
  bool with_coarse, with_fine;
};

// What an element's gradient needs of its group.
struct GroupGradient {
  float mean_s, mean_d;
  Gradient of;
  __device__ float operator()(float s, float t) const {
    return of.of_ds * (s - mean_s) + of.of_dd * ((t - s) - mean_d) + of.of_one;
  }
};

struct Scalars {
  float w, unit;
  __device__ explicit Scalars(const BackwardArgs& a)
      : w(a.terms[kWeight]), unit(load_element(a.grad_out, 0) * a.scale) {}
};

__device__ GroupGradient group_of(const BackwardArgs& a, const Scalars& scalars, int64_t group) {
  const float* coef = a.coef + group;
  const int64_t plane = a.rows * a.groups;
  return {__ldg(coef + kMeanS * plane), __ldg(coef + kMeanD * plane),
          group_gradient(__ldg(coef + kSlopeLess1 * plane), __ldg(coef + kK * plane),
                         __ldg(coef + kC * plane), scalars.w, scalars.unit, a.with_coarse,
                         a.with_fine)};
}

// Group numbers of a quad, below `count` of them.
__device__ void load_groups(const BackwardArgs& a, int64_t offset, int64_t count,
                            uint32_t (&number)[4]) {
  const uint4 raw = load_quad({a.group, a.wide ? kFloat32 : kFloat16}, offset, count, a.aligned);
  if (a.wide) {
    number[0] = raw.x, number[1] = raw.y, number[2] = raw.z, number[3] = raw.w;
  } else {
    number[0] = raw.x & 0xffff, number[1] = raw.x >> 16;
    number[2] = raw.y & 0xffff, number[3] = raw.y >> 16;
  }
}

// The quad at `offset` through f(group number) -> GroupGradient.
template <typename F>
__device__ void quad_gradient(const BackwardArgs& a, int64_t offset, int64_t count, F gradient_of) {
  const uint4 raw_s = load_quad(a.student, offset, count, a.aligned);
  const uint4 raw_t = load_quad(a.teacher, offset, count, a.aligned);
  uint32_t number[4] = {0, 0, 0, 0};
  if (a.group != nullptr) load_groups(a, offset, count, number);
  const float4 s = to_floats(raw_s, a.student.dtype), t = to_floats(raw_t, a.teacher.dtype);
  const float grad[4] = {gradient_of(number[0])(s.x, t.x), gradient_of(number[1])(s.y, t.y),
                         gradient_of(number[2])(s.z, t.z), gradient_of(number[3])(s.w, t.w)};
  store_quad(a.grad, a.student.dtype, offset, count, a.aligned, grad);
}

// One block, one tile of a row. What a group asks for is computed once into shared memory, five
// numbers in two arrays, so that a gather is one access of 16 bytes and one of 4.
__global__ void __launch_bounds__(512) backward_tile_kernel(BackwardArgs a) {
  float4* most = reinterpret_cast<float4*>(shared_memory);
  float* rest = reinterpret_cast<float*>(most + a.groups);
  const int64_t row = blockIdx.x / a.tiles;
  const Scalars scalars(a);
  for (int64_t g = threadIdx.x; g < a.groups; g += blockDim.x) {
    const GroupGradient x = group_of(a, scalars, row * a.groups + g);
    most[g] = {x.mean_s, x.mean_d, x.of.of_ds, x.of.of_dd};
    rest[g] = x.of.of_one;
  }
  __syncthreads();
  const int64_t first = blockIdx.x % a.tiles * a.tile;
  const int64_t end = min(a.n, first + a.tile);
  for (int64_t i = first + 4 * threadIdx.x; i < end; i += 4 * blockDim.x) {
    quad_gradient(a, row * a.n + i, end - i, [&](uint32_t g) {
      const float4 x = most[g];
      return GroupGradient{x.x, x.y, {x.z, x.w, rest[g]}};
    });
  }
}

// Short rows, or more groups than are worth a table: every element asks the cache.
__global__ void __launch_bounds__(256) backward_flat_kernel(BackwardArgs a) {
  const Scalars scalars(a);
  const int64_t quads = (a.n + 3) / 4;  // of a row
  const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= a.rows * quads) return;
  const int64_t row = i / quads, first = 4 * (i % quads);
  quad_gradient(a, row * a.n + first, a.n - first, [&](uint32_t g) {
    return group_of(a, scalars, row * a.groups + g);
  });
}

}  // namespace
}  // namespace liftplace

// tiles: blocks of a row, each of `tile` elements; 0 = quads of all rows, one a thread.
extern "C" int liftplace_backward(const void* student, int student_dtype, const void* teacher,
                                  int teacher_dtype, const void* group, const float* coef,
                                  const float* terms, const void* grad_out, int grad_out_dtype,
                                  void* grad, int64_t rows, int64_t n, int64_t groups,
                                  int64_t tiles, int64_t tile, int wide, int aligned, float scale,
                                  int with_coarse, int with_fine, int64_t blocks, int threads,
                                  int shared, void* stream) {
  using namespace liftplace;
  const BackwardArgs args = {{student, student_dtype}, {teacher, teacher_dtype}, group, coef, terms,
                             {grad_out, grad_out_dtype}, grad, rows, n, groups, tiles, tile,
                             wide != 0, aligned != 0, scale, with_coarse != 0, with_fine != 0};
  return launch(tiles > 0 ? backward_tile_kernel : backward_flat_kernel, blocks, threads, shared,
                stream, args);
}
