"""No message, however damaged, reaches outside of the books: shown in plain Python, where every index is looked at."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from penstock_daemon.feed.memory import Refusal


def test_no_message_indexes_outside_of_any_array(repository_root: Path):
    tests = repository_root / "tests"
    path = os.pathsep.join([str(tests), *sys.path])
    done = subprocess.run(
        [sys.executable, str(tests / "support" / "guarded_books.py"), "60"],
        env={**os.environ, "NUMBA_DISABLE_JIT": "1", "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert {one.name for one in Refusal} <= set(json.loads(done.stdout)), "every kind of refusal was met"
