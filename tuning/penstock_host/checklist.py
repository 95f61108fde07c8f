"""The checklist: every item, once, in the order of the page.

the ids are those of the page, each once
"""

from __future__ import annotations

from typing import Final

from penstock_host import items_cpu
from penstock_host.items import Item

ITEMS: Final[tuple[Item, ...]] = (*items_cpu.ITEMS,)

ITEM_IDS: Final = tuple(item.item_id for item in ITEMS)
BY_ID: Final = {item.item_id: item for item in ITEMS}
assert len(BY_ID) == len(ITEMS), "an id stands twice"
