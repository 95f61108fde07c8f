"""One DBN file while it is written: whole records only, a name that says whether it is complete.

    NAME.mbp-1.dbn.partial     being written, or left by a daemon that was killed
    NAME.mbp-1.dbn             complete: closed in order, or mended at the next start

Records go straight to the kernel, so a killed daemon loses none that ``write`` took; ``close`` waits for the disk, so
a complete file survives a power cut. After a failed write the file is cut back to whole records.

    size == header_bytes + ticks * TICK_BYTES      after every call
"""

from __future__ import annotations

import datetime as dt
import errno
import os
from collections import Counter
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Final, NamedTuple, Protocol

from penstock.v1.records import TICK_BYTES, TICK_DTYPE

PARTIAL_SUFFIX: Final = ".partial"
FILE_SUFFIX: Final = ".mbp-1.dbn"
DATASET_OF_MANY: Final = "PENSTOCK"  # Where a session's instruments are of several datasets, or of one DBN can't hold.
DBN_VERSION: Final = 3

_BUFFERS_MAX: Final = 1024  # IOV_MAX.
_DATASET_CHARACTERS_MAX: Final = 15
_SYMBOL_CHARACTERS_MAX: Final = 64  # As in Hello; DBN's own limit is 70.
_TS_RECV_OFFSET: Final = TICK_DTYPE.fields["ts_recv"][1] if TICK_DTYPE.fields else 0
_EPOCH: Final = dt.date(1970, 1, 1)
_DAY_NS: Final = 86_400 * 10**9
_PREFIX_BYTES: Final = 8  # "DBN", the version, and the length of the rest of the header.


class RecordedInstrument(Protocol):
    """What a recording needs to know about an instrument; ``penstock.v1.Instrument`` has it."""

    @property
    def instrument_id(self) -> int:
        """Stands in the records."""

    @property
    def dataset(self) -> str:
        """Where the symbol is defined; may be empty."""

    @property
    def symbol(self) -> str:
        """The venue's name."""

    @property
    def size_scale(self) -> int:
        """Units of the size fields per contract or coin."""


class _Interval(NamedTuple):
    """What databento-dbn asks of a mapping's interval."""

    start_date: dt.date
    end_date: dt.date
    symbol: str


class _Mapping(NamedTuple):
    """What databento-dbn asks of a mapping."""

    raw_symbol: str
    intervals: list[_Interval]


def encode_header(instruments: Sequence[RecordedInstrument], start_ns: int, end_ns: int) -> bytes:
    """Return a DBN header; its length depends on the instruments alone.

    A DBN header has one short dataset, and each symbol once in printable ASCII: names that do not fit are spelled in a
    way that does, and stand in full in metadata.json.

    Args:
        instruments: of the session.
        start_ns: ts_recv of the first record.
        end_ns: ts_recv of the last record; not before start_ns.
    """
    import databento_dbn as dbn  # Only a daemon that records needs it.

    start_date, end_date = _date(start_ns), _date(end_ns) + dt.timedelta(days=1)
    names = header_symbols(instruments)
    metadata = dbn.Metadata(
        dataset=header_dataset(instruments),
        start=start_ns,
        end=end_ns,
        stype_in=dbn.SType.RAW_SYMBOL,
        stype_out=dbn.SType.INSTRUMENT_ID,
        schema=dbn.Schema.MBP_1,
        symbols=names,
        mappings=[
            _Mapping(name, [_Interval(start_date, end_date, str(one.instrument_id))])
            for name, one in zip(names, instruments, strict=True)
        ],
        ts_out=False,
        version=DBN_VERSION,
    )
    return bytes(metadata.encode())


def header_dataset(instruments: Sequence[RecordedInstrument]) -> str:
    """Return the dataset that all *instruments* share, where a header can hold it."""
    datasets = {one.dataset for one in instruments}
    dataset = datasets.pop() if len(datasets) == 1 else ""
    fits = dataset.isascii() and dataset.isprintable() and 0 < len(dataset) <= _DATASET_CHARACTERS_MAX
    return dataset if fits else DATASET_OF_MANY


def header_symbols(instruments: Sequence[RecordedInstrument]) -> list[str]:
    """Return a name for each of *instruments*, all different: its symbol, where a header can hold that."""
    times = Counter(one.symbol for one in instruments)  # A feed may have thousands.
    names: list[str] = []
    taken: set[str] = set()
    for one in instruments:
        name = one.symbol if times[one.symbol] == 1 else f"{one.dataset}/{one.symbol}"
        if name.isascii() and name.isprintable() and len(name) <= _SYMBOL_CHARACTERS_MAX and name not in taken:
            names.append(name)
        else:
            plain = "".join(character if " " < character <= "~" else "?" for character in name)
            names.append(f"{plain[: _SYMBOL_CHARACTERS_MAX - 11]}#{one.instrument_id}")  # 11: "#" and any u32.
        taken.add(names[-1])
    return names


