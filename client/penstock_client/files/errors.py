"""The one error of tick files: whatever is wrong with a file, its sentence says where and what to do."""

from __future__ import annotations

import os

from penstock_client.errors import PenstockError


class TickFileError(PenstockError, ValueError):
    """A tick file can't be read, understood or written; the sentence names file, record, field, value and mend.

    Attributes:
        path: the file.
        record: the first offending record, counted from 0; None where the fault is not in one record.
        field: the offending field or column; empty where there is none.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        problem: str,
        *,
        mend: str,
        record: int | None = None,
        field: str = "",
        value: object = None,
    ) -> None:
        self._given = (problem, mend, value)
        self.path = os.fspath(path)
        self.record = record
        self.field = field
        where = self.path if record is None else f"{self.path}: record {record}"
        what = f" ({field}={value!r})" if field and value is not None else f" ({field})" if field else ""
        super().__init__(f"{where}: {problem}{what}; {mend}")

    def moved(self, records: int) -> TickFileError:
        """Return the same error of a piece that begins *records* into its file."""
        problem, mend, value = self._given
        record = None if self.record is None else self.record + records
        return TickFileError(self.path, problem, mend=mend, record=record, field=self.field, value=value)
