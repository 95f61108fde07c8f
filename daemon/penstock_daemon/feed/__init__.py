"""The multicast feed: packets of two lines become one sequence of messages, books, and ticks in a ring of the engine."""

from penstock_kernels import compile_cache

compile_cache.use()  # Before anything here imports Numba: what is compiled must not outlive its sources.
