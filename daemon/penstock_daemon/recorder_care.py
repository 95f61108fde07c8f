"""The daemon's handle on its recorder, whether it records or not: what is recorded, from where, and until when.

    sessions over gRPC         the event loop hands over the bytes of their messages
    sessions over shared memory, the feed         their thread leaves copies in a tap, which is emptied 20 times a second

The recorder outlives the engine and the feed, so that what they left last is written too.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import structlog

from penstock_daemon.config_fields import RecordConfig
from penstock_daemon.engine import Engine
from penstock_daemon.engine_tap import TapMemory
from penstock_daemon.log_limit import LogLimit
from penstock_daemon.recorder import Recorder
from penstock_daemon.recorder_file import RecordedInstrument
from penstock_daemon.recorder_taps import TapDrain
from penstock_daemon.recording import Recording
from penstock_daemon.sessions import Session

FEED_SESSION: Final = 0  # In names and catalogue; sessions are counted from 1.
_GATHER_S: Final = 0.05
_STOP_S: Final = 5.0

_log = structlog.get_logger("penstock.recorder")


class RecorderCare:
    """Opens, feeds and closes the recorder that the configuration asks for, if it asks for one.

    Args:
        config: the section [record].
    """

    def __init__(self, config: RecordConfig) -> None:
        self._config = config
        self.recorder: Recorder | None = None  # Once it is open.
        self._segments: TapDrain | None = None
        self._feed: TapDrain | None = None
        self._emptying: asyncio.Task[None] | None = None
        self._begun = asyncio.Event()  # There may be a recording that a tap is emptied for.
        self._told = 0  # Missed ticks that the log has told of.
        self._limit = LogLimit()

    @property
    def tap_ticks(self) -> int:
        """How many ticks each tap holds; 0 where nothing is recorded."""
        return self._config.tap_ticks if self._config.folder else 0

    def open(self) -> None:
        """Take the folder and start the recorder's thread.

        Raises:
            RecorderError: the folder can't be used.
        """
        config = self._config
        if config.folder:
            mib = 1024 * 1024
            rotate_ns = int(config.rotate_s * 1e9)
            self.recorder = Recorder(Path(config.folder), config.rotate_mb * mib, rotate_ns, config.queue_mb * mib)

    def serve(self, engine: Engine) -> None:
        """Empty taps from now on, on the running event loop. engine: that leaves ticks of segments."""
        if self.recorder is not None:
            self._segments = TapDrain(engine.buffers.tap, engine.command_state)
            self._emptying = asyncio.create_task(self._empty())

    def record(self, session: Session) -> Recording | None:
        """Return the recording of a new session that no segment is attached to yet; None where nothing is recorded."""
        if self.recorder is None:
            return None
        recording = self.recorder.open_session(session.session_id, session.client_name, session.instruments)
        if not session.shared:
            return recording
        assert self._segments is not None, "sessions are opened once the daemon serves"
        self._begun.set()
        return self._segments.begin(session.source, recording)

    def record_feed(self, name: str, instruments: Sequence[RecordedInstrument], tap: TapMemory) -> None:
        """Record the feed, whose thread has not started, until ``close``; nothing where nothing is recorded."""
        if self.recorder is not None:
            self._feed = TapDrain(tap, lambda: (0, 0))
            self._feed.begin(0, self.recorder.open_session(FEED_SESSION, name, instruments))
            self._begun.set()

    async def _empty(self) -> None:
        try:
            while True:
                await self._begun.wait()
                await asyncio.sleep(_GATHER_S)
                for tap in self._taps():
                    more = True
                    while more:
                        more = tap.drain()
                        await asyncio.sleep(0)  # A piece at a time: answers go out in between.
                self._tell()
                if not any(tap.recordings for tap in self._taps()):
                    self._begun.clear()
        except Exception:  # noqa: BLE001 - Policy: a mistake here costs recordings, never the daemon.
            _log.exception(
                "recorder_failed", mend="report this; what comes by segments and feeds is not recorded any more"
            )

    def _taps(self) -> list[TapDrain]:
        return [tap for tap in (self._segments, self._feed) if tap is not None]

    def _tell(self, *, last: bool = False) -> None:
        """Have the log tell of ticks that found a tap full, once a while; of what it has not told, the *last* time."""
        assert self.recorder is not None, "taps are emptied where there is a recorder"
        missed = self.recorder.stats().ticks_missed
        if missed > self._told and (last or self._limit.due("tap_full") is not None):
            _log.warning(
                "recording_tap_full",
                ticks=missed - self._told,
                total=missed,
                mend="raise record.tap_ticks, or give the event loop more CPU; the recordings say where ticks are missing",
            )
            self._told = missed

    def close(self) -> None:
        """Take what taps still hold, complete every file and stop; engine and feed have stopped."""
        if self._emptying is not None:
            self._emptying.cancel()
        if self.recorder is None:
            return
        try:
            for tap in self._taps():
                tap.finish()
            self._tell(last=True)
        finally:
            if not self.recorder.close(_STOP_S):
                _log.warning(
                    "recording_unfinished", mend="the disk is too slow; the next start mends the partial files"
                )
