"""Merging of moments and the centred sums, where naive sums lose every digit."""

import pytest
import torch
import triton
import triton.language as tl

from liftplace.kernels.fused.moments import FP_FUSION, merge_moments, tile_moments


@triton.jit
def _moments_kernel(s_ptr, d_ptr, out_ptr, first, n, BLOCK: tl.constexpr):
    """Moments of elements [0, first) merged with those of [first, n)."""
    lane = tl.arange(0, BLOCK)[None, :]
    s = tl.load(s_ptr + lane, mask=lane < n, other=0.0)
    d = tl.load(d_ptr + lane, mask=lane < n, other=0.0)
    mask = lane < first
    n_a, s_a, d_a, ss_a, sd_a, dd_a, _, _ = tile_moments(
        tl.where(mask, s, 0.0), tl.where(mask, d, 0.0), mask
    )
    mask = (lane >= first) & (lane < n)
    n_b, s_b, d_b, ss_b, sd_b, dd_b, _, _ = tile_moments(
        tl.where(mask, s, 0.0), tl.where(mask, d, 0.0), mask
    )
    count, mean_s, mean_d, m2_s, c_sd, m2_d = merge_moments(
        n_a, s_a, d_a, ss_a, sd_a, dd_a, n_b, s_b, d_b, ss_b, sd_b, dd_b
    )
    out_ptr += tl.arange(0, 1)
    tl.store(out_ptr, count)
    tl.store(out_ptr + 1, mean_s)
    tl.store(out_ptr + 2, mean_d)
    tl.store(out_ptr + 3, m2_s)
    tl.store(out_ptr + 4, c_sd)
    tl.store(out_ptr + 5, m2_d)


@pytest.mark.parametrize("offset", [0.0, 1e4])
@pytest.mark.parametrize("first", [0, 1, 40, 99, 100])
def test_a_split_does_not_change_the_moments(first, offset, device):
    s, d = (torch.randn(100) + offset).to(device), torch.randn(100).to(device)
    out = torch.empty(6, device=device)
    _moments_kernel[(1,)](s, d, out, first, 100, BLOCK=128, enable_fp_fusion=FP_FUSION)
    s, d = s.double(), d.double()
    ds, dd = s - s.mean(), d - d.mean()
    moments = [s.mean(), d.mean(), (ds * ds).sum(), (ds * dd).sum(), (dd * dd).sum()]
    expected = torch.stack([torch.tensor(100.0, device=device, dtype=torch.float64), *moments])
    torch.testing.assert_close(out.double(), expected, rtol=2e-5, atol=1e-4 if offset else 1e-5)
