"""What a feed's messages are about: the configured symbols, as instruments.

    "AAPL"         a stock of an ITCH feed; its id is its place in the list, from 1
    "AAPL=7"       the same with an id of its own
    "BTCUSDT=1"    an instrument of a DBN feed: the id is the one in its records
    "BTCUSDT=1:1000"    whose sizes count thousandths

A stock's locate code is no id: it is another one every day, and a state, a recording and a subscriber outlive the day.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from penstock.v1 import prediction_pb2 as pb

ITCH: Final = "itch"
DBN: Final = "dbn"
PAYLOADS: Final = (ITCH, DBN)

_ITCH_SYMBOL_MAX: Final = 8
_SYMBOL_MAX: Final = 64
_ID_END: Final = 2**32
_SCALE_END: Final = 2**64


def read_symbols(
    payload: str, symbols: Sequence[str], *, dataset: str = "", field: str = "feed.symbols"
) -> tuple[tuple[pb.Instrument, ...], tuple[str, ...]]:
    """Read the configured symbols.

    Args:
        payload: ITCH or DBN.
        symbols: as configured, see above; spaces around them do not count.
        dataset: where they are defined.
        field: the configuration's name for them, for the sentences.

    Returns:
        The instruments, in the order given, and a sentence for each fault; with a fault the instruments are of no use.
    """
    assert payload in PAYLOADS, payload
    instruments: list[pb.Instrument] = []
    faults: list[str] = []
    if not symbols:
        faults.append(f"{field}: must name at least one symbol, was empty")
    ids: dict[int, str] = {}
    names: set[str] = set()
    for place, text in enumerate(symbols, start=1):
        name, equals, rest = (part.strip() for part in text.rpartition("=")) if "=" in text else (text.strip(), "", "")
        number, colon, scale = (part.strip() for part in rest.partition(":"))
        fault = _name_fault(payload, name)
        instrument_id = place
        size_scale = 1
        if not fault and payload == DBN and not equals:
            fault = f'must have the id that its records carry, as in "{name}=1"'
        if not fault and equals:
            if not _is_number(number, _ID_END):
                fault = "must have a whole number from 0 to 4294967295 after the ="
            else:
                instrument_id = int(number)
        if not fault and (colon or (payload == ITCH and ":" in name)):  # No stock of Nasdaq's has a colon in its name.
            if payload == ITCH:
                fault = "must have no size scale: shares are whole"
            elif not _is_number(scale, _SCALE_END) or int(scale) == 0:
                fault = "must have a whole number from 1 to 18446744073709551615 after the :"
            else:
                size_scale = int(scale)
        if not fault and name in names:
            fault = "is named twice: name each symbol once"
        if not fault and instrument_id in ids:
            fault = (
                f"has the id {instrument_id} of {ids[instrument_id]!r}: give each an id of its own, such as {name}=N"
            )
        if fault:
            faults.append(f"{field}: {text!r} {fault}")
            continue
        names.add(name)
        ids[instrument_id] = name
        instruments.append(
            pb.Instrument(instrument_id=instrument_id, dataset=dataset, symbol=name, size_scale=size_scale)
        )
    return tuple(instruments), tuple(faults)


def _name_fault(payload: str, name: str) -> str:
    """Return what is wrong with a symbol's name, or nothing."""
    if payload == ITCH:
        if not 1 <= len(name) <= _ITCH_SYMBOL_MAX or not all("!" <= character <= "~" for character in name):
            return "must be 1 to 8 printable ASCII characters without spaces, as Nasdaq writes the stock"
    elif not 1 <= len(name) <= _SYMBOL_MAX:
        return "must be 1 to 64 characters"
    return ""


def _is_number(text: str, end: int) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 20 and int(text) < end
