"""Fused Triton kernels of LIFT and PLACE, one file an idea."""
