"""The operators by ATen operations alone, and their adjoints: what runs everywhere, and what kernels are held to."""
