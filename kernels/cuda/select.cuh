// For rows longer than a block holds: which key stands at a rank, found digit by digit.
//
// A key is (error bits, index), 31 bits and as many as an index needs, so keys are unique and a
// block's window of ranks can be named exactly whatever ties. Every pass reads the row once and
// counts one digit of the keys that share the digits found so far.
#pragma once

#include "rank.cuh"

namespace liftplace {

struct Row {
  Source student, teacher;
  int64_t base;  // of its first element
  int64_t n;
  bool aligned;
  int index_bits;

  __device__ uint64_t key(float d, int64_t index) const {
    return static_cast<uint64_t>(error_bits(d)) << index_bits | static_cast<uint64_t>(index);
  }

  // The student's quad at `index` and d = t - s; both reads are under way before either is used.
  __device__ void read(int64_t index, float (&s)[4], float (&d)[4]) const {
    const uint4 raw_s = load_quad(student, base + index, n - index, aligned);
    const uint4 raw_t = load_quad(teacher, base + index, n - index, aligned);
    const float4 a = to_floats(raw_s, student.dtype), b = to_floats(raw_t, teacher.dtype);
    s[0] = a.x, s[1] = a.y, s[2] = a.z, s[3] = a.w;
    d[0] = b.x - a.x, d[1] = b.y - a.y, d[2] = b.z - a.z, d[3] = b.w - a.w;
  }

  // f(index, s, d) for this thread's share of the row.
  template <typename F>
  __device__ void visit(F f) const {
    for (int64_t i = 4 * static_cast<int64_t>(threadIdx.x); i < n; i += 4 * blockDim.x) {
      float s[4], d[4];
      read(i, s, d);
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        if (i + j < n) f(i + j, s[j], d[j]);
      }
    }
  }
};

// The `count` keys whose bits from `shift` up are `prefix`; `before` keys of the row are smaller.
struct Span {
  uint64_t prefix = 0;
  int shift;
  uint32_t before = 0;
  uint32_t count;

  __device__ uint64_t least() const { return prefix << shift; }
  __device__ uint64_t most() const { return ((prefix + 1) << shift) - 1; }
};

template <int kEach>
struct Selection {
  const Row& row;
  uint32_t* scratch;
  uint32_t* counters;
  int digit_bits;  // 2^digit_bits counters at most

  __device__ explicit Selection(const Row& row) : row(row) {
    scratch = reinterpret_cast<uint32_t*>(shared_memory);
    counters = scratch + kScratchWords + kLead;
    digit_bits = 31 - __clz(kEach * blockDim.x);
  }

  // Starts of the next digit's values among the keys of `span`, in the counters.
  __device__ void count(const Span& span) const {
    const int digits = min(digit_bits, span.shift);
    const int shift = span.shift - digits;
    const uint32_t mask = (1u << digits) - 1;
    clear_counters<kEach>(counters);
    __syncthreads();
    row.visit([&](int64_t index, float, float d) {
      const uint64_t key = row.key(d, index);
      if (key >> span.shift != span.prefix) return;
      atomicAdd(&counters[static_cast<uint32_t>(key >> shift) & mask], 1u);
    });
    __syncthreads();
    scan_counters<kEach>(counters, scratch);
  }

  // The part of `span`, just counted, that holds the key of this rank.
  __device__ Span part(const Span& span, uint32_t rank) const {
    const int digits = min(digit_bits, span.shift);
    const uint32_t inside = rank - span.before;
    for (uint32_t value = threadIdx.x; value < 1u << digits; value += blockDim.x) {
      const uint32_t start = counters[value];
      const uint32_t end = value + 1 < 1u << digits ? counters[value + 1] : span.count;
      if (start <= inside && inside < end) {  // one thread's
        scratch[0] = value;
        scratch[1] = start;
        scratch[2] = end - start;
      }
    }
    __syncthreads();
    Span found;
    found.prefix = span.prefix << digits | scratch[0];
    found.shift = span.shift - digits;
    found.before = span.before + scratch[1];
    found.count = scratch[2];
    __syncthreads();
    return found;
  }

  // Spans of at most `slack` keys, one that holds rank `first` and one that holds rank `last`.
  __device__ void locate(uint32_t first, uint32_t last, uint32_t slack, Span& low,
                         Span& high) const {
    Span all;
    all.shift = 31 + row.index_bits;
    all.count = static_cast<uint32_t>(row.n);
    count(all);
    low = part(all, first);
    high = part(all, last);
    narrow(low, first, slack);
    narrow(high, last, slack);
  }

  __device__ void narrow(Span& span, uint32_t rank, uint32_t slack) const {
    while (span.count > slack && span.shift > 0) {  // with no bit left the count is 1
      count(span);
      span = part(span, rank);
    }
  }
};

// Indices of the row's keys in [least, most] to `list`, ascending, and their error bits to `bits`;
// returns how many.
__device__ inline uint32_t collect(const Row& row, uint64_t least, uint64_t most, uint32_t* list,
                                   uint32_t* bits, uint32_t* scratch) {
  uint32_t total = 0;
  for (int64_t start = 0; start < row.n; start += 4 * blockDim.x) {
    const int64_t i = start + 4 * static_cast<int64_t>(threadIdx.x);
    float s[4], d[4];
    bool wanted[4];
    row.read(i, s, d);
    uint32_t count = 0;
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const uint64_t key = row.key(d[j], i + j);
      wanted[j] = i + j < row.n && least <= key && key <= most;
      count += wanted[j];
    }
    const uint32_t inclusive = warp_inclusive_scan(count);
    if (lane() == 31) scratch[warp()] = inclusive;
    __syncthreads();
    const uint32_t others = lane() < warps() ? scratch[lane()] : 0u;
    uint32_t slot = total + warp_sum(lane() < warp() ? others : 0u) + inclusive - count;
    total += warp_sum(others);
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      if (!wanted[j]) continue;
      list[slot] = static_cast<uint32_t>(i + j);
      bits[slot++] = error_bits(d[j]);
    }
    __syncthreads();
  }
  return total;
}

}  // namespace liftplace
