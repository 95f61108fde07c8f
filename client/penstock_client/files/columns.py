"""How the columns of somebody's CSV or Parquet file become the fields of a tick: names, units, and what is missing.

Nothing is guessed: a file that is not in our own units says so in its mapping, and a value that does not fit the
mapping's unit is refused with the setting that would take it.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from penstock.v1.records import TICK_DTYPE
from penstock_client.files.catalogue import SIZE_SCALE_MAX
from penstock_client.files.errors import TickFileError
from penstock_client.instruments import NAME_CHARACTERS_MAX

PRICE_UNITS: Final = ("1e-9", "decimal")
TIME_UNITS: Final = ("ns", "us", "ms", "s", "iso8601")
SIZE_UNITS: Final = ("units", "decimal")

_UNITS: Final = {"price_unit": PRICE_UNITS, "time_unit": TIME_UNITS, "size_unit": SIZE_UNITS}
_TICK_FIELDS: Final = tuple(name for name in TICK_DTYPE.names or () if name not in ("length", "rtype"))
FIELDS: Final = (*_TICK_FIELDS, "symbol", "dataset")  # What a column may be mapped to.
REQUIRED_FIELDS: Final = ("ts_recv", "bid_px", "ask_px")
_OTHER_NAMES: Final = {f"{side}_{what}": f"{side}_{what}_00" for side in ("bid", "ask") for what in ("px", "sz", "ct")}
_SETTINGS: Final = ("price_unit", "time_unit", "size_unit", "size_scale", "dataset", "symbol")


@dataclass(frozen=True)
class ColumnMapping:
    """What the columns of a file mean.

    Attributes:
        columns: field of the tick to column of the file; a field that is not here is looked for under its own name
            and under its name in Databento's CSV files ("bid_px_00").
        price_unit: "1e-9" for whole numbers of 1e-9 of the quote currency, "decimal" for the currency itself.
        time_unit: "ns", "us", "ms" or "s" since the Unix epoch, or "iso8601".
        size_unit: "units" for whole numbers in the size scale, "decimal" for contracts or coins.
        size_scale: units per contract or coin; None for what metadata.json beside the file says, else 1.
        dataset: of files without such a column.
        symbol: of files without such a column that are about one instrument; empty for the file's name.
    """

    columns: Mapping[str, str] = field(default_factory=dict)
    price_unit: str = "1e-9"
    time_unit: str = "ns"
    size_unit: str = "units"
    size_scale: int | None = None
    dataset: str = ""
    symbol: str = ""

    def column_of(self, name: str, there: frozenset[str]) -> str | None:
        """Return the column of *there* that holds the field *name*, or None."""
        if name in self.columns:
            return self.columns[name]
        return next((one for one in (name, _OTHER_NAMES.get(name)) if one in there), None)


OWN: Final = ColumnMapping()  # What `penstock convert` writes.
DATABENTO: Final = ColumnMapping(
    price_unit="decimal", time_unit="iso8601"
)  # Its CSV files with pretty prices and times.
PRESETS: Final = {"penstock": OWN, "databento": DATABENTO}


def read_mapping(text: str) -> ColumnMapping:
    """Read a mapping as a person gives it.

    Args:
        text: a preset ("databento"), a TOML file (its name ends in .toml), or FIELD=COLUMN and SETTING=VALUE pairs
            with commas between them ("bid_px=bid,ask_px=ask,ts_recv=time,time_unit=ms,price_unit=decimal").

    Raises:
        TickFileError: says what is wrong with it and what may stand there.
    """
    if text in PRESETS:
        return PRESETS[text]
    if text.endswith(".toml"):
        return _from_toml(Path(text))
    columns: dict[str, Any] = {}
    settings: dict[str, Any] = {}
    for pair in text.split(","):
        name, equals, value = (part.strip() for part in pair.partition("="))
        if not (name and equals and value):
            raise TickFileError(
                "--columns",
                "this is neither a preset, a .toml file nor FIELD=COLUMN pairs",
                mend=f"write one of {', '.join(PRESETS)}, or pairs such as bid_px=bid,time_unit=ms",
                field="columns",
                value=pair,
            )
        # "symbol" and "dataset" are both: in pairs they name columns, as every other field does.
        (columns if name in FIELDS else settings)[name] = value
    return _build("--columns", columns, settings)


def _from_toml(path: Path) -> ColumnMapping:
    try:
        whole = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as exc:
        reason = exc.strerror if isinstance(exc, OSError) else exc
        raise TickFileError(
            path, f"this column mapping can't be read: {reason}", mend="see docs/tick-files.md"
        ) from exc
    columns = whole.pop("columns", {})
    if not isinstance(columns, dict):
        raise TickFileError(
            path, "columns is a table of FIELD = COLUMN", mend="write [columns]", field="columns", value=columns
        )
    return _build(path, columns, whole)


def _build(source: str | Path, columns: dict[str, Any], settings: dict[str, Any]) -> ColumnMapping:
    """Check and build; *source* stands in the sentences."""

    def refuse(problem: str, name: str, value: object, mend: str) -> TickFileError:
        return TickFileError(source, problem, mend=mend, field=name, value=value)

    for name, column in columns.items():
        if name not in FIELDS:
            raise refuse("a tick has no such field", name, column, f"take one of {', '.join(FIELDS)}")
        if not isinstance(column, str) or not column:
            raise refuse("a column is named by its text", name, column, "put the column's name in quotes")
    checked: dict[str, Any] = {}
    for name, value in settings.items():
        if name not in _SETTINGS:
            raise refuse("there is no such setting", name, value, f"take one of {', '.join(_SETTINGS)}")
        choices = _UNITS.get(name)
        if name == "size_scale":
            scale = (
                int(value)
                if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= 20
                else value
            )
            if not isinstance(scale, int) or isinstance(scale, bool) or not 1 <= scale <= SIZE_SCALE_MAX:
                raise refuse("a size scale is a whole number, at least 1", name, value, "write size_scale = 1000")
            checked[name] = scale
        elif choices is not None and value not in choices:
            raise refuse("this unit is not known", name, value, f"take one of {', '.join(choices)}")
        elif not isinstance(value, str) or len(value) > NAME_CHARACTERS_MAX:
            raise refuse(f"this is a text of at most {NAME_CHARACTERS_MAX} characters", name, value, "shorten it")
        else:
            checked[name] = value
    return ColumnMapping(columns=dict(columns), **checked)
