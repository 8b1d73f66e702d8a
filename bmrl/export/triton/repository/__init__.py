"""Model repositories for the Triton Inference Server: written, checked and read."""
