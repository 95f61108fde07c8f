"""What happens to one tick, as pure computation: features, reservoir, readout, model file."""

from penstock_kernels import compile_cache

compile_cache.use()  # Before anything here imports Numba.
