"""The process: rings, engine thread, gRPC services, sessions, recorder, config."""

from penstock_kernels import compile_cache

compile_cache.use()  # Before anything here is compiled, whichever module is imported first.
