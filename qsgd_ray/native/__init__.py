"""C++ kernels of circuits and the optimizer (*.cpp), built at installation or compiled on first use by compiler.py."""
