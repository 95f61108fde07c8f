"""The two records of the wire are, byte for byte, what the contract says.

The tick is checked against ``databento-dbn``, which owns the format; the prediction against tables written out here,
so that a field that moves is noticed even when the dtype still adds up.
"""

from __future__ import annotations

import struct

import databento_dbn
import numpy as np
import pytest

from penstock.v1 import records
from penstock.v1.records import PREDICTION_DTYPE, TICK_DTYPE, PredictionFlag, PredictionHash

# (field, offset, bytes), in the order of DBN's record.rs: the RecordHeader, then Mbp1Msg, then its BidAskPair.
TICK_TABLE = [
    ("length", 0, 1),
    ("rtype", 1, 1),
    ("publisher_id", 2, 2),
    ("instrument_id", 4, 4),
    ("ts_event", 8, 8),
    ("price", 16, 8),
    ("size", 24, 4),
    ("action", 28, 1),
    ("side", 29, 1),
    ("flags", 30, 1),
    ("depth", 31, 1),
    ("ts_recv", 32, 8),
    ("ts_in_delta", 40, 4),
    ("sequence", 44, 4),
    ("bid_px", 48, 8),
    ("ask_px", 56, 8),
    ("bid_sz", 64, 4),
    ("ask_sz", 68, 4),
    ("bid_ct", 72, 4),
    ("ask_ct", 76, 4),
]
TICK_STRUCT = struct.Struct("<BBHIQqIBBBBQiIqqIIII")

PREDICTION_TABLE = [
    ("sequence", 0, 8),
    ("ts_event", 8, 8),
    ("ts_recv", 16, 8),
    ("instrument_id", 24, 4),
    ("model_serial", 28, 4),
    ("flags", 32, 4),
    ("clock", 36, 1),
    ("horizons", 37, 1),
    ("batch", 38, 2),
    ("received_ns", 40, 8),
    ("wire_ns", 48, 8),
    ("stage_ns", 56, 24),
    ("forecasts", 80, 48),
]
PREDICTION_STRUCT = struct.Struct("<QQQIIIBBHQQ6I" + "ffHH" * 4)

HASH_LEAVES_OUT = {"clock", "batch", "received_ns", "wire_ns", "stage_ns"}

# Our field and where databento-dbn keeps it.
DBN_NAMES = {name: name for name, _, _ in TICK_TABLE if name != "length"} | {
    name: f"{name}_00" for name in ("bid_px", "ask_px", "bid_sz", "ask_sz", "bid_ct", "ask_ct")
}


def table_of(dtype: np.dtype) -> list[tuple[str, int, int]]:
    return [(name, dtype.fields[name][1], dtype.fields[name][0].itemsize) for name in dtype.names]


def dbn_value(message: databento_dbn.MBP1Msg, name: str) -> int:
    value = getattr(message, DBN_NAMES[name])
    if name in {"action", "side"}:
        return ord(str(value))
    return int(value)


def decode_dbn(data: bytes) -> list[databento_dbn.MBP1Msg]:
    decoder = databento_dbn.DBNDecoder()
    decoder.write(data)
    return [item for item in decoder.decode() if isinstance(item, databento_dbn.MBP1Msg)]


def distinct_message() -> databento_dbn.MBP1Msg:
    """Make a message in which no two fields hold the same bytes, so that swapped fields show."""
    return databento_dbn.MBP1Msg(
        publisher_id=0x0102,
        instrument_id=0x03040506,
        ts_event=0x0708090A0B0C0D0E,
        price=-0x1011121314151617,
        size=0x18191A1B,
        action=databento_dbn.Action.TRADE,
        side=databento_dbn.Side.BID,
        depth=0x1C,
        ts_recv=0x1D1E1F2021222324,
        flags=0x90,
        ts_in_delta=-0x25262728,
        sequence=0x292A2B2C,
        levels=databento_dbn.BidAskPair(
            bid_px=0x2D2E2F3031323334,
            ask_px=0x35363738393A3B3C,
            bid_sz=0x3D3E3F40,
            ask_sz=0x41424344,
            bid_ct=0x45464748,
            ask_ct=0x494A4B4C,
        ),
    )


def test_tick_has_the_offsets_and_sizes_of_the_table() -> None:
    assert table_of(TICK_DTYPE) == TICK_TABLE
    assert TICK_DTYPE.itemsize == records.TICK_BYTES == TICK_STRUCT.size == 80


def test_prediction_has_the_offsets_and_sizes_of_the_table() -> None:
    assert table_of(PREDICTION_DTYPE) == PREDICTION_TABLE
    assert PREDICTION_DTYPE.itemsize == records.PREDICTION_BYTES == PREDICTION_STRUCT.size == 128


