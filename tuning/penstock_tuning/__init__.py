"""Everything that makes models and numbers: training, the simulated market, benchmarks."""
