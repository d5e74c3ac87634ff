// PLACE forward: rank a row by its error, cut the ranks into groups, fit each group.
#include "fit.cuh"
#include "select.cuh"

namespace liftplace {
namespace {

struct PlaceArgs {
  Source student, teacher;
  void* group;  // (rows, n), or null where no backward follows
  float* coef;
  float* partial;
  int64_t rows, n;
  uint32_t group_size, groups;
  uint32_t parts, part_groups;  // blocks of a row, groups of a block
  uint32_t slack;
  bool wide;  // group numbers of four bytes instead of two
  bool aligned;
  float eps;
  bool squared;
};

__device__ Row row_of(const PlaceArgs& a, int64_t row) {
  const int index_bits = a.n > 1 ? 32 - __clz(static_cast<uint32_t>(a.n - 1)) : 1;
  return {a.student, a.teacher, row * a.n, a.n, a.aligned, index_bits};
}

__device__ FitOut fit_out(const PlaceArgs& a, int64_t row, int64_t first_group) {
  const int64_t groups = a.groups;
  return {a.coef + row * groups + first_group, a.rows * groups, a.eps, a.squared};
}

__device__ void store_group(const PlaceArgs& a, int64_t offset, uint32_t group) {
  if (a.wide) {
    static_cast<uint32_t*>(a.group)[offset] = group;
  } else {
    static_cast<uint16_t*>(a.group)[offset] = static_cast<uint16_t>(group);
  }
}

// x / size for x * size < 2^32, by a multiplication.
struct Divider {
  uint32_t inverse;
  bool by_one;
  __device__ explicit Divider(uint32_t size) : inverse(0xffffffffu / size + 1), by_one(size == 1) {}
  __device__ uint32_t operator()(uint32_t x) const { return by_one ? x : __umulhi(x, inverse); }
};

// One block, one row of at most kItems elements a thread.
template <int kItems>
__global__ void __launch_bounds__(kItems == 4 ? 512 : 1024) place_row_kernel(PlaceArgs a) {
  const Row row = row_of(a, blockIdx.x);
  const uint32_t n = static_cast<uint32_t>(a.n);
  const auto index_of = [](uint32_t thread, int i) {
    return (i & ~3) * blockDim.x + 4 * thread + (i & 3);
  };
  const auto index = [&](int i) { return index_of(threadIdx.x, i); };
  uint32_t key[kItems], rank[kItems];
#pragma unroll
  for (int i = 0; i < kItems; i += 4) {
    float s[4], d[4];
    row.read(index(i), s, d);
#pragma unroll
    for (int j = 0; j < 4; ++j) key[i + j] = error_bits(d[j]);
  }
  Ranking<kItems> ranking;
  ranking.rank(key, index, n, rank);

  float2* pairs = reinterpret_cast<float2*>(ranking.counters);  // in the buckets' place
  const Divider group_of(a.group_size);
#pragma unroll
  for (int i = 0; i < kItems; i += 4) {
    const uint32_t first = index_of(fresh(threadIdx.x), i);
    float s[4], d[4];
    row.read(first, s, d);  // again, from a cache: half the registers through the ranking
    uint32_t group[4];
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      if (rank[i + j] != kAbsent) pairs[rank[i + j]] = {s[j], d[j]};
      group[j] = min(group_of(rank[i + j]), a.groups - 1);
    }
    if (a.group == nullptr) continue;
    if (a.aligned && first < n && !a.wide) {
      uint2* out = reinterpret_cast<uint2*>(static_cast<uint16_t*>(a.group) + row.base + first);
      *out = {group[0] | group[1] << 16, group[2] | group[3] << 16};
      continue;
    }
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      if (first + j < n) store_group(a, row.base + first + j, group[j]);
    }
  }
  __syncthreads();
  Sums sums;
  float2* scratch = reinterpret_cast<float2*>(ranking.scratch);
  fit_groups(pairs, n, a.group_size, a.groups, fit_out(a, blockIdx.x, 0), sums, scratch);
  store_sums(sums, a.partial, scratch);
}

