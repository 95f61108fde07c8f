"""What strategies already speak stays: no name, number or type of the contract changes or goes.

``contract_v1.txt`` has one line per element. A line that no longer holds is a breaking change, which wants a package
``penstock.v2``; a new element wants its line, so that it is kept from then on too.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from penstock.v1 import latency_pb2, records
from support.proto_source import ProtoFile, read_folder, read_source


def lines_of(files: list[ProtoFile]) -> list[str]:
    """Write one line for each element: its kind, full name, and what is on the wire."""
    lines = []
    for file in files:
        for element in file.elements:
            parts = [element.kind, element.full_name]
            if element.kind == "field":
                parts += [str(element.number), *filter(None, [element.label]), element.type]
            elif element.kind == "value":
                parts += [str(element.number)]
            elif element.kind == "rpc":
                sides = zip(element.streams, (element.request, element.response), strict=True)
                parts += [f"{'stream ' if streams else ''}{name}" for streams, name in sides]
            lines.append(" ".join(parts))
    return sorted(lines)


@pytest.fixture(scope="module")
def golden() -> list[str]:
    return (Path(__file__).parent / "contract_v1.txt").read_text(encoding="utf-8").splitlines()


@pytest.fixture(scope="module")
def current(repository_root: Path) -> list[str]:
    return lines_of(read_folder(repository_root / "protos"))


def test_nothing_that_strategies_speak_has_changed_or_gone(golden: list[str], current: list[str]) -> None:
    broken = sorted(set(golden) - set(current))
    assert not broken, "breaking changes of penstock.v1:\n" + "\n".join(broken)


def test_everything_new_is_in_the_table(golden: list[str], current: list[str]) -> None:
    missing = sorted(set(current) - set(golden))
    assert not missing, "add to tests/golden/contract_v1.txt:\n" + "\n".join(missing)


def test_table_is_sorted_and_without_repeats(golden: list[str]) -> None:
    assert golden == sorted(set(golden))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("uint64 sent_ns = 1;", "uint64 sent_ns = 2;"),
        ("uint64 sent_ns = 1;", "int64 sent_ns = 1;"),
        ("uint64 sent_ns = 1;", "uint64 at_ns = 1;"),
        ("uint64 sent_ns = 1;", "repeated uint64 sent_ns = 1;"),
        ("PACE_BULK = 2;", "PACE_BULK = 3;"),
        ("rpc Subscribe(SubscribeRequest) returns (stream", "rpc Subscribe(SubscribeRequest) returns ("),
        ("message RebuildProgress {", "message Rebuilt {"),
    ],
)
def test_breaking_change_is_noticed(repository_root: Path, golden: list[str], old: str, new: str) -> None:
    source = (repository_root / "protos/penstock/v1/prediction.proto").read_text(encoding="utf-8")
    assert old in source
    changed = lines_of([read_source("penstock/v1/prediction.proto", source.replace(old, new))])
    spoken = set(lines_of([read_source("penstock/v1/prediction.proto", source)]))
    changed = set(lines_of([read_source("penstock/v1/prediction.proto", source.replace(old, new))]))
    assert spoken <= set(golden)
    assert spoken - changed


def test_stages_of_the_records_are_those_of_the_proto_one_lower() -> None:
    of_proto = {name.removeprefix("STAGE_"): number - 1 for name, number in latency_pb2.Stage.items() if number}
    assert of_proto == {stage.name: stage.value for stage in records.Stage}
