"""A drawing as SVG text: rectangles, lines, paths and words, by day, by night and on paper.

Colours are classes, never attributes, and the style sheet in the drawing gives each its colour by day and by night; so
one file suits a browser, a page that takes it in, and a printer. Nothing is loaded from anywhere.

    whatever the words are, the result is well-formed XML
"""

from __future__ import annotations

import html
from typing import Final

# Class: (property, by day, by night).
_COLOURS: Final = {
    "ground": ("fill", "#ffffff", "#14181f"),
    "words": ("fill", "#1c2430", "#e6eaf0"),
    "quiet": ("fill", "#5b6675", "#9aa5b4"),
    "grid": ("stroke", "#e4e8ee", "#2a313c"),
    "axis": ("stroke", "#b9c2cd", "#465063"),
    "before": ("stroke", "#c26a00", "#ffb454"),
    "before-area": ("fill", "#c26a00", "#ffb454"),
    "after": ("stroke", "#0b5fae", "#6fb3ff"),
    "after-area": ("fill", "#0b5fae", "#6fb3ff"),
    "bound": ("stroke", "#c0262d", "#ff6b6b"),
    "better": ("stroke", "#00806a", "#4fd1b0"),
    "better-words": ("fill", "#00806a", "#4fd1b0"),
    "worse": ("stroke", "#c0262d", "#ff6b6b"),
    "worse-words": ("fill", "#c0262d", "#ff6b6b"),
    "same": ("stroke", "#5b6675", "#9aa5b4"),
    "same-words": ("fill", "#5b6675", "#9aa5b4"),
}
_PREFIX: Final = "pt-"  # A page has classes of its own.
_FONT: Final = 'system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif'


class Drawing:
    """A drawing of *width* by *height*, origin at the upper left; parts lie over those drawn before."""

    def __init__(self, width: float, height: float, title: str) -> None:
        self.width = width
        self.height = height
        self._title = title
        self._parts: list[str] = []

    def rectangle(self, x: float, y: float, width: float, height: float, look: str, *, opacity: float = 1.0) -> None:
        """Draw a filled rectangle."""
        self._parts.append(
            f'<rect x="{_n(x)}" y="{_n(y)}" width="{_n(max(width, 0))}" height="{_n(max(height, 0))}" '
            f'class="{_look(look)}"{_opacity(opacity)}/>'
        )

    def line(
        self, x1: float, y1: float, x2: float, y2: float, look: str, *, wide: float = 1.0, dashed: bool = False
    ) -> None:
        """Draw a line."""
        dashes = ' stroke-dasharray="3 3"' if dashed else ""
        self._parts.append(
            f'<line x1="{_n(x1)}" y1="{_n(y1)}" x2="{_n(x2)}" y2="{_n(y2)}" class="{_look(look)}" '
            f'stroke-width="{_n(wide)}"{dashes}/>'
        )

    def polyline(self, points: list[tuple[float, float]], look: str, *, wide: float = 1.5) -> None:
        """Draw a line through *points*."""
        if points:
            self._parts.append(
                f'<polyline points="{_points(points)}" class="{_look(look)}" fill="none" stroke-width="{_n(wide)}" '
                'stroke-linejoin="round"/>'
            )

    def area(self, points: list[tuple[float, float]], look: str, *, opacity: float) -> None:
        """Fill the polygon of *points*."""
        if points:
            self._parts.append(f'<polygon points="{_points(points)}" class="{_look(look)}"{_opacity(opacity)}/>')

    def dot(self, x: float, y: float, radius: float, look: str) -> None:
        """Draw a filled circle."""
        self._parts.append(f'<circle cx="{_n(x)}" cy="{_n(y)}" r="{_n(radius)}" class="{_look(look)}"/>')

    def words(
        self,
        x: float,
        y: float,
        text: str,
        *,
        look: str = "words",
        size: float = 11,
        anchor: str = "start",
        bold: bool = False,
    ) -> None:
        """Write *text* with its base line at *y*.

        Args:
            x: where the anchor is.
            y: the base line.
            text: anything.
            look: a class of words.
            size: of the letters.
            anchor: start, middle or end.
            bold: whether it is.
        """
        weight = ' font-weight="600"' if bold else ""
        self._parts.append(
            f'<text x="{_n(x)}" y="{_n(y)}" font-size="{_n(size)}" text-anchor="{anchor}" class="{_look(look)}"{weight}>'
            f"{escaped(text)}</text>"
        )

    def place(self, other: Drawing, x: float, y: float) -> None:
        """Put *other* into this drawing, its upper left corner at (*x*, *y*)."""
        self._parts.append(f'<g transform="translate({_n(x)} {_n(y)})">{"".join(other._parts)}</g>')

    def rendered(self) -> str:
        """Return the drawing as an SVG element that stands alone or in a page."""
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_n(self.width)} {_n(self.height)}" '
            f'width="{_n(self.width)}" height="{_n(self.height)}" role="img" aria-label="{escaped(self._title)}" '
            f"font-family='{_FONT}'><title>{escaped(self._title)}</title><style>{_style()}</style>"
            f'<rect width="100%" height="100%" class="{_look("ground")}"/>{"".join(self._parts)}</svg>\n'
        )


def escaped(text: str) -> str:
    """Return *text* for XML and HTML alike; characters that XML can't have become question marks."""
    legal = "".join(
        one if one in "\t\n" or " " <= one < "\x7f" or (one >= "\xa0" and not _forbidden(ord(one))) else "?"
        for one in text
    )
    return html.escape(legal)


def _forbidden(point: int) -> bool:
    return 0xD800 <= point <= 0xDFFF or point & 0xFFFE == 0xFFFE


def _style() -> str:
    day = "".join(f".{_PREFIX}{name}{{{what}:{colour}}}" for name, (what, colour, _) in _COLOURS.items())
    night = "".join(f".{_PREFIX}{name}{{{what}:{colour}}}" for name, (what, _, colour) in _COLOURS.items())
    return f"{day}@media screen and (prefers-color-scheme:dark){{{night}}}"


def _look(name: str) -> str:
    assert name in _COLOURS, f"no look of the name {name}"
    return _PREFIX + name


def _opacity(opacity: float) -> str:
    return "" if opacity == 1.0 else f' fill-opacity="{_n(opacity)}"'


def _points(points: list[tuple[float, float]]) -> str:
    return " ".join(f"{_n(x)},{_n(y)}" for x, y in points)


def _n(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".")
