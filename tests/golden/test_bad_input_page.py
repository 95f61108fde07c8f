"""docs/bad-input.md names every refusal that the daemon can make, under its status code, and no other."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from penstock.v1 import prediction_pb2 as pb
from penstock.v1.records import PredictionFlag
from penstock_client.exits import Exit

CODES = {
    "invalid": "INVALID_ARGUMENT",
    "out_of_order": "FAILED_PRECONDITION",
    "exhausted": "RESOURCE_EXHAUSTED",
    "not_found": "NOT_FOUND",
    "unavailable": "UNAVAILABLE",
    "unauthenticated": "UNAUTHENTICATED",
    "denied": "PERMISSION_DENIED",
}


def refusals_of(source: str) -> set[tuple[str, str]]:
    """Collect (status code, reason) of every fault that *source* makes."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.args):
            continue
        if isinstance(node.func.value, ast.Name) and node.func.value.id == "faults" and node.func.attr in CODES:
            reason = node.args[0]
            branches = [reason.body, reason.orelse] if isinstance(reason, ast.IfExp) else [reason]
            found |= {(CODES[node.func.attr], ast.literal_eval(branch)) for branch in branches}
    return found


@pytest.fixture(scope="module")
def page(repository_root: Path) -> str:
    return (repository_root / "docs" / "bad-input.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def made(repository_root: Path) -> set[tuple[str, str]]:
    sources = (repository_root / "daemon" / "penstock_daemon").rglob("*.py")
    return set().union(*(refusals_of(source.read_text(encoding="utf-8")) for source in sources))


def test_page_lists_the_refusals_that_the_daemon_makes(page: str, made: set[tuple[str, str]]) -> None:
    listed = set()
    code = ""
    for row in re.findall(r"^\| *([A-Z_]*) *\| *`([A-Z_]+)` *\|", page, re.MULTILINE):
        code = row[0] or code
        if row[1] not in {f"REASON_{name}" for name in ("UNKNOWN_INSTRUMENT", "TIME_OUT_OF_RANGE")}:
            listed.add((code, row[1]))
    assert sorted(made - listed) == [], "add them to docs/bad-input.md"
    assert sorted(listed - made) == [], "the daemon no longer makes these"


def test_refusals_are_found_in_both_branches_of_a_choice() -> None:
    source = 'raise faults.unavailable("A" if draining else "B", field="x")\nfaults.invalid("C")\nother.invalid("D")'
    assert refusals_of(source) == {("UNAVAILABLE", "A"), ("UNAVAILABLE", "B"), ("INVALID_ARGUMENT", "C")}


def test_page_names_every_reason_of_a_tick_error(page: str) -> None:
    for name in pb.TickError.Reason.keys():  # noqa: SIM118 - protobuf's wrapper is no mapping.
        assert name == "REASON_UNSPECIFIED" or f"`{name}`" in page


def test_page_names_every_flag_that_odd_data_gets(page: str) -> None:
    for flag in (PredictionFlag.BOOK_ONE_SIDED, PredictionFlag.BOOK_CROSSED, PredictionFlag.TIME_BACKWARDS):
        assert f"`{flag.name}`" in page


def test_page_lists_the_exit_codes_of_the_command(page: str) -> None:
    listed = {int(code) for code in re.findall(r"^\| (\d+) \|", page, re.MULTILINE)}
    assert listed == {int(code) for code in Exit}
