"""Recorded ticks: read DBN, CSV and Parquet alike, merge and cut them, write them again (extra ``files``)."""

from penstock_client.files.columns import ColumnMapping, read_mapping
from penstock_client.files.dbn import write_dbn
from penstock_client.files.errors import TickFileError
from penstock_client.files.merge import Order, busiest_start, merge, select
from penstock_client.files.reader import open_ticks, write_ticks
from penstock_client.files.tick_file import TickFile

__all__ = [
    "ColumnMapping",
    "Order",
    "TickFile",
    "TickFileError",
    "busiest_start",
    "merge",
    "open_ticks",
    "read_mapping",
    "select",
    "write_dbn",
    "write_ticks",
]
