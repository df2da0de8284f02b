"""C++ kernels of the optimizer, compiled on first use."""
