"""Order books in plain Python dictionaries, from Nasdaq's specification and docs/order-books.md: slow, and easy to believe.

No prices are aggregated and nothing is remembered between messages but the orders: the top is the maximum and the minimum
over all orders of a stock, each time anew.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

UNDEFINED = 2**63 - 1

# Type: struct format behind the 11-byte head, whose fields are named where they matter.
LAYOUTS = {
    "S": "c", "R": "8s c c I c c 2s ccccc I c", "H": "8s c c 4s", "Y": "8s c", "L": "4s 8s c c c", "V": "QQQ", "W": "c",
    "K": "8s I c I", "J": "8s III I", "h": "8s c c", "A": "Q c I 8s I", "F": "Q c I 8s I 4s", "E": "Q I Q",
    "C": "Q I Q c I", "X": "Q I", "D": "Q", "U": "Q Q I I", "P": "Q c I 8s I Q", "Q": "Q 8s I Q c", "B": "Q",
    "I": "QQ c 8s III cc", "N": "8s c", "O": "8s c III Q I I",
}  # fmt: skip


@dataclass
class Order:
    stock: str
    side: str
    price: int
    shares: int


@dataclass
class Stock:
    instrument_id: int
    orders: dict[int, Order] = field(default_factory=dict)
    locate: int | None = None
    unsound: bool = False
    told: tuple = (UNDEFINED, 0, 0, UNDEFINED, 0, 0, False)


def is_limit(price: int) -> bool:
    return price != 0 and price < 1_999_999_900


def best(orders: list[Order], choose) -> tuple[int, int, int]:
    prices = [one.price for one in orders if is_limit(one.price)]
    if not prices:
        return UNDEFINED, 0, 0
    price = choose(prices)
    there = [one for one in orders if one.price == price]
    return price * 100_000, min(sum(one.shares for one in there), 2**32 - 1), len(there)


class Refused(Exception):  # noqa: N818 - a result, not an error.
    """The message is refused, for a reason of memory.Refusal by name."""


class ReferenceBooks:
    def __init__(self, names: list[str], ids: list[int], *, orders_max: int, levels_max: int):
        self.stocks = {name: Stock(one) for name, one in zip(names, ids, strict=True)}
        self.orders_max = orders_max
        self.levels_max = levels_max
        self.locates: dict[int, str] = {}

    def top(self, name: str) -> tuple[int, ...]:
        mine = list(self.stocks[name].orders.values())
        bid = best([one for one in mine if one.side == "B"], max)
        return bid + best([one for one in mine if one.side == "S"], min)

    def new_session(self) -> None:
        self.locates = {}
        self.stocks = {name: Stock(one.instrument_id) for name, one in self.stocks.items()}

    def mark_unsound(self) -> None:
        for one in self.stocks.values():
            one.unsound = True

    def apply(self, message: bytes, midnight_ns: int) -> tuple[str, dict | None]:
        """Return a stock's name and its tick, or "" and None, or the name of a Refusal and None."""
        try:
            found = self._apply(message)
        except Refused as refused:
            return str(refused), None
        if found is None:
            return "", None
        name, action, side, price, size = found
        one = self.stocks[name]
        now = (*self.top(name), one.unsound)
        if action != "T" and now == one.told:
            return "", None
        one.told = now
        keys = ("bid_px", "bid_sz", "bid_ct", "ask_px", "ask_sz", "ask_ct")
        time_ns = int.from_bytes(message[5:11], "big")
        return name, dict(zip(keys, now, strict=False)) | {
            "length": 20, "rtype": 1, "publisher_id": 2, "instrument_id": one.instrument_id,
            "ts_event": 2**64 - 1 if midnight_ns < 0 else midnight_ns + time_ns, "price": price, "size": size,
            "action": ord(action), "side": ord(side), "flags": 128 | (4 if one.unsound else 0), "depth": 0,
            "ts_in_delta": 0, "sequence": 0,
        }  # fmt: skip

    def _apply(self, message: bytes) -> tuple[str, str, str, int, int] | None:
        if len(message) < 1:
            self.mark_unsound()
            raise Refused("WRONG_LENGTH")
        kind = chr(message[0])
        layout = LAYOUTS.get(kind)
        if layout is None or len(message) != 11 + struct.calcsize(">" + layout):
            if len(message) < 3:
                self.mark_unsound()
            else:
                self._doubt(int.from_bytes(message[1:3], "big"))
            raise Refused("UNKNOWN_TYPE" if layout is None else "WRONG_LENGTH")
        locate = int.from_bytes(message[1:3], "big")
        fields = struct.unpack(">" + layout, message[11:])
        if kind == "S":
            if fields[0] == b"O":
                self.new_session()
            return None
        if kind == "R":
            self._named(locate, fields[0])
            return None
        if kind in "AF":
            reference, side, shares, stock, price = fields[:5]
            name = self._named(locate, stock)
            if name is None:
                return None
            if side not in (b"B", b"S"):
                self.stocks[name].unsound = True
                raise Refused("WRONG_VALUE")
            self._add(name, reference, side.decode(), price, shares)
            return name, "A", "B" if side == b"B" else "A", UNDEFINED, 0
        if kind == "P":
            _, side, shares, stock, price, _ = fields
            name = self._named(locate, stock)
            if name is None:
                return None
            if side not in (b"B", b"S") or shares == 0:
                raise Refused("WRONG_VALUE")
            return name, "T", "N", price * 100_000 if is_limit(price) else UNDEFINED, shares
        if kind not in "ECXDU":
            return None
        if locate not in self.locates:
            self._doubt(locate)
            raise Refused("UNKNOWN_ORDER")
        name = self.locates[locate]
        if name not in self.stocks:
            return None
        one = self.stocks[name]
        owner = next((other for other in self.stocks.values() if fields[0] in other.orders), None)
        if owner is None:
            one.unsound = True
            raise Refused("UNKNOWN_ORDER")
        if owner is not one:
            one.unsound = owner.unsound = True
            raise Refused("WRONG_VALUE")
        order = one.orders[fields[0]]
        shown = "B" if order.side == "B" else "A"
        if kind == "D":
            del one.orders[fields[0]]
            return name, "C", shown, UNDEFINED, 0
        if kind == "U":
            del one.orders[fields[0]]
            self._add(name, fields[1], order.side, fields[3], fields[2])
            return name, "M", shown, UNDEFINED, 0
        shares = fields[1]
        if shares == 0:
            one.unsound = True
            raise Refused("WRONG_VALUE")
        if shares >= order.shares:
            del one.orders[fields[0]]
        if shares > order.shares:
            one.unsound = True
            raise Refused("TOO_LARGE")
        order.shares -= shares
        if kind == "X":
            return name, "C", shown, UNDEFINED, 0
        price = order.price
        if kind == "C":
            if fields[3] == b"N":
                return name, "C", shown, UNDEFINED, 0
            if fields[3] != b"Y":
                raise Refused("WRONG_VALUE")
            price = fields[4]
        return name, "T", "A" if order.side == "B" else "B", price * 100_000 if is_limit(price) else UNDEFINED, shares

    def _add(self, name: str, reference: int, side: str, price: int, shares: int) -> None:
        mine = self.stocks[name].orders
        reason = ""
        if shares == 0:
            reason = "WRONG_VALUE"
        elif any(reference in one.orders for one in self.stocks.values()):
            reason = "DUPLICATE_ORDER"
        elif sum(len(one.orders) for one in self.stocks.values()) >= self.orders_max:
            reason = "ORDERS_FULL"
        elif is_limit(price):
            prices = {one.price for one in mine.values() if one.side == side and is_limit(one.price)}
            if price not in prices and len(prices) >= self.levels_max:
                reason = "LEVELS_FULL"
        if reason:
            self.stocks[name].unsound = True
            raise Refused(reason)
        mine[reference] = Order(name, side, price, shares)

    def _named(self, locate: int, stock: bytes) -> str | None:
        name = stock.decode("latin-1").rstrip(" ")
        if stock != bytes(8) and self.locates.get(locate) == name:
            return name if name in self.stocks else None
        taken = name in self.stocks and self.stocks[name].locate is not None
        if stock == bytes(8) or locate in self.locates or taken:
            self._doubt(locate)
            if name in self.stocks:
                self.stocks[name].unsound = True
            raise Refused("WRONG_VALUE")
        self.locates[locate] = name
        if name not in self.stocks:
            return None
        self.stocks[name].locate = locate
        return name

    def _doubt(self, locate: int) -> None:
        if locate in self.locates:
            if self.locates[locate] in self.stocks:
                self.stocks[self.locates[locate]].unsound = True
        elif locate != 0:
            for one in self.stocks.values():
                if one.locate is None:
                    one.unsound = True
