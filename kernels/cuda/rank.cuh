// The rank of each of a block's elements by (error bits, index), by buckets in shared memory.
//
// A bucket is an interval of error bits, a power of two wide, so that inside it the low bits and
// the index order elements: together they fit 32 bits, the element's `word`. A counting pass, a
// scan and a scatter put the words into bucket order. An element's rank is its bucket's start plus
// the number of bucket mates with a smaller word: arrival order never shows.
//
// Comparing mates costs the sum of squared counts. Where that is too much (ties, outliers) buckets
// are cut again, each by the range of its words into as many parts as it has elements. Words are
// unique, so c elements span at least c values and a cut divides a range by c: after six rounds no
// bucket of 64 can be left of 2^32. Ranks are right after any number of rounds.
#pragma once

#include "common.cuh"

namespace liftplace {

constexpr uint32_t kAbsent = 0xffffffffu;  // bucket of an item past the end

// Asked anew each time: the compiler would keep the answers of all items in a register.
__device__ inline bool absent(uint32_t bucket) { return fresh(bucket) == kAbsent; }

constexpr uint32_t kMates = 32;            // on average, above which buckets are cut again
constexpr int kRounds = 6;
constexpr int kLead = 4;                   // words before the counters; keeps them on 16 bytes

// Exclusive scan of kEach counters a thread, in place; returns the sum of their squares. A warp's
// own scan goes through shared memory, because the items of a thread take the registers.
template <int kEach>
__device__ uint32_t scan_counters(uint32_t* counters, uint32_t* scratch) {
  const uint32_t thread = fresh(threadIdx.x);
  uint4* mine = reinterpret_cast<uint4*>(counters) + (thread / 32) * (8 * kEach) + thread % 32;
  uint32_t carry = 0, squares = 0;
#pragma unroll 2
  for (int i = 0; i < kEach / 4; ++i) {
    const uint4 c = mine[32 * i];
    squares += c.x * c.x + c.y * c.y + c.z * c.z + c.w * c.w;
    const uint32_t sum = c.x + c.y + c.z + c.w;
    const uint32_t inclusive = warp_inclusive_scan(sum);
    const uint32_t first = carry + inclusive - sum;
    mine[32 * i] = {first, first + c.x, first + c.x + c.y, first + c.x + c.y + c.z};
    carry += __shfl_sync(kAll, inclusive, 31);
  }
  squares = warp_sum(squares);
  if (lane() == 0) {
    scratch[warp()] = carry;
    scratch[kMaxWarps + warp()] = squares;
  }
  __syncthreads();
  const uint32_t before = warp_sum(lane() < warp() ? scratch[lane()] : 0u);
  squares = warp_sum(lane() < warps() ? scratch[kMaxWarps + lane()] : 0u);
#pragma unroll 2
  for (int i = 0; i < kEach / 4; ++i) {
    const uint4 s = mine[32 * i];
    mine[32 * i] = {s.x + before, s.y + before, s.z + before, s.w + before};
  }
  __syncthreads();
  return squares;
}

template <int kEach>
__device__ void clear_counters(uint32_t* counters) {
  uint4* quads = reinterpret_cast<uint4*>(counters);
  for (uint32_t i = fresh(threadIdx.x); i < kEach * blockDim.x / 4; i += blockDim.x) {
    quads[i] = {0, 0, 0, 0};
  }
}

// Ranks kItems elements a thread.
template <int kItems>
struct Ranking {
  // Two counters an item keep buckets small; at 16 items one has to do, for sm_80's shared memory.
  static constexpr int kEach = kItems == 16 ? 16 : 2 * kItems;

  uint32_t* scratch;
  uint32_t* counters;
  uint32_t* words;
  uint32_t low;  // the least error bits
  int shift;     // low bits inside a bucket
  int index_bits;

  __device__ Ranking() {
    scratch = reinterpret_cast<uint32_t*>(shared_memory);
    counters = scratch + kScratchWords + kLead;
    words = counters + kEach * blockDim.x;
    index_bits = 32 - __clz(kItems * blockDim.x - 1);
  }

  // Buckets over the range of all error bits: as narrow as the number of counters allows.
  __device__ void measure(uint32_t least, uint32_t most) {
    least = __reduce_min_sync(kAll, least);
    most = __reduce_max_sync(kAll, most);
    if (lane() == 0) {
      scratch[warp()] = least;
      scratch[kMaxWarps + warp()] = most;
    }
    __syncthreads();
    low = __reduce_min_sync(kAll, lane() < warps() ? scratch[lane()] : 0xffffffffu);
    most = __reduce_max_sync(kAll, lane() < warps() ? scratch[kMaxWarps + lane()] : 0u);
    const uint32_t range = most - low;
    const uint32_t buckets = kEach * blockDim.x;
    shift = 0;
    while (range >> shift >= buckets) ++shift;
  }

