"""How quiet a host is: gaps of its CPUs, foreign tools, the path of a tick, and whether tuning helped."""
