"""A part of a benchmark in a process of its own: a plan goes in as JSON, figures come out as JSON.

Each measurement that uses gRPC gets a fresh process. grpc.aio binds its poller to the first event loop of a process and
keeps serving it after that loop is closed, and a process that has measured before has a heap and caches to show for it.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from penstock_tuning.bench.processes import run_tool

Plan = dict[str, Any]


def run_part(
    module: str, plan: Plan, folder: Path, timeout_s: float, processors: frozenset[int] = frozenset()
) -> dict[str, Any]:
    """Run ``penstock_tuning.bench.<module>`` on *plan* and return what it found.

    Raises:
        BenchError: it failed, or took longer than *timeout_s*; the sentence holds what it said.
    """
    given = folder / "plan.json"
    given.write_text(json.dumps(plan), encoding="utf-8")
    command = [sys.executable, "-m", f"penstock_tuning.bench.{module}"]
    found: dict[str, Any] = json.loads(run_tool(module, command, folder, timeout_s, processors, given))
    return found


def be_part(work: Callable[[Plan], dict[str, Any]]) -> int:
    """Be such a process: do *work* on the plan of standard input, print what it finds, and return the exit code."""
    try:
        print(json.dumps(work(json.load(sys.stdin))))
    except Exception as exc:
        if not is_ours(exc):
            raise
        print(exc, file=sys.stderr)
        return 1
    return 0


def is_ours(error: Exception) -> bool:
    """Whether *error* is a sentence of ours for the user, and not a mistake of ours."""
    return type(error).__module__.partition(".")[0].startswith("penstock")
