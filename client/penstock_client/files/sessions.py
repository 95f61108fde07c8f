"""What the daemon recorded, as sessions: which one some files are of, and what they lack of it.

    the files of one session follow each other      first_tick of the next >= first_tick + ticks + missing ticks

Sessions are counted from 1 by each daemon that ran, so the same number twice can be two sessions: the later one starts
again where the earlier one had been.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from penstock_client.errors import LocalUsageError
from penstock_client.files.tick_file import TickFile


@dataclass(frozen=True)
class RecordedSession:
    """What some files of one session have and lack.

    Attributes:
        session_id: as the daemon counted it.
        first_tick: where in the session the files begin.
        rebuild_ticks: how many ticks restored states and had no prediction; a replay predicts them.
        missing_ticks: how many the recorder dropped or lost, or are in files that were not given.
        cut_short: whether the daemon was killed while it recorded.
        left_out_ticks: how many the caller doesn't want replayed.
    """

    session_id: int
    first_tick: int
    rebuild_ticks: int
    missing_ticks: int
    cut_short: bool
    left_out_ticks: int = 0

    @property
    def hash_differs_because(self) -> list[str]:
        """Clauses about why a replay has another prediction hash than the session had; empty where none is known."""
        counted = [
            (self.rebuild_ticks, "restored states then and are predicted now"),
            (self.first_tick, "came before the first file"),
            (self.missing_ticks, "are missing"),
            (self.left_out_ticks, "were left out"),
        ]
        clauses = [f"{count:,} of its ticks {what}" for count, what in counted if count]
        return [*clauses, "its recording was cut short"] if self.cut_short else clauses


def recorded_session(files: Sequence[TickFile]) -> RecordedSession | None:
    """Return the session that the recordings among *files* are of; None where there are none.

    Raises:
        LocalUsageError: they are of several sessions, or not in order; names the sessions and their files.
    """
    runs: list[list[TickFile]] = []
    for file in files:
        if file.recording is not None:
            if runs and _follows(runs[-1], file):
                runs[-1].append(file)
            else:
                runs.append([file])
    if not runs:
        return None
    if len(runs) > 1:
        named = "; ".join(_described(run) for run in runs)
        if len({_key(run[0]) for run in runs}) < len(runs):
            why = "its files don't follow each other, or were recorded by daemons that each counted from 1"
            mend = "give one session's files, in order of their names"
        else:
            why = "sessions have no order in common"
            mend = "give one session's files, choose one with --session ID"
        raise LocalUsageError(
            f"these files are not one recorded session ({named}), and {why}: {mend}, "
            "or merge them as markets with --order ts_recv"
        )
    (run,) = runs
    parts = [file.recording for file in run if file.recording is not None]
    jumps = sum(part.first_tick - _end(before) for before, part in zip(run, parts[1:], strict=False))
    return RecordedSession(
        session_id=parts[0].session_id,
        first_tick=parts[0].first_tick,
        rebuild_ticks=sum(part.rebuild_ticks for part in parts),
        missing_ticks=sum(part.missing_ticks for part in parts) + jumps,
        cut_short=any(part.cut_short for part in parts),
    )


def of_session(files: Sequence[TickFile], session_id: int) -> list[TickFile]:
    """Keep the recordings of the session with this number.

    Raises:
        LocalUsageError: there are none; names the sessions that are there.
    """
    kept = [file for file in files if file.recording is not None and file.recording.session_id == session_id]
    if not kept:
        there = sorted({file.recording.session_id for file in files if file.recording is not None})
        known = f"take one of {', '.join(map(str, there))}" if there else "leave --session out: none is a recording"
        raise LocalUsageError(f"no file is of this recorded session: session={session_id}; {known}")
    return kept


def _key(file: TickFile) -> tuple[Path, int]:
    assert file.recording is not None, "only recordings are of a session"
    return file.path.parent, file.recording.session_id


def _end(file: TickFile) -> int:
    assert file.recording is not None, "only recordings are of a session"
    return file.recording.first_tick + len(file.ticks) + file.recording.missing_ticks


def _follows(run: list[TickFile], file: TickFile) -> bool:
    assert file.recording is not None, "only recordings are of a session"
    return _key(run[-1]) == _key(file) and file.recording.first_tick >= _end(run[-1])


def _described(run: list[TickFile]) -> str:
    first, last = run[0], run[-1]
    names = first.name if first is last else f"{first.name} to {last.name}"
    return f"session {_key(first)[1]}: {names}"
