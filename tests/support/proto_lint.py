"""The rules of ``buf lint`` STANDARD and COMMENTS, and the house's own, over sources read by proto_source.

Each rule has the name that buf gives it, so that a finding can be looked up; COMMENT_BEGINS_WITH_NAME is ours. A rule
takes all files and yields ``path:line: RULE: what is wrong``.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterator

from support.proto_source import Element, ProtoFile

Findings = Iterator[tuple[str, int, str]]
Rule = Callable[[list[ProtoFile]], Findings]

_PASCAL = re.compile(r"[A-Z][A-Za-z0-9]*\Z")
_SNAKE = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*\Z")
_UPPER_SNAKE = re.compile(r"[A-Z][A-Z0-9]*(_[A-Z0-9]+)*\Z")
_VERSION = re.compile(r"v[1-9]\d*((alpha|beta)[1-9]\d*|test)?\Z")
_PACKAGE_OPTIONS = (
    "csharp_namespace",
    "go_package",
    "java_multiple_files",
    "java_package",
    "php_namespace",
    "ruby_package",
    "swift_prefix",
)
_KIND_IN_RULES = {"value": "ENUM_VALUE"}


def upper_snake(name: str) -> str:
    """Turn ``StateOrigin`` into ``STATE_ORIGIN``."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).upper()


def _elements(files: list[ProtoFile], *kinds: str) -> Iterator[tuple[ProtoFile, Element]]:
    for file in files:
        for element in file.elements:
            if element.kind in kinds:
                yield file, element


def _spelled(kind: str, pattern: re.Pattern[str], want: str) -> Rule:
    def rule(files: list[ProtoFile]) -> Findings:
        for file, element in _elements(files, kind):
            if not pattern.match(element.name):
                yield file.path, element.line, f"{element.name} should be {want}"

    return rule


def _folder(file: ProtoFile) -> str:
    return file.path.rpartition("/")[0]


def syntax_specified(files: list[ProtoFile]) -> Findings:
    for file in files:
        if file.syntax != "proto3":
            yield file.path, 1, f'syntax should be "proto3", was {file.syntax!r}'


def package_defined(files: list[ProtoFile]) -> Findings:
    for file in files:
        if not file.package:
            yield file.path, 1, "no package"


def package_lower_snake_case(files: list[ProtoFile]) -> Findings:
    for file in files:
        if not all(_SNAKE.match(part) for part in file.package.split(".")):
            yield file.path, 1, f"package {file.package} should be lower_snake.case"


def package_directory_match(files: list[ProtoFile]) -> Findings:
    for file in files:
        if _folder(file) != file.package.replace(".", "/"):
            yield file.path, 1, f"package {file.package} should stand in {file.package.replace('.', '/')}"


def directory_same_package(files: list[ProtoFile]) -> Findings:
    packages: dict[str, set[str]] = defaultdict(set)
    for file in files:
        packages[_folder(file)].add(file.package)
        if len(packages[_folder(file)]) > 1:
            yield file.path, 1, f"the folder holds several packages: {sorted(packages[_folder(file)])}"


def package_same_directory(files: list[ProtoFile]) -> Findings:
    folders: dict[str, set[str]] = defaultdict(set)
    for file in files:
        folders[file.package].add(_folder(file))
        if len(folders[file.package]) > 1:
            yield file.path, 1, f"package {file.package} stands in several folders: {sorted(folders[file.package])}"


def package_version_suffix(files: list[ProtoFile]) -> Findings:
    for file in files:
        if not _VERSION.match(file.package.rpartition(".")[2]):
            yield file.path, 1, f"package {file.package} should end in a version, such as v1"


def package_no_import_cycle(files: list[ProtoFile]) -> Findings:
    by_path = {file.path: file for file in files}
    uses: dict[str, set[str]] = defaultdict(set)
    for file in files:
        imported = {by_path[path].package for _, path in file.imports if path in by_path}
        uses[file.package] |= imported - {file.package}
    for file in files:
        seen: set[str] = set()
        ahead = set(uses[file.package])
        while ahead:
            package = ahead.pop()
            if package == file.package:
                yield file.path, 1, f"package {package} imports itself through others"
                break
            if package not in seen:
                seen.add(package)
                ahead |= uses[package]


