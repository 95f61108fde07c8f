"""The checklist: every item, once, in the order of the page.

the ids are those of the page, each once
"""

from __future__ import annotations

from typing import Final

from penstock_host.checklist import clock, cpu, firmware, gpu, irq, kernel, memory, network, process
from penstock_host.checklist.items import Item

_GROUPS: Final = "CINGFP"


def _place(item: Item) -> tuple[int, int]:
    return _GROUPS.index(item.item_id[0]), int(item.item_id[1:])


ITEMS: Final[tuple[Item, ...]] = tuple(
    sorted(
        (
            *cpu.ITEMS,
            *kernel.ITEMS,
            *memory.ITEMS,
            *irq.ITEMS,
            *network.ITEMS,
            *clock.ITEMS,
            *gpu.ITEMS,
            *firmware.ITEMS,
            *process.ITEMS,
        ),
        key=_place,
    )
)

ITEM_IDS: Final = tuple(item.item_id for item in ITEMS)
BY_ID: Final = {item.item_id: item for item in ITEMS}
assert len(BY_ID) == len(ITEMS), "an id stands twice"
