"""Clients of a served model, blocking and asynchronous, over gRPC, HTTP and shared memory."""
