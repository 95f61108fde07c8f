"""What a refused message means, in a sentence for logs and metrics; the numbers are ``memory.Refusal``."""

from __future__ import annotations

from typing import Final

from penstock_daemon.feed.memory import Refusal

SENTENCES: Final[dict[Refusal, str]] = {
    Refusal.UNKNOWN_TYPE: "a message is of no type that the payload has: the stock that it names is in doubt",
    Refusal.WRONG_LENGTH: "a message is not as long as its type is: the stock that it names is in doubt",
    Refusal.WRONG_VALUE: "a field can't be: a side other than B and S, no shares, a printable other than Y and N, or a "
    "locate code that contradicts a stock's name or an order; the stock is in doubt, unless only a trade was told",
    Refusal.UNKNOWN_ORDER: "a message is about an order or a locate code that no earlier one named: the stock is in doubt",
    Refusal.ORDERS_FULL: "there was no room for an order: the stock is in doubt; raise feed.orders_max",
    Refusal.LEVELS_FULL: "there was no room for a price: the stock is in doubt; raise feed.levels_max",
    Refusal.TOO_LARGE: "more shares were taken from an order than it had: it is removed, and the stock is in doubt",
    Refusal.DUPLICATE_ORDER: "an order came under a reference that is taken: the first stays, and the stock is in doubt",
}