@pytest.mark.parametrize(("dtype", "size"), [(TICK_DTYPE, 80), (PREDICTION_DTYPE, 128), (records.FORECAST_DTYPE, 12)])
def test_record_fields_cover_every_byte_once(dtype: np.dtype, size: int) -> None:
    covered = [offset + byte for _, offset, width in table_of(dtype) for byte in range(width)]
    assert sorted(covered) == list(range(size))


def test_every_number_of_a_record_is_little_endian() -> None:
    for dtype in (TICK_DTYPE, PREDICTION_DTYPE, records.FORECAST_DTYPE):
        for name in dtype.names:
            base = dtype.fields[name][0].base
            assert base.names or base.newbyteorder("<") == base, name


def test_tick_of_a_distinct_message_reads_as_databento_wrote_it() -> None:
    message = distinct_message()
    data = bytes(message)
    tick = records.ticks_from_bytes(data)[0]
    assert tick["length"] == records.TICK_LENGTH_WORDS == data[0]
    assert {name: int(tick[name]) for name in DBN_NAMES} == {name: dbn_value(message, name) for name in DBN_NAMES}
    assert tuple(int(value) for value in tick) == TICK_STRUCT.unpack(data)


def test_tick_written_by_us_is_byte_for_byte_what_databento_writes() -> None:
    message = distinct_message()
    tick = np.zeros(1, TICK_DTYPE)
    tick["length"] = records.TICK_LENGTH_WORDS
    for name in DBN_NAMES:
        tick[name] = dbn_value(message, name)
    assert tick.tobytes() == bytes(message)


@pytest.mark.recorded
def test_conformance_file_reads_the_same_through_databento(recorded_file) -> None:
    messages = decode_dbn(recorded_file("dbn_conformance/test_data.mbp-1.dbn").read_bytes())
    ticks = records.ticks_from_bytes(b"".join(bytes(message) for message in messages))
    assert len(messages) == len(ticks) == 2
    assert ticks["rtype"].tolist() == [records.TICK_RTYPE] * 2
    for message, tick in zip(messages, ticks, strict=True):
        assert {name: int(tick[name]) for name in DBN_NAMES} == {name: dbn_value(message, name) for name in DBN_NAMES}


@pytest.mark.recorded
def test_conformance_file_ends_with_the_records_themselves(recorded_file) -> None:
    data = recorded_file("dbn_conformance/test_data.mbp-1.dbn").read_bytes()
    ticks = records.ticks_from_bytes(data[-2 * records.TICK_BYTES :])
    assert ticks.tobytes() == b"".join(bytes(message) for message in decode_dbn(data))
    assert ticks["sequence"].tolist() == [1170362, 1170364]
    assert ticks["bid_px"].tolist() == [3720250000000, 3720250000000]
    assert ticks["ask_px"].tolist() == [3720500000000, 3720500000000]


@pytest.mark.recorded
@pytest.mark.parametrize("schema", ["trades", "tbbo", "mbo", "bbo-1s", "mbp-10"])
def test_records_of_other_schemas_are_told_by_length_and_rtype(recorded_file, schema: str) -> None:
    decoder = databento_dbn.DBNDecoder()
    decoder.write(recorded_file(f"dbn_conformance/test_data.{schema}.dbn").read_bytes())
    heads = {bytes(item)[:2] for item in decoder.decode() if not isinstance(item, databento_dbn.Metadata)}
    tick_head = bytes([records.TICK_LENGTH_WORDS, records.TICK_RTYPE])
    # tbbo is mbp-1 sampled on trades: the same rtype and length, so the same record.
    assert (heads == {tick_head}) is (schema == "tbbo")


def test_undefined_values_are_those_of_databento() -> None:
    assert records.UNDEFINED_PRICE == databento_dbn.UNDEF_PRICE
    assert records.UNDEFINED_TIME == databento_dbn.UNDEF_TIMESTAMP
    assert int(databento_dbn.RType.MBP_1) == records.TICK_RTYPE


def test_book_flags_are_those_of_databento() -> None:
    ours = {
        "F_LAST": records.BookFlag.LAST,
        "F_TOB": records.BookFlag.TOP_OF_BOOK,
        "F_SNAPSHOT": records.BookFlag.SNAPSHOT,
        "F_MBP": records.BookFlag.MARKET_BY_PRICE,
        "F_BAD_TS_RECV": records.BookFlag.BAD_TS_RECV,
        "F_MAYBE_BAD_BOOK": records.BookFlag.MAYBE_BAD_BOOK,
    }
    assert {name: int(getattr(databento_dbn, name)) for name in ours} == {name: int(ours[name]) for name in ours}