// One block, the groups of one interval of a long row's ranks. It collects its elements from the
// row, a few more on either side where several keys share the last digit counted, and ranks them.
template <int kItems>
__global__ void __launch_bounds__(768) place_part_kernel(PlaceArgs a) {
  const uint32_t row_number = blockIdx.x / a.parts;
  const Row row = row_of(a, row_number);
  const uint32_t first_group = blockIdx.x % a.parts * a.part_groups;
  const uint32_t begin = first_group * a.group_size;
  const uint32_t groups = min(a.part_groups, a.groups - first_group);
  const bool last = first_group + groups == a.groups;
  const uint32_t end = last ? static_cast<uint32_t>(a.n) : begin + groups * a.group_size;
  Ranking<kItems> ranking;
  const Selection<Ranking<kItems>::kEach> selection(row);
  Span low, high;
  selection.locate(begin, end - 1, a.slack, low, high);
  uint32_t* list = ranking.words + kItems * blockDim.x;  // to the end, beside the buckets
  uint32_t* bits = ranking.words;
  const uint32_t count = collect(row, low.least(), high.most(), list, bits, ranking.scratch);

  const auto local = [](int i) { return i * blockDim.x + threadIdx.x; };
  uint32_t key[kItems], rank[kItems];
#pragma unroll
  for (int i = 0; i < kItems; ++i) key[i] = local(i) < count ? bits[local(i)] : 0;
  ranking.rank(key, local, count, rank);

  float2* pairs = reinterpret_cast<float2*>(ranking.counters);
  const Divider group_of(a.group_size);
#pragma unroll
  for (int i = 0; i < kItems; ++i) {
    const uint32_t place = low.before + rank[i] - begin;  // below the interval it wraps around
    if (rank[i] == kAbsent || place >= end - begin) continue;
    const int64_t offset = row.base + list[i * blockDim.x + fresh(threadIdx.x)];
    const float s = load_element(a.student, offset);
    pairs[place] = {s, load_element(a.teacher, offset) - s};
    if (a.group != nullptr) {
      store_group(a, offset, first_group + min(group_of(place), groups - 1));
    }
  }
  __syncthreads();
  Sums sums;
  float2* scratch = reinterpret_cast<float2*>(ranking.scratch);
  fit_groups(pairs, end - begin, a.group_size, groups, fit_out(a, row_number, first_group), sums,
             scratch);
  store_sums(sums, a.partial, scratch);
}

// A group's members, wherever they stand in the row.
struct KeyMembers {
  const Row& row;
  uint64_t least, most;
  template <typename F>
  __device__ void visit(F f) const {
    row.visit([&](int64_t index, float s, float d) {
      const uint64_t key = row.key(d, index);
      if (least <= key && key <= most) f(float2{s, d});
    });
  }
};

// One block, one group of a long row that is wider than a block holds: nothing is sorted, the
// group's first and last key are found and its elements read in place.
__global__ void __launch_bounds__(512, 2) place_wide_kernel(PlaceArgs a) {
  const uint32_t row_number = blockIdx.x / a.groups, group = blockIdx.x % a.groups;
  const Row row = row_of(a, row_number);
  const uint32_t begin = group * a.group_size;
  const uint32_t end =
      begin + static_cast<uint32_t>(group_members(a.n, a.group_size, a.groups, group));
  const Selection<16> selection(row);
  Span low, high;
  selection.locate(begin, end - 1, 1, low, high);
  const KeyMembers members = {row, low.least(), high.most()};
  if (a.group != nullptr) {
    row.visit([&](int64_t index, float, float d) {
      const uint64_t key = row.key(d, index);
      if (members.least <= key && key <= members.most) {
        store_group(a, row.base + index, group);
      }
    });
  }
  Sums sums;
  float2* scratch = reinterpret_cast<float2*>(selection.scratch);
  const BlockTeam team = {static_cast<int>(blockDim.x), static_cast<int>(threadIdx.x), scratch};
  fit_group(team, members, static_cast<int>(end - begin), group, fit_out(a, row_number, 0), sums);
  store_sums(sums, a.partial, scratch);
}

}  // namespace
}  // namespace liftplace

// kind: 4, 8, 16: one block a row, items a thread; 0: several blocks a row; -1: one a wide group.
extern "C" int liftplace_place(
    const void* student, int student_dtype, const void* teacher, int teacher_dtype, void* group,
    float* coef, float* partial, int64_t rows, int64_t n, int group_size, int groups, int parts,
    int part_groups, int slack, int wide, int aligned, float eps, int squared,
    int kind, int64_t blocks, int threads, int shared, void* stream) {
  using namespace liftplace;
  const PlaceArgs args = {{student, student_dtype}, {teacher, teacher_dtype}, group, coef, partial,
                          rows, n, static_cast<uint32_t>(group_size),
                          static_cast<uint32_t>(groups), static_cast<uint32_t>(parts),
                          static_cast<uint32_t>(part_groups), static_cast<uint32_t>(slack), wide != 0, aligned != 0, eps, squared != 0};
  const auto kernel = kind == 4    ? place_row_kernel<4>
                      : kind == 8  ? place_row_kernel<8>
                      : kind == 16 ? place_row_kernel<16>
                      : kind == 0  ? place_part_kernel<16>
                                   : place_wide_kernel;
  return launch(kernel, blocks, threads, shared, stream, args);
}