  // Put the words into bucket order; counters then hold each bucket's end.
  __device__ uint32_t distribute(const uint32_t (&word)[kItems], const uint32_t (&bucket)[kItems]) {
    clear_counters<kEach>(counters);
    if (threadIdx.x == 0) counters[-1] = 0;  // where the first bucket starts
    __syncthreads();
#pragma unroll
    for (int i = 0; i < kItems; ++i) {
      if (!absent(bucket[i])) atomicAdd(&counters[bucket[i]], 1u);
    }
    __syncthreads();
    const uint32_t squares = scan_counters<kEach>(counters, scratch);
#pragma unroll
    for (int i = 0; i < kItems; ++i) {
      if (!absent(bucket[i])) words[atomicAdd(&counters[bucket[i]], 1u)] = word[i];
    }
    __syncthreads();
    return squares;
  }

  // Cut every bucket by the range of its words into as many buckets as it has elements.
  __device__ void cut(const uint32_t (&word)[kItems], uint32_t (&bucket)[kItems]) {
#pragma unroll
    for (int i = 0; i < kItems; ++i) {  // to (start, count), both below 2^16
      if (absent(bucket[i])) continue;
      const uint32_t start = counters[static_cast<int>(bucket[i]) - 1];
      bucket[i] = start << 16 | (counters[bucket[i]] - start);
    }
    __syncthreads();
    uint32_t* least = counters;  // of the bucket that starts here
    uint32_t* most = words;
    for (uint32_t i = fresh(threadIdx.x); i < kItems * blockDim.x; i += blockDim.x) {
      least[i] = 0xffffffffu;
      most[i] = 0;
    }
    __syncthreads();
#pragma unroll
    for (int i = 0; i < kItems; ++i) {
      if (absent(bucket[i])) continue;
      atomicMin(&least[bucket[i] >> 16], word[i]);
      atomicMax(&most[bucket[i] >> 16], word[i]);
    }
    __syncthreads();
#pragma unroll
    for (int i = 0; i < kItems; ++i) {
      if (absent(bucket[i])) continue;
      const uint32_t start = bucket[i] >> 16, count = bucket[i] & 0xffff;
      const uint32_t first = least[start];
      // Rounding is monotone, and that is all that order asks for.
      const float width = static_cast<float>(most[start] - first) + 1.0f;
      const float scale = __fdividef(static_cast<float>(count), width);
      const float part = static_cast<float>(word[i] - first) * scale;
      bucket[i] = start + min(static_cast<uint32_t>(part), count - 1);
    }
    __syncthreads();
  }

  // Ranks, in place of buckets.
  __device__ void count_mates(const uint32_t (&word)[kItems], uint32_t (&bucket)[kItems]) const {
#pragma unroll
    for (int i = 0; i < kItems; ++i) {
      if (absent(bucket[i])) continue;
      const uint32_t start = counters[static_cast<int>(bucket[i]) - 1];
      const uint32_t end = counters[bucket[i]];
      uint32_t rank = start;
#pragma unroll 2
      for (uint32_t mate = start; mate < end; ++mate) rank += words[mate] < word[i];
      bucket[i] = rank;
    }
    __syncthreads();
  }

  // Ranks by (key[i], index(i)) of the items with index(i) < count, kAbsent for the others.
  // index(i): below the block's items, the same order as in the row. Overwrites the keys.
  template <typename Index>
  __device__ void rank(uint32_t (&key)[kItems], Index index, uint32_t count,
                       uint32_t (&ranks)[kItems]) {
    uint32_t least = 0xffffffffu, most = 0;
#pragma unroll
    for (int i = 0; i < kItems; ++i) {
      if (index(i) >= count) continue;
      least = min(least, key[i]);
      most = max(most, key[i]);
    }
    measure(least, most);
#pragma unroll
    for (int i = 0; i < kItems; ++i) {
      key[i] -= low;
      ranks[i] = index(i) < count ? key[i] >> shift : kAbsent;
      key[i] = (key[i] & ((1u << shift) - 1)) << index_bits | index(i);  // now the word
    }
    for (int round = 0; distribute(key, ranks) > kMates * count && round < kRounds; ++round) {
      cut(key, ranks);
    }
    count_mates(key, ranks);
  }
};

}  // namespace liftplace
