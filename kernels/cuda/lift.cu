// LIFT forward: one fit a row. A row that a block holds in registers is read once; a longer one is
// cut into chunks, whose moments one block a row then merges.
#include "fit.cuh"

namespace liftplace {
namespace {

constexpr int kItems = 8;  // elements a thread

struct LiftArgs {
  Source student, teacher;
  float* coef;
  float* partial;
  float* moments;  // (rows, chunks, 5): mean_s, mean_d, m2_s, c_sd, m2_d
  int64_t rows, n, chunks;
  bool aligned;
  float eps;
  bool squared;
};

// A thread's share of a chunk, in registers.
struct ChunkMembers {
  float2 member[kItems];
  int64_t there[kItems / 4];  // of four

  // Elements first .. first + count - 1 of both tensors.
  __device__ ChunkMembers(const LiftArgs& a, int64_t first, int64_t count) {
#pragma unroll
    for (int i = 0; i < kItems; i += 4) {
      const int64_t at = static_cast<int64_t>(i) * blockDim.x + 4 * threadIdx.x;
      there[i / 4] = count - at;
      const uint4 raw_s = load_quad(a.student, first + at, count - at, a.aligned);
      const uint4 raw_t = load_quad(a.teacher, first + at, count - at, a.aligned);
      const float4 s = to_floats(raw_s, a.student.dtype), t = to_floats(raw_t, a.teacher.dtype);
      member[i] = {s.x, t.x - s.x};
      member[i + 1] = {s.y, t.y - s.y};
      member[i + 2] = {s.z, t.z - s.z};
      member[i + 3] = {s.w, t.w - s.w};
    }
  }

  template <typename F>
  __device__ void visit(F f) const {
#pragma unroll
    for (int i = 0; i < kItems; ++i) {
      if (i % 4 < there[i / 4]) f(member[i]);
    }
  }
};

__device__ BlockTeam block_team() {
  return {static_cast<int>(blockDim.x), static_cast<int>(threadIdx.x),
          reinterpret_cast<float2*>(shared_memory)};
}

__device__ FitOut fit_out(const LiftArgs& a) { return {a.coef, a.rows, a.eps, a.squared}; }

__global__ void __launch_bounds__(1024) lift_row_kernel(LiftArgs a) {
  const int64_t row = blockIdx.x;
  const ChunkMembers members(a, row * a.n, a.n);
  Sums sums;
  const BlockTeam team = block_team();
  fit_group(team, members, static_cast<int>(a.n), row, fit_out(a), sums);
  store_sums(sums, a.partial, team.scratch);
}

__global__ void __launch_bounds__(256) lift_chunk_kernel(LiftArgs a) {
  const int64_t row = blockIdx.x / a.chunks, chunk = blockIdx.x % a.chunks;
  const int64_t length = kItems * static_cast<int64_t>(blockDim.x);
  const int64_t count = min(length, a.n - chunk * length);
  const ChunkMembers members(a, row * a.n + chunk * length, count);
  const BlockTeam team = block_team();
  const Moments m = group_moments(team, members, static_cast<float>(count));
  float square_d = 0.0f;
  members.visit([&](float2 x) {
    const float dd = m.centred(x).y;
    square_d += dd * dd;
  });
  square_d = team.sum({square_d, 0.0f}).x;
  if (threadIdx.x != 0) return;
  float* out = a.moments + 5 * static_cast<int64_t>(blockIdx.x);
  out[0] = m.mean.x + m.rest.x;
  out[1] = m.mean.y + m.rest.y;
  out[2] = m.squares.x;
  out[3] = m.squares.y;
  out[4] = square_d;
}

// A row's chunks as members of one group, each with its weight: f(mean, weight).
struct MeanMembers {
  const float* moments;
  int64_t chunks, n, length;
  template <typename F>
  __device__ void visit(F f) const {
    for (int64_t i = threadIdx.x; i < chunks; i += blockDim.x) {
      f(moments + 5 * i, static_cast<float>(min(length, n - i * length)));
    }
  }
};

// The moments of the union from means and centred squares (Chan, Golub and LeVeque 1979).
__global__ void __launch_bounds__(256) lift_merge_kernel(LiftArgs a, int64_t length) {
  const int64_t row = blockIdx.x;
  const MeanMembers members = {a.moments + 5 * row * a.chunks, a.chunks, a.n, length};
  const BlockTeam team = block_team();
  const float n = static_cast<float>(a.n);
  float2 part = {0.0f, 0.0f};
  members.visit([&](const float* m, float w) { part = {part.x + w * m[0], part.y + w * m[1]}; });
  part = team.sum(part);
  const float2 mean = {part.x / n, part.y / n};
  part = {0.0f, 0.0f};
  members.visit([&](const float* m, float w) {
    part = {part.x + w * (m[0] - mean.x), part.y + w * (m[1] - mean.y)};
  });
  part = team.sum(part);
  const float2 rest = {part.x / n, part.y / n};
  float2 squares = {0.0f, 0.0f}, square_d = {0.0f, 0.0f};
  members.visit([&](const float* m, float w) {
    const float ds = (m[0] - mean.x) - rest.x, dd = (m[1] - mean.y) - rest.y;
    squares = {squares.x + (m[2] + w * ds * ds), squares.y + (m[3] + w * ds * dd)};
    square_d.x += m[4] + w * dd * dd;
  });
  squares = team.sum(squares);
  square_d = team.sum(square_d);
  const float mean_s = mean.x + rest.x, mean_d = mean.y + rest.y;
  const Fit fit = linear_fit(mean_s, mean_d, squares.x / n, squares.y / n, a.eps);
  const float b = fit.slope_less_1;
  const float fine = b * b * squares.x - 2.0f * b * squares.y + square_d.x;
  Sums sums;
  if (threadIdx.x == 0) {  // rounding may not take the sum of squares below zero; NaN stays
    store_fit(fit, mean_s, mean_d, n, fine < 0.0f ? 0.0f : fine, row, fit_out(a), sums);
  }
  store_sums(sums, a.partial, team.scratch);
}

}  // namespace
}  // namespace liftplace

// chunks: 1 = a block a row, without `moments`; otherwise chunks of 8 * threads elements.
extern "C" int liftplace_lift(const void* student, int student_dtype, const void* teacher,
                              int teacher_dtype, float* coef, float* partial, float* moments,
                              int64_t rows, int64_t n, int64_t chunks, int aligned, float eps,
                              int squared, int threads, int shared, void* stream) {
  using namespace liftplace;
  const LiftArgs args = {{student, student_dtype}, {teacher, teacher_dtype}, coef, partial, moments,
                         rows, n, chunks, aligned != 0, eps, squared != 0};
  if (chunks == 1) return launch(lift_row_kernel, rows, threads, shared, stream, args);
  const int error = launch(lift_chunk_kernel, rows * chunks, threads, shared, stream, args);
  if (error != 0) return error;
  const int64_t length = kItems * static_cast<int64_t>(threads);
  return launch(lift_merge_kernel, rows, threads, shared, stream, args, length);
}
