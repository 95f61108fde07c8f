"""Reads the .proto sources with their comments, which the generated descriptors leave out.

It knows the part of proto3 that the contract uses and refuses the rest, so nothing can hide from the lint by being
unusual: every token of a file ends up in an element or raises. ``test_proto_lint`` compares what was read with the
descriptors.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

_TOKEN = re.compile(r"(?P<comment>//[^\n]*)|(?P<text>\"[^\"\n]*\")|(?P<word>[\w.]+)|(?P<mark>[{}()=;<>,\[\]-])")
_LABELS = {"repeated", "optional", "required"}


class ProtoSyntaxError(ValueError):
    """A source that is not in the part of proto3 that the contract uses."""


@dataclass
class Element:
    """A message, field, oneof, enum, value, service or rpc, with the comment block right above it."""

    kind: str
    name: str
    comment: str
    line: int
    parent: str
    number: int | None = None
    type: str = ""  # Of a field.
    label: str = ""  # Of a field: repeated, optional or required.
    request: str = ""  # Of an rpc, as its response.
    response: str = ""
    streams: tuple[bool, bool] = (False, False)

    @property
    def full_name(self) -> str:
        """The name with those of what it stands in."""
        return f"{self.parent}.{self.name}"


@dataclass
class ProtoFile:
    """One source."""

    path: str  # Below the root of imports, such as "penstock/v1/status.proto".
    syntax: str = ""
    package: str = ""
    imports: list[tuple[str, str]] = field(default_factory=list)  # (public, weak or "", path)
    options: dict[str, str] = field(default_factory=dict)
    elements: list[Element] = field(default_factory=list)


@dataclass(frozen=True)
class _Token:
    kind: str
    text: str
    line: int
    comment: str  # The comment block right above, without a blank line between.


def _tokens(path: str, source: str) -> Iterator[_Token]:
    """Yield what is not a comment, each with the comment block above it."""
    block: list[str] = []
    line_of_last = 0
    for line, text in enumerate(source.splitlines(), 1):
        position = 0
        if not text.strip():
            block = []
        while position < len(text):
            if text[position].isspace():
                position += 1
                continue
            match = _TOKEN.match(text, position)
            if match is None:
                raise ProtoSyntaxError(f"{path}:{line}: cannot read {text[position:]!r}")
            position = match.end()
            kind = str(match.lastgroup)
            if kind == "comment":
                if line != line_of_last:  # One behind code on the same line belongs to nothing.
                    block.append(match.group()[2:].strip())
                continue
            yield _Token(kind, match.group(), line, " ".join(block))
            block, line_of_last = [], line


class _Reader:
    """Reads one file's tokens, top down."""

    def __init__(self, path: str, source: str) -> None:
        self._file = ProtoFile(path)
        self._tokens = list(_tokens(path, source))
        self._next = 0

    def read(self) -> ProtoFile:
        while self._next < len(self._tokens):
            self._top_level()
        return self._file

    def _take(self, *wanted: str) -> _Token:
        """Take the next token, which must be one of *wanted* if any are given."""
        if self._next == len(self._tokens):
            raise ProtoSyntaxError(f"{self._file.path}: ends where {wanted or 'more'} should stand")
        token = self._tokens[self._next]
        if wanted and token.text not in wanted:
            raise ProtoSyntaxError(f"{self._file.path}:{token.line}: {token.text!r} stands where {wanted} should")
        self._next += 1
        return token

    def _peek(self) -> str:
        return self._tokens[self._next].text if self._next < len(self._tokens) else ""

    def _word(self) -> str:
        token = self._take()
        if token.kind != "word":
            raise ProtoSyntaxError(f"{self._file.path}:{token.line}: {token.text!r} stands where a name should")
        return token.text

    def _add(self, head: _Token, kind: str, name: str, parent: str, **rest: object) -> Element:
        element = Element(kind, name, head.comment, head.line, parent, **rest)  # type: ignore[arg-type]
        self._file.elements.append(element)
        return element

    def _top_level(self) -> None:
        head = self._take("syntax", "package", "import", "option", "message", "enum", "service")
        if head.text == "syntax":
            self._take("=")
            self._file.syntax = self._take().text.strip('"')
            self._take(";")
        elif head.text == "package":
            self._file.package = self._word()
            self._take(";")
        elif head.text == "import":
            modifier = self._take().text if self._peek() in {"public", "weak"} else ""
            self._file.imports.append((modifier, self._take().text.strip('"')))
            self._take(";")
        elif head.text == "option":
            name = self._word()
            self._take("=")
            self._file.options[name] = self._take().text.strip('"')
            self._take(";")
        else:
            self._block(head, self._file.package)

    def _block(self, head: _Token, parent: str) -> None:
        """Read a message, enum, service or oneof, whose keyword is *head*."""
        element = self._add(head, head.text, self._word(), parent)
        self._take("{")
        while self._peek() != "}":
            if head.text == "enum":
                self._value(element.full_name)
            elif head.text == "service":
                self._rpc(element.full_name)
            elif head.text == "message" and self._peek() in {"message", "enum", "oneof"}:
                self._block(self._take(), element.full_name)
            else:  # The fields of a oneof are the message's.
                self._field(parent if head.text == "oneof" else element.full_name)
        self._take("}")

    def _value(self, parent: str) -> None:
        head = self._take()
        if head.text == "option":
            name = self._word()
            self._take("=")
            self._file.options[f"{parent}.{name}"] = self._take().text
        else:
            self._take("=")
            self._add(head, "value", head.text, parent, number=int(self._word()))
        self._take(";")

    def _field(self, parent: str) -> None:
        head = self._take()
        label = head.text if head.text in _LABELS else ""
        type_name = self._word() if label else head.text
        name = self._word()
        self._take("=")
        self._add(head, "field", name, parent, number=int(self._word()), type=type_name, label=label)
        self._take(";")

    def _rpc(self, parent: str) -> None:
        head = self._take("rpc")
        name = self._word()
        sides: list[tuple[bool, str]] = []
        for keyword in ("", "returns"):
            if keyword:
                self._take(keyword)
            self._take("(")
            first = self._word()
            streams = first == "stream"
            sides.append((streams, self._word() if streams else first))
            self._take(")")
        self._take(";")
        (sends, request), (answers, response) = sides
        self._add(head, "rpc", name, parent, request=request, response=response, streams=(sends, answers))


def read_source(path: str, source: str) -> ProtoFile:
    """Read the text *source* of the file *path*.

    Raises:
        ProtoSyntaxError: it uses more of proto3 than the contract does.
    """
    return _Reader(path, source).read()


def read_folder(root: Path) -> list[ProtoFile]:
    """Read every .proto below *root*, in order of path."""
    return [
        read_source(path.relative_to(root).as_posix(), path.read_text(encoding="utf-8"))
        for path in sorted(root.rglob("*.proto"))
    ]