def _package_same_option(option: str) -> Rule:
    def rule(files: list[ProtoFile]) -> Findings:
        values: dict[str, set[str]] = defaultdict(set)
        for file in files:
            values[file.package].add(file.options.get(option, ""))
            if len(values[file.package]) > 1:
                yield file.path, 1, f"option {option} differs in package {file.package}"

    return rule


def import_no_public(files: list[ProtoFile]) -> Findings:
    for file in files:
        for modifier, path in file.imports:
            if modifier == "public":
                yield file.path, 1, f"{path} is imported as public"


def import_used(files: list[ProtoFile]) -> Findings:
    by_path = {file.path: file for file in files}
    for file in files:
        used = {name for element in file.elements for name in (element.type, element.request, element.response)}
        for _, path in file.imports:
            if path in by_path:
                offered = {element.name for _, element in _elements([by_path[path]], "message", "enum")}
                is_used = bool(offered & {name.rpartition(".")[2] for name in used})
            else:  # Google's own: google/protobuf/any.proto offers google.protobuf.Any, and so on.
                is_used = any(name.startswith(path.rpartition("/")[0].replace("/", ".") + ".") for name in used)
            if not is_used:
                yield file.path, 1, f"{path} is imported and not used"


def enum_no_allow_alias(files: list[ProtoFile]) -> Findings:
    for file in files:
        for name, value in file.options.items():
            if name.endswith(".allow_alias") and value == "true":
                yield file.path, 1, f"{name} is on"


def _values_of(files: list[ProtoFile]) -> Iterator[tuple[ProtoFile, Element, list[Element]]]:
    for file, enum in _elements(files, "enum"):
        yield file, enum, [value for _, value in _elements([file], "value") if value.parent == enum.full_name]


def enum_first_value_zero(files: list[ProtoFile]) -> Findings:
    for file, enum, values in _values_of(files):
        if not values or values[0].number != 0:
            yield file.path, enum.line, f"the first value of {enum.name} should be 0"


def enum_zero_value_suffix(files: list[ProtoFile]) -> Findings:
    for file, _, values in _values_of(files):
        for value in values:
            if value.number == 0 and not value.name.endswith("_UNSPECIFIED"):
                yield file.path, value.line, f"{value.name} is 0 and should end in _UNSPECIFIED"


def enum_value_prefix(files: list[ProtoFile]) -> Findings:
    for file, enum, values in _values_of(files):
        for value in values:
            if not value.name.startswith(f"{upper_snake(enum.name)}_"):
                yield file.path, value.line, f"{value.name} should begin with {upper_snake(enum.name)}_"


def field_not_required(files: list[ProtoFile]) -> Findings:
    for file, element in _elements(files, "field"):
        if element.label == "required":
            yield file.path, element.line, f"{element.name} is required"


def file_lower_snake_case(files: list[ProtoFile]) -> Findings:
    for file in files:
        name = file.path.rpartition("/")[2].removesuffix(".proto")
        if not _SNAKE.match(name):
            yield file.path, 1, f"{name}.proto should be lower_snake_case.proto"


def service_suffix(files: list[ProtoFile]) -> Findings:
    for file, service in _elements(files, "service"):
        if not service.name.endswith("Service"):
            yield file.path, service.line, f"{service.name} should end in Service"


def rpc_request_response_unique(files: list[ProtoFile]) -> Findings:
    seen: dict[str, str] = {}
    for file, rpc in _elements(files, "rpc"):
        for name in (rpc.request, rpc.response):
            if name in seen:
                yield file.path, rpc.line, f"{name} is of {seen[name]} already"
            seen[name] = rpc.full_name


