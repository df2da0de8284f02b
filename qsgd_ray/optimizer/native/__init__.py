"""C++ kernels of the optimizer: adam_step.cpp and gather.cpp, compiled on first use by compiler.py."""
