"""Triton kernels of the operators; imported only when a CUDA tensor arrives."""
