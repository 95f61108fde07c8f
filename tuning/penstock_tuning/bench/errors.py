"""The one error of benchmarks: a sentence that names what was given or found, and the mend."""

from __future__ import annotations


class BenchError(ValueError):
    """A benchmark can't be run, or what it ran against failed; the message is for the person who started it."""
