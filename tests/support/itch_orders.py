"""ITCH 5.0 messages about orders, and flows of them made from bytes that Hypothesis draws."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

STOCKS = ["AAPL", "B", "LONGNAME"]
UNWANTED = "NOTME"
LOCATES = {"AAPL": 13, "B": 2, "LONGNAME": 65_535, UNWANTED: 7}


def message(kind: str, locate: int, body: bytes, time_ns: int = 34_200_000_000_123) -> bytes:
    return kind.encode("latin-1") + struct.pack(">HH", locate, 0) + time_ns.to_bytes(6, "big") + body


def stock_bytes(name: str) -> bytes:
    return name.encode().ljust(8)


def start_of_messages() -> bytes:
    return message("S", 0, b"O")


def directory(name: str, locate: int | None = None) -> bytes:
    return message("R", LOCATES[name] if locate is None else locate, stock_bytes(name) + bytes(20))


def add(name: str, reference: int, side: str, shares: int, price: int, *, locate: int | None = None, kind="A") -> bytes:
    body = struct.pack(">Q1sI8sI", reference, side.encode("latin-1"), shares, stock_bytes(name), price)
    return message(kind, LOCATES[name] if locate is None else locate, body + (b"VIRT" if kind == "F" else b""))


def executed(name: str, reference: int, shares: int) -> bytes:
    return message("E", LOCATES[name], struct.pack(">QIQ", reference, shares, 1))


def executed_at(name: str, reference: int, shares: int, price: int, printable: str = "Y") -> bytes:
    return message("C", LOCATES[name], struct.pack(">QIQ1sI", reference, shares, 1, printable.encode("latin-1"), price))


def cancel(name: str, reference: int, shares: int) -> bytes:
    return message("X", LOCATES[name], struct.pack(">QI", reference, shares))


def delete(name: str, reference: int) -> bytes:
    return message("D", LOCATES[name], struct.pack(">Q", reference))


def replace(name: str, old: int, new: int, shares: int, price: int) -> bytes:
    return message("U", LOCATES[name], struct.pack(">QQII", old, new, shares, price))


def trade(name: str, shares: int, price: int, side: str = "B") -> bytes:
    body = struct.pack(">Q1sI8sIQ", 0, side.encode("latin-1"), shares, stock_bytes(name), price, 9)
    return message("P", LOCATES[name], body)


@dataclass
class Flow:
    """A market that never contradicts itself: six bytes make one message about the orders that are there."""

    prices: int = 12
    first_price: int = 1_000_000
    live: dict[int, tuple[str, str, int]] = field(default_factory=dict)  # Reference: name, side, shares.
    last_reference: int = 2**64 - 200  # References are 64 bits: the flow passes the end of them.

    def opening(self) -> list[bytes]:
        return [start_of_messages(), *(directory(name) for name in LOCATES)]

    def next(self, choice: bytes) -> bytes:
        what, which, side, shares, price, extra = choice
        name = (*STOCKS, UNWANTED)[which % 4]
        level = self.first_price + 100 * (price % self.prices)
        if extra % 16 == 0:
            level = (0, 1_999_999_900, 2_000_000_000, 1)[price % 4]
        if what % 16 == 15:
            return trade(name, 1 + shares, level, "BS"[side % 2])
        if what % 16 == 14:
            return message("H", LOCATES[name], stock_bytes(name) + b"T " + b"    ")
        if not self.live or what % 16 < 6:
            self.last_reference = (self.last_reference + 1) % 2**64
            kind = "AF"[extra % 2]
            self.live[self.last_reference] = (name, "BS"[side % 2], 1 + shares)
            return add(name, self.last_reference, "BS"[side % 2], 1 + shares, level, kind=kind)
        reference = list(self.live)[which % len(self.live)]
        name, its_side, held = self.live.pop(reference)
        if what % 16 < 8:
            return delete(name, reference)
        if what % 16 < 10:
            self.last_reference = (self.last_reference + 1) % 2**64
            self.live[self.last_reference] = (name, its_side, 1 + shares)
            return replace(name, reference, self.last_reference, 1 + shares, level)
        taken = min(held, 1 + shares % 64)
        if taken < held:
            self.live[reference] = (name, its_side, held - taken)
        if what % 16 < 12:
            return executed(name, reference, taken)
        if what % 16 == 12:
            return executed_at(name, reference, taken, level, "YN"[extra % 2])
        return cancel(name, reference, taken)

    def messages(self, choices: bytes) -> list[bytes]:
        return [self.next(choices[at : at + 6]) for at in range(0, len(choices) - 5, 6)]


def mutated(messages: list[bytes], choices: bytes) -> list[bytes]:
    """Return *messages* with damage: four bytes of *choices* make one fault."""
    made = list(messages)
    for start in range(0, len(choices) - 3, 4):
        what, where, one, two = choices[start : start + 4]
        if not made:
            return made
        at = (where * 256 + one) % len(made)
        victim = made[at]
        match what % 10:
            case 0:
                made.insert(at, victim)
            case 1:
                del made[at]
            case 2:
                made[at : at + 2] = made[at : at + 2][::-1]
            case 3:
                made[at] = victim[: two % (len(victim) + 1)]
            case 4:
                made[at] = victim + bytes(two)
            case 5 if victim:
                made[at] = bytes([two]) + victim[1:]
            case 6 if victim:
                made[at] = victim[: two % len(victim)] + bytes([one]) + victim[two % len(victim) + 1 :]
            case 7:
                made.insert(at, (choices[start:] * 20)[: two % 60])
            case 8 if len(victim) > 3:
                made[at] = victim[:1] + bytes([0, (2, 7, 13, 99)[two % 4]]) + victim[3:]
            case _ if len(victim) > 24:  # Another reference, or other shares.
                made[at] = victim[: 11 + two % 12] + bytes([one]) + victim[12 + two % 12 :]
    return made
