"""Shared memory with strategies on this host: segments, the socket that hands them over, and who may have one."""
