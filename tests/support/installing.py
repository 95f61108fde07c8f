"""Environments of their own for tests that install, kept under .tools so that the second run is quick.

What can't be installed (no network, no wheel for this Python) skips the test with pip's own reason.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

INSTALL_SECONDS = 160


def install(*arguments: str, environment: Path | None = None) -> None:
    """Run pip install, quietly; skip the test if it can't find or fetch a package, fail it on any other fault.

    Args:
        arguments: pip's own.
        environment: the virtual environment to install into, which needs no pip of its own; None for this one.
    """
    elsewhere = ["--python", str(environment)] if environment else []
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", *elsewhere]
    command = [*pip, "install", "--quiet", "--no-compile", *arguments]  # Little of it is ever imported.
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=INSTALL_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        pytest.skip(f"pip took longer than {INSTALL_SECONDS} s: {arguments}")
    if done.returncode == 0:
        return
    said = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
    unreachable = ("No matching distribution", "Could not find a version", "connection", "Max retries")
    if any(word in line for line in said for word in unreachable):
        pytest.skip(f"pip found no package: {said[0]}")
    pytest.fail(f"pip install {' '.join(arguments)}:\n{done.stderr}")


def packages_apart(tools: Path, name: str, *requirements: str) -> Path:
    """Return a folder for PYTHONPATH that holds *requirements* alone, installed for this Python if it is not there."""
    version = "".join(str(part) for part in sys.version_info[:2])
    folder = tools / f"{name}-cp{version}"
    stamp = folder / ".installed"
    wanted = "\n".join(requirements)
    if not (stamp.exists() and stamp.read_text(encoding="utf-8") == wanted):
        arguments = ["--target", str(folder), "--upgrade", "--no-deps", "--only-binary=:all:", *requirements]
        install(*arguments)
        stamp.write_text(wanted, encoding="utf-8")
    return folder


def clean_environment(**more: str) -> dict[str, str]:
    """Return the environment without what would let packages of this run into another."""
    dropped = ("PYTHON", "VIRTUAL_ENV", "MAKE", "MFLAGS", "COV_")
    return {key: value for key, value in os.environ.items() if not key.startswith(dropped)} | more
