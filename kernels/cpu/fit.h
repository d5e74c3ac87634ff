// A group's linear fit and its share of the gradient: the arithmetic that the CPU op and the CUDA
// kernels have in common. Written in d = t - s, so that slope - 1 and the intercept keep their
// digits where the student is close to the teacher.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#ifdef __CUDACC__
#define LIFTPLACE_HD static __host__ __device__ inline
#else
#define LIFTPLACE_HD static inline
#endif

namespace liftplace {

// Planes of `coef`, (6, rows, groups); k and c are the coarse term's share of the gradient.
enum Plane { kSlopeLess1, kIntercept, kMeanS, kMeanD, kK, kC, kPlanes };

// Entries of `terms`, (4,).
enum Term { kCoarse, kFine, kDeviation, kWeight, kTerms };

// Groups of a row of n elements in groups of `size`: the last has what is left, but one element
// alone, which no line fits, joins the group before it.
LIFTPLACE_HD int64_t group_count(int64_t n, int64_t size) {
  return n > size && n % size == 1 ? n / size : (n + size - 1) / size;
}

// Members of group g of `groups`; 0 beyond them.
LIFTPLACE_HD int64_t group_members(int64_t n, int64_t size, int64_t groups, int64_t g) {
  if (g >= groups) return 0;
  return g == groups - 1 ? n - g * size : size;
}

// What orders a row: the bits of e = d * d without the sign, which a NaN may carry.
LIFTPLACE_HD uint32_t error_bits(float d) {
  const float e = d * d;
  uint32_t bits;
  std::memcpy(&bits, &e, sizeof bits);
  return bits & 0x7fffffffu;
}

struct Fit {
  float slope_less_1, intercept, inverse;  // inverse of the variance plus eps
};

// The fit from means, variance of s and covariance of s and d.
LIFTPLACE_HD Fit linear_fit(float mean_s, float mean_d, float variance, float covariance,
                            float eps) {
  const float inverse = 1.0f / (variance + eps);
  // A variance beyond float gives NaN and not a slope of 1.
  const float slope_less_1 = (covariance - eps) * inverse + (variance - variance);
  return {slope_less_1, mean_d - slope_less_1 * mean_s, inverse};
}

// |b - 1| + |a|, the deviation D of one group.
LIFTPLACE_HD float deviation(const Fit& fit) {
  return std::fabs(fit.slope_less_1) + std::fabs(fit.intercept);
}

// phi(b - 1) + phi(a); `squared` is the l2 norm.
LIFTPLACE_HD float coarse(const Fit& fit, bool squared) {
  if (!squared) return deviation(fit);
  return fit.slope_less_1 * fit.slope_less_1 + fit.intercept * fit.intercept;
}

// phi'; the sign of z, 0 at 0, without a branch that half of all groups would mispredict.
LIFTPLACE_HD float slope_of_norm(float z, bool squared) {
  return squared ? 2.0f * z : float(z > 0.0f) - float(z < 0.0f);
}

// k and c of `coef`.
LIFTPLACE_HD void coarse_gradient(const Fit& fit, float mean_s, bool squared, float& k, float& c) {
  const float gamma = slope_of_norm(fit.intercept, squared);
  k = (slope_of_norm(fit.slope_less_1, squared) - gamma * mean_s) * fit.inverse;
  c = gamma * (fit.slope_less_1 + 1.0f);
}

// The gradient of one element is of_ds * (s - mean_s) + of_dd * (d - mean_d) + of_one. Centred,
// because folded to s and t it cancels where the variance is small.
struct Gradient {
  float of_ds, of_dd, of_one;
};

// unit: grad_out * scale / elements; w: the weight of the fine term.
LIFTPLACE_HD Gradient group_gradient(float slope_less_1, float k, float c, float w, float unit,
                                     bool with_coarse, bool with_fine) {
  Gradient g = {0.0f, 0.0f, 0.0f};
  if (with_coarse) g = {k * (-1.0f - 2.0f * slope_less_1), k, -c};
  if (with_fine) {
    const float pull = 2.0f * w * (slope_less_1 + 1.0f);
    g.of_ds += pull * slope_less_1;
    g.of_dd -= pull;
  }
  return {g.of_ds * unit, g.of_dd * unit, g.of_one * unit};
}

// The four terms, and in return the loss, from means over all elements of coarse, D and fine.
// weight: NaN-safe 1 - min(1, D) where `adaptive`, else `given`.
LIFTPLACE_HD float combine_terms(float coarse, float deviation, float fine, bool adaptive,
                                 float given, float scale, bool with_coarse, bool with_fine,
                                 float* terms) {
  const float w = adaptive ? 1.0f - (deviation > 1.0f ? 1.0f : deviation) : given;
  float loss = 0.0f;
  if (with_coarse) loss += coarse;
  if (with_fine) loss += w * fine;
  terms[kCoarse] = coarse;
  terms[kFine] = fine;
  terms[kDeviation] = deviation;
  terms[kWeight] = w;
  return loss * scale;
}

}  // namespace liftplace
