"""A strategy with a segment, in a process of its own, to be killed in the middle of a write.

python -m support.segment_victim ADDRESS FOLDER SEED TICKS

    FOLDER/token     the session's resume token, once it is attached and has its first answers
    FOLDER/answers   prediction records, as they came

It writes byte by byte what it publishes, so whenever it is killed, a record is half written.
"""

from __future__ import annotations

import sys
from pathlib import Path

from penstock.v1 import shared_ring as layout
from support.raw_stream import RawStream
from support.segment_client import attach
from support.tick_stream import tick_stream

BATCH = 8


def main(address: str, folder: Path, seed: int, count: int) -> None:
    """Publish *count* ticks a few at a time, read what is there, and go on writing without end."""
    ticks = tick_stream(seed, count)
    with RawStream(address) as stream, (folder / "answers").open("wb", buffering=0) as answers:
        welcome = stream.hello(client_name="victim", shared_memory=True)
        segment = attach(welcome)
        for start in range(0, count, BATCH):
            segment.publish(ticks[start : start + BATCH])
            answers.write(segment.predictions(min(BATCH, segment.ready())).tobytes())
            if segment.consumed >= 10 * BATCH and not (folder / "token").exists():
                aside = folder / "token.aside"
                aside.write_bytes(welcome.resume_token)
                aside.rename(folder / "token")
        at = layout.HEADER_BYTES + (segment.published & (segment.slots - 1)) * layout.TICK_SLOT_BYTES
        while True:
            for index, byte in enumerate(ticks[:1].tobytes()):
                segment.map[at + index] = byte ^ 0xFF


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
