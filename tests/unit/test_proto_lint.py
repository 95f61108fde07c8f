"""The contract keeps buf's STANDARD and COMMENTS rules and the house's; each rule is shown to find its breach."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from google.protobuf import descriptor

from penstock.v1 import daemon_pb2, latency_pb2, model_pb2, prediction_pb2, status_pb2
from support.proto_lint import RULES, lint, upper_snake
from support.proto_source import ProtoFile, ProtoSyntaxError, read_folder, read_source

MODULES = (daemon_pb2, latency_pb2, model_pb2, prediction_pb2, status_pb2)

SOUND = {
    "house/v1/door.proto": """
syntax = "proto3";

package house.v1;

import "google/protobuf/any.proto";
import "house/v1/key.proto";

// DoorService opens doors.
service DoorService {
  // OpenDoor opens one.
  rpc OpenDoor(stream OpenDoorRequest) returns (OpenDoorResponse);
}

// State says how a door stands.
enum State {
  // STATE_UNSPECIFIED is never sent.
  STATE_UNSPECIFIED = 0;
  // STATE_OPEN doors let through.
  STATE_OPEN = 1;
}

// OpenDoorRequest asks.
message OpenDoorRequest {
  // how says with what.
  oneof how {
    // key is the key.
    Key key = 1;
    // force is anything else.
    google.protobuf.Any force = 2;
  }
}

// OpenDoorResponse tells.
message OpenDoorResponse {
  // state is the door's.
  State state = 1;
}
""",
    "house/v1/key.proto": """
syntax = "proto3";
package house.v1;

