"""Triton kernels of the losses for NVIDIA GPUs. Imported when a CUDA tensor arrives."""
