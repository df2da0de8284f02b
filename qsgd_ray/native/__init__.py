"""C++ kernels (*.cpp), and compiler.py, which compiles them on first use: of the optimizer, and of circuits."""
