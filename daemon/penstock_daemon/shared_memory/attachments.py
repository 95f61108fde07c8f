"""Who may attach which segment: tokens, and the way from a token to a session whose rings the engine serves.

    Hello.shared_memory -> offer (a token in Welcome) -> redeem, once and in time -> segment made -> engine serves it
    hang-up or fault -> the session is lost, or refused -> the engine lets go -> freed

A token names one stream's hold on one session: a session that another stream has taken over, or that has ended, can't be
attached by it any more. Tokens are compared in constant time, all of them at each try.
"""

from __future__ import annotations

import asyncio
import hmac
import secrets
import socket
import time
from dataclasses import dataclass
from typing import Final

import structlog

from penstock.v1 import prediction_pb2 as pb
from penstock.v1 import shared_ring as layout
from penstock.v1.records import TICK_LENGTH_WORDS, TICK_RTYPE
from penstock.v1.shared_ring import SegmentEnd
from penstock_daemon import faults
from penstock_daemon.engine import Engine
from penstock_daemon.loop_link import LoopLink
from penstock_daemon.sessions import Counts, Hold, Session
from penstock_daemon.shared_memory.attachment import Attachment
from penstock_daemon.shared_memory.segment import Segment

_LOOK_S: Final = 0.001  # How often an attaching strategy's rebuild is looked at.
_CURSORS: Final = {
    layout.TICK_PUBLISHED_AT: "TICK_PUBLISHED",
    layout.PREDICTION_CONSUMED_AT: "PREDICTION_CONSUMED",
}

_log = structlog.get_logger("penstock.sessions")


@dataclass(frozen=True)
class _Offer:
    """What a token is good for, and since when."""

    token: bytes
    session: Session
    hold: Hold
    made_s: float

    def until_s(self, timeout_s: float) -> float:
        """Return until when it is good: rebuild ticks come first, and may take as long as they take."""
        return max(self.made_s, self.session.rebuilt_s) + timeout_s