def test_numbers_that_stand_in_predictions_never_change() -> None:
    flags = {flag.name: int(flag) for flag in PredictionFlag}
    assert flags == {
        "WARMING": 1,
        "LATE": 2,
        "STALE": 4,
        "DEGRADED": 8,
        "SKIPPED": 16,
        "BOOK_ONE_SIDED": 32,
        "BOOK_CROSSED": 64,
        "BOOK_UNSOUND": 128,
        "TIME_BACKWARDS": 256,
    }
    assert [clock.name for clock in records.Clock] == ["UNSPECIFIED", "USER", "KERNEL", "NIC_HARDWARE", "GPU", "TSC"]
    assert [int(clock) for clock in records.Clock] == list(range(6))
    stages = ["RECEIVE", "RING", "FEATURES", "UPLOAD", "PREDICT", "DOWNLOAD", "EGRESS", "TOTAL"]
    assert [(stage.name, int(stage)) for stage in records.Stage] == [(name, at) for at, name in enumerate(stages)]
    assert stages.index("EGRESS") == records.STAGES_IN_RECORD
    assert records.PROBABILITY_ONE == 2**16 - 1


def test_prediction_reads_as_a_c_struct_of_the_same_fields() -> None:
    values = (
        *(0x0102030405060708, 0x090A0B0C0D0E0F10, 0x1112131415161718, 0x191A1B1C, 0x1D1E1F20, 0x21222324),
        *(0x25, 0x26, 0x2728, 0x292A2B2C2D2E2F30, 0x3132333435363738),
        *range(0x40000000, 0x40000006),
        *(0.5, 0.25, 1, 2, -0.5, 0.125, 3, 4, 1.5, 2.5, 5, 6, -1.5, 3.5, 7, 8),
    )
    prediction = records.predictions_from_bytes(PREDICTION_STRUCT.pack(*values))[0]
    scalars = [name for name, _, _ in PREDICTION_TABLE[:11]]
    assert tuple(int(prediction[name]) for name in scalars) == values[:11]
    assert tuple(prediction["stage_ns"].tolist()) == values[11:17]
    assert tuple(number for forecast in prediction["forecasts"].tolist() for number in forecast) == values[17:]


@pytest.mark.parametrize("extra", [1, 79, -1])
def test_tick_bytes_of_a_wrong_length_are_refused_with_both_numbers(extra: int) -> None:
    with pytest.raises(ValueError, match=rf"80 bytes each: bytes={160 + extra}, left over={extra % 80}"):
        records.ticks_from_bytes(bytes(160 + extra))


@pytest.mark.parametrize("extra", [1, 127, -1])
def test_prediction_bytes_of_a_wrong_length_are_refused_with_both_numbers(extra: int) -> None:
    with pytest.raises(ValueError, match=rf"128 bytes each: bytes={256 + extra}, left over={extra % 128}"):
        records.predictions_from_bytes(bytes(256 + extra))


def test_records_are_views_of_the_bytes_and_not_copies() -> None:
    buffer = bytearray(160)
    ticks = records.ticks_from_bytes(buffer)
    buffer[80:82] = b"\x14\x01"
    assert ticks["length"].tolist() == [0, 20]
    assert not records.ticks_from_bytes(bytes(80)).flags.writeable


def hash_of(data: bytes) -> str:
    digest = PredictionHash()
    digest.update(records.predictions_from_bytes(data))
    return digest.hexdigest()


def test_prediction_hash_sees_each_byte_but_those_that_runs_differ_in() -> None:
    plain = bytes(records.PREDICTION_BYTES)
    ignored = {
        offset + byte for name, offset, width in PREDICTION_TABLE if name in HASH_LEAVES_OUT for byte in range(width)
    }
    for position in range(records.PREDICTION_BYTES):
        changed = bytearray(plain)
        changed[position] = 1
        assert (hash_of(bytes(changed)) == hash_of(plain)) is (position in ignored), position


def test_prediction_hash_leaves_out_late_stale_and_degraded_alone() -> None:
    plain = np.zeros(1, PREDICTION_DTYPE)
    for bit in range(32):
        changed = plain.copy()
        changed["flags"] = 1 << bit
        left_out = 1 << bit in {PredictionFlag.LATE, PredictionFlag.STALE, PredictionFlag.DEGRADED}
        assert (hash_of(changed.tobytes()) == hash_of(plain.tobytes())) is left_out, bit


def test_prediction_hash_is_the_same_for_any_split_and_changes_nothing() -> None:
    data = np.random.default_rng(7).integers(0, 256, 10 * records.PREDICTION_BYTES, dtype=np.uint8)
    predictions = records.predictions_from_bytes(data.tobytes())
    split = PredictionHash()
    for part in np.split(predictions, [1, 1, 4, 9]):
        split.update(part)
    assert split.hexdigest() == hash_of(data.tobytes())
    assert predictions.tobytes() == data.tobytes()
