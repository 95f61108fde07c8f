"""The one way to other programs: ethtool, nvidia-smi, pmc, systemctl and their like, real or recorded.

A command is a list of words, never a shell's line. One that is not installed is ``AbsentError``, which makes an item
UNSUPPORTED; a recorded runner never starts anything, so a tree of files can't reach the machine it lies on.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from penstock_host.faults import AbsentError, UnreadableError

TIMEOUT_S: Final = 30.0
_NAME_MAX: Final = 200  # A file system takes 255 bytes, ``.exit`` included.


@dataclass(frozen=True)
class Outcome:
    """What a command left: its exit status and what it wrote."""

    exit_status: int
    output: str
    errors: str = ""

    @property
    def worked(self) -> bool:
        """Whether it exited with 0."""
        return self.exit_status == 0


class Runner(Protocol):
    """Runs commands, or knows what they would have said."""

    def run(self, command: Sequence[str], *, timeout_s: float = TIMEOUT_S) -> Outcome:
        """Return what *command* did.

        Raises:
            AbsentError: it is not installed.
            UnreadableError: it could not be started, or took longer than *timeout_s*.
        """

    def has(self, program: str) -> bool:
        """Whether *program* is there."""


class RealRunner:
    """Runs the programs of this machine."""

    def run(self, command: Sequence[str], *, timeout_s: float = TIMEOUT_S) -> Outcome:
        """Return what *command* did; its messages are in the C locale."""
        program = shutil.which(command[0])
        if program is None:
            raise AbsentError(f"{command[0]} is not installed")
        try:
            done = subprocess.run(  # noqa: S603 (a list of words, no shell; the program is one that the items name)
                [program, *command[1:]],
                capture_output=True,
                encoding="utf-8",
                errors="replace",
                env=os.environ | {"LC_ALL": "C"},
                stdin=subprocess.DEVNULL,
                timeout=timeout_s,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise UnreadableError(f"{' '.join(command)} took more than {timeout_s:g} s") from None
        except OSError as refusal:
            raise UnreadableError(f"{command[0]} could not be started: {refusal.strerror}") from refusal
        return Outcome(done.returncode, done.stdout, done.stderr)

    def has(self, program: str) -> bool:
        """Whether *program* is on the path."""
        return shutil.which(program) is not None


def recorded_name(command: Sequence[str]) -> str:
    """Return the file that holds *command*'s output: its words with blanks between them, ``_`` for ``/``, cut to fit."""
    return " ".join(command).replace("/", "_")[:_NAME_MAX]


class RecordedRunner:
    """Answers from a folder of recorded outputs.

    A command's output lies in the file called ``recorded_name(command)``: ``ethtool -c eth0``. A file of that name with
    ``.exit`` after it holds an exit status that is not 0.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def run(self, command: Sequence[str], *, timeout_s: float = TIMEOUT_S) -> Outcome:  # noqa: ARG002 (nothing runs)
        """Return what was recorded for *command*."""
        name = recorded_name(command)
        try:
            output = (self._folder / name).read_text(encoding="utf-8", errors="replace")
        except OSError:
            raise AbsentError(f"{command[0]}: nothing was recorded for {' '.join(command)}") from None
        try:
            exit_status = int((self._folder / f"{name}.exit").read_text(encoding="ascii"))
        except (OSError, ValueError):
            exit_status = 0
        return Outcome(exit_status, output)

    def has(self, program: str) -> bool:
        """Whether anything was recorded of *program*."""
        try:
            return any(name == program or name.startswith(f"{program} ") for name in os.listdir(self._folder))  # noqa: PTH208 (names, not paths)
        except OSError:
            return False
