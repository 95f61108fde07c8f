"""The configuration's part about the multicast feed: its lines, what they carry, its instruments, and its patience.

    group = ""      no feed, and no other key of the section matters
    instruments     "AAPL, MSFT" or "BTCUSDT=1, ETHUSDT=2": names in the order of the engine's states

Whether an interface exists, and whether it can stamp packets, is found out when the daemon starts.
"""

from __future__ import annotations

import datetime as dt
import ipaddress
import zoneinfo
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal

from penstock_daemon.addresses import TcpAddress, parse_address
from penstock_daemon.config_limits import Between, Cpus, PathText, PowerOfTwo
from penstock_daemon.feed.payloads import read_symbols

Payload = Literal["itch", "dbn"]
FeedIdle = Literal["block", "spin"]
FeedStamps = Literal["auto", "hardware", "kernel", "off"]

INSTRUMENTS_MAX: Final = 4096
_NAME_CHARACTERS: Final = 64


@dataclass(frozen=True, slots=True)
class MulticastGroup:
    """An IPv4 multicast group and its port; "" stands for none."""

    def words(self) -> str:
        """Return the limit."""
        return 'GROUP:PORT, such as 239.1.2.3:26400; "" is none'

    def fault(self, value: object, cpus: Collection[int]) -> str | None:
        """Refuse what is no IPv4 multicast address with a port."""
        del cpus
        assert isinstance(value, str), "MulticastGroup limits strings"
        if not value:
            return None
        try:
            host, port = parse_group(value)
        except ValueError as fault:
            return str(fault)
        if not host.is_multicast:
            return f"must be a multicast group, 224.0.0.0 to 239.255.255.255, such as 239.1.2.3:{port}"
        return None


@dataclass(frozen=True, slots=True)
class HostPort:
    """A host and a UDP port; "" stands for none."""

    def words(self) -> str:
        """Return the limit."""
        return 'HOST:PORT; "" is none'

    def fault(self, value: object, cpus: Collection[int]) -> str | None:
        """Refuse what is no address, and port 0."""
        del cpus
        assert isinstance(value, str), "HostPort limits strings"
        if not value:
            return None
        try:
            address = parse_address(value)
        except ValueError:
            return "must be HOST:PORT, such as 10.0.0.5:26410"
        if not isinstance(address, TcpAddress) or address.port == 0:
            return "must be HOST:PORT, such as 10.0.0.5:26410"
        return None


@dataclass(frozen=True, slots=True)
class InstrumentList:
    """Instruments, parted by commas; what each must be depends on the payload."""

    def words(self) -> str:
        """Return the limit."""
        return f"NAME, NAME=ID or NAME=ID:SCALE, parted by commas, at most {INSTRUMENTS_MAX}"

    def fault(self, value: object, cpus: Collection[int]) -> str | None:
        """Refuse too many, and none between two commas."""
        del cpus
        assert isinstance(value, str), "InstrumentList limits strings"
        parts = split_instruments(value)
        if len(parts) > INSTRUMENTS_MAX:
            return f"must have at most {INSTRUMENTS_MAX} instruments"
        return None if all(parts) else "must have a name on both sides of every comma"


@dataclass(frozen=True, slots=True)
class DateText:
    """A day as YYYY-MM-DD; "" stands for today."""

    def words(self) -> str:
        """Return the limit."""
        return 'YYYY-MM-DD; "" is today'

    def fault(self, value: object, cpus: Collection[int]) -> str | None:
        """Refuse what is no day of the years that ns since 1970 can count."""
        del cpus
        assert isinstance(value, str), "DateText limits strings"
        if not value:
            return None
        try:
            day = dt.date.fromisoformat(value)
        except ValueError:
            return "must be a day, such as 2024-08-08"
        return None if 1971 <= day.year <= 2260 and len(value) == 10 else "must be a day, such as 2024-08-08"


