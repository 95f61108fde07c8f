"""gRPC, a feed and strategies with segments on one engine, in any order of steps and from several threads at once.

Every tick that was taken is answered once, in order, with the bits of a plain run; what is counted adds up; and no wake-up is
lost: the engine sleeps until it is rung, so that one which is not is an answer that never comes (``support.endless_sleep``).
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import settings

EXAMPLES, TURNS = 40, 100


@pytest.mark.hypothesis
@pytest.mark.parametrize("kind", ["cpu", "device"])
def test_every_tick_is_answered_once_in_order_without_any_time_out(kind: str) -> None:
    seed = 0 if settings().derandomize else random.randrange(2**32)
    command = [sys.executable, "-m", "support.endless_sleep", kind, str(EXAMPLES), str(TURNS), str(seed)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parent.parent), *sys.path])}
    found = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300, env=environment)
    assert found.returncode == 0, f"seed {seed}\n{found.stdout}{found.stderr}"
