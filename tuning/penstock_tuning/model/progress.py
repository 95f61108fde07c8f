"""How long work tells how far it is, without knowing who listens."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Told what is being done and how much of it is done; must not raise."""

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Say that *done* of *total* parts of *stage* are done."""


def silent(stage: str, done: int, total: int) -> None:
    """Tell nobody."""