@dataclass(frozen=True, slots=True)
class ZoneName:
    """A time zone by its name in the IANA database."""

    def words(self) -> str:
        """Return the limit."""
        return "a time zone, such as America/New_York or UTC"

    def fault(self, value: object, cpus: Collection[int]) -> str | None:
        """Refuse what this host does not know."""
        del cpus
        assert isinstance(value, str), "ZoneName limits strings"
        if value == "UTC":
            return None
        try:
            zoneinfo.ZoneInfo(value)
        except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
            return "must be a time zone that this host knows (tzdata has them), such as America/New_York"
        return None


@dataclass(frozen=True, slots=True)
class ShortText:
    """Printable text without spaces around it."""

    least: int = 0

    def words(self) -> str:
        """Return the limit."""
        return f"{self.least} to {_NAME_CHARACTERS} characters"

    def fault(self, value: object, cpus: Collection[int]) -> str | None:
        """Refuse what is too short, too long or not printable."""
        del cpus
        assert isinstance(value, str), "ShortText limits strings"
        fits = self.least <= len(value) <= _NAME_CHARACTERS and value.isprintable() and value == value.strip()
        return None if fits else f"must be {self.words()}, all printable, without spaces around them"


@dataclass(frozen=True, slots=True)
class FeedConfig:
    """A multicast market-data feed (MoldUDP64) that the daemon receives itself; see docs/feed.md."""

    group: Annotated[
        str, MulticastGroup(), 'Line A: the multicast group and port that are listened to. "" is no feed.'
    ] = ""
    group_b: Annotated[
        str, MulticastGroup(), "Line B: the same packets again. The first copy of each message is taken."
    ] = ""
    interface: Annotated[
        str, ShortText(), 'The interface that joins the group, by name or IPv4 address. "" leaves it to the routes.'
    ] = ""
    interface_b: Annotated[str, ShortText(), 'The same for line B. "" is the one of line A.'] = ""
    name: Annotated[str, ShortText(1), "What Subscribe and the metrics call it."] = "feed"
    payload: Annotated[
        Payload,
        "What messages are. itch is NASDAQ TotalView-ITCH 5.0, from which books are built. dbn is one 80-byte DBN mbp-1 "
        "record each.",
    ] = "itch"
    instruments: Annotated[
        str,
        InstrumentList(),
        'What is predicted: stocks as ITCH names them, such as "AAPL, MSFT"; with dbn, "BTCUSDT=1, ETHUSDT=2:1000", each with '
        "the instrument_id of its records, and after a colon how many units of its sizes make one. Without an id, a stock has "
        "its place in the list, from 1 on.",
    ] = ""
    dataset: Annotated[
        str, ShortText(), "Where the names are defined, such as XNAS.ITCH; part of what an instrument is called."
    ] = ""
    model: Annotated[
        str, PathText(), 'The model that predicts them: a file of models.folder, by its name. "" is the active one.'
    ] = ""
    date: Annotated[
        str, DateText(), 'The day that the times of ITCH count from. "" is today, anew for each session.'
    ] = ""
    time_zone: Annotated[str, ZoneName(), "Whose midnight that is."] = "America/New_York"
    recovery: Annotated[
        str, HostPort(), 'Where missing messages are asked for again (MoldUDP64 re-request). "" asks nobody.'
    ] = ""
    recovery_timeout_ms: Annotated[int, Between(1, 10_000), "How long an answer is waited for before asking again."] = (
        20
    )
    recovery_attempts: Annotated[
        int, Between(1, 100), "How often the same messages are asked for, unanswered, before they are given up."
    ] = 3
    reorder_wait_us: Annotated[
        int,
        Between(0, 1_000_000),
        "How long a missing message is waited for on the lines before it is asked for, or given up where nobody can be asked.",
    ] = 1_000
    reorder_max: Annotated[
        int,
        PowerOfTwo(1024, 1_048_576),
        "Most messages held behind a missing one; where more come, it is given up. Each takes 192 bytes.",
    ] = 8192
    orders_max: Annotated[
        int, PowerOfTwo(1024, 16_777_216), "Most open orders of all its books together, with itch."
    ] = 1_048_576
    levels_max: Annotated[int, PowerOfTwo(16, 65_536), "Most prices on one side of one book, with itch."] = 4096
    idle: Annotated[
        FeedIdle, "What its thread does without packets. spin burns a CPU of its own for the lowest latency."
    ] = "block"
    cores: Annotated[tuple[int, ...], Cpus(), "CPUs of its thread. Keep them apart from engine.cores."] = ()
    receive_buffer_kb: Annotated[
        int,
        Between(64, 1_048_576),
        "What each socket may hold until its thread comes. More than net.core.rmem_max takes CAP_NET_ADMIN.",
    ] = 8192
    busy_poll_us: Annotated[
        int, Between(0, 1000), "How long a look at a socket polls its network card (SO_BUSY_POLL); 0 leaves it alone."
    ] = 0
    stamps: Annotated[
        FeedStamps,
        "Whose clock says when a packet came. auto takes the network card's where it may and can be had, else the kernel's. "
        "hardware refuses to start without. off takes the time at which the daemon has the packet.",
    ] = "auto"
    subscribers_max: Annotated[int, Between(1, 65_536), "Most subscribers to its predictions at once."] = 256
    subscriber_queue_max: Annotated[
        int,
        Between(4_096, 16_777_216),
        "Most predictions that wait for a subscriber; where more come, it is cut off. Each takes 128 bytes.",
    ] = 65_536  # 8 MiB, and at 10,000 ticks/s more than six seconds.