def _rpc_standard_name(side: str, suffix: str) -> Rule:
    def rule(files: list[ProtoFile]) -> Findings:
        for file, rpc in _elements(files, "rpc"):
            name = getattr(rpc, side).rpartition(".")[2]
            service = rpc.parent.rpartition(".")[2]
            if name not in {f"{rpc.name}{suffix}", f"{service}{rpc.name}{suffix}"}:
                yield file.path, rpc.line, f"{name} should be {rpc.name}{suffix}"

    return rule


def _commented(kind: str) -> Rule:
    def rule(files: list[ProtoFile]) -> Findings:
        for file, element in _elements(files, kind):
            if not element.comment:
                yield file.path, element.line, f"{element.name} has no comment"

    return rule


def comment_begins_with_name(files: list[ProtoFile]) -> Findings:
    for file in files:
        for element in file.elements:
            if element.comment and not re.match(rf"{re.escape(element.name)}\b", element.comment):
                yield file.path, element.line, f"the comment should begin with {element.name}: {element.comment[:40]!r}"


RULES: dict[str, Rule] = {
    "COMMENT_BEGINS_WITH_NAME": comment_begins_with_name,
    "DIRECTORY_SAME_PACKAGE": directory_same_package,
    "ENUM_FIRST_VALUE_ZERO": enum_first_value_zero,
    "ENUM_NO_ALLOW_ALIAS": enum_no_allow_alias,
    "ENUM_PASCAL_CASE": _spelled("enum", _PASCAL, "PascalCase"),
    "ENUM_VALUE_PREFIX": enum_value_prefix,
    "ENUM_VALUE_UPPER_SNAKE_CASE": _spelled("value", _UPPER_SNAKE, "UPPER_SNAKE_CASE"),
    "ENUM_ZERO_VALUE_SUFFIX": enum_zero_value_suffix,
    "FIELD_LOWER_SNAKE_CASE": _spelled("field", _SNAKE, "lower_snake_case"),
    "FIELD_NOT_REQUIRED": field_not_required,
    "FILE_LOWER_SNAKE_CASE": file_lower_snake_case,
    "IMPORT_NO_PUBLIC": import_no_public,
    "IMPORT_USED": import_used,
    "MESSAGE_PASCAL_CASE": _spelled("message", _PASCAL, "PascalCase"),
    "ONEOF_LOWER_SNAKE_CASE": _spelled("oneof", _SNAKE, "lower_snake_case"),
    "PACKAGE_DEFINED": package_defined,
    "PACKAGE_DIRECTORY_MATCH": package_directory_match,
    "PACKAGE_LOWER_SNAKE_CASE": package_lower_snake_case,
    "PACKAGE_NO_IMPORT_CYCLE": package_no_import_cycle,
    "PACKAGE_SAME_DIRECTORY": package_same_directory,
    "PACKAGE_VERSION_SUFFIX": package_version_suffix,
    "RPC_PASCAL_CASE": _spelled("rpc", _PASCAL, "PascalCase"),
    "RPC_REQUEST_RESPONSE_UNIQUE": rpc_request_response_unique,
    "RPC_REQUEST_STANDARD_NAME": _rpc_standard_name("request", "Request"),
    "RPC_RESPONSE_STANDARD_NAME": _rpc_standard_name("response", "Response"),
    "SERVICE_PASCAL_CASE": _spelled("service", _PASCAL, "PascalCase"),
    "SERVICE_SUFFIX": service_suffix,
    "SYNTAX_SPECIFIED": syntax_specified,
}
RULES |= {f"PACKAGE_SAME_{option.upper()}": _package_same_option(option) for option in _PACKAGE_OPTIONS}
RULES |= {
    f"COMMENT_{_KIND_IN_RULES.get(kind, kind.upper())}": _commented(kind)
    for kind in ("enum", "field", "message", "oneof", "rpc", "service", "value")
}


def lint(files: list[ProtoFile]) -> list[str]:
    """Return every finding as ``path:line: RULE: sentence``, in order of path and line."""
    found = [(path, line, name, text) for name, rule in RULES.items() for path, line, text in rule(files)]
    return [f"{path}:{line}: {name}: {text}" for path, line, name, text in sorted(found)]
