"""Sessions over rings in memory that a strategy shares with a daemon on its host; see docs/shared-memory.md."""