class Attachments:
    """The segments of a daemon.

    Args:
        engine, link: that serve them.
        address: path of the socket, for Welcome.
        slots: of each ring.
        timeout_s: how long a token is good after Welcome, or after the last rebuild ticks.
        lock: whether segments are locked in memory, where the limit allows.
        counts: of the daemon's sessions.
    """

    def __init__(
        self, engine: Engine, link: LoopLink, *, address: str, slots: int, timeout_s: float, lock: bool, counts: Counts
    ) -> None:
        self._engine = engine
        self._link = link
        self._address = address
        self._slots = slots
        self._timeout_s = timeout_s
        self._lock = lock
        self._offers: list[_Offer] = []
        self._counts = counts

    def offer(self, session: Session, hold: Hold) -> pb.SharedMemory:
        """Return what goes into the Welcome of a stream that asked for shared memory; earlier offers end."""
        now_s = time.monotonic()
        self._offers = [one for one in self._offers if one.session is not session and self._good(one, now_s)]
        token = secrets.token_bytes(layout.TOKEN_BYTES)
        self._offers.append(_Offer(token, session, hold, now_s))
        return pb.SharedMemory(
            address=self._address, token=token, slots=self._slots, layout_version=layout.LAYOUT_VERSION
        )

    async def attach(self, token: bytes, connection: socket.socket) -> Attachment:
        """Make the segment that *token* is good for and have the engine serve it; it owns *connection* from here on.

        Raises:
            SessionFault: there is none to be had; the connection is still the caller's.
        """
        offer = self._redeem(token)
        session = offer.session
        session.attaching = True
        try:
            while session.released < session.rebuild_ticks and _stands(offer):
                if time.monotonic() > offer.until_s(self._timeout_s):
                    raise faults.out_of_order(
                        "ATTACH_REBUILDING",
                        field="TickBatch.purpose",
                        value=f"{session.rebuild_ticks - session.released} rebuild ticks unanswered",
                        mend="read RebuildProgress until all are taken in, then attach",
                    )
                await asyncio.sleep(_LOOK_S)
            segment = await asyncio.get_running_loop().run_in_executor(None, self._make, session)
            if not _stands(offer):
                await self._free(segment)
                raise _gone()
            return await self._begin(session, offer.hold, segment, connection)
        finally:
            session.attaching = False

    def _make(self, session: Session) -> Segment:
        """Make a segment, on an executor's thread."""
        try:
            return Segment(
                self._slots, session_id=session.session_id, first_sequence=session.next_sequence, lock=self._lock
            )
        except OSError as error:
            raise self._no_room(error) from error

    async def _begin(self, session: Session, hold: Hold, segment: Segment, connection: socket.socket) -> Attachment:
        try:
            attachment = Attachment(
                self._engine,
                self._link,
                session.source,
                segment,
                connection,
                lambda: self._on_gone(session, hold, attachment),
            )
        except OSError as error:
            await self._free(segment)
            raise self._no_room(error) from error
        self._link.ignore(session.source)
        self._counts.segments_attached += 1
        session.attachment = attachment
        await attachment.begin(session.ids, session.id_states, repeated=session.repeated)
        _log.info("segment_attached", session=session.session_id, bytes=segment.size_bytes, locked=segment.locked)
        return attachment

    def _redeem(self, token: bytes) -> _Offer:
        now_s = time.monotonic()
        self._offers = [one for one in self._offers if self._good(one, now_s)]
        found = None
        for one in self._offers:  # All of them: how long it takes says nothing about any.
            if hmac.compare_digest(one.token, token):
                found = one
        if found is None:
            raise faults.unauthenticated(
                "ATTACH_TOKEN",
                field="token",
                value="none that is good",
                mend="send that of Welcome.shared_memory, once, within shared_memory.attach_timeout_s",
            )
        self._offers.remove(found)
        return found

    def _good(self, offer: _Offer, now_s: float) -> bool:
        return _stands(offer) and offer.until_s(self._timeout_s) > now_s

    def _no_room(self, error: OSError) -> faults.SessionFault:
        return faults.exhausted(
            "ATTACH_MEMORY",
            field="shared_memory.slots",
            value=f"{self._slots} ({error.strerror})",
            mend="lower it or shared_memory.segments_max, or give the daemon more memory and descriptors",
        )

    async def _free(self, segment: Segment) -> None:
        """Free a segment that the engine never served; like making one, off the event loop."""
        await asyncio.get_running_loop().run_in_executor(None, segment.free)

    def _on_gone(self, session: Session, hold: Hold, attachment: Attachment) -> None:
        """The socket hung up: the strategy is gone, or the engine found in its segment what can't be."""
        why = attachment.fault
        name = "HUNG_UP" if why is SegmentEnd.SERVED else why.name
        self._counts.segments_lost[name] = self._counts.segments_lost.get(name, 0) + 1
        fault = _lost() if why is SegmentEnd.SERVED else _fault(why, *attachment.fault_at)
        _log.info("segment_ended", session=session.session_id, why=name.lower(), detail=str(fault))
        hold.lose(fault)


def _stands(offer: _Offer) -> bool:
    return not offer.session.closed and offer.session.hold is offer.hold and not offer.hold.lost.done()


def _gone() -> faults.SessionFault:
    return faults.unavailable(
        "ATTACH_SESSION", field="token", value="", mend="its session has ended meanwhile; resume it, or open another"
    )


def _lost() -> faults.SessionFault:
    return faults.unavailable(
        "SEGMENT_LOST",
        field="shared_memory",
        value="the attach socket hung up",
        mend="keep it open while the segment is in use; resume with the token, and attach again",
    )


def _fault(why: SegmentEnd, at: int, value: int) -> faults.SessionFault:
    """Return what a strategy wrote that ended its segment."""
    if why is SegmentEnd.CURSOR:
        return faults.invalid(
            "SEGMENT_CURSOR",
            field=f"segment.{_CURSORS.get(at, at)}",
            value=value,
            mend="count records, never back, and at most a ring further than the other side",
        )
    length, rtype = value & 0xFF, value >> 8
    name, found, wanted = ("rtype", rtype, TICK_RTYPE) if rtype != TICK_RTYPE else ("length", length, TICK_LENGTH_WORDS)
    return faults.invalid(
        "SEGMENT_TICK",
        field=f"segment.ticks[{at}].{name}",
        value=found,
        mend=f"publish DBN mbp-1 records alone, whose {name} is {wanted}, each whole before its cursor",
    )
