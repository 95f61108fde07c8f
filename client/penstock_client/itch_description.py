"""What ``penstock inspect`` says of an ITCH 5.0 file: message types, times of day, bursts, and the stocks that are in it.

A stock's name is what ``feed.instruments`` wants; its figures say whether it is worth listening to:

    orders     A and F, which name the stock
    trades     P, which name it too; executions name an order alone, and are counted by type
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from penstock_client.feed_file import LENGTH_BYTES, FeedFile
from penstock_client.file_commands import busiest

ITCH_FORMAT: Final = "itch"
_STOCKS_SHOWN: Final = 10
_STOCK_BYTES: Final = 8
_STOCK_AT: Final = {"R": 11, "A": 24, "F": 24, "P": 24}
_NAMES: Final = {
    "S": "system event", "R": "directory", "H": "trading action", "Y": "short sale restriction", "L": "market maker",
    "V": "circuit breaker levels", "W": "circuit breaker", "K": "quotation of an offering", "J": "auction collar",
    "h": "operational halt", "A": "add", "F": "add with its market maker", "E": "executed", "C": "executed at a price",
    "X": "cancelled", "D": "deleted", "U": "replaced", "P": "trade", "Q": "cross", "B": "broken trade",
    "I": "imbalance", "N": "retail interest", "O": "offering without a price",
}  # fmt: skip


def describe_itch(file: FeedFile) -> dict[str, Any]:
    """Return what an ITCH file holds, as JSON may hold it. file: of ``open_itch_file``, its times since midnight."""
    octets = np.frombuffer(file.blocks, np.uint8)
    places = file.starts[:-1] + LENGTH_BYTES
    kinds = octets[places]
    times = file.times_ns.astype(np.int64)
    ordered = np.maximum.accumulate(times) if len(times) else times
    span_s = (int(ordered[-1]) - int(ordered[0])) / 1e9 if len(ordered) else 0.0
    counts = {chr(kind): int(count) for kind, count in zip(*np.unique(kinds, return_counts=True), strict=True)}
    stocks: dict[str, dict[str, Any]] = {}
    for kind, at in _STOCK_AT.items():
        for name, count in _named(octets, places[kinds == ord(kind)] + at):
            stock = stocks.setdefault(name, {"symbol": name, "orders": 0, "trades": 0})
            if kind != "R":
                stock["trades" if kind == "P" else "orders"] += count
    return {
        "file": str(file.path),
        "format": ITCH_FORMAT,
        "messages": file.messages,
        "first_time_of_day_ns": int(times[0]) if len(times) else None,
        "last_time_of_day_ns": int(times[-1]) if len(times) else None,
        "span_s": round(span_s, 6),
        "messages_per_s": round(len(times) / span_s, 1) if span_s else None,
        "busiest_second": busiest(ordered, 10**9),
        "busiest_millisecond": busiest(ordered, 10**6),
        "types": dict(sorted(counts.items(), key=lambda one: (-one[1], one[0]))),
        "stocks": sorted(stocks.values(), key=lambda one: (-one["orders"] - one["trades"], one["symbol"])),
        "odd": {"times_backwards": int(np.count_nonzero(np.diff(times) < 0))},
    }


def _named(octets: NDArray[np.uint8], places: NDArray[np.int64]) -> list[tuple[str, int]]:
    """Return each name that stands at *places*, and how often; forged bytes are shown as they can be."""
    if not len(places):
        return []
    names = octets[places[:, None] + np.arange(_STOCK_BYTES)].view(f"S{_STOCK_BYTES}").ravel()
    found, counts = np.unique(names, return_counts=True)
    return [
        (name.decode("latin-1").encode("unicode_escape").decode().rstrip(), int(count))
        for name, count in zip(found.tolist(), counts, strict=True)
    ]


def itch_text(found: dict[str, Any]) -> str:
    """Return the same for people."""
    lines = [("file", found["file"]), ("format", "ITCH 5.0"), ("messages", f"{found['messages']:,}")]
    if found["messages"]:
        first, last = (_time_of_day(found[key]) for key in ("first_time_of_day_ns", "last_time_of_day_ns"))
        lines += [
            ("time", f"{first} to {last} of a day that the file does not name, {found['span_s']:,.3f} s"),
            ("rate", f"{found['messages_per_s'] or 0:,.0f} messages/s on average"),
            ("", f"at most {found['busiest_second']:,} in a second, {found['busiest_millisecond']:,} in a millisecond"),
        ]
    lines += [("type", f"{kind}  {count:,} {_NAMES[kind]}") for kind, count in found["types"].items()]
    for one in found["stocks"][:_STOCKS_SHOWN]:
        lines.append(("stock", f"{one['symbol']:<8}  {one['orders']:,} orders, {one['trades']:,} trades"))
    hidden = len(found["stocks"]) - _STOCKS_SHOWN
    if hidden > 0:
        lines.append(("", f"and {hidden:,} more; --json has all"))
    lines += [("odd", f"{count:,} {name.replace('_', ' ')}") for name, count in found["odd"].items() if count]
    return "\n".join(f"{label:<13}{text}" for label, text in lines)


def _time_of_day(time_ns: int) -> str:
    seconds, nanoseconds = divmod(time_ns, 10**9)
    return f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}.{nanoseconds:09d}"