def parse_group(text: str) -> tuple[ipaddress.IPv4Address, int]:
    """Return address and port of "239.1.2.3:26400".

    Raises:
        ValueError: a clause that begins with "must".
    """
    host, colon, port_text = text.rpartition(":")
    try:
        address = ipaddress.IPv4Address(host)
    except ValueError:
        raise ValueError("must be GROUP:PORT with an IPv4 address, such as 239.1.2.3:26400") from None
    if not (colon and port_text.isascii() and port_text.isdigit() and len(port_text) <= 5):
        raise ValueError("must end in a port of 1 to 65535, such as 239.1.2.3:26400")
    port = int(port_text)
    if not 1 <= port <= 65_535:
        raise ValueError("must end in a port of 1 to 65535, such as 239.1.2.3:26400")
    return address, port


def split_instruments(text: str) -> list[str]:
    """Return the parts of the list *text*, such as "A=1, B=2"; ``feed.payloads.read_symbols`` reads them."""
    return [part.strip() for part in text.split(",")] if text.strip() else []


def feed_faults(values: Mapping[str, Any]) -> Iterator[str]:
    """Yield what is wrong with keys of [feed] that are each sound but don't go together; *values* by key."""
    if not values["feed.group"]:
        if values["feed.group_b"]:
            yield f"feed.group: must be set where feed.group_b is ({values['feed.group_b']}), was ''"
        return
    if values["feed.group_b"] == values["feed.group"]:
        here, there = values["feed.interface"], values["feed.interface_b"]
        if there in ("", here):
            yield f"feed.group_b: must be another group than feed.group on the same interface, was {values['feed.group_b']!r}"
    _, faults = read_symbols(
        values["feed.payload"], split_instruments(values["feed.instruments"]), field="feed.instruments"
    )
    yield from faults
    yield from _starved(values)


def _starved(values: Mapping[str, Any]) -> Iterator[str]:
    """Yield who would never run: a thread whose only CPU is that of another one, which spins."""
    cores = set(values["feed.cores"])
    if len(cores) != 1:
        return
    for owner, neighbour in (("engine.cores", "engine"), ("server.cores", "event loop")):
        if set(values[owner]) != cores:
            continue
        if values["feed.idle"] == "spin":
            yield (
                f'feed.cores: must not be the only CPU of {owner} while feed.idle is "spin" (the feed would starve the '
                f'{neighbour}; use idle = "block"), was {sorted(cores)}'
            )
        elif neighbour == "engine" and values["engine.idle"] == "spin":
            yield (
                'feed.cores: must not be the only CPU of engine.cores while engine.idle is "spin" (the engine would '
                f"starve the feed; give the feed another CPU), was {sorted(cores)}"
            )
