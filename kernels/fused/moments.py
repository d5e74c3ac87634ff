"""Device functions that every op shares: a group's moments, their merge, the fit and its terms.

A group's moments are (count, mean_s, mean_d, m2_s, c_sd, m2_d): means, and sums of products of
centred values, of the student s and of the difference d = t - s. With the difference in place of
the teacher, slope - 1 and the intercept keep their relative precision where the student is close
to the teacher.
"""

import triton
import triton.language as tl

FP_FUSION = True
"""Passed at every launch, because Triton's default differs between versions. Contraction is safe:
the sort key (t - s) * (t - s) has no sum to contract with."""


@triton.jit
def centre(x, members, total):
    """Mean over axis 1, where each `x` stands for `members` elements, and `x` less the mean.

    The mean of the first differences is taken out once more: a constant group then has zero
    variance exactly, however large its value.
    """
    mean = tl.sum(x * members, axis=1) / total
    centred = x - mean[:, None]
    rest = tl.sum(centred * members, axis=1) / total
    return mean + rest, centred - rest[:, None]


@triton.jit
def tile_moments(s, d, mask):
    """Moments of each row of a (groups, elements) tile, and the centred s and d."""
    members = mask.to(tl.float32)
    count = tl.sum(members, axis=1)
    total = tl.maximum(count, 1.0)  # a padding group has no elements
    mean_s, ds = centre(s, members, total)
    mean_d, dd = centre(d, members, total)
    m2_s = tl.sum(members * ds * ds, axis=1)
    c_sd = tl.sum(members * ds * dd, axis=1)
    m2_d = tl.sum(members * dd * dd, axis=1)
    return count, mean_s, mean_d, m2_s, c_sd, m2_d, ds, dd


@triton.jit
def merge_moments(
    count, mean_s, mean_d, m2_s, c_sd, m2_d, count_b, mean_s_b, mean_d_b, m2_s_b, c_sd_b, m2_d_b
):
    """Moments of the union of two disjoint sets (Chan, Golub and LeVeque 1979)."""
    total = count + count_b
    share = count_b / tl.maximum(total, 1.0)
    delta_s = mean_s_b - mean_s
    delta_d = mean_d_b - mean_d
    product = count * share
    return (
        total,
        mean_s + delta_s * share,
        mean_d + delta_d * share,
        m2_s + m2_s_b + delta_s * delta_s * product,
        c_sd + c_sd_b + delta_s * delta_d * product,
        m2_d + m2_d_b + delta_d * delta_d * product,
    )


@triton.jit
def linear_fit(count, mean_s, mean_d, m2_s, c_sd, eps):
    """(slope - 1, intercept, v + eps) of t on s: b - 1 = (c_sd - eps) / (v + eps)."""
    total = tl.maximum(count, 1.0)
    spread = m2_s / total + eps
    slope_less_1 = tl.div_rn(c_sd / total - eps, spread)
    slope_less_1 += spread - spread  # NaN, where the variance overflows, for a slope of 1
    return slope_less_1, mean_d - slope_less_1 * mean_s, spread


@triton.jit
def residual_squares(slope_less_1, m2_s, c_sd, m2_d):
    """Sum of (a + b s - t)^2 from the moments; rounding may not take it below zero, NaN stays."""
    squares = slope_less_1 * slope_less_1 * m2_s - 2.0 * slope_less_1 * c_sd + m2_d
    return tl.where(squares < 0.0, 0.0, squares)


@triton.jit
def penalty(z, SQUARED: tl.constexpr):
    """phi(z): z^2 or |z|."""
    return z * z if SQUARED else tl.abs(z)


@triton.jit
def penalty_slope(z, SQUARED: tl.constexpr):
    """phi'(z): 2z or sign(z), with sign(0) = 0."""
    if SQUARED:
        slope = 2.0 * z
    else:
        slope = tl.where(z > 0.0, 1.0, tl.where(z < 0.0, -1.0, 0.0))
    return slope


@triton.jit
def store_fit(
    coef_ptr, plane, mask, mean_s, mean_d, slope_less_1, a, spread, SQUARED: tl.constexpr
):
    """Write slope - 1, intercept, mean_s, mean_d, k and c of each group, one plane after the other.

    With phi'(b - 1) = alpha and phi'(a) = gamma: k = (alpha - gamma mean_s) / (v + eps) and
    c = gamma b. The pointer moves from plane to plane, because six may exceed an int32 offset.
    """
    gamma = penalty_slope(a, SQUARED)
    k = (penalty_slope(slope_less_1, SQUARED) - gamma * mean_s) / spread
    tl.store(coef_ptr, slope_less_1, mask=mask)
    coef_ptr += plane
    tl.store(coef_ptr, a, mask=mask)
    coef_ptr += plane
    tl.store(coef_ptr, mean_s, mask=mask)
    coef_ptr += plane
    tl.store(coef_ptr, mean_d, mask=mask)
    coef_ptr += plane
    tl.store(coef_ptr, k, mask=mask)
    coef_ptr += plane
    tl.store(coef_ptr, gamma * (1.0 + slope_less_1), mask=mask)


@triton.jit
def store_sums(partial_ptr, program, count, slope_less_1, a, squares, SQUARED: tl.constexpr):
    """Write a program's sums over its groups: coarse, D and fine, not yet divided by M."""
    inside = count > 0.0
    coarse = count * (penalty(slope_less_1, SQUARED) + penalty(a, SQUARED))
    deviation = count * (tl.abs(slope_less_1) + tl.abs(a))
    partial_ptr += program.to(tl.int64) * 3
    tl.store(partial_ptr, tl.sum(tl.where(inside, coarse, 0.0), axis=0))
    tl.store(partial_ptr + 1, tl.sum(tl.where(inside, deviation, 0.0), axis=0))
    tl.store(partial_ptr + 2, tl.sum(tl.where(inside, squares, 0.0), axis=0))
