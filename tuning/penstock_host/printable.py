"""Words of a host as a terminal may show them: names of threads and files are anybody's, and may hold any bytes.

printable(text) has no character that moves a cursor or forges a line, and can be encoded; one_line(text) no line's end
"""

from __future__ import annotations

from typing import Any, Final

_KEPT: Final = frozenset("\n\t")


def printable(text: str) -> str:
    """Return *text* with what can't be printed written as an escape; a byte that was no UTF-8 by its number."""
    if text.isprintable():
        return text
    return "".join(letter if letter.isprintable() or letter in _KEPT else _escaped(letter) for letter in text)


def one_line(text: str) -> str:
    """Return *text* in one line."""
    return printable(text).replace("\n", "\\n")


def whole(value: Any) -> Any:
    """Return a document for JSON without half a character: such a one is refused by strict readers."""
    if isinstance(value, str):
        return value.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    if isinstance(value, dict):
        return {whole(key): whole(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [whole(one) for one in value]
    return value


def _escaped(letter: str) -> str:
    code = ord(letter)
    if 0xDC80 <= code <= 0xDCFF:
        return f"\\x{code - 0xDC00:02x}"
    return letter.encode("unicode_escape").decode("ascii")
