// The fit of one group from its members' (s, d), by a team of lanes or by the whole block.
#pragma once

#include "common.cuh"

namespace liftplace {

// Where a row's fits go: coef, (6, rows, groups), at its first group; plane = rows * groups.
struct FitOut {
  float* coef;
  int64_t plane;
  float eps;
  bool squared;
};

// Sums over elements, of the groups that a thread speaks for.
struct Sums {
  float coarse = 0.0f, deviation = 0.0f, fine = 0.0f;
};

// `size` neighbouring lanes of a warp, a power of two.
struct LaneTeam {
  int size, rank;
  __device__ float2 sum(float2 x) const {
    for (int other = size / 2; other > 0; other >>= 1) {
      x.x += __shfl_xor_sync(kAll, x.x, other);
      x.y += __shfl_xor_sync(kAll, x.y, other);
    }
    return x;
  }
};

struct BlockTeam {
  int size, rank;
  float2* scratch;
  __device__ float2 sum(float2 x) const { return block_sum(x, scratch); }
};

// A thread's share of a group: members rank, rank + size, ...
struct SharedMembers {
  const float2* first;
  int begin, step, count;
  template <typename F>
  __device__ void visit(F f) const {
    for (int i = begin; i < count; i += step) f(first[i]);
  }
};

// The same where it is at most four: read once. Groups start at different ones of their four, so
// that teams that stand a power of two apart do not meet in a bank.
struct KeptMembers {
  float2 member[4];
  bool there[4];
  __device__ KeptMembers(const float2* first, int begin, int step, int count, int turn) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int at = ((i + turn) & 3) * step + begin;
      there[i] = at < count;
      member[i] = there[i] ? first[at] : float2{0.0f, 0.0f};
    }
  }
  template <typename F>
  __device__ void visit(F f) const {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      if (there[i]) f(member[i]);
    }
  }
};

// Means of s and d, and sums of ds^2 and ds * dd. Means are taken twice: the first mean of equal
// large numbers is off by its rounding, whose square would stand against eps where the variance
// is 0.
struct Moments {
  float2 mean, rest, squares;
  __device__ float2 centred(float2 x) const {
    return {(x.x - mean.x) - rest.x, (x.y - mean.y) - rest.y};
  }
};

template <typename Team, typename Members>
__device__ Moments group_moments(const Team& team, const Members& members, float n) {
  Moments m;
  float2 part = {0.0f, 0.0f};
  members.visit([&](float2 x) { part = {part.x + x.x, part.y + x.y}; });
  part = team.sum(part);
  m.mean = {part.x / n, part.y / n};
  part = {0.0f, 0.0f};
  members.visit([&](float2 x) { part = {part.x + (x.x - m.mean.x), part.y + (x.y - m.mean.y)}; });
  part = team.sum(part);
  m.rest = {part.x / n, part.y / n};
  part = {0.0f, 0.0f};
  members.visit([&](float2 x) {
    x = m.centred(x);
    part = {part.x + x.x * x.x, part.y + x.x * x.y};
  });
  m.squares = team.sum(part);
  return m;
}

// A group's six numbers to `coef`, and its share of the sums.
__device__ inline void store_fit(const Fit& fit, float mean_s, float mean_d, float n, float fine,
                                 int64_t group, const FitOut& out, Sums& sums) {
  float k, c;
  coarse_gradient(fit, mean_s, out.squared, k, c);
  float* coef = out.coef + group;
  coef[kSlopeLess1 * out.plane] = fit.slope_less_1;
  coef[kIntercept * out.plane] = fit.intercept;
  coef[kMeanS * out.plane] = mean_s;
  coef[kMeanD * out.plane] = mean_d;
  coef[kK * out.plane] = k;
  coef[kC * out.plane] = c;
  sums.coarse += n * coarse(fit, out.squared);
  sums.deviation += n * deviation(fit);
  sums.fine += fine;
}

// Fit t = s + d on s over a group of `count`; every thread of the team calls it, and with count 0
// nothing is written.
template <typename Team, typename Members>
__device__ void fit_group(const Team& team, const Members& members, int count, int64_t group,
                          const FitOut& out, Sums& sums) {
  const float n = static_cast<float>(max(count, 1));
  const Moments m = group_moments(team, members, n);
  const float mean_s = m.mean.x + m.rest.x, mean_d = m.mean.y + m.rest.y;
  const Fit fit = linear_fit(mean_s, mean_d, m.squares.x / n, m.squares.y / n, out.eps);
  float fine = 0.0f;
  members.visit([&](float2 x) {
    x = m.centred(x);
    const float residual = x.y - fit.slope_less_1 * x.x;
    fine += residual * residual;
  });
  fine = team.sum({fine, 0.0f}).x;
  if (team.rank == 0 && count > 0) store_fit(fit, mean_s, mean_d, n, fine, group, out, sums);
}

// A block's sums to its row of `partial`: coarse, deviation, fine.
__device__ inline void store_sums(Sums sums, float* partial, float2* scratch) {
  const float2 pair = block_sum({sums.coarse, sums.deviation}, scratch);
  const float2 fine = block_sum({sums.fine, 0.0f}, scratch);
  if (threadIdx.x != 0) return;
  partial += static_cast<int64_t>(blockIdx.x) * 3;
  partial[0] = pair.x;
  partial[1] = pair.y;
  partial[2] = fine.x;
}

// Fit the groups of `size` that follow each other in pairs[0 .. count); the last has what is left.
__device__ inline void fit_groups(const float2* pairs, int count, int size, int groups,
                                  const FitOut& out, Sums& sums, float2* scratch) {
  if (size > 2048) {  // a warp would take more than 64 trips a pass
    for (int g = 0; g < groups; ++g) {
      const int members = static_cast<int>(group_members(count, size, groups, g));
      const BlockTeam team = {static_cast<int>(blockDim.x), static_cast<int>(threadIdx.x), scratch};
      fit_group(team, SharedMembers{pairs + g * size, team.rank, team.size, members}, members, g,
                out, sums);
    }
    return;
  }
  // Four members a lane: shuffles are few, and what was read stays in registers.
  const int most = max(size, count - (groups - 1) * size);  // members
  const int lanes = most <= 4 ? 1 : min(32, 1 << (30 - __clz(most - 1)));
  const LaneTeam team = {lanes, lane() & (lanes - 1)};
  const int teams = 32 / lanes;  // of a warp
  for (int first = warp() * teams; first < groups; first += warps() * teams) {
    const int g = first + lane() / lanes;
    const int members = static_cast<int>(group_members(count, size, groups, g));
    const float2* begin = pairs + static_cast<int64_t>(g) * size;
    if (most <= 128) {
      fit_group(team, KeptMembers(begin, team.rank, lanes, members, g), members, g, out, sums);
    } else {
      fit_group(team, SharedMembers{begin, team.rank, lanes, members}, members, g, out, sums);
    }
  }
}

}  // namespace liftplace
