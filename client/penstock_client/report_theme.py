"""How the report's figures look, by day and by night."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final


@dataclass(frozen=True)
class Theme:
    """The colours of one look; each a CSS colour that matplotlib knows too."""

    name: str
    background: str
    text: str
    quiet: str  # Axes, secondary words.
    grid: str
    main: str
    second: str
    faint: str  # Areas and single dots.
    budget: str
    up: str
    down: str


DAY: Final = Theme(
    name="light",
    background="#ffffff",
    text="#1c2430",
    quiet="#5b6675",
    grid="#e4e8ee",
    main="#0b5fae",
    second="#c26a00",
    faint="#9fb8d3",
    budget="#c0262d",
    up="#00806a",
    down="#b8451f",
)
NIGHT: Final = Theme(
    name="dark",
    background="#14181f",
    text="#e6eaf0",
    quiet="#9aa5b4",
    grid="#2a313c",
    main="#6fb3ff",
    second="#ffb454",
    faint="#3f5a78",
    budget="#ff6b6b",
    up="#4fd1b0",
    down="#ff8f66",
)


def settings_of(theme: Theme) -> dict[str, Any]:
    """Return matplotlib's settings for *theme*."""
    return {
        "figure.facecolor": theme.background,
        "savefig.facecolor": theme.background,
        "axes.facecolor": theme.background,
        "axes.edgecolor": theme.grid,
        "axes.labelcolor": theme.quiet,
        "axes.titlecolor": theme.text,
        "axes.titlelocation": "left",
        "axes.titlesize": 11,
        "axes.titleweight": "bold",
        "axes.titlepad": 9,
        "axes.labelsize": 9,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "axes.axisbelow": True,
        "grid.color": theme.grid,
        "grid.linewidth": 0.8,
        "text.color": theme.text,
        "xtick.color": theme.quiet,
        "ytick.color": theme.quiet,
        "xtick.labelsize": 8.5,
        "ytick.labelsize": 8.5,
        "xtick.minor.size": 0,
        "ytick.minor.size": 0,
        "legend.frameon": False,
        "legend.fontsize": 8.5,
        "font.family": "sans-serif",
        "font.sans-serif": ["DejaVu Sans"],
        "lines.linewidth": 1.6,
        "svg.hashsalt": "penstock",
    }
