"""The host: what it has and what it allows, read with the standard library alone."""
