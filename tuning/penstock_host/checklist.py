"""The checklist: every item, once, in the order of the page.

the ids are those of the page, each once
"""

from __future__ import annotations

from typing import Final

from penstock_host import (
    items_clock,
    items_cpu,
    items_firmware,
    items_gpu,
    items_irq,
    items_kernel,
    items_memory,
    items_network,
    items_process,
)
from penstock_host.items import Item

_GROUPS: Final = "CINGFP"


def _place(item: Item) -> tuple[int, int]:
    return _GROUPS.index(item.item_id[0]), int(item.item_id[1:])


ITEMS: Final[tuple[Item, ...]] = tuple(
    sorted(
        (
            *items_cpu.ITEMS,
            *items_kernel.ITEMS,
            *items_memory.ITEMS,
            *items_irq.ITEMS,
            *items_network.ITEMS,
            *items_clock.ITEMS,
            *items_gpu.ITEMS,
            *items_firmware.ITEMS,
            *items_process.ITEMS,
        ),
        key=_place,
    )
)

ITEM_IDS: Final = tuple(item.item_id for item in ITEMS)
BY_ID: Final = {item.item_id: item for item in ITEMS}
assert len(BY_ID) == len(ITEMS), "an id stands twice"
