"""The one error of training: a sentence that names what was given, its value and the mend."""

from __future__ import annotations


class TrainingError(ValueError):
    """Settings or tick files that no model can be made of; the message is for the person who gave them."""
