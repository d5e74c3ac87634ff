// Moments of groups in one pass, in double and relative to one of the group's own elements: the
// spread of a group of m elements is then at least 1 / 2m of what cancels, so that no digit of a
// float is lost, and a constant group has a variance of exactly 0.
#pragma once

#include <cstdint>

#include "fit.h"

namespace liftplace {

// Two numbers that one vector instruction takes together: of s and of d. (GCC and Clang.)
typedef double Pair __attribute__((vector_size(16)));

struct Moments {
  Pair origin;   // an element of the group
  Pair sum;      // of ds and dd, the differences from it
  Pair product;  // sums of ds * ds and ds * dd
  Pair square;   // sums of ds * ds and dd * dd

  void start(float s, float d) {
    origin = Pair{s, d};
    sum = product = square = Pair{0.0, 0.0};
  }
  void add(float s, float d) {
    const Pair x = Pair{s, d} - origin;
    sum += x;
    product += x * Pair{x[0], x[0]};
    square += x * x;
  }
  void add(const Moments& other) {  // of the same origin
    sum += other.sum;
    product += other.product;
    square += other.square;
  }
};

struct Sums {
  double coarse, deviation, fine;

  void operator+=(const Sums& other) {
    coarse += other.coarse;
    deviation += other.deviation;
    fine += other.fine;
  }
};

// Moments of the m elements at(0), at(1), ...; summed in four, because each addition waits for the
// one before.
template <typename At>
Moments moments_of(const float* s, const float* d, int64_t m, At at) {
  Moments lane[4];
  const int64_t first = at(0);
  for (Moments& of : lane) of.start(s[first], d[first]);
  int64_t j = 0;
  for (; j + 4 <= m; j += 4)
    for (int l = 0; l < 4; ++l) lane[l].add(s[at(j + l)], d[at(j + l)]);
  for (; j < m; ++j) lane[0].add(s[at(j)], d[at(j)]);
  for (int l = 1; l < 4; ++l) lane[0].add(lane[l]);
  return lane[0];
}

// The fit of one group of m elements: its six numbers in `coef`, `plane` apart, and its sums.
// inverse: 1 / m, of which a division for every group would show.
static inline Sums fit_group(const Moments& of, double m, double inverse, float eps, bool squared,
                             float* coef, int64_t plane) {
  const Pair mean = of.sum * inverse, product = of.product - of.sum * (of.sum[0] * inverse);
  const double dd = of.square[1] - of.sum[1] * mean[1];
  const float mean_s = float(of.origin[0] + mean[0]), mean_d = float(of.origin[1] + mean[1]);
  const Fit fit =
      linear_fit(mean_s, mean_d, float(product[0] * inverse), float(product[1] * inverse), eps);
  const double off = fit.slope_less_1;
  coef[kSlopeLess1 * plane] = fit.slope_less_1;
  coef[kIntercept * plane] = fit.intercept;
  coef[kMeanS * plane] = mean_s;
  coef[kMeanD * plane] = mean_d;
  coarse_gradient(fit, mean_s, squared, coef[kK * plane], coef[kC * plane]);
  // the sum of (d - off * s)^2 about the means; what rounding leaves below 0 is 0
  const double fine = dd - off * (2.0 * product[1] - off * product[0]);
  return {m * coarse(fit, squared), m * deviation(fit), fine < 0.0 ? 0.0 : fine};
}

}  // namespace liftplace
