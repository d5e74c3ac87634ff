// The order of a row by error, as far as groups go: which elements are in which group, exactly,
// ties by index; inside a group their order is any.
//
// One distribution into up to twice as many buckets as there are elements, by the error's bits from
// the row's largest down over 16 octaves; what is smaller shares the first bucket. A bucket inside
// one group is done, in whatever order; only one that a group's edge cuts is sorted. However the
// errors lie, the work stays linear: a crowded bucket takes a radix sort.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "fit.h"

namespace liftplace {

constexpr int64_t kMaxBuckets = 1 << 16;  // a bucket's number has 16 bits
constexpr uint32_t kRange = 16u << 23;    // 16 octaves of float bits

static inline int64_t bucket_count(int64_t n) {
  int64_t buckets = 16;
  while (buckets < 2 * n && buckets < kMaxBuckets) buckets *= 2;
  return buckets;
}

// From an error's bits to a bucket; monotone.
struct Buckets {
  int32_t low;
  int shift;

  Buckets(uint32_t high, int64_t count) : low(int32_t(high - std::min(high, kRange))), shift(0) {
    while (int64_t((high - low) >> shift) >= count) ++shift;
  }
  uint16_t operator()(uint32_t bits) const {
    return uint16_t(uint32_t(std::max(int32_t(bits) - low, 0)) >> shift);
  }
};

// Four counters that one vector instruction takes together. (GCC and Clang.)
typedef uint32_t Quad __attribute__((vector_size(16)));

// Each counter becomes the sum of those before it; count: a multiple of 4.
static inline void exclusive_sum(uint32_t* counter, int64_t count) {
  const Quad zero = {};
  Quad before = zero;
  for (int64_t b = 0; b < count; b += 4) {
    Quad mine;
    std::memcpy(&mine, counter + b, sizeof mine);
    Quad sum = mine + __builtin_shufflevector(mine, zero, 4, 0, 1, 2);
    sum += __builtin_shufflevector(sum, zero, 4, 4, 0, 1);
    sum += before;
    before = __builtin_shufflevector(sum, sum, 3, 3, 3, 3);
    sum -= mine;
    std::memcpy(counter + b, &sum, sizeof sum);
  }
}

// What ordering a row takes beside d: bucket n, order n, other n, count bucket_count(n).
template <typename Index>
struct OrderScratch {
  uint16_t* bucket;
  Index *order, *other;
  uint32_t* count;
};

// Sort `order`, m <= kWidth ascending indices of one bucket, by error. An element's rank is the
// number of smaller keys; keys end in the position, so that they differ. Of fixed width and without
// branches, so that it runs on vectors. base: the smallest error bits of the bucket.
template <int kWidth, typename Index>
void rank_sort(const float* d, Index* order, int64_t m, uint32_t base) {
  Index index[kWidth];
  int32_t key[kWidth], rank[kWidth] = {};
  for (int i = 0; i < kWidth; ++i) key[i] = INT32_MAX;
  for (int i = 0; i < m; ++i) {
    index[i] = order[i];
    key[i] = int32_t((error_bits(d[index[i]]) - base) * kWidth) + i;
  }
  for (int j = 0; j < kWidth; ++j)
    for (int i = 0; i < kWidth; ++i) rank[i] += key[j] < key[i];
  for (int i = 0; i < m; ++i) order[rank[i]] = index[i];
}

// Sort `order`, m ascending indices, by error: stable, a byte of the error's bits at a time.
template <typename Index>
void radix_sort(const float* d, Index* order, Index* other, int64_t m) {
  uint32_t low = ~0u, high = 0;
  for (int64_t i = 0; i < m; ++i) {
    low = std::min(low, error_bits(d[order[i]]));
    high = std::max(high, error_bits(d[order[i]]));
  }
  Index *from = order, *to = other;
  for (int shift = 0; shift < 32 && (high - low) >> shift; shift += 8) {
    const auto digit = [=](Index i) { return (error_bits(d[i]) - low) >> shift & 255u; };
    int64_t place[256] = {}, sum = 0;
    for (int64_t i = 0; i < m; ++i) ++place[digit(from[i])];
    for (int64_t& first : place) {
      const int64_t count = first;
      first = sum;
      sum += count;
    }
    for (int64_t i = 0; i < m; ++i) to[place[digit(from[i])]++] = from[i];
    std::swap(from, to);
  }
  if (from != order) std::copy(from, from + m, order);
}

// Indices of a row by error: those of group g, ties by index, at order[g * size] and after.
// d: teacher less student, (n,); high: the largest of its error bits. Fills scratch.order.
template <typename Index>
void order_by_error(const float* d, uint32_t high, int64_t n, int64_t size,
                    const OrderScratch<Index>& scratch) {
  const int64_t last_edge = (group_count(n, size) - 1) * size;
  const int64_t count = bucket_count(n);
  const Buckets bucket_of(high, count);
  uint16_t* __restrict const bucket = scratch.bucket;
  Index* __restrict const order = scratch.order;
  uint32_t* __restrict const place = scratch.count;
  for (int64_t i = 0; i < n; ++i) bucket[i] = bucket_of(error_bits(d[i]));

  std::fill(place, place + count, 0u);
  for (int64_t i = 0; i < n; ++i) ++place[bucket[i]];
  exclusive_sum(place, count);
  for (int64_t i = 0; i < n; ++i) order[place[bucket[i]]++] = Index(i);

  // place[b] is now the end of bucket b.
  for (int64_t edge = size; edge <= last_edge; edge += size) {
    const uint32_t b = bucket[order[edge]];
    const int64_t start = b ? place[b - 1] : 0, end = place[b], m = end - start;
    if (start == edge) continue;
    const uint32_t base = uint32_t(bucket_of.low) + (b << bucket_of.shift);
    if (b && m <= 8) {
      rank_sort<8>(d, order + start, m, base);
    } else if (b && m <= 16) {
      rank_sort<16>(d, order + start, m, base);
    } else if (b && m <= 32) {
      rank_sort<32>(d, order + start, m, base);
    } else {  // crowded, or the first, whose keys spread too far for the above
      radix_sort(d, order + start, scratch.other, m);
    }
    edge += (end - 1 - edge) / size * size;  // the other edges inside the bucket
  }
}

}  // namespace liftplace
