"""explain: what an item is, why it matters here, its risk, how it is undone, and whose word it is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from penstock_host.change.journal import read_journal
from penstock_host.check import examine
from penstock_host.checklist.catalogue import BY_ID, ITEM_IDS
from penstock_host.cpu_lists import format_cpus
from penstock_host.faults import ProfileError

if TYPE_CHECKING:
    from penstock_host.host import Host

_SHOWN_MAX: Final = 3


def explain(host: Host, item_id: str) -> dict[str, str]:
    """Return what there is to say of an item, by heading.

    Raises:
        ProfileError: there is no such item.
    """
    item = BY_ID.get(item_id.upper())
    if item is None:
        raise ProfileError(f"explain: must be one of {', '.join(ITEM_IDS)}, was {item_id}")
    finding = examine(host, item, read_journal(host))
    here = [
        f"{setting.target} was {setting.found}" + (f"; {setting.mend}" if setting.mend else "")
        for setting in finding.telling[:_SHOWN_MAX]
    ]
    if len(finding.telling) > _SHOWN_MAX:
        here.append(f"and {len(finding.telling) - _SHOWN_MAX} more")
    hot = format_cpus(host.topology.hot) or "none"
    return {
        "id": item.item_id,
        "what": f"{item.title} ({item.scope}, {item.severity.value}, set at {item.persistence.value})",
        "wanted": item.wanted,
        "why": item.why,
        "why here": f"hot cores are {hot}; {finding.status.value}: {'; '.join(here)}",
        "risk": item.risk + (f"; refused while a daemon serves: {item.unsafe_online}" if item.unsafe_online else ""),
        "undo": item.undo,
        "source": item.source,
    }
