"""Running penstock-tune in a test, and reading the JSON that it prints."""

from __future__ import annotations

import json
from typing import Any

import pytest

from penstock_host.cli import main


def run_json(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, dict[str, Any]]:
    capsys.readouterr()
    status = main([*arguments, "--json"])
    return status, json.loads(capsys.readouterr().out)


def items_of(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {item["id"]: item for item in document["items"]}
