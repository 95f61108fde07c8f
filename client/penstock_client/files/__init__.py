"""Recorded ticks: read DBN, CSV and Parquet alike, merge and cut them, write them again (extra ``files``).

Names are loaded when first used: an error's class alone costs no NumPy.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from penstock_client.files.columns import ColumnMapping, read_mapping
    from penstock_client.files.dbn import write_dbn
    from penstock_client.files.errors import TickFileError
    from penstock_client.files.joining import Order, busiest_start, merge, order_of, select
    from penstock_client.files.pieces import open_pieces
    from penstock_client.files.reader import open_ticks, write_ticks
    from penstock_client.files.sessions import RecordedSession, of_session, recorded_session
    from penstock_client.files.tick_file import TickFile

__all__ = [
    "ColumnMapping",
    "Order",
    "RecordedSession",
    "TickFile",
    "TickFileError",
    "busiest_start",
    "merge",
    "of_session",
    "open_pieces",
    "open_ticks",
    "order_of",
    "read_mapping",
    "recorded_session",
    "select",
    "write_dbn",
    "write_ticks",
]

_HOMES = {
    "columns": ("ColumnMapping", "read_mapping"),
    "dbn": ("write_dbn",),
    "errors": ("TickFileError",),
    "joining": ("Order", "busiest_start", "merge", "order_of", "select"),
    "pieces": ("open_pieces",),
    "reader": ("open_ticks", "write_ticks"),
    "sessions": ("RecordedSession", "of_session", "recorded_session"),
    "tick_file": ("TickFile",),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    """Load *name* from the module it lives in."""
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{home}"), name)


def __dir__() -> list[str]:
    """Name what can be loaded."""
    return sorted([*globals(), *__all__])
