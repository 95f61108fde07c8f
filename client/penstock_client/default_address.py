"""Where a daemon listens when nobody says otherwise: the same rule as the daemon's own.

    $XDG_RUNTIME_DIR/penstock.sock, else $TMPDIR/penstock-UID.sock (TEMP, TMP), else /tmp/penstock-UID.sock

A folder counts where it is named from the root and is there, and where the socket's path in it is not too long.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

_PATH_BYTES_MAX: Final = 107  # sockaddr_un.sun_path is 108 bytes with its closing zero.


def default_address(environ: Mapping[str, str] = os.environ) -> str:
    """Return where a daemon without a configuration listens.

    Args:
        environ: XDG_RUNTIME_DIR, TMPDIR, TEMP and TMP are read.
    """
    own_name = f"penstock-{os.getuid()}.sock"
    candidates = [("XDG_RUNTIME_DIR", "penstock.sock"), ("TMPDIR", own_name), ("TEMP", own_name), ("TMP", own_name)]
    for variable, name in candidates:
        folder = environ.get(variable, "")
        if folder.startswith("/") and "\0" not in folder and Path(folder).is_dir():
            path = Path(folder) / name
            if len(os.fsencode(path)) <= _PATH_BYTES_MAX:
                return f"unix:{path}"
    return f"unix:/tmp/{own_name}"
