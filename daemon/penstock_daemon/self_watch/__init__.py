"""What the daemon sees of itself that could break its promise: who interrupts its engine, and what slows its CPUs."""