class RecordingFile:
    """A file that is open for writing."""

    def __init__(self, path: Path, instruments: Sequence[RecordedInstrument]) -> None:
        """Begin *path*, which gets its name when it is closed.

        Raises:
            OSError: it can't be made, or is there already; nothing of it is left then.
        """
        if path.exists():
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), os.fspath(path))
        self.path = path
        self.ticks = 0
        self.sound = True  # False: what stands in it is not known any more, it must be abandoned.
        self._instruments = tuple(instruments)
        self._partial = path.with_name(path.name + PARTIAL_SUFFIX)
        header = encode_header(self._instruments, 0, 0)
        self._header_bytes = len(header)
        self._descriptor = os.open(self._partial, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            _write_all(self._descriptor, [header], 0)
        except OSError:
            os.close(self._descriptor)
            self._partial.unlink(missing_ok=True)
            raise

    @property
    def size_bytes(self) -> int:
        """Bytes in the file."""
        return self._header_bytes + self.ticks * TICK_BYTES

    def write(self, chunks: Sequence[bytes]) -> None:
        """Append *chunks*, each whole records.

        Raises:
            OSError: the disk took only some of the records, or none; ``ticks`` says how many are in the file.
        """
        try:
            _write_all(self._descriptor, chunks, self.size_bytes)
        except OSError:
            self._cut()
            raise
        self.ticks += sum(map(len, chunks)) // TICK_BYTES

    def _cut(self) -> None:
        """Count the whole records that a failed write left, and remove what follows them."""
        try:
            self.ticks = (os.fstat(self._descriptor).st_size - self._header_bytes) // TICK_BYTES
            os.ftruncate(self._descriptor, self.size_bytes)
        except OSError:
            self.sound = False

    def close(self) -> None:
        """Complete the file: its span in the header, its bytes on the disk, its name. An empty one is removed.

        Raises:
            OSError: it stays partial, and is mended when a recorder starts in its folder again.
        """
        try:
            if self.ticks:
                complete_file(self._descriptor, self._instruments, self._header_bytes, self.ticks)
                self._partial.rename(self.path)
                sync_folder(self.path.parent)
            else:
                self._partial.unlink(missing_ok=True)
        finally:
            os.close(self._descriptor)

    def abandon(self) -> None:
        """Let go of the file as it is."""
        os.close(self._descriptor)


def complete_file(descriptor: int, instruments: Sequence[RecordedInstrument], header_bytes: int, ticks: int) -> None:
    """Write the span of the file's records into its header, and wait until all of it is on the disk.

    Raises:
        OSError: the disk refused.
    """
    start_ns = _ts_recv_ns(descriptor, header_bytes)
    end_ns = _ts_recv_ns(descriptor, header_bytes + (ticks - 1) * TICK_BYTES)
    header = encode_header(instruments, start_ns, max(start_ns, end_ns))
    assert len(header) == header_bytes, "a header of other length would overwrite records"
    os.pwrite(descriptor, header, 0)
    os.fdatasync(descriptor)


def mend_partial(partial: Path) -> int:
    """Complete a file that a killed daemon left: cut to whole records and renamed; removed where it has none.

    Returns:
        The number of its records.

    Raises:
        OSError: it can't be read or written.
    """
    descriptor = os.open(partial, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        prefix = os.pread(descriptor, _PREFIX_BYTES, 0)
        header_bytes = _PREFIX_BYTES + int.from_bytes(prefix[4:8], "little")
        size = os.fstat(descriptor).st_size
        ticks = max(size - header_bytes, 0) // TICK_BYTES
        if prefix[:3] != b"DBN" or not ticks:
            partial.unlink()
            return 0
        os.ftruncate(descriptor, header_bytes + ticks * TICK_BYTES)
        os.fdatasync(descriptor)
    finally:
        os.close(descriptor)
    complete = partial.with_name(partial.name.removesuffix(PARTIAL_SUFFIX))
    partial.rename(complete)
    sync_folder(complete.parent)
    return ticks


def sync_folder(folder: Path) -> None:
    """Wait until the names in *folder* are on the disk.

    Raises:
        OSError: the disk refused.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write_all(descriptor: int, chunks: Sequence[bytes], at: int) -> None:
    left = [memoryview(chunk) for chunk in chunks]
    while left:
        taken = os.pwritev(descriptor, list(islice(left, _BUFFERS_MAX)), at)
        if taken <= 0:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        at += taken
        left = _after(left, taken)


def _ts_recv_ns(descriptor: int, record_at: int) -> int:
    return int.from_bytes(os.pread(descriptor, 8, record_at + _TS_RECV_OFFSET), "little")


def _after(buffers: list[memoryview], taken_bytes: int) -> list[memoryview]:
    """Return what is left of *buffers* after the first *taken_bytes*."""
    for index, buffer in enumerate(buffers):
        if taken_bytes < buffer.nbytes:
            return [buffer[taken_bytes:], *buffers[index + 1 :]]
        taken_bytes -= buffer.nbytes
    return []


def _date(time_ns: int) -> dt.date:
    return _EPOCH + dt.timedelta(days=time_ns // _DAY_NS)
