"""An exported file becomes a service: its repository, a local Triton Inference Server, and the clients."""
