"""A local Triton Inference Server: started, watched and stopped."""
