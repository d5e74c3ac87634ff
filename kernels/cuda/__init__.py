"""CUDA C++ kernels of LIFT and PLACE; built at first use, called through ctypes."""
