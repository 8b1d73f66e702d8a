"""The operators and their adjoints in ATen operations only: they run everywhere and are the kernels' reference."""
