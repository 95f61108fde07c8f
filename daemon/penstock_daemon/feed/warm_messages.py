"""Messages of one stock that never was: what the feed's code runs on before the first packet counts."""

from __future__ import annotations

import struct

import numpy as np

from penstock.v1.records import TICK_DTYPE, TICK_LENGTH_WORDS, TICK_RTYPE, UNDEFINED_PRICE
from penstock_daemon.feed.memory import Payload

_STOCK = b"WARM    "


def warm_messages(payload: Payload) -> list[bytes]:
    """Return messages that leave the book as they found it; for "WARM", instrument 1."""
    if payload == Payload.DBN:
        record = np.zeros(1, TICK_DTYPE)
        record["length"], record["rtype"], record["instrument_id"] = TICK_LENGTH_WORDS, TICK_RTYPE, 1
        record["price"] = UNDEFINED_PRICE
        return [record.tobytes()] * 4
    head = struct.Struct(">HH6s")
    common = head.pack(1, 0, bytes(6))
    return [
        b"A" + common + struct.pack(">QcI8sI", 1, b"B", 100, _STOCK, 10_000),
        b"F" + common + struct.pack(">QcI8sI4s", 2, b"S", 100, _STOCK, 10_100, b"NONE"),
        b"E" + common + struct.pack(">QIQ", 1, 10, 1),
        b"C" + common + struct.pack(">QIQcI", 1, 10, 2, b"Y", 10_000),
        b"X" + common + struct.pack(">QI", 2, 10),
        b"U" + common + struct.pack(">QQII", 1, 3, 50, 10_010),
        b"P" + common + struct.pack(">QcI8sIQ", 0, b"B", 10, _STOCK, 10_050, 3),
        b"D" + common + struct.pack(">Q", 3),
        b"D" + common + struct.pack(">Q", 2),
    ]