// Key opens.
message Key {
  // serial_number is cut into it.
  uint64 serial_number = 1;
}
""",
}

# Rule, and the change of SOUND that breaks it: text, what replaces it, and the file's new path where that matters.
BREACHES = [
    ("COMMENT_BEGINS_WITH_NAME", "// state is the door's.", "// The door's state."),
    ("COMMENT_BEGINS_WITH_NAME", "// OpenDoor opens one.", "// OpenDoors opens one."),
    ("COMMENT_ENUM", "// State says how a door stands.\n", ""),
    ("COMMENT_ENUM_VALUE", "  // STATE_OPEN doors let through.\n", ""),
    ("COMMENT_FIELD", "    // key is the key.\n", ""),
    ("COMMENT_FIELD", "  // state is the door's.\n", "  // state is the door's.\n\n"),
    ("COMMENT_MESSAGE", "// OpenDoorRequest asks.\n", ""),
    ("COMMENT_ONEOF", "  // how says with what.\n", ""),
    ("COMMENT_RPC", "  // OpenDoor opens one.\n", ""),
    ("COMMENT_SERVICE", "// DoorService opens doors.\n", ""),
    ("DIRECTORY_SAME_PACKAGE", "package house.v1;\n\nimport", "package house.v2;\n\nimport"),
    ("ENUM_FIRST_VALUE_ZERO", "STATE_UNSPECIFIED = 0", "STATE_UNSPECIFIED = 2"),
    ("ENUM_NO_ALLOW_ALIAS", "enum State {", "enum State {\n  option allow_alias = true;"),
    ("ENUM_PASCAL_CASE", "enum State {", "enum door_state {"),
    ("ENUM_VALUE_PREFIX", "STATE_OPEN = 1", "OPEN = 1"),
    ("ENUM_VALUE_UPPER_SNAKE_CASE", "STATE_OPEN = 1", "STATE_Open = 1"),
    ("ENUM_ZERO_VALUE_SUFFIX", "STATE_UNSPECIFIED = 0", "STATE_NONE = 0"),
    ("FIELD_LOWER_SNAKE_CASE", "uint64 serial_number", "uint64 serialNumber"),
    ("FIELD_NOT_REQUIRED", "  uint64 serial_number", "  required uint64 serial_number"),
    ("FILE_LOWER_SNAKE_CASE", "house/v1/key.proto", "house/v1/HouseKey.proto"),
    ("IMPORT_NO_PUBLIC", 'import "house', 'import public "house'),
    ("IMPORT_USED", "    google.protobuf.Any force = 2;", "    bytes force = 2;"),
    ("IMPORT_USED", "    Key key = 1;", "    bytes key = 1;"),
    ("MESSAGE_PASCAL_CASE", "message Key {", "message lock_Key {"),
    ("ONEOF_LOWER_SNAKE_CASE", "oneof how {", "oneof How {"),
    ("PACKAGE_DEFINED", "package house.v1;\n\n//", "//"),
    ("PACKAGE_DIRECTORY_MATCH", "house/v1/key.proto", "house/key.proto"),
    ("PACKAGE_LOWER_SNAKE_CASE", "package house.v1;", "package House.v1;"),
    ("PACKAGE_SAME_DIRECTORY", "house/v1/key.proto", "cellar/v1/key.proto"),
    ("PACKAGE_SAME_GO_PACKAGE", "package house.v1;\n\n//", 'package house.v1;\noption go_package = "x";\n\n//'),
    ("PACKAGE_VERSION_SUFFIX", "package house.v1;", "package house.one;"),
    ("RPC_PASCAL_CASE", "rpc OpenDoor(", "rpc open_door("),
    ("RPC_REQUEST_RESPONSE_UNIQUE", "returns (OpenDoorResponse)", "returns (OpenDoorRequest)"),
    ("RPC_REQUEST_STANDARD_NAME", "(stream OpenDoorRequest)", "(stream Key)"),
    ("RPC_RESPONSE_STANDARD_NAME", "(OpenDoorResponse)", "(Key)"),
    ("SERVICE_PASCAL_CASE", "service DoorService", "service door_Service"),
    ("SERVICE_SUFFIX", "service DoorService", "service Door"),
    ("SYNTAX_SPECIFIED", 'syntax = "proto3";\npackage', "package"),
]


def read_all(sources: dict[str, str]) -> list[ProtoFile]:
    return [read_source(path, source) for path, source in sources.items()]


@pytest.fixture(scope="module")
def contract(repository_root: Path) -> list[ProtoFile]:
    return read_folder(repository_root / "protos")


def test_contract_has_no_finding(contract: list[ProtoFile]) -> None:
    assert not lint(contract), "\n".join(["", *lint(contract)])


def test_sound_example_has_no_finding() -> None:
    assert lint(read_all(SOUND)) == []


@pytest.mark.parametrize(("rule", "old", "new"), BREACHES, ids=[f"{rule}-{old.strip()}" for rule, old, _ in BREACHES])
def test_breach_is_found_by_its_rule(rule: str, old: str, new: str) -> None:
    broken = {path.replace(old, new): source.replace(old, new) for path, source in SOUND.items()}
    assert broken != SOUND, "the breach changes nothing"
    assert any(f": {rule}: " in finding for finding in lint(read_all(broken)))


def test_import_cycle_between_packages_is_found() -> None:
    sources = {
        f"{here}/v1/{here}.proto": f'syntax = "proto3";\npackage {here}.v1;\nimport "{there}/v1/{there}.proto";\n'
        for here, there in (("one", "two"), ("two", "one"))
    }
    assert any("PACKAGE_NO_IMPORT_CYCLE" in finding for finding in lint(read_all(sources)))


def test_every_rule_but_the_languages_we_do_not_generate_has_a_breach() -> None:
    shown = {rule for rule, _, _ in BREACHES} | {"PACKAGE_NO_IMPORT_CYCLE"}
    same_shape = {rule for rule in RULES if rule.startswith("PACKAGE_SAME_")} - {"PACKAGE_SAME_DIRECTORY"}
    assert shown | same_shape == set(RULES)


@pytest.mark.parametrize(
    "source",
    ["message A { map<string, int32> b = 1; }", "message A { reserved 2; }", "extend A { }", "message A {", "/* no */"],
)
def test_source_beyond_the_part_of_proto3_we_use_is_refused(source: str) -> None:
    with pytest.raises(ProtoSyntaxError):
        read_source("a.proto", source)


def descriptor_names(module: object) -> set[str]:
    """Collect ``kind full_name number`` of everything in a generated module."""
    file: descriptor.FileDescriptor = module.DESCRIPTOR  # type: ignore[attr-defined]
    found: set[str] = set()

    def add_enum(enum: descriptor.EnumDescriptor) -> None:
        found.add(f"enum {enum.full_name}")
        found.update(f"value {enum.full_name}.{value.name} {value.number}" for value in enum.values)

    def add_message(message: descriptor.Descriptor) -> None:
        found.add(f"message {message.full_name}")
        found.update(f"field {message.full_name}.{each.name} {each.number}" for each in message.fields)
        named = [each.name for each in message.oneofs if not each.name.startswith("_")]  # Not those behind an optional.
        found.update(f"oneof {message.full_name}.{name}" for name in named)
        for enum in message.enum_types:
            add_enum(enum)
        for nested in message.nested_types:
            add_message(nested)

    for message in file.message_types_by_name.values():
        add_message(message)
    for enum in file.enum_types_by_name.values():
        add_enum(enum)
    for service in file.services_by_name.values():
        found.add(f"service {service.full_name}")
        found.update(f"rpc {service.full_name}.{method.name}" for method in service.methods)
    return found


def test_sources_as_read_hold_all_that_the_descriptors_hold(contract: list[ProtoFile]) -> None:
    read = {
        f"{element.kind} {element.full_name}" + ("" if element.number is None else f" {element.number}")
        for file in contract
        for element in file.elements
    }
    assert read == set().union(*(descriptor_names(module) for module in MODULES))


def test_names_turn_into_upper_snake_as_buf_does() -> None:
    names = ["State", "StateOrigin", "HTTPCode", "Tick2Batch"]
    assert [upper_snake(name) for name in names] == ["STATE", "STATE_ORIGIN", "HTTP_CODE", "TICK2_BATCH"]


def test_status_codes_named_in_comments_exist(contract: list[ProtoFile]) -> None:
    codes = {
        *("OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS"),
        *("PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE"),
        *("UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED"),
    }
    ours = {element.name for file in contract for element in file.elements}
    # What else is in capitals: flags and stages of records.py, what health says, formats, and two processors.
    known = codes | ours | {"LATE", "STALE", "TOTAL", "SERVING", "NOT_SERVING", "DBN", "JSON", "CPU", "GPU"}
    prose = " ".join(re.sub(r'"[^"]*"', "", element.comment) for file in contract for element in file.elements)
    named = set(re.findall(r"\b[A-Z]{2}[A-Z_]+\b", prose))
    assert "FAILED_PRECONDITION" in named
    assert named <= known, named - known
