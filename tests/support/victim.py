"""A strategy in a process of its own, to be killed or stopped: sends ticks, and writes what it gets into a folder.

python -m support.victim ADDRESS FOLDER SEED TICKS

    FOLDER/token     the session's resume token, once there is a session
    FOLDER/answers   prediction records, as they came
    FOLDER/end       how the stream ended
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from penstock.v1.records import PREDICTION_BYTES, predictions_from_bytes
from support.raw_stream import RawStream, StreamEndError
from support.tick_stream import tick_stream

BATCH = 25
WINDOW = 100
PATIENCE_S = 60.0


def main(address: str, folder: Path, seed: int, count: int) -> None:
    """Send *count* ticks, a few batches ahead of the answers; then say nothing more."""
    ticks = tick_stream(seed, count)
    with RawStream(address) as stream, (folder / "answers").open("wb", buffering=0) as answers:
        welcome = stream.hello(client_name="victim")
        aside = folder / "token.aside"
        aside.write_bytes(welcome.resume_token)
        aside.rename(folder / "token")
        received = 0
        try:
            while True:
                while stream.next_sequence < count and stream.next_sequence - received < WINDOW:
                    stream.ticks(ticks[stream.next_sequence : stream.next_sequence + BATCH])
                    time.sleep(0.0005)
                response = stream.receive(timeout_s=120)
                if response.WhichOneof("message") == "predictions":
                    answers.write(response.predictions.records)
                    received += len(response.predictions.records) // PREDICTION_BYTES
        except StreamEndError as end:
            (folder / "end").write_text(f"{end.code} {end.reason}")


@dataclass
class Victim:
    """The process, and what it has written."""

    process: subprocess.Popen[bytes]
    folder: Path

    @property
    def token(self) -> bytes:
        return (self.folder / "token").read_bytes()

    def answers(self) -> NDArray[np.void]:
        """Return the whole records that it has got so far."""
        data = (self.folder / "answers").read_bytes()
        return predictions_from_bytes(data[: len(data) // PREDICTION_BYTES * PREDICTION_BYTES])

    def wait_for_answers(self, count: int) -> None:
        wait_until(lambda: (self.folder / "token").exists() and len(self.answers()) >= count)

    def end(self) -> str:
        """Return how its stream ended."""
        wait_until(lambda: (self.folder / "end").exists() and (self.folder / "end").read_text() != "")
        return (self.folder / "end").read_text()


@contextlib.contextmanager
def victim(address: str, folder: Path, *, seed: int, ticks: int) -> Iterator[Victim]:
    """A victim for the length of a block."""
    folder.mkdir()
    command = [sys.executable, "-m", "support.victim", address, str(folder), str(seed), str(ticks)]
    tests = str(Path(__file__).resolve().parent.parent)
    process = subprocess.Popen(command, env=os.environ | {"PYTHONPATH": tests}, stdin=subprocess.DEVNULL)
    try:
        yield Victim(process, folder)
    finally:
        process.kill()
        process.wait()


def wait_until(condition, timeout_s: float = PATIENCE_S) -> None:
    """Wait until *condition* is true; a test that never sees it fails."""
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline_s, "it never came to pass"
        time.sleep(0.005)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
