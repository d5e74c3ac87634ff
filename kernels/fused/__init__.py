"""Fused Triton kernels of LIFT and PLACE; imported as `liftplace.kernels`, one file an idea."""
