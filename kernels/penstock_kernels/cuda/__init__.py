"""The same predictor as CUDA C++: sources, how they are put together and compiled, and what host and device share."""
