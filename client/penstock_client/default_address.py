"""Where a daemon listens when nobody says otherwise: the same rule as the daemon's own."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path


def default_address() -> str:
    """Return where a daemon without a configuration listens."""
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    if runtime and Path(runtime).is_dir():
        return f"unix:{runtime}/penstock.sock"
    return f"unix:{tempfile.gettempdir()}/penstock-{os.getuid()}.sock"
